package storetest

import (
	"context"
	"fmt"
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
				for _, filling := range fillings {
					if err := f.engine.Exec(f.Context(), place, filling, old[:]); err != nil {
						f.Fatalf("fill version %d: %v", version, err)
					}
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
			if version > 0 {
				g.stillOld(version)
			} else if a := g.get(db.Account(f.Context(), g.me, g.me)).(*relay.Account); a.Senders != "" {
				f.Errorf("a new account may send as %q", a.Senders)
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
	{"made by several at once", func(f *fixture) {
		if f.engine.Single {
			return
		}
		for _, version := range []int{0, 1} {
			place := f.engine.New(f)
			if version > 0 {
				if err := f.engine.Migrate(f.Context(), place, version); err != nil {
					f.Fatal(err)
				}
			}
			var group sync.WaitGroup
			for range 4 {
				group.Go(func() {
					db, err := f.engine.Open(f.Context(), place)
					if err != nil {
						f.Errorf("open: %v", err)
						return
					}
					if _, err := db.EnsureAccount(f.Context(), "me"); err != nil {
						f.Error(err)
					}
					if err := db.Close(); err != nil {
						f.Error(err)
					}
				})
			}
			group.Wait()
		}
	}},
	{"beside a newer program", func(f *fixture) {
		// A newer program takes the schema a step further, by a step that serves
		// programs of this one, while this one works. It goes on, and starts again.
		waits := f.message("a@x.test")
		f.put(f.lease, waits)
		step := fmt.Sprintf(additive, store.Latest)
		if err := f.engine.Upgrade(f.Context(), f.place, step); err != nil {
			f.Fatalf("upgrade: %v", err)
		}
		for range 2 {
			s := f.message("b@x.test")
			f.put(f.lease, s)
			f.settle(f.lease, outcome(s.Deliveries[0], relay.EventDelivered))
			if _, err := f.beat(f.lease); err != nil {
				f.Errorf("beat: %v", err)
			}
			f.reopen()
			var err error
			if f.lease, err = f.db.Join(f.Context(), "node"); err != nil {
				f.Fatalf("join: %v", err)
			}
		}
		f.settle(0, outcome(waits.Deliveries[0], relay.EventDelivered))
		// The next step leaves it behind.
		err := f.engine.Upgrade(f.Context(), f.place, "alter table account drop column made_by;\n")
		if !f.engine.Single && (relay.CodeOf(err) != relay.Conflict || !strings.Contains(err.Error(), "node")) {
			f.Errorf("a step that the node which runs does not understand: %v", err)
		}
		if err := f.db.Leave(f.Context(), f.lease); err != nil {
			f.Fatal(err)
		}
		if err := f.db.Close(); err != nil {
			f.Fatal(err)
		}
		f.db = nil
		if !f.engine.Single {
			err = f.engine.Upgrade(f.Context(), f.place, "alter table account drop column made_by;\n")
		}
		if err != nil {
			f.Fatalf("upgrade when no node runs: %v", err)
		}
		db, err := f.engine.Open(f.Context(), f.place)
		if err == nil {
			db.Close()
		}
		if relay.CodeOf(err) != relay.Conflict {
			f.Errorf("opened a schema that leaves older programs behind: %v", err)
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
					_, _ = Claim(ctx, f.db, f.lease, noon, 1)
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

// additive is a migration as a newer program may bring it: what is there stays
// as it is, and older programs need not know of what is added.
const additive = `-- A step that adds.
-- serves programs from schema %d
alter table account add column made_by text not null default '';
create table novelty (
	id   blob   not null primary key,
	what bigint not null
) without rowid;
`

// fillings put an account of this id and of the name "old" into any version of
// the schema, with a credential and a message, as programs of the first one do: to
// be found after the migrations from there, and beside programs that are newer.
var (
	old      = relay.ID{1, 15: 255}
	fillings = []string{
		"insert into account (id, name, created) values (?, 'old', 0)",
		"insert into credential (id, account, kind, name, username, secret, settings, created, revoked)" +
			" select id, id, 'smtp', 'old', 'old', null, '{\"argon2\":\"$x\",\"stream\":1}', 5, 0 from account where id = ?",
		"insert into message (id, account, credential, stream, received, sender, subject, header_from, header_id, size, params)" +
			" select id, id, id, 1, 5, 'a@x.test', 'old', '', '', 1, '{\"helo\":\"old\"}' from account where id = ?",
	}
)

// stillOld expects them.
func (f *fixture) stillOld(version int) {
	f.Helper()
	a := f.get(f.db.Account(f.Context(), old, old)).(*relay.Account)
	if a.Senders != relay.SendersAny || a.Status != relay.Active || a.Name != "old" {
		f.Errorf("from version %d: the account is %+v", version, a)
	}
	c := f.get(f.db.CredentialByUser(f.Context(), "old")).(*relay.Credential)
	want := &relay.Credential{ID: old, Account: old, Kind: "smtp", Name: "old", User: "old", Argon2: "$x", Stream: relay.Transactional, Created: time.UnixMicro(5).UTC()}
	f.equal("credential", c, want)
	c.Name = "new"
	f.must(f.db.SetCredential(f.Context(), somebody, old, c))
	a.Name = "old" // as it is
	f.must(f.db.SetAccount(f.Context(), somebody, old, a))
	if m := f.story(old).Message; m.Source.Helo != "old" || m.Archive || m.Tags != nil || m.Script != "" {
		f.Errorf("from version %d: the message is %+v", version, m)
	}
}
