package account

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// ManageStore keeps the credentials that a Manager manages.
type ManageStore interface {
	AddCredential(ctx context.Context, by relay.Actor, c *relay.Credential) error
	SetCredential(ctx context.Context, by relay.Actor, account relay.ID, c *relay.Credential) error
	RevokeCredential(ctx context.Context, by relay.Actor, account, id relay.ID, at time.Time) error
	Credentials(ctx context.Context, account relay.ID) ([]*relay.Credential, error)
	NetworkCredentials(ctx context.Context) ([]*relay.Credential, error)
}

// Manager manages credentials. Each method acts in the caller's account, and
// refuses what the caller may not do.
type Manager struct {
	Store   ManageStore
	Book    *Directory // knows the rights of keys' owners
	NewID   func() (relay.ID, error)
	Changed func(context.Context) error // called after each change, before it is reported done
}

// Wish is a credential that somebody asks for.
type Wish struct {
	Account  relay.ID
	Kind     string
	Name     string
	User     string // smtp: empty makes one from Name
	Password string // smtp: one that a person chose or brings along; empty makes one
	Networks []netip.Prefix
	Stream   relay.Stream // zero: transactional
	RepairLF bool
	Senders  []string
	Status   relay.Status
	Scopes   []relay.Scope // key: empty stands for send
	Owner    relay.ID      // key: zero stands for the caller
	Limits   []relay.Limit
	Pool     string
	Opens    bool
	Clicks   bool
	Archive  bool
	Group    string
	Expires  time.Time // zero: never
}

// Add makes a credential. The secret is given here and never again; it is empty
// where the person chose it or where there is none. The error is a relay.Error
// where the wish can't be granted.
func (m *Manager) Add(ctx context.Context, by Caller, w Wish) (c *relay.Credential, secret string, err error) {
	if err := by.Need(Build, "make credentials"); err != nil {
		return nil, "", err
	}
	if by.Account != relay.Everyone && by.Account != w.Account {
		return nil, "", &relay.Error{Code: relay.NotFound, Text: "There is no such account.", Advice: "Name one that you may act for."}
	}
	if w.Stream == 0 {
		w.Stream = relay.Transactional
	}
	id, err := m.NewID()
	if err != nil {
		return nil, "", err
	}
	c = &relay.Credential{ID: id, Account: w.Account, Kind: w.Kind, Name: strings.TrimSpace(w.Name), Stream: w.Stream, RepairLF: w.RepairLF, Senders: w.Senders,
		Status: w.Status, Scopes: w.Scopes, Owner: w.Owner, Limits: w.Limits, Pool: w.Pool, Opens: w.Opens, Clicks: w.Clicks, Archive: w.Archive, Group: w.Group,
		Networks: w.Networks, Expires: w.Expires, Created: time.Now()}
	if c.Kind == KindKey && c.Owner.IsZero() {
		c.Owner = by.User
	}
	if err := m.check(ctx, by, c); err != nil {
		return nil, "", err
	}
	if w.Pool != "" {
		if err := by.Need(Control, "choose a pool of addresses"); err != nil {
			return nil, "", err
		}
	}
	if w.Kind != KindSMTP && (w.User != "" || w.Password != "") {
		return nil, "", invalid("Only an smtp credential has a user name and a password.", "Leave them out, or take kind smtp.")
	}
	if err := setStatus(by, &relay.Credential{}, c); err != nil {
		return nil, "", err
	}
	switch w.Kind {
	case KindSMTP:
		secret, err = fillSMTP(c, w)
	case KindKey:
		secret = fillKey(c)
	}
	if err != nil {
		return nil, "", err
	}
	if err := m.Store.AddCredential(ctx, by.Actor, c); err != nil {
		return nil, "", fmt.Errorf("add credential: %w", err)
	}
	return c, secret, m.Changed(ctx)
}

// check sees whether a credential may be as it is asked for, and puts what it
// names into the form in which it is kept.
func (m *Manager) check(ctx context.Context, by Caller, c *relay.Credential) error {
	if c.Name == "" || unfit(c.Name) {
		return invalid("A credential needs a name of at most 128 bytes.", "Name the app or device that will use it.")
	}
	if c.Stream != relay.Transactional && c.Stream != relay.Broadcast {
		return invalid("There is no such stream.", "Take transactional or broadcast.")
	}
	if err := checkStatus(c.Status); err != nil {
		return err
	}
	if err := checkLimits(c.Limits); err != nil {
		return err
	}
	if err := fillSenders(c, c.Senders); err != nil {
		return err
	}
	if err := m.checkGroup(ctx, c); err != nil {
		return err
	}
	switch c.Kind {
	case KindSMTP, KindKey:
		if len(c.Networks) > 0 {
			return invalid("Only a network credential has networks.", "Leave them out, or take kind network.")
		}
	case KindNetwork:
		if err := fillNetwork(c, c.Networks); err != nil {
			return err
		}
		if err := m.othersNetworks(ctx, by, c); err != nil {
			return err
		}
	default:
		return invalid(fmt.Sprintf("There is no kind of credential %q.", c.Kind), "Take smtp, key or network.")
	}
	if c.Kind != KindKey {
		if len(c.Scopes) > 0 || !c.Owner.IsZero() {
			return invalid("Only a key has scopes.", "Leave them out, or take kind key.")
		}
		return nil
	}
	if err := checkScopes(c.Scopes); err != nil {
		return err
	}
	if c.Owner != by.User && !by.Rights.Has(Operate) {
		return &relay.Error{Code: relay.Forbidden, Text: "A key can't be made for somebody else.", Advice: "Have its owner make it, or an operator."}
	}
	return m.mayHold(ctx, by, c, "This key could do more than you may")
}

// mayHold refuses a credential to whom it would let do more than they may.
func (m *Manager) mayHold(ctx context.Context, by Caller, c *relay.Credential, text string) error {
	var owner Rights
	if !c.Owner.IsZero() {
		var err error
		if owner, err = m.Book.UserRights(ctx, c.Account, c.Owner); err != nil {
			return err
		}
	}
	if granted := OfCredential(c, owner); !by.Rights.mayGrant(granted) {
		return &relay.Error{Code: relay.Forbidden, Text: fmt.Sprintf("%s: %s.", text, granted&^by.Rights), Advice: "Take fewer scopes, or ask who may do more."}
	}
	return nil
}

// othersNetworks refuses networks that another account's clients come from: who
// has them would send what is theirs. Operators may know better.
func (m *Manager) othersNetworks(ctx context.Context, by Caller, c *relay.Credential) error {
	if by.Rights.Has(Operate) {
		return nil
	}
	for _, p := range c.Networks {
		if a := p.Addr(); a.IsLoopback() || !a.IsPrivate() && (a.Is4() && p.Bits() < tenants4 || a.Is6() && p.Bits() < tenants6) {
			return &relay.Error{Code: relay.Forbidden, Text: fmt.Sprintf("%s is wider than an account may name by itself: whoever calls from there could send.", p),
				Advice: fmt.Sprintf("Name the addresses of your devices, at most a /%d (IPv6: a /%d), or ask the operator.", tenants4, tenants6)}
		}
	}
	all, err := m.Store.NetworkCredentials(ctx)
	if err != nil {
		return err
	}
	for _, other := range all {
		for _, theirs := range other.Networks {
			for _, p := range c.Networks {
				if other.Account != c.Account && theirs.Overlaps(p) {
					return &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("%s is in use by somebody else.", p), Advice: "Name your own addresses only, or use a password."}
				}
			}
		}
	}
	return nil
}

func fillKey(c *relay.Credential) (secret string) {
	secret = keyPrefix + newSecret()
	c.SecretSHA256 = digest(secret)
	return secret
}

func fillSMTP(c *relay.Credential, w Wish) (secret string, err error) {
	c.User = w.User
	if c.User == "" {
		c.User = slug(w.Name) + "-" + newSecret()[:6]
	}
	if unfit(c.User) || strings.TrimSpace(c.User) != c.User || strings.HasPrefix(c.User, keyPrefix) {
		return "", invalid("This user name can't be used.",
			fmt.Sprintf("Take at most %d bytes, without control characters and spaces around it, and not beginning with %q.", maxUser, keyPrefix))
	}
	password := w.Password
	if password == "" {
		secret = newSecret()
		c.SecretSHA256 = digest(secret)
		return secret, setScram(c, secret, nil)
	}
	if len(password) < 8 || len(password) > 256 || strings.ContainsRune(password, 0) { // PLAIN can't carry a NUL
		return "", invalid("This password can't be used.", "Take 8 to 256 bytes, or leave it out and one is made.")
	}
	if strings.HasPrefix(password, keyPrefix) {
		return "", invalid(fmt.Sprintf("A password can't begin with %q: API keys do.", keyPrefix), "Choose another one.")
	}
	// No SCRAM for a chosen password: its verifier could be guessed at much
	// faster than argon2id allows.
	c.Argon2 = argonHash(password)
	return "", nil
}

// unfit tells whether a name of something is too long or not for showing.
func unfit(s string) bool {
	return len(s) > maxUser || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl)
}

// fillSenders takes addresses and domains, in the form in which package policy
// compares them.
func fillSenders(c *relay.Credential, senders []string) error {
	c.Senders = nil
	for _, s := range senders {
		s = strings.TrimPrefix(strings.TrimSpace(s), "@")
		if strings.Contains(s, "@") {
			a, err := smtp.ParseAddress(s, true)
			if err != nil {
				return invalid(fmt.Sprintf("%q can't be a sender: %v.", s, err), "Name addresses or domains.")
			}
			domain, err := a.ASCIIDomain()
			if err != nil {
				return invalid(fmt.Sprintf("%q can't be a sender: %v.", s, err), "Name addresses or domains.")
			}
			s = strings.ToLower(smtp.Address{Local: a.Local, Domain: domain}.String())
		} else {
			domain, err := smtp.ASCIIDomain(s)
			if err != nil {
				return invalid(fmt.Sprintf("%q can't be a sender: %v.", s, err), "Name addresses or domains.")
			}
			s = domain
		}
		c.Senders = append(c.Senders, s)
	}
	return nil
}

const (
	maxNetworks = 100 // each connection is held against all
	// The widest networks that are not an open relay by mistake: an old class A,
	// and what a provider gets for all of its customers.
	widest4 = 8
	widest6 = 32
	// What accounts may name without the operator, of public networks.
	tenants4 = 24
	tenants6 = 48
)

func fillNetwork(c *relay.Credential, networks []netip.Prefix) error {
	c.Networks = nil
	const advice = "Name the addresses of the devices, such as 192.168.1.0/24."
	if len(networks) == 0 {
		return invalid("A network credential needs a network.", advice)
	}
	if len(networks) > maxNetworks {
		return invalid(fmt.Sprintf("A network credential has at most %d networks.", maxNetworks), "Make several credentials.")
	}
	for _, p := range networks {
		if !p.IsValid() {
			return invalid("A network is not valid.", advice)
		}
		a := p.Addr()
		if a.Is4In6() {
			return invalid(fmt.Sprintf("%s is an IPv4 network written as IPv6.", p), "Write it as IPv4.")
		}
		widest := widest4
		if a.Is6() && !(p.Bits() >= 8 && (a.IsPrivate() || a.IsLinkLocalUnicast())) {
			widest = widest6
		}
		if p.Bits() < widest {
			return invalid(fmt.Sprintf("A network credential for %s would make this an open relay.", p), advice)
		}
		c.Networks = append(c.Networks, p.Masked())
	}
	return nil
}

// List gives an account's credentials, oldest first.
func (m *Manager) List(ctx context.Context, account relay.ID) ([]*relay.Credential, error) {
	return m.Store.Credentials(ctx, account)
}

func invalid(text, advice string) error {
	return &relay.Error{Code: relay.Invalid, Text: text, Advice: advice}
}

func slug(name string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		default:
			return '-'
		}
	}, name)
	s = strings.Trim(s, "-")
	if len(s) > 32 {
		s = strings.TrimRight(s[:32], "-")
	}
	if s == "" {
		s = "app"
	}
	return s
}
