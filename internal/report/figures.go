package report

import (
	"strings"

	"postrider/internal/relay"
)

// Figures are how often what happened.
type Figures struct {
	Sent          int64 // deliveries that were accepted; 0 where lines are told apart by the receiver's side
	Delivered     int64 // that receivers took, those among them that bounced later too
	Deferred      int64 // attempts that are to be made again
	Bounced       int64 // refused for ever: at once or later
	Hard          int64 // of Bounced, by the class of the diagnosis
	Soft          int64
	Block         int64
	Late          int64 // of Bounced, after they had been delivered
	Expired       int64 // given up
	Cancelled     int64 // suppressed, or by an operator
	Complained    int64 // deliveries that somebody complained about
	Opened        int64 // deliveries that were opened, by whomever
	Read          int64 // of them, those that a person opened, as far as can be told
	Opens         int64 // each time counted
	MachineOpens  int64
	Clicked       int64 // deliveries in which a link was followed, by whomever
	Followed      int64 // of them, those where a person did, as far as can be told
	Clicks        int64
	MachineClicks int64
	Unsubscribed  int64 // deliveries after which somebody unsubscribed
}

// add adds a count that tells categories apart.
func (f *Figures) add(c *relay.Count) {
	class, _, _ := strings.Cut(c.Category, "/")
	when := func(is bool) int64 {
		if is {
			return c.N
		}
		return 0
	}
	first, person, machine := when(c.Mark&relay.MarkFirst != 0), when(c.Mark&relay.MarkPerson != 0), when(c.Category == "machine")
	switch c.Kind {
	case relay.EventAccepted:
		f.Sent += c.N
	case relay.EventDelivered:
		f.Delivered += c.N
	case relay.EventDeferred:
		f.Deferred += c.N
	case relay.EventBounced:
		f.Bounced += c.N
		f.Hard += when(class == "hard")
		f.Soft += when(class == "soft")
		f.Block += when(class == "block")
		f.Late += when(c.Mark&relay.MarkLate != 0)
	case relay.EventExpired:
		f.Expired += c.N
	case relay.EventCancelled:
		f.Cancelled += c.N
	case relay.EventComplained:
		f.Complained += first
	case relay.EventOpened:
		f.Opened, f.Read, f.Opens, f.MachineOpens = f.Opened+first, f.Read+person, f.Opens+c.N, f.MachineOpens+machine
	case relay.EventClicked:
		f.Clicked, f.Followed, f.Clicks, f.MachineClicks = f.Clicked+first, f.Followed+person, f.Clicks+c.N, f.MachineClicks+machine
	case relay.EventUnsubscribed:
		f.Unsubscribed += first
	}
}

// Ended is how many deliveries ended by what receivers did, or did not.
func (f *Figures) Ended() int64 { return f.Delivered + f.Bounced - f.Late + f.Expired }

// Rates are parts of one. Those of which the whole is nothing are 0.
type Rates struct {
	Delivery    float64 // delivered and not bounced later, of what ended
	Bounce      float64 // bounced, of what ended
	HardBounce  float64
	SoftBounce  float64
	BlockBounce float64
	Expiry      float64 // expired, of what ended
	Deferral    float64 // deferred, of all attempts
	Complaint   float64 // of what was delivered, and so are the others
	Open        float64
	PersonOpen  float64
	Click       float64
	PersonClick float64
	Unsubscribe float64
}

// rates are those of f, as parts of what is in whole.
func (f *Figures) rates(whole *Figures) Rates {
	part := func(n, of int64) float64 {
		if of <= 0 {
			return 0
		}
		return float64(n) / float64(of)
	}
	ended, delivered := whole.Ended(), whole.Delivered
	return Rates{
		// A line of one diagnosis has what bounced late, and nothing that was delivered.
		Delivery: part(max(0, f.Delivered-f.Late), ended), Bounce: part(f.Bounced, ended), HardBounce: part(f.Hard, ended), SoftBounce: part(f.Soft, ended),
		BlockBounce: part(f.Block, ended), Expiry: part(f.Expired, ended), Deferral: part(f.Deferred, ended+whole.Deferred),
		Complaint: part(f.Complained, delivered), Open: part(f.Opened, delivered), PersonOpen: part(f.Read, delivered),
		Click: part(f.Clicked, delivered), PersonClick: part(f.Followed, delivered), Unsubscribe: part(f.Unsubscribed, delivered),
	}
}
