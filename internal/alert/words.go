package alert

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"postrider/internal/message"
	"postrider/internal/relay"
)

func percent(p float64) string {
	decimals := 1
	if p < 1 {
		decimals = 2
	}
	s := strconv.FormatFloat(p, 'f', decimals, 64)
	return strings.TrimRight(strings.TrimRight(s, "0"), ".") + " %"
}

func span(d time.Duration) string {
	switch {
	case d == time.Hour:
		return "hour"
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d > time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d minutes", d/time.Minute)
}

type counted struct {
	name string
	n    int64
}

// top gives the most frequent ones.
func top(all map[string]int64, most int) []counted {
	var out []counted
	for name, n := range all {
		if name != "" {
			out = append(out, counted{name, n})
		}
	}
	slices.SortFunc(out, func(a, b counted) int {
		if a.n != b.n {
			return int(b.n - a.n)
		}
		return strings.Compare(a.name, b.name)
	})
	return out[:min(len(out), most)]
}

// words say what was seen and what to do, of a rate.
func (m *measure) words(at place, s share, window time.Duration) (title, text, advice string) {
	p, last := percent(s.percent()), "in the last "+span(window)
	switch m.kind {
	case relay.AlertBounces:
		return "Bounce rate of " + p,
			fmt.Sprintf("%d of %d messages bounced %s.", s.bad, s.all, last),
			"It is the sender's turn: stop mailing to addresses that do not exist, and find out where they come from (an old list, a form without a check). The log shows each of them; those that are certainly dead are suppressed by themselves. Receivers block senders that go on."
	case relay.AlertComplaints:
		return "Complaint rate of " + p,
			fmt.Sprintf("Recipients complained of %d of %d messages that were delivered %s.", s.bad, s.all, last),
			"It is the sender's turn: mail only to people who asked for it, let them unsubscribe with one click, and stop what they complained of. Gmail and Yahoo want less than 0.1 %, and block senders above 0.3 %."
	case relay.AlertDeferrals:
		return at.subject + " puts mail off",
			fmt.Sprintf("%d of %d attempts at %s were put off %s, %s.", s.bad, s.all, at.subject, last, p),
			"It is nobody's turn at first: the relay tries again by itself, more slowly. If it goes on, send less at once, and look at what the receiver says."
	default:
		return at.subject + " refuses mail",
			fmt.Sprintf("%d of %d messages for %s were refused %s for the sake of their sender or content, %s.", s.bad, s.all, at.subject, last, p),
			"Look at what the receiver says: it tells whether the content, the sender's authentication or the relay's address is meant."
	}
}

// example is the reply that was seen most, with how often.
type example struct {
	reply  *relay.SeenReply
	n, of  int
	domain string
	others int // more domains
}

// pick finds the reply that was seen most among those that fit. Replies that differ
// only in names and numbers are the same.
func pick(r *Replies, all []*relay.SeenReply) (example, bool) {
	groups := map[string][]*relay.SeenReply{}
	domains := map[string]int64{}
	total := 0
	for _, s := range all {
		if !r.fits(s) {
			continue
		}
		total++
		domains[s.Domain]++
		k := gist(s)
		groups[k] = append(groups[k], s)
	}
	if total == 0 {
		return example{}, false
	}
	best := ""
	for k, g := range groups {
		if b := groups[best]; len(g) > len(b) || len(g) == len(b) && k < best {
			best = k
		}
	}
	g := groups[best]
	return example{reply: g[0], n: len(g), of: total, domain: top(domains, 1)[0].name, others: len(domains) - 1}, true
}

// gist is a reply without what differs from message to message.
func gist(s *relay.SeenReply) string {
	words := strings.Fields(s.Reply.Text)
	kept := make([]string, 0, len(words))
	for _, w := range words {
		if !strings.ContainsAny(w, "0123456789@") {
			kept = append(kept, w)
		}
	}
	return fmt.Sprint(s.Reply.Code, s.Reply.Enhanced, strings.Join(kept, " "))
}

// illustrate adds the reply that was seen most, and what it means.
func illustrate(s *Seen, all []*relay.SeenReply) {
	if s.Replies == nil {
		return
	}
	e, ok := pick(s.Replies, all)
	if !ok {
		return
	}
	said := message.Clean(e.reply.Reply.String(), 300)
	where := e.domain
	if e.others > 0 {
		where = fmt.Sprintf("%s and %d other domains", e.domain, e.others)
	}
	s.Text += fmt.Sprintf(" Most seen, %d of the last %d, mostly for %s: %q.", e.n, e.of, where, said)
	if e.reply.Text != "" {
		s.Text += " " + e.reply.Text
	}
	if e.reply.Advice != "" && !strings.HasPrefix(e.reply.Advice, "Nothing") && s.Kind != relay.AlertBounces {
		s.Advice = e.reply.Advice + " " + s.Advice
	}
	s.Figures = append(s.Figures, relay.AlertFigure{Name: "reply", Value: said}, relay.AlertFigure{Name: "domain", Value: e.domain},
		relay.AlertFigure{Name: "example", Value: e.reply.Delivery.String()})
}
