package domain

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// Reader finds domains. An account's other than the one that is asked for are
// not there.
type Reader interface {
	Domain(ctx context.Context, account, id relay.ID) (*relay.Domain, error)
	DomainByName(ctx context.Context, account relay.ID, name string) (*relay.Domain, error)
	Domains(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Domain, error)
}

// Writer changes them, each change with its entry in the audit log. A change of
// a version that is not the present one is a relay.Error Conflict.
type Writer interface {
	AddDomain(ctx context.Context, by relay.Actor, d *relay.Domain) error
	SetDomain(ctx context.Context, by relay.Actor, account relay.ID, d *relay.Domain) error
	// CheckedDomain is SetDomain that mentions in the audit log what is new only.
	CheckedDomain(ctx context.Context, by relay.Actor, account relay.ID, d *relay.Domain) error
	RemoveDomain(ctx context.Context, by relay.Actor, account, id relay.ID) error
}

// Store keeps domains.
type Store interface {
	Reader
	Writer
}

// Config is what a Manager must know.
type Config struct {
	Service Service
	Rhythm  Rhythm
	// NewKey makes a key that waits to be published, its private half sealed.
	NewKey func(d *relay.Domain, selector, algorithm string, now time.Time) (relay.DKIMKey, error)
	NewID  func() (relay.ID, error)
	Log    *slog.Logger
}

// Manager adds, changes, checks and removes domains. Its errors are relay.Errors
// where people can do something about them.
type Manager struct {
	config Config
	store  Store
	dns    Asker
	slots  chan struct{} // looks under way
	now    func() time.Time
}

// maxLooks is how many domains are looked at at once, whoever asks: each takes up
// to a hundred questions and half a minute.
const maxLooks = 16

// NewManager makes a manager.
func NewManager(c Config, s Store, dns Asker) *Manager {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Manager{config: c, store: s, dns: dns, slots: make(chan struct{}, maxLooks), now: func() time.Time { return time.Now().Truncate(time.Microsecond) }}
}

// Settings are what people choose of a domain. Fields that are nil stay, or are
// what is usual: keys as TXT records, "bounce", "track", and the sandbox.
type Settings struct {
	Publish    *string           `json:"publish,omitempty" enum:"txt,cname" doc:"txt: keys stand in the domain's own zone. cname: they are delegated to the relay's, so that a rotation needs nothing of the owner"`
	ReturnPath *string           `json:"return_path,omitempty" doc:"First label of the return-path host; empty: none"`
	Tracking   *string           `json:"tracking,omitempty" doc:"First label of the tracking host; empty: none"`
	Track      *relay.Track      `json:"track,omitempty" doc:"What is tracked of mail in its name that nothing is said of by the message or its credential: some of opens, clicks and text (clicks of plain text), or off; empty: as the account says"`
	Broken     *relay.BrokenRule `json:"when_broken,omitempty" enum:"warn,sandbox" doc:"What follows when records have been gone for longer than the grace period"`
	Version    int64             `json:"version,omitempty" doc:"The version that the change is made to; another is a conflict. 0: whichever there is"`
}

// apply writes the settings into d.
func (s Settings) apply(d *relay.Domain, c Service) error {
	if s.Publish != nil {
		switch {
		case *s.Publish != PublishTXT && *s.Publish != PublishCNAME:
			return &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("%.40q is no way to publish keys.", *s.Publish), Advice: "Use \"txt\" or \"cname\"."}
		case *s.Publish == PublishCNAME && c.DKIMZone == "":
			return &relay.Error{Code: relay.Invalid, Text: "This relay has no zone of its own that keys could be delegated to.",
				Advice: "Use \"txt\", or set the relay's own domain ([service] domain)."}
		}
		d.Publish = *s.Publish
	}
	for _, l := range []struct {
		wanted *string
		kept   *string
	}{{s.ReturnPath, &d.ReturnPath}, {s.Tracking, &d.Tracking}} {
		if l.wanted == nil {
			continue
		}
		label := *l.wanted
		if label != "" {
			var err error
			if label, err = Label(label); err != nil {
				return err
			}
		}
		if l.kept == &d.ReturnPath && label != d.ReturnPath {
			d.Aligned = time.Time{} // the new one was never seen
		}
		*l.kept = label
	}
	if d.ReturnPath != "" && d.ReturnPath == d.Tracking {
		return &relay.Error{Code: relay.Invalid, Text: "The return-path host and the tracking host can't be the same.", Advice: "Give them different labels."}
	}
	if s.Track != nil {
		var err error
		if d.Track, err = relay.ParseTrack(string(*s.Track)); err != nil {
			return err
		}
	}
	if s.Broken != nil {
		if *s.Broken != relay.BrokenWarn && *s.Broken != relay.BrokenSandbox {
			return &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("%.40q is not what can follow.", *s.Broken), Advice: "Use \"warn\" or \"sandbox\"."}
		}
		d.Broken = *s.Broken
	}
	return nil
}

// Add asks for a domain: it makes its proof and its keys. Nothing can be sent in
// its name before the proof is published.
func (m *Manager) Add(ctx context.Context, by relay.Actor, account relay.ID, name string, s Settings) (*relay.Domain, error) {
	name, err := Name(name)
	if err != nil {
		return nil, err
	}
	if err := m.room(ctx, account); err != nil {
		return nil, err
	}
	id, err := m.config.NewID()
	if err != nil {
		return nil, err
	}
	now := m.now()
	d := &relay.Domain{ID: id, Account: account, Name: name, Proof: strings.ToLower(rand.Text()), Publish: PublishTXT,
		ReturnPath: "bounce", Tracking: "track", Broken: relay.BrokenSandbox, Created: now, Due: now}
	if err := s.apply(d, m.config.Service); err != nil {
		return nil, err
	}
	if d.Keys, err = m.newKeys(d, now); err != nil {
		return nil, err
	}
	if err := m.store.AddDomain(ctx, by, d); err != nil {
		return nil, err
	}
	return d, nil
}

// mostOpen is how many domains an account may have whose proof is not seen: each
// has keys that cost time to make, and is looked at again and again.
const mostOpen = 100

// room refuses an account that asks for ever more domains and proves none.
func (m *Manager) room(ctx context.Context, account relay.ID) error {
	open := 0
	for after := (relay.ID{}); ; {
		some, err := m.store.Domains(ctx, account, after, 500)
		if err != nil || len(some) == 0 {
			return err
		}
		for _, d := range some {
			if d.Verified.IsZero() {
				open++
			}
			after = d.ID
		}
		if open >= mostOpen {
			return &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("%d domains of this account wait for their records.", open), Advice: "Publish them, or remove those that are not needed."}
		}
	}
}

// newKeys makes a pair, RSA and Ed25519.
func (m *Manager) newKeys(d *relay.Domain, now time.Time) ([]relay.DKIMKey, error) {
	rsa, ed, err := selectors(d, now)
	if err != nil {
		return nil, err
	}
	var out []relay.DKIMKey
	for _, k := range []struct{ selector, algorithm string }{{rsa, "rsa"}, {ed, "ed25519"}} {
		key, err := m.config.NewKey(d, k.selector, k.algorithm, now)
		if err != nil {
			return nil, fmt.Errorf("make DKIM key: %w", err)
		}
		out = append(out, key)
	}
	return out, nil
}

// Find gives the account's domain of that id or name.
func (m *Manager) Find(ctx context.Context, account relay.ID, which string) (*relay.Domain, error) {
	if id, err := relay.ParseID(which); err == nil && !strings.Contains(which, ".") {
		return m.store.Domain(ctx, account, id)
	}
	name, err := Name(which)
	if err != nil {
		return nil, err
	}
	return m.store.DomainByName(ctx, account, name)
}

// List gives domains after the one of that id, the oldest first.
func (m *Manager) List(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Domain, error) {
	return m.store.Domains(ctx, account, after, limit)
}

// tries is how often a change is made anew when somebody else, most likely a
// check, was faster.
const tries = 4

// edit changes a domain. A version other than 0 must be the present one.
func (m *Manager) edit(ctx context.Context, by relay.Actor, account relay.ID, which string, version int64, f func(*relay.Domain) error) (*relay.Domain, error) {
	for n := 1; ; n++ {
		d, err := m.Find(ctx, account, which)
		if err != nil {
			return nil, err
		}
		if version != 0 && version != d.Version {
			return nil, &relay.Error{Code: relay.Conflict, Text: "Somebody else has changed the domain meanwhile.", Advice: "Look at it anew, and try again."}
		}
		if err := f(d); err != nil {
			return nil, err
		}
		err = m.store.SetDomain(ctx, by, d.Account, d)
		if err == nil {
			return d, nil
		}
		if relay.CodeOf(err) != relay.Conflict || n == tries {
			return nil, err
		}
	}
}

// Change sets what people choose.
func (m *Manager) Change(ctx context.Context, by relay.Actor, account relay.ID, which string, s Settings) (*relay.Domain, error) {
	return m.edit(ctx, by, account, which, s.Version, func(d *relay.Domain) error {
		d.Due = m.now()
		return s.apply(d, m.config.Service)
	})
}

// Rotate makes a new pair of keys, which signs as soon as it is seen.
func (m *Manager) Rotate(ctx context.Context, by relay.Actor, account relay.ID, which string) (*relay.Domain, error) {
	return m.edit(ctx, by, account, which, 0, func(d *relay.Domain) error {
		if slices.ContainsFunc(d.Keys, func(k relay.DKIMKey) bool { return k.State == relay.KeyWaiting && k.Algorithm == "rsa" }) {
			return &relay.Error{Code: relay.Conflict, Text: "New keys of " + d.Name + " wait to be published already.", Advice: "Publish them: \"postrider domain records " + d.Name + "\" shows them."}
		}
		now := m.now()
		// What was never seen signs nothing, and has no successor to wait for.
		d.Keys = slices.DeleteFunc(d.Keys, func(k relay.DKIMKey) bool { return k.State == relay.KeyWaiting })
		keys, err := m.newKeys(d, now)
		if err != nil {
			return err
		}
		d.Keys, d.Due = append(d.Keys, keys...), now
		return nil
	})
}

// Remove forgets a domain, its keys with it.
func (m *Manager) Remove(ctx context.Context, by relay.Actor, account relay.ID, which string) (*relay.Domain, error) {
	d, err := m.Find(ctx, account, which)
	if err != nil {
		return nil, err
	}
	return d, m.store.RemoveDomain(ctx, by, d.Account, d.ID)
}

// Plan is what the owner of a domain publishes, and where.
type Plan struct {
	Domain  string   `json:"domain"`
	Zone    string   `json:"zone" doc:"The zone that the records stand in"`
	Servers []string `json:"name_servers,omitempty"`
	Panel   *Panel   `json:"panel,omitempty" doc:"The words of the provider's panel, where it is known"`
	Records []Record `json:"records"`
}

// Records looks what is there, and says what is to be published.
func (m *Manager) Records(ctx context.Context, account relay.ID, which string) (*Plan, error) {
	d, err := m.Find(ctx, account, which)
	if err != nil {
		return nil, err
	}
	v, err := m.look(ctx, d)
	if err != nil {
		return nil, err
	}
	p := &Plan{Domain: d.Name, Zone: v.Zone, Servers: v.Servers, Records: Records(d, m.config.Service, v.Zone, v.Answers)}
	if panel := PanelOf(v.Servers); panel.Provider != "" {
		p.Panel = &panel
	}
	return p, nil
}

// look looks at a domain when its turn comes. The error is that of ctx: what was
// not answered for that is nobody's fault.
func (m *Manager) look(ctx context.Context, d *relay.Domain) (View, error) {
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return View{}, ctx.Err()
	}
	return Look(ctx, m.dns, d, m.config.Service), ctx.Err()
}

// Zone is what the relay's own zone must hold: see the function Zone.
func (m *Manager) Zone(ctx context.Context) (string, error) {
	var all []*relay.Domain
	for after := (relay.ID{}); ; {
		const page = 500
		found, err := m.store.Domains(ctx, relay.Everyone, after, page)
		if err != nil {
			return "", err
		}
		all = append(all, found...)
		if len(found) < page {
			return Zone(m.config.Service, all), nil
		}
		after = found[len(found)-1].ID
	}
}

// Check looks at a domain now, and acts on what it finds.
func (m *Manager) Check(ctx context.Context, by relay.Actor, account relay.ID, which string) (*relay.Domain, error) {
	d, err := m.Find(ctx, account, which)
	if err != nil {
		return nil, err
	}
	return m.check(ctx, by, d)
}

// check looks at d, and stores what comes of it. Of two that check it at once,
// one stores; the other gives what that one found.
func (m *Manager) check(ctx context.Context, by relay.Actor, d *relay.Domain) (*relay.Domain, error) {
	v, err := m.look(ctx, d)
	if err != nil {
		return nil, err
	}
	next, news := Advance(d, Judge(d, m.config.Service, v), m.now(), m.config.Rhythm)
	err = m.store.CheckedDomain(ctx, by, d.Account, next)
	if relay.CodeOf(err) == relay.Conflict && err != nil {
		now, rerr := m.store.Domain(ctx, d.Account, d.ID)
		if rerr != nil {
			return nil, errors.Join(err, rerr)
		}
		if now.Version != d.Version {
			return now, nil
		}
		if released, rerr := m.release(ctx, d); rerr != nil {
			return nil, rerr
		} else if !released {
			next, news = foreign(d, next, news)
		}
		err = m.store.CheckedDomain(ctx, by, d.Account, next)
	}
	if err != nil {
		return nil, fmt.Errorf("store what the check found: %w", err)
	}
	m.tell(next, news)
	return next, nil
}

// release takes a domain from an account that has lost its proof for longer than
// the grace period, whatever its settings say: d is proved to be another's, and
// nobody sends in somebody else's name.
func (m *Manager) release(ctx context.Context, d *relay.Domain) (bool, error) {
	holder, err := m.store.DomainByName(ctx, relay.Everyone, d.Name)
	if err != nil {
		return false, err
	}
	if holder.Account == d.Account || holder.Failing.IsZero() || m.now().Sub(holder.Failing) < m.config.Rhythm.Grace ||
		status(holder.Findings, Ownership, "") != relay.Bad {
		return false, nil
	}
	n := *holder
	n.Verified = time.Time{}
	if err := m.store.CheckedDomain(ctx, relay.Actor{Name: "postrider"}, n.Account, &n); err != nil {
		return false, err
	}
	m.tell(&n, []string{NewsUnverified})
	return true, nil
}

// foreign is what becomes of a domain that is proved to be this account's while
// another account has it.
func foreign(d, next *relay.Domain, news []string) (*relay.Domain, []string) {
	n := *next
	n.Verified = d.Verified
	n.Findings = slices.Clone(n.Findings)
	for i, f := range n.Findings {
		if f.Check == Ownership {
			f.Status, f.Text = relay.Bad, "The proof is published, but the domain is verified for another account of this relay."
			f.Advice = "Remove it there first. If that account is not yours, ask the operator of the relay."
			n.Findings[i] = f
		}
	}
	return &n, slices.DeleteFunc(news, func(s string) bool { return s == NewsVerified })
}

// tell logs what a check changed.
func (m *Manager) tell(d *relay.Domain, news []string) {
	for _, n := range news {
		args := []any{"domain", d.Name, "account", d.Account, "news", n}
		switch n {
		case NewsFailing, NewsUnaligned, NewsUnverified:
			for _, f := range d.Findings {
				if f.Status == relay.Bad || f.Check == ReturnPath && n == NewsUnaligned {
					args = append(args, cmp.Or(f.Name, f.Check), f.Text)
				}
			}
			m.config.Log.Warn("a domain's records are broken", args...)
		default:
			m.config.Log.Info("a domain's records were checked", args...)
		}
	}
}

// Look looks at a domain now, and changes nothing.
func (m *Manager) Look(ctx context.Context, d *relay.Domain) []relay.Finding {
	v, err := m.look(ctx, d)
	if err != nil {
		return []relay.Finding{{Check: "domain", Name: d.Name, Status: relay.Unknown, Text: "There was no time to look at it."}}
	}
	return Judge(d, m.config.Service, v)
}

// Service looks at the relay's own names.
func (m *Manager) Service(ctx context.Context) []relay.Finding {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	v := View{Answers: Answers{}}
	v.ask(ctx, m.dns, ServiceQuestions(m.config.Service))
	return JudgeService(m.config.Service, v.Answers)
}
