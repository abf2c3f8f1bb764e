package report

import (
	"context"
	"slices"
	"strings"

	"postrider/internal/relay"
)

// named puts what was counted in the place of how people name it: providers in any
// case, diagnoses by their class or their name alone too, as searches of the log take
// them. What nothing counted has stays as it is.
func (r *Reports) named(ctx context.Context, q *Query) error {
	said := func(values []string) bool { return slices.ContainsFunc(values, func(v string) bool { return v != "" }) }
	if !said(q.Where[relay.ByCategory]) && !said(q.Where[relay.ByProvider]) {
		return nil
	}
	all := *q
	all.Since, _ = q.before()
	all.Where = map[relay.Dimension][]string{}
	for d, v := range q.Where {
		if d != relay.ByCategory && d != relay.ByProvider {
			all.Where[d] = v
		}
	}
	counts, err := r.counts(ctx, q.Account, all.filter(relay.ByCategory, relay.ByProvider))
	if err != nil {
		return err
	}
	fits := map[relay.Dimension]func(value, name string) bool{
		relay.ByProvider: strings.EqualFold,
		relay.ByCategory: func(value, name string) bool {
			class, rest, _ := strings.Cut(value, "/")
			return strings.EqualFold(value, name) || strings.EqualFold(class, name) || strings.EqualFold(rest, name)
		},
	}
	where := map[relay.Dimension][]string{}
	for d, names := range q.Where {
		if fits[d] == nil {
			where[d] = names
			continue
		}
		for _, name := range names {
			found := []string{name}
			for _, c := range counts {
				if v := KeyOf(d, c); name != "" && v != "" && fits[d](v, name) {
					found = append(found, v)
				}
			}
			where[d] = append(where[d], found...)
		}
		slices.Sort(where[d])
		where[d] = slices.Compact(where[d])
	}
	q.Where = where
	return nil
}
