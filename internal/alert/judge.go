package alert

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// Counts are what was recent, by the span that it was counted over.
type Counts map[time.Duration][]*relay.Recent

// calmBelow is which part of the threshold a rate must fall below before an
// incident is over, so that one that wavers about it does not end and begin.
const calmBelow = 0.8

// hasClass tells whether a category is of a kind ("block/…") or a category ("…/x").
func hasClass(category, class string) bool {
	return class == "" || strings.HasPrefix(category, class+"/") || strings.HasSuffix(category, "/"+class)
}

func blocked(n *relay.Recent) bool { return hasClass(n.Category, "block") }

// share is a part of a whole that is counted.
type share struct {
	bad, all int64
	rest     map[string]int64 // bad by something, for people
}

func (s share) percent() float64 {
	if s.all == 0 {
		return 0
	}
	return 100 * float64(s.bad) / float64(s.all)
}

// level judges a share by a rule: 1 and 2 are a warning and grave, 0 is neither
// well nor wrong, -1 is well. Fewer than fewest are chance, whatever the share.
func (s share) level(r relay.AlertRule, fewest int64) int {
	p := s.percent()
	switch {
	case s.all >= r.Least && s.bad >= fewest && p >= r.Critical:
		return 2
	case s.all >= r.Least && s.bad >= fewest && p >= r.Warning:
		return 1
	case 2*s.all >= r.Least && s.bad > 0 && p >= calmBelow*r.Warning:
		return 0
	}
	return -1
}

func severity(level int) relay.Severity {
	if level > 1 {
		return relay.SeverityCritical
	}
	return relay.SeverityWarning
}

// measure is how one kind of rate is counted.
type measure struct {
	kind       relay.AlertKind
	byProvider bool
	fewest     int64
	all, bad   func(*relay.Recent) bool
	of         func(*relay.Recent) string // what bad ones are shown by
	class      string                     // of replies that are examples
	not        []string                   // classes of replies that are none
	kinds      [2]relay.Kind
}

func oneOf(k relay.Kind, kinds ...relay.Kind) bool { return slices.Contains(kinds, k) }

func measures() []measure {
	provider := func(n *relay.Recent) string { return providerName(n.Provider) }
	category := func(n *relay.Recent) string { return n.Category }
	ends := func(n *relay.Recent) bool {
		return oneOf(n.Kind, relay.EventDelivered, relay.EventBounced, relay.EventExpired)
	}
	return []measure{
		{kind: relay.AlertBounces, fewest: 3, all: ends, of: category, not: []string{"block"}, kinds: [2]relay.Kind{relay.EventBounced, relay.EventExpired},
			// What is refused for the sender's or the content's sake is another matter.
			bad: func(n *relay.Recent) bool {
				return oneOf(n.Kind, relay.EventBounced, relay.EventExpired) && !blocked(n)
			}},
		{kind: relay.AlertComplaints, fewest: 2, of: provider, kinds: [2]relay.Kind{relay.EventComplained, relay.EventComplained},
			all: func(n *relay.Recent) bool { return n.Kind == relay.EventDelivered },
			bad: func(n *relay.Recent) bool { return n.Kind == relay.EventComplained }},
		{kind: relay.AlertDeferrals, byProvider: true, fewest: 5, of: category, not: []string{"block", "greylisted"}, kinds: [2]relay.Kind{relay.EventDeferred, relay.EventDeferred},
			all: func(n *relay.Recent) bool { return !blocked(n) && (ends(n) || n.Kind == relay.EventDeferred) },
			// Greylisting is the usual way of some, and a block has an alert of its own.
			bad: func(n *relay.Recent) bool {
				return n.Kind == relay.EventDeferred && !blocked(n) && !hasClass(n.Category, "greylisted")
			}},
		{kind: relay.AlertBlock, byProvider: true, fewest: 3, of: category, class: "block", kinds: [2]relay.Kind{relay.EventBounced, relay.EventDeferred},
			all: func(n *relay.Recent) bool { return ends(n) || n.Kind == relay.EventDeferred && blocked(n) },
			bad: func(n *relay.Recent) bool {
				return oneOf(n.Kind, relay.EventBounced, relay.EventDeferred, relay.EventExpired) && blocked(n)
			}},
	}
}

// Others is the subject of what concerns receivers whose provider is not known.
const Others = "other receivers"

func providerName(p string) string {
	if p == "" {
		return Others
	}
	return p
}

// Rates finds what is wrong with shares of accounts' mail. rules gives those of an
// account.
func Rates(counts Counts, rules func(account relay.ID) Rules) []Seen {
	var found []Seen
	for _, m := range measures() {
		found = append(found, m.judge(counts, func(account relay.ID) relay.AlertRule { return rules(account)[m.kind] })...)
	}
	return found
}

type place struct {
	account relay.ID
	subject string
}

// judge looks at every account, and provider, over the windows of its rule; the
// gravest is told.
func (m *measure) judge(counts Counts, rule func(relay.ID) relay.AlertRule) []Seen {
	worst := map[place]Seen{}
	for _, window := range Windows() {
		for at, s := range m.shares(counts[window]) {
			r := rule(at.account)
			if r.Off || r.Warning <= 0 || !slices.Contains(r.Windows, window) {
				continue
			}
			level := s.level(r, m.fewest)
			if before, known := worst[at]; level < 0 || known && before.Level >= level {
				continue
			}
			worst[at] = m.seen(at, s, r, window, level)
		}
	}
	return sorted(worst)
}

func sorted(all map[place]Seen) []Seen {
	var found []Seen
	for _, s := range all {
		found = append(found, s)
	}
	slices.SortFunc(found, func(a, b Seen) int {
		if c := a.Account.Compare(b.Account); c != 0 {
			return c
		}
		return strings.Compare(a.Subject, b.Subject)
	})
	return found
}

func (m *measure) shares(counts []*relay.Recent) map[place]share {
	all := map[place]share{}
	for _, n := range counts {
		at := place{account: n.Account}
		if m.byProvider {
			at.subject = providerName(n.Provider)
		}
		s := all[at]
		if m.all(n) {
			s.all += n.N
		}
		if m.bad(n) {
			s.bad += n.N
			if s.rest == nil {
				s.rest = map[string]int64{}
			}
			s.rest[m.of(n)] += n.N
		}
		all[at] = s
	}
	return all
}

func (m *measure) seen(at place, s share, r relay.AlertRule, window time.Duration, level int) Seen {
	threshold := r.Warning
	if level > 1 {
		threshold = r.Critical
	}
	out := Seen{Account: at.account, Kind: m.kind, Subject: at.subject, Level: level, Severity: severity(level),
		Figures: []relay.AlertFigure{{Name: "share", Value: percent(s.percent())}, {Name: "threshold", Value: percent(threshold)},
			{Name: "counted", Value: fmt.Sprintf("%d of %d", s.bad, s.all)}, {Name: "period", Value: "the last " + span(window)}},
		Replies: &Replies{Kinds: m.kinds, Any: !m.byProvider, Class: m.class, Not: m.not, Window: window}}
	if at.subject != Others {
		out.Replies.Provider = at.subject
	}
	for _, most := range top(s.rest, 3) {
		out.Figures = append(out.Figures, relay.AlertFigure{Name: most.name, Value: fmt.Sprint(most.n)})
	}
	out.Title, out.Text, out.Advice = m.words(at, s, window)
	return out
}

// Wide finds what is wrong at a provider with the mail of several accounts: then it
// is the relay's affair as much as theirs. And it finds that receivers say of the
// relay's addresses that a list has them.
func Wide(counts Counts, rules Rules) []Seen {
	var found []Seen
	for _, m := range measures() {
		if !m.byProvider {
			continue
		}
		together := Counts{}
		for window, all := range counts {
			together[window] = merged(all, m.bad)
		}
		for _, s := range m.judge(together, func(relay.ID) relay.AlertRule { return rules[m.kind] }) {
			s.Title += ", of several accounts"
			found = append(found, s)
		}
	}
	if r := rules[relay.AlertBlocklist]; !r.Off {
		found = append(found, listings(counts[time.Hour])...)
	}
	return found
}

// merged makes the counts of everybody of those of providers where at least two
// accounts have bad ones.
func merged(counts []*relay.Recent, bad func(*relay.Recent) bool) []*relay.Recent {
	accounts := map[string]map[relay.ID]bool{}
	for _, n := range counts {
		if bad(n) {
			if accounts[n.Provider] == nil {
				accounts[n.Provider] = map[relay.ID]bool{}
			}
			accounts[n.Provider][n.Account] = true
		}
	}
	var out []*relay.Recent
	for _, n := range counts {
		if len(accounts[n.Provider]) > 1 {
			c := *n
			c.Account = relay.Everyone
			out = append(out, &c)
		}
	}
	return out
}

// fewestListings is how many receivers must say so within an hour.
const fewestListings = 3

func listings(counts []*relay.Recent) []Seen {
	said := map[string]int64{}
	for _, n := range counts {
		if hasClass(n.Category, "address-listed") && oneOf(n.Kind, relay.EventBounced, relay.EventDeferred, relay.EventExpired) {
			said[providerName(n.Provider)] += n.N
		}
	}
	all := map[place]Seen{}
	for provider, n := range said {
		if n < fewestListings {
			continue
		}
		s := Seen{Account: relay.Everyone, Kind: relay.AlertBlocklist, Subject: "replies of " + provider, Level: 2, Severity: relay.SeverityCritical,
			Title:   "Replies of " + provider + " say that an address of the relay is on a blocklist",
			Text:    fmt.Sprintf("In the last hour %d replies of %s refused mail because a list has the relay's address.", n, provider),
			Advice:  "It is the operator's turn: the reply mostly names the list. Find out what was sent and stop it, then ask the list to take the address out.",
			Figures: []relay.AlertFigure{{Name: "replies", Value: fmt.Sprint(n)}, {Name: "period", Value: "the last hour"}},
			Replies: &Replies{Kinds: [2]relay.Kind{relay.EventBounced, relay.EventDeferred}, Class: "address-listed", Window: time.Hour}}
		if provider != Others {
			s.Replies.Provider = provider
		}
		all[place{relay.Everyone, s.Subject}] = s
	}
	return sorted(all)
}
