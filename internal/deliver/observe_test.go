package deliver

import (
	"sync"
	"testing"

	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/sink"
)

// tally keeps what an Observer is told.
type tally struct {
	mu       sync.Mutex
	settled  []relay.Outcome
	sites    []string
	unsecure []string
}

func (c *tally) Settled(_ *queue.Item, site string, o *relay.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled, c.sites = append(c.settled, *o), append(c.sites, site)
}

func (c *tally) TLSFailed(site string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsecure = append(c.unsecure, site)
}

// TestObserver: each outcome is told with its site, wherever the attempt ended.
func TestObserver(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").mx("down.test", "127.0.1.2")
	seen := new(tally)
	r.config.Observer = seen
	r.run()
	r.sink("127.0.1.1", sink.Config{TLSFault: sink.TLSGarbage})
	if site := r.d.Site("receiver.test"); site != "" {
		t.Errorf("site %q before anybody looked", site)
	}
	r.try(r.item("b@receiver.test", plain))
	if s := r.d.Stats(); s != (Stats{Connections: 1, Idle: 1, Sites: 1}) {
		t.Errorf("stats with a kept connection: %+v", s)
	}
	r.try(r.item("b@down.test", plain))
	r.try(r.item("b@missing.test", plain))
	r.end()
	want := []struct {
		site  string
		kind  relay.Kind
		stage string
	}{{"receiver.test", relay.EventDelivered, "dot"}, {"down.test", relay.EventDeferred, "connect"}, {"", relay.EventBounced, "route"}}
	if len(seen.settled) != len(want) {
		t.Fatalf("told of %d outcomes: %v", len(seen.settled), seen.settled)
	}
	for i, w := range want {
		if o := seen.settled[i]; seen.sites[i] != w.site || o.Kind != w.kind || o.Attempt.Stage != w.stage {
			t.Errorf("outcome %d: site %q, %s at %s; want %+v", i, seen.sites[i], o.Kind, o.Attempt.Stage, w)
		}
	}
	if len(seen.unsecure) != 1 || seen.unsecure[0] != "receiver.test" {
		t.Errorf("TLS failed at %v", seen.unsecure)
	}
	if site := r.d.Site("receiver.test"); site != "receiver.test" {
		t.Errorf("site %q", site)
	}
}
