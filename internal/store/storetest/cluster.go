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
		if err := f.db.Release(f.Context(), f.lease, nil); err != nil {
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
	{"a clock that is an hour fast", func(f *fixture) { askew(f, time.Hour) }},
	{"a clock that is an hour slow", func(f *fixture) { askew(f, -time.Hour) }},
	{"a clock that is a little fast", func(f *fixture) {
		// Less than two seconds is left alone: times are kept as they were given.
		if f.engine.Single {
			return
		}
		db := f.askew(1500 * time.Millisecond)
		s := f.message("a@x.test")
		if err := db.Put(f.Context(), f.lease, []*relay.Submission{s})[0]; err != nil {
			f.Fatal(err)
		}
		f.equal("deliveries", f.story(s.Message.ID).Deliveries, s.Deliveries)
	}},
}

// askew opens the store once more, for a machine whose clock is ahead.
func (f *fixture) askew(ahead time.Duration) *store.DB {
	f.Helper()
	db, err := f.engine.Askew(f.Context(), f.place, func() time.Time { return time.Now().Add(ahead) })
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := db.Close(); err != nil {
			f.Error(err)
		}
	})
	return db
}

// skewed are two nodes on one store, of which one has a clock that is ahead.
type skewed struct {
	*fixture
	other      *store.DB
	lease      int64     // of the other one
	now, there time.Time // the same moment, as each has it
}

// near tells where a time is not that, about.
func (s *skewed) near(what string, got, want time.Time) {
	s.Helper()
	if d := got.Sub(want).Abs(); d > 10*time.Second {
		s.Errorf("%s: %v, %v off", what, got, d)
	}
}

func (s *skewed) claimOn(db *store.DB, lease int64, now time.Time) []relay.Claimed {
	s.Helper()
	got, _, err := db.Claim(s.Context(), lease, now, []relay.Want{{Class: relay.Class{Stream: relay.Transactional, Account: s.me, Domain: "x.test"}, Limit: 10}})
	if err != nil {
		s.Fatal(err)
	}
	return got
}

func (s *skewed) waits(db *store.DB, want time.Time) {
	s.Helper()
	all, err := db.Waiting(s.Context(), relay.Class{}, 10)
	if err != nil || len(all) != 1 {
		s.Fatalf("waiting: %+v, %v", all, err)
	}
	s.near("due, as it waits", all[0].Due, want)
}

// askew lets two nodes work on one store, of which one has a clock that is ahead
// by that much: nothing comes early or late for that, and leases hold.
func askew(f *fixture, ahead time.Duration) {
	if f.engine.Single {
		return
	}
	other := f.askew(ahead)
	lease, err := other.Join(f.Context(), "other")
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now()
	s := &skewed{f, other, lease, now, now.Add(ahead)}
	s.putOff(s.putForLater())
	s.putThere()
	if got, err := other.Beat(f.Context(), relay.Node{Name: "other", Lease: lease}); err != nil || (got-ahead).Abs() > time.Second {
		f.Errorf("the beat finds the clock %v ahead, want %v: %v", got, ahead, err)
	}
	for _, db := range []*store.DB{f.db, other} {
		if dead, err := db.Reap(f.Context(), relay.LeaseTime); err != nil || len(dead) != 0 {
			f.Errorf("reaped %v, %v", dead, err)
		}
	}
}

// putForLater: what one puts for later the other does not try before.
func (s *skewed) putForLater() *relay.Delivery {
	m := Submission(s.me, s.now, []byte("x"), "a@x.test")
	m.Deliveries[0].Due = s.now.Add(30 * time.Minute)
	s.put(0, m)
	s.waits(s.other, s.there.Add(30*time.Minute))
	if got := s.claimOn(s.other, s.lease, s.there.Add(29*time.Minute)); len(got) != 0 {
		s.Error("claimed too early")
	}
	got := s.claimOn(s.other, s.lease, s.there.Add(31*time.Minute))
	if len(got) != 1 {
		s.Fatalf("claimed %d when it was due", len(got))
	}
	d := got[0].Delivery
	s.near("due", d.Due, s.there.Add(30*time.Minute))
	s.near("expires", d.Expires, s.there.Add(120*time.Hour))
	s.near("received", got[0].Message.Received, s.there)
	return d
}

// putOff is the other way round: an attempt that failed, put off for a minute.
func (s *skewed) putOff(d *relay.Delivery) {
	o := outcome(d, relay.EventDeferred)
	o.At, o.Due = s.there, s.there.Add(time.Minute)
	o.Notice, o.NoticeDue = relay.NotifyDelay, s.there.Add(time.Minute)
	if err := s.other.Settle(s.Context(), s.lease, []relay.Outcome{o})[0]; err != nil {
		s.Fatal(err)
	}
	if err := s.other.Settle(s.Context(), s.lease, []relay.Outcome{o})[0]; !errors.Is(err, store.ErrSettled) {
		s.Errorf("the same outcome again: %v", err)
	}
	s.waits(s.db, s.now.Add(time.Minute))
	for at, want := range map[time.Duration]int{30 * time.Second: 0, 90 * time.Second: 1} {
		for db, now := range map[*store.DB]time.Time{s.db: s.now, s.other: s.there} {
			if found, err := db.Notices(s.Context(), now.Add(at), 10); err != nil || len(found) != want {
				s.Errorf("%d notices are due in %v, want %d: %v", len(found), at, want, err)
			}
		}
	}
	for _, e := range s.story(d.ID.Message).Events {
		s.near("event", e.At, s.now)
		s.near("id of the event", e.ID.Time(), s.now)
	}
	if got := s.claim(s.now.Add(90*time.Second), 10); len(got) != 1 {
		s.Errorf("claimed %d", len(got))
	}
}

// putThere: new mail of the other one is due at once for everybody.
func (s *skewed) putThere() {
	m := Submission(s.me, s.there, []byte("x"), "a@x.test")
	m.InHand = false
	if err := s.other.Put(s.Context(), s.lease, []*relay.Submission{m})[0]; err != nil {
		s.Fatal(err)
	}
	got := s.claimOn(s.db, s.fixture.lease, time.Now().Add(10*time.Second))
	if len(got) != 1 {
		s.Fatalf("claimed %d", len(got))
	}
	s.near("expires", got[0].Delivery.Expires, s.now.Add(120*time.Hour))
}
