package api

import (
	"context"
	"net/http"
	"time"

	"postrider/internal/domain"
	"postrider/internal/relay"
)

func (s *Server) domainRoutes() {
	named := object{"domain": "news.example"}
	Register(s, Route{Method: http.MethodGet, Path: "/v1/domains", ID: "list-domains", Tag: "Domains", Right: Read, OfAccount: true,
		Summary: "Sending domains",
		Example: Example{Answer: object{"data": []any{exampleDomain()}}},
	}, s.listDomains)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/domains", ID: "add-domain", Tag: "Domains", Right: Build, OfAccount: true, Status: http.StatusCreated,
		Summary: "Add a sending domain", Doc: "The answer has the records to publish. They are looked for once a minute in the first hour, then more seldom; ask for a check to have them looked at now. Nothing can be sent in the domain's name before the proof of ownership is seen.",
		Example: Example{Body: object{"name": "shop.example"}, Answer: object{"domain": exampleDomain(), "plan": examplePlan()}},
	}, s.addDomain)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/domains/{domain}", ID: "get-domain", Tag: "Domains", Right: Read, OfAccount: true,
		Summary: "One sending domain, with what the last check found",
		Example: Example{Params: named, Answer: exampleDomain()},
	}, s.getDomain)
	Register(s, Route{Method: http.MethodPatch, Path: "/v1/domains/{domain}", ID: "change-domain", Tag: "Domains", Right: Build, OfAccount: true,
		Summary: "Change the settings of a domain", Doc: "Fields that are left out stay. With a version, the change is refused where somebody else was faster.",
		Example: Example{Params: named, Body: object{"when_broken": "sandbox"}, Answer: exampleDomain()},
	}, s.changeDomain)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/domains/{domain}/records", ID: "domain-records", Tag: "Domains", Right: Read, OfAccount: true,
		Summary: "The records to publish", Doc: "It looks at what is published now: the SPF record that is proposed has in it what stands there already. Where the DNS provider is known, the words of its panel are told too.",
		Example: Example{Params: named, Answer: examplePlan()},
	}, s.domainRecords)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/domains/{domain}/check", ID: "check-domain", Tag: "Domains", Right: Build, OfAccount: true,
		Summary: "Look at a domain's records now", Doc: "It takes up to half a minute where name servers don't answer.",
		Example: Example{Params: named, Answer: exampleDomain()},
	}, s.checkDomain)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/domains/{domain}/rotate", ID: "rotate-domain", Tag: "Domains", Right: Build, OfAccount: true,
		Summary: "Make new DKIM keys", Doc: "The old keys sign until the new ones are seen in the DNS, and stay published for a week more.",
		Example: Example{Params: named, Answer: object{"domain": exampleDomain(), "plan": examplePlan()}},
	}, s.rotateDomain)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/domains/{domain}", ID: "remove-domain", Tag: "Domains", Right: Build, OfAccount: true,
		Summary: "Remove a sending domain", Doc: "Its keys are gone for good.",
		Example: Example{Params: named, Answer: exampleDomain()},
	}, s.removeDomain)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/zone", ID: "zone", Tag: "Domains", Right: Operators,
		Summary: "What the relay's own zone must hold", Doc: "Lines of a zone file: where bounces and tracking go, what may send, and the delegated DKIM keys of all domains.",
		Example: Example{Answer: object{"zone": "bounce.relay.example.com. 3600 IN MX 10 relay.example.com.\n"}},
	}, s.zone)
}

// Domain is a sending domain.
type Domain struct {
	ID         string           `json:"id"`
	Account    string           `json:"account"`
	Name       string           `json:"name" doc:"As it stands in the DNS"`
	Status     string           `json:"status" enum:"pending,verified,failing" doc:"pending: nothing can be sent in its name yet. failing: records that were there are missing; when_broken says what follows"`
	Publish    string           `json:"publish" enum:"txt,cname"`
	ReturnPath string           `json:"return_path" doc:"First label of the return-path host"`
	Tracking   string           `json:"tracking" doc:"First label of the tracking host"`
	Track      relay.Track      `json:"track,omitempty" doc:"What is tracked of mail in its name: some of opens, clicks and text, or off"`
	Broken     relay.BrokenRule `json:"when_broken" enum:"warn,sandbox"`
	Keys       []DKIMKey        `json:"keys" nullable:"false"`
	Verified   *time.Time       `json:"verified,omitempty" doc:"Since when the proof of ownership is seen"`
	Aligned    *time.Time       `json:"aligned,omitempty" doc:"Since when mail leaves with the domain's own return path"`
	Failing    *time.Time       `json:"failing,omitempty" doc:"Since when records are missing"`
	Checked    *time.Time       `json:"checked,omitempty"`
	Due        time.Time        `json:"due" doc:"Next check"`
	Findings   []relay.Finding  `json:"findings" nullable:"false" doc:"What the last check found"`
	Created    time.Time        `json:"created"`
	Version    int64            `json:"version"`
	// Certificate is told of single domains.
	Certificate *relay.HostCertificate `json:"tracking_certificate,omitempty" doc:"Where the certificate of the tracking host stands; not in lists"`
}

// DKIMKey is one key of a domain, without its private half.
type DKIMKey struct {
	Selector  string         `json:"selector"`
	Algorithm string         `json:"algorithm" enum:"rsa,ed25519"`
	Public    string         `json:"public" doc:"Value of its DNS record"`
	State     relay.KeyState `json:"state" enum:"waiting,signing,retired" doc:"waiting: to be published; it signs as soon as it is seen. retired: it signs no more, and stays published for a week"`
	Since     time.Time      `json:"since"`
}

func newDomain(d *relay.Domain) Domain {
	out := Domain{ID: d.ID.String(), Account: d.Account.String(), Name: d.Name, Status: "pending", Publish: d.Publish, ReturnPath: d.ReturnPath, Tracking: d.Tracking, Track: d.Track,
		Broken: d.Broken, Keys: []DKIMKey{}, Verified: moment(d.Verified), Aligned: moment(d.Aligned), Failing: moment(d.Failing), Checked: moment(d.Checked),
		Due: d.Due, Findings: d.Findings, Created: d.Created, Version: d.Version}
	switch {
	case !d.Failing.IsZero():
		out.Status = "failing"
	case !d.Verified.IsZero():
		out.Status = "verified"
	}
	for _, k := range d.Keys {
		out.Keys = append(out.Keys, DKIMKey{k.Selector, k.Algorithm, k.Public, k.State, k.Since})
	}
	if out.Findings == nil {
		out.Findings = []relay.Finding{}
	}
	return out
}

// moment is a time that may not have come.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (s *Server) listDomains(ctx context.Context, p *Page) (*body[List[Domain]], error) {
	return listOf(ctx, *p, s.config.Domains.List, newDomain, func(d *relay.Domain) relay.ID { return d.ID })
}

// listOf is one page of what a store gives by id, the oldest first.
func listOf[T, U any](ctx context.Context, p Page, list func(ctx context.Context, account, after relay.ID, limit int) ([]T, error), show func(T) U, id func(T) relay.ID) (*body[List[U]], error) {
	var after relay.ID
	if p.Cursor != "" {
		var err error
		if after, err = relay.ParseID(p.Cursor); err != nil {
			return nil, invalid("query.cursor", "This is no cursor of this list.", "Begin at the first page.")
		}
	}
	found, err := list(ctx, CallerOf(ctx).Account, after, p.Limit+1)
	if err != nil {
		return nil, err
	}
	out := List[U]{Data: []U{}}
	for i, v := range found {
		if i == p.Limit {
			out.Next = id(found[i-1]).String()
			break
		}
		out.Data = append(out.Data, show(v))
	}
	return answer(out, nil)
}

// NewDomain is what POST /v1/domains takes.
type NewDomain struct {
	Name string `json:"name" maxLength:"300" doc:"The domain; one with letters beyond ASCII may be written as people do"`
	domain.Settings
}

// PlannedDomain is a domain with the records to publish.
type PlannedDomain struct {
	Domain Domain       `json:"domain"`
	Plan   *domain.Plan `json:"plan"`
}

func (s *Server) addDomain(ctx context.Context, in *body[NewDomain]) (*body[PlannedDomain], error) {
	c := CallerOf(ctx)
	d, err := s.config.Domains.Add(ctx, c.Actor, c.Into(), in.Body.Name, in.Body.Settings)
	if err != nil {
		return nil, err
	}
	return s.planned(ctx, d)
}

// planned answers with the records to publish.
func (s *Server) planned(ctx context.Context, d *relay.Domain) (*body[PlannedDomain], error) {
	p, err := s.config.Domains.Records(ctx, d.Account, d.ID.String())
	return answer(PlannedDomain{newDomain(d), p}, err)
}

// OneDomain names one.
type OneDomain struct {
	Domain string `path:"domain" maxLength:"300" doc:"Name or id"`
}

// oneDomain answers with a domain and where its certificate stands.
func (s *Server) oneDomain(ctx context.Context, d *relay.Domain, err error) (*body[Domain], error) {
	if err != nil {
		return nil, err
	}
	out := newDomain(d)
	if s.config.Certificates != nil {
		if out.Certificate, err = s.config.Certificates.TrackingCertificate(ctx, d); err != nil {
			return nil, err
		}
	}
	return answer(out, nil)
}

func (s *Server) getDomain(ctx context.Context, q *OneDomain) (*body[Domain], error) {
	d, err := s.config.Domains.Find(ctx, CallerOf(ctx).Account, q.Domain)
	return s.oneDomain(ctx, d, err)
}

type domainChange struct {
	Domain string `path:"domain" maxLength:"300" doc:"Name or id"`
	Body   domain.Settings
}

func (s *Server) changeDomain(ctx context.Context, in *domainChange) (*body[Domain], error) {
	c := CallerOf(ctx)
	d, err := s.config.Domains.Change(ctx, c.Actor, c.Account, in.Domain, in.Body)
	return s.oneDomain(ctx, d, err)
}

func (s *Server) domainRecords(ctx context.Context, q *OneDomain) (*body[*domain.Plan], error) {
	return answer(s.config.Domains.Records(ctx, CallerOf(ctx).Account, q.Domain))
}

func (s *Server) checkDomain(ctx context.Context, q *OneDomain) (*body[Domain], error) {
	c := CallerOf(ctx)
	d, err := s.config.Domains.Check(ctx, c.Actor, c.Account, q.Domain)
	return s.oneDomain(ctx, d, err)
}

func (s *Server) rotateDomain(ctx context.Context, q *OneDomain) (*body[PlannedDomain], error) {
	c := CallerOf(ctx)
	d, err := s.config.Domains.Rotate(ctx, c.Actor, c.Account, q.Domain)
	if err != nil {
		return nil, err
	}
	return s.planned(ctx, d)
}

func (s *Server) removeDomain(ctx context.Context, q *OneDomain) (*body[Domain], error) {
	c := CallerOf(ctx)
	d, err := s.config.Domains.Remove(ctx, c.Actor, c.Account, q.Domain)
	if err != nil {
		return nil, err
	}
	return answer(newDomain(d), nil)
}

// OwnZone is the answer to GET /v1/zone.
type OwnZone struct {
	Zone string `json:"zone" doc:"Lines of a zone file"`
}

func (s *Server) zone(ctx context.Context, _ *struct{}) (*body[OwnZone], error) {
	text, err := s.config.Domains.Zone(ctx)
	return answer(OwnZone{text}, err)
}

func exampleDomain() object {
	return object{"id": "06dx0000000000000000000050", "account": ExampleAccount, "name": "shop.example", "status": "verified", "publish": "txt", "return_path": "bounce",
		"tracking": "track", "when_broken": "warn", "verified": ExampleTime, "aligned": ExampleTime, "checked": ExampleTime, "due": "2026-03-01T20:30:00Z",
		"keys": []any{object{"selector": "pr2603r", "algorithm": "rsa", "public": "v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A", "state": "signing", "since": ExampleTime}},
		"findings": []any{object{"check": "ownership", "name": "_postrider.shop.example", "type": "TXT", "status": "good", "found": []string{"postrider-verify=x7k2p9"},
			"expected": []string{"postrider-verify=x7k2p9"}, "text": "The domain is proved to be yours."}},
		"created": ExampleTime, "version": 3, "tracking_certificate": object{"host": "track.shop.example", "state": "there", "expires": "2026-05-01T08:30:00Z",
			"text": "There is a certificate, until 2026-05-01; it is renewed from 2026-04-01 on."}}
}

func examplePlan() object {
	return object{"domain": "shop.example", "zone": "shop.example", "records": []any{
		object{"purpose": "ownership", "name": "_postrider.shop.example", "host": "_postrider", "type": "TXT", "value": "postrider-verify=x7k2p9", "required": true,
			"note": "Proves that the domain is yours. Leave it there."},
		object{"purpose": "return-path", "name": "bounce.shop.example", "host": "bounce", "type": "CNAME", "value": "bounce.relay.example.com", "required": false,
			"note": "Bounces come back here, and SPF passes in your own name."}}}
}
