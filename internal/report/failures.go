package report

import (
	"cmp"
	"context"
	"slices"
	"time"

	"postrider/internal/relay"
)

// Failure is one reason why mail did not arrive, or was late.
type Failure struct {
	Kind     relay.Kind
	Category string
	Provider string
	N        int64
	Share    float64 // of all that failed in this way
	Before   int64   // how often in a time as long just before
	// Of one delivery, the last one that is known; none where the log has none any
	// more.
	Example   relay.DeliveryID
	At        time.Time
	Recipient string
	Host      string
	Reply     relay.Reply
	Diagnosis relay.Diagnosis
}

// failing are the kinds that are failures, if nothing else is asked for.
var failing = []relay.Kind{relay.EventBounced, relay.EventExpired}

// Failures gives the reasons that came up most, with an example of each. Kinds are
// those of events; none stands for bounced and expired.
func (r *Reports) Failures(ctx context.Context, q Query, kinds ...relay.Kind) ([]Failure, error) {
	if err := r.check(ctx, &q); err != nil {
		return nil, err
	}
	if len(kinds) == 0 {
		kinds = failing
	}
	f := q.filter(relay.ByCategory, relay.ByProvider)
	f.Kinds = kinds
	type reason struct {
		kind               relay.Kind
		category, provider string
	}
	sums := map[reason]int64{}
	wholes := map[relay.Kind]int64{}
	counts, err := r.counts(ctx, q.Account, f)
	if err != nil {
		return nil, err
	}
	for _, c := range counts {
		sums[reason{c.Kind, c.Category, c.Provider}] += c.N
		wholes[c.Kind] += c.N
	}
	before := f
	before.Since, before.Until = q.before()
	if counts, err = r.counts(ctx, q.Account, before); err != nil {
		return nil, err
	}
	was := map[reason]int64{}
	for _, c := range counts {
		was[reason{c.Kind, c.Category, c.Provider}] += c.N
	}
	var all []Failure
	for k, n := range sums {
		all = append(all, Failure{Kind: k.kind, Category: k.category, Provider: k.provider, N: n, Share: float64(n) / float64(wholes[k.kind]), Before: was[k]})
	}
	slices.SortFunc(all, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Category, b.Category), cmp.Compare(a.Provider, b.Provider))
	})
	all = all[:min(len(all), q.Top)]
	for i := range all {
		if err := r.exemplify(ctx, q, &all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// exemplify finds a delivery that failed so, and what was said of it.
func (r *Reports) exemplify(ctx context.Context, q Query, of *Failure) error {
	f := q.filter()
	f.Kinds = []relay.Kind{of.Kind}
	f.Where = map[relay.Dimension][]string{relay.ByCategory: {of.Category}, relay.ByProvider: {of.Provider}}
	for d, v := range q.Where {
		if f.Where[d] == nil {
			f.Where[d] = v
		}
	}
	id, err := r.Store.Example(ctx, q.Account, f)
	if err != nil || id.N == 0 {
		return err
	}
	const most = 1000 // events of it
	story, err := r.Store.StoryPart(ctx, q.Account, id.Message, relay.StoryPart{After: id.N - 1, Deliveries: 1, Events: most})
	if relay.CodeOf(err) == relay.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range story.Events {
		if e.Delivery == id && e.Kind == of.Kind && e.Diagnosis.Category == of.Category {
			of.Example, of.At, of.Recipient, of.Reply, of.Diagnosis = id, e.At, e.Recipient, e.Reply, e.Diagnosis
			if a := e.Attempt; a != nil && len(a.Hosts) > 0 {
				of.Host = a.Hosts[len(a.Hosts)-1].Name
			}
		}
	}
	return nil
}
