package tlsreport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"postrider/internal/dns"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/tlspolicy"
)

// Store is what a Sender needs of the store.
type Store interface {
	TLSDomains(ctx context.Context, day time.Time) ([]string, error)
	TLSCounts(ctx context.Context, day time.Time, domain string) ([]*relay.TLSCount, error)
	DropTLS(ctx context.Context, day time.Time, domain string) error
	Lock(ctx context.Context, name, owner string, lasts time.Duration) (bool, error)
}

// Mail takes a report into the queue.
type Mail interface {
	TLSReport(ctx context.Context, account relay.ID, to string, content relay.Content) error
}

// Config is who reports.
type Config struct {
	Domain       string // of the submitter
	Organization string
	Contact      string
	From         string
	Account      relay.ID // whose mail the reports are
	Node         string   // this one; one of all sends
	// Client posts reports; it must refuse addresses that nothing may be posted
	// to, and redirects.
	Client *http.Client
}

// Sender sends the reports.
type Sender struct {
	config Config
	store  Store
	txt    TXT
	mail   Mail
	log    *slog.Logger
	now    func() time.Time
}

// NewSender makes a sender.
func NewSender(c Config, store Store, txt TXT, mail Mail, log *slog.Logger) *Sender {
	return &Sender{config: c, store: store, txt: txt, mail: mail, log: log, now: time.Now}
}

const (
	lookEvery = 10 * time.Minute
	lockTime  = 15 * time.Minute
	// spread is over how much of the day after the reports go out, each domain at
	// its time (RFC 8460 section 4.1: not everybody at midnight).
	spread = 4 * time.Hour
	// maxDays is how long a report is tried that can't be sent.
	maxDays     = 3
	postTimeout = 30 * time.Second
	day         = 24 * time.Hour
)

// Run sends reports until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.Round(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("TLS reports are not sent; they will be tried again", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Round sends what is due, if no other node does.
func (s *Sender) Round(ctx context.Context) error {
	now := s.now()
	today := relay.PerDay.Start(now)
	for back := maxDays; back >= 1; back-- {
		of := today.Add(-time.Duration(back) * day)
		domains, err := s.store.TLSDomains(ctx, of)
		if err != nil {
			return err
		}
		for _, domain := range domains {
			if now.Before(today.Add(delay(of, domain))) && back == 1 {
				continue
			}
			// The lock is taken anew for each, so that it never runs out.
			mine, err := s.store.Lock(ctx, "tls-reports", s.config.Node, lockTime)
			if err != nil || !mine {
				return err
			}
			if err := s.report(ctx, of, domain, back == maxDays); err != nil {
				return err
			}
		}
	}
	return nil
}

// delay is when after midnight the report to a domain is due.
func delay(of time.Time, domain string) time.Duration {
	sum := sha256.Sum256([]byte(of.Format(time.DateOnly) + domain))
	return time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(spread))
}

// report sends the report of a day to one domain. What can't be sent stays for
// the next round, but on its last day. The error is that of the store.
func (s *Sender) report(ctx context.Context, of time.Time, domain string, last bool) error {
	records, err := s.txt.TXT(ctx, "_smtp._tls."+domain)
	var failed *dns.Error
	if errors.As(err, &failed) && failed.Kind == dns.Temporary && !last {
		return ctx.Err()
	}
	if targets := tlspolicy.Targets(records); len(targets) > 0 {
		counts, err := s.store.TLSCounts(ctx, of, domain)
		if err != nil {
			return err
		}
		r, err := s.compose(of, domain, counts)
		if err != nil {
			return err
		}
		sent := 0
		for _, to := range targets {
			if err := s.send(ctx, r, domain, to); err != nil {
				s.log.Info("a TLS report can't be sent", "domain", domain, "to", to.Redacted(), "err", err)
				continue
			}
			sent++
		}
		if sent == 0 && !last {
			return ctx.Err()
		}
		s.log.Info("TLS report", "domain", domain, "day", of.Format(time.DateOnly), "id", r.ID, "sent", sent)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.store.DropTLS(ctx, of, domain)
}

func (s *Sender) compose(of time.Time, domain string, counts []*relay.TLSCount) (*tlspolicy.Report, error) {
	// The same for the same report, so that who gets it twice can tell.
	id := sha256.Sum256([]byte(s.config.Domain + " " + domain + " " + of.Format(time.DateOnly)))
	r := &tlspolicy.Report{Organization: s.config.Organization, Contact: s.config.Contact, ID: hex.EncodeToString(id[:12]),
		Range: tlspolicy.DateRange{Start: of, End: of.Add(day - time.Second)}}
	var all []tlspolicy.Count
	for _, c := range counts {
		all = append(all, tlspolicy.Count{Detail: c.Detail, Sessions: c.Sessions})
	}
	return r, r.Add(all)
}

func (s *Sender) send(ctx context.Context, r *tlspolicy.Report, domain string, to *url.URL) error {
	packed, err := r.Gzip()
	if err != nil {
		return err
	}
	if to.Scheme == "https" {
		return s.post(ctx, to, packed)
	}
	address, err := url.PathUnescape(to.Opaque)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	if _, err := smtp.ParseAddress(address, false); err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	return s.mail.TLSReport(ctx, s.config.Account, address, message.Bytes(s.letter(r, domain, address, packed)))
}

// post sends a report by HTTPS (RFC 8460 section 5.4).
func (s *Sender) post(ctx context.Context, to *url.URL, packed []byte) error {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(packed))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/tlsrpt+gzip")
	req.Header.Set("User-Agent", "Postrider")
	resp, err := s.config.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // the answer does not matter, that it ends does
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	return nil
}

// letter is the mail that carries a report (RFC 8460 section 5.3).
func (s *Sender) letter(r *tlspolicy.Report, domain, to string, packed []byte) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	boundary, receiver := "tlsrpt-"+r.ID, sha256.Sum256([]byte(to))
	line("From: %s", s.config.From)
	line("To: %s", to)
	line("Subject: Report Domain: %s", domain)
	line(" Submitter: %s", s.config.Domain)
	line(" Report-ID: <%s@%s>", r.ID, s.config.Domain)
	line("Date: %s", message.FormatDate(s.now()))
	line("Message-ID: %s", message.NewMessageID(r.ID+"."+hex.EncodeToString(receiver[:4]), s.config.Domain))
	line("Auto-Submitted: auto-generated")
	line("TLS-Report-Domain: %s", domain)
	line("TLS-Report-Submitter: %s", s.config.Domain)
	line("TLS-Required: No") // RFC 8689 section 5: for the servers behind the first
	line("MIME-Version: 1.0")
	line(`Content-Type: multipart/report; report-type="tlsrpt"; boundary=%q`, boundary)
	line("")
	line("--%s", boundary)
	line("Content-Type: text/plain; charset=us-ascii")
	line("")
	line("This is a report on TLS with the mail servers of %s, from %s to %s UTC,", domain, r.Range.Start.Format(time.DateTime), r.Range.End.Format(time.DateTime))
	line("as %s saw them. The DNS record _smtp._tls.%s asks for it (RFC 8460).", s.config.Domain, domain)
	line("")
	line("--%s", boundary)
	line("Content-Type: application/tlsrpt+gzip")
	line("Content-Transfer-Encoding: base64")
	line("Content-Disposition: attachment; filename=%q", r.File(s.config.Domain, domain))
	line("")
	text := base64.StdEncoding.EncodeToString(packed)
	for len(text) > 76 {
		line("%s", text[:76])
		text = text[76:]
	}
	line("%s", text)
	line("--%s--", boundary)
	return b.Bytes()
}
