package storetest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

var tenantTests = []test{
	{"account", func(f *fixture) {
		a := f.account("Müller & Söhne 🐎", relay.ID{})
		a.Limits = []relay.Limit{{Most: 0, Of: "messages", Per: relay.PerSecond, Burst: 5}, {Most: 10, Of: "recipients", Per: relay.PerMonth}}
		a.Growth, a.Muted, a.DNS = relay.Growth{Daily: 50, Since: noon}, relay.SuppressRefuse, relay.DNSRefuse
		seen := *a
		f.must(f.db.SetAccount(f.Context(), somebody, relay.Everyone, a))
		if a.Version != 2 {
			f.Errorf("version %d after a change", a.Version)
		}
		f.reopen()
		f.equal("account", f.get(f.db.Account(f.Context(), a.ID, a.ID)), a)
		f.equal("by name", f.get(f.db.AccountByName(f.Context(), a.ID, a.Name)), a)
		f.overtaken("an old version", f.db.SetAccount(f.Context(), somebody, relay.Everyone, &seen))
		child := f.account("child", a.ID)
		f.equal("child", f.get(f.db.Account(f.Context(), a.ID, child.ID)), child)
		for what, account := range map[string]relay.ID{"another": f.me, "its child": child.ID, "nobody": {}} {
			f.missing("account as "+what, account, func(as relay.ID) error { _, err := f.db.Account(f.Context(), as, a.ID); return err })
		}
		f.taken("the same name", f.db.AddAccount(f.Context(), somebody, &relay.Account{ID: NewID(noon), Name: a.Name}))
		child.Name = a.Name
		f.taken("the same name by a change", f.db.SetAccount(f.Context(), somebody, a.ID, child))
		if child.Version != 1 {
			f.Error("a refused change raised the version")
		}
		var ids []relay.ID
		for after, more := (relay.ID{}), true; more; {
			page, err := f.db.Accounts(f.Context(), relay.Everyone, after, 2)
			f.must(err)
			for _, a := range page {
				ids, after = append(ids, a.ID), a.ID
			}
			more = len(page) == 2
		}
		slices.SortFunc(ids, relay.ID.Compare)
		want := []relay.ID{f.me, a.ID, child.ID}
		slices.SortFunc(want, relay.ID.Compare)
		f.equal("pages", ids, want)
		for account, n := range map[relay.ID]int{a.ID: 2, child.ID: 1, f.me: 1, {}: 0} {
			if all, err := f.db.Accounts(f.Context(), account, relay.ID{}, 0); err != nil || len(all) != n {
				f.Errorf("%d accounts are seen, want %d: %v", len(all), n, err)
			}
		}
		for _, bad := range []*relay.Account{{Name: "x"}, {ID: NewID(noon)}, {ID: relay.Everyone, Name: "x"}} {
			if err := f.db.AddAccount(f.Context(), somebody, bad); relay.CodeOf(err) != relay.Invalid {
				f.Errorf("%+v: %v", bad, err)
			}
		}
	}},
	{"user and member", func(f *fixture) {
		ann := f.user("ann@example.com")
		ann.Name, ann.Argon2, ann.Operator, ann.Disabled = "Ännchen", "$argon2id$x", true, noon
		old := *ann
		f.must(f.db.SetUser(f.Context(), somebody, relay.Everyone, ann))
		f.overtaken("an old version", f.db.SetUser(f.Context(), somebody, relay.Everyone, &old))
		f.reopen()
		f.equal("user", f.get(f.db.User(f.Context(), relay.Everyone, ann.ID)), ann)
		f.equal("by e-mail", f.get(f.db.UserByEmail(f.Context(), "ann@example.com")), ann)
		f.missing("user before being a member", f.me, func(as relay.ID) error { _, err := f.db.User(f.Context(), as, ann.ID); return err })
		f.taken("the same address", f.db.AddUser(f.Context(), somebody, &relay.User{ID: NewID(noon), Email: "ann@example.com"}))

		ben := f.user("ben@example.com")
		for _, m := range []relay.Member{{Account: f.me, User: ben.ID, Role: relay.Viewer, Since: noon}, {Account: f.me, User: ann.ID, Role: relay.Owner, Since: noon},
			{Account: f.me, User: ben.ID, Role: relay.Admin, Since: noon.Add(time.Hour)}} { // the last changes the first
			f.must(f.db.SetMember(f.Context(), somebody, m))
		}
		version := f.version()
		f.must(f.db.SetMember(f.Context(), somebody, relay.Member{Account: f.me, User: ben.ID, Role: relay.Admin}))
		if f.version() != version {
			f.Error("the same role again is a change")
		}
		all, err := f.db.Members(f.Context(), f.me)
		f.must(err)
		f.equal("members", all, []*relay.Member{{Account: f.me, User: ann.ID, Email: "ann@example.com", Role: relay.Owner, Since: noon},
			{Account: f.me, User: ben.ID, Email: "ben@example.com", Role: relay.Admin, Since: noon}})
		f.equal("user of the account", f.get(f.db.User(f.Context(), f.me, ann.ID)), ann)
		places, err := f.db.Memberships(f.Context(), ben.ID)
		f.must(err)
		f.equal("memberships", places, all[1:])
		if found, err := f.db.Users(f.Context(), f.me, ann.ID, 1); err != nil || len(found) != 1 || found[0].ID != ben.ID {
			f.Errorf("the second page of users: %v, %v", found, err)
		}
		f.missing("unknown user", f.me, func(as relay.ID) error {
			return f.db.SetMember(f.Context(), somebody, relay.Member{Account: as, User: NewID(noon), Role: relay.Admin})
		})
		f.must(f.db.RemoveMember(f.Context(), somebody, f.me, ben.ID))
		f.missing("removed member", f.me, func(as relay.ID) error { return f.db.RemoveMember(f.Context(), somebody, as, ben.ID) })
	}},
	{"plan", func(f *fixture) {
		p := &relay.Plan{Name: "klein/groß", Limits: []relay.Limit{{Most: 100, Of: "recipients", Per: relay.PerDay}}, Start: 20}
		f.must(f.db.SetPlan(f.Context(), somebody, p))
		old := *p
		p.Start = 0
		f.must(f.db.SetPlan(f.Context(), somebody, p))
		f.overtaken("an old version", f.db.SetPlan(f.Context(), somebody, &old))
		f.taken("a second one", f.db.SetPlan(f.Context(), somebody, &relay.Plan{Name: p.Name}))
		f.equal("plan", f.get(f.db.Plan(f.Context(), p.Name)), p)
		a := f.account("on it", relay.ID{})
		a.Plan = p.Name
		f.must(f.db.SetAccount(f.Context(), somebody, relay.Everyone, a))
		if err := f.db.RemovePlan(f.Context(), somebody, p.Name); relay.CodeOf(err) != relay.Conflict {
			f.Errorf("removed a plan that is in use: %v", err)
		}
		a.Plan = ""
		f.must(f.db.SetAccount(f.Context(), somebody, relay.Everyone, a))
		f.must(f.db.RemovePlan(f.Context(), somebody, p.Name))
		if _, err := f.db.Plan(f.Context(), p.Name); relay.CodeOf(err) != relay.NotFound {
			f.Errorf("a removed plan: %v", err)
		}
		if all, err := f.db.Plans(f.Context()); err != nil || len(all) != 0 {
			f.Errorf("plans: %v, %v", all, err)
		}
	}},
	{"credential", func(f *fixture) {
		_, key, _ := credentials(f.me)
		f.must(f.db.AddCredential(f.Context(), somebody, key))
		old := *key
		key.Name, key.Status, key.Reason, key.Scopes, key.Owner = "Schlüssel", relay.Blocked, "why not", []relay.Scope{relay.ScopeRead}, somebody.User
		key.Limits, key.Pool, key.Opens, key.Clicks, key.Archive = []relay.Limit{{Most: 1, Of: "messages", Per: relay.PerHour}}, "p", true, true, true
		key.Expires, key.Senders = noon.Add(time.Hour), []string{"example.com"}
		key.Previous = relay.Previous{SecretSHA256: key.SecretSHA256, Argon2: "$x", Scram: relay.Scram{Salt: []byte{1}, Iterations: 2, Stored: []byte{3}, Server: []byte{4}}, Until: noon.Add(2 * time.Hour)}
		key.SecretSHA256 = make([]byte, 32)
		f.must(f.db.SetCredential(f.Context(), somebody, f.me, key))
		f.overtaken("an old version", f.db.SetCredential(f.Context(), somebody, f.me, &old))
		f.reopen()
		f.equal("credential", f.get(f.db.Credential(f.Context(), f.me, key.ID)), key)
		for what, sum := range map[string][]byte{"secret": key.SecretSHA256, "secret before": key.Previous.SecretSHA256} {
			f.equal("by its "+what, f.get(f.db.CredentialByKey(f.Context(), [32]byte(sum))), key)
		}
		smtp, _, _ := credentials(f.me)
		f.must(f.db.AddCredential(f.Context(), somebody, smtp))
		other := *smtp
		other.ID, other.User = NewID(noon), "other"
		f.must(f.db.AddCredential(f.Context(), somebody, &other))
		other.User = smtp.User
		f.taken("a user name that is taken", f.db.SetCredential(f.Context(), somebody, f.me, &other))
	}},
	{"two at once", func(f *fixture) {
		// Two nodes change one thing, both having seen the same of it: one wins.
		dbs := f.handles()
		a := f.account("contested", relay.ID{})
		d := f.domain(f.me, "contested.example")
		_, key, _ := credentials(f.me)
		f.must(f.db.AddCredential(f.Context(), somebody, key))
		for round := range 5 {
			for what, change := range map[string]func(db *store.DB, i int) error{
				"account": func(db *store.DB, i int) error {
					mine := *a
					mine.Reason = fmt.Sprint(round, i)
					return db.SetAccount(f.Context(), somebody, relay.Everyone, &mine)
				},
				"domain": func(db *store.DB, i int) error {
					mine := *d
					mine.Tracking = fmt.Sprint(round, i)
					return db.SetDomain(f.Context(), somebody, f.me, &mine)
				},
				"credential": func(db *store.DB, i int) error {
					mine := *key
					mine.Reason = fmt.Sprint(round, i)
					return db.SetCredential(f.Context(), somebody, f.me, &mine)
				},
			} {
				var group sync.WaitGroup
				errs := make([]error, len(dbs))
				for i, db := range dbs {
					group.Go(func() { errs[i] = change(db, i) })
				}
				group.Wait()
				won := 0
				for _, err := range errs {
					if err == nil {
						won++
					} else if relay.CodeOf(err) != relay.Conflict {
						f.Errorf("%s: %v", what, err)
					}
				}
				if won != 1 {
					f.Errorf("%s: %d of %d won", what, won, len(dbs))
				}
			}
			a.Version, d.Version, key.Version = a.Version+1, d.Version+1, key.Version+1
		}
	}},
	{"audit", func(f *fixture) {
		a := f.account("watched", relay.ID{})
		_, key, _ := credentials(a.ID)
		key.Scram = relay.Scram{Stored: []byte("a secret")}
		f.must(f.db.AddCredential(f.Context(), somebody, key))
		key.Name = "renamed"
		f.must(f.db.SetCredential(f.Context(), relay.Actor{Name: "operator"}, a.ID, key))
		f.must(f.db.RevokeCredential(f.Context(), somebody, a.ID, key.ID, noon))
		f.must(f.db.Note(f.Context(), &relay.Change{At: noon, Account: a.ID, Actor: relay.Actor{Name: "postrider"}, Action: "limit.warning", Object: "x", After: json.RawMessage(`{"percent":80}`)}))
		all, err := f.db.Changes(f.Context(), a.ID, relay.ChangeFilter{})
		f.must(err)
		f.equal("actions", actions(all), []string{"limit.warning", "credential.revoke", "credential.change", "credential.add", "account.add"})
		if c := all[1]; !slices.Equal([]string{c.Actor.Name, c.Object}, []string{"Jörg", key.ID.String()}) || c.Actor.User != somebody.User || c.Actor.Client != somebody.Client ||
			len(c.Before) == 0 || len(c.After) == 0 || c.At.IsZero() || c.Account != a.ID {
			f.Errorf("revocation: %+v", c)
		}
		if c := all[3]; len(c.Before) != 0 || strings.Contains(string(c.After), "secret") || !strings.Contains(string(c.After), `"name":"key"`) {
			f.Errorf("addition: before %q, after %q", c.Before, c.After)
		}
		for what, c := range map[string]struct {
			filter relay.ChangeFilter
			want   []string
		}{
			"action":          {relay.ChangeFilter{Action: "credential.add"}, []string{"credential.add"}},
			"actions":         {relay.ChangeFilter{Action: "credential"}, []string{"credential.revoke", "credential.change", "credential.add"}},
			"half a word":     {relay.ChangeFilter{Action: "cred"}, nil},
			"wildcard":        {relay.ChangeFilter{Action: "%"}, nil},
			"object":          {relay.ChangeFilter{Object: a.Name}, []string{"account.add"}},
			"user":            {relay.ChangeFilter{User: somebody.User, Limit: 1}, []string{"credential.revoke"}},
			"page":            {relay.ChangeFilter{Before: all[2].ID}, []string{"credential.add", "account.add"}},
			"before all":      {relay.ChangeFilter{Until: noon.Add(-time.Hour)}, nil},
			"after all":       {relay.ChangeFilter{Since: time.Now().Add(time.Hour)}, nil},
			"about this time": {relay.ChangeFilter{Action: "account", Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}, []string{"account.add"}},
		} {
			got, err := f.db.Changes(f.Context(), a.ID, c.filter)
			f.must(err)
			f.equal(what, actions(got), c.want)
		}
		// What is refused leaves no trace.
		key.Version = 1
		f.overtaken("old", f.db.SetCredential(f.Context(), somebody, a.ID, key))
		if again, err := f.db.Changes(f.Context(), a.ID, relay.ChangeFilter{}); err != nil || len(again) != len(all) {
			f.Errorf("%d entries after a refused change, %v", len(again), err)
		}
		if err := f.db.Note(f.Context(), &relay.Change{}); relay.CodeOf(err) != relay.Invalid {
			f.Errorf("an entry of no account: %v", err)
		}
	}},
	{"use", func(f *fixture) {
		_, key, _ := credentials(f.me)
		f.must(f.db.AddCredential(f.Context(), somebody, key))
		use := func(client string, at time.Time) []relay.Use {
			f.Helper()
			addr := netip.MustParseAddr(client)
			network, err := addr.Prefix(addr.BitLen() * 3 / 4)
			f.must(err)
			strange, err := f.db.UseCredentials(f.Context(), []relay.Use{{Account: f.me, Credential: key.ID, Client: addr, Network: network, At: at}}, at.Add(-24*time.Hour))
			f.must(err)
			return strange
		}
		version := f.version()
		for i, c := range []struct {
			client string
			at     time.Duration
			report bool
		}{
			{"192.0.2.1", 0, false},                     // the first one
			{"198.51.100.1", time.Hour, false},          // it is not in use for long
			{"192.0.2.7", 48 * time.Hour, false},        // known
			{"203.0.113.1", 49 * time.Hour, true},       // strange
			{"203.0.113.2", 50 * time.Hour, false},      // told once
			{"2001:db8:1::1", 49*time.Hour + 1e6, true}, // came late, and is strange all the same
		} {
			if got := use(c.client, noon.Add(c.at)); (len(got) == 1) != c.report {
				f.Errorf("use %d from %s: reported %v", i, c.client, got)
			}
		}
		got := f.get(f.db.Credential(f.Context(), f.me, key.ID)).(*relay.Credential)
		if !got.Used.Equal(noon.Add(50*time.Hour)) || got.UsedFrom.String() != "203.0.113.2" || got.Version != 1 || f.version() != version {
			f.Errorf("used %v from %v; version %d", got.Used, got.UsedFrom, got.Version)
		}
		all, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "credential.new_network"})
		f.must(err)
		if len(all) != 2 || all[0].Object != key.ID.String() || !strings.Contains(string(all[1].After), "203.0.113.0/24") {
			f.Errorf("reported %d times: %+v", len(all), all)
		}
		foreign := relay.Use{Account: NewID(noon), Credential: key.ID, Client: netip.MustParseAddr("10.0.0.1"), Network: netip.MustParsePrefix("10.0.0.0/24"), At: noon.Add(99 * time.Hour)}
		if strange, err := f.db.UseCredentials(f.Context(), []relay.Use{foreign}, noon.Add(98*time.Hour)); err != nil || len(strange) != 0 {
			f.Errorf("a use as another account: %v, %v", strange, err)
		}
	}},
}

func actions(all []*relay.Change) (names []string) {
	for _, c := range all {
		names = append(names, c.Action)
	}
	return names
}

// handles are three stores on the same database, or three times the same where
// there can be but one.
func (f *fixture) handles() []*store.DB {
	f.Helper()
	all := []*store.DB{f.db, f.db, f.db}
	for i := range all {
		if f.engine.Single || i == 0 {
			continue
		}
		db, err := f.engine.Open(f.Context(), f.place)
		f.must(err)
		f.Cleanup(func() {
			if err := db.Close(); err != nil {
				f.Error(err)
			}
		})
		all[i] = db
	}
	return all
}

func (f *fixture) account(name string, parent relay.ID) *relay.Account {
	f.Helper()
	a := &relay.Account{ID: NewID(noon), Parent: parent, Name: name, Status: relay.Active, Created: noon}
	f.must(f.db.AddAccount(f.Context(), somebody, a))
	return a
}

func (f *fixture) user(email string) *relay.User {
	f.Helper()
	u := &relay.User{ID: NewID(noon), Email: email, Created: noon}
	f.must(f.db.AddUser(f.Context(), somebody, u))
	return u
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// get gives what was asked for, which must be there.
func (f *fixture) get(v any, err error) any {
	f.Helper()
	f.must(err)
	return v
}

func (f *fixture) missing(what string, account relay.ID, ask func(as relay.ID) error) {
	f.Helper()
	if err := ask(account); relay.CodeOf(err) != relay.NotFound {
		f.Errorf("%s: %v; want it not found", what, err)
	}
}

func (f *fixture) taken(what string, err error) {
	f.Helper()
	if relay.CodeOf(err) != relay.Conflict {
		f.Errorf("%s: %v; want a conflict", what, err)
	}
}

func (f *fixture) overtaken(what string, err error) {
	f.Helper()
	f.taken(what, err)
	if err != nil && !strings.Contains(err.Error(), "Somebody else") {
		f.Errorf("%s: %v", what, err)
	}
}
