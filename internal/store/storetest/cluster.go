package storetest

import (
	"errors"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// silence makes the node with that lease look as if it had last beaten that long
// ago, and everything before it had happened as much earlier.
func (f *fixture) silence(lease int64, ago time.Duration) {
	f.Helper()
	if err := f.engine.Exec(f.Context(), f.place, "update node set beat = beat - ? where lease = ?", ago.Microseconds(), lease); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) join(name string) int64 {
	f.Helper()
	lease, err := f.db.Join(f.Context(), name)
	if err != nil {
		f.Fatalf("join: %v", err)
	}
	return lease
}

func (f *fixture) beat(lease int64) (time.Duration, error) {
	return f.db.Beat(f.Context(), relay.Node{Name: "node", Lease: lease, Version: "v1"})
}

func (f *fixture) nodes() []relay.Node {
	f.Helper()
	found, err := f.db.Nodes(f.Context())
	if err != nil {
		f.Fatalf("nodes: %v", err)
	}
	return found
}

var clusterTests = []test{
	{"list", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test", "held@x.test", "later@x.test", "done@x.test")
		s.Deliveries[2].State = relay.Held
		s.Deliveries[3].Due = noon.Add(time.Hour)
		f.put(f.lease, s)
		f.settle(f.lease, outcome(s.Deliveries[4], relay.EventDelivered))
		if _, err := f.beat(f.lease); err != nil {
			f.Fatal(err)
		}
		f.silence(f.lease, 7*time.Second)
		all := f.nodes()
		if len(all) != 1 {
			f.Fatalf("%d nodes, want 1", len(all))
		}
		n := all[0]
		if n.Silent < 7*time.Second || n.Silent > 20*time.Second || n.Joined.IsZero() {
			f.Errorf("silent for %v, joined %v", n.Silent, n.Joined)
		}
		n.Silent, n.Joined = 0, time.Time{}
		f.equal("node", n, relay.Node{Name: "node", Lease: f.lease, Version: "v1", InHand: 2})
		other := f.join("another")
		all = f.nodes()
		if f.engine.Single {
			f.equal("nodes", len(all), 1)
			return
		}
		if len(all) != 2 || all[0].Lease != other || all[0].InHand != 0 || all[1].InHand != 2 {
			f.Errorf("nodes: %+v", all)
		}
	}},
	{"drain", func(f *fixture) {
		if err := f.db.Drain(f.Context(), "nobody", true); relay.CodeOf(err) != relay.NotFound {
			f.Errorf("drain a node that is not there: %v", err)
		}
		for _, want := range []bool{true, true, false} {
			if err := f.db.Drain(f.Context(), "node", want); err != nil {
				f.Fatalf("drain: %v", err)
			}
			got, err := f.db.News(f.Context(), f.lease)
			if err != nil || got.Draining != want || f.nodes()[0].Draining != want {
				f.Errorf("draining: %v, %v; want %v", got, err, want)
			}
		}
		if err := f.db.Drain(f.Context(), "node", true); err != nil {
			f.Fatal(err)
		}
		old := f.lease
		f.lease = f.join("node")
		if got, err := f.db.News(f.Context(), f.lease); err != nil || got.Draining {
			f.Errorf("a new incarnation drains: %v, %v", got, err)
		}
		if _, err := f.db.News(f.Context(), old); !errors.Is(err, store.ErrLeaseLost) {
			f.Errorf("the old incarnation: %v", err)
		}
	}},
	{"news of what is released", func(f *fixture) {
		last := int64(-1)
		news := func(more bool) {
			f.Helper()
			n, err := f.db.News(f.Context(), f.lease)
			if err != nil || (n.Released > last) != more {
				f.Errorf("news %+v after %d, %v", n, last, err)
			}
			last = n.Released
		}
		news(true)
		if _, err := f.beat(f.lease); err != nil {
			f.Fatal(err)
		}
		news(false)
		if err := f.db.Released(f.Context()); err != nil {
			f.Fatal(err)
		}
		news(true)
		if !f.engine.Single {
			other := f.join("other")
			news(false)
			if err := f.db.Leave(f.Context(), other); err != nil {
				f.Fatal(err)
			}
			news(true)
			f.silence(f.join("other"), time.Minute)
			if _, err := f.db.Reap(f.Context(), relay.LeaseTime); err != nil {
				f.Fatal(err)
			}
			news(true)
		}
		old := f.lease
		f.lease = f.join("node")
		news(true)
		if _, err := f.beat(old); !errors.Is(err, store.ErrNameTaken) || !errors.Is(err, store.ErrLeaseLost) {
			f.Errorf("a node whose name was taken beats: %v", err)
		}
	}},
	{"reap", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test")
		f.put(f.lease, s)
		f.silence(f.lease, 14*time.Second)
		reap := func(want ...store.Dead) {
			f.Helper()
			got, err := f.db.Reap(f.Context(), relay.LeaseTime)
			if err != nil {
				f.Fatalf("reap: %v", err)
			}
			f.equal("reaped", got, want)
		}
		reap()
		f.silence(f.lease, 2*time.Second)
		if f.engine.Single {
			reap()
			return
		}
		old, other := f.lease, f.join("other")
		mine := f.message("c@x.test")
		f.put(other, mine)
		reap(store.Dead{Name: "node", Released: 2})
		reap()
		if _, err := f.beat(old); !errors.Is(err, store.ErrLeaseLost) || errors.Is(err, store.ErrNameTaken) {
			f.Errorf("the dead one beats: %v", err)
		}
		if n := f.nodes(); len(n) != 1 || n[0].Lease != other || n[0].InHand != 1 {
			f.Errorf("nodes: %+v", n)
		}
		f.lease = other
		if got := f.claim(time.Now(), 10); len(got) != 2 {
			f.Errorf("claimed %d of the dead one's, want 2", len(got))
		}
	}},
	{"a beat counts however late", func(f *fixture) {
		// Nobody has ended the lease: it holds, though it might have been ended.
		f.silence(f.lease, time.Hour)
		if _, err := f.beat(f.lease); err != nil {
			f.Fatalf("beat: %v", err)
		}
		if dead, err := f.db.Reap(f.Context(), relay.LeaseTime); err != nil || len(dead) != 0 {
			f.Errorf("reaped %v, %v", dead, err)
		}
	}},
}
