package storetest

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

var schemaTests = []test{
	{"from every version", func(f *fixture) {
		for version := range store.Latest + 1 {
			place := f.engine.New(f)
			if err := f.engine.Migrate(f.Context(), place, version); err != nil {
				f.Fatalf("make version %d: %v", version, err)
			}
			if version > 0 {
				if err := f.engine.Exec(f.Context(), place, fillings[version], old[:]); err != nil {
					f.Fatalf("fill version %d: %v", version, err)
				}
			}
			db, err := f.engine.Open(f.Context(), place)
			if err != nil {
				f.Fatalf("open version %d: %v", version, err)
			}
			g := &fixture{TB: f.TB, engine: f.engine, place: place, db: db}
			if g.me, err = db.EnsureAccount(f.Context(), "old"); err != nil {
				f.Fatal(err)
			}
			if version > 0 && g.me != old {
				f.Errorf("from version %d: the account is lost", version)
			}
			if g.lease, err = db.Join(f.Context(), "node"); err != nil {
				f.Fatal(err)
			}
			s := g.message("a@x.test")
			g.put(g.lease, s)
			g.settle(g.lease, outcome(s.Deliveries[0], relay.EventDelivered))
			g.reopen()
			g.equal("kinds", kinds(g.story(s.Message.ID)), []relay.Kind{relay.EventAccepted, relay.EventDelivered})
			if err := g.db.Close(); err != nil {
				f.Error(err)
			}
		}
	}},
	{"newer than the program", func(f *fixture) {
		if err := f.db.Close(); err != nil {
			f.Fatal(err)
		}
		f.db = nil
		if err := f.engine.Exec(f.Context(), f.place, "insert into schema_version (version, applied) values (999, 0)"); err != nil {
			f.Fatal(err)
		}
		db, err := f.engine.Open(f.Context(), f.place)
		if err == nil {
			db.Close()
		}
		if relay.CodeOf(err) != relay.Conflict || !strings.Contains(err.Error(), "schema 999") || !strings.Contains(err.Error(), "newer") {
			f.Errorf("opened a newer schema: %v", err)
		}
	}},
	{"closed", func(f *fixture) {
		if err := f.db.Close(); err != nil {
			f.Fatal(err)
		}
		db := f.db
		f.db = nil
		if err := db.Put(f.Context(), 0, []*relay.Submission{f.message("a@x.test")})[0]; relay.CodeOf(err) != relay.Unavailable {
			f.Errorf("put into a closed store: %v", err)
		}
	}},
	{"impatient callers", func(f *fixture) {
		// Callers give up at any moment. What was acknowledged is there; what
		// was not is there whole or not at all; and the store goes on.
		var group sync.WaitGroup
		var mu sync.Mutex
		acked := map[relay.ID]bool{}
		for i := range 8 {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			group.Go(func() {
				for range 40 {
					ctx, cancel := context.WithTimeout(f.Context(), time.Duration(random.IntN(2000))*time.Microsecond)
					s := f.message("a@x.test", "b@x.test")
					err := f.db.Put(ctx, f.lease, []*relay.Submission{s})[0]
					_, _ = f.db.Story(ctx, f.me, s.Message.ID)
					_, _ = f.db.Claim(ctx, f.lease, noon, 1)
					cancel()
					mu.Lock()
					acked[s.Message.ID] = err == nil
					mu.Unlock()
				}
			})
		}
		group.Wait()
		for id, ok := range acked {
			story, err := f.db.Story(f.Context(), f.me, id)
			if ok && err != nil {
				f.Errorf("acknowledged, yet not there: %v", err)
			}
			if err == nil && (len(story.Deliveries) != 2 || len(story.Events) != 2 || !story.Content) {
				f.Error("half a message is there")
			}
		}
		f.put(f.lease, f.message("a@x.test"))
	}},
}

// fillings put an account of this id and of the name "old" into each version of
// the schema, to be found after the migrations from there.
var (
	old      = relay.ID{1, 15: 255}
	fillings = map[int]string{
		1: "insert into account (id, name, created) values (?, 'old', 0)",
	}
)
