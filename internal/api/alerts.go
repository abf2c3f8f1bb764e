package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"postrider/internal/alert"
	"postrider/internal/relay"
)

func (s *Server) alertRoutes() {
	named, channel := map[string]any{"alert": ExampleAlert}, map[string]any{"channel": ExampleChannel}
	Register(s, Route{Method: http.MethodGet, Path: "/v1/alerts", ID: "list-alerts", Tag: "Alerts", Right: Read, OfAccount: true,
		Summary: "Incidents: what is wrong, and what was", Doc: "The newest first. Operators see those of the relay as a whole too, which have no account.",
		Example: Example{Params: map[string]any{"state": "open"}, Answer: object{"data": []any{exampleAlert()}}},
	}, s.listAlerts)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/alerts/{alert}", ID: "get-alert", Tag: "Alerts", Right: Read, OfAccount: true,
		Summary: "One incident, and what was told of it to whom",
		Example: Example{Params: named, Answer: exampleAlert()},
	}, s.getAlert)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/alerts/{alert}/acknowledge", ID: "acknowledge-alert", Tag: "Alerts", Right: Build, OfAccount: true,
		Summary: "Say that somebody looks after an incident", Doc: "Nobody is reminded of it any more. That it gets worse, or ends, is told.",
		Example: Example{Params: named, Answer: exampleAlert()},
	}, s.ackAlert)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/alerts/{alert}/mute", ID: "mute-alert", Tag: "Alerts", Right: Build, OfAccount: true,
		Summary: "Let nothing be told of an incident until a time", Doc: "If it goes on then, people are reminded. A time in the past ends it.",
		Example: Example{Params: named, Body: object{"until": ExampleTime}, Answer: exampleAlert()},
	}, s.muteAlert)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/alert-rules", ID: "get-alert-rules", Tag: "Alerts", Right: Read, OfAccount: true,
		Summary: "What an account is alerted of, and when",
		Example: Example{Answer: exampleRules()},
	}, s.getAlertRules)
	Register(s, Route{Method: http.MethodPatch, Path: "/v1/alert-rules", ID: "set-alert-rules", Tag: "Alerts", Right: Build, OfAccount: true,
		Summary: "Change what an account is alerted of", Doc: "Kinds that are left out stay as they are.",
		Example: Example{Body: object{"rules": []any{object{"kind": "bounce-rate", "on": true, "warning": 3, "critical": 8, "windows": []string{"1h"}}}}, Answer: exampleRules()},
	}, s.setAlertRules)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/alert-channels", ID: "list-alert-channels", Tag: "Alerts", Right: Read, OfAccount: true,
		Summary: "Where alerts are sent", Doc: "Without any, they go to the addresses of the account's owners and admins.",
		Example: Example{Answer: object{"data": []any{exampleChannel()}}},
	}, s.listAlertChannels)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/alert-channels", ID: "add-alert-channel", Tag: "Alerts", Right: Build, OfAccount: true, Status: http.StatusCreated,
		Summary: "Send alerts somewhere", Doc: "Of a webhook the secret that requests are signed with is in the answer, and not shown again.",
		Example: Example{Body: object{"kind": "mail", "to": "ops@shop.example"}, Answer: exampleAddedChannel()},
	}, s.addAlertChannel)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/alert-channels/{channel}", ID: "remove-alert-channel", Tag: "Alerts", Right: Build, OfAccount: true,
		Summary: "Send alerts somewhere no longer",
		Example: Example{Params: channel},
	}, s.removeAlertChannel)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/alert-channels/{channel}/test", ID: "test-alert-channel", Tag: "Alerts", Right: Build, OfAccount: true,
		Summary: "Send a sample now", Doc: "The answer is that of the hook; mail is on its way.",
		Example: Example{Params: channel, Answer: object{"took": 0.2}},
	}, s.testAlertChannel)
}

// Alert is an incident.
type Alert struct {
	ID       string          `json:"id"`
	Account  string          `json:"account,omitempty" doc:"Not there: of the relay as a whole"`
	Kind     relay.AlertKind `json:"kind" enum:"bounce-rate,complaint-rate,deferral-spike,provider-block,quota,domain-failing,certificate-expiring,webhook-failing,blocklisted,disk-low"`
	Subject  string          `json:"subject,omitempty" doc:"What it is about: a provider, a domain, a webhook, a limit; not there: the account"`
	Severity relay.Severity  `json:"severity" enum:"warning,critical" doc:"The gravest so far"`
	State    string          `json:"state" enum:"open,ended"`
	Opened   time.Time       `json:"opened"`
	Ended    *time.Time      `json:"ended,omitempty"`
	Seen     time.Time       `json:"seen" doc:"When it was so last"`
	Title    string          `json:"title"`
	Text     string          `json:"text" doc:"What was seen"`
	Advice   string          `json:"advice,omitempty" doc:"What to do, and whose turn it is"`
	Figures  []AlertFigure   `json:"figures" nullable:"false"`
	Taken    *time.Time      `json:"acknowledged,omitempty"`
	TakenBy  string          `json:"acknowledged_by,omitempty"`
	Muted    *time.Time      `json:"muted_until,omitempty"`
	Told     []AlertTold     `json:"told,omitempty" doc:"Only of one incident"`
}

// AlertFigure is one number that was seen.
type AlertFigure struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// AlertTold is something that was told of an incident, or is to be.
type AlertTold struct {
	ID      string            `json:"id" doc:"The same each time that it is sent"`
	News    relay.AlertNews   `json:"news" enum:"opened,worse,reminder,ended"`
	Channel string            `json:"channel,omitempty" doc:"Id; not there: an address of an owner or admin, or the operator's"`
	Kind    relay.ChannelKind `json:"kind" enum:"mail,webhook,slack"`
	To      string            `json:"to,omitempty"`
	Sent    *time.Time        `json:"sent,omitempty"`
	Tries   int               `json:"tries"`
	Next    *time.Time        `json:"next,omitempty" doc:"Of the next try; neither sent nor next: it was given up"`
	Error   string            `json:"error,omitempty"`
}

func newAlert(a *relay.Alert) Alert {
	out := Alert{ID: a.ID.String(), Kind: a.Kind, Subject: a.Subject, Severity: a.Severity, State: "open", Opened: a.Opened, Ended: moment(a.Ended), Seen: a.Seen,
		Title: a.Title, Text: a.Text, Advice: a.Advice, Figures: []AlertFigure{}, Taken: moment(a.Taken), TakenBy: a.TakenBy, Muted: moment(a.Muted)}
	if a.Account != relay.Everyone {
		out.Account = a.Account.String()
	}
	if out.Ended != nil {
		out.State = "ended"
	}
	for _, f := range a.Figures {
		out.Figures = append(out.Figures, AlertFigure(f))
	}
	return out
}

type alertsQuery struct {
	Page
	State string `query:"state" enum:"open,ended,all" default:"all"`
	Kind  string `query:"kind" maxLength:"40" doc:"Only of this kind"`
}

func (s *Server) listAlerts(ctx context.Context, q *alertsQuery) (*body[List[Alert]], error) {
	list := func(ctx context.Context, account, before relay.ID, limit int) ([]*relay.Alert, error) {
		return s.config.Alerts.Alerts(ctx, account, relay.AlertFilter{Kind: relay.AlertKind(q.Kind), Open: q.State == "open", Ended: q.State == "ended", Before: before, Limit: limit})
	}
	return listOf(ctx, q.Page, list, newAlert, func(a *relay.Alert) relay.ID { return a.ID })
}

type alertQuery struct {
	Alert string `path:"alert" maxLength:"100" doc:"Id"`
}

func alertID(text string) (relay.ID, error) { return parseID("path.alert", text, "alert") }

func (s *Server) getAlert(ctx context.Context, q *alertQuery) (*body[Alert], error) {
	id, err := alertID(q.Alert)
	if err != nil {
		return nil, err
	}
	c := CallerOf(ctx)
	a, err := s.config.Alerts.Alert(ctx, c.Account, id)
	if err != nil {
		return nil, err
	}
	told, err := s.config.Alerts.AlertSends(ctx, c.Account, id)
	if err != nil {
		return nil, err
	}
	out := newAlert(a)
	for _, t := range told {
		one := AlertTold{ID: t.ID.String(), News: t.News, Kind: t.Kind, To: t.Target, Sent: moment(t.Sent), Tries: t.Tries, Next: moment(t.Due), Error: t.Error}
		if !t.Channel.IsZero() {
			one.Channel = t.Channel.String()
		}
		out.Told = append(out.Told, one)
	}
	return answer(out, nil)
}

func (s *Server) ackAlert(ctx context.Context, q *alertQuery) (*body[Alert], error) {
	id, err := alertID(q.Alert)
	if err != nil {
		return nil, err
	}
	c := CallerOf(ctx)
	a, err := s.config.Alerts.Ack(ctx, c.Actor, c.Account, id)
	if err != nil {
		return nil, err
	}
	return answer(newAlert(a), nil)
}

// AlertMute is what POST /v1/alerts/{alert}/mute takes.
type AlertMute struct {
	Until time.Time `json:"until"`
}

type alertMute struct {
	Alert string `path:"alert" maxLength:"100" doc:"Id"`
	Body  AlertMute
}

func (s *Server) muteAlert(ctx context.Context, in *alertMute) (*body[Alert], error) {
	id, err := alertID(in.Alert)
	if err != nil {
		return nil, err
	}
	c := CallerOf(ctx)
	a, err := s.config.Alerts.Mute(ctx, c.Actor, c.Account, id, in.Body.Until)
	if err != nil {
		return nil, err
	}
	return answer(newAlert(a), nil)
}

// AlertRule is when one kind of alert is raised.
type AlertRule struct {
	Kind     relay.AlertKind `json:"kind" enum:"bounce-rate,complaint-rate,deferral-spike,provider-block,quota,domain-failing,certificate-expiring,webhook-failing"`
	On       bool            `json:"on"`
	Warning  float64         `json:"warning,omitempty" minimum:"0" maximum:"100" doc:"Percent; of rates only"`
	Critical float64         `json:"critical,omitempty" minimum:"0" maximum:"100" doc:"Percent"`
	Least    int64           `json:"least,omitempty" minimum:"0" doc:"There is no rate of fewer than so many"`
	Windows  []string        `json:"windows,omitempty" doc:"The spans that are looked at: 15m, 30m, 1h, 6h, 24h"`
	Own      bool            `json:"own,omitempty" doc:"The account has set it; else it is as the relay's configuration says"`
	Reset    bool            `json:"reset,omitempty" doc:"In a request: as the relay's configuration says again"`
}

// AlertRuleList is what GET and PATCH /v1/alert-rules speak of.
type AlertRuleList struct {
	Rules []AlertRule `json:"rules" nullable:"false"`
}

func newRules(r alert.RuleSet) AlertRuleList {
	out := AlertRuleList{Rules: []AlertRule{}}
	for _, kind := range alert.OfAccounts() {
		rule := r.Rules[kind]
		one := AlertRule{Kind: kind, On: !rule.Off, Own: slices.Contains(r.Own, kind)}
		if alert.IsRate(kind) {
			one.Warning, one.Critical, one.Least = rule.Warning, rule.Critical, rule.Least
			for _, w := range rule.Windows {
				one.Windows = append(one.Windows, shortSpan(w))
			}
		}
		out.Rules = append(out.Rules, one)
	}
	return out
}

func shortSpan(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

func (s *Server) getAlertRules(ctx context.Context, _ *struct{}) (*body[AlertRuleList], error) {
	r, err := s.config.Alerts.RulesOf(ctx, CallerOf(ctx).Into())
	if err != nil {
		return nil, err
	}
	return answer(newRules(r), nil)
}

func (s *Server) setAlertRules(ctx context.Context, in *body[AlertRuleList]) (*body[AlertRuleList], error) {
	change := map[relay.AlertKind]*relay.AlertRule{}
	for i, r := range in.Body.Rules {
		if r.Reset {
			change[r.Kind] = nil
			continue
		}
		rule := &relay.AlertRule{Off: !r.On, Warning: r.Warning, Critical: r.Critical, Least: r.Least}
		for _, w := range r.Windows {
			d, err := time.ParseDuration(w)
			if err != nil {
				return nil, invalid(fmt.Sprintf("body.rules[%d].windows", i), fmt.Sprintf("%q is not a span.", cut(w)), "Use 15m, 30m, 1h, 6h or 24h.")
			}
			rule.Windows = append(rule.Windows, d)
		}
		change[r.Kind] = rule
	}
	c := CallerOf(ctx)
	r, err := s.config.Alerts.SetRules(ctx, c.Actor, c.Into(), change)
	if err != nil {
		return nil, err
	}
	return answer(newRules(r), nil)
}

// AlertChannel is where alerts are sent.
type AlertChannel struct {
	ID      string            `json:"id"`
	Account string            `json:"account"`
	Kind    relay.ChannelKind `json:"kind" enum:"mail,webhook,slack"`
	To      string            `json:"to" doc:"The address; of a hook, as much of it as is no secret"`
	Name    string            `json:"name,omitempty"`
	Sent    int64             `json:"sent" doc:"What was taken, in all"`
	Last    *time.Time        `json:"last,omitempty" doc:"When something was taken last"`
	Failing *time.Time        `json:"failing,omitempty" doc:"Since when nothing is taken"`
	Error   string            `json:"error,omitempty" doc:"Of the last try, where it failed"`
	Created time.Time         `json:"created"`
}

// AddedAlertChannel is a channel with its secret.
type AddedAlertChannel struct {
	AlertChannel
	Secret string `json:"secret,omitempty" doc:"Of a webhook: what requests are signed with (Standard Webhooks); it is not shown again"`
}

func newChannel(c *relay.AlertChannel) AlertChannel {
	return AlertChannel{ID: c.ID.String(), Account: c.Account.String(), Kind: c.Kind, To: c.Shown, Name: c.Name, Sent: c.State.Sent, Last: moment(c.State.Last),
		Failing: moment(c.State.Failing), Error: c.State.Error, Created: c.Created}
}

func (s *Server) listAlertChannels(ctx context.Context, p *Page) (*body[List[AlertChannel]], error) {
	return listOf(ctx, *p, s.config.Alerts.Channels, newChannel, func(c *relay.AlertChannel) relay.ID { return c.ID })
}

func (s *Server) addAlertChannel(ctx context.Context, in *body[alert.Wish]) (*body[AddedAlertChannel], error) {
	c := CallerOf(ctx)
	made, secret, err := s.config.Alerts.Add(ctx, c.Actor, c.Into(), in.Body)
	if err != nil {
		return nil, err
	}
	return answer(AddedAlertChannel{newChannel(made), secret}, nil)
}

type alertChannelQuery struct {
	Channel string `path:"channel" maxLength:"100" doc:"Id"`
}

func (s *Server) removeAlertChannel(ctx context.Context, q *alertChannelQuery) (*struct{}, error) {
	id, err := parseID("path.channel", q.Channel, "channel")
	if err != nil {
		return nil, err
	}
	c := CallerOf(ctx)
	return nil, s.config.Alerts.Remove(ctx, c.Actor, c.Account, id)
}

func (s *Server) testAlertChannel(ctx context.Context, q *alertChannelQuery) (*body[WebhookAnswer], error) {
	id, err := parseID("path.channel", q.Channel, "channel")
	if err != nil {
		return nil, err
	}
	a, err := s.config.Alerts.Test(ctx, CallerOf(ctx).Account, id)
	if err != nil {
		return nil, err
	}
	return answer(WebhookAnswer{a.Status, a.Text, a.Error, a.Took.Seconds()}, nil)
}

func exampleAlert() object {
	return object{"id": ExampleAlert, "account": ExampleAccount, "kind": "provider-block", "subject": "Gmail", "severity": "critical", "state": "open", "opened": ExampleTime, "seen": ExampleTime,
		"title": "Gmail refuses mail", "text": strings.Join([]string{"18 of 20 messages for Gmail were refused in the last 30 minutes for the sake of their sender or content, 90 %.",
			"Most seen, 18 of the last 18, mostly for gmail.com: \"550 5.7.26 This message does not pass authentication checks\"."}, " "),
		"advice": "Publish the domain's records.", "figures": []any{object{"name": "share", "value": "90 %"}}}
}

func exampleRules() object {
	return object{"rules": []any{object{"kind": "bounce-rate", "on": true, "warning": 5, "critical": 10, "least": 50, "windows": []string{"1h", "24h"}}, object{"kind": "quota", "on": true}}}
}

func exampleChannel() object {
	return object{"id": ExampleChannel, "account": ExampleAccount, "kind": "mail", "to": "ops@shop.example", "sent": 3, "last": ExampleTime, "created": ExampleTime}
}

func exampleAddedChannel() object {
	o := exampleChannel()
	o["sent"] = 0
	delete(o, "last")
	return o
}
