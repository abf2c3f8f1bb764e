package webhook

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/relay"
)

// A dead endpoint's circuit is open: whatever comes, it is tried once at each time
// of the schedule, with one event, and costs nobody else anything. When it takes
// that, it gets the rest at once, in batches again.
func TestBreaker(t *testing.T) {
	r, dead, fine := newRig(t), newReceiver(t), newReceiver(t)
	batch := 50
	h := r.add(dead, Settings{Batch: &batch})
	r.add(fine, Settings{Batch: &batch})
	var mu sync.Mutex
	var asked []int // events in each request to the dead one
	healed := false
	dead.answers(func(events []Event, w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, len(events))
		if !healed {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	// The wait ends when the test says so: it is the clock that has come to it.
	var ahead time.Duration
	s := NewService(r.config, r.db, r.box, func() int64 { return r.lease }, func() bool { return false })
	s.waits = []time.Duration{time.Hour}
	s.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().UTC().Add(ahead)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var group sync.WaitGroup
	group.Go(func() { s.Run(ctx) })
	defer group.Wait()
	defer cancel()
	requests := func() []int {
		mu.Lock()
		defer mu.Unlock()
		return append([]int(nil), asked...)
	}
	r.mail(5)
	within(t, patience, "the first request fails", func() bool { return r.progress(h).Failures == 1 })
	for i := range 4 {
		r.mail(20)
		within(t, patience, "the other has its events", func() bool { return fine.distinct() == 5+20*(i+1) })
	}
	if got := requests(); len(got) != 1 {
		t.Errorf("the dead one was asked %d times within one wait", len(got))
	}
	// A request is counted when its answer has come back.
	within(t, patience, "all requests are counted", func() bool { return s.Stats().Events >= 85 })
	if st := s.Stats(); st.Served != 2 || st.Failing != 1 || st.Refused != 1 || st.Lag <= 0 || st.Events < 85 {
		t.Errorf("stats %+v", st)
	}
	mu.Lock()
	healed, ahead = true, 2*time.Hour
	mu.Unlock()
	// The worker sleeps up to half a minute at a time; a change of the webhook wakes it.
	if _, err := r.manager.Change(t.Context(), relay.Actor{}, r.account, h.ID, Settings{Batch: &batch}); err != nil {
		t.Fatal(err)
	}
	within(t, patience, "it has all", func() bool { return dead.distinct() == 85 })
	got := requests()
	if len(got) < 2 || got[1] != 1 {
		t.Fatalf("requests of %v events; the second should try one", got)
	}
	if got[2] != batch {
		t.Errorf("requests of %v events; the rest should come in batches", got)
	}
}

// What a recipient did is told.
func TestEngagement(t *testing.T) {
	e := &relay.WebhookEvent{Event: relay.Event{Kind: relay.EventClicked, Engagement: &relay.Engagement{URL: "https://shop.example/a", Client: netip.MustParseAddr("192.0.2.9"), UserAgent: "Browser/1", Machine: "security scanner"}},
		Message: &relay.Message{}}
	b, err := json.Marshal(payload(e))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"type":"delivery.clicked"`, `"state":""`, `"url":"https://shop.example/a"`, `"client":"192.0.2.9"`, `"user_agent":"Browser/1"`, `"machine":"security scanner"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("it lacks %s: %s", want, b)
		}
	}
}
