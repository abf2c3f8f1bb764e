// Package reputation says how good a sender is, from 0 to 100, of what became of its
// mail: pure, of counts and a time. What is old counts less and less, what is little
// says little, and every point that is missing has its reason.
package reputation

import (
	"math"
	"slices"
	"time"

	"postrider/internal/relay"
)

// Day is what became of a sender's mail on one day.
type Day struct {
	Start     time.Time
	Delivered float64 // that receivers took, and that did not bounce later
	Failed    float64 // bounced or expired
	Engaged   float64 // deliveries that a person opened or followed a link of
	Faults    [faults]float64
}

// Fault is a way in which mail speaks against its sender.
type Fault int

const (
	Complaint  Fault = iota // somebody called it spam
	Malware                 // a receiver took it for phishing or a virus
	Spam                    // refused as spam, or for what it says
	Reputation              // refused for the reputation of the sender or its address
	Nobody                  // there is no such mailbox, or no such domain
	Unsigned                // SPF, DKIM or DMARC failed
	Policy                  // refused by other rules of the receiver
	faults     = iota
)

// weights say which part of the mail with a fault halves the score, and what is told
// of it. They are those parts from which on the large receivers, and hosted services,
// act against a sender.
var weights = [faults]struct {
	half         float64
	name         string
	text, advice string
}{
	Complaint: {0.003, "complaints", "Recipients called mail spam.",
		"Send only to who asked for it, make it easy to unsubscribe, and stop sending to who complained."},
	Malware: {0.005, "phishing-or-virus", "Receivers took mail for phishing or found a virus in it.",
		"Look at once whether somebody else sends with these credentials, and what the links in the mail lead to."},
	Spam: {0.05, "content-or-spam", "Receivers refused mail as spam.",
		"Compare what was refused with what was not: its text, its links, whom it went to."},
	Reputation: {0.05, "sender-reputation", "Receivers refused mail because of who sent it, or from where.",
		"Send less for some days, to those who read it, and see whether an address is on a block list."},
	Nobody: {0.08, "no-such-mailbox", "Mail went to addresses that do not exist.",
		"Clean the list: take off who bounced, and confirm addresses before they are used."},
	Unsigned: {0.2, "authentication-failed", "Receivers could not verify who sent it (SPF, DKIM or DMARC).",
		"Check the records of the domain: \"postrider domain check\" says what is missing."},
	Policy: {0.2, "policy", "Receivers refused mail by rules of their own.",
		"Read their replies: they name the rule."},
}

const (
	// first is how many faults count a full half of the score where there is hardly
	// any mail: with less than that nobody can tell bad luck from a bad sender.
	first = 4
	// trial is how much mail makes a sender known, and unknown how many halves the
	// score of one is away from 100 that nobody knows: 75 points.
	trial   = 100
	unknown = 0.415
	// lively is the part of mail that people open or follow from which on it helps in
	// full, and help how much of what is missing that makes up for.
	lively = 0.2
	help   = 0.3
)

// Reason is what pulls a score down, or up.
type Reason struct {
	Name   string  // "complaints", …
	Points float64 // less than zero: pulls down
	Count  float64 // how often, as it counts today
	Rate   float64 // of the mail
	Text   string
	Advice string
}

// Score is how good a sender is.
type Score struct {
	Value     float64  // from 0 to 100
	Low, High float64  // between which it is, as far as so much mail can tell
	Mail      float64  // deliveries that it rests on, as they count today
	Reasons   []Reason // the weightiest first
}

// Of is the score at a time. Days after it are left out; halfLife is the age at which
// a day counts half.
func Of(days []Day, at time.Time, halfLife time.Duration) Score {
	var mail, engaged float64
	var counts [faults]float64
	for _, d := range days {
		if d.Start.After(at) {
			continue
		}
		age := max(at.Sub(d.Start.Add(24*time.Hour)), 0)
		w := math.Exp2(-float64(age) / float64(halfLife))
		mail += w * (d.Delivered + d.Failed)
		engaged += w * d.Engaged
		for i, n := range d.Faults {
			counts[i] += w * n
		}
	}
	s := Score{Mail: mail}
	// How many times the score is halved: by what nobody knows, and by each fault.
	news := unknown * trial / (mail + trial)
	total, variance := news, news*news/4
	var halves [faults]float64
	for i, n := range counts {
		of := weights[i].half*mail + first
		halves[i] = n / of
		total += halves[i]
		variance += n / (of * of)
	}
	// Even where nothing was seen so far, one more of the worst may come.
	worst := weights[Complaint].half*mail + first
	variance += 1 / (worst * worst)
	lift := 0.0
	if mail > 0 {
		lift = help * min(engaged/mail/lively, 1) * mail / (mail + trial)
	}
	value := func(halves float64) float64 { return 100 * math.Exp2(-max(halves, 0)*(1-lift)) }
	spread := math.Sqrt(variance)
	s.Value, s.Low, s.High = value(total), value(total+spread), value(total-spread)
	s.explain(total, news, halves, counts, 100*math.Exp2(-total))
	return s
}

// explain shares out what is missing among the reasons for it. without is the score
// that there would be if nobody had opened anything.
func (s *Score) explain(total, news float64, halves, counts [faults]float64, without float64) {
	missing := 100 - without
	share := func(part float64) float64 {
		if total == 0 {
			return 0
		}
		return -missing * part / total
	}
	const little = 0.05 // points that nobody need read of
	if p := share(news); p < -little {
		s.Reasons = append(s.Reasons, Reason{Name: "little-mail", Points: p, Count: s.Mail, Text: "There was little mail lately to judge it by.",
			Advice: "Nothing is wrong with that: it rises with each mail that is delivered."})
	}
	for i, n := range counts {
		if p := share(halves[i]); p < -little {
			r := Reason{Name: weights[i].name, Points: p, Count: n, Text: weights[i].text, Advice: weights[i].advice}
			if s.Mail > 0 {
				r.Rate = n / s.Mail
			}
			s.Reasons = append(s.Reasons, r)
		}
	}
	slices.SortStableFunc(s.Reasons, func(a, b Reason) int {
		switch {
		case a.Points < b.Points:
			return -1
		case a.Points > b.Points:
			return 1
		}
		return 0
	})
	if up := s.Value - without; up > little {
		s.Reasons = append(s.Reasons, Reason{Name: "engagement", Points: up, Text: "People open this mail, or follow its links."})
	}
}

// retried is how much a refusal counts that is not final: it is said again and again
// of one mail.
const retried = 0.1

// Add counts what became of mail. The count tells categories apart.
func (d *Day) Add(c *relay.Count) {
	n := float64(c.N)
	switch c.Kind {
	case relay.EventDelivered:
		d.Delivered += n
	case relay.EventBounced, relay.EventExpired:
		if c.Mark&relay.MarkLate != 0 {
			d.Delivered -= n
		}
		d.Failed += n
		if f, is := faultOf(c.Category); is {
			d.Faults[f] += n
		}
	case relay.EventDeferred:
		if f, is := faultOf(c.Category); is && (f == Spam || f == Reputation || f == Malware) {
			d.Faults[f] += retried * n
		}
	case relay.EventComplained:
		if c.Mark&relay.MarkFirst != 0 {
			d.Faults[Complaint] += n
		}
	case relay.EventOpened:
		if c.Mark&relay.MarkPerson != 0 {
			d.Engaged += n
		}
	}
}

// faultOf is what a category speaks of; false: of nothing that is the sender's.
func faultOf(category string) (Fault, bool) {
	switch category {
	case "block/phishing-or-virus", "hard/phishing-or-virus":
		return Malware, true
	case "block/content-or-spam", "hard/content-or-spam", "soft/content-or-spam":
		return Spam, true
	case "block/sender-reputation", "block/address-listed", "soft/sender-reputation", "hard/sender-reputation", "hard/address-listed", "soft/address-listed":
		return Reputation, true
	case "hard/no-such-mailbox", "hard/no-such-domain", "hard/mailbox-disabled":
		return Nobody, true
	case "block/authentication-failed", "block/authentication-failed-spf", "block/authentication-failed-dkim", "block/authentication-failed-dmarc",
		"hard/authentication-failed", "hard/authentication-failed-spf", "hard/authentication-failed-dkim", "hard/authentication-failed-dmarc":
		return Unsigned, true
	case "block/policy", "hard/policy":
		return Policy, true
	}
	return 0, false
}
