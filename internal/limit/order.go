package limit

import (
	"fmt"
	"time"

	"postrider/internal/ratelimit"
	"postrider/internal/relay"
)

// Order is a message that wants to be taken, and what it is held to.
type Order struct {
	Account    *relay.Account
	Plan       *relay.Plan // nil: the account has none
	Credential relay.ID
	Limits     []relay.Limit // of the credential
	Recipients int64
	above      bool // of the account that manages the sender's
	InSandbox  bool
	Sandbox    int64 // most recipients a day there; counts where InSandbox does
	// Manager is what the account's parent is held to: mail of its sub-accounts is
	// its mail. Nil: it has none.
	Manager *Order
}

// Above is what the parent of an account is held to, for a message of that many
// recipients.
func Above(parent *relay.Account, plan *relay.Plan, recipients int64) *Order {
	return &Order{Account: parent, Plan: plan, Recipients: recipients, above: true}
}

// line is one limit that an order is held to.
type line struct {
	key
	account relay.ID
	limit   relay.Limit
	whose   string // for people
	need    int64

	counter *counter
	start   time.Time // of the counter's window
	waits   int64     // of the counter's waiting
}

// lines are the limits that hold. Those that hold for the same counter are one:
// the tightest.
func (o *Order) lines() []line {
	most := len(o.Limits) + len(o.Account.Limits)
	daily := Daily(o.Account, o.Plan)
	if o.Plan != nil {
		most += len(o.Plan.Limits)
	}
	if most == 0 && daily == 0 && !o.InSandbox {
		return nil
	}
	whose := "this account"
	if o.above {
		whose = "the account that manages this one"
	}
	all := make([]line, 0, most+2)
	for _, n := range o.Limits {
		all = o.add(all, key{credential: o.Credential}, n, "this credential")
	}
	for _, n := range o.Account.Limits {
		all = o.add(all, key{}, n, whose)
	}
	if o.Plan != nil {
		for _, n := range o.Plan.Limits {
			all = o.add(all, key{}, n, whose+"'s plan, "+o.Plan.Name)
		}
	}
	if daily > 0 {
		all = o.add(all, key{}, relay.Limit{Most: daily, Of: "recipients", Per: relay.PerDay}, whose+" for now: it is new, and gets more with each good day")
	}
	if o.InSandbox {
		all = o.add(all, key{sandbox: true}, relay.Limit{Most: o.Sandbox, Of: "recipients", Per: relay.PerDay}, "mail to the account's own addresses while it is not verified")
	}
	return all
}

func (o *Order) add(all []line, k key, limit relay.Limit, whose string) []line {
	k.recipients, k.per = limit.Of == "recipients", (limit.Per + " ")[0]
	for i := range all {
		n := &all[i]
		if n.key != k {
			continue
		}
		// Of limits per second the slower rate holds, and the smaller burst.
		burst := min(burst(n.limit), burst(limit))
		if limit.Most < n.limit.Most {
			n.limit, n.whose = limit, whose
		}
		if limit.Per == relay.PerSecond {
			n.limit.Burst = burst
		}
		return all
	}
	n := line{key: k, account: o.Account.ID, limit: limit, whose: whose, need: 1}
	if k.recipients {
		n.need = o.Recipients
	}
	return append(all, n)
}

// burst is how much may come at once of a limit per second.
func burst(l relay.Limit) int64 {
	if l.Burst > 0 {
		return l.Burst
	}
	return l.Most
}

func (n *line) bucket() ratelimit.Bucket {
	return ratelimit.Bucket{Rate: n.limit.Most, Burst: burst(n.limit)}
}

// take is the question to the store for what the line lacks.
func (n *line) take(now time.Time) relay.Take {
	c := n.counter
	start, end := window(n.limit.Per, now)
	k := relay.Take{Account: n.account, Subject: c.subject, Start: start, End: end, Most: n.limit.Most}
	left, fetched := c.Left()
	wanted := n.need + c.waiting
	if n.limit.Per != relay.PerSecond {
		k.Want = c.Want(now, wanted, horizon, left/part)
		return k
	}
	b := n.bucket()
	k.Least, k.Most = b.Span(now.Sub(start))
	k.Top = k.Most + int64(debt/time.Second)*b.Rate
	if n.need > b.Burst { // the bucket has to be full, and then owes the rest
		k.Want, k.Most = n.need-c.Have(), k.Most+n.need-b.Burst
		return k
	}
	ahead := int64(0)
	if filled := left + int64(now.Sub(fetched).Seconds()*float64(b.Rate)); filled > 0 {
		ahead = min(filled, b.Burst) / 2
	}
	k.Want = c.Want(now, wanted, soon, ahead)
	return k
}

// never refuses what no waiting helps.
func (n *line) never() error {
	switch {
	case n.limit.Most == 0:
		return &relay.Error{Code: relay.Forbidden, Text: fmt.Sprintf("Nothing may be sent: the limit of %s is %s.", n.whose, n.limit), Advice: "Ask whoever manages the account to raise it."}
	case n.limit.Per != relay.PerSecond && n.need > n.limit.Most:
		return &relay.Error{Code: relay.Forbidden, Text: fmt.Sprintf("The message has %d recipients, which is more than the limit of %s, %s, ever allows.", n.need, n.whose, n.limit),
			Advice: "Send it in parts, or ask whoever manages the account to raise the limit."}
	}
	return nil
}

// spent refuses where the limit is used up, as far as the last fetch told.
func (n *line) spent(now time.Time) error {
	dry := n.counter.Dry()
	since := now.Sub(dry)
	if dry.IsZero() || since < 0 {
		return nil
	}
	e := &relay.Error{Code: relay.RateLimited, Text: fmt.Sprintf("The limit of %s is used up: %s.", n.whose, n.limit)}
	if n.limit.Per != relay.PerSecond {
		if since >= again {
			return nil
		}
		_, e.Retry = window(n.limit.Per, now)
		e.Advice = "Mail is taken again from " + e.Retry.UTC().Format("2006-01-02 15:04 MST") + "."
		return e
	}
	b := n.bucket()
	left, fetched := n.counter.Left()
	missing := min(n.need, b.Burst) - n.counter.Have() - left
	wait := time.Duration(float64(missing)/float64(b.Rate)*float64(time.Second)) - now.Sub(fetched)
	if wait <= 0 && since >= soon/5 {
		return nil
	}
	e.Retry = now.Add(max(wait, soon/5))
	e.Advice = "Send more slowly; mail is taken again at once."
	if wait >= time.Second {
		e.Advice = fmt.Sprintf("Send more slowly; mail is taken again in %d seconds.", int64((wait+time.Second-1)/time.Second))
	}
	return e
}
