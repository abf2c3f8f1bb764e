package account

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"postrider/internal/relay"
)

// Find gives a live credential of an account by its id, its user name or its
// name where that is unique. One that was revoked is found by its id alone.
func (m *Manager) Find(ctx context.Context, account relay.ID, which string) (*relay.Credential, error) {
	all, err := m.Store.Credentials(ctx, account)
	if err != nil {
		return nil, err
	}
	var found []*relay.Credential
	for _, c := range all {
		if c.ID.String() == which {
			return c, nil
		}
		if c.Revoked.IsZero() && which != "" && (c.User == which || c.Name == which) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return nil, &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no credential %q.", which), Advice: "See \"postrider credential list\"."}
	case 1:
		return found[0], nil
	default:
		return nil, &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("%d credentials are called %q.", len(found), which), Advice: "Name the one that you mean by its id."}
	}
}

// live finds one that is not revoked.
func (m *Manager) live(ctx context.Context, by Caller, which, todo string) (*relay.Credential, error) {
	if err := by.Need(Build, todo); err != nil {
		return nil, err
	}
	c, err := m.Find(ctx, by.Account, which)
	if err == nil && !c.Revoked.IsZero() {
		return nil, &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("The credential %s is revoked.", which), Advice: "Make a new one."}
	}
	return c, err
}

// Revoke ends a credential: its sessions end within a second, on every node.
func (m *Manager) Revoke(ctx context.Context, by Caller, which string) (*relay.Credential, error) {
	c, err := m.live(ctx, by, which, "revoke credentials")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if err := m.Store.RevokeCredential(ctx, by.Actor, c.Account, c.ID, now); err != nil {
		return nil, fmt.Errorf("revoke credential: %w", err)
	}
	c.Revoked = now
	return c, m.Changed(ctx)
}

// Change changes what may be changed of a credential: its name, stream, networks,
// senders, status, scopes, limits, pool, tracking, archive and expiry. Its version
// is the one that the caller has seen.
func (m *Manager) Change(ctx context.Context, by Caller, want *relay.Credential) (*relay.Credential, error) {
	was, err := m.live(ctx, by, want.ID.String(), "change credentials")
	if err != nil {
		return nil, err
	}
	c := *was
	c.Name, c.Stream, c.RepairLF, c.Senders, c.Status, c.Reason = want.Name, want.Stream, want.RepairLF, want.Senders, want.Status, want.Reason
	c.Limits, c.Pool, c.Opens, c.Clicks, c.Archive, c.Expires = want.Limits, want.Pool, want.Opens, want.Clicks, want.Archive, want.Expires
	c.Group = want.Group
	c.Networks, c.Scopes, c.Version = want.Networks, want.Scopes, want.Version
	if err := setStatus(by, was, &c); err != nil {
		return nil, err
	}
	// Whoever changes a key in the hands of somebody else, and not its scopes,
	// gives nobody more than they have.
	as := by
	if c.Kind == KindKey && slices.Equal(c.Scopes, was.Scopes) {
		as.User, as.Rights = was.Owner, everything
	}
	if err := m.check(ctx, as, &c); err != nil {
		return nil, err
	}
	if c.Pool != was.Pool {
		if err := by.Need(Control, "choose a pool of addresses"); err != nil {
			return nil, err
		}
	}
	if err := m.Store.SetCredential(ctx, by.Actor, was.Account, &c); err != nil {
		return nil, fmt.Errorf("change credential: %w", err)
	}
	return &c, m.Changed(ctx)
}

// setStatus notes who sets another status; it refuses to lift one that somebody
// of more rights has set.
func setStatus(by Caller, was, c *relay.Credential) error {
	if cmp.Or(c.Status, relay.Active) == cmp.Or(was.Status, relay.Active) && c.Reason == was.Reason {
		return nil
	}
	if err := by.mayLift(was.StatusBy); err != nil {
		return err
	}
	c.StatusBy = by.Rights.authority()
	if cmp.Or(c.Status, relay.Active) == relay.Active {
		c.StatusBy = ""
	}
	return nil
}

// SetStatus blocks a credential, or lets it work again. The reason is for people.
func (m *Manager) SetStatus(ctx context.Context, by Caller, which string, status relay.Status, reason string) (*relay.Credential, error) {
	c, err := m.live(ctx, by, which, "change credentials")
	if err != nil {
		return nil, err
	}
	want := *c
	want.Status, want.Reason = status, reason
	return m.Change(ctx, by, &want)
}

// Overlap is for how long the old secret is good after a rotation, where nobody
// says otherwise.
const Overlap = 24 * time.Hour

// maxOverlap is the longest.
const maxOverlap = 30 * 24 * time.Hour

// Rotate gives a credential another secret. The old one is good for that long
// yet. A password that a person chose is replaced by one that is made.
func (m *Manager) Rotate(ctx context.Context, by Caller, which string, overlap time.Duration) (c *relay.Credential, secret string, err error) {
	if c, err = m.live(ctx, by, which, "rotate credentials"); err != nil {
		return nil, "", err
	}
	if overlap < 0 || overlap > maxOverlap {
		return nil, "", invalid("The old secret can't be good for that long.", "Take 30 days at most, or nothing.")
	}
	// Who gets the secret can do what the credential can.
	if c.Owner != by.User && !c.Owner.IsZero() && !by.Rights.Has(Operate) {
		return nil, "", &relay.Error{Code: relay.Forbidden, Text: "This key is somebody else's.", Advice: "Have its owner rotate it, or revoke it and make another."}
	}
	if err := m.mayHold(ctx, by, c, "This key can do more than you may"); err != nil {
		return nil, "", err
	}
	old := relay.Previous{SecretSHA256: c.SecretSHA256, Argon2: c.Argon2, Scram: c.Scram, Until: time.Now().Add(overlap).Truncate(time.Microsecond)}
	switch c.Kind {
	case KindSMTP:
		secret = newSecret()
		c.SecretSHA256, c.Argon2 = digest(secret), ""
		err = setScram(c, secret, old.Scram.Salt)
	case KindKey:
		secret = fillKey(c)
	default:
		return nil, "", invalid("A network credential has no secret.", "Change its networks.")
	}
	if err != nil {
		return nil, "", err
	}
	c.Previous = old
	if overlap == 0 {
		c.Previous = relay.Previous{}
	}
	if err := m.Store.SetCredential(ctx, by.Actor, c.Account, c); err != nil {
		return nil, "", fmt.Errorf("rotate credential: %w", err)
	}
	return c, secret, m.Changed(ctx)
}

func checkStatus(s relay.Status) error {
	switch s {
	case "", relay.Active, relay.Sandbox, relay.Blocked:
		return nil
	}
	return invalid(fmt.Sprintf("There is no status %q.", s), "Take active, sandbox or blocked.")
}

// maxLimits is how many limits one thing may have: each message is held against
// all of them.
const maxLimits = 16

func checkLimits(limits []relay.Limit) error {
	if len(limits) > maxLimits {
		return invalid(fmt.Sprintf("%d limits are the most.", maxLimits), "Leave out those that another one covers.")
	}
	for i, l := range limits {
		var same relay.Limit
		if err := same.UnmarshalText([]byte(l.String())); err != nil {
			return invalid(fmt.Sprintf("%q is no limit.", l), "Write one such as \"1000 recipients/hour\" or \"10 messages/second burst 50\".")
		}
		for _, other := range limits[:i] {
			if other.Of == l.Of && other.Per == l.Per {
				return invalid(fmt.Sprintf("There are two limits of %s/%s.", l.Of, l.Per), "Keep one of them.")
			}
		}
	}
	return nil
}
