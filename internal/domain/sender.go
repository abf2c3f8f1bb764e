package domain

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// SenderReader finds senders.
type SenderReader interface {
	Sender(ctx context.Context, account relay.ID, address string) (*relay.Sender, error)
	SenderByToken(ctx context.Context, sum [32]byte) (*relay.Sender, error)
	Senders(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Sender, error)
}

// SenderWriter changes them, with an entry in the audit log.
type SenderWriter interface {
	AddSender(ctx context.Context, by relay.Actor, s *relay.Sender) error
	SetSender(ctx context.Context, by relay.Actor, account relay.ID, s *relay.Sender) error
	RemoveSender(ctx context.Context, by relay.Actor, account, id relay.ID) error
}

// SenderStore keeps senders, and counts links.
type SenderStore interface {
	SenderReader
	SenderWriter
	TakeUsage(ctx context.Context, takes []relay.Take) ([]relay.Taken, error)
}

// Entrance takes in the relay's own mail, with the null envelope sender.
type Entrance interface {
	Report(ctx context.Context, account relay.ID, to string, utf8 bool, content relay.Content, answers *relay.Notice) (relay.ID, error)
}

// Bounds on links: nobody's mailbox is to be filled with them.
const (
	linkLife  = 7 * 24 * time.Hour
	linkPause = 5 * time.Minute // between two to the same address
	linkADay  = 50              // of an account, whether or not the senders are removed meanwhile
)

// SenderConfig is what Senders must know.
type SenderConfig struct {
	Hostname string
	From     string // address in the From header of the mail with the link
	// Link is the page that verifies, without the token; empty: links can't be
	// sent, and the operator verifies.
	Link  string
	NewID func() (relay.ID, error)
}

// Senders verifies single addresses: by a mail with a link, which whoever reads
// the mailbox opens.
type Senders struct {
	config   SenderConfig
	store    SenderStore
	entrance Entrance
	now      func() time.Time
}

// NewSenders makes one.
func NewSenders(c SenderConfig, s SenderStore, e Entrance) *Senders {
	return &Senders{config: c, store: s, entrance: e, now: func() time.Time { return time.Now().Truncate(time.Microsecond) }}
}

// Address reads an address and gives it as senders are kept and compared: in lower
// case, its domain as A-labels. The error is a relay.Error.
func Address(s string) (string, error) {
	bad := func(err error) error {
		return &relay.Error{Code: relay.BadAddress, Text: fmt.Sprintf("%.100q can't be a sender: %v.", s, err), Advice: "Write it as ann@example.com."}
	}
	a, err := smtp.ParseAddress(strings.TrimSpace(s), true)
	if err != nil {
		return "", bad(err)
	}
	if a.Domain, err = a.ASCIIDomain(); err != nil {
		return "", bad(err)
	}
	a.Domain = strings.TrimSuffix(a.Domain, ".")
	return strings.ToLower(a.String()), nil
}

// Add asks for an address: it sends a link there, or sends it again. trusted is
// for the operator, whose word is enough: no mail goes out.
func (s *Senders) Add(ctx context.Context, by relay.Actor, account relay.ID, address string, trusted bool) (*relay.Sender, error) {
	address, err := Address(address)
	if err != nil {
		return nil, err
	}
	known, err := s.store.Sender(ctx, account, address)
	switch {
	case relay.CodeOf(err) == relay.NotFound && err != nil:
		known = nil
	case err != nil:
		return nil, err
	case !known.Verified.IsZero():
		return known, nil
	}
	now := s.now()
	if trusted {
		return s.keep(ctx, by, known, &relay.Sender{Account: account, Address: address, Asked: now, Verified: now})
	}
	if s.config.Link == "" {
		return nil, &relay.Error{Code: relay.Unavailable, Text: "This relay has no public address that a link could lead to.",
			Advice: "The operator sets [api] url, or verifies the address: \"postrider sender add -verified " + address + "\"."}
	}
	if err := s.patient(ctx, account, known, now); err != nil {
		return nil, err
	}
	token := strings.ToLower(rand.Text())
	sum := sha256.Sum256([]byte(token))
	kept, err := s.keep(ctx, by, known, &relay.Sender{Account: account, Address: address, Token: sum[:], Asked: now})
	if err != nil {
		return nil, err
	}
	if err := s.send(ctx, by, kept, token); err != nil {
		kept.Asked = time.Time{} // it was not: let it be asked again at once
		if serr := s.store.SetSender(ctx, by, account, kept); serr != nil {
			return nil, errors.Join(err, serr)
		}
		return nil, err
	}
	return kept, nil
}

// keep stores a sender that may be there already.
func (s *Senders) keep(ctx context.Context, by relay.Actor, known, n *relay.Sender) (*relay.Sender, error) {
	if known != nil {
		n.ID = known.ID
		return n, s.store.SetSender(ctx, by, n.Account, n)
	}
	var err error
	if n.ID, err = s.config.NewID(); err != nil {
		return nil, err
	}
	if err := s.store.AddSender(ctx, by, n); err != nil {
		return nil, err
	}
	return n, nil
}

// patient refuses links that come too often.
func (s *Senders) patient(ctx context.Context, account relay.ID, known *relay.Sender, now time.Time) error {
	if known != nil && now.Sub(known.Asked) < linkPause {
		return &relay.Error{Code: relay.RateLimited, Text: "A link was sent to " + known.Address + " just now.",
			Advice: "Look into its spam folder too, and wait five minutes before you have another sent.", Retry: known.Asked.Add(linkPause)}
	}
	day := relay.PerDay
	taken, err := s.store.TakeUsage(ctx, []relay.Take{{Account: account, Subject: "links/day", Start: day.Start(now), End: day.End(now), Want: 1, Most: linkADay}})
	if err != nil {
		return err
	}
	if taken[0].Got == 0 {
		return &relay.Error{Code: relay.RateLimited, Text: fmt.Sprintf("%d links were sent for this account today.", linkADay),
			Advice: "Wait until tomorrow (UTC), or verify the whole domain: \"postrider domain add\".", Retry: day.End(now)}
	}
	return nil
}

// send submits the mail with the link.
func (s *Senders) send(ctx context.Context, by relay.Actor, to *relay.Sender, token string) error {
	addr, err := smtp.ParseAddress(to.Address, true)
	if err != nil {
		return fmt.Errorf("read sender: %w", err)
	}
	id, err := s.config.NewID()
	if err != nil {
		return err
	}
	now := s.now()
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("Date: %s", message.FormatDate(now))
	line("From: Postrider <%s>", s.config.From)
	line("To: <%s>", to.Address)
	line("Message-ID: %s", message.NewMessageID(id.String(), s.config.Hostname))
	line("Subject: May mail be sent in your name?")
	line("MIME-Version: 1.0")
	line("Content-Type: text/plain; charset=utf-8")
	line("Content-Transfer-Encoding: 8bit")
	line("Auto-Submitted: auto-generated") // RFC 3834 section 5
	line("")
	line("%s asks to send mail from this address through %s:", plain(by.Name), s.config.Hostname)
	line("")
	line("    %s", to.Address)
	line("")
	line("If that is right, open this page until %s and press the button:", to.Asked.Add(linkLife).UTC().Format("2 January 2006, 15:04 UTC"))
	line("")
	line("    %s%s", s.config.Link, token)
	line("")
	line("If you know nothing of it, do nothing: no mail goes out in your name then.")
	_, err = s.entrance.Report(ctx, to.Account, to.Address, !addr.IsASCII(), message.Bytes(b.Bytes()), nil)
	if err != nil {
		return fmt.Errorf("send the link: %w", err)
	}
	return nil
}

// plain keeps a name from looking like a part of the mail around it.
func plain(name string) string {
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name)
	if r := []rune(name); len(r) > 60 {
		name = string(r[:60]) + "…"
	}
	if strings.Contains(name, "://") || name == "" {
		return "Somebody"
	}
	return name
}

// Asked gives the sender of a link, for the page that shows what is asked. A
// link that is no good is a relay.Error NotFound.
func (s *Senders) Asked(ctx context.Context, token string) (*relay.Sender, error) {
	found, err := s.store.SenderByToken(ctx, sha256.Sum256([]byte(strings.ToLower(token))))
	if err != nil {
		return nil, err
	}
	if found.Verified.IsZero() && s.now().Sub(found.Asked) >= linkLife {
		return nil, &relay.Error{Code: relay.NotFound, Text: "The link is too old.", Advice: "Have a new one sent."}
	}
	return found, nil
}

// Verify takes the word of whoever has the link. Doing it twice does nothing the
// second time.
func (s *Senders) Verify(ctx context.Context, by relay.Actor, token string) (*relay.Sender, error) {
	found, err := s.Asked(ctx, token)
	if err != nil || !found.Verified.IsZero() {
		return found, err
	}
	found.Verified = s.now()
	return found, s.store.SetSender(ctx, by, found.Account, found)
}

// List gives senders after the one of that id, the oldest first.
func (s *Senders) List(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Sender, error) {
	return s.store.Senders(ctx, account, after, limit)
}

// Remove forgets a sender, by its address.
func (s *Senders) Remove(ctx context.Context, by relay.Actor, account relay.ID, address string) (*relay.Sender, error) {
	address, err := Address(address)
	if err != nil {
		return nil, err
	}
	found, err := s.store.Sender(ctx, account, address)
	if err != nil {
		return nil, err
	}
	return found, s.store.RemoveSender(ctx, by, found.Account, found.ID)
}
