package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/smtp"
	"net/textproto"
	"strings"
	"sync"
	"text/tabwriter"

	"postrider/internal/dns"
	"postrider/internal/lab"
	"postrider/internal/sink"
)

// shop is the domain that the demo sends in the name of.
const shop = "shop.test"

// own brings the domain into the account as its owner would: add it, publish what
// the answer says, have that checked.
func own(ctx context.Context, w io.Writer, r *lab.Relay) error {
	added, checked, err := r.OwnDomain(ctx, shop)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "postrider domain add %s\n", shop)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, rec := range added.Plan.Records {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", rec.Purpose, rec.Name, rec.Type, oneLine(rec.Value, 70))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nThey are published in the demo's DNS.\n\npostrider domain check %s\n", shop)
	for _, f := range checked.Findings {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", f.Status, f.Check, f.Name, f.Text)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if checked.Status != "verified" || checked.Aligned == nil {
		return fmt.Errorf("%w: the domain is %s, its return path aligned: %v", ErrUnforeseen, checked.Status, checked.Aligned != nil)
	}
	fmt.Fprintln(w)
	return nil
}

// forge tries to send in somebody else's name, which is to be refused.
func forge(w io.Writer, c *smtp.Client) error {
	const from = "director@bank.test"
	err := c.Mail(from)
	if err == nil {
		err = c.Rcpt("ann@example.test")
	}
	var refusal *textproto.Error
	if !errors.As(err, &refusal) || refusal.Code != 550 {
		return fmt.Errorf("%w: mail from %s: %v; want it refused", ErrUnforeseen, from, err)
	}
	fmt.Fprintf(w, "         refused    MAIL FROM:<%s>\n                    %d %s\n", from, refusal.Code, refusal.Msg)
	return c.Reset()
}

// proofs is what the receivers found of each message, by recipient and sender as
// the From header has it.
type proofs struct {
	// Resolver is set before the receivers serve.
	*dns.Resolver

	mu sync.Mutex
	by map[string]*sink.Proof
}

func (p *proofs) received(m *sink.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, to := range m.To() {
		p.by[to+" "+author(m.Content)] = m.Proof
	}
}

// of is a line about a delivery, and whether it shows what the demo promises: both
// signatures hold, SPF passes, and both speak for the author's domain.
func (p *proofs) of(recipient, from string) (line string, good bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.by[recipient+" "+from]
	if got == nil {
		return "", false
	}
	passed := 0
	for _, s := range got.DKIM {
		if s.Result == "pass" && s.Domain == shop {
			passed++
		}
	}
	return fmt.Sprintf("dkim=%d× spf=%s dmarc=%s", passed, got.SPF.Result, got.DMARC.Result),
		passed == 2 && got.SPF.Result == "pass" && got.DMARC.Result == "pass" && got.DMARC.SPF && got.DMARC.DKIM
}

// author is the address in the From header of the demo's own messages.
func author(content []byte) string {
	_, rest, _ := strings.Cut(string(content[:min(len(content), 8<<10)]), "From: Shop <")
	address, _, _ := strings.Cut(rest, ">")
	return address
}
