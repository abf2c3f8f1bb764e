package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/smtp"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/api"
	"postrider/internal/lab"
	"postrider/internal/relay"
)

// longest is how long the show waits for everything to end.
const longest = 3 * time.Minute

// show submits every scenario's message, tells live what becomes of them, and
// ends with the table.
func show(parent context.Context, w io.Writer, r *lab.Relay, p *proofs, h *hook) error {
	parent, cancel := context.WithTimeout(parent, longest)
	defer cancel()
	began := time.Now()
	all := scenarios()
	g, ctx := errgroup.WithContext(parent)
	g.Go(func() error {
		if err := submit(ctx, w, r, all); err != nil {
			return fmt.Errorf("submit: %w", err)
		}
		return nil
	})
	g.Go(func() error { return follow(ctx, w, r, began, all) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := table(parent, w, r, p, all); err != nil {
		return err
	}
	if err := why(parent, w, r); err != nil {
		return err
	}
	return hooked(parent, w, h, all)
}

// sender is the address that a scenario's message comes from; its DSN goes
// there, by which the two are known to belong together.
func sender(i int) string { return fmt.Sprintf("scenario-%02d@shop.test", i+1) }

// submit hands the messages in as an application would: with Go's own client,
// STARTTLS and AUTH.
func submit(ctx context.Context, w io.Writer, r *lab.Relay, all []scenario) error {
	pem, err := os.ReadFile(r.CAFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", r.Addr("starttls"))
	if err != nil {
		return err
	}
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{ServerName: "localhost", RootCAs: roots}); err != nil {
		return err
	}
	if err := c.Auth(smtp.PlainAuth("", r.User, r.Password, "localhost")); err != nil {
		return err
	}
	if err := forge(w, c); err != nil {
		return err
	}
	for i, s := range all {
		if err := send(c, sender(i), s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return c.Quit()
}

func send(c *smtp.Client, from string, s scenario) error {
	if err := c.Mail(from); err != nil {
		return err
	}
	for _, to := range s.to {
		if err := c.Rcpt(to); err != nil {
			return err
		}
	}
	data, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := data.Write(s.make(from, s.to)); err != nil {
		return err
	}
	return data.Close()
}

// awaited is what is to happen before the show is over.
type awaited struct {
	final   int             // deliveries that are to end
	ended   map[string]bool // those that did
	follows map[string]bool // by kind and recipient, until it comes
}

func await(all []scenario) *awaited {
	a := &awaited{ended: map[string]bool{}, follows: map[string]bool{}}
	for _, s := range all {
		a.final += len(s.to)
		if s.bounces() {
			a.final++ // the DSN
		}
		for _, kind := range s.follows {
			a.follows[kind+" "+s.to[0]] = true
		}
	}
	return a
}

func (a *awaited) take(e api.Event) {
	delete(a.follows, e.Kind+" "+e.Recipient)
	switch e.Kind {
	case "delivered", "bounced", "expired", "cancelled":
		a.ended[e.Delivery] = true
	}
}

func (a *awaited) over() bool { return len(a.ended) >= a.final && len(a.follows) == 0 }

// follow prints each event until all that is foreseen has happened.
func follow(ctx context.Context, w io.Writer, r *lab.Relay, began time.Time, all []scenario) error {
	wait := await(all)
	after := relay.FirstIDAt(began).String()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !wait.over() {
		var events api.List[api.Event]
		if err := r.API.Get(ctx, "/v1/events", url.Values{"cursor": {after}}, &events); err != nil {
			return err
		}
		for _, e := range events.Data {
			after = e.ID
			fmt.Fprintf(w, "%6.2fs  %-9s  %-28s %s\n", e.At.Sub(began).Seconds(), e.Kind, e.Recipient, oneLine(said(e), 90))
			wait.take(e)
		}
		if len(events.Data) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d deliveries came to an end; not seen: %v: %w", len(wait.ended), wait.final, slices.Sorted(maps.Keys(wait.follows)), ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// said is what the receiver answered, or what stands for that.
func said(e api.Event) string {
	switch g := e.Engagement; {
	case e.Kind == "reported":
		return "the sender is told by " + e.Reply.Text
	case g != nil:
		return strings.TrimSpace(strings.Join([]string{g.URL, g.Method, g.Machine}, " "))
	case e.Kind == "complained" || e.Kind == "feedback":
		return e.Diagnosis.Text
	}
	return e.Reply.String()
}

// table prints every delivery and checks it against its scenario.
func table(ctx context.Context, w io.Writer, r *lab.Relay, p *proofs, all []scenario) error {
	found, err := r.Deliveries(ctx, nil)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nSCENARIO\tID\tRECIPIENT\tOUTCOME\tATTEMPTS\tTIME\tRECEIVER SAW\tLAST REPLY")
	wrong := 0
	for i, s := range all {
		retried, dsn := false, !s.bounces()
		for n := range s.to {
			d := find(found, func(d api.Delivery) bool { return d.Sender == sender(i) && d.Recipient == s.to[n] })
			retried = retried || d.Attempts > 1
			saw, proven := p.of(d.Recipient, sender(i))
			wrong += row(t, s.name, d, s.wants(s.to[n]), saw)
			if d.State == "delivered" && !proven {
				wrong++
				fmt.Fprintf(t, "  WRONG: it does not verify\t\t\t\t\t\t\t\n")
			}
		}
		if s.bounces() {
			d := find(found, func(d api.Delivery) bool { return d.Sender == "" && d.Recipient == sender(i) })
			dsn = d.ID != ""
			wrong += row(t, "  its DSN", d, "delivered", "")
		}
		if s.retried && !retried || !dsn {
			wrong++
			fmt.Fprintf(t, "  WRONG: retried %v, foreseen %v; DSN %v\t\t\t\t\t\t\t\n", retried, s.retried, dsn)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if wrong > 0 {
		return fmt.Errorf("%w: %d differ", ErrUnforeseen, wrong)
	}
	fmt.Fprintf(w, "\n%d messages, %d deliveries (with DSNs): every one came to what its scenario foresees,\nand what was delivered verifies: both DKIM signatures, SPF and DMARC, aligned with %s.\n", len(all), len(found), shop)
	return nil
}

// why prints what each failure means, and what to do.
func why(ctx context.Context, w io.Writer, r *lab.Relay) error {
	found, err := r.Deliveries(ctx, url.Values{"state": {"bounced,expired"}})
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nFAILED\tPROVIDER\tCATEGORY\tWHAT HAPPENED\tWHAT TO DO")
	for _, d := range found {
		g := d.Diagnosis
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", d.Recipient, orDash(d.Provider), g.Category, oneLine(g.Text, 80), oneLine(g.Advice, 80))
		if g.Category == "" || g.Text == "" || g.Advice == "" {
			err = errors.Join(err, fmt.Errorf("%w: the failure of %s is not explained: %+v", ErrUnforeseen, d.Recipient, g))
		}
	}
	return errors.Join(t.Flush(), err)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// hooked prints what the account's own program was told, when it knows of all that
// was to come.
func hooked(ctx context.Context, w io.Writer, h *hook, all []scenario) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nWEBHOOK: VERIFIED EVENT\tRECIPIENT\tSAYS")
	for _, s := range all {
		for _, kind := range s.follows {
			for {
				says, ok := h.has(kind, s.to[0])
				if ok {
					fmt.Fprintf(t, "delivery.%s\t%s\t%s\n", kind, s.to[0], oneLine(says, 90))
					break
				}
				select {
				case <-ctx.Done():
					return fmt.Errorf("%w: the webhook was not told that %s %s: %w", ErrUnforeseen, s.to[0], kind, ctx.Err())
				case <-tick.C:
				}
			}
		}
	}
	verified, forged := h.counts()
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d events came over the webhook, each with a signature that verifies.\n", verified)
	if forged > 0 {
		return fmt.Errorf("%w: %d requests of the webhook do not verify", ErrUnforeseen, forged)
	}
	return nil
}

func find(all []api.Delivery, f func(api.Delivery) bool) api.Delivery {
	for _, d := range all {
		if f(d) {
			return d
		}
	}
	return api.Delivery{}
}

// row prints a delivery and gives 1 where it is not as foreseen.
func row(w io.Writer, name string, d api.Delivery, want, saw string) (wrong int) {
	outcome := d.State
	if outcome != want {
		outcome, wrong = fmt.Sprintf("%s, FORESEEN %s", outcome, want), 1
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%.2fs\t%s\t%s\n", name, d.ID, d.Recipient, outcome, d.Attempts, d.Updated.Sub(d.Received).Seconds(), saw, oneLine(d.Reply.String(), 60))
	return wrong
}

func oneLine(s string, most int) string {
	r := []rune(strings.ReplaceAll(s, "\n", " "))
	if len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return string(r)
}
