package account

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/relay"
)

// What a key may do is bounded by who makes it and by its owner, whatever it is
// asked to be.
func TestNoEscalation(t *testing.T) {
	f := newFixture(t)
	admin, developer, viewer := f.as(relay.Admin), f.as(relay.Developer), f.as(relay.Viewer)
	byKey := func(rights Rights) Caller {
		return Caller{Actor: relay.Actor{Credential: relay.ID{3}}, Account: f.account, Rights: rights}
	}
	const send, read, manage = relay.ScopeSend, relay.ScopeRead, relay.ScopeManage
	for what, c := range map[string]struct {
		by     Caller
		scopes []relay.Scope
		owner  relay.ID
		code   relay.Code
		want   string // what it may then
	}{
		"admin's":                      {admin, []relay.Scope{send, read, manage}, relay.ID{}, "", "send read build manage"},
		"developer's":                  {developer, []relay.Scope{manage}, relay.ID{}, "", "read build"},
		"viewer's":                     {viewer, []relay.Scope{read}, relay.ID{}, relay.Forbidden, ""},
		"admin's for the developer":    {admin, []relay.Scope{read}, developer.User, relay.Forbidden, ""},
		"developer's for the admin":    {developer, []relay.Scope{manage}, admin.User, relay.Forbidden, ""},
		"operator's for the admin":     {operator.In(f.account), []relay.Scope{manage}, admin.User, "", "read build manage"},
		"operator's own":               {operator.In(f.account), []relay.Scope{manage}, relay.ID{}, "", "read build manage"},
		"of a key that builds":         {byKey(Read | Build), []relay.Scope{send, read}, relay.ID{}, "", "send read"},
		"of a key that builds, wider":  {byKey(Read | Build), []relay.Scope{manage}, relay.ID{}, relay.Forbidden, ""},
		"of a key that sends":          {byKey(Send), []relay.Scope{send}, relay.ID{}, relay.Forbidden, ""},
		"with a scope that is unknown": {admin, []relay.Scope{"root"}, relay.ID{}, relay.Invalid, ""},
	} {
		k, secret, err := f.manager.Add(t.Context(), c.by, Wish{Account: f.account, Kind: KindKey, Name: "k", Scopes: c.scopes, Owner: c.owner})
		if c.code != "" {
			wantCode(t, "a key "+what, err, c.code)
			continue
		}
		f.must(err)
		id, err := f.login(here, "", secret)
		f.must(err)
		caller, err := f.service.Caller(t.Context(), id, netip.MustParseAddr(here))
		if err != nil || caller.Rights.String() != c.want || caller.Account != f.account || caller.Credential != k.ID || caller.User != k.Owner {
			t.Errorf("a key %s may %q: %+v, %v", what, caller.Rights, caller, err)
		}
	}
	_, _, err := f.manager.Add(t.Context(), developer, Wish{Account: relay.ID{9}, Kind: KindKey, Name: "k"})
	wantCode(t, "a key of another account", err, relay.NotFound)
	_, _, err = f.manager.Add(t.Context(), viewer, Wish{Account: f.account, Kind: KindSMTP, Name: "k"})
	wantCode(t, "a viewer's password", err, relay.Forbidden)
	_, _, err = f.manager.Add(t.Context(), admin, Wish{Account: f.account, Kind: KindSMTP, Name: "k", Scopes: []relay.Scope{manage}})
	wantCode(t, "a password with scopes", err, relay.Invalid)
	_, _, err = f.manager.Add(t.Context(), admin, Wish{Account: f.account, Kind: KindSMTP, Name: "k", Pool: "best"})
	wantCode(t, "a pool", err, relay.Forbidden)

	// A key loses what its owner loses.
	_, secret, err := f.manager.Add(t.Context(), admin, Wish{Account: f.account, Kind: KindKey, Name: "k", Scopes: []relay.Scope{manage}})
	f.must(err)
	id, err := f.login(here, "", secret)
	f.must(err)
	f.must(f.people().RemoveMember(t.Context(), operator.In(f.account), admin.User))
	if caller, err := f.service.Caller(t.Context(), id, netip.MustParseAddr(here)); err != nil || caller.Rights != 0 {
		t.Errorf("the key of who has left may %q, %v", caller.Rights, err)
	}
}

func TestNetworksOfOthers(t *testing.T) {
	f := newFixture(t)
	other, err := f.db.EnsureAccount(t.Context(), "other")
	f.must(err)
	f.add(Wish{Account: other, Kind: KindNetwork, Networks: prefixes("10.1.0.0/16")})
	developer := f.as(relay.Developer)
	for _, p := range []string{"10.1.2.3/32", "10.0.0.0/8"} {
		_, _, err := f.manager.Add(t.Context(), developer, Wish{Account: f.account, Kind: KindNetwork, Name: "n", Networks: prefixes(p)})
		wantCode(t, p, err, relay.Conflict)
	}
	for _, p := range []string{"198.51.0.0/16", "2001:db8::/32", "127.0.0.0/8", "::1/128"} {
		wide := Wish{Account: f.account, Kind: KindNetwork, Name: "n", Networks: prefixes(p)}
		_, _, err := f.manager.Add(t.Context(), developer, wide)
		wantCode(t, p, err, relay.Forbidden)
		wide.Name = p
		f.add(wide) // an operator may
	}
	mine, _, err := f.manager.Add(t.Context(), developer, Wish{Account: f.account, Kind: KindNetwork, Name: "n", Networks: prefixes("10.2.0.0/16", "198.51.100.0/24")})
	f.must(err)
	want := *mine
	want.Networks = prefixes("10.2.0.0/16", "10.1.9.0/24")
	_, err = f.manager.Change(t.Context(), developer, &want)
	wantCode(t, "by a change", err, relay.Conflict)
}

func TestChange(t *testing.T) {
	f := newFixture(t)
	developer, admin := f.as(relay.Developer), f.as(relay.Admin)
	c, secret := f.add(Wish{Kind: KindSMTP, Name: "app"})
	want := *c
	want.Name, want.Senders, want.Stream, want.Archive, want.Expires = "shop", []string{"BÜCHER.example"}, relay.Broadcast, true, time.Now().Add(time.Hour)
	want.User, want.Kind, want.SecretSHA256 = "other", KindKey, nil // not to be changed
	got, err := f.manager.Change(t.Context(), developer, &want)
	if err != nil || got.Name != "shop" || got.Senders[0] != "xn--bcher-kva.example" || got.User != c.User || got.Kind != KindSMTP || got.Version != 2 || len(got.SecretSHA256) == 0 {
		t.Fatalf("changed: %+v, %v", got, err)
	}
	id, err := f.login(here, c.User, secret)
	if err != nil || id.Stream != relay.Broadcast || !id.Archive || id.Senders[0] != "xn--bcher-kva.example" {
		t.Errorf("identity: %+v, %v", id, err)
	}
	// A session that is open sees what is changed next.
	got.Senders, got.Limits = []string{"example.com"}, []relay.Limit{{Most: 5, Of: "messages", Per: relay.PerHour}}
	if got, err = f.manager.Change(t.Context(), developer, got); err != nil {
		t.Fatal(err)
	}
	if !f.service.Alive(t.Context(), id) || id.Senders[0] != "example.com" || len(id.Limits) != 1 {
		t.Errorf("an open session after a change: %+v", id)
	}
	_, err = f.manager.Change(t.Context(), developer, &want)
	if relay.CodeOf(err) != relay.Conflict {
		t.Errorf("an old version: %v", err)
	}
	for what, change := range map[string]func(*relay.Credential){
		"no name":        func(c *relay.Credential) { c.Name = "" },
		"odd stream":     func(c *relay.Credential) { c.Stream = 7 },
		"odd status":     func(c *relay.Credential) { c.Status = "asleep" },
		"bad sender":     func(c *relay.Credential) { c.Senders = []string{"*"} },
		"bad limit":      func(c *relay.Credential) { c.Limits = []relay.Limit{{Most: 1, Of: "x"}} },
		"networks":       func(c *relay.Credential) { c.Networks = prefixes("10.0.0.0/8") },
		"scopes of none": func(c *relay.Credential) { c.Scopes = []relay.Scope{relay.ScopeRead} },
	} {
		bad := *got
		change(&bad)
		_, err := f.manager.Change(t.Context(), developer, &bad)
		wantCode(t, what, err, relay.Invalid)
	}
	// An admin's key: a developer may block it, not widen or rotate it.
	key, _, err := f.manager.Add(t.Context(), admin, Wish{Account: f.account, Kind: KindKey, Name: "admin's", Scopes: []relay.Scope{relay.ScopeManage}})
	f.must(err)
	blocked, err := f.manager.SetStatus(t.Context(), developer, "admin's", relay.Blocked, "leaked")
	if err != nil || blocked.Status != relay.Blocked || blocked.Reason != "leaked" {
		t.Errorf("blocked: %+v, %v", blocked, err)
	}
	wider := *blocked
	wider.Scopes = []relay.Scope{relay.ScopeManage, relay.ScopeSend}
	_, err = f.manager.Change(t.Context(), developer, &wider)
	wantCode(t, "widened", err, relay.Forbidden)
	_, _, err = f.manager.Rotate(t.Context(), developer, key.ID.String(), 0)
	wantCode(t, "rotated", err, relay.Forbidden)
	m, err := f.people().SetMember(t.Context(), operator.In(f.account), "second@example.com", relay.Admin)
	f.must(err)
	_, _, err = f.manager.Rotate(t.Context(), Caller{Actor: relay.Actor{User: m.User}, Account: f.account, Rights: OfRole(relay.Admin)}, key.ID.String(), 0)
	wantCode(t, "rotated by another admin", err, relay.Forbidden)
	_, err = f.manager.SetStatus(t.Context(), f.as(relay.Viewer), "shop", relay.Active, "")
	wantCode(t, "a viewer unblocks", err, relay.Forbidden)
	_, err = f.manager.Revoke(t.Context(), f.as(relay.Viewer), "shop")
	wantCode(t, "a viewer revokes", err, relay.Forbidden)
}

func TestRotate(t *testing.T) { synctest.Test(t, testRotate) }

func testRotate(t *testing.T) {
	f := newFixture(t)
	made, first := f.add(Wish{Kind: KindSMTP, Name: "made"})
	key, firstKey := f.add(Wish{Kind: KindKey, Name: "key"})
	f.choose("printer", "correct horse")
	ids := map[string]*Identity{}
	login := func(what, user, password string, good bool) {
		t.Helper()
		id, err := f.login(here, user, password)
		if (err == nil) != good {
			t.Errorf("login with %s: %v", what, err)
		}
		if id != nil {
			ids[what] = id
		}
	}
	login("the first password", made.User, first, true)
	login("the first key", "", firstKey, true)
	login("the chosen password", "printer", "correct horse", true)

	rotated, second, err := f.manager.Rotate(t.Context(), operator.In(f.account), "made", time.Hour)
	f.must(err)
	_, secondKey, err := f.manager.Rotate(t.Context(), operator.In(f.account), "key", time.Hour)
	f.must(err)
	_, printer, err := f.manager.Rotate(t.Context(), operator.In(f.account), "printer", time.Hour)
	f.must(err)
	if rotated.Version != 2 || string(rotated.Scram.Salt) != string(made.Scram.Salt) || second == first || !strings.HasPrefix(secondKey, keyPrefix) {
		t.Errorf("rotated: %+v", rotated)
	}
	for range 2 { // from the store, then from memory
		login("the first password", made.User, first, true)
		login("the second password", made.User, second, true)
		login("the first key", "", firstKey, true)
		login("the second key", "", secondKey, true)
		login("the chosen password", "printer", "correct horse", true)
		login("the printer's second one", "printer", printer, true)
		login("a wrong one", "printer", "wrong", false)
	}
	v, err := f.service.SCRAM(t.Context(), netip.MustParseAddr(here), made.User)
	if err != nil || v.Before == nil || string(v.Before.StoredKey) != string(made.Scram.Stored) || v.Before.Identity == nil {
		t.Errorf("SCRAM while both serve: %+v, %v", v, err)
	}
	alive := func(want map[string]bool) {
		t.Helper()
		for what, id := range ids {
			if got := f.service.Alive(t.Context(), id); got != want[what] {
				t.Errorf("a session with %s is alive: %v", what, got)
			}
		}
	}
	alive(map[string]bool{"the first password": true, "the first key": true, "the chosen password": true, "the second password": true, "the second key": true, "the printer's second one": true})

	time.Sleep(time.Hour)
	login("the first password", made.User, first, false)
	login("the first key", "", firstKey, false)
	login("the chosen password", "printer", "correct horse", false)
	time.Sleep(time.Hour) // what failed is forgotten
	login("the second password", made.User, second, true)
	login("the second key", "", secondKey, true)
	alive(map[string]bool{"the second password": true, "the second key": true, "the printer's second one": true})
	if v, err := f.service.SCRAM(t.Context(), netip.MustParseAddr(here), made.User); err != nil || v.Before != nil {
		t.Errorf("SCRAM after the overlap: %+v, %v", v, err)
	}
	// At once, and of what has no secret.
	_, third, err := f.manager.Rotate(t.Context(), operator.In(f.account), key.ID.String(), 0)
	f.must(err)
	login("the third key", "", third, true)
	login("the second key", "", secondKey, false)
	f.add(Wish{Kind: KindNetwork, Name: "net", Networks: prefixes("10.0.0.0/8")})
	for what, overlap := range map[string]time.Duration{"net": 0, "made": 31 * 24 * time.Hour, "key": -1} {
		_, _, err := f.manager.Rotate(t.Context(), operator.In(f.account), what, overlap)
		wantCode(t, "rotate "+what, err, relay.Invalid)
	}
}

// Blocked, expired, closed: told so, when the password is right, and only then.
// Open sessions end.
func TestRefusedAtLogin(t *testing.T) { synctest.Test(t, testRefusedAtLogin) }

func testRefusedAtLogin(t *testing.T) {
	f := newFixture(t)
	tenants := f.tenants()
	c, secret := f.add(Wish{Kind: KindSMTP, Name: "app"})
	_, key := f.add(Wish{Kind: KindKey, Name: "key"})
	net, _ := f.add(Wish{Kind: KindNetwork, Name: "net", Networks: prefixes("10.1.0.0/16")})
	wide, _ := f.add(Wish{Kind: KindNetwork, Name: "wide", Networks: prefixes("10.0.0.0/8")})
	client := netip.MustParseAddr("10.1.2.3")
	var sessions []*Identity
	enter := func() {
		t.Helper()
		sessions = nil
		for _, l := range [][2]string{{c.User, secret}, {"", key}} {
			id, err := f.login(here, l[0], l[1])
			f.must(err)
			sessions = append(sessions, id)
		}
		id := f.service.Network(t.Context(), client)
		if id == nil || id.Credential != net.ID {
			t.Fatalf("network: %+v", id)
		}
		sessions = append(sessions, id)
	}
	refused := func(why, text string, n int) {
		t.Helper()
		dead := 0
		for _, id := range sessions {
			if !f.service.Alive(t.Context(), id) {
				dead++
			}
		}
		if dead != n {
			t.Errorf("%s: %d sessions have ended, want %d", why, dead, n)
		}
		_, err := f.login(here, c.User, secret)
		wantCode(t, why, err, relay.Forbidden)
		if err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v; want %q", why, err, text)
		}
		if err := f.service.Succeeded(t.Context(), netip.MustParseAddr(here), c.User); relay.CodeOf(err) != relay.Forbidden {
			t.Errorf("%s, by SCRAM: %v", why, err)
		}
		_, err = f.login("192.0.2.99", c.User, "wrong")
		wantCode(t, why+", with a wrong password", err, relay.Unauthenticated)
	}
	enter()
	set := func(status relay.Status, reason string) {
		t.Helper()
		_, err := f.manager.SetStatus(t.Context(), operator.In(f.account), c.User, status, reason)
		f.must(err)
	}
	set(relay.Blocked, "leaked.")
	refused("blocked", "This credential is blocked: leaked.", 1)
	set(relay.Active, "")
	want, err := f.manager.Find(t.Context(), f.account, c.User)
	f.must(err)
	want.Expires = time.Now().Add(time.Minute)
	_, err = f.manager.Change(t.Context(), operator.In(f.account), want)
	f.must(err)
	enter()
	time.Sleep(time.Minute)
	refused("expired", "This credential expired on ", 1)
	want, err = f.manager.Find(t.Context(), f.account, c.User)
	f.must(err)
	want.Expires = time.Time{}
	_, err = f.manager.Change(t.Context(), operator.In(f.account), want)
	f.must(err)

	enter()
	a, err := tenants.Get(t.Context(), operator, f.account)
	f.must(err)
	a.Status, a.Reason = relay.Blocked, "spam"
	f.must(tenants.Set(t.Context(), operator, a))
	refused("account blocked", "This account is blocked: spam.", 3)
	if id := f.service.Network(t.Context(), client); id != nil {
		t.Errorf("a network of a blocked account: %+v", id)
	}
	a.Status, a.Reason = relay.Active, ""
	f.must(tenants.Set(t.Context(), operator, a))
	enter()
	_, err = f.manager.SetStatus(t.Context(), operator.In(f.account), net.ID.String(), relay.Blocked, "")
	f.must(err)
	if f.service.Alive(t.Context(), sessions[2]) {
		t.Error("a session from a blocked network goes on")
	}
	if id := f.service.Network(t.Context(), client); id == nil || id.Credential != wide.ID {
		t.Errorf("the next wider network: %+v", id)
	}
	if _, err := tenants.Close(t.Context(), operator, f.account); err != nil {
		t.Fatal(err)
	}
	refused("account closed", "This account is closed.", 3)
}

// A sub-account stands and falls with its parent.
func TestBlockedParent(t *testing.T) {
	f := newFixture(t)
	tenants := f.tenants()
	child, err := tenants.Add(t.Context(), operator.In(f.account), relay.Account{Name: "child"})
	f.must(err)
	c, secret := f.add(Wish{Account: child.ID, Kind: KindSMTP})
	id, err := f.login(here, c.User, secret)
	f.must(err)
	if _, err := tenants.Close(t.Context(), operator, f.account); err != nil {
		t.Fatal(err)
	}
	if f.service.Alive(t.Context(), id) {
		t.Error("a session of a sub-account goes on when its parent is closed")
	}
	_, err = f.login(here, c.User, secret)
	wantCode(t, "login", err, relay.Forbidden)
}

// Another node blocks an account; this one hears of it within a second.
func TestBlockedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		g.Go(func() {
			if err := f.service.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		c, secret := f.add(Wish{Kind: KindSMTP})
		id, err := f.login(here, c.User, secret)
		f.must(err)
		a, err := f.db.Account(ctx, f.account, f.account)
		f.must(err)
		a.Status = relay.Blocked
		f.must(f.db.SetAccount(ctx, relay.Actor{}, relay.Everyone, a))
		time.Sleep(time.Second) // of the bubble's clock
		synctest.Wait()
		if f.service.Alive(ctx, id) {
			t.Error("alive a second after another node blocked the account")
		}
		cancel()
		g.Wait()
	})
}

func TestUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var logged strings.Builder
		f.service.log = slog.New(slog.NewTextHandler(&logged, nil))
		run := func(lasts time.Duration) {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			var g sync.WaitGroup
			g.Go(func() {
				if err := f.service.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(lasts)
			synctest.Wait()
			cancel()
			g.Wait()
		}
		c, secret := f.add(Wish{Kind: KindSMTP})
		reports := func(want int) {
			t.Helper()
			all, err := f.db.Changes(t.Context(), f.account, relay.ChangeFilter{Action: "credential.new_network"})
			if err != nil || len(all) != want {
				t.Errorf("reported %d times, want %d: %v", len(all), want, err)
			}
		}
		use := func(client string) {
			t.Helper()
			time.Sleep(time.Second)
			if _, err := f.login(client, c.User, secret); err != nil {
				t.Fatal(err)
			}
			if client == "192.0.2.1" {
				run(time.Minute + time.Second)
			} else {
				f.service.noteUses(t.Context())
			}
			got, err := f.db.Credential(t.Context(), f.account, c.ID)
			f.must(err)
			if got.UsedFrom != netip.MustParseAddr(client) || time.Since(got.Used) > 2*time.Minute {
				t.Errorf("used from %v at %v", got.UsedFrom, got.Used)
			}
		}
		use("192.0.2.1")
		use("198.51.100.1")
		reports(0)
		// As if it had been in use for a day: to wait for it takes seconds, since
		// the store looks after itself all the time.
		long := relay.Use{Account: f.account, Credential: c.ID, Client: netip.MustParseAddr("10.0.0.1"), Network: netip.MustParsePrefix("10.0.0.0/24"), At: time.Now().Add(-settled)}
		if _, err := f.db.UseCredentials(t.Context(), []relay.Use{long}, time.Time{}); err != nil {
			t.Fatal(err)
		}
		use("192.0.2.200")
		reports(0)
		use("203.0.113.1")
		reports(1)
		use("203.0.113.2")
		reports(1)
		// The last uses before the end are noted too, a site's as one.
		for _, client := range []string{"2001:db8::1", "2001:db8:0:ffff::2"} {
			if _, err := f.login(client, c.User, secret); err != nil {
				t.Fatal(err)
			}
		}
		run(time.Second)
		reports(2)
		if n := strings.Count(logged.String(), "never came from"); n != 2 {
			t.Errorf("logged %d times:\n%s", n, logged.String())
		}
	})
}
