package alert

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"postrider/internal/limit"
	"postrider/internal/relay"
)

// look finds all that is wrong, but for certificates of nodes.
func (w *Watch) look(ctx context.Context, now time.Time) (seen []Seen, err error) {
	own, err := w.store.AlertRules(ctx, relay.Everyone)
	if err != nil {
		return nil, err
	}
	set := map[relay.ID]Rules{}
	for _, r := range own {
		set[r.Account] = w.config.Rules.For(r.Rules)
	}
	rules := func(account relay.ID) Rules {
		if r, ok := set[account]; ok {
			return r
		}
		return w.config.Rules
	}
	counts := Counts{}
	for _, window := range Windows() {
		if counts[window], err = w.store.Recent(ctx, relay.Everyone, now.Add(-window)); err != nil {
			return nil, err
		}
	}
	seen = append(Rates(counts, rules), Wide(counts, w.config.Rules)...)
	if err := w.audit(ctx, now); err != nil {
		return nil, err
	}
	seen = append(seen, w.quotasUsed(rules, now)...)
	domains, err := w.failingDomains(ctx, rules)
	if err != nil {
		return nil, err
	}
	hooks, err := w.failingHooks(ctx, rules, now)
	if err != nil {
		return nil, err
	}
	hosts, err := w.hosts(ctx, rules, now)
	if err != nil {
		return nil, err
	}
	seen = append(append(append(seen, domains...), hooks...), hosts...)
	return append(seen, w.listings(ctx, now)...), nil
}

// quota is a limit that is nearly used up.
type quota struct {
	limit.Warning
	account relay.ID
	object  string
}

// auditFrom is how far back the audit log is read at first: the longest period of
// a limit.
const (
	auditFrom  = 32 * 24 * time.Hour
	auditPage  = 1000
	auditSlack = 2 * time.Minute // nodes' clocks, and commits that took long
)

// audit reads what the audit log has of limits and domains since the last time.
func (w *Watch) audit(ctx context.Context, now time.Time) error {
	since := w.audited.Add(-auditSlack)
	if w.audited.IsZero() {
		since = now.Add(-auditFrom)
	}
	for _, action := range []string{"limit.warning", "domain.check"} {
		for before := (relay.ID{}); ; {
			entries, err := w.store.Changes(ctx, relay.Everyone, relay.ChangeFilter{Action: action, Since: since, Before: before, Limit: auditPage})
			if err != nil {
				return err
			}
			for _, e := range entries {
				w.note(e)
				before = e.ID
			}
			if len(entries) < auditPage {
				break
			}
		}
	}
	w.audited = now
	return nil
}

func (w *Watch) note(e *relay.Change) {
	at := place{e.Account, e.Object}
	if e.Action != "limit.warning" {
		var d struct {
			Failing time.Time `json:"failing"`
		}
		if err := json.Unmarshal(e.After, &d); err != nil {
			w.log.Warn("an entry of the audit log can't be read", "id", e.ID, "err", err)
		} else if !d.Failing.IsZero() {
			w.domains[at] = true // whether it still is, the domain itself says
		}
		return
	}
	q := quota{account: e.Account, object: e.Object}
	if err := json.Unmarshal(e.After, &q.Warning); err != nil {
		w.log.Warn("an entry of the audit log can't be read", "id", e.ID, "err", err)
		return
	}
	before := w.quotas[at]
	if q.Until.After(before.Until) || q.Until.Equal(before.Until) && q.Percent > before.Percent {
		w.quotas[at] = q
	}
}

// quotasUsed are limits that are nearly used up, or are.
func (w *Watch) quotasUsed(rules func(relay.ID) Rules, now time.Time) (seen []Seen) {
	for at, q := range w.quotas {
		if !now.Before(q.Until) {
			delete(w.quotas, at)
			continue
		}
		if rules(q.account)[relay.AlertQuota].Off {
			continue
		}
		s := Seen{Account: q.account, Kind: relay.AlertQuota, Subject: q.object, Level: 1, Severity: relay.SeverityWarning, Until: q.Until}
		switch q.Percent {
		case 90:
			s.Level = 2
		case 100:
			s.Level, s.Severity = 3, relay.SeverityCritical
		}
		s.Title = fmt.Sprintf("%d %% of a limit is used up: %s", q.Percent, q.Limit)
		s.Text = fmt.Sprintf("Of %s, the limit of %s, about %d are used up. It begins anew at %s.", q.Limit, q.Whose, q.Used, stamp(q.Until))
		s.Advice = "Until then mail beyond the limit is refused, with the time to come back. If so much is to be expected, ask for a higher limit; if not, look which program sends it: it may be a mistake, or somebody who has its password."
		s.Figures = []relay.AlertFigure{{Name: "used", Value: fmt.Sprint(q.Used)}, {Name: "limit", Value: q.Limit.String()}, {Name: "until", Value: stamp(q.Until)}}
		if !q.Credential.IsZero() {
			s.Figures = append(s.Figures, relay.AlertFigure{Name: "credential", Value: q.Credential.String()})
		}
		seen = append(seen, s)
	}
	return seen
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// failingDomains are those whose records are gone, of those that the audit log has
// told of.
func (w *Watch) failingDomains(ctx context.Context, rules func(relay.ID) Rules) (seen []Seen, err error) {
	for at := range w.domains {
		d, err := w.store.DomainByName(ctx, at.account, at.subject)
		if relay.CodeOf(err) == relay.NotFound && err != nil || err == nil && d.Failing.IsZero() {
			delete(w.domains, at)
			continue
		}
		if err != nil {
			return nil, err
		}
		if rules(at.account)[relay.AlertDomain].Off {
			continue
		}
		s := Seen{Account: at.account, Kind: relay.AlertDomain, Subject: d.Name, Level: 1, Severity: relay.SeverityWarning, Title: "Records of " + d.Name + " are gone",
			Text: fmt.Sprintf("Since %s the DNS does not have what it should for %s.", stamp(d.Failing), d.Name)}
		if d.Verified.IsZero() {
			s.Level, s.Severity = 2, relay.SeverityCritical
			s.Title = d.Name + " is not verified any more"
			s.Text += " That has gone on for longer than the grace period: its mail is treated as from an unverified domain."
		} else if d.Broken == relay.BrokenSandbox {
			s.Text += " If that goes on, its mail will be treated as from an unverified domain."
		}
		for _, f := range d.Findings {
			if f.Status == relay.Bad {
				s.Text += " " + f.Text
				s.Figures = append(s.Figures, relay.AlertFigure{Name: f.Check, Value: strings.TrimSpace(f.Name + " " + f.Type)})
			}
		}
		s.Advice = "It is the turn of whoever keeps the DNS of " + d.Name + ": publish the records again. \"postrider domain check " + d.Name + "\" shows each, and what it should be."
		seen = append(seen, s)
	}
	return seen, nil
}

// failingHooks are webhooks that take nothing.
func (w *Watch) failingHooks(ctx context.Context, rules func(relay.ID) Rules, now time.Time) (seen []Seen, err error) {
	all, err := w.store.WebhooksInTrouble(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		r := rules(h.Webhook.Account)[relay.AlertWebhook]
		disabled := h.Webhook.Status == relay.WebhookDisabled
		if r.Off || !disabled && len(r.Windows) > 0 && now.Sub(h.Progress.Failing) < r.Windows[0] {
			continue
		}
		s := Seen{Account: h.Webhook.Account, Kind: relay.AlertWebhook, Subject: h.Webhook.ID.String(), Level: 1, Severity: relay.SeverityWarning,
			Title:  "A webhook takes no events",
			Text:   fmt.Sprintf("Since %s all %d requests to the webhook %s have failed.", stamp(h.Progress.Failing), h.Progress.Failures, h.Webhook.ID),
			Advice: "It is the turn of whoever runs the receiver. \"postrider webhook failures " + h.Webhook.ID.String() + "\" shows what it answers. The events are kept, and sent when it works again.",
			Figures: []relay.AlertFigure{{Name: "failures", Value: fmt.Sprint(h.Progress.Failures)}, {Name: "since", Value: stamp(h.Progress.Failing)},
				{Name: "host", Value: host(h.Webhook.URL)}}}
		if disabled {
			s.Level, s.Severity, s.Title = 2, relay.SeverityCritical, "A webhook was disabled"
			s.Text += " It was disabled for that: no more events are sent."
			s.Advice = "It is the turn of whoever runs the receiver. When it works again, \"postrider webhook resume " + h.Webhook.ID.String() + "\" sends what it has missed."
		}
		seen = append(seen, s)
	}
	return seen, nil
}

// listings asks the lists now and then, and gives what they said last.
func (w *Watch) listings(ctx context.Context, now time.Time) []Seen {
	if w.config.Blocklists == nil || w.config.Rules[relay.AlertBlocklist].Off {
		return nil
	}
	if !w.listed.IsZero() && now.Sub(w.listed) < w.config.Lists {
		return w.lists
	}
	w.listed = now
	w.lists, w.unsure = nil, map[string]bool{}
	for _, f := range w.config.Blocklists(ctx) {
		switch f.Status {
		case relay.Bad:
			address, _, _ := strings.Cut(f.Text, " ")
			s := Seen{Account: relay.Everyone, Kind: relay.AlertBlocklist, Subject: f.Name + " " + address, Level: 2, Severity: relay.SeverityCritical,
				Title: address + " is on the blocklist " + f.Name, Text: fmt.Sprintf("The list %s has %s, which mail leaves from.", f.Name, address),
				Advice: "It is the operator's turn. " + f.Advice, Figures: []relay.AlertFigure{{Name: "list", Value: f.Name}, {Name: "address", Value: address}}}
			if len(f.Found) > 0 {
				s.Text += " It answers: " + strings.Join(f.Found, ", ") + "."
			}
			w.lists = append(w.lists, s)
		case relay.Unknown:
			w.unsure[f.Name] = true
		}
	}
	return w.lists
}

// certificates are those of this node that end soon.
func (w *Watch) certificates(now time.Time) (seen []Seen) {
	if w.config.Certificates == nil || w.config.Rules[relay.AlertCertificate].Off {
		return nil
	}
	for _, c := range w.config.Certificates() {
		if !c.Missing.IsZero() {
			seen = append(seen, w.lacking(c, now))
			continue
		}
		s, soon := w.ending(c, now)
		if !soon {
			continue
		}
		s.Account, s.Subject = relay.Everyone, w.subject(c)
		s.Text = fmt.Sprintf("The certificate of %s that node %s serves ends at %s. Clients refuse it from then on.", c.Name, w.config.Node, stamp(c.Expires))
		s.Advice = "It is the operator's turn: put a new one in the place of the files tls.cert and tls.key; it is read without a restart."
		s.Figures = append(s.Figures, relay.AlertFigure{Name: "node", Value: w.config.Node})
		if c.Renewed {
			s.Advice = "It is the operator's turn: the relay renews it by itself, and has not been able to. Its log says why; mostly port 80 or 443 of the name does not lead here."
		}
		seen = append(seen, s)
	}
	return seen
}

// firstWithin is how long a first certificate may take before somebody is told. A
// node that has begun less long ago ends no incident either.
const firstWithin = time.Hour

// lacking tells of a certificate of the relay that has not come.
func (w *Watch) lacking(c Certificate, now time.Time) Seen {
	s := Seen{Account: relay.Everyone, Kind: relay.AlertCertificate, Subject: w.subject(c), Severity: relay.SeverityWarning, Title: "There is no certificate of " + c.Name,
		Text:    fmt.Sprintf("Since %s node %s has asked for a certificate of %s, in vain. Clients get another one until then, which those that verify it refuse.", stamp(c.Missing), w.config.Node, c.Name),
		Advice:  "It is the operator's turn: the relay's log says what the authority answers; mostly the name, or port 80 or 443 of it, does not lead here.",
		Figures: []relay.AlertFigure{{Name: "node", Value: w.config.Node}}}
	if now.Sub(c.Missing) >= firstWithin {
		s.Level = 1
	}
	return s
}

// ending tells whether a certificate ends soon, and how grave that is.
func (w *Watch) ending(c Certificate, now time.Time) (s Seen, soon bool) {
	left, life := c.Expires.Sub(now), c.Expires.Sub(c.From)
	if left > min(w.config.Expiry[0], life/4) {
		return s, false
	}
	s = Seen{Kind: relay.AlertCertificate, Level: 1, Severity: relay.SeverityWarning, Title: "The certificate of " + c.Name + " ends soon",
		Figures: []relay.AlertFigure{{Name: "ends", Value: stamp(c.Expires)}}}
	if left <= min(w.config.Expiry[1], life/10) {
		s.Level, s.Severity = 2, relay.SeverityCritical
	}
	if left <= 0 {
		s.Title = "The certificate of " + c.Name + " has ended"
	}
	return s, true
}

// hosts are certificates of tracking hosts that end soon, or do not come. Their
// accounts are told: that the relay is at fault shows with its own, which its
// operators are told of.
func (w *Watch) hosts(ctx context.Context, rules func(relay.ID) Rules, now time.Time) (seen []Seen, err error) {
	if w.config.Hosts == nil {
		return nil, nil
	}
	all, err := w.config.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		s, soon := w.ending(c, now)
		if !c.Missing.IsZero() {
			soon, s = true, Seen{Kind: relay.AlertCertificate, Level: 1, Severity: relay.SeverityWarning, Title: "There is no certificate of " + c.Name}
		}
		if !soon || rules(c.Account)[relay.AlertCertificate].Off {
			continue
		}
		s.Account, s.Subject = c.Account, c.Name
		s.Text = fmt.Sprintf("The certificate of the tracking host %s ends at %s, and can't be renewed. From then on links in mail that was sent already show a warning, and new mail has links on the relay's own host. The authority says: %s", c.Name, stamp(c.Expires), c.Error)
		if !c.Missing.IsZero() {
			s.Text = fmt.Sprintf("The authority gives no certificate for the tracking host %s, last asked at %s. Until it does, links are on the relay's own host. It says: %s", c.Name, stamp(c.Missing), c.Error)
		}
		s.Advice = "It is the turn of whoever keeps the DNS of " + c.Name + ", where the authority speaks of that: see whether a CAA record keeps the authority out, DNSSEC is broken, or a proxy stands before the host. Else it is the operator's turn. It is asked for again by itself."
		seen = append(seen, s)
	}
	return seen, nil
}

// subject names a certificate: one that all nodes share is the same on each.
func (w *Watch) subject(c Certificate) string {
	if c.Renewed {
		return c.Name
	}
	return c.Name + " on " + w.config.Node
}

// disk is what there is to say of this node's data folder. Not sure: it can't be
// found out.
func (w *Watch) disk(ctx context.Context) (seen []Seen, sure bool) {
	if w.config.Disk == nil || w.config.Rules[relay.AlertDisk].Off {
		return nil, true
	}
	f := w.config.Disk(ctx)
	s := Seen{Account: relay.Everyone, Kind: relay.AlertDisk, Subject: w.config.Node, Level: 1, Severity: relay.SeverityWarning, Title: "The disk of node " + w.config.Node + " gets full",
		Text: fmt.Sprintf("The data folder is %s. %s", f.Name, f.Text), Advice: "It is the operator's turn. " + f.Advice,
		Figures: []relay.AlertFigure{{Name: "node", Value: w.config.Node}}}
	if len(f.Found) > 0 {
		s.Text += " " + f.Found[0] + "."
	}
	switch f.Status {
	case relay.Bad:
		s.Level, s.Severity, s.Title = 2, relay.SeverityCritical, "The disk of node "+w.config.Node+" is as good as full"
	case relay.Warning:
	default:
		return nil, f.Status != relay.Unknown
	}
	return []Seen{s}, true
}

// mine tells whether an incident is about something of this node's.
func (w *Watch) mine(a *relay.Alert) bool {
	if a.Kind == relay.AlertDisk {
		return w.config.Disk != nil && a.Subject == w.config.Node
	}
	if w.config.Certificates == nil {
		return false
	}
	for _, c := range w.config.Certificates() {
		if w.subject(c) == a.Subject {
			return true
		}
	}
	return false
}
