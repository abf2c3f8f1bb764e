package account

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// ManageStore is what adding and revoking need.
type ManageStore interface {
	AddCredential(ctx context.Context, by relay.Actor, c *relay.Credential) error
	Credentials(ctx context.Context, account relay.ID) ([]*relay.Credential, error)
	RevokeCredential(ctx context.Context, by relay.Actor, account, id relay.ID, at time.Time) error
}

// Manager adds and revokes credentials.
type Manager struct {
	Store   ManageStore
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
}

// Add makes a credential. The secret is given here and never again; it is empty
// where the person chose it or where there is none. The error is a relay.Error
// where the wish can't be granted.
func (m *Manager) Add(ctx context.Context, by relay.Actor, w Wish) (c *relay.Credential, secret string, err error) {
	w.Name = strings.TrimSpace(w.Name)
	if w.Name == "" || unfit(w.Name) {
		return nil, "", invalid("A credential needs a name of at most 128 bytes.", "Name the app or device that will use it.")
	}
	if w.Stream == 0 {
		w.Stream = relay.Transactional
	}
	id, err := m.NewID()
	if err != nil {
		return nil, "", err
	}
	c = &relay.Credential{ID: id, Account: w.Account, Kind: w.Kind, Name: w.Name, Stream: w.Stream,
		RepairLF: w.RepairLF, Created: time.Now()}
	if err := fillSenders(c, w.Senders); err != nil {
		return nil, "", err
	}
	switch w.Kind {
	case KindSMTP:
		secret, err = fillSMTP(c, w)
	case KindKey:
		secret = keyPrefix + newSecret()
		sum := sha256.Sum256([]byte(secret))
		c.SecretSHA256 = sum[:]
	case KindNetwork:
		err = fillNetwork(c, w)
	default:
		err = invalid(fmt.Sprintf("There is no kind of credential %q.", w.Kind), "Take smtp, key or network.")
	}
	if err != nil {
		return nil, "", err
	}
	if w.Kind != KindSMTP && (w.User != "" || w.Password != "") {
		return nil, "", invalid("Only an smtp credential has a user name and a password.", "Leave them out, or take kind smtp.")
	}
	if w.Kind != KindNetwork && len(w.Networks) > 0 {
		return nil, "", invalid("Only a network credential has networks.", "Leave them out, or take kind network.")
	}
	if err := m.Store.AddCredential(ctx, by, c); err != nil {
		if relay.CodeOf(err) == relay.Conflict {
			return nil, "", &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("The user name %q is taken.", c.User), Advice: "Choose another one.", Err: err}
		}
		return nil, "", fmt.Errorf("add credential: %w", err)
	}
	return c, secret, m.Changed(ctx)
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
		sum := sha256.Sum256([]byte(secret))
		c.SecretSHA256 = sum[:]
		return secret, setScram(c, secret)
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
)

func fillNetwork(c *relay.Credential, w Wish) error {
	const advice = "Name the addresses of the devices, such as 192.168.1.0/24."
	if len(w.Networks) == 0 {
		return invalid("A network credential needs a network.", advice)
	}
	if len(w.Networks) > maxNetworks {
		return invalid(fmt.Sprintf("A network credential has at most %d networks.", maxNetworks), "Make several credentials.")
	}
	for _, p := range w.Networks {
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

// Revoke ends a credential, named by its id, its user name or its name where
// that is unique.
func (m *Manager) Revoke(ctx context.Context, by relay.Actor, account relay.ID, which string) (*relay.Credential, error) {
	all, err := m.Store.Credentials(ctx, account)
	if err != nil {
		return nil, err
	}
	var found []*relay.Credential
	for _, c := range all {
		if c.Revoked.IsZero() && (c.ID.String() == which || c.User == which && which != "" || c.Name == which) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return nil, &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no credential %q.", which), Advice: "See \"postrider credential list\"."}
	case 1:
	default:
		return nil, &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("%d credentials are called %q.", len(found), which), Advice: "Name the one to revoke by its id."}
	}
	now := time.Now()
	if err := m.Store.RevokeCredential(ctx, by, found[0].Account, found[0].ID, now); err != nil {
		return nil, fmt.Errorf("revoke credential: %w", err)
	}
	found[0].Revoked = now
	return found[0], m.Changed(ctx)
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
