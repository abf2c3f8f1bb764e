package storetest

import (
	"slices"
	"time"

	"postrider/internal/relay"
)

// alert keeps an incident of the account, with one thing to be told.
func (f *fixture) alert(account relay.ID, subject string) *relay.Alert {
	f.Helper()
	a := &relay.Alert{ID: NewID(noon), Account: account, Kind: relay.AlertBlock, Subject: subject, Severity: relay.SeverityWarning, Opened: noon, Title: "It is ü wrong", Text: "x", Level: 1,
		Figures: []relay.AlertFigure{{Name: "share", Value: "5 %"}}, Seen: noon, Told: noon}
	f.must(f.db.PutAlert(f.Context(), a, []*relay.AlertSend{f.told(a)}))
	return a
}

func (f *fixture) told(a *relay.Alert) *relay.AlertSend {
	shown := relay.Alert{Title: a.Title, Text: a.Text, Level: a.Level, Figures: a.Figures, Seen: a.Seen, Told: a.Told}
	return &relay.AlertSend{ID: NewID(noon), Alert: a.ID, Account: a.Account, Target: "a@x.test", Due: noon, Kind: relay.ChannelMail, News: relay.AlertOpened, Shown: shown,
		Of: relay.AlertOf{Account: a.Account, Kind: a.Kind, Subject: a.Subject, Severity: a.Severity, Opened: a.Opened}}
}

func (f *fixture) channel(account relay.ID) *relay.AlertChannel {
	f.Helper()
	c := &relay.AlertChannel{ID: NewID(noon), Account: account, Kind: relay.ChannelSlack, Name: "ü", Shown: "https://hooks.example.com/…", Sealed: []byte{1, 0, 255}, Created: noon}
	f.must(f.db.AddAlertChannel(f.Context(), somebody, c, 1000))
	return c
}

// due are what is to be told at a time.
func (f *fixture) due(at time.Time) []*relay.AlertSend {
	f.Helper()
	all, err := f.db.DueAlertSends(f.Context(), at, 10)
	f.must(err)
	return all
}

var alertTests = []test{
	{"nobody waits for who takes nothing", func(f *fixture) {
		a := f.alert(f.me, "Gmail")
		var tell []*relay.AlertSend
		for i := range 12 {
			s := f.told(a)
			if s.Target = "dead@x.test"; i == 11 {
				s.Target = "lives@x.test"
			}
			tell = append(tell, s)
		}
		f.must(f.db.PutAlert(f.Context(), a, tell))
		var targets []string
		for _, s := range f.due(noon.Add(time.Hour)) {
			targets = append(targets, s.Target)
		}
		f.equal("the first of each receiver", targets, []string{"a@x.test", "dead@x.test", "lives@x.test"})
	}},
	{"one incident about a thing", func(f *fixture) {
		a := f.alert(f.me, "Gmail")
		f.equal("kept", f.get(f.db.Alert(f.Context(), f.me, a.ID)), any(a))
		again := *a
		again.ID, again.Version = NewID(noon), 0
		if err := f.db.PutAlert(f.Context(), &again, []*relay.AlertSend{f.told(&again)}); relay.CodeOf(err) != relay.Conflict {
			f.Errorf("a second one: %v", err)
		}
		if n := len(f.due(noon)); n != 1 {
			f.Errorf("%d things to be told; want that of the first", n)
		}
		stale := *a
		a.Level, a.Severity = 2, relay.SeverityCritical
		f.must(f.db.PutAlert(f.Context(), a, nil))
		if err := f.db.PutAlert(f.Context(), &stale, nil); relay.CodeOf(err) != relay.Conflict {
			f.Errorf("a stale version: %v", err)
		}
		a.Ended = noon.Add(time.Hour)
		f.must(f.db.PutAlert(f.Context(), a, nil))
		f.must(f.db.PutAlert(f.Context(), &again, nil)) // the first has ended
		open, err := f.db.OpenAlerts(f.Context())
		f.must(err)
		f.equal("open", open, []*relay.Alert{&again})
		ended, err := f.db.Alerts(f.Context(), f.me, relay.AlertFilter{Ended: true, Kind: relay.AlertBlock})
		f.must(err)
		f.equal("ended", ended, []*relay.Alert{a})
		if _, err := f.db.TakeAlert(f.Context(), somebody, f.me, a.ID, "alert.mute", func(*relay.Alert) {}); relay.CodeOf(err) != relay.Conflict {
			f.Errorf("muted after its end: %v", err)
		}
		muted, err := f.db.TakeAlert(f.Context(), somebody, f.me, again.ID, "alert.mute", func(a *relay.Alert) { a.Muted = noon })
		f.must(err)
		f.equal("muted", f.get(f.db.Alert(f.Context(), f.me, again.ID)), any(muted))
		f.must(f.db.EndAlerts(f.Context(), noon.Add(2*time.Hour)))
		all, err := f.db.Alerts(f.Context(), f.me, relay.AlertFilter{})
		f.must(err)
		if len(all) != 1 || len(f.due(noon)) != 0 {
			f.Errorf("left %+v, %+v", all, f.due(noon))
		}
	}},
	{"what is told", func(f *fixture) {
		a, c := f.alert(f.me, "Gmail"), f.channel(f.me)
		f.equal("the channel", f.get(f.db.AlertChannel(f.Context(), f.me, c.ID)), any(c))
		s := f.told(a)
		s.Channel, s.Target, s.Due = c.ID, "", noon.Add(time.Minute)
		f.must(f.db.PutAlert(f.Context(), a, []*relay.AlertSend{s}))
		if n := len(f.due(noon)); n != 1 {
			f.Errorf("%d are due", n)
		}
		got := f.due(noon.Add(time.Minute))
		f.equal("due", got[1], s)
		s.Tries, s.Error, s.Due = 1, "it is off", noon.Add(time.Hour)
		f.must(f.db.SetAlertSend(f.Context(), s))
		state := f.get(f.db.AlertChannel(f.Context(), f.me, c.ID)).(*relay.AlertChannel).State
		if state.Failing.IsZero() || state.Error != "it is off" {
			f.Errorf("a failing channel: %+v", state)
		}
		s.Tries, s.Error, s.Due, s.Sent = 2, "", time.Time{}, noon
		f.must(f.db.SetAlertSend(f.Context(), s))
		if state = f.get(f.db.AlertChannel(f.Context(), f.me, c.ID)).(*relay.AlertChannel).State; !state.Failing.IsZero() || state.Error != "" || state.Sent != 1 {
			f.Errorf("one that works: %+v", state)
		}
		told, err := f.db.AlertSends(f.Context(), f.me, a.ID)
		f.must(err)
		f.equal("told", told[1], s)
		later := f.told(a)
		later.Channel, later.Target = c.ID, ""
		f.must(f.db.PutAlert(f.Context(), a, []*relay.AlertSend{later}))
		f.must(f.db.RemoveAlertChannel(f.Context(), somebody, f.me, c.ID))
		if slices.ContainsFunc(f.due(noon.Add(time.Hour)), func(s *relay.AlertSend) bool { return s.Channel == c.ID }) {
			f.Error("something is due to a channel that is gone")
		}
		if err := f.db.AddAlertChannel(f.Context(), somebody, &relay.AlertChannel{ID: NewID(noon), Account: f.me, Kind: relay.ChannelMail}, 0); relay.CodeOf(err) != relay.TooMany {
			f.Errorf("one too many: %v", err)
		}
	}},
	{"rules", func(f *fixture) {
		r := &relay.AlertRules{Account: f.me, Rules: map[relay.AlertKind]relay.AlertRule{relay.AlertBounces: {Warning: 0.5, Windows: []time.Duration{time.Hour}}, relay.AlertQuota: {Off: true}}}
		f.must(f.db.SetAlertRules(f.Context(), somebody, r))
		all, err := f.db.AlertRules(f.Context(), f.me)
		f.must(err)
		f.equal("rules", all, []*relay.AlertRules{r})
		f.must(f.db.SetAlertRules(f.Context(), somebody, r))
		r.Version = 1
		if err := f.db.SetAlertRules(f.Context(), somebody, r); relay.CodeOf(err) != relay.Conflict {
			f.Errorf("a stale version: %v", err)
		}
	}},
	{"replies that were seen", func(f *fixture) {
		s := f.ended(f.me, relay.EventDeferred, noon, "Gmail")
		f.ended(f.me, relay.EventDelivered, noon, "Gmail")
		all, err := f.db.SeenReplies(f.Context(), f.me, [2]relay.Kind{relay.EventDeferred, relay.EventBounced}, time.Now().Add(-time.Hour), 100)
		f.must(err)
		f.equal("replies", all, []*relay.SeenReply{{Delivery: s.Deliveries[0].ID, Provider: "Gmail", Domain: "x.test", Reply: relay.Reply{Code: 451, Enhanced: "4.7.1", Text: "Greylisted"},
			Category: "greylisted", Text: "Come back later.", Advice: "Wait."}})
		if all, err = f.db.SeenReplies(f.Context(), f.me, [2]relay.Kind{relay.EventDeferred, relay.EventBounced}, time.Now().Add(time.Hour), 100); err != nil || len(all) > 0 {
			f.Errorf("later: %v, %v", all, err)
		}
	}},
	{"webhooks in trouble", func(f *fixture) {
		well, ill := f.webhook(f.me), f.webhook(f.me)
		s := f.serve(f.lease)
		i := slices.IndexFunc(s.Webhooks, func(h *relay.Webhook) bool { return h.ID == ill.ID })
		f.must(f.db.SaveWebhooks(f.Context(), f.lease, []relay.WebhookState{{Webhook: ill.ID, Epoch: s.Epochs[i], Progress: relay.WebhookProgress{Failing: noon, Failures: 3}}}))
		all, err := f.db.WebhooksInTrouble(f.Context())
		f.must(err)
		if len(all) != 1 || all[0].Webhook.ID != ill.ID || all[0].Webhook.Account != f.me || all[0].Progress.Failures != 3 {
			f.Errorf("%+v; want only %s, not %s", all, ill.ID, well.ID)
		}
	}},
}
