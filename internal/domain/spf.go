package domain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"postrider/internal/relay"
)

// Bounds of SPF (RFC 7208 section 4.6.4): terms that ask the DNS, and answers
// without a record.
const (
	spfLookups = 10
	spfVoid    = 2
	// spfWalk is how many records the walk reads before it has seen enough.
	spfWalk = 30
)

// spfRecords are those of a name's TXT records that are SPF (section 4.5).
func spfRecords(txt []string) []string {
	var out []string
	for _, v := range txt {
		if rest, ok := cutFold(v, "v=spf1"); ok && (rest == "" || rest[0] == ' ') {
			out = append(out, v)
		}
	}
	return out
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// term is one mechanism or modifier of an SPF record.
type term struct {
	qualifier byte // '+', '-', '~', '?'; 0 for a modifier
	name      string
	value     string // behind ":" or "=", with a prefix length
}

func terms(record string) []term {
	var out []term
	for i, word := range strings.Fields(record) {
		if i == 0 {
			continue // the version
		}
		t := term{qualifier: '+'}
		if strings.IndexByte("+-~?", word[0]) >= 0 {
			t.qualifier, word = word[0], word[1:]
		}
		end := strings.IndexAny(word, ":=/")
		if end < 0 {
			end = len(word)
		}
		t.name, t.value = strings.ToLower(word[:end]), word[end:]
		if strings.HasPrefix(t.value, "=") {
			t.qualifier = 0
		}
		t.value = strings.TrimPrefix(strings.TrimPrefix(t.value, ":"), "=")
		out = append(out, t)
	}
	return out
}

// target is the name that an include or redirect leads to, or nothing where it
// is made of macros.
func (t term) target() string {
	if t.name != "include" && t.name != "redirect" || strings.Contains(t.value, "%") {
		return ""
	}
	return strings.ToLower(strings.TrimSuffix(t.value, "."))
}

// spfWalked is what a walk over a record and all that it includes found.
type spfWalked struct {
	lookups  int
	void     int
	includes []string // targets, at any depth
	networks []netip.Prefix
	hosts    []string // of "a" with a name
	broken   []string // what makes receivers give up on the record
	failed   error    // an answer that is missing
	missing  []Question
	loop     bool
}

// walkSPF counts what the record of a domain costs (RFC 7208 section 4.6.4). It
// asks nothing: questions without an answer are in missing.
func walkSPF(domain, record string, a Answers) spfWalked {
	var w spfWalked
	w.walk(record, a, []string{domain})
	return w
}

func (w *spfWalked) walk(record string, a Answers, path []string) {
	all := terms(record)
	hasAll := slices.ContainsFunc(all, func(t term) bool { return t.name == "all" })
	for _, t := range all {
		switch t.name {
		case "a", "mx", "ptr", "exists", "include":
			w.lookups++
		case "redirect":
			if hasAll {
				continue // it is ignored then (section 6.1)
			}
			w.lookups++
		case "ip4", "ip6":
			if p, err := prefix(t.value); err != nil {
				w.broken = append(w.broken, fmt.Sprintf("%s:%.60s is no network", t.name, t.value))
			} else if t.qualifier == '+' {
				w.networks = append(w.networks, p)
			}
		case "all", "exp":
		default:
			if t.qualifier != 0 { // unknown modifiers are ignored (section 6)
				w.broken = append(w.broken, fmt.Sprintf("%.60q is no mechanism", t.name))
			}
		}
		if name, _, _ := strings.Cut(t.value, "/"); t.name == "a" && t.qualifier == '+' && name != "" {
			w.hosts = append(w.hosts, strings.ToLower(strings.TrimSuffix(name, ".")))
		}
		if target := t.target(); target != "" {
			w.follow(target, a, path)
		}
	}
}

func (w *spfWalked) follow(target string, a Answers, path []string) {
	w.includes = append(w.includes, target)
	if slices.Contains(path, target) {
		w.loop = true
		return
	}
	if len(w.includes) > spfWalk {
		return // too many in any case
	}
	got, asked := a[Question{target, "TXT"}]
	if !asked {
		w.missing = append(w.missing, Question{target, "TXT"})
		return
	}
	if got.Err != nil {
		w.failed = fmt.Errorf("%s: %w", target, got.Err)
		return
	}
	if len(got.Values) == 0 {
		w.void++
	}
	switch records := spfRecords(got.Values); len(records) {
	case 0:
		w.broken = append(w.broken, target+" has no SPF record")
	case 1:
		w.walk(records[0], a, append(slices.Clone(path), target))
	default:
		w.broken = append(w.broken, target+" has more than one SPF record")
	}
}

func prefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

// allows tells whether the record lets the relay send.
func (w spfWalked) allows(s Service) bool {
	if slices.Contains(w.includes, s.SPFInclude) || slices.Contains(w.hosts, s.Hostname) {
		return true
	}
	covered := func(a netip.Addr) bool {
		return slices.ContainsFunc(w.networks, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return len(s.Addrs) > 0 && !slices.ContainsFunc(s.Addrs, func(a netip.Addr) bool { return !covered(a) })
}

// MergeSPF makes one record of those that there are and of one that includes the
// relay. A domain must never have two (RFC 7208 section 3.2). What the records
// say of others stays; where they end differently, the milder end wins.
func MergeSPF(records []string, include string) string {
	var words []string
	end := ""
	redirect := ""
	add := func(word string) {
		if !slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, word) }) {
			words = append(words, word)
		}
	}
	for _, r := range records {
		var target string
		var all bool
		for i, word := range strings.Fields(r) {
			name := strings.ToLower(strings.TrimLeft(word, "+-~?"))
			switch {
			case i == 0:
			case name == "all":
				all = true
				end = milder(end, word)
			case strings.HasPrefix(name, "redirect="):
				target = word[len("redirect="):]
			default:
				add(word)
			}
		}
		switch {
		case target == "" || all: // it counts for nothing beside "all"
		case len(records) == 1:
			redirect = target
		default:
			add("include:" + target)
		}
	}
	// In front, so that it counts whatever the others deny.
	if include = "include:" + include; !slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, include) }) {
		words = append([]string{include}, words...)
	}
	switch {
	case redirect != "":
		words = append(words, "redirect="+redirect)
	case end == "":
		words = append(words, "~all")
	default:
		words = append(words, end)
	}
	return "v=spf1 " + strings.Join(words, " ")
}

// milder is the end that denies less; one that allows everybody is not kept
// beside another.
func milder(a, b string) string {
	rank := func(s string) int { return strings.Index("-~?+", s[:1]) }
	if b = strings.ToLower(b); b == "all" {
		b = "+all"
	}
	switch {
	case a == "" || a == "+all":
		return b
	case b == "+all" || rank(a) >= rank(b):
		return a
	}
	return b
}

// spfProposal is the record to publish, and why.
func spfProposal(domain string, s Service, a Answers) (value, note string) {
	records := spfRecords(a.get(domain, "TXT").Values)
	switch {
	case len(records) == 0:
		return MergeSPF(nil, s.SPFInclude), "Add what else sends for the domain. Only one SPF record may stand here; one that comes later is put into this."
	case len(records) > 1:
		return MergeSPF(records, s.SPFInclude), "There are several SPF records, so that none counts. Replace them all by this one."
	case walkSPF(domain, records[0], a).allows(s):
		return records[0], "It is there, and lets this relay send."
	}
	return MergeSPF(records, s.SPFInclude), "Change the record that is there; never publish a second one."
}

// judgeSPF judges the domain's own record. Mail that leaves with the return path
// of the domain doesn't need it: aligned says so.
func judgeSPF(d *relay.Domain, s Service, a Answers, aligned bool) relay.Finding {
	f := relay.Finding{Check: SPF, Name: d.Name, Type: "TXT"}
	got := a.get(d.Name, "TXT")
	if got.Err != nil {
		return unknown(f, got.Err)
	}
	records := spfRecords(got.Values)
	f.Found = shown(records)
	proposal, _ := spfProposal(d.Name, s, a)
	f.Expected = []string{proposal}
	aside := ""
	if aligned {
		aside = " Mail of this relay passes SPF by its return path all the same."
	}
	if len(records) == 0 {
		f.Status, f.Text = relay.Warning, "There is no SPF record."+aside
		f.Advice = "Publish the record that is expected."
		return f
	}
	if len(records) > 1 {
		f.Status = relay.Bad
		f.Text = fmt.Sprintf("There are %d SPF records. Receivers take that for a permanent error, and none of them counts (RFC 7208 section 4.5).", len(records))
		f.Advice = "Replace them all by the one that is expected."
		return f
	}
	w := walkSPF(d.Name, records[0], a)
	if slices.ContainsFunc(terms(records[0]), func(t term) bool { return t.name == "all" && t.qualifier == '+' }) {
		w.broken = append(w.broken, "it ends in +all, which lets everybody send in the domain's name")
	}
	return judgeWalk(f, w, s, aside)
}

func judgeWalk(f relay.Finding, w spfWalked, s Service, aside string) relay.Finding {
	f.Status, f.Text = relay.Good, fmt.Sprintf("The SPF record lets this relay send, and needs %d of the %d look-ups that there may be.", w.lookups, spfLookups)
	switch {
	case w.loop:
		f.Status, f.Text = relay.Bad, "The SPF record includes itself, so that it never counts."
		f.Advice = "Take out the include that leads back to it."
	case w.lookups > spfLookups:
		f.Status = relay.Bad
		f.Text = fmt.Sprintf("The SPF record needs %d look-ups with all that it includes; receivers give up after %d (RFC 7208 section 4.6.4), and it counts for nothing.", w.lookups, spfLookups)
		f.Advice = "Take out what no longer sends for the domain, or put ip4: and ip6: in the place of some includes." + aside
	case w.void > spfVoid || len(w.broken) > 0:
		f.Status = relay.Bad
		f.Text = "The SPF record is broken: " + strings.Join(shown(w.broken), "; ") + "."
		f.Advice = "Correct or take out what is named."
	case w.failed != nil:
		f.Status, f.Text = relay.Unknown, "A part of the SPF record could not be looked up: "+w.failed.Error()+"."
	case !w.allows(s):
		f.Status, f.Text = relay.Warning, "The SPF record does not name this relay."+aside
		f.Advice = "Change the record to the one that is expected; never publish a second one."
		if n := w.lookups + 1; n > spfLookups {
			f.Advice += fmt.Sprintf(" It would need %d look-ups then, and only %d may be: take out what no longer sends, or rely on the return path alone.", n, spfLookups)
		}
		return f
	}
	if f.Status == relay.Good {
		f.Expected = nil
	}
	return f
}
