package policy

import (
	"fmt"
	"strings"
	"time"

	"postrider/internal/account"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// Name is an address in whose name a message speaks.
type Name struct {
	Where   string // "From", "Sender", … or "MAIL", the envelope
	Address string // as it is written
	Key     string // in the form in which addresses are compared; empty: it can be nobody's
	Domain  string // of it, in lower case and as A-labels
}

// NameOf reads one address.
func NameOf(where string, a smtp.Address) Name {
	n := Name{Where: where, Address: message.Clean(a.String(), 320)}
	domain, err := a.ASCIIDomain()
	if err != nil {
		return n
	}
	n.Domain = strings.TrimSuffix(domain, ".")
	n.Key = strings.ToLower(smtp.Address{Local: a.Local, Domain: n.Domain}.String())
	return n
}

// Sender reads an envelope sender; ok is false for the null sender, which is
// nobody's.
func Sender(address string) (n Name, ok bool) {
	if address == "" {
		return Name{}, false
	}
	a, err := smtp.ParseAddress(address, true)
	if err != nil {
		return Name{Where: "MAIL", Address: address}, true
	}
	return NameOf("MAIL", a), true
}

// Names gives the addresses in whose name a message speaks: the envelope's, and
// those of From and Sender. Where it was passed on, those of the newest block of
// Resent fields too: they say who does it, and From still says whose it is.
func Names(env relay.Envelope, f *message.Facts) []Name {
	var all []Name
	if n, ok := Sender(env.Sender); ok {
		all = append(all, n)
	}
	for _, is := range []struct {
		where string
		field *message.Mailboxes
	}{{"From", &f.Authors}, {"Sender", &f.Senders}, {"Resent-From", &f.ResentAuthors}, {"Resent-Sender", &f.ResentSender}} {
		for _, a := range is.field.List {
			all = append(all, NameOf(is.where, a))
		}
	}
	return all
}

// Standing is what an account has of an address.
type Standing struct {
	Domain *relay.Domain // its domain or the nearest above it that the account has asked for; nil: none
	Sender bool          // the address itself is verified
}

// Verified tells whether the account may send in that name.
func (s Standing) Verified() bool { return s.Sender || s.Domain != nil && !s.Domain.Verified.IsZero() }

// Own tells whether mail in the sandbox may go to an address of that standing.
// What speaks in a name that is not verified goes to single addresses only whose
// readers have said that they are the account's: others at its domains would
// take that name for true.
func Own(s Standing, named bool) bool { return s.Sender || named && s.Verified() }

// within refuses a name that the credential may not use.
func within(id *account.Identity, n Name) error {
	if len(id.Senders) == 0 {
		return nil
	}
	for _, s := range id.Senders {
		if s = strings.ToLower(s); n.Key != "" && (s == n.Key || s == n.Domain) {
			return nil
		}
	}
	text := fmt.Sprintf("This credential may not send as <%s>", n.Address)
	if n.Where != "MAIL" {
		text += ", as the " + n.Where + " field has it"
	}
	return refuse(relay.Forbidden, text+".", "Send as one of: "+strings.Join(id.Senders, ", ")+".")
}

// CheckSender tells whether an identity may use the envelope sender, as far as
// that is known before the content comes. Case does not count, nor how a domain
// beyond ASCII is written. The null sender may be used: its From is looked at.
func CheckSender(id *account.Identity, sender string) error {
	n, ok := Sender(sender)
	if !ok {
		return nil
	}
	return within(id, n)
}

// unverified gives the refusal for the first name that is not the account's, or
// nil.
func (c *Case) unverified() error {
	for _, n := range c.Names {
		if s := c.Standing[n.Key]; n.Key == "" || !s.Verified() {
			return strange(n, s, c.Rules.Sandbox > 0, n.Where == "From" && c.resentByOurs())
		}
	}
	return nil
}

// Unverified is the refusal of an envelope sender that is not the account's, or
// nil. Where there is a sandbox it does not concern the account's own addresses.
func Unverified(r Rules, n Name, s Standing) error {
	if r.Senders == relay.SendersAny || n.Key != "" && s.Verified() {
		return nil
	}
	return strange(n, s, r.Sandbox > 0, false)
}

// strange is the refusal of a name of that standing. resent: the message was
// passed on by somebody who may.
func strange(n Name, s Standing, sandbox, resent bool) error {
	where := "the " + n.Where + " field"
	if n.Where == "MAIL" {
		where = "the envelope sender"
	}
	until := ""
	if sandbox {
		until = " Until then mail goes to your own verified addresses only."
	}
	text := fmt.Sprintf("This account may not send as <%s> (%s)", n.Address, where)
	d := s.Domain
	switch {
	case n.Key == "":
		return refuse(relay.Unverified, text+": that is no address with a domain.", "Send in the name of an address at a verified domain.")
	case resent:
		return refuse(relay.Unverified, text+": who passes a message on may not keep another's name in From, whose domain would disown it (DMARC).",
			"Put your own address into From and the author's into Reply-To, or forward the message as an attachment.")
	case d == nil:
		return refuse(relay.Unverified, text+": "+n.Domain+" is not a domain of this account.",
			fmt.Sprintf("Add it with \"postrider domain add %s\" and publish the records that this gives, or verify the single address.", n.Domain)+until)
	case !d.Failing.IsZero():
		return refuse(relay.Unverified, fmt.Sprintf("%s: records of %s have been missing since %s.", text, d.Name, d.Failing.UTC().Format(time.DateOnly)),
			fmt.Sprintf("See \"postrider domain check %s\".", d.Name)+until)
	}
	return refuse(relay.Unverified, text+": the record that shows "+d.Name+" to be this account's is not seen yet.",
		fmt.Sprintf("See \"postrider domain check %s\".", d.Name)+until)
}

// resentByOurs tells whether the message was passed on by one of the account.
func (c *Case) resentByOurs() bool {
	for _, a := range c.Facts.ResentAuthors.List {
		if n := NameOf("Resent-From", a); n.Key != "" && c.Standing[n.Key].Verified() {
			return true
		}
	}
	return false
}

// records looks at the domains that the message speaks for in From: what is broken
// is warned of, or refused where the account wants that.
func (c *Case) records() (warnings []relay.Diagnosis, err error) {
	told := map[string]bool{}
	for _, n := range c.Names {
		d := c.Standing[n.Key].Domain
		if n.Where != "From" || d == nil || d.Verified.IsZero() || told[d.Name] {
			continue
		}
		told[d.Name] = true
		text := brokenRecords(d)
		if text == "" {
			continue
		}
		advice := fmt.Sprintf("See \"postrider domain check %s\".", d.Name)
		if c.Rules.DNS == relay.DNSRefuse {
			return nil, enhanced("5.7.26", refuse(relay.Forbidden, text, advice)) // RFC 7372 section 3.4: several checks fail
		}
		warnings = append(warnings, relay.Diagnosis{Category: "warning/dns", Text: text, Advice: advice})
	}
	return warnings, nil
}

// brokenRecords says which records of a domain are broken; empty: none.
func brokenRecords(d *relay.Domain) string {
	var bad []string
	for _, f := range d.Findings {
		if f.Status == relay.Bad {
			what := f.Check
			if f.Name != "" {
				what += " (" + f.Name + ")"
			}
			bad = append(bad, what)
		}
	}
	switch {
	case len(bad) > 0:
		return fmt.Sprintf("DNS records of %s are missing or wrong: %s. Receivers may refuse its mail.", d.Name, strings.Join(bad, ", "))
	case !d.Failing.IsZero():
		return fmt.Sprintf("DNS records of %s have been missing since %s. Receivers may refuse its mail.", d.Name, d.Failing.UTC().Format(time.DateOnly))
	}
	return ""
}
