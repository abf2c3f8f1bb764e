package account

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"postrider/internal/relay"
)

// GroupStore keeps groups that recipients can leave.
type GroupStore interface {
	AddGroup(ctx context.Context, by relay.Actor, g *relay.Group, most int) error
	SetGroup(ctx context.Context, by relay.Actor, account relay.ID, g *relay.Group) error
	RemoveGroup(ctx context.Context, by relay.Actor, account relay.ID, id string, forget bool) error
	Group(ctx context.Context, account relay.ID, id string) (*relay.Group, error)
	Groups(ctx context.Context, account relay.ID, after string, limit int) ([]*relay.Group, error)
	LeaverStore
}

// LeaverStore keeps who has left groups.
type LeaverStore interface {
	LeaveGroup(ctx context.Context, by relay.Actor, account relay.ID, group string, list []relay.Leaver) (added int64, err error)
	RejoinGroup(ctx context.Context, by relay.Actor, account relay.ID, group string, addresses []string) (removed int64, err error)
	Leavers(ctx context.Context, account relay.ID, group string, f relay.LeaverFilter) ([]*relay.Leaver, error)
	Left(ctx context.Context, account relay.ID, group string, addresses []string) ([]*relay.Leaver, error)
}

// Groups manages the groups of an account, and who has left them.
type Groups struct {
	Store   GroupStore
	Changed func(context.Context) error // called after each change of a group, before it is reported done
}

const (
	mostGroups       = 200 // of an account: the preference page shows them all
	maxGroupID       = 64
	maxGroupText     = 500 // bytes
	mostGroupMembers = 10_000
)

// Add makes a group in the caller's account. Without an id it is made of the name.
func (s *Groups) Add(ctx context.Context, by Caller, g relay.Group) (*relay.Group, error) {
	if err := by.Need(Build, "change groups"); err != nil {
		return nil, err
	}
	if g.ID == "" {
		g.ID = groupID(g.Name)
	}
	g.Account, g.Created = by.Account, time.Now().UTC().Truncate(time.Microsecond)
	if err := checkGroup(&g); err != nil {
		return nil, err
	}
	if err := s.Store.AddGroup(ctx, by.Actor, &g, mostGroups); err != nil {
		return nil, err
	}
	return &g, s.Changed(ctx)
}

// Change changes a group: everything but its id. Its version is the one that the
// caller has seen.
func (s *Groups) Change(ctx context.Context, by Caller, g relay.Group) (*relay.Group, error) {
	if err := by.Need(Build, "change groups"); err != nil {
		return nil, err
	}
	if err := checkGroup(&g); err != nil {
		return nil, err
	}
	if err := s.Store.SetGroup(ctx, by.Actor, by.Account, &g); err != nil {
		return nil, err
	}
	return &g, s.Changed(ctx)
}

// Remove removes a group. Where somebody has left it, forget must say that they may
// get mail again.
func (s *Groups) Remove(ctx context.Context, by Caller, id string, forget bool) error {
	if err := by.Need(Build, "change groups"); err != nil {
		return err
	}
	if err := s.Store.RemoveGroup(ctx, by.Actor, by.Account, id, forget); err != nil {
		return err
	}
	return s.Changed(ctx)
}

// Get gives a group of the caller's account.
func (s *Groups) Get(ctx context.Context, by Caller, id string) (*relay.Group, error) {
	if err := by.Need(Read, "see groups"); err != nil {
		return nil, err
	}
	return s.Store.Group(ctx, by.Account, id)
}

// List gives the groups of the caller's account by their ids, after that one.
func (s *Groups) List(ctx context.Context, by Caller, after string, limit int) ([]*relay.Group, error) {
	if err := by.Need(Read, "see groups"); err != nil {
		return nil, err
	}
	return s.Store.Groups(ctx, by.Account, after, limit)
}

// Leave notes that addresses have left a group, and says how many are new.
func (s *Groups) Leave(ctx context.Context, by Caller, group string, list []relay.Leaver) (added int64, err error) {
	if err := by.Need(Build, "change who has left a group"); err != nil {
		return 0, err
	}
	if len(list) > mostGroupMembers {
		return 0, tooMany()
	}
	kept := slices.Clone(list)
	for i := range kept {
		l := &kept[i]
		if l.Address, err = emailOf(l.Address); err != nil {
			return 0, err
		}
		if len(l.Note) > 1000 {
			return 0, invalid("A note has at most 1000 bytes.", "Shorten it.")
		}
		if l.Created.IsZero() {
			l.Created = time.Now().UTC().Truncate(time.Microsecond)
		}
	}
	return s.Store.LeaveGroup(ctx, by.Actor, by.Account, group, kept)
}

// Rejoin takes addresses off those that have left a group, and says how many were
// there.
func (s *Groups) Rejoin(ctx context.Context, by Caller, group string, addresses []string) (removed int64, err error) {
	if err := by.Need(Build, "change who has left a group"); err != nil {
		return 0, err
	}
	if len(addresses) > mostGroupMembers {
		return 0, tooMany()
	}
	kept := make([]string, len(addresses))
	for i, a := range addresses {
		if kept[i], err = emailOf(a); err != nil {
			return 0, err
		}
	}
	return s.Store.RejoinGroup(ctx, by.Actor, by.Account, group, kept)
}

// Leavers gives who has left a group, by address.
func (s *Groups) Leavers(ctx context.Context, by Caller, group string, f relay.LeaverFilter) ([]*relay.Leaver, error) {
	if _, err := s.Get(ctx, by, group); err != nil {
		return nil, err
	}
	return s.Store.Leavers(ctx, by.Account, group, f)
}

// Left gives the entry of an address that has left a group; nil: it has not.
func (s *Groups) Left(ctx context.Context, by Caller, group, address string) (*relay.Leaver, error) {
	if _, err := s.Get(ctx, by, group); err != nil {
		return nil, err
	}
	address, err := emailOf(address)
	if err != nil {
		return nil, err
	}
	found, err := s.Store.Left(ctx, by.Account, group, []string{address})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

func checkGroup(g *relay.Group) error {
	g.Name, g.Description = strings.TrimSpace(g.Name), strings.TrimSpace(g.Description)
	switch {
	case !isGroupID(g.ID):
		return invalid(fmt.Sprintf("%q can't be the id of a group.", g.ID), "Take up to 64 small letters, digits, - and _, such as newsletter.")
	case g.Name == "" || unfit(g.Name):
		return invalid("A group needs a name of at most 128 bytes.", "Call it what recipients know it by: \"Newsletter\".")
	case len(g.Description) > maxGroupText || !utf8.ValidString(g.Description):
		return invalid(fmt.Sprintf("The description of a group has at most %d bytes.", maxGroupText), "Shorten it.")
	case g.Position < -1000 || g.Position > 1000:
		return invalid("A position lies between -1000 and 1000.", "Number the groups from 1.")
	}
	return nil
}

func isGroupID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (i == 0 || c != '-' && c != '_') {
			return false
		}
	}
	return s != "" && len(s) <= maxGroupID
}

// groupID makes an id of a name: "Weekly News!" is weekly-news.
func groupID(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	s := b.String()
	return strings.TrimSuffix(s[:min(len(s), maxGroupID)], "-")
}

// checkGroup makes sure that mail can be of the group that a credential names.
func (m *Manager) checkGroup(ctx context.Context, c *relay.Credential) error {
	if c.Group == "" {
		return nil
	}
	g, err := m.Book.Group(ctx, c.Account, c.Group)
	if err == nil && g == nil {
		err = invalid(fmt.Sprintf("There is no group %q.", c.Group), "Make it first, or see \"postrider group list\".")
	}
	return err
}

// groupsOf gives the groups of an account by their ids, and the default one by no
// id.
func (d *Directory) groupsOf(ctx context.Context, account relay.ID) (map[string]*relay.Group, error) {
	found, err := recall(d, &d.groups, account, func() (map[string]*relay.Group, error) {
		list, err := d.store.Groups(ctx, account, "", mostGroups)
		if err != nil {
			return nil, err
		}
		by := make(map[string]*relay.Group, len(list))
		for _, g := range list {
			by[g.ID] = g
			if g.Default {
				by[""] = g
			}
		}
		return by, nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up groups: %w", err)
	}
	return found, nil
}

// Group gives a group of an account; nil where it has none of that id. No id stands
// for the default one.
func (d *Directory) Group(ctx context.Context, account relay.ID, id string) (*relay.Group, error) {
	all, err := d.groupsOf(ctx, account)
	return all[id], err
}

// Groups gives the groups of an account in the order in which recipients see them.
func (d *Directory) Groups(ctx context.Context, account relay.ID) ([]*relay.Group, error) {
	by, err := d.groupsOf(ctx, account)
	var all []*relay.Group
	for id, g := range by {
		if id != "" {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b *relay.Group) int {
		return cmp.Or(cmp.Compare(a.Position, b.Position), strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return all, err
}

// Left gives those of the addresses, as they stand, that have left a group of the
// account.
func (d *Directory) Left(ctx context.Context, account relay.ID, group string, addresses []string) ([]string, error) {
	low := make([]string, len(addresses))
	for i, a := range addresses {
		low[i] = strings.ToLower(a)
	}
	found, err := d.store.Left(ctx, account, group, low)
	if err != nil {
		return nil, fmt.Errorf("look up who has left a group: %w", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	left := make(map[string]bool, len(found))
	for _, l := range found {
		left[l.Address] = true
	}
	var all []string
	for i, a := range addresses {
		if left[low[i]] {
			all = append(all, a)
		}
	}
	return all, nil
}
