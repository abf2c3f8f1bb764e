package api

import (
	"context"
	"html/template"
	"net/http"
	"time"

	"postrider/internal/account"
	"postrider/internal/relay"
)

func (s *Server) senderRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/senders", ID: "list-senders", Tag: "Domains", Right: Read, OfAccount: true,
		Summary: "Single verified senders",
		Example: Example{Answer: object{"data": []any{exampleSender()}}},
	}, s.listSenders)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/senders", ID: "add-sender", Tag: "Domains", Right: Build, OfAccount: true, Status: http.StatusCreated,
		Summary: "Verify a single address", Doc: "For who cannot publish records for a domain. A mail with a link goes to the address; who opens it and agrees verifies it. Doing it again sends the link again.",
		Example: Example{Body: object{"address": "ann@shop.example"}, Answer: exampleSender()},
	}, s.addSender)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/senders/{address}", ID: "remove-sender", Tag: "Domains", Right: Build, OfAccount: true,
		Summary: "Remove a verified sender",
		Example: Example{Params: map[string]any{"address": "sam@shop.example"}, Answer: exampleSender()},
	}, s.removeSender)
	s.mux.HandleFunc("GET /verify/{token}", s.showLink)
	s.mux.HandleFunc("POST /verify/{token}", s.followLink)
}

// Sender is one address that mail may be sent from.
type Sender struct {
	ID       string     `json:"id"`
	Account  string     `json:"account"`
	Address  string     `json:"address"`
	Asked    time.Time  `json:"asked" doc:"When the link was sent; it is good for a week"`
	Verified *time.Time `json:"verified,omitempty"`
}

func newSender(v *relay.Sender) Sender {
	return Sender{v.ID.String(), v.Account.String(), v.Address, v.Asked, moment(v.Verified)}
}

func (s *Server) listSenders(ctx context.Context, p *Page) (*body[List[Sender]], error) {
	return listOf(ctx, *p, s.config.Senders.List, newSender, func(v *relay.Sender) relay.ID { return v.ID })
}

// NewSender is what POST /v1/senders takes.
type NewSender struct {
	Address  string `json:"address" maxLength:"400"`
	Verified bool   `json:"verified,omitempty" doc:"The operator's word is enough: no link is sent. For operators only"`
}

func (s *Server) addSender(ctx context.Context, in *body[NewSender]) (*body[Sender], error) {
	c := CallerOf(ctx)
	if in.Body.Verified && !c.Rights.Has(account.Operate) {
		return nil, at("body.verified", &relay.Error{Code: relay.Forbidden, Text: "Only operators verify an address by their word.", Advice: "Leave it out: a link goes to the address."})
	}
	v, err := s.config.Senders.Add(ctx, c.Actor, c.Into(), in.Body.Address, in.Body.Verified)
	if err != nil {
		return nil, err
	}
	return answer(newSender(v), nil)
}

type senderQuery struct {
	Address string `path:"address" maxLength:"400"`
}

func (s *Server) removeSender(ctx context.Context, q *senderQuery) (*body[Sender], error) {
	c := CallerOf(ctx)
	v, err := s.config.Senders.Remove(ctx, c.Actor, c.Account, q.Address)
	if err != nil {
		return nil, err
	}
	return answer(newSender(v), nil)
}

// linkPage is what the link in a mail leads to. Programs that open links in mail
// ahead of people do GET; only the button verifies.
type linkPage struct {
	Address string
	Asks    bool
	Trouble string
}

const linkHTML = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Postrider</title>
<style>body{font:1.1em/1.5 system-ui,sans-serif;max-width:36em;margin:4em auto;padding:0 1em}button{font:inherit;padding:.4em 1.2em}</style>
{{if .Trouble}}<h1>That did not work</h1>
<p>{{.Trouble}}</p>
{{else if .Asks}}<h1>May mail be sent in your name?</h1>
<p>Somebody asks to send mail from <strong>{{.Address}}</strong> through this relay. If you know nothing of it, close this page.</p>
<form method="post"><button>Yes, they may</button></form>
{{else}}<h1>Thank you</h1>
<p>Mail may be sent from <strong>{{.Address}}</strong> now. You can close this page.</p>
{{end}}</html>
`

func (s *Server) showLink(w http.ResponseWriter, r *http.Request) {
	v, err := s.config.Senders.Asked(r.Context(), r.PathValue("token"))
	s.writeLink(w, r, v, err)
}

func (s *Server) followLink(w http.ResponseWriter, r *http.Request) {
	by := relay.Actor{Name: "the link", Client: exchangeOf(r.Context()).client}
	v, err := s.config.Senders.Verify(r.Context(), by, r.PathValue("token"))
	s.writeLink(w, r, v, err)
}

func (s *Server) writeLink(w http.ResponseWriter, r *http.Request, v *relay.Sender, err error) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer") // the address of the page is a secret
	var page linkPage
	if err != nil {
		p := problem(err).(*Problem)
		if p.cause != nil {
			exchangeOf(r.Context()).failure = p.cause
		}
		page.Trouble = p.Detail + " " + p.Advice
		w.WriteHeader(p.Status)
	} else {
		page = linkPage{Address: v.Address, Asks: v.Verified.IsZero()}
	}
	_ = linkTemplate().Execute(w, page) // who has gone needs no page
}

func linkTemplate() *template.Template { return template.Must(template.New("link").Parse(linkHTML)) }

func exampleSender() object {
	return object{"id": "06dx0000000000000000000060", "account": ExampleAccount, "address": "ann@shop.example", "asked": ExampleTime, "verified": ExampleTime}
}
