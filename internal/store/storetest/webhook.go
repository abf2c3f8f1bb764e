package storetest

import (
	"slices"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// webhook adds one to an account.
func (f *fixture) webhook(account relay.ID) *relay.Webhook {
	f.Helper()
	h := &relay.Webhook{ID: NewID(noon), Account: account, URL: "https://example.com/ü", Kinds: []relay.Kind{relay.EventBounced, relay.EventDelivered}, Tags: []string{"a"},
		Stream: relay.Broadcast, Credentials: []relay.ID{{3}}, Batch: 10, Wait: time.Second, Status: relay.WebhookActive, Created: noon,
		Secrets: []relay.WebhookSecret{{Sealed: []byte{1, 0, 255}, Created: noon, Until: noon.Add(time.Hour)}, {Sealed: []byte{2}, Created: noon}}}
	f.must(f.db.AddWebhook(f.Context(), somebody, h, 200))
	return h
}

// serve takes what there is for a node.
func (f *fixture) serve(lease int64) *store.Served {
	f.Helper()
	s, err := f.db.ServeWebhooks(f.Context(), lease)
	f.must(err)
	return s
}

// failed notes a failure of a webhook that this node serves.
func (f *fixture) failed(h *relay.Webhook) {
	f.Helper()
	s := f.serve(f.lease)
	i := slices.IndexFunc(s.Webhooks, func(g *relay.Webhook) bool { return g.ID == h.ID })
	if i < 0 {
		f.Fatalf("the node does not serve %s", h.ID)
	}
	f.must(f.db.SaveWebhooks(f.Context(), f.lease, []relay.WebhookState{{Webhook: h.ID, Epoch: s.Epochs[i], Progress: relay.WebhookProgress{Done: relay.FirstIDAt(noon), Failures: 1},
		Failures: []relay.WebhookFailure{{At: noon, Status: 500, Answer: "no\x00\xff", Took: time.Second}}}}))
}

func (f *fixture) progress(h *relay.Webhook) *relay.WebhookProgress {
	f.Helper()
	p, err := f.db.WebhookProgress(f.Context(), h.Account, h.ID)
	f.must(err)
	return p
}

var webhookTests = []test{
	{"kept", func(f *fixture) {
		h := f.webhook(f.me)
		f.reopen()
		f.equal("webhook", f.get(f.db.Webhook(f.Context(), f.me, h.ID)), any(h))
		h.URL, h.Secrets = "https://example.com/2", h.Secrets[1:]
		f.must(f.db.SetWebhook(f.Context(), somebody, f.me, h))
		if h.Version != 2 {
			f.Errorf("version %d", h.Version)
		}
		f.equal("changed", f.get(f.db.Webhook(f.Context(), f.me, h.ID)), any(h))
		stale := *h
		stale.Version = 1
		if err := f.db.SetWebhook(f.Context(), somebody, f.me, &stale); relay.CodeOf(err) != relay.Conflict {
			f.Errorf("a stale change: %v", err)
		}
		paused := *h
		paused.Status = relay.WebhookPaused
		f.must(f.db.SetWebhook(f.Context(), somebody, f.me, &paused))
		f.must(f.db.RemoveWebhook(f.Context(), somebody, f.me, h.ID))
		changes, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Object: h.ID.String()})
		f.must(err)
		f.equal("audit log", actions(changes), []string{"webhook.remove", "webhook.pause", "webhook.change", "webhook.add"})
		if all, err := f.db.Webhooks(f.Context(), relay.Everyone, relay.ID{}, 0); err != nil || len(all) != 0 {
			f.Errorf("after removal: %v %v", all, err)
		}
	}},
	{"so many", func(f *fixture) {
		f.webhook(f.me)
		f.webhook(f.account("other", relay.ID{}).ID)
		h := &relay.Webhook{ID: NewID(noon), Account: f.me, URL: "https://example.com/", Created: noon}
		if err := f.db.AddWebhook(f.Context(), somebody, h, 1); relay.CodeOf(err) != relay.TooMany {
			f.Errorf("one too many: %v", err)
		}
		f.must(f.db.AddWebhook(f.Context(), somebody, h, 2))
	}},
	{"progress", func(f *fixture) {
		h := f.webhook(f.me)
		began := f.progress(h)
		if age := time.Since(began.Done.Time()); age < -time.Minute || age > time.Minute {
			f.Errorf("a new webhook begins at %v", began.Done.Time())
		}
		s := f.serve(f.lease)
		if len(s.Webhooks) != 1 || s.Share != 1 {
			f.Fatalf("serves %+v", s)
		}
		f.equal("served", s.Webhooks[0], h)
		state := relay.WebhookState{Webhook: h.ID, Epoch: s.Epochs[0], Progress: relay.WebhookProgress{Done: NewID(noon), Until: NewID(noon), Sum: [2]uint64{3, 1<<64 - 1},
			Sent: 7, Delivered: noon, Failing: noon, Failures: 2, Next: noon, Aside: []relay.Aside{{Message: NewID(noon), From: NewID(noon), Since: noon, Failures: 1, Next: noon}}}}
		for i := range 130 {
			state.Failures = append(state.Failures, relay.WebhookFailure{At: noon, Event: relay.ID{1}, Events: i + 1, Status: 500, Answer: "no", Error: "x", Took: time.Second})
		}
		f.must(f.db.SaveWebhooks(f.Context(), f.lease, []relay.WebhookState{state}))
		want := state.Progress
		want.Node = "node"
		f.equal("progress", f.progress(h), &want)
		failures, err := f.db.WebhookFailures(f.Context(), f.me, h.ID, relay.ID{}, 1000)
		f.must(err)
		if len(failures) != 100 || failures[0].Events != 130 || failures[99].Events != 31 {
			f.Errorf("%d failures, from %+v", len(failures), failures[0])
		}
		rest, err := f.db.WebhookFailures(f.Context(), f.me, h.ID, failures[97].ID, 10)
		f.must(err)
		f.equal("next page", rest, failures[98:])

		// Set back, what is noted by who served before counts no more.
		f.must(f.db.ReplayWebhook(f.Context(), somebody, f.me, h.ID, noon))
		f.must(f.db.SaveWebhooks(f.Context(), f.lease, []relay.WebhookState{state}))
		if p := f.progress(h); !p.Done.Time().Equal(noon.Truncate(time.Millisecond)) || p.Sent != 7 || len(p.Aside) != 0 || p.Epoch != state.Epoch+1 {
			f.Errorf("after a replay: %+v", p)
		}
		h.Status = relay.WebhookDisabled
		f.must(f.db.SetWebhook(f.Context(), somebody, f.me, h))
		if s := f.serve(f.lease); len(s.Webhooks) != 0 {
			f.Errorf("one that is disabled is served: %+v", s)
		}
		h.Status = relay.WebhookActive
		f.must(f.db.SetWebhook(f.Context(), somebody, f.me, h))
		if p := f.progress(h); p.Failures != 0 || !p.Failing.IsZero() || p.Done.IsZero() {
			f.Errorf("resumed: %+v", p)
		}
		if s := f.serve(f.lease); len(s.Webhooks) != 1 {
			f.Errorf("one that is resumed is not served: %+v", s)
		}
	}},
	{"a replay passes over nothing", func(f *fixture) {
		h := f.webhook(f.me)
		s := f.serve(f.lease)
		before, later := NewID(noon.Add(-2*time.Hour)), NewID(noon.Add(-time.Minute))
		state := relay.WebhookState{Webhook: h.ID, Epoch: s.Epochs[0], Progress: relay.WebhookProgress{Done: NewID(noon.Add(-time.Hour)),
			Aside: []relay.Aside{{Message: before, From: before, Since: noon}, {Message: later, From: later, Since: noon}}}}
		f.must(f.db.SaveWebhooks(f.Context(), f.lease, []relay.WebhookState{state}))
		// It is behind that: what lies between was never taken.
		f.must(f.db.ReplayWebhook(f.Context(), somebody, f.me, h.ID, noon))
		p := f.progress(h)
		if p.Done != state.Progress.Done {
			f.Errorf("goes on at %v", p.Done.Time())
		}
		f.equal("aside", p.Aside, state.Progress.Aside[:1]) // the other comes again
	}},
	{"shared", func(f *fixture) {
		if f.engine.Single {
			return
		}
		var all []relay.ID
		for range 5 {
			all = append(all, f.webhook(f.me).ID)
		}
		f.lease, all = f.join("first"), slices.Clone(all)
		f.must(f.db.Drain(f.Context(), "node", true))
		if s := f.serve(f.lease); len(s.Webhooks) != 5 {
			f.Errorf("alone: %d", len(s.Webhooks))
		}
		second := f.join("second")
		if s := f.serve(second); len(s.Webhooks) != 0 || s.Share != 3 {
			f.Errorf("took what is another's: %+v", s)
		}
		f.must(f.db.YieldWebhooks(f.Context(), second, all)) // not its own
		f.must(f.db.YieldWebhooks(f.Context(), f.lease, all[3:]))
		if s := f.serve(second); len(s.Webhooks) != 2 {
			f.Errorf("given back: %+v", s)
		}
		// The second dies: the first takes what it had.
		f.silence(second, time.Minute)
		if _, err := f.db.Reap(f.Context(), relay.LeaseTime); err != nil {
			f.Fatal(err)
		}
		if s := f.serve(f.lease); len(s.Webhooks) != 5 {
			f.Errorf("taken over: %+v", s)
		}
		if err := f.db.SaveWebhooks(f.Context(), second, []relay.WebhookState{{Webhook: all[4]}}); err == nil {
			f.Error("a dead node's progress was noted")
		}
		if p, err := f.db.WebhookProgress(f.Context(), f.me, all[4]); err != nil || p.Done.IsZero() || p.Node != "first" {
			f.Errorf("progress %+v, %v", p, err)
		}
	}},
	{"events", func(f *fixture) {
		f.webhook(f.me)
		other := f.account("other", relay.ID{}).ID
		var mine []relay.ID
		for i := range 6 {
			s := f.message("a@x.test")
			s.Message.Tags, s.Message.Metadata = []string{"t"}, map[string]string{"order": "1"}
			if i%3 > 0 {
				s.Message.Account, s.Deliveries[0].Account = other, other
			}
			f.put(f.lease, s)
			mine = append(mine, s.Message.ID)
		}
		f.serve(f.lease)
		heads, err := f.db.Tail(f.Context(), f.lease, relay.ID{}, 10)
		f.must(err)
		if len(heads) != 2 || heads[0].Account != f.me || heads[0].Kind != relay.EventAccepted {
			f.Fatalf("tail %+v", heads)
		}
		if rest, err := f.db.Tail(f.Context(), f.lease, heads[0].ID, 10); err != nil || len(rest) != 1 || *rest[0] != *heads[1] {
			f.Errorf("the rest %+v, %v", rest, err)
		}
		if own, err := f.db.Heads(f.Context(), f.me, heads[0].ID, 10); err != nil || len(own) != 1 || *own[0] != *heads[1] {
			f.Errorf("heads of the account %+v, %v", own, err)
		}
		all, err := f.db.Heads(f.Context(), relay.Everyone, heads[0].ID, 3)
		if err != nil || len(all) != 3 || all[0].ID.Compare(all[1].ID) >= 0 || all[0].Account == f.me {
			f.Errorf("heads of all %+v, %v", all, err)
		}
		if some, end, err := f.db.ScanEvents(f.Context(), relay.Everyone, heads[0].ID, all[1].ID, 10); err != nil || len(some) != 2 || end != all[1].ID {
			f.Errorf("a look for all %+v to %s, %v", some, end, err)
		}
		// Few of many: a look takes so many rows, and tells how far it came.
		found, end, err := f.db.ScanEvents(f.Context(), f.me, relay.ID{}, relay.Everyone, 3)
		if err != nil || len(found) != 1 || found[0] != *heads[0] || end.Compare(heads[0].ID) <= 0 || end.Compare(heads[1].ID) >= 0 {
			f.Errorf("first look %+v to %s, %v", found, end, err)
		}
		found, end, err = f.db.ScanEvents(f.Context(), f.me, end, relay.Everyone, 4)
		if err != nil || len(found) != 1 || found[0] != *heads[1] || end != relay.Everyone {
			f.Errorf("second look %+v to %s, %v", found, end, err)
		}
		last, err := f.db.LastEvent(f.Context())
		if err != nil || last.Compare(heads[1].ID) <= 0 {
			f.Errorf("last event %s, %v", last, err)
		}
		horizon, whole := f.db.Horizon()
		if whole != f.engine.Single || !whole && (time.Since(horizon.Time()) < 15*time.Second || time.Since(horizon.Time()) > time.Minute) {
			f.Errorf("horizon %v, %v", horizon.Time(), whole)
		}
		events, err := f.db.EventsByID(f.Context(), f.me, []relay.ID{heads[1].ID, last, heads[0].ID})
		if err != nil || len(events) != 2 || events[0].ID != heads[0].ID || events[0].Recipient != "a@x.test" || events[0].Message.Metadata["order"] != "1" ||
			!slices.Equal(events[1].Message.Tags, []string{"t"}) {
			f.Errorf("events %+v, %v", events, err)
		}
		of, err := f.db.EventsOf(f.Context(), f.me, mine[0], heads[0].ID, 10)
		if err != nil || len(of) != 1 || of[0].ID != heads[0].ID {
			f.Errorf("events of the message %+v, %v", of, err)
		}
	}},
}
