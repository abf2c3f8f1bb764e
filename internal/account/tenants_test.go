package account

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/relay"
)

func (f *fixture) tenants() *Tenants {
	return &Tenants{Store: f.db, NewID: f.manager.NewID, Changed: f.service.Refresh}
}

func (f *fixture) people() *People {
	return &People{Store: f.db, NewID: f.manager.NewID, Changed: f.service.Refresh}
}

var operator = Operator(relay.Actor{Name: "operator"})

// as is somebody with a role in the fixture's account.
func (f *fixture) as(role relay.Role) Caller {
	f.Helper()
	m, err := f.people().SetMember(f.Context(), operator.In(f.account), string(role)+"@example.com", role)
	if err != nil {
		f.Fatal(err)
	}
	rights, err := f.service.book.UserRights(f.Context(), f.account, m.User)
	if err != nil || rights != OfRole(role) {
		f.Fatalf("a new %s may %q, %v", role, rights, err)
	}
	return Caller{Actor: relay.Actor{User: m.User, Name: m.Email}, Account: f.account, Rights: rights}
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func TestSubAccounts(t *testing.T) {
	f := newFixture(t)
	tenants, admin := f.tenants(), f.as(relay.Admin)
	limits := []relay.Limit{{Most: 100, Of: "recipients", Per: relay.PerDay}}
	f.must(tenants.SetPlan(t.Context(), operator, &relay.Plan{Name: "small", Start: 20}))
	parent, err := tenants.Get(t.Context(), operator, f.account)
	f.must(err)
	parent.Plan, parent.Limits = "small", limits
	f.must(tenants.Set(t.Context(), operator, parent))
	child, err := tenants.Add(t.Context(), admin, relay.Account{Name: " child "})
	f.must(err)
	if child.Parent != f.account || child.Plan != "small" || !slices.Equal(child.Limits, limits) || child.Name != "child" || child.Version != 1 {
		t.Errorf("child: %+v", child)
	}
	for what, c := range map[string]struct {
		by   Caller
		want relay.Account
		code relay.Code
	}{
		"by a developer":       {f.as(relay.Developer), relay.Account{Name: "x"}, relay.Forbidden},
		"without a name":       {admin, relay.Account{Name: " "}, relay.Invalid},
		"named like an id":     {admin, relay.Account{Name: f.account.String()}, relay.Invalid},
		"with a name taken":    {admin, relay.Account{Name: "child"}, relay.Conflict},
		"with wider limits":    {admin, relay.Account{Name: "x", Limits: []relay.Limit{{Most: 101, Of: "recipients", Per: relay.PerDay}}}, relay.Forbidden},
		"without limits":       {admin, relay.Account{Name: "x", Limits: []relay.Limit{}}, relay.Forbidden},
		"as anybody":           {admin, relay.Account{Name: "x", Senders: relay.SendersAny}, relay.Forbidden},
		"on another plan":      {admin, relay.Account{Name: "x", Plan: "large"}, relay.Forbidden},
		"on an unknown plan":   {operator, relay.Account{Name: "x", Plan: "large"}, relay.Invalid},
		"below a sub-account":  {admin.In(child.ID), relay.Account{Name: "x"}, relay.Conflict},
		"with an odd status":   {operator, relay.Account{Name: "x", Status: "asleep"}, relay.Invalid},
		"with two same limits": {operator, relay.Account{Name: "x", Limits: append(limits, limits...)}, relay.Invalid},
		"with a bad limit":     {operator, relay.Account{Name: "x", Limits: []relay.Limit{{Most: -1, Of: "recipients", Per: relay.PerDay}}}, relay.Invalid},
		"with an odd rule":     {operator, relay.Account{Name: "x", DNS: "perhaps"}, relay.Invalid},
	} {
		_, err := tenants.Add(t.Context(), c.by, c.want)
		wantCode(t, "account "+what, err, c.code)
	}
	narrow, err := tenants.Add(t.Context(), admin, relay.Account{Name: "narrow", Limits: []relay.Limit{{Most: 0, Of: "recipients", Per: relay.PerDay}}})
	if err != nil || narrow.Limits[0].Most != 0 {
		t.Errorf("a narrower limit: %+v, %v", narrow, err)
	}
	fresh, err := tenants.Add(t.Context(), operator, relay.Account{Name: "fresh", Plan: "small"})
	if err != nil || fresh.Growth.Daily != 20 || fresh.Growth.Since.IsZero() || !fresh.Parent.IsZero() {
		t.Errorf("a new account on a plan: %+v, %v", fresh, err)
	}

	// The parent manages its children, and nobody else's.
	for which, want := range map[string]relay.ID{"child": child.ID, child.ID.String(): child.ID, f.account.String(): f.account, "fresh": {}, fresh.ID.String(): {}, "nothing": {}} {
		got, err := f.service.book.Find(t.Context(), f.account, which)
		if got != want || (err == nil) != (want != relay.ID{}) || err != nil && relay.CodeOf(err) != relay.NotFound {
			t.Errorf("found %v as %q, %v", got, which, err)
		}
	}
	if all, err := tenants.List(t.Context(), admin, relay.ID{}, 0); err != nil || len(all) != 3 {
		t.Errorf("list: %v, %v", all, err)
	}
	child.Status, child.Reason = relay.Blocked, "not paid"
	f.must(tenants.Set(t.Context(), admin, child))
	foreign := *fresh
	foreign.Name = "mine"
	if err := tenants.Set(t.Context(), admin, &foreign); relay.CodeOf(err) != relay.NotFound {
		t.Errorf("changed another's account: %v", err)
	}
}

// What members may change of their own account.
func TestSetAccount(t *testing.T) {
	f := newFixture(t)
	tenants := f.tenants()
	for what, c := range map[string]struct {
		change func(*relay.Account)
		roles  []relay.Role // that may; operators may all
	}{
		"name":       {func(a *relay.Account) { a.Name += "!" }, []relay.Role{relay.Owner, relay.Admin}},
		"dns":        {func(a *relay.Account) { a.DNS = relay.DNSRefuse }, []relay.Role{relay.Owner, relay.Admin}},
		"suppressed": {func(a *relay.Account) { a.Muted = relay.SuppressRefuse }, []relay.Role{relay.Owner, relay.Admin}},
		"status":     {func(a *relay.Account) { a.Status = relay.Sandbox }, nil},
		"limits":     {func(a *relay.Account) { a.Limits = []relay.Limit{{Most: 1, Of: "messages", Per: relay.PerDay}} }, nil},
		"plan":       {func(a *relay.Account) { a.Plan = "p" }, nil},
		"senders":    {func(a *relay.Account) { a.Senders = relay.SendersAny }, nil},
		"growth":     {func(a *relay.Account) { a.Growth.Daily = 1 }, nil},
		"closed":     {func(a *relay.Account) { a.Closed = time.Now() }, []relay.Role{relay.Owner}},
	} {
		f.must(func() error {
			err := tenants.SetPlan(t.Context(), operator, &relay.Plan{Name: "p"})
			if relay.CodeOf(err) == relay.Conflict {
				return nil
			}
			return err
		}())
		for _, role := range []relay.Role{relay.Owner, relay.Admin, relay.Developer, relay.Viewer} {
			a, err := tenants.Get(t.Context(), operator, f.account)
			f.must(err)
			before := *a
			c.change(a)
			err = tenants.Set(t.Context(), f.as(role), a)
			if may := slices.Contains(c.roles, role); may != (err == nil) || err != nil && relay.CodeOf(err) != relay.Forbidden {
				t.Errorf("%s changes %s: %v", role, what, err)
			}
			if err == nil {
				before.Version = a.Version
				f.must(tenants.Set(t.Context(), operator, &before))
			}
		}
		a, err := tenants.Get(t.Context(), operator, f.account)
		f.must(err)
		before := *a
		c.change(a)
		f.must(tenants.Set(t.Context(), operator, a))
		before.Version = a.Version
		f.must(tenants.Set(t.Context(), operator, &before))
	}
	closed, err := tenants.Close(t.Context(), f.as(relay.Owner), f.account)
	if err != nil || closed.Closed.IsZero() {
		t.Fatalf("close: %+v, %v", closed, err)
	}
	again := *closed
	again.Closed = time.Time{}
	wantCode(t, "an owner opens it again", tenants.Set(t.Context(), f.as(relay.Owner), &again), relay.Forbidden)
	moved := *closed
	moved.Parent = relay.ID{9}
	wantCode(t, "another parent", tenants.Set(t.Context(), operator, &moved), relay.Invalid)
}

func TestPlans(t *testing.T) {
	f := newFixture(t)
	tenants := f.tenants()
	owner := f.as(relay.Owner)
	wantCode(t, "an owner's plan", tenants.SetPlan(t.Context(), owner, &relay.Plan{Name: "p"}), relay.Forbidden)
	wantCode(t, "an owner removes", tenants.RemovePlan(t.Context(), owner, "p"), relay.Forbidden)
	_, err := tenants.Plans(t.Context(), owner)
	wantCode(t, "an owner looks", err, relay.Forbidden)
	for _, bad := range []relay.Plan{{}, {Name: "a\nb"}, {Name: "p", Start: -1}, {Name: "p", Limits: []relay.Limit{{Of: "tons", Per: relay.PerDay}}}} {
		wantCode(t, "plan", tenants.SetPlan(t.Context(), operator, &bad), relay.Invalid)
	}
	f.must(tenants.SetPlan(t.Context(), operator, &relay.Plan{Name: " p "}))
	if all, err := tenants.Plans(t.Context(), operator); err != nil || len(all) != 1 || all[0].Name != "p" {
		t.Errorf("plans: %v, %v", all, err)
	}
	f.must(tenants.RemovePlan(t.Context(), operator, "p"))
}

func TestMembers(t *testing.T) {
	f := newFixture(t)
	people := f.people()
	roles := []relay.Role{relay.Owner, relay.Admin, relay.Developer, relay.Viewer}
	// Who gives whom which role: nobody one above their own.
	for i, mine := range roles {
		for j, theirs := range roles {
			for k, to := range roles {
				by := f.as(mine)
				if _, err := people.SetMember(t.Context(), operator.In(f.account), "Target@Example.COM", theirs); err != nil {
					t.Fatal(err)
				}
				m, err := people.SetMember(t.Context(), by, "target@example.com", to)
				may := i <= 1 && j >= i && k >= i
				if (err == nil) != may || err != nil && relay.CodeOf(err) != relay.Forbidden {
					t.Errorf("%s makes a %s of a %s: %v", mine, to, theirs, err)
				}
				if err == nil && (m.Role != to || m.Email != "target@example.com") {
					t.Errorf("member: %+v", m)
				}
			}
		}
	}
	target, err := people.Store.UserByEmail(t.Context(), "target@example.com")
	f.must(err)
	owner, developer := f.as(relay.Owner), f.as(relay.Developer)
	wantCode(t, "a developer removes", people.RemoveMember(t.Context(), developer, target.ID), relay.Forbidden)
	f.must(people.RemoveMember(t.Context(), owner, target.ID))
	wantCode(t, "removed twice", people.RemoveMember(t.Context(), owner, target.ID), relay.NotFound)
	wantCode(t, "an admin removes an owner", people.RemoveMember(t.Context(), f.as(relay.Admin), owner.User), relay.Forbidden)
	wantCode(t, "the last owner leaves", people.RemoveMember(t.Context(), owner, owner.User), relay.Conflict)
	_, err = people.SetMember(t.Context(), owner, owner.Name, relay.Admin)
	wantCode(t, "the last owner steps down", err, relay.Conflict)
	f.must(people.RemoveMember(t.Context(), developer, developer.User)) // anybody may leave
	f.must(people.RemoveMember(t.Context(), operator.In(f.account), owner.User))
	for what, c := range map[string]struct{ email, role string }{"no role": {"x@example.com", "king"}, "no address": {"x", "viewer"}} {
		_, err := people.SetMember(t.Context(), operator.In(f.account), c.email, relay.Role(c.role))
		wantCode(t, what, err, relay.Invalid)
	}
	_, err = people.SetMember(t.Context(), operator, "x@example.com", relay.Viewer)
	wantCode(t, "no account", err, relay.Invalid)
}

func TestUsers(t *testing.T) {
	f := newFixture(t)
	people := f.people()
	ann, err := people.AddUser(t.Context(), operator, relay.User{Email: " Ann@BÜCHER.example", Name: "Ann"}, "long enough to be taken")
	f.must(err)
	if ann.Email != "ann@xn--bcher-kva.example" || !strings.HasPrefix(ann.Argon2, "$argon2id$") {
		t.Errorf("user: %+v", ann)
	}
	if ok, err := argonMatches(ann.Argon2, "long enough to be taken"); err != nil || !ok {
		t.Errorf("the password does not match: %v", err)
	}
	admin := f.as(relay.Admin)
	_, err = people.AddUser(t.Context(), admin, relay.User{Email: "x@example.com"}, "")
	wantCode(t, "an admin adds", err, relay.Forbidden)
	_, err = people.AddUser(t.Context(), operator, relay.User{Email: "x@example.com"}, "short")
	wantCode(t, "short password", err, relay.Invalid)
	_, err = people.AddUser(t.Context(), operator, relay.User{Email: ann.Email}, "")
	wantCode(t, "the same address", err, relay.Conflict)

	self := Caller{Actor: relay.Actor{User: ann.ID}, Account: f.account}
	want := *ann
	want.Name = "Änne"
	got, err := people.SetUser(t.Context(), self, &want, "")
	if err != nil || got.Name != "Änne" || got.Argon2 != ann.Argon2 || got.Version != 2 {
		t.Errorf("own name: %+v, %v", got, err)
	}
	want = *got
	want.Operator = true
	_, err = people.SetUser(t.Context(), self, &want, "")
	wantCode(t, "makes herself an operator", err, relay.Forbidden)
	byKey := self
	byKey.Credential = relay.ID{5}
	_, err = people.SetUser(t.Context(), byKey, got, "another password")
	wantCode(t, "by her API key", err, relay.Forbidden)
	_, err = people.SetUser(t.Context(), admin, got, "")
	wantCode(t, "by an admin", err, relay.Forbidden)
	want.Operator, want.Disabled = false, time.Now()
	if _, err = people.SetUser(t.Context(), operator, &want, ""); err != nil {
		t.Errorf("disabled by an operator: %v", err)
	}
	_, err = people.User(t.Context(), admin, ann.ID)
	if relay.CodeOf(err) != relay.NotFound {
		t.Errorf("an admin sees who is no member: %v", err)
	}
	if all, err := people.Users(t.Context(), admin, relay.ID{}, 0); err != nil || len(all) != 1 {
		t.Errorf("users of the account: %v, %v", all, err)
	}
	if all, err := people.Members(t.Context(), admin); err != nil || len(all) != 1 {
		t.Errorf("members: %v, %v", all, err)
	}
}

func TestSuppressions(t *testing.T) {
	f := newFixture(t)
	l := &Suppressions{Store: f.db}
	developer, viewer := f.as(relay.Developer), f.as(relay.Viewer)
	added, err := l.Add(t.Context(), developer, []relay.Suppression{{Address: " Ann@Example.COM "}, {Address: "@BÜCHER.example", Reason: "complaint"}})
	if err != nil || added != 2 {
		t.Fatalf("added %d, %v", added, err)
	}
	all, err := l.List(t.Context(), viewer, relay.SuppressionFilter{})
	if err != nil || len(all) != 2 || all[0].Address != "@xn--bcher-kva.example" || all[1].Address != "ann@example.com" || all[1].Reason != "manual" || all[1].Created.IsZero() {
		t.Errorf("list: %+v, %v", all, err)
	}
	_, err = l.Add(t.Context(), viewer, nil)
	wantCode(t, "a viewer adds", err, relay.Forbidden)
	_, err = l.Remove(t.Context(), viewer, relay.Unsuppression{})
	wantCode(t, "a viewer removes", err, relay.Forbidden)
	_, err = l.List(t.Context(), Caller{Account: f.account}, relay.SuppressionFilter{})
	wantCode(t, "somebody looks", err, relay.Forbidden)
	_, err = l.Add(t.Context(), operator, []relay.Suppression{{Address: "a@example.com"}})
	wantCode(t, "of no account", err, relay.Invalid)
	_, err = l.Add(t.Context(), developer, make([]relay.Suppression, MaxSuppressions+1))
	wantCode(t, "too many", err, relay.Invalid)
	for _, bad := range []relay.Suppression{{Address: "x"}, {Address: "@"}, {Address: "a@example.com", Reason: "whim"}, {Address: "a@example.com", Note: strings.Repeat("n", 1001)}} {
		_, err := l.Add(t.Context(), developer, []relay.Suppression{bad})
		wantCode(t, bad.Address, err, relay.Invalid)
	}
	if n, err := l.Remove(t.Context(), developer, relay.Unsuppression{Addresses: []string{"ANN@example.com", "x@example.com"}}); err != nil || n != 1 {
		t.Errorf("removed %d, %v", n, err)
	}
}

func TestDirectory(t *testing.T) {
	f := newFixture(t)
	ctx, book := t.Context(), f.service.book
	domain := func(name string) *relay.Domain {
		id, err := f.manager.NewID()
		f.must(err)
		d := &relay.Domain{ID: id, Account: f.account, Name: name}
		f.must(f.db.AddDomain(ctx, relay.Actor{}, d))
		return d
	}
	domain("example.com")
	domain("b.example.com")
	for name, want := range map[string]string{"example.com": "example.com", "x.Example.com.": "example.com", "a.b.example.com": "b.example.com", "notexample.com": "", "com": "", "": "",
		strings.Repeat("a.", 200) + "example.com": ""} {
		d, err := book.Domain(ctx, f.account, name)
		if err != nil || (d == nil) != (want == "") || d != nil && d.Name != want {
			t.Errorf("domain of %q: %+v, %v", name, d, err)
		}
	}
	if d, err := book.Domain(ctx, relay.ID{9}, "example.com"); d != nil || err != nil {
		t.Errorf("another account's domain: %v, %v", d, err)
	}
	id, err := f.manager.NewID()
	f.must(err)
	sender := &relay.Sender{ID: id, Account: f.account, Address: "a@example.org"}
	f.must(f.db.AddSender(ctx, relay.Actor{}, sender))
	check := func(what string, want bool) {
		t.Helper()
		if ok, err := book.Sender(ctx, f.account, "a@example.org"); err != nil || ok != want {
			t.Errorf("sender %s: %v, %v", what, ok, err)
		}
	}
	check("asked", false)
	sender.Verified = time.Now()
	f.must(f.db.SetSender(ctx, relay.Actor{}, f.account, sender))
	check("as it was", false) // from memory
	f.must(f.service.Refresh(ctx))
	check("verified", true)
	c := domain("c.b.example.com")
	f.must(f.service.Refresh(ctx))
	if d, err := book.Domain(ctx, f.account, "c.b.example.com"); err != nil || d == nil || d.ID != c.ID {
		t.Errorf("a new domain: %v, %v", d, err)
	}
	a, plan, err := book.Account(ctx, f.account)
	if err != nil || a.ID != f.account || plan != nil {
		t.Errorf("account: %v, %v, %v", a, plan, err)
	}
	if _, _, err := book.Account(ctx, relay.ID{9}); relay.CodeOf(err) != relay.NotFound {
		t.Errorf("no account: %v", err)
	}
}

// What is read while something changes is not kept.
func TestDirectoryDuringChange(t *testing.T) {
	f := newFixture(t)
	book := NewDirectory(f.db)
	book.store = &lateAccount{DirectoryStore: f.db, then: book.Forget}
	for range 2 {
		if _, _, err := book.Account(t.Context(), f.account); err != nil {
			t.Fatal(err)
		}
	}
	if asked := book.store.(*lateAccount).asked; asked != 2 {
		t.Errorf("asked %d times, want twice: the first answer was overtaken", asked)
	}
}

type lateAccount struct {
	DirectoryStore
	then  func()
	asked int
}

func (l *lateAccount) Account(ctx context.Context, account, id relay.ID) (*relay.Account, error) {
	a, err := l.DirectoryStore.Account(ctx, account, id)
	if l.asked++; l.asked == 1 {
		l.then()
	}
	return a, err
}

func TestSuppressed(t *testing.T) {
	f := newFixture(t)
	book, l := NewDirectory(f.db), &Suppressions{Store: f.db}
	ask := func(want ...string) {
		t.Helper()
		found, err := book.Suppressed(t.Context(), f.account, relay.Transactional, []string{"Ann@example.com", "ben@EXAMPLE.org", "d@mail.eu.example.net", "e@example.net", "nobody", ""})
		got := slices.Sorted(maps.Keys(found))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("suppressed: %q, %v; want %q", got, err, want)
		}
	}
	ask()
	if _, err := l.Add(t.Context(), operator.In(f.account), []relay.Suppression{{Address: "ann@example.com"}, {Address: "@example.org"}, {Address: "c@example.com"}, {Address: "@.example.net"},
		{Address: "e@example.net", Stream: relay.Broadcast}}); err != nil {
		t.Fatal(err)
	}
	ask("Ann@example.com", "ben@EXAMPLE.org", "d@mail.eu.example.net")
	if _, err := l.Remove(t.Context(), operator.In(f.account), relay.Unsuppression{Addresses: []string{"@example.org"}}); err != nil {
		t.Fatal(err)
	}
	ask("Ann@example.com", "d@mail.eu.example.net")
}

// What an operator has blocked or closed, an operator opens: not who manages the
// account, and not its people. What who manages it has, they or an operator.
func TestWhoLifts(t *testing.T) {
	f := newFixture(t)
	tenants, admin := f.tenants(), f.as(relay.Admin)
	child, err := tenants.Add(t.Context(), admin, relay.Account{Name: "child"})
	f.must(err)
	set := func(by Caller, change func(*relay.Account)) error {
		a, err := tenants.Get(t.Context(), operator, child.ID)
		f.must(err)
		change(a)
		return tenants.Set(t.Context(), by, a)
	}
	status := func(s relay.Status) func(*relay.Account) { return func(a *relay.Account) { a.Status = s } }
	closed := func(at time.Time) func(*relay.Account) { return func(a *relay.Account) { a.Closed = at } }
	f.must(set(admin, status(relay.Blocked)))
	f.must(set(admin, status(relay.Active)))
	f.must(set(admin, status(relay.Blocked)))
	f.must(set(operator, func(a *relay.Account) { a.Reason = "spam" }))
	f.must(set(admin, func(a *relay.Account) { a.Name = "other" }))
	for what, change := range map[string]func(*relay.Account){
		"lift":        status(relay.Active),
		"soften":      status(relay.Sandbox),
		"excuse":      func(a *relay.Account) { a.Reason = "" },
		"lift by lie": func(a *relay.Account) { a.Status, a.StatusBy = relay.Active, "" },
	} {
		wantCode(t, what, set(admin, change), relay.Forbidden)
	}
	f.must(set(operator, func(a *relay.Account) { a.Status, a.Reason = relay.Active, "" }))
	f.must(set(admin, closed(time.Now())))
	f.must(set(admin, closed(time.Time{})))
	f.must(set(operator, closed(time.Now())))
	wantCode(t, "open again", set(admin, closed(time.Time{})), relay.Forbidden)
	f.must(set(operator, closed(time.Time{})))
	if a, err := tenants.Get(t.Context(), operator, child.ID); err != nil || a.StatusBy != "" || a.Status != relay.Active {
		t.Errorf("%+v, %v", a, err)
	}

	developer := f.as(relay.Developer)
	c, _, err := f.manager.Add(t.Context(), developer, Wish{Account: f.account, Kind: KindSMTP, Name: "till"})
	f.must(err)
	for _, by := range []Caller{operator.In(f.account), {Actor: admin.Actor, Account: f.account, Rights: admin.Rights | Control}} {
		_, err = f.manager.SetStatus(t.Context(), by, c.User, relay.Blocked, "leaked")
		f.must(err)
		for _, s := range []relay.Status{"", relay.Active, relay.Sandbox} {
			_, err = f.manager.SetStatus(t.Context(), developer, c.User, s, "leaked")
			wantCode(t, "credential lifted", err, relay.Forbidden)
		}
		_, _, err = f.manager.Rotate(t.Context(), developer, c.User, 0)
		f.must(err)
		if got, err := f.manager.Find(t.Context(), f.account, c.User); err != nil || got.Status != relay.Blocked || got.StatusBy != by.Rights.authority() {
			t.Errorf("%+v, %v", got, err)
		}
		_, err = f.manager.SetStatus(t.Context(), by, c.User, relay.Active, "")
		f.must(err)
	}
	_, err = f.manager.SetStatus(t.Context(), developer, c.User, relay.Blocked, "")
	f.must(err)
	_, err = f.manager.SetStatus(t.Context(), developer, c.User, "", "")
	f.must(err)
}
