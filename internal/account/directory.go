package account

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"postrider/internal/relay"
)

// TenantReader reads accounts and people. A missing one is a relay.Error
// NotFound.
type TenantReader interface {
	Account(ctx context.Context, account, id relay.ID) (*relay.Account, error)
	AccountByName(ctx context.Context, account relay.ID, name string) (*relay.Account, error)
	Plan(ctx context.Context, name string) (*relay.Plan, error)
	User(ctx context.Context, account, id relay.ID) (*relay.User, error)
	Memberships(ctx context.Context, user relay.ID) ([]*relay.Member, error)
}

// MailReader reads what mail is held against.
type MailReader interface {
	NearestDomain(ctx context.Context, account relay.ID, names []string) (*relay.Domain, error)
	Sender(ctx context.Context, account relay.ID, address string) (*relay.Sender, error)
	Suppressed(ctx context.Context, account relay.ID, stream relay.Stream, addresses []string) ([]*relay.Suppression, error)
}

// GroupReader reads the groups of accounts, and who has left them.
type GroupReader interface {
	Groups(ctx context.Context, account relay.ID, after string, limit int) ([]*relay.Group, error)
	Left(ctx context.Context, account relay.ID, group string, addresses []string) ([]*relay.Leaver, error)
}

// DirectoryStore is what a Directory keeps in memory.
type DirectoryStore interface {
	TenantReader
	MailReader
	GroupReader
	TrackReader
}

// Directory is what acceptance and delivery must know at once, kept in memory.
// What it gives is shared, and not to be changed. Service.Run keeps it fresh.
type Directory struct {
	store DirectoryStore

	mu          sync.Mutex
	turn        int64 // grows with each Forget
	tenants     map[relay.ID]tenant
	domains     map[nameOf]*relay.Domain // nil: there is none
	senders     map[nameOf]bool
	people      map[relay.ID]person
	groups      map[relay.ID]map[string]*relay.Group // by id, and the default one by no id
	credentials map[relay.ID]*relay.Credential       // nil: there is none
}

type nameOf struct {
	account relay.ID
	name    string
}

type tenant struct {
	account *relay.Account
	plan    *relay.Plan
}

// person is what a user may do: roles by account.
type person struct {
	user  *relay.User
	roles map[relay.ID]relay.Role
}

// NewDirectory makes one that knows nothing yet.
func NewDirectory(store DirectoryStore) *Directory {
	d := &Directory{store: store}
	d.Forget()
	return d
}

// Forget drops all that is kept, because something of it has changed.
func (d *Directory) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn++
	d.tenants, d.domains, d.senders, d.people = map[relay.ID]tenant{}, map[nameOf]*relay.Domain{}, map[nameOf]bool{}, map[relay.ID]person{}
	d.groups, d.credentials = map[relay.ID]map[string]*relay.Group{}, map[relay.ID]*relay.Credential{}
}

// recall gives what is kept under the key, or asks for it and keeps it, unless
// something has changed in between.
func recall[K comparable, V any](d *Directory, kept *map[K]V, key K, ask func() (V, error)) (V, error) {
	d.mu.Lock()
	v, ok := (*kept)[key]
	turn := d.turn
	d.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := ask()
	if err != nil {
		return v, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turn == turn {
		if len(*kept) >= maxCached {
			clear(*kept) // names that somebody makes up must not fill the memory
		}
		(*kept)[key] = v
	}
	return v, nil
}

// Account gives an account and its plan; the plan is nil where it has none. An
// account whose parent is blocked or closed is blocked too, and one whose parent
// is in the sandbox is there too.
func (d *Directory) Account(ctx context.Context, id relay.ID) (*relay.Account, *relay.Plan, error) {
	t, err := recall(d, &d.tenants, id, func() (t tenant, err error) {
		if t.account, err = d.store.Account(ctx, relay.Everyone, id); err != nil {
			return t, err
		}
		if t.account.Plan != "" {
			t.plan, err = d.store.Plan(ctx, t.account.Plan)
			if err != nil && relay.CodeOf(err) != relay.NotFound {
				return t, err
			}
		}
		if !t.account.Parent.IsZero() {
			parent, err := d.store.Account(ctx, relay.Everyone, t.account.Parent)
			if err != nil {
				return t, err
			}
			switch {
			case closedOrBlocked(parent):
				t.account.Status, t.account.Reason = relay.Blocked, "the account that it belongs to is blocked or closed"
			case parent.Status == relay.Sandbox && t.account.Status != relay.Blocked:
				t.account.Status, t.account.Reason = relay.Sandbox, "the account that it belongs to is in the sandbox"
			}
		}
		return t, nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("look up account: %w", err)
	}
	return t.account, t.plan, nil
}

func closedOrBlocked(a *relay.Account) bool { return a.Status == relay.Blocked || !a.Closed.IsZero() }

// Find gives the account that is meant by somebody who may act for within and
// its sub-accounts; within is relay.Everyone for operators. Any other account is
// not found.
func (d *Directory) Find(ctx context.Context, within relay.ID, which string) (relay.ID, error) {
	if id, err := relay.ParseID(which); err == nil {
		a, err := d.store.Account(ctx, within, id)
		if err == nil {
			return a.ID, nil
		}
		if relay.CodeOf(err) != relay.NotFound {
			return relay.ID{}, err
		}
	}
	a, err := d.store.AccountByName(ctx, within, which)
	if err != nil {
		return relay.ID{}, err
	}
	return a.ID, nil
}

// Domain gives the domain of the account that a name is, or that it is below; the
// nearest one where there are several, and nil where there is none.
func (d *Directory) Domain(ctx context.Context, account relay.ID, name string) (*relay.Domain, error) {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	found, err := recall(d, &d.domains, nameOf{account, name}, func() (*relay.Domain, error) {
		var names []string
		for rest, more := name, name != ""; more; _, rest, more = strings.Cut(rest, ".") {
			names = append(names, rest)
		}
		if len(name) > 255 || len(names) == 0 {
			return nil, nil
		}
		found, err := d.store.NearestDomain(ctx, account, names)
		if relay.CodeOf(err) == relay.NotFound {
			return nil, nil
		}
		return found, err
	})
	if err != nil {
		return nil, fmt.Errorf("look up domain: %w", err)
	}
	return found, nil
}

// Sender tells whether an address is a verified sender of the account. The
// domain is in lower case A-labels.
func (d *Directory) Sender(ctx context.Context, account relay.ID, address string) (verified bool, err error) {
	verified, err = recall(d, &d.senders, nameOf{account, address}, func() (bool, error) {
		s, err := d.store.Sender(ctx, account, address)
		if relay.CodeOf(err) == relay.NotFound {
			return false, nil
		}
		return err == nil && !s.Verified.IsZero(), err
	})
	if err != nil {
		return false, fmt.Errorf("look up sender: %w", err)
	}
	return verified, nil
}

// Suppressed gives, by address, why the account must not send mail of a stream to
// those of the addresses that are suppressed, for themselves or for their domains.
// What is new in the list counts at once, and within a second where another node has
// added it.
func (d *Directory) Suppressed(ctx context.Context, account relay.ID, stream relay.Stream, addresses []string) (map[string]*relay.Suppression, error) {
	asked := make(map[string]bool, len(addresses))
	for _, a := range addresses {
		for _, s := range suppressing(a) {
			asked[s] = true
		}
	}
	found, err := d.store.Suppressed(ctx, account, stream, slices.Sorted(maps.Keys(asked)))
	if err != nil || len(found) == 0 {
		return nil, wrapped(err)
	}
	hit := make(map[string]*relay.Suppression, len(found))
	for _, s := range found {
		hit[s.Address] = s
	}
	all := map[string]*relay.Suppression{}
	for _, a := range addresses {
		for _, s := range suppressing(a) {
			if by := hit[s]; by != nil {
				all[a] = by
				break
			}
		}
	}
	return all, nil
}

func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("look up suppressions: %w", err)
}

// suppressing are what of a list suppresses an address: itself, its domain, and all
// below a name that its domain is below.
func suppressing(address string) []string {
	address = strings.ToLower(address)
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return []string{address}
	}
	all := []string{address, address[at:]}
	for _, rest, more := strings.Cut(address[at+1:], "."); more; _, rest, more = strings.Cut(rest, ".") {
		all = append(all, "@."+rest)
	}
	return all
}

// UserRights is what a user may do in an account: an operator everything, whoever
// is disabled nothing, and others what their role there allows, or what that in
// the account's parent does.
func (d *Directory) UserRights(ctx context.Context, account, user relay.ID) (Rights, error) {
	p, err := recall(d, &d.people, user, func() (p person, err error) {
		if p.user, err = d.store.User(ctx, relay.Everyone, user); err != nil {
			if relay.CodeOf(err) == relay.NotFound {
				return person{}, nil
			}
			return p, err
		}
		places, err := d.store.Memberships(ctx, user)
		p.roles = map[relay.ID]relay.Role{}
		for _, m := range places {
			p.roles[m.Account] = m.Role
		}
		return p, err
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("look up user: %w", err)
	case p.user == nil || !p.user.Disabled.IsZero():
		return 0, nil
	case p.user.Operator:
		return everything, nil
	}
	rights := OfRole(p.roles[account])
	if rights == 0 {
		a, _, err := d.Account(ctx, account)
		if err != nil {
			return 0, err
		}
		if above := OfRole(p.roles[a.Parent]); !a.Parent.IsZero() && above != 0 {
			rights = Caller{Account: a.Parent, Rights: above}.In(account).Rights
		}
	}
	return rights, nil
}

// Bearer is who acts with a credential, in the credential's account: with its
// scopes, as far as its owner's rights go.
func (d *Directory) Bearer(ctx context.Context, c *relay.Credential, actor relay.Actor) (Caller, error) {
	caller := Caller{Actor: actor, Account: c.Account}
	var owner Rights
	if !c.Owner.IsZero() {
		var err error
		if owner, err = d.UserRights(ctx, c.Account, c.Owner); err != nil {
			return caller, err
		}
		caller.User = c.Owner
	}
	caller.Rights = OfCredential(c, owner)
	return caller, nil
}
