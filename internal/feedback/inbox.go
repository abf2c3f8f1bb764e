package feedback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"postrider/internal/account"
	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/submit"
)

// ReturnPaths reads the addresses that mail comes back to. An error says that one
// is not ours.
type ReturnPaths interface {
	// Parse reads the return path of a delivery.
	Parse(address string) (relay.DeliveryID, error)
	// ParseUnsubscribe reads the address that the recipient of a delivery
	// unsubscribes at.
	ParseUnsubscribe(address string) (relay.DeliveryID, error)
	// ParseLoop reads an address for the complaints of a provider.
	ParseLoop(address string) (provider string, err error)
	// Find gives the delivery that a text names by a mark or an address of ours; of
	// a message alone the number is 0.
	Find(text []byte) (relay.DeliveryID, bool)
}

// InboxStore keeps what comes back.
type InboxStore interface {
	Class(ctx context.Context, id relay.DeliveryID) (relay.Class, error)
	Story(ctx context.Context, account, message relay.ID) (*relay.Story, error)
	AddReturned(ctx context.Context, list []*relay.Returned) error
}

// Observer is told of feedback, to count it.
type Observer interface {
	// FeedbackTaken tells of a mail that is kept.
	FeedbackTaken()
	// FeedbackRefused tells why an address is not taken: "forged", "expired",
	// "unknown" (none of ours, or of a message that is gone) or "host" (not at this
	// host).
	FeedbackRefused(why string)
	// FeedbackSettled tells what became of a mail: the kind of its event, or
	// "unmatched"; and the public name of the provider, where it is known.
	FeedbackSettled(became, provider string)
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
	// maxExpired is of how many deliveries it is remembered that mail for them came
	// too late; more of them in expiredFor are only counted.
	maxExpired = 10_000
	expiredFor = 24 * time.Hour
)

// Inbox takes the mail that comes back, only at addresses that were given out, and
// keeps it before it is answered for. It is the entrance of listeners of mode
// feedback.
type Inbox struct {
	hosts   []string // of the relay itself
	paths   ReturnPaths
	store   InboxStore
	domains Domains
	watch   Observer
	log     *slog.Logger
	now     func() time.Time

	mu      sync.Mutex
	expired map[relay.DeliveryID]bool // told of since
	since   time.Time
}

// NewInbox makes an inbox. Hosts are the relay's own that bounces may come to; those
// of aligned domains come besides.
func NewInbox(hosts []string, p ReturnPaths, s InboxStore, d Domains, o Observer, log *slog.Logger) *Inbox {
	return &Inbox{hosts: hosts, paths: p, store: s, domains: d, watch: o, log: log, now: time.Now}
}

// Sender takes any, the null one too.
func (b *Inbox) Sender(context.Context, *account.Identity, string) error { return nil }

// Recipient takes addresses of deliveries that are not too old, and those for the
// complaints of providers.
func (b *Inbox) Recipient(ctx context.Context, _ *account.Identity, sender, recipient string) error {
	if b.loop(recipient) != "" {
		return nil
	}
	p, err := b.place(ctx, recipient)
	var why refusal
	if !errors.As(err, &why) {
		return err
	}
	b.watch.FeedbackRefused(why.why)
	if why.why == "expired" {
		b.log.Info("feedback refused: the message is too old", "delivery", p.delivery, "sender", sender)
		if err := b.tell(ctx, sender, &p); err != nil {
			b.log.Error("feedback that came too late can't be told of", "delivery", p.delivery, "err", err)
		}
	}
	return why.told
}

// tell has an event tell that mail came for an expired return path, once in a while
// for each: the log is not to grow by what strangers send.
func (b *Inbox) tell(ctx context.Context, sender string, p *place) error {
	if !b.news(p.delivery) {
		return nil
	}
	id, err := submit.NewID()
	if err != nil {
		return err
	}
	return b.store.AddReturned(ctx, []*relay.Returned{{ID: id, Account: p.owner, Delivery: p.delivery, Received: b.now().Truncate(time.Microsecond),
		Sender: sender, Content: []byte{}, Expired: true}})
}

// news tells whether nothing was told of a delivery lately.
func (b *Inbox) news(id relay.DeliveryID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := b.now(); now.Sub(b.since) >= expiredFor {
		b.expired, b.since = map[relay.DeliveryID]bool{}, now
	}
	if b.expired[id] || len(b.expired) >= maxExpired {
		return false
	}
	b.expired[id] = true
	return true
}

// loop is the provider whose complaints come to an address; empty: it is none for
// complaints.
func (b *Inbox) loop(recipient string) string {
	provider, err := b.paths.ParseLoop(recipient)
	_, host, _ := strings.Cut(recipient, "@")
	if err != nil || !slices.Contains(b.hosts, strings.ToLower(strings.TrimSuffix(host, "."))) {
		return ""
	}
	return provider
}

// place is what an address stands for.
type place struct {
	delivery    relay.DeliveryID
	owner       relay.ID
	unsubscribe bool
}

// refusal says why an address is not taken. The sender is told less: who makes up
// addresses need not know.
type refusal struct {
	why  string
	told *relay.Error
}

func (r refusal) Error() string { return r.told.Error() }
func (r refusal) Unwrap() error { return r.told }

const advice = "Only bounces, complaints and unsubscriptions about mail that was sent from here are taken, at the address that was given out for them."

func refused(why string) refusal {
	return refusal{why, &relay.Error{Code: relay.Forbidden, Text: "There is no such address here.", Advice: advice, Enhanced: "5.1.1"}}
}

var errUnknown = errors.New("no such address")

// forged tells an address that looks like one of ours from others: its code is wrong.
func forged(recipient string) bool {
	return len(recipient) > 2 && strings.Contains("bufBUF", recipient[:1]) && recipient[1] == '+'
}

// place finds what an address of a delivery stands for.
func (b *Inbox) place(ctx context.Context, recipient string) (p place, err error) {
	if p.delivery, err = b.paths.Parse(recipient); err != nil {
		if p.delivery, err = b.paths.ParseUnsubscribe(recipient); err != nil {
			if _, err := b.paths.ParseLoop(recipient); err == nil {
				return p, refused("host")
			}
			if forged(recipient) {
				return p, refused("forged")
			}
			return p, refused("unknown")
		}
		p.unsubscribe = true
	}
	addr, err := smtp.ParseAddress(recipient, true)
	if err != nil {
		return p, refused("unknown")
	}
	host, err := addr.ASCIIDomain()
	if err != nil {
		return p, refused("host")
	}
	c, err := b.store.Class(ctx, p.delivery)
	if relay.CodeOf(err) == relay.NotFound {
		return p, refused("unknown")
	}
	if err != nil {
		return p, err
	}
	p.owner = c.Account
	switch ours, err := b.hostOf(ctx, c.Account, strings.ToLower(strings.TrimSuffix(host, "."))); {
	case err != nil:
		return p, err
	case !ours:
		return p, refused("host")
	}
	// Who keeps a newsletter for a year may still leave it.
	if b.now().Sub(p.delivery.Message.Time()) > returnFor && !p.unsubscribe {
		return p, refusal{"expired", &relay.Error{Code: relay.Forbidden, Text: "This address takes no mail any more.", Enhanced: "5.1.1",
			Advice: fmt.Sprintf("The message was sent more than %d days ago.", returnFor/(24*time.Hour))}}
	}
	return p, nil
}

// complaint finds what a mail to an address for complaints is about: a delivery that
// it names by our mark or by a return path, or whose recipient it names.
func (b *Inbox) complaint(ctx context.Context, content []byte) (p place, found bool, err error) {
	// A long header field may be folded, or the whole be quoted-printable.
	plain := bytes.ReplaceAll(content, []byte("=\r\n"), nil)
	id, ok := b.paths.Find(plain)
	if !ok {
		return p, false, nil
	}
	story, err := b.store.Story(ctx, relay.Everyone, id.Message)
	if relay.CodeOf(err) == relay.NotFound {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	p.owner = story.Message.Account
	all := story.Deliveries
	switch {
	case id.N != 0:
		p.delivery, found = id, slices.ContainsFunc(all, func(d *relay.Delivery) bool { return d.ID == id })
	case len(all) == 1:
		p.delivery, found = all[0].ID, true
	default: // one text for all of them
		lower := bytes.ToLower(plain)
		// Whom a header is addressed to says less than whom anything else names.
		for _, text := range [][]byte{addressees.ReplaceAll(lower, nil), lower} {
			var of []*relay.Delivery
			for _, d := range all {
				if names(text, strings.ToLower(d.Recipient.Address)) {
					of = append(of, d)
				}
			}
			if len(of) == 1 {
				p.delivery, found = of[0].ID, true
			}
			if len(of) > 0 { // of several it is not said which one complained
				break
			}
		}
	}
	return p, found, nil
}

// addressees are the fields of a header, in lower case, that name all recipients.
var addressees = regexp.MustCompile(`(?m)^(?:to|cc):.*(?:\n[ \t].*)*`)

// names tells whether an address stands in a text, both in lower case, and is not a
// part of another one.
func names(text []byte, address string) bool {
	part := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 0x80 || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
	}
	for at := 0; ; at++ {
		i := bytes.Index(text[at:], []byte(address))
		if i < 0 {
			return false
		}
		at += i
		before, after := text[:at], text[at+len(address):]
		if n := len(before); n > 0 && (part(before[n-1]) || before[n-1] == '.') {
			continue
		}
		if len(after) == 0 || !part(after[0]) && (after[0] != '.' || len(after) == 1 || !part(after[1])) {
			return true
		}
	}
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
	lost := ""
	for _, r := range d.Envelope.Recipients {
		p, err := place{}, error(nil)
		provider := b.loop(r.Address)
		if provider != "" {
			var found bool
			if p, found, err = b.complaint(ctx, content); err == nil && !found {
				b.log.Info("a complaint names no message of ours", "provider", provider, "sender", d.Envelope.Sender, "bytes", d.Content.Size())
				b.watch.FeedbackTaken()
				b.watch.FeedbackSettled("unmatched", "")
				lost = provider
				continue
			}
		} else {
			p, err = b.place(ctx, r.Address)
		}
		if err != nil {
			return relay.ID{}, err
		}
		if slices.ContainsFunc(list, func(o *relay.Returned) bool { return o.Delivery == p.delivery && o.Unsubscribe == p.unsubscribe }) {
			continue
		}
		name, err := submit.NewID()
		if err != nil {
			return relay.ID{}, err
		}
		list = append(list, &relay.Returned{ID: name, Account: p.owner, Delivery: p.delivery, Received: b.now().Truncate(time.Microsecond),
			Sender: d.Envelope.Sender, Source: d.Source, Size: d.Content.Size(), Content: content, Unsubscribe: p.unsubscribe, Provider: provider})
	}
	if len(list) == 0 && lost != "" { // what nobody can make use of is not to come again
		return submit.NewID()
	}
	if len(list) == 0 {
		return relay.ID{}, fmt.Errorf("keep feedback: %w", errUnknown)
	}
	if err := b.store.AddReturned(ctx, list); err != nil {
		return relay.ID{}, err
	}
	for _, r := range list {
		b.watch.FeedbackTaken()
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
