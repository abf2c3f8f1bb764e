package storetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

var sendingTests = []test{
	{"domain", func(f *fixture) {
		other := f.account("other", relay.ID{})
		d := f.domain(f.me, "xn--bcher-kva.example")
		d.Keys = []relay.DKIMKey{{Selector: "a", Algorithm: "rsa", Public: "v=DKIM1; p=x", Sealed: []byte{0, 1, 255}, State: relay.KeySigning, Since: noon},
			{Selector: "b", Algorithm: "ed25519", State: relay.KeyWaiting, Since: noon}}
		d.Verified, d.Findings = noon, []relay.Finding{{Check: "spf", Status: relay.Bad, Text: "schlecht", Found: []string{"v=spf1"}}}
		old := *d
		f.must(f.db.SetDomain(f.Context(), somebody, f.me, d))
		f.overtaken("an old version", f.db.SetDomain(f.Context(), somebody, f.me, &old))
		f.reopen()
		f.equal("domain", f.get(f.db.Domain(f.Context(), f.me, d.ID)), d)
		f.equal("by name", f.get(f.db.DomainByName(f.Context(), f.me, d.Name)), d)
		f.taken("the same name", f.db.AddDomain(f.Context(), somebody, &relay.Domain{ID: NewID(noon), Account: f.me, Name: d.Name}))

		// Another account may ask for the name, and not have it too.
		theirs := f.domain(other.ID, d.Name)
		theirs.Verified = noon
		f.taken("a second holder", f.db.SetDomain(f.Context(), somebody, other.ID, theirs))
		theirs.Verified = time.Time{}
		f.equal("the holder", f.get(f.db.DomainByName(f.Context(), relay.Everyone, d.Name)), d)
		d.Verified = time.Time{}
		f.must(f.db.SetDomain(f.Context(), somebody, f.me, d))
		theirs.Verified = noon
		f.must(f.db.SetDomain(f.Context(), somebody, other.ID, theirs))
		d.Verified = noon
		f.taken("when it is held by another", f.db.CheckedDomain(f.Context(), somebody, f.me, d))

		f.must(f.db.RemoveDomain(f.Context(), somebody, f.me, d.ID))
		f.missing("removed domain", f.me, func(as relay.ID) error { return f.db.RemoveDomain(f.Context(), somebody, as, d.ID) })
		all, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "domain"})
		f.must(err)
		f.equal("audited", actions(all), []string{"domain.remove", "domain.change", "domain.change", "domain.add"})
		for _, c := range all {
			if strings.Contains(strings.ToLower(string(c.Before)+string(c.After)), "sealed") {
				f.Errorf("%s tells keys: %s %s", c.Action, c.Before, c.After)
			}
		}
	}},
	{"nearest domain", func(f *fixture) {
		f.domain(f.me, "example.com")
		f.domain(f.me, "b.example.com")
		f.domain(f.account("other", relay.ID{}).ID, "a.b.example.com")
		names := []string{"a.b.example.com", "b.example.com", "example.com", "com"}
		if d, err := f.db.NearestDomain(f.Context(), f.me, names); err != nil || d.Name != "b.example.com" {
			f.Errorf("found %+v, %v", d, err)
		}
		many := slices.Repeat([]string{"x.y"}, 150)
		if d, err := f.db.NearestDomain(f.Context(), f.me, append(many, names...)); err != nil || d.Name != "b.example.com" {
			f.Errorf("of many: found %+v, %v", d, err)
		}
		f.missing("above", f.me, func(as relay.ID) error { _, err := f.db.NearestDomain(f.Context(), as, []string{"com"}); return err })
	}},
	{"checks of domains", func(f *fixture) {
		for i := range 5 {
			d := f.domain(f.me, fmt.Sprintf("d%d.example", i))
			d.Due = noon.Add(time.Duration(i) * time.Minute)
			f.must(f.db.SetDomain(f.Context(), somebody, f.me, d))
		}
		// Three nodes look at once; each domain that is due is had by one.
		var group sync.WaitGroup
		var mu sync.Mutex
		had := map[string]int{}
		for _, db := range f.handles() {
			group.Go(func() {
				for range 3 {
					found, err := db.DueDomains(f.Context(), noon.Add(2*time.Minute), noon.Add(time.Hour), 1)
					if err != nil {
						f.Error(err)
					}
					mu.Lock()
					for _, d := range found {
						had[d.Name]++
					}
					mu.Unlock()
				}
			})
		}
		group.Wait()
		f.equal("had", had, map[string]int{"d0.example": 1, "d1.example": 1, "d2.example": 1})
		d := f.get(f.db.DomainByName(f.Context(), f.me, "d0.example")).(*relay.Domain)
		if !d.Due.Equal(noon.Add(time.Hour)) {
			f.Errorf("put off until %v", d.Due)
		}
		// A check that finds nothing new says nothing; one that does says so.
		version := f.version()
		d.Checked, d.Due, d.Findings = noon, noon.Add(2*time.Hour), []relay.Finding{{Check: "mx"}}
		f.must(f.db.CheckedDomain(f.Context(), somebody, f.me, d))
		if f.version() != version {
			f.Error("a check that found nothing new raised the version")
		}
		d.Findings = []relay.Finding{{Check: relay.CheckTracking, Status: relay.Good}}
		f.must(f.db.CheckedDomain(f.Context(), somebody, f.me, d))
		if f.version() == version {
			f.Error("a tracking host that works now is nothing new")
		}
		version = f.version()
		d.Failing = noon
		f.must(f.db.CheckedDomain(f.Context(), somebody, f.me, d))
		all, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "domain.check"})
		f.must(err)
		if f.version() == version || len(all) != 2 {
			f.Errorf("%d checks are audited", len(all))
		}
		f.equal("checked", f.get(f.db.Domain(f.Context(), f.me, d.ID)), d)
	}},
	{"sender", func(f *fixture) {
		token := sha256.Sum256([]byte("token"))
		s := &relay.Sender{ID: NewID(noon), Account: f.me, Address: "Jörg@example.com", Token: token[:], Asked: noon}
		f.must(f.db.AddSender(f.Context(), somebody, s))
		f.taken("again", f.db.AddSender(f.Context(), somebody, &relay.Sender{ID: NewID(noon), Account: f.me, Address: s.Address}))
		f.equal("by token", f.get(f.db.SenderByToken(f.Context(), token)), s)
		s.Token, s.Verified = nil, noon.Add(time.Minute)
		f.must(f.db.SetSender(f.Context(), somebody, f.me, s))
		f.equal("sender", f.get(f.db.Sender(f.Context(), f.me, s.Address)), s)
		if _, err := f.db.SenderByToken(f.Context(), token); relay.CodeOf(err) != relay.NotFound {
			f.Errorf("by a token that was used: %v", err)
		}
		if all, err := f.db.Senders(f.Context(), f.me, relay.ID{}, 10); err != nil || len(all) != 1 {
			f.Errorf("list: %v, %v", all, err)
		}
		f.must(f.db.RemoveSender(f.Context(), somebody, f.me, s.ID))
		f.missing("removed sender", f.me, func(as relay.ID) error { return f.db.RemoveSender(f.Context(), somebody, as, s.ID) })
		all, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "sender"})
		f.must(err)
		f.equal("audited", actions(all), []string{"sender.remove", "sender.verify", "sender.add"})
	}},
	{"suppressions", func(f *fixture) {
		var list []relay.Suppression
		for i := range 250 {
			list = append(list, relay.Suppression{Account: f.me, Address: fmt.Sprintf("a%03d@x.test", i), Reason: "bounce", Event: NewID(noon), Created: noon})
		}
		list = append(list, relay.Suppression{Account: f.me, Address: "@ü.test", Reason: "manual", Note: "weil 50%", Created: noon})
		version := f.version()
		for i, want := range []int64{251, 0} {
			if added, err := f.db.Suppress(f.Context(), somebody, f.me, append(list, list[:3]...)); err != nil || added != want {
				f.Errorf("time %d: added %d, want %d: %v", i, added, want, err)
			}
		}
		asked := []string{"@ü.test", "A000@x.test", "nobody@x.test", "a%@x.test"}
		for i := range 201 {
			asked = append(asked, fmt.Sprintf("a%03d@x.test", i))
		}
		found, err := f.db.Suppressed(f.Context(), f.me, relay.Broadcast, asked)
		if err != nil || len(found) != 202 {
			f.Errorf("found %d of 202: %v", len(found), err)
		}
		all, err := f.db.Suppressions(f.Context(), f.me, relay.SuppressionFilter{Limit: 1000})
		f.must(err)
		if len(all) != 251 || !slices.IsSortedFunc(all, func(a, b *relay.Suppression) int { return strings.Compare(a.Address, b.Address) }) {
			f.Errorf("%d in the list", len(all))
		}
		for i := range list { // the order of addresses begins with the domain
			at := slices.IndexFunc(all, func(s *relay.Suppression) bool { return s.Address == list[i].Address })
			if at < 0 {
				f.Fatalf("%s is lost", list[i].Address)
			}
			f.equal("suppression", *all[at], list[i])
		}
		for what, c := range map[string]struct {
			filter relay.SuppressionFilter
			n      int
		}{
			"text": {relay.SuppressionFilter{Text: "00"}, 12}, "wildcard": {relay.SuppressionFilter{Text: "%"}, 0}, "reason": {relay.SuppressionFilter{Reason: "manual"}, 1},
			"after": {relay.SuppressionFilter{After: list[247].Key()}, 2}, "limit": {relay.SuppressionFilter{Limit: 7}, 7}, "usual limit": {relay.SuppressionFilter{}, relay.DefaultLimit},
		} {
			if got, err := f.db.Suppressions(f.Context(), f.me, c.filter); err != nil || len(got) != c.n {
				f.Errorf("%s: %d, want %d: %v", what, len(got), c.n, err)
			}
		}
		if removed, err := f.db.Unsuppress(f.Context(), somebody, f.me, relay.Unsuppression{Addresses: asked}); err != nil || removed != 202 {
			f.Errorf("removed %d: %v", removed, err)
		}
		changes, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "suppression"})
		f.must(err)
		f.equal("audited", actions(changes), []string{"suppression.remove", "suppression.add"})
		if changes[1].Object != "251" || !strings.Contains(string(changes[1].After), "a000@x.test") || len(changes[1].After) > 50_000 {
			f.Errorf("%s of %d bytes", changes[1].Object, len(changes[1].After))
		}
		if f.version() != version {
			f.Error("suppressions raised the version of what is cached")
		}
	}},
	{"once", func(f *fixture) {
		s := f.message("a@x.test")
		s.Once = &relay.Once{Key: "Schlüssel", Digest: [32]byte{1}}
		f.put(f.lease, s)
		again := func(key string, digest byte) *relay.Submission {
			m := f.message("a@x.test")
			m.Once = &relay.Once{Key: key, Digest: [32]byte{digest}}
			return m
		}
		twin := again("twin", 1)
		batch := []*relay.Submission{again("Schlüssel", 1), again("Schlüssel", 2), again("other", 1), twin, again("twin", 1)}
		errs := f.db.Put(f.Context(), f.lease, batch)
		f.repeats(errs[0], s.Message.ID)
		if relay.CodeOf(errs[1]) != relay.Conflict || errs[2] != nil || errs[3] != nil {
			f.Errorf("put: %v", errs)
		}
		f.repeats(errs[4], twin.Message.ID)
		for i, s := range batch {
			if _, err := f.db.Story(f.Context(), f.me, s.Message.ID); (err == nil) != (i == 2 || i == 3) {
				f.Errorf("message %d: %v", i, err)
			}
		}
		// Another account has keys of its own, and after a day they are free.
		other := Submission(f.account("other", relay.ID{}).ID, noon, []byte("x"), "a@x.test")
		other.Once = s.Once
		f.put(f.lease, other)
		f.exec("update once set expires = 1 where word = 'other'")
		f.put(f.lease, again("other", 3))
		f.exec("update once set expires = 1 where word = 'other'")
		f.must(f.db.Sweep(f.Context()))
		f.put(f.lease, again("other", 4))
	}},
	{"once from many", func(f *fixture) {
		dbs := f.handles()
		for round := range 5 {
			var group sync.WaitGroup
			errs := make([]error, 6)
			ids := make([]relay.ID, len(errs))
			for i := range errs {
				s := f.message("a@x.test")
				s.Once, s.InHand = &relay.Once{Key: fmt.Sprint(round), Digest: [32]byte{1}}, false
				ids[i] = s.Message.ID
				group.Go(func() { errs[i] = dbs[i%len(dbs)].Put(f.Context(), 0, []*relay.Submission{s})[0] })
			}
			group.Wait()
			first := slices.Index(errs, nil)
			if first < 0 {
				f.Fatalf("none was taken: %v", errs)
			}
			for i, err := range errs {
				if i != first {
					f.repeats(err, ids[first])
				}
			}
		}
	}},
	{"usage", func(f *fixture) {
		end := noon.Add(time.Hour)
		take := func(want, most int64) relay.Taken {
			f.Helper()
			got, err := f.db.TakeUsage(f.Context(), []relay.Take{{Account: f.me, Subject: "recipients/hour", Start: noon, End: end, Want: want, Most: most}})
			f.must(err)
			return got[0]
		}
		for i, c := range []struct {
			want, most int64
			got        relay.Taken
		}{
			{60, 100, relay.Taken{Got: 60}}, {60, 100, relay.Taken{Got: 40, Before: 60}}, {1, 100, relay.Taken{Before: 100}}, {-30, 100, relay.Taken{Got: -30, Before: 100}},
			{50, 90, relay.Taken{Got: 20, Before: 70}}, {5, 10, relay.Taken{Before: 90}}, {-1000, 0, relay.Taken{Got: -90, Before: 90}}, {5, 0, relay.Taken{}}, {3, 10, relay.Taken{Got: 3}},
		} {
			if got := take(c.want, c.most); got != c.got {
				f.Errorf("take %d: got %+v, want %+v", i, got, c.got)
			}
		}
		all, err := f.db.Usage(f.Context(), f.me, noon.Add(time.Minute))
		f.must(err)
		f.equal("usage", all, []*relay.Usage{{Account: f.me, Subject: "recipients/hour", Start: noon, End: end, Used: 3}})
		if later, err := f.db.Usage(f.Context(), f.me, end); err != nil || len(later) != 0 {
			f.Errorf("usage of the next hour: %v, %v", later, err)
		}
		// Several nodes take several at once, in any order; never more than there is.
		var group sync.WaitGroup
		var total atomic.Int64
		for i, db := range f.handles() {
			group.Go(func() {
				for range 10 {
					takes := []relay.Take{{Account: f.me, Subject: "a", Start: noon, End: end, Want: 7, Most: 100}, {Account: f.me, Subject: "b", Start: noon, End: end, Want: 1, Most: 1}}
					if i == 1 {
						slices.Reverse(takes)
					}
					got, err := db.TakeUsage(f.Context(), takes)
					if err != nil {
						f.Error(err)
						return
					}
					for _, t := range got {
						total.Add(t.Got)
					}
				}
			})
		}
		group.Wait()
		if total.Load() != 101 {
			f.Errorf("%d were taken, want 101", total.Load())
		}
		f.must(f.db.Sweep(f.Context()))
		f.exec("update taken set ends = 1")
		f.must(f.db.Sweep(f.Context()))
		if got := take(1, 10); got.Before != 0 {
			f.Errorf("what had ended was not swept: %+v", got)
		}
	}},
	{"usage of a bucket", func(f *fixture) {
		for i, c := range []struct {
			want, least, most, top int64
			got                    relay.Taken
		}{
			{60, 0, 50, 500, relay.Taken{Got: 50}},
			{5, 3, 53, 503, relay.Taken{Got: 3, Before: 50}},
			{100, 1000, 1050, 1500, relay.Taken{Got: 50, Before: 1000}}, // full again
			{5, 1000, 1050, 1500, relay.Taken{Before: 1050}},
			{5, 100, 150, 600, relay.Taken{Before: 600}}, // the clock went back
			{5, 560, 610, 1060, relay.Taken{Got: 5, Before: 600}},
			{5, 700, 750, 0, relay.Taken{Got: 5, Before: 700}},
		} {
			got, err := f.db.TakeUsage(f.Context(), []relay.Take{{Account: f.me, Subject: "messages/second", Start: noon, End: noon.Add(time.Hour),
				Want: c.want, Least: c.least, Most: c.most, Top: c.top}})
			f.must(err)
			if got[0] != c.got {
				f.Errorf("take %d: got %+v, want %+v", i, got[0], c.got)
			}
		}
	}},
	{"outcomes by day", func(f *fixture) {
		other := f.account("other", relay.ID{})
		one, two := f.message("a@x.test", "b@x.test", "c@x.test"), Submission(other.ID, noon, []byte("x"), "a@x.test")
		f.put(f.lease, one, two)
		tomorrow := outcome(one.Deliveries[2], relay.EventBounced)
		tomorrow.At = noon.Add(24 * time.Hour)
		deferred := outcome(one.Deliveries[1], relay.EventDeferred)
		f.settle(f.lease, outcome(one.Deliveries[0], relay.EventDelivered), deferred, tomorrow, outcome(two.Deliveries[0], relay.EventDelivered))
		late := outcome(one.Deliveries[1], relay.EventDelivered)
		late.At = noon.Add(time.Hour)
		// What was settled before counts once.
		for i, err := range f.db.Settle(f.Context(), f.lease, []relay.Outcome{late, outcome(one.Deliveries[0], relay.EventBounced)}) {
			if (i == 1) != errors.Is(err, store.ErrSettled) {
				f.Errorf("settle %d: %v", i, err)
			}
		}
		day := relay.PerDay.Start(noon)
		count := func(day time.Time, kind relay.Kind, n int64) *relay.DayCount {
			return &relay.DayCount{Account: f.me, Day: day, Kind: kind, N: n}
		}
		next := day.AddDate(0, 0, 1)
		all, err := f.db.Outcomes(f.Context(), f.me, noon, noon.Add(24*time.Hour))
		f.must(err)
		f.equal("outcomes", all, []*relay.DayCount{count(day, relay.EventDelivered, 2), count(day, relay.EventDeferred, 1), count(next, relay.EventBounced, 1)})
		if today, err := f.db.Outcomes(f.Context(), f.me, noon, noon); err != nil || len(today) != 2 {
			f.Errorf("today: %v, %v", today, err)
		}
		if both, err := f.db.Outcomes(f.Context(), relay.Everyone, noon, noon.Add(24*time.Hour)); err != nil || len(both) != 4 {
			f.Errorf("of all: %v, %v", both, err)
		}
	}},
	{"outcomes from many", func(f *fixture) {
		dbs := f.handles()
		const each = 40
		var group sync.WaitGroup
		for _, db := range dbs {
			batch := make([]*relay.Submission, each)
			for i := range batch {
				batch[i] = f.message("a@x.test")
				batch[i].InHand = false
			}
			f.put(0, batch...)
			group.Go(func() {
				for i, s := range batch {
					o := order(s.Deliveries[0], relay.EventCancelled, noon.Add(time.Duration(i)*time.Second))
					if err := db.Settle(f.Context(), 0, []relay.Outcome{o})[0]; err != nil {
						f.Error(err)
					}
				}
			})
		}
		group.Wait()
		all, err := f.db.Outcomes(f.Context(), f.me, noon, noon)
		f.must(err)
		if len(all) != 1 || all[0].N != int64(each*len(dbs)) {
			f.Errorf("counted %+v", all)
		}
	}},
	{"files", func(f *fixture) {
		for _, name := range []string{"acme/a_b", "acme/a%b", "acme/axb", "other"} {
			f.must(f.db.PutFile(f.Context(), name, []byte(name)))
		}
		f.must(f.db.PutFile(f.Context(), "acme/a_b", nil))
		f.reopen()
		file := f.get(f.db.File(f.Context(), "acme/a_b")).(*store.File)
		if file.Size != 0 || len(file.Bytes) != 0 || time.Since(file.Modified).Abs() > time.Minute {
			f.Errorf("empty file: %+v", file)
		}
		list, err := f.db.Files(f.Context(), "acme/a_")
		f.must(err)
		if len(list) != 1 || list[0].Name != "acme/a_b" {
			f.Errorf("list: %+v", list)
		}
		if all, err := f.db.Files(f.Context(), "acme/"); err != nil || len(all) != 3 || all[0].Size != 8 {
			f.Errorf("all: %v, %v", all, err)
		}
		for i, want := range []string{"first", "first"} {
			if kept, err := f.db.EnsureFile(f.Context(), "check", []byte([]string{"first", "second"}[i])); err != nil || string(kept) != want {
				f.Errorf("ensured %q, %v", kept, err)
			}
		}
		f.must(f.db.RemoveFile(f.Context(), "check"))
		for what, err := range map[string]error{"removed": f.db.RemoveFile(f.Context(), "check"), "read": second(f.db.File(f.Context(), "check"))} {
			if relay.CodeOf(err) != relay.NotFound {
				f.Errorf("%s: %v", what, err)
			}
		}
	}},
	{"locks", func(f *fixture) {
		lock := func(db *store.DB, owner string, lasts time.Duration) bool {
			f.Helper()
			got, err := db.Lock(f.Context(), "l", owner, lasts)
			f.must(err)
			return got
		}
		dbs := f.handles()
		if !lock(dbs[0], "a", time.Minute) || lock(dbs[1], "b", time.Minute) || !lock(dbs[2], "a", time.Minute) {
			f.Error("two have the lock, or its owner has it not")
		}
		f.must(f.db.Unlock(f.Context(), "l", "b")) // not b's to give
		if lock(dbs[1], "b", time.Minute) {
			f.Error("somebody else gave the lock back")
		}
		f.must(f.db.Unlock(f.Context(), "l", "a"))
		if !lock(dbs[1], "b", 0) || !lock(dbs[2], "c", time.Minute) {
			f.Error("a lock that is free, or over, cannot be had")
		}
		var group sync.WaitGroup
		var had atomic.Int64
		for i, db := range dbs {
			group.Go(func() {
				if got, err := db.Lock(f.Context(), "m", fmt.Sprint(i), time.Minute); err != nil || got {
					had.Add(1)
				}
			})
		}
		group.Wait()
		if had.Load() != 1 {
			f.Errorf("%d have the lock", had.Load())
		}
	}},
	{"TLS reports", func(f *fixture) {
		long := strings.Repeat("ein langer Grund ", 1000)
		var group sync.WaitGroup
		for _, db := range f.handles() {
			group.Go(func() {
				if err := db.CountTLS(f.Context(), []relay.TLSCount{{Day: noon, Domain: "x.test", Detail: long, Sessions: 2}, {Day: noon.Add(time.Hour), Domain: "x.test", Detail: "ok", Sessions: 1},
					{Day: noon, Domain: "x.test", Detail: "ok", Sessions: 4}, {Day: noon.Add(24 * time.Hour), Domain: "y.test", Detail: "ok", Sessions: 1}}); err != nil {
					f.Error(err)
				}
			})
		}
		group.Wait()
		day := relay.PerDay.Start(noon)
		all, err := f.db.TLSCounts(f.Context(), noon, "x.test")
		f.must(err)
		f.equal("counts", all, []*relay.TLSCount{{Day: day, Domain: "x.test", Detail: "ok", Sessions: 15}, {Day: day, Domain: "x.test", Detail: long, Sessions: 6}})
		domains, err := f.db.TLSDomains(f.Context(), noon)
		f.must(err)
		f.equal("domains", domains, []string{"x.test"})
		f.must(f.db.DropTLS(f.Context(), noon, "x.test"))
		if left, err := f.db.TLSDomains(f.Context(), noon); err != nil || len(left) != 0 {
			f.Errorf("left: %v, %v", left, err)
		}
		if left, err := f.db.TLSDomains(f.Context(), noon.Add(24*time.Hour)); err != nil || len(left) != 1 {
			f.Errorf("the next day: %v, %v", left, err)
		}
	}},
	{"message", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test")
		s.Message.Script, s.Message.Tags, s.Message.Metadata = "33:mail.php", []string{"täglich", "a b"}, map[string]string{"order": "ü17", "": "x"}
		s.Message.Archive = true
		s.Message.Credential, s.Message.Source = NewID(noon), relay.Source{Client: netip.MustParseAddrPort("192.0.2.77:25"), Helo: "drucker.example"}
		other := f.message("a@x.test")
		f.put(f.lease, s, other)
		f.equal("message", f.story(s.Message.ID).Message, s.Message)
		for what, filter := range map[string]relay.DeliveryFilter{"credential": {Credential: s.Message.Credential}, "client": {Client: "192.0.2.77"}, "helo": {Client: "DRUCKER"},
			"script": {Script: "mail.php"}, "tag": {Tag: "a b"}, "other tag": {Tag: "täglich"}} {
			if found, err := f.db.Deliveries(f.Context(), f.me, filter); err != nil || len(found) != 2 {
				f.Errorf("by %s: found %d, %v", what, len(found), err)
			}
		}
		for what, filter := range map[string]relay.DeliveryFilter{"half a tag": {Tag: "a"}, "two tags": {Tag: "täglich\na b\n"}, "wildcard": {Tag: "%"}, "script": {Script: "m%l"}} {
			if found, err := f.db.Deliveries(f.Context(), f.me, filter); err != nil || len(found) != 0 {
				f.Errorf("by %s: found %d, %v", what, len(found), err)
			}
		}
		f.settle(f.lease, outcome(s.Deliveries[0], relay.EventDelivered), outcome(s.Deliveries[1], relay.EventDelivered))
		if f.content(s.Message.ID) == nil {
			f.Error("the content of an archived message is gone")
		}
	}},
}

func second[T any](_ T, err error) error { return err }

// repeats expects that a submission was refused because an earlier one, whose
// message is first, had its key.
func (f *fixture) repeats(err error, first relay.ID) {
	f.Helper()
	var earlier *relay.Earlier
	if relay.CodeOf(err) != relay.Repeated || !errors.As(err, &earlier) || earlier.Message != first {
		f.Errorf("repeated: %v; want %s", err, first)
	}
}

func (f *fixture) domain(account relay.ID, name string) *relay.Domain {
	f.Helper()
	d := &relay.Domain{ID: NewID(noon), Account: account, Name: name, Proof: "p", Publish: "txt", ReturnPath: "bounce", Broken: relay.BrokenWarn, Due: noon, Created: noon}
	f.must(f.db.AddDomain(f.Context(), somebody, d))
	return d
}
