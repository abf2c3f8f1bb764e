package account

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"postrider/internal/relay"
)

func prefixes(s ...string) (p []netip.Prefix) {
	for _, x := range s {
		p = append(p, netip.MustParsePrefix(x))
	}
	return p
}

func TestAddRefuses(t *testing.T) {
	f := newFixture(t)
	f.add(Wish{Kind: KindSMTP, User: "taken"})
	many := slices.Repeat(prefixes("192.0.2.1/32"), maxNetworks+1)
	const password = "a pass phrase"
	for _, tt := range []struct {
		name string
		w    Wish
		code relay.Code
	}{
		{"no name", Wish{Kind: KindSMTP, Name: " \t"}, relay.Invalid},
		{"name with a line end", Wish{Kind: KindSMTP, Name: "a\r\nb"}, relay.Invalid},
		{"over-long name", Wish{Kind: KindSMTP, Name: strings.Repeat("n", 129)}, relay.Invalid},
		{"no kind", Wish{}, relay.Invalid},
		{"unknown kind", Wish{Kind: "oauth"}, relay.Invalid},
		{"user taken", Wish{Kind: KindSMTP, User: "taken"}, relay.Conflict},
		{"user with a NUL", Wish{Kind: KindSMTP, User: "a\x00b"}, relay.Invalid},
		{"user with spaces around", Wish{Kind: KindSMTP, User: " bob "}, relay.Invalid},
		{"user like a key", Wish{Kind: KindSMTP, User: keyPrefix + "x"}, relay.Invalid},
		{"user not UTF-8", Wish{Kind: KindSMTP, User: "b\xf6b"}, relay.Invalid},
		{"over-long user", Wish{Kind: KindSMTP, User: strings.Repeat("u", 129)}, relay.Invalid},
		{"short password", Wish{Kind: KindSMTP, Password: "short77"}, relay.Invalid},
		{"over-long password", Wish{Kind: KindSMTP, Password: strings.Repeat("p", 257)}, relay.Invalid},
		{"password like a key", Wish{Kind: KindSMTP, Password: keyPrefix + "whatever"}, relay.Invalid},
		{"password with a NUL", Wish{Kind: KindSMTP, Password: "whatever\x00"}, relay.Invalid},
		{"key with a user", Wish{Kind: KindKey, User: "bob"}, relay.Invalid},
		{"key with a password", Wish{Kind: KindKey, Password: password}, relay.Invalid},
		{"network with a password", Wish{Kind: KindNetwork, Networks: prefixes("192.0.2.0/24"), Password: password}, relay.Invalid},
		{"smtp with a network", Wish{Kind: KindSMTP, Networks: prefixes("192.0.2.0/24")}, relay.Invalid},
		{"no network", Wish{Kind: KindNetwork}, relay.Invalid},
		{"all of IPv4", Wish{Kind: KindNetwork, Networks: prefixes("0.0.0.0/0")}, relay.Invalid},
		{"all of IPv6", Wish{Kind: KindNetwork, Networks: prefixes("::/0")}, relay.Invalid},
		{"all of IPv4 after a good one", Wish{Kind: KindNetwork, Networks: prefixes("192.0.2.0/24", "0.0.0.0/0")}, relay.Invalid},
		{"half of IPv4", Wish{Kind: KindNetwork, Networks: prefixes("128.0.0.0/1")}, relay.Invalid},
		{"too wide", Wish{Kind: KindNetwork, Networks: prefixes("10.0.0.0/7")}, relay.Invalid},
		{"IPv6 in use", Wish{Kind: KindNetwork, Networks: prefixes("2000::/3")}, relay.Invalid},
		{"IPv6 of many providers", Wish{Kind: KindNetwork, Networks: prefixes("2001::/16")}, relay.Invalid},
		{"IPv6 all private and more", Wish{Kind: KindNetwork, Networks: prefixes("fd00::/7")}, relay.Invalid},
		{"IPv4 as IPv6", Wish{Kind: KindNetwork, Networks: prefixes("::ffff:0.0.0.0/96")}, relay.Invalid},
		{"no prefix at all", Wish{Kind: KindNetwork, Networks: []netip.Prefix{{}}}, relay.Invalid},
		{"too many networks", Wish{Kind: KindNetwork, Networks: many}, relay.Invalid},
		{"empty sender", Wish{Kind: KindSMTP, Senders: []string{" "}}, relay.Invalid},
		{"sender without a domain", Wish{Kind: KindSMTP, Senders: []string{"bob@"}}, relay.Invalid},
		{"sender with a line end", Wish{Kind: KindSMTP, Senders: []string{"bob@example.com\r\nX: y"}}, relay.Invalid},
		{"sender at an IP address", Wish{Kind: KindSMTP, Senders: []string{"bob@[192.0.2.1]"}}, relay.Invalid},
		{"sender with a wildcard", Wish{Kind: KindSMTP, Senders: []string{"*.example.com"}}, relay.Invalid},
	} {
		tt.w.Account = f.account
		if tt.w.Name == "" {
			tt.w.Name = "app"
		}
		before, err := f.db.Credentials(t.Context(), f.account)
		if err != nil {
			t.Fatal(err)
		}
		c, secret, err := f.manager.Add(t.Context(), Operator(relay.Actor{}), tt.w)
		wantCode(t, tt.name, err, tt.code)
		if c != nil || secret != "" {
			t.Errorf("%s: a credential with the error", tt.name)
		}
		if tt.w.Password != "" && err != nil && strings.Contains(err.Error(), tt.w.Password) {
			t.Errorf("%s: the error tells the password", tt.name)
		}
		if after, _ := f.db.Credentials(t.Context(), f.account); len(after) != len(before) {
			t.Errorf("%s: it was kept all the same", tt.name)
		}
	}
}

func TestAddKeeps(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		name  string
		w     Wish
		check func(c *relay.Credential, secret string) bool
	}{
		{"made", Wish{Kind: KindSMTP, Name: " My Größter  Shop! "}, func(c *relay.Credential, secret string) bool {
			return c.Name == "My Größter  Shop!" && strings.HasPrefix(c.User, "my-gr--ter--shop-") && len(secret) == 32 &&
				len(c.SecretSHA256) == 32 && c.Argon2 == "" && c.Scram.Iterations == 4096 && len(c.Scram.Salt) == 16
		}},
		{"user of signs only", Wish{Kind: KindSMTP, Name: "!!!"}, func(c *relay.Credential, _ string) bool { return strings.HasPrefix(c.User, "app-") }},
		{"given user", Wish{Kind: KindSMTP, User: "bob@example.com"}, func(c *relay.Credential, s string) bool { return c.User == "bob@example.com" && s != "" }},
		{"key", Wish{Kind: KindKey, Stream: relay.Broadcast}, func(c *relay.Credential, s string) bool {
			return c.User == "" && c.Stream == relay.Broadcast && strings.HasPrefix(s, keyPrefix) && len(s) == 36
		}},
		{"networks", Wish{Kind: KindNetwork, Networks: prefixes("10.1.2.3/8", "2001:db8::1/32", "fd12::/8", "127.0.0.1/32")}, func(c *relay.Credential, s string) bool {
			return s == "" && slices.Equal(c.Networks, prefixes("10.0.0.0/8", "2001:db8::/32", "fd00::/8", "127.0.0.1/32"))
		}},
		{"senders", Wish{Kind: KindKey, Senders: []string{" Bob@Example.COM", "@example.ORG", "bücher.example", "Ann@BÜCHER.example"}}, func(c *relay.Credential, _ string) bool {
			return slices.Equal(c.Senders, []string{"bob@example.com", "example.org", "xn--bcher-kva.example", "ann@xn--bcher-kva.example"})
		}},
	} {
		c, secret := f.add(tt.w)
		if !tt.check(c, secret) || c.Stream == 0 || c.Created.IsZero() {
			t.Errorf("%s: %+v", tt.name, c)
		}
		kept, err := f.db.Credentials(t.Context(), f.account)
		if err != nil || kept[len(kept)-1].ID != c.ID || !tt.check(kept[len(kept)-1], secret) {
			t.Errorf("%s: kept otherwise, %v", tt.name, err)
		}
	}
	a, b := newSecret(), newSecret()
	if a == b || strings.Trim(a, "abcdefghijkmnpqrstuvwxyz23456789") != "" {
		t.Errorf("secrets %q and %q", a, b)
	}
}

func TestRevoke(t *testing.T) {
	f := newFixture(t)
	one, _ := f.add(Wish{Kind: KindSMTP, Name: "twin", User: "one"})
	two, _ := f.add(Wish{Kind: KindSMTP, Name: "twin", User: "two"})
	three, _ := f.add(Wish{Kind: KindKey, Name: "three"})
	mixed, _ := f.add(Wish{Kind: KindKey, Name: "one"})
	other, err := f.db.EnsureAccount(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := f.add(Wish{Account: other, Kind: KindSMTP, Name: "foreign", User: "foreign"})

	for _, tt := range []struct {
		name, which string
		account     relay.ID
		want        *relay.Credential
		code        relay.Code
	}{
		{"ambiguous name", "twin", f.account, nil, relay.Conflict},
		{"one's user, another's name", "one", f.account, nil, relay.Conflict},
		{"unknown", "nothing", f.account, nil, relay.NotFound},
		{"nothing named", "", f.account, nil, relay.NotFound},
		{"another account's", "foreign", f.account, nil, relay.NotFound},
		{"another account's id", foreign.ID.String(), f.account, nil, relay.NotFound},
		{"no account", "three", relay.ID{}, nil, relay.NotFound},
		{"by id", one.ID.String(), f.account, one, ""},
		{"by what is unique now", "one", f.account, mixed, ""},
		{"by user", "two", f.account, two, ""},
		{"by name", "three", f.account, three, ""},
		{"twice", "three", f.account, nil, relay.NotFound},
		{"by the operator", "foreign", relay.Everyone, foreign, ""},
	} {
		got, err := f.manager.Revoke(t.Context(), Operator(relay.Actor{}).In(tt.account), tt.which)
		if tt.want == nil {
			wantCode(t, tt.name, err, tt.code)
			continue
		}
		if err != nil || got.ID != tt.want.ID || got.Revoked.IsZero() {
			t.Errorf("%s: %+v, %v; want %s revoked", tt.name, got, err, tt.want.Name)
		}
	}
	all, err := f.manager.List(t.Context(), f.account)
	if err != nil || len(all) != 4 || slices.ContainsFunc(all, func(c *relay.Credential) bool { return c.Revoked.IsZero() }) {
		t.Errorf("list: %+v, %v; want four, all revoked", all, err)
	}
	f.add(Wish{Kind: KindSMTP, User: "two"}) // the name is free again
}

func TestChangeIsToldOf(t *testing.T) {
	f := newFixture(t)
	told := 0
	m := f.managerWith(func(context.Context) error { told++; return nil })
	c, _, err := m.Add(t.Context(), Operator(relay.Actor{}), Wish{Account: f.account, Kind: KindKey, Name: "k"})
	if err != nil || told != 1 {
		t.Fatalf("add: told %d times, %v", told, err)
	}
	if _, _, err := m.Add(t.Context(), Operator(relay.Actor{}), Wish{Account: f.account, Kind: "?", Name: "k"}); err == nil || told != 1 {
		t.Errorf("a refused wish: told %d times, %v", told, err)
	}
	if _, err := m.Revoke(t.Context(), Operator(relay.Actor{}).In(f.account), c.Name); err != nil || told != 2 {
		t.Errorf("revoke: told %d times, %v", told, err)
	}
	failing := f.managerWith(func(context.Context) error { return errors.New("not heard") })
	f.add(Wish{Kind: KindKey, Name: "l"})
	if _, err := failing.Revoke(t.Context(), Operator(relay.Actor{}).In(f.account), "l"); err == nil {
		t.Error("a revocation that sessions do not know of is reported as done")
	}
}
