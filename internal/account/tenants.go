package account

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// TenantStore keeps accounts.
type TenantStore interface {
	AddAccount(ctx context.Context, by relay.Actor, a *relay.Account) error
	SetAccount(ctx context.Context, by relay.Actor, account relay.ID, a *relay.Account) error
	Account(ctx context.Context, account, id relay.ID) (*relay.Account, error)
	Accounts(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Account, error)
	PlanStore
}

// PlanStore keeps plans.
type PlanStore interface {
	Plan(ctx context.Context, name string) (*relay.Plan, error)
	Plans(ctx context.Context) ([]*relay.Plan, error)
	SetPlan(ctx context.Context, by relay.Actor, p *relay.Plan) error
	RemovePlan(ctx context.Context, by relay.Actor, name string) error
}

// Tenants manages accounts, their sub-accounts, and plans. Each method refuses
// what the caller may not do.
type Tenants struct {
	Store   TenantStore
	NewID   func() (relay.ID, error)
	Changed func(context.Context) error // called after each change, before it is reported done
}

// Add makes an account of that name: a sub-account of the caller's account or, by
// an operator who acts in none, one of the relay's. It begins on the named plan;
// a sub-account has that of its parent. Only the name and the plan are needed.
func (t *Tenants) Add(ctx context.Context, by Caller, want relay.Account) (*relay.Account, error) {
	if err := by.Need(Manage, "make accounts"); err != nil {
		return nil, err
	}
	id, err := t.NewID()
	if err != nil {
		return nil, err
	}
	a := &relay.Account{ID: id, Status: relay.Active, Created: time.Now().UTC().Truncate(time.Microsecond)}
	if by.Account != relay.Everyone {
		parent, err := t.Store.Account(ctx, by.Account, by.Account)
		if err != nil {
			return nil, err
		}
		if !parent.Parent.IsZero() {
			return nil, &relay.Error{Code: relay.Conflict, Text: "A sub-account can't have sub-accounts.", Advice: "Make it below the account that manages this one."}
		}
		// What holds for the parent holds for the child: nobody gets more by
		// making accounts.
		a.Parent, a.Plan, a.Senders, a.Limits = parent.ID, parent.Plan, parent.Senders, parent.Limits
		if parent.Status == relay.Sandbox {
			a.Status = relay.Sandbox
		}
		a.Growth = parent.Growth
	}
	asked := *a
	asked.Name = want.Name
	if want.Status != "" {
		asked.Status, asked.Reason = want.Status, want.Reason
	}
	if want.Plan != "" {
		asked.Plan = want.Plan
	}
	if want.Senders != "" {
		asked.Senders = want.Senders
	}
	if want.Limits != nil {
		asked.Limits = want.Limits
	}
	asked.DNS, asked.Muted, asked.Title, asked.Track = want.DNS, want.Muted, want.Title, want.Track
	plan, err := t.check(ctx, by.In(id).Rights, a, &asked)
	if err != nil {
		return nil, err
	}
	if plan != nil && plan.Start > 0 && a.Parent.IsZero() {
		asked.Growth = relay.Growth{Daily: plan.Start, Since: asked.Created}
	}
	if err := t.Store.AddAccount(ctx, by.Actor, &asked); err != nil {
		return nil, fmt.Errorf("add account: %w", err)
	}
	return &asked, t.Changed(ctx)
}

// Set changes an account: the caller's, or one that the caller manages. Its
// version is the one that the caller has seen. An account is closed, and opened
// again, by its time Closed.
func (t *Tenants) Set(ctx context.Context, by Caller, a *relay.Account) error {
	was, err := t.Store.Account(ctx, by.Account, a.ID)
	if err != nil {
		return err
	}
	if a.Parent != was.Parent || !a.Created.Equal(was.Created) {
		return invalid("An account's parent and the time that it was made can't be changed.", "Leave them as they are.")
	}
	if _, err := t.check(ctx, by.In(a.ID).Rights, was, a); err != nil {
		return err
	}
	if err := t.Store.SetAccount(ctx, by.Actor, by.Account, a); err != nil {
		return fmt.Errorf("change account: %w", err)
	}
	return t.Changed(ctx)
}

// Close closes an account: nobody sends with it any more. Its log stays.
func (t *Tenants) Close(ctx context.Context, by Caller, id relay.ID) (*relay.Account, error) {
	a, err := t.Store.Account(ctx, by.Account, id)
	if err != nil {
		return nil, err
	}
	if !a.Closed.IsZero() {
		return a, nil
	}
	closed := *a
	closed.Closed = time.Now().UTC().Truncate(time.Microsecond)
	return &closed, t.Set(ctx, by, &closed)
}

// Get gives an account: the caller's, or one that the caller manages.
func (t *Tenants) Get(ctx context.Context, by Caller, id relay.ID) (*relay.Account, error) {
	if err := by.Need(Read, "see accounts"); err != nil {
		return nil, err
	}
	return t.Store.Account(ctx, by.Account, id)
}

// List gives the caller's account and those that the caller manages, after the
// one of that id.
func (t *Tenants) List(ctx context.Context, by Caller, after relay.ID, limit int) ([]*relay.Account, error) {
	if err := by.Need(Read, "see accounts"); err != nil {
		return nil, err
	}
	return t.Store.Accounts(ctx, by.Account, after, limit)
}

// check sees whether an account may become another, by somebody who has these
// rights in it, and gives its plan.
func (t *Tenants) check(ctx context.Context, rights Rights, was, a *relay.Account) (*relay.Plan, error) {
	a.Name = strings.TrimSpace(a.Name)
	by := Caller{Rights: rights}
	for _, c := range []struct {
		changed bool
		need    Rights
		todo    string
	}{
		{a.Name != was.Name || a.Title != was.Title || a.DNS != was.DNS || a.Muted != was.Muted || a.Track != was.Track, Manage, "change this account"},
		{a.Status != was.Status || a.Reason != was.Reason, Control, "change this account's status"},
		{!slices.Equal(a.Limits, was.Limits), Control, "change this account's limits"},
		{a.Plan != was.Plan, Operate, "change this account's plan"},
		{a.Senders != was.Senders, Operate, "change whose names this account may send in"},
		{a.Growth != was.Growth, Operate, "change how this account grows"},
		{a.Keep != was.Keep, Operate, "change for how long this account's log is kept"},
		{a.Closed.IsZero() && !was.Closed.IsZero(), Control, "open this account again"},
	} {
		if c.changed {
			if err := by.Need(c.need, c.todo); err != nil {
				return nil, err
			}
		}
	}
	if !a.Closed.Equal(was.Closed) && !a.Closed.IsZero() && !rights.Has(Own) && !rights.Has(Control) {
		return nil, by.Need(Own, "close this account")
	}
	if err := wellFormed(a); err != nil {
		return nil, err
	}
	if err := setAccountStatus(by, was, a); err != nil {
		return nil, err
	}
	if err := t.withinParent(ctx, rights, a); err != nil {
		return nil, err
	}
	if a.Plan == "" {
		return nil, nil
	}
	plan, err := t.Store.Plan(ctx, a.Plan)
	if relay.CodeOf(err) == relay.NotFound {
		return nil, invalid(fmt.Sprintf("There is no plan %q.", a.Plan), "Make it first, or take another.")
	}
	return plan, err
}

// setAccountStatus notes who sets another status, or closes the account; it
// refuses to lift what somebody of more rights has set.
func setAccountStatus(by Caller, was, a *relay.Account) error {
	a.StatusBy = was.StatusBy
	closes := !a.Closed.IsZero() && was.Closed.IsZero()
	opens := a.Closed.IsZero() && !was.Closed.IsZero()
	if a.Status == was.Status && a.Reason == was.Reason && !opens {
		if who := by.Rights.authority(); closes && (was.StatusBy == "" || who == relay.ByOperator) {
			a.StatusBy = who
		}
		return nil
	}
	if err := by.mayLift(was.StatusBy); err != nil {
		return err
	}
	a.StatusBy = by.Rights.authority()
	if a.Status == relay.Active && a.Closed.IsZero() {
		a.StatusBy = ""
	}
	return nil
}

// withinParent keeps a sub-account from more than its parent may: nobody gets
// more by making accounts. Operators know better.
func (t *Tenants) withinParent(ctx context.Context, rights Rights, a *relay.Account) error {
	if a.Parent.IsZero() || rights.Has(Operate) {
		return nil
	}
	parent, err := t.Store.Account(ctx, relay.Everyone, a.Parent)
	if err != nil {
		return err
	}
	if parent.Status == relay.Sandbox && a.Status == relay.Active {
		return &relay.Error{Code: relay.Forbidden, Text: "A sub-account of an account in the sandbox is in the sandbox too.", Advice: "Ask an operator of the relay to let the account out of it."}
	}
	for _, most := range parent.Limits {
		if !slices.ContainsFunc(a.Limits, func(l relay.Limit) bool {
			return l.Of == most.Of && l.Per == most.Per && l.Most <= most.Most && l.Burst <= max(most.Burst, most.Most)
		}) {
			return &relay.Error{Code: relay.Forbidden, Text: fmt.Sprintf("A sub-account's limits can't be wider than its parent's: %s.", most), Advice: "Keep that one, or a narrower one."}
		}
	}
	return nil
}

func wellFormed(a *relay.Account) error {
	if a.Name == "" || unfit(a.Name) {
		return invalid("An account needs a name of at most 128 bytes.", "Name the customer or the department.")
	}
	if _, err := relay.ParseID(a.Name); err == nil {
		return invalid("An account's name can't look like an id.", "Take other words.")
	}
	if a.Title = strings.TrimSpace(a.Title); unfit(a.Title) {
		return invalid("A title has at most 128 bytes.", "Write what recipients know the account by.")
	}
	if len(a.Reason) > 1000 || len(a.Plan) > maxUser {
		return invalid("The reason is too long.", "1000 bytes are the most.")
	}
	if a.Status == "" {
		a.Status = relay.Active
	}
	if err := checkStatus(a.Status); err != nil {
		return err
	}
	for _, c := range []struct {
		what, is string
		of       []string
	}{
		{"senders", string(a.Senders), []string{"", string(relay.SendersVerified), string(relay.SendersAny)}},
		{"dns", string(a.DNS), []string{"", string(relay.DNSWarn), string(relay.DNSRefuse)}},
		{"suppressed", string(a.Muted), []string{"", string(relay.SuppressDrop), string(relay.SuppressRefuse)}},
	} {
		if !slices.Contains(c.of, c.is) {
			return invalid(fmt.Sprintf("%q can't be %q.", c.what, c.is), "Take "+strings.Join(c.of[1:], " or ")+", or leave it out.")
		}
	}
	var err error
	if a.Track, err = relay.ParseTrack(string(a.Track)); err != nil {
		return err
	}
	if a.Growth.Daily < 0 {
		return invalid("An account can't grow from less than nothing.", "Take 0 for one that is grown up.")
	}
	if err := checkKeep(a.Keep); err != nil {
		return err
	}
	return checkLimits(a.Limits)
}

// keepMost is the most days that a log is kept, unless it is for ever.
const keepMost = 36_500

func checkKeep(k relay.Keep) error {
	for _, days := range []int{k.Log, k.Content} {
		if days < relay.KeepForEver || days > keepMost {
			return invalid(fmt.Sprintf("Nothing can be kept for %d days.", days), "Take a number of days, 0 for as long as is usual, or -1 for ever.")
		}
	}
	return nil
}

// SetPlan makes a plan, where the version is 0, or changes it.
func (t *Tenants) SetPlan(ctx context.Context, by Caller, p *relay.Plan) error {
	if err := by.Need(Operate, "change plans"); err != nil {
		return err
	}
	if p.Name = strings.TrimSpace(p.Name); p.Name == "" || unfit(p.Name) {
		return invalid("A plan needs a name of at most 128 bytes.", "Name it as customers know it.")
	}
	if p.Start < 0 {
		return invalid("A plan can't start with less than nothing.", "Take 0 where accounts begin with all that their limits allow.")
	}
	if err := checkKeep(p.Keep); err != nil {
		return err
	}
	if err := checkLimits(p.Limits); err != nil {
		return err
	}
	if err := t.Store.SetPlan(ctx, by.Actor, p); err != nil {
		return fmt.Errorf("set plan: %w", err)
	}
	return t.Changed(ctx)
}

// RemovePlan removes a plan that no account has.
func (t *Tenants) RemovePlan(ctx context.Context, by Caller, name string) error {
	if err := by.Need(Operate, "remove plans"); err != nil {
		return err
	}
	if err := t.Store.RemovePlan(ctx, by.Actor, name); err != nil {
		return fmt.Errorf("remove plan: %w", err)
	}
	return t.Changed(ctx)
}

// Plans gives all plans, by name.
func (t *Tenants) Plans(ctx context.Context, by Caller) ([]*relay.Plan, error) {
	if err := by.Need(Operate, "see all plans"); err != nil {
		return nil, err
	}
	return t.Store.Plans(ctx)
}
