package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postrider/internal/dns"
	"postrider/internal/relay"
)

// absent tells that the DNS said that there is nothing, and so was not silent.
func absent(err error) bool {
	var e *dns.Error
	return errors.As(err, &e) && e.Kind != dns.Temporary
}

func texts(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return out
}

// hostname looks at the name that the relay says in EHLO (RFC 5321 section
// 4.1.4), and whether it leads to where mail comes from.
func (d *Doctor) hostname(ctx context.Context) []relay.Finding {
	c := d.config
	f := relay.Finding{Check: "helo", Name: c.Hostname, Type: "A"}
	set := "Set hostname to a name of a domain of yours, and publish its address."
	if !strings.Contains(c.Hostname, ".") || strings.HasSuffix(c.Hostname, ".local") || strings.HasSuffix(c.Hostname, ".localdomain") {
		f.Status, f.Text, f.Advice = relay.Bad, fmt.Sprintf("The relay calls itself %q in EHLO, which is no public name; many receivers refuse that.", c.Hostname), set
		if c.Smarthost {
			f.Status, f.Text = relay.Warning, fmt.Sprintf("The relay calls itself %q, which is no public name.", c.Hostname)
		}
		return []relay.Finding{f}
	}
	d.dns.Forget(c.Hostname)
	found, err := d.dns.Addrs(ctx, c.Hostname)
	f.Found, f.Expected = texts(found), texts(c.Addrs)
	switch {
	case absent(err):
		f.Status, f.Text, f.Advice = relay.Bad, "The name that the relay says in EHLO leads nowhere: "+err.Error(), set
	case err != nil:
		f.Status, f.Text = relay.Unknown, err.Error()
	case !slices.ContainsFunc(found, public):
		f.Status, f.Text, f.Advice = relay.Warning, "The host name leads to private addresses only. Receivers see another one.", "Publish the public address, and name it in [service] addresses."
	default:
		f.Status, f.Text = relay.Good, "The name that the relay says in EHLO leads to it."
		for _, a := range c.Addrs {
			if !slices.Contains(found, a) {
				f.Status, f.Text = relay.Warning, "Mail leaves from "+a.String()+" too, which the host name does not lead to."
				f.Advice = "Add that address to the name, or let mail leave from its addresses only (delivery.source)."
			}
		}
	}
	if f.Status == relay.Good {
		f.Expected = nil
	}
	return []relay.Finding{f}
}

// reverse looks at the names of the addresses that mail leaves from. Large
// receivers refuse those without one that leads back (RFC 1912 section 2.1).
func (d *Doctor) reverse(ctx context.Context) []relay.Finding {
	if d.config.Smarthost {
		return nil
	}
	addrs, known := d.addrs(ctx)
	if !known {
		return []relay.Finding{{Check: "ptr", Status: relay.Unknown, Text: "It is not known which address receivers see.",
			Advice: "Publish the address of the host name, or name it in [service] addresses."}}
	}
	var out []relay.Finding
	for _, a := range addrs {
		out = append(out, d.ptr(ctx, a))
	}
	return out
}

func (d *Doctor) ptr(ctx context.Context, a netip.Addr) relay.Finding {
	f := relay.Finding{Check: "ptr", Name: a.String(), Type: "PTR", Expected: []string{d.config.Hostname}}
	ask := "Whoever gave you the address sets its reverse name, mostly in the panel of the server: to " + d.config.Hostname + "."
	names, err := d.dns.PTR(ctx, a)
	f.Found = names[:min(len(names), 5)]
	switch {
	case absent(err) || err == nil && len(names) == 0:
		f.Status, f.Text, f.Advice = relay.Bad, "The address has no reverse name; large receivers refuse mail from it.", ask
		return f
	case err != nil:
		f.Status, f.Text = relay.Unknown, err.Error()
		return f
	}
	var back []string
	unsure := false
	for _, n := range f.Found {
		d.dns.Forget(n)
		addrs, err := d.dns.Addrs(ctx, n)
		unsure = unsure || err != nil && !absent(err)
		if slices.Contains(addrs, a) {
			back = append(back, n)
		}
	}
	own := slices.ContainsFunc(back, func(n string) bool { return strings.EqualFold(n, d.config.Hostname) })
	switch {
	case own && len(names) == 1:
		f.Status, f.Text, f.Expected = relay.Good, "The address has the relay's name, and that leads back to it.", nil
	case own:
		f.Status, f.Text, f.Advice = relay.Warning, fmt.Sprintf("The address has %d reverse names.", len(names)), "Leave "+d.config.Hostname+" alone."
	case len(back) > 0 && generic(back[0], a):
		f.Status, f.Text, f.Advice = relay.Bad, "The reverse name looks like that of a dial-up line; many receivers refuse such addresses.", ask
	case len(back) > 0:
		f.Status, f.Text, f.Advice = relay.Warning, "The reverse name leads back to the address, but is not the one that the relay says in EHLO.", ask
	case unsure:
		f.Status, f.Text = relay.Unknown, "The reverse name could not be looked up."
	default:
		f.Status, f.Text, f.Advice = relay.Bad, "The reverse name does not lead back to the address; large receivers refuse mail from it.", ask
	}
	return f
}

// generic tells whether a name was made of an address.
func generic(name string, a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	parts := strings.Split(a.String(), ".")
	forward, back := strings.Join(parts, "-"), parts[3]+"-"+parts[2]+"-"+parts[1]+"-"+parts[0]
	flat := strings.NewReplacer(".", "-", "_", "-").Replace(name)
	return strings.Contains(flat, forward) || strings.Contains(flat, back)
}

// Blocklists asks the lists for each address that mail leaves from, within a
// minute.
func (d *Doctor) Blocklists(ctx context.Context) []relay.Finding {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return d.blocklists(ctx)
}

// blocklists asks the lists for each address that mail leaves from (RFC 5782).
func (d *Doctor) blocklists(ctx context.Context) []relay.Finding {
	addrs, known := d.addrs(ctx)
	if len(d.config.Blocklists) == 0 || d.config.Smarthost || !known {
		return nil
	}
	var out []relay.Finding
	for _, zone := range d.config.Blocklists {
		if why := d.useless(ctx, zone, addrs); why != "" {
			out = append(out, relay.Finding{Check: "blocklist", Name: zone, Status: relay.Unknown, Text: why})
			continue
		}
		for _, a := range addrs {
			out = append(out, d.listed(ctx, zone, a))
		}
	}
	return out
}

// useless says why a list can't be asked: its test points (RFC 5782 section 5)
// are not as they should be, as with a list that was given up and lists all the
// world, or one that does not answer our resolver.
func (d *Doctor) useless(ctx context.Context, zone string, addrs []netip.Addr) string {
	listed, err := d.codes(ctx, netip.MustParseAddr("127.0.0.1"), zone)
	if err == nil && len(listed) > 0 && !refused(listed) {
		return "The list lists everybody: it has been given up, or somebody answers in its place."
	}
	listed, err = d.codes(ctx, netip.MustParseAddr("127.0.0.2"), zone)
	switch {
	case refused(listed):
		return "The list refuses questions from this resolver, mostly because it is a public one or asks much (" + strings.Join(texts(listed), ", ") + ")."
	case err != nil:
		return "The list does not answer: " + err.Error()
	case len(listed) == 0 && slices.ContainsFunc(addrs, netip.Addr.Is4):
		return "The list does not know its own test entry: it has been given up, or this resolver gets no answers from it."
	}
	return ""
}

func (d *Doctor) listed(ctx context.Context, zone string, a netip.Addr) relay.Finding {
	f := relay.Finding{Check: "blocklist", Name: zone, Type: "A"}
	listed, err := d.codes(ctx, a, zone)
	switch {
	case err != nil:
		f.Status, f.Text = relay.Unknown, err.Error()
	case len(listed) == 0:
		f.Status, f.Text = relay.Good, a.String()+" is not listed."
	case refused(listed):
		f.Status, f.Text, f.Found = relay.Unknown, "The list refuses questions from this resolver.", texts(listed)
	case slices.ContainsFunc(listed, func(c netip.Addr) bool { return !c.IsLoopback() }):
		f.Status, f.Text, f.Found = relay.Unknown, "The answer is not one of a blocklist: somebody answers in its place.", texts(listed)
	default:
		f.Status, f.Text, f.Found = relay.Bad, a.String()+" is listed.", texts(listed)
		if why, err := d.dns.TXT(ctx, question(a, zone)); err == nil && len(why) > 0 {
			f.Found = append(f.Found, clip(why[0]))
		}
		f.Advice = "Find out what was sent and stop it, then ask the list to take the address out: https://" + zone + " mostly tells how."
	}
	return f
}

// refused tells the answers that mean "your question was refused":
// 127.255.255.0/24.
func refused(codes []netip.Addr) bool {
	return slices.ContainsFunc(codes, func(c netip.Addr) bool { return refusals.Contains(c) })
}

var refusals = netip.MustParsePrefix("127.255.255.0/24")

func (d *Doctor) codes(ctx context.Context, a netip.Addr, zone string) ([]netip.Addr, error) {
	name := question(a, zone)
	d.dns.Forget(name)
	found, err := d.dns.Addrs(ctx, name)
	if absent(err) {
		return nil, nil
	}
	return slices.DeleteFunc(found, func(c netip.Addr) bool { return !c.Is4() }), err
}

// question is the name that a list is asked for (RFC 5782 sections 2.1 and 2.4).
func question(a netip.Addr, zone string) string {
	var b strings.Builder
	if a.Is4() {
		v := a.As4()
		fmt.Fprintf(&b, "%d.%d.%d.%d.", v[3], v[2], v[1], v[0])
	} else {
		v := a.As16()
		for i := 15; i >= 0; i-- {
			fmt.Fprintf(&b, "%x.%x.", v[i]&15, v[i]>>4)
		}
	}
	return b.String() + zone
}

// clip keeps what others said short, and from playing with the terminal.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200]) + "…"
	}
	return s
}
