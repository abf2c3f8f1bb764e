package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/api"
	"postrider/internal/relay"
)

func queueCommand() command {
	return command{name: "queue", args: "[retry|hold|release|cancel [ID…] | reschedule -at TIME ID…]", short: "show what waits, why and until when; retry, hold, release, cancel, reschedule",
		example: `
postrider queue
postrider queue -domain example.com
postrider queue -summary            # how much waits for which domain, and why
postrider queue retry 06bw8sf8dhkx94jkm5k3vz1m3r-1
postrider queue cancel -sender newsletter@example.com
postrider queue hold -domain example.com
postrider queue reschedule -at 2026-12-24T09:00 06bw8sf8dhkx94jkm5k3vz1m3r`,
		run: runQueue}
}

func runQueue(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	var s search
	p.clientFlags(fs)
	p.accountFlag(fs)
	s.flags(fs, 0)
	all := fs.Bool("all", false, "retry, hold, release, cancel: everything that waits")
	summary := fs.Bool("summary", false, "count what waits, by domain (and only -domain chooses), as qshape does")
	later := fs.String("at", "", "reschedule: the new `time` (2026-01-31T15:04, 15:04) of messages that are not due yet")
	asJSON := fs.Bool("json", false, "print one JSON object a line")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	q, err := s.query(time.Now())
	if err != nil {
		return badUsage(e, fs, "%v", err)
	}
	q.Set("live", "true")
	c, err := p.client()
	if err != nil {
		return err
	}
	if *later != "" && (len(rest) == 0 || rest[0] != "reschedule") {
		return badUsage(e, fs, "-at goes with reschedule")
	}
	if *summary {
		if len(rest) > 0 || len(q) > 1+len(q["domain"]) {
			return badUsage(e, fs, "-summary goes with no order, and no filter but -domain")
		}
		q.Del("live")
		return summarize(ctx, e, c, q, *asJSON)
	}
	if len(rest) == 0 {
		return showQueue(ctx, e, c, q, s.limit, *asJSON)
	}
	if rest[0] == "reschedule" {
		at, err := parseTime(*later, time.Now())
		switch {
		case err != nil:
			return badUsage(e, fs, "say -at when; %v", err)
		case at.Before(time.Now()):
			return badUsage(e, fs, "-at %s is past; to send at once say retry", *later)
		case len(rest) == 1:
			return badUsage(e, fs, "name messages by id")
		}
		return reschedule(ctx, e, c, at, rest[1:], *asJSON)
	}
	switch rest[0] {
	case "retry", "hold", "release", "cancel":
	default:
		return badUsage(e, fs, "%q is not retry, hold, release, cancel or reschedule", rest[0])
	}
	ids, err := named(ctx, c, rest[1:])
	if err != nil {
		return err
	}
	if len(rest) == 1 {
		if len(q) == 1 && !*all {
			return badUsage(e, fs, "name deliveries or messages by id, or by a filter such as -domain, or say -all")
		}
		err := find(ctx, c, q, s.limit, func(d api.Delivery) error { ids = append(ids, d.ID); return nil })
		if err != nil {
			return err
		}
	}
	if len(ids) == 0 {
		fmt.Fprintln(e.Stdout, "Nothing that waits is meant by that.")
		return nil
	}
	return order(ctx, e, c, rest[0], ids)
}

// named gives the ids of deliveries; a message's id stands for what waits of it.
func named(ctx context.Context, c *api.Client, names []string) (ids []string, err error) {
	for _, name := range names {
		if _, err := relay.ParseID(name); err != nil {
			ids = append(ids, name)
			continue
		}
		q := url.Values{"message": {name}, "live": {"true"}}
		if err := find(ctx, c, q, 0, func(d api.Delivery) error { ids = append(ids, d.ID); return nil }); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// atOnce is how many orders are given at once, so that they share commits.
const atOnce = 16

func order(ctx context.Context, e *Env, c *api.Client, order string, ids []string) error {
	var mu sync.Mutex
	done := 0
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, id := range ids {
		g.Go(func() error {
			err := c.Post(ctx, "/v1/deliveries/"+url.PathEscape(id)+"/"+order, nil, nil)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done++
			} else if ctx.Err() == nil {
				fmt.Fprintf(e.Stderr, "%s: %v\n", id, err)
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	past := map[string]string{"retry": "Retrying", "hold": "Held", "release": "Released", "cancel": "Cancelled"}[order]
	fmt.Fprintf(e.Stdout, "%s %d of %d.\n", past, done, len(ids))
	if done < len(ids) {
		return errors.New("not all could be done")
	}
	return nil
}

// reschedule gives messages another time.
func reschedule(ctx context.Context, e *Env, c *api.Client, at time.Time, ids []string, asJSON bool) error {
	failed := false
	for _, id := range ids {
		var out api.Rescheduled
		if err := c.Patch(ctx, "/v1/messages/"+url.PathEscape(id), map[string]time.Time{"send_at": at}, &out); err != nil {
			if ctx.Err() != nil {
				return err
			}
			failed = true
			fmt.Fprintf(e.Stderr, "%s: %v\n", id, err)
			continue
		}
		if asJSON {
			if err := printLine(e.Stdout, out); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(e.Stdout, "%s is not delivered before %s: %d of %d that wait.\n", id, stamp(out.SendAt), out.Rescheduled, out.Rescheduled+out.Failed)
	}
	if failed {
		return errors.New("not all could be done")
	}
	return nil
}

func showQueue(ctx context.Context, e *Env, c *api.Client, q url.Values, limit int, asJSON bool) error {
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	n, states := 0, map[string]int{}
	err := find(ctx, c, q, limit, func(d api.Delivery) error {
		if asJSON {
			return printLine(e.Stdout, d)
		}
		states[d.State]++
		if n++; n == 1 {
			fmt.Fprintln(w, "ID\tSENDER\tRECIPIENT\tSTATE\tAGE\tATTEMPTS\tNEXT\tGIVEN UP\tWHY")
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", d.ID, cut(clean(d.Sender), 40), cut(clean(d.Recipient), 40), d.State,
			age(time.Since(d.Received)), d.Attempts, next(d), end(d), cut(why(d), 100))
		return err
	})
	if err != nil {
		return err
	}
	if n == 0 && !asJSON {
		fmt.Fprintln(e.Stdout, "Nothing waits.")
		return nil
	}
	if err := w.Flush(); err != nil || asJSON {
		return err
	}
	_, err = fmt.Fprintf(e.Stdout, "%d in all: %d queued, %d deferred, %d held.\n", n, states["queued"], states["deferred"], states["held"])
	return err
}

func why(d api.Delivery) string {
	switch {
	case d.State == "held":
		return "held by an operator"
	case d.Diagnosis.Text != "":
		return clean(d.Diagnosis.Text + " (" + d.Reply.String() + ")")
	case d.Reply.Text != "":
		return clean(d.Reply.String())
	case d.Due != nil && time.Until(*d.Due) > 0:
		return "not to be sent before then"
	default:
		return "waits for its turn, or is being tried"
	}
}

// end is until when a delivery is tried. What is held is not given up.
func end(d api.Delivery) string {
	if d.State == "held" {
		return "-"
	}
	return d.Expires.Local().Format("01-02 15:04")
}

func next(d api.Delivery) string {
	if d.Due == nil {
		return "-"
	}
	if wait := time.Until(*d.Due); wait > 0 {
		return "in " + age(wait)
	}
	return "now"
}

// age is a duration as people say it.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
