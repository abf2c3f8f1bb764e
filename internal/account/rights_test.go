package account

import (
	"testing"

	"postrider/internal/relay"
)

func TestOfRole(t *testing.T) {
	for role, want := range map[relay.Role]string{
		relay.Owner: "send read build manage own", relay.Admin: "send read build manage", relay.Developer: "send read build", relay.Viewer: "read", "": "", "root": "",
	} {
		if got := OfRole(role).String(); got != want {
			t.Errorf("%q may %q, want %q", role, got, want)
		}
	}
}

func TestOfCredential(t *testing.T) {
	somebody := relay.ID{1}
	const (
		send, read, manage = relay.ScopeSend, relay.ScopeRead, relay.ScopeManage
		all                = "send read build manage own control operate"
	)
	scopes := func(s ...relay.Scope) []relay.Scope { return s }
	for _, c := range []struct {
		kind   string
		scopes []relay.Scope
		owner  relay.ID
		rights Rights // of the owner
		want   string
	}{
		{KindSMTP, nil, relay.ID{}, 0, "send"},
		{KindSMTP, scopes(manage), relay.ID{}, everything, "send"}, // scopes are for keys
		{KindNetwork, nil, somebody, 0, "send"},
		{KindKey, nil, relay.ID{}, 0, "send"},
		{KindKey, nil, somebody, everything, "send"},
		{KindKey, nil, somebody, Read, ""}, // a viewer's key sends nothing
		{KindKey, scopes(send), somebody, OfRole(relay.Developer), "send"},
		{KindKey, scopes(read), somebody, OfRole(relay.Owner), "read"},
		{KindKey, scopes(manage), somebody, OfRole(relay.Viewer), "read"},
		{KindKey, scopes(manage), somebody, OfRole(relay.Developer), "read build"},
		{KindKey, scopes(manage), somebody, OfRole(relay.Admin), "read build manage"},
		{KindKey, scopes(manage), somebody, OfRole(relay.Owner), "read build manage own"},
		{KindKey, scopes(manage, send), somebody, everything, all},
		{KindKey, scopes(send, read, manage), somebody, 0, ""}, // its owner has left, or was disabled
		{KindKey, scopes(manage), relay.ID{}, everything, "read build manage"},
		{KindKey, scopes(send, manage), relay.ID{}, 0, "send read build manage"},
		{KindKey, scopes("root"), somebody, everything, ""},
	} {
		if got := OfCredential(&relay.Credential{Kind: c.kind, Scopes: c.scopes, Owner: c.owner}, c.rights).String(); got != c.want {
			t.Errorf("%s %v of somebody who may %q: may %q, want %q", c.kind, c.scopes, c.rights, got, c.want)
		}
	}
}

// Nobody grants more than they have, whatever they have and grant.
func TestMayGrant(t *testing.T) {
	for have := Rights(0); have <= everything; have++ {
		for other := Rights(0); other <= everything; other++ {
			beyond := other &^ have
			want := beyond == 0 || beyond == Send && have.Has(Build)
			if have.mayGrant(other) != want {
				t.Fatalf("who may %q grants %q: %v", have, other, !want)
			}
		}
	}
}

func TestCallerIn(t *testing.T) {
	here, child := relay.ID{1}, relay.ID{2}
	for _, c := range []struct {
		caller Caller
		to     relay.ID
		want   string
	}{
		{Caller{Account: here, Rights: OfRole(relay.Admin)}, here, "send read build manage"},
		{Caller{Account: here, Rights: OfRole(relay.Admin)}, child, "send read build manage own control"},
		{Caller{Account: here, Rights: OfRole(relay.Developer)}, child, "send read build"},
		{Caller{Account: here, Rights: OfRole(relay.Viewer)}, child, "read"},
		{Operator(relay.Actor{}), child, "send read build manage own control operate"},
	} {
		if got := c.caller.In(c.to); got.Rights.String() != c.want || got.Account != c.to {
			t.Errorf("%q becomes %q in %v, want %q", c.caller.Rights, got.Rights, got.Account, c.want)
		}
	}
	err := Caller{Rights: Read}.Need(Read|Manage, "change members")
	wantCode(t, "need", err, relay.Forbidden)
	if err := (Caller{Rights: everything}).Need(Operate, "x"); err != nil {
		t.Error(err)
	}
}
