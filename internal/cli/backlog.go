package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"postrider/internal/api"
)

// summarize prints what waits by domain, where most waits first.
func summarize(ctx context.Context, e *Env, c *api.Client, q url.Values, asJSON bool) error {
	q.Set("limit", strconv.Itoa(page))
	var all []api.Backlog
	err := api.All(ctx, c, "/v1/queue", q, func(b api.Backlog) error { all = append(all, b); return nil })
	if err != nil {
		return err
	}
	if len(all) == 0 && !asJSON {
		fmt.Fprintln(e.Stdout, "Nothing waits.")
		return nil
	}
	total := func(b api.Backlog) int64 { return b.Waiting + b.InHand + b.Held }
	slices.SortStableFunc(all, func(a, b api.Backlog) int { return cmp.Compare(total(b), total(a)) })
	several := slices.ContainsFunc(all, func(b api.Backlog) bool { return b.Account != all[0].Account })
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	if !asJSON {
		fmt.Fprint(w, "DOMAIN\tSTREAM\t")
		if several {
			fmt.Fprint(w, "ACCOUNT\t")
		}
		fmt.Fprintln(w, "WAITING\tDEFERRED\tIN HAND\tHELD\tOLDEST\tNEXT\tLAST DEFERRAL")
	}
	var sum api.Backlog
	for _, b := range all {
		if asJSON {
			if err := printLine(e.Stdout, b); err != nil {
				return err
			}
			continue
		}
		sum.Waiting, sum.Deferred, sum.InHand, sum.Held = sum.Waiting+b.Waiting, sum.Deferred+b.Deferred, sum.InHand+b.InHand, sum.Held+b.Held
		fmt.Fprintf(w, "%s\t%s\t", cut(clean(b.Domain), 60), b.Stream)
		if several {
			fmt.Fprintf(w, "%s\t", b.Account)
		}
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%s\t%s\t%s\n", b.Waiting, b.Deferred, b.InHand, b.Held, age(time.Since(b.Oldest)), next(api.Delivery{Due: b.Due}), cut(lastWhy(b.Last), 100))
	}
	if err := w.Flush(); err != nil || asJSON {
		return err
	}
	_, err = fmt.Fprintf(e.Stdout, "%d in all: %d waiting (%d of them deferred), %d in hand, %d held.\n", total(sum), sum.Waiting, sum.Deferred, sum.InHand, sum.Held)
	return err
}

func lastWhy(d *api.Deferral) string {
	if d == nil {
		return "-"
	}
	return why(api.Delivery{Reply: d.Reply, Diagnosis: d.Diagnosis})
}
