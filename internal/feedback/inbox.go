package feedback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postrider/internal/account"
	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/submit"
)

// ReturnPaths reads the addresses that mail comes back to. An error says that one
// is not ours.
type ReturnPaths interface {
	Parse(address string) (relay.DeliveryID, error)
}

// InboxStore keeps what comes back.
type InboxStore interface {
	Class(ctx context.Context, id relay.DeliveryID) (relay.Class, error)
	AddReturned(ctx context.Context, list []*relay.Returned) error
}

// Domains finds the domain of an account that a name is, or is below; nil where
// there is none.
type Domains interface {
	Domain(ctx context.Context, account relay.ID, name string) (*relay.Domain, error)
}

const (
	// returnFor is how long after its message a return path takes mail. Servers
	// give up after five days or so; some tell later.
	returnFor = 30 * 24 * time.Hour
	// maxKept is how much is kept of a mail, in bytes. What it says stands in its
	// beginning; behind that there is the message that it is about.
	maxKept = 512 << 10
)

// Inbox takes the mail that comes back, only to addresses that were given out, and
// keeps it before it is answered for. It is the entrance of listeners of mode
// feedback.
type Inbox struct {
	hosts   []string // of the relay itself
	paths   ReturnPaths
	store   InboxStore
	domains Domains
	log     *slog.Logger
	now     func() time.Time
}

// NewInbox makes an inbox. Hosts are the relay's own that bounces may come to; those
// of aligned domains come besides.
func NewInbox(hosts []string, p ReturnPaths, s InboxStore, d Domains, log *slog.Logger) *Inbox {
	return &Inbox{hosts: hosts, paths: p, store: s, domains: d, log: log, now: time.Now}
}

// Sender takes any, the null one too.
func (b *Inbox) Sender(context.Context, *account.Identity, string) error { return nil }

// Recipient takes the return paths of deliveries that are not too old.
func (b *Inbox) Recipient(ctx context.Context, _ *account.Identity, sender, recipient string) error {
	_, _, err := b.delivery(ctx, sender, recipient)
	return err
}

// notOurs does not tell what is wrong: who makes up addresses need not know.
func notOurs(text, advice string) error {
	return &relay.Error{Code: relay.Forbidden, Text: text, Advice: advice, Enhanced: "5.1.1"}
}

var errUnknown = errors.New("no such address")

// delivery finds whose return path an address is.
func (b *Inbox) delivery(ctx context.Context, sender, recipient string) (id relay.DeliveryID, owner relay.ID, err error) {
	const unknown, advice = "There is no such address here.", "Only bounces and complaints about mail that was sent from here are taken, at the address that it was sent with."
	if id, err = b.paths.Parse(recipient); err != nil {
		return id, owner, notOurs(unknown, advice)
	}
	addr, err := smtp.ParseAddress(recipient, true)
	if err != nil {
		return id, owner, notOurs(unknown, advice)
	}
	host, err := addr.ASCIIDomain()
	if err != nil {
		return id, owner, notOurs(unknown, advice)
	}
	if age := b.now().Sub(id.Message.Time()); age > returnFor {
		b.log.Info("feedback refused: the message is too old", "delivery", id, "age", age.Round(time.Hour), "sender", sender)
		return id, owner, notOurs("This address takes no mail any more.", fmt.Sprintf("The message was sent more than %d days ago.", returnFor/(24*time.Hour)))
	}
	c, err := b.store.Class(ctx, id)
	if relay.CodeOf(err) == relay.NotFound {
		return id, owner, notOurs(unknown, advice)
	}
	if err != nil {
		return id, owner, err
	}
	switch ours, err := b.hostOf(ctx, c.Account, strings.ToLower(strings.TrimSuffix(host, "."))); {
	case err != nil:
		return id, owner, err
	case !ours:
		return id, owner, notOurs(unknown, advice)
	}
	return id, c.Account, nil
}

// hostOf tells whether bounces of an account's mail may come to a host.
func (b *Inbox) hostOf(ctx context.Context, owner relay.ID, host string) (bool, error) {
	if slices.Contains(b.hosts, host) {
		return true, nil
	}
	d, err := b.domains.Domain(ctx, owner, host)
	if err != nil || d == nil {
		return false, err
	}
	// Whether it is aligned now does not matter: it was when the mail left.
	return d.ReturnPath != "" && host == d.ReturnPath+"."+d.Name, nil
}

// Submit keeps a mail for each of the deliveries that it came back to, and gives
// the id of the first.
func (b *Inbox) Submit(ctx context.Context, d submit.Draft) (relay.ID, error) {
	content, err := beginning(d.Content)
	if err != nil {
		return relay.ID{}, fmt.Errorf("read feedback: %w", err)
	}
	var list []*relay.Returned
	for _, r := range d.Envelope.Recipients {
		id, owner, err := b.delivery(ctx, d.Envelope.Sender, r.Address)
		if err != nil {
			return relay.ID{}, err
		}
		if slices.ContainsFunc(list, func(o *relay.Returned) bool { return o.Delivery == id }) {
			continue
		}
		name, err := submit.NewID()
		if err != nil {
			return relay.ID{}, err
		}
		list = append(list, &relay.Returned{ID: name, Account: owner, Delivery: id, Received: b.now().Truncate(time.Microsecond),
			Sender: d.Envelope.Sender, Source: d.Source, Size: d.Content.Size(), Content: content})
	}
	if len(list) == 0 {
		return relay.ID{}, fmt.Errorf("keep feedback: %w", errUnknown)
	}
	if err := b.store.AddReturned(ctx, list); err != nil {
		return relay.ID{}, err
	}
	for _, r := range list {
		b.log.Info("feedback came", "id", r.ID, "delivery", r.Delivery, "sender", r.Sender, "bytes", r.Size)
	}
	return list[0].ID, nil
}

func beginning(c relay.Content) ([]byte, error) {
	rc, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(io.LimitReader(rc, maxKept))
}
