package track

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/link"
	"postrider/internal/relay"
)

// kept is a store and a queue.
type kept struct {
	mu         sync.Mutex
	deliveries map[relay.DeliveryID]*relay.Delivery
	settled    []relay.Outcome
	fails      int
	counts     map[string]int
}

func (k *kept) Linked(_ context.Context, ids []relay.DeliveryID) (found []*relay.Delivery, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fails > 0 {
		k.fails--
		return nil, errors.New("away")
	}
	for _, id := range ids {
		if d := k.deliveries[id]; d != nil {
			found = append(found, d)
		}
	}
	return found, nil
}

func (k *kept) Settle(_ context.Context, o relay.Outcome) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settled = append(k.settled, o)
	return nil
}

func (k *kept) Tracked(kind relay.Kind, machine bool) { k.count(fmt.Sprint(kind, " ", machine)) }
func (k *kept) Untracked(why string)                  { k.count(why) }

func (k *kept) count(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts[what]++
}

func newKept(n int, at time.Time) *kept {
	k := &kept{deliveries: map[relay.DeliveryID]*relay.Delivery{}, counts: map[string]int{}}
	for i := range n {
		id := relay.DeliveryID{Message: relay.ID{1}, N: i + 1}
		k.deliveries[id] = &relay.Delivery{ID: id, Account: mine, State: relay.Delivered, Updated: at, Provider: "Gmail"}
	}
	return k
}

func startLog(t *testing.T, k *kept) (l *Log, stop func()) {
	t.Helper()
	rules, err := OpenRules()
	if err != nil {
		t.Fatal(err)
	}
	l = NewLog(LogConfig{Early: 3 * time.Second, Rules: rules, Observer: k}, k, k, silent)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	return l, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func deed(n int, kind link.Kind, target string, client byte) Deed {
	return Deed{Link: link.Link{Kind: kind, Delivery: relay.DeliveryID{Message: relay.ID{1}, N: n}, Target: target}, At: time.Now(),
		Client: netip.AddrFrom4([4]byte{192, 0, 2, client}), UserAgent: firefox}
}

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(3, time.Now().Add(-time.Hour))
		l, stop := startLog(t, k)
		l.Record(deed(1, link.Open, "", 1))
		l.Record(deed(1, link.Open, "", 1)) // the same again
		l.Record(deed(1, link.Open, "", 2))
		anonymous := deed(2, link.Click, shop, 3)
		anonymous.Anonymous = true
		l.Record(anonymous)
		l.Record(deed(99, link.Click, shop, 1)) // is not there
		for _, target := range []string{"https://a.test", "https://b.test", "https://c.test"} {
			l.Record(deed(3, link.Click, target, 4))
		}
		time.Sleep(lookAround + time.Second)
		synctest.Wait()
		k.mu.Lock()
		got := map[string]int{}
		for _, o := range k.settled {
			e := o.Engagement
			got[fmt.Sprint(o.Delivery.N, " ", o.Kind, " ", e.URL, " ", e.Client, " ", e.UserAgent == firefox, " ", e.Machine)]++
			if o.Account != mine || o.Provider != "Gmail" || o.At.IsZero() {
				t.Errorf("%+v", o)
			}
		}
		k.mu.Unlock()
		want := []string{"1 opened  192.0.2.1 true ", "1 opened  192.0.2.2 true ", "2 clicked " + shop + " invalid IP false ",
			"3 clicked https://a.test 192.0.2.4 true " + allLinks, "3 clicked https://b.test 192.0.2.4 true " + allLinks, "3 clicked https://c.test 192.0.2.4 true " + allLinks}
		for _, w := range want {
			if got[w] != 1 {
				t.Errorf("%q: %d", w, got[w])
			}
		}
		if len(k.settled) != len(want) || k.counts["repeated"] != 1 || k.counts["gone"] != 1 || k.counts["opened false"] != 2 || k.counts["clicked true"] != 3 {
			t.Errorf("settled %d, counted %v", len(k.settled), k.counts)
		}
		// After a while the same is another time.
		time.Sleep(same)
		l.Record(deed(1, link.Open, "", 1))
		stop()
		if len(k.settled) != len(want)+1 {
			t.Errorf("settled %d", len(k.settled))
		}
	})
}

// What was handed over by the end is written, and a store that is away for a moment
// loses nothing.
func TestLogEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(2000, time.Now().Add(-time.Hour))
		k.fails = 3
		l, stop := startLog(t, k)
		for n := range 2000 {
			l.Record(deed(n+1, link.Open, "", 1))
		}
		stop()
		if len(k.settled) != 2000 {
			t.Errorf("%d of 2000 are written", len(k.settled))
		}
	})
}

// A store that is away for minutes loses nothing that there is room for.
func TestLogWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(2, time.Now().Add(-time.Hour))
		k.fails = 1000
		l, stop := startLog(t, k)
		l.Record(deed(1, link.Open, "", 1))
		time.Sleep(lookAround + time.Minute)
		l.Record(deed(2, link.Click, shop, 1))
		time.Sleep(1000 * askAgain)
		stop()
		if len(k.settled) != 2 || k.fails != 0 {
			t.Errorf("%d of 2 are written, %d failures are left", len(k.settled), k.fails)
		}
	})
}

// More than there is room for is lost and counted, and nobody waits; the memory of
// what was done is bounded, and so is what one delivery can have.
func TestLogBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(1, time.Now().Add(-time.Hour))
		rules, err := OpenRules()
		if err != nil {
			t.Fatal(err)
		}
		l := NewLog(LogConfig{Rules: rules, Observer: k}, k, k, silent)
		for range maxWaiting + 5 {
			l.Record(deed(1, link.Open, "", 1))
		}
		if k.counts["full"] != 5 {
			t.Errorf("counted %v", k.counts)
		}
		var many []Deed
		for i := range 300 {
			d := deed(1, link.Open, "", byte(i))
			d.UserAgent = fmt.Sprint(i)
			many = append(many, d)
		}
		if fresh := l.remember(many); len(fresh) != maxHistory {
			t.Errorf("%d of 300 of one delivery are recorded", len(fresh))
		}
		for n := range maxRecent + 10 {
			l.remember([]Deed{deed(n+2, link.Open, "", 1)})
		}
		if len(l.recent) > maxRecent {
			t.Errorf("remembers %d deliveries", len(l.recent))
		}
		time.Sleep(forgetAfter + time.Second)
		l.remember([]Deed{deed(1, link.Open, "", 1)})
		if len(l.recent) != 1 {
			t.Errorf("remembers %d deliveries after a while", len(l.recent))
		}
	})
}
