package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"postrider/internal/api"
)

func reportCommand() command {
	return command{name: "report", args: "[counts | timing | failures]", short: "what became of mail, and how often: figures, rates, times to deliver, reasons",
		example: `
postrider report                                  # the last seven days
postrider report -by provider -since 1d
postrider report -interval day -zone Europe/Berlin -since 30d -domain shop.example
postrider report timing -by ip
postrider report failures -top 5 -provider Gmail
postrider report -by credential -csv > week.csv`,
		run: runReport}
}

func runReport(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	p.accountFlag(fs)
	q := url.Values{}
	for name, doc := range map[string]string{"by": "counts, timing: a line for each `thing`: account, stream, category, provider, credential, domain, ip or tag",
		"interval": "counts, timing: a line for each `span`: hour, day, week or month", "zone": "time `zone` that days begin in, such as Europe/Berlin; none: UTC",
		"stream": "only of this `stream`", "category": "only of these `diagnoses`: hard/no-such-mailbox, hard or no-such-mailbox", "provider": "only to these `receivers`, such as Gmail",
		"credential": "only with this `credential`: id, user name or name", "domain": "only in the name of these `domains`", "ip": "only from these `addresses` of ours", "tag": "only with this `tag`",
		"kinds": "failures: `kinds` of deferred, bounced, expired, cancelled and complained; none: bounced and expired"} {
		fs.Func(name, doc, func(v string) error { q.Set(name, v); return nil })
	}
	for name, doc := range map[string]string{"since": "at or after: a `time` or an age (90m, 2d, 1w); none: a week ago", "until": "before: a `time` or an age"} {
		fs.Func(name, doc, func(v string) error {
			t, err := parseTime(v, time.Now())
			q.Set(name, t.Format(time.RFC3339Nano))
			return err
		})
	}
	top := fs.Int("top", 10, "the greatest `number` of things to give a line")
	asCSV := fs.Bool("csv", false, "print a table for other programs")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	what := "counts"
	if len(rest) > 0 {
		what = rest[0]
	}
	if len(rest) > 1 || what != "counts" && what != "timing" && what != "failures" || *asCSV && *asJSON {
		return badUsage(e, fs, "counts, timing or failures is wanted, and one of -csv and -json")
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	q.Set("top", strconv.Itoa(*top))
	path := "/v1/reports/" + what
	if *asCSV {
		q.Set("format", "csv")
		return c.Copy(ctx, path, q, e.Stdout)
	}
	switch what {
	case "timing":
		return printReport(ctx, e, c, path, q, *asJSON, printTiming)
	case "failures":
		return printReport(ctx, e, c, path, q, *asJSON, printFailures)
	default:
		return printReport(ctx, e, c, path, q, *asJSON, printCounts)
	}
}

// printReport asks for a report and prints it.
func printReport[T any](ctx context.Context, e *Env, c *api.Client, path string, q url.Values, asJSON bool, show func(*Env, url.Values, *T) error) error {
	var r T
	if err := c.Get(ctx, path, q, &r); err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Stdout, r)
	}
	return show(e, q, &r)
}

// percent is a part of one for people: small ones with more digits.
func percent(f float64) string {
	switch {
	case f == 0:
		return "-"
	case f < 0.01:
		return fmt.Sprintf("%.2f%%", 100*f)
	default:
		return fmt.Sprintf("%.1f%%", 100*f)
	}
}

// lineName names a line of a report.
func lineName(q url.Values, start *time.Time, key, name string) string {
	var words []string
	if start != nil {
		layout := "2006-01-02"
		if q.Get("interval") == "hour" {
			layout = "2006-01-02 15:04"
		}
		words = append(words, start.Format(layout))
	}
	if q.Get("by") != "" {
		words = append(words, cmp.Or(name, key, "(not known)"))
	}
	return clean(strings.Join(words, "  "))
}

func printSpan(e *Env, f api.ReportFrame) {
	fmt.Fprintf(e.Stdout, "From %s to %s.\n\n", stamp(f.Since), stamp(f.Until))
}

func printCounts(e *Env, q url.Values, r *api.Counts) error {
	printSpan(e, r.ReportFrame)
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tSENT\tDELIVERED\t\tBOUNCED\t\tHARD\tSOFT\tBLOCK\tEXPIRED\tDEFERRED\tCOMPLAINTS\t\tOPENED\tCLICKED\tUNSUBSCRIBED\t")
	line := func(name string, l *api.CountLine) {
		sent := "-"
		if l.Sent != nil {
			sent = strconv.FormatInt(*l.Sent, 10)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%d\t\n", name, sent, l.Delivered, percent(l.Rates.Delivery), l.Bounced, percent(l.Rates.Bounce),
			l.Hard, l.Soft, l.Block, l.Expired, l.Deferred, l.Complained, percent(l.Rates.Complaint), percent(l.Rates.PersonOpen), percent(l.Rates.PersonClick), l.Unsubscribed)
	}
	if q.Get("by") != "" || q.Get("interval") != "" {
		for i := range r.Lines {
			l := &r.Lines[i]
			line(lineName(q, l.Start, l.Key, l.Name), l)
		}
	}
	line("in all", &r.Total)
	line("the time before", &r.Before)
	if err := w.Flush(); err != nil {
		return err
	}
	if r.More {
		fmt.Fprintln(e.Stdout, "\nThere are more; -top says how many to show.")
	}
	return nil
}

func printTiming(e *Env, q url.Values, r *api.Timing) error {
	printSpan(e, r.ReportFrame)
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tDELIVERED\tHALF WITHIN\t90%\t95%\t99%\t")
	for _, l := range r.Lines {
		fmt.Fprintf(w, "%s\t%d", lineName(q, l.Start, l.Key, l.Name), l.Delivered)
		for _, s := range []float64{l.P50, l.P90, l.P95, l.P99} {
			text := "-"
			if l.Delivered > 0 {
				text = took(time.Duration(s * float64(time.Second)))
			}
			fmt.Fprintf(w, "\t%s", text)
		}
		fmt.Fprintln(w, "\t")
	}
	return w.Flush()
}

func printFailures(e *Env, _ url.Values, r *api.Failures) error {
	printSpan(e, r.ReportFrame)
	if len(r.Lines) == 0 {
		fmt.Fprintln(e.Stdout, "Nothing failed.")
	}
	for _, l := range r.Lines {
		fmt.Fprintf(e.Stdout, "%d %s, %s of them: %s, at %s (%d the time before)\n", l.Count, l.Kind, percent(l.Share), clean(cmp.Or(l.Category, "no diagnosis")), clean(cmp.Or(l.Provider, "receivers without a name")), l.Before)
		x := l.Example
		if x == nil {
			continue
		}
		fmt.Fprintf(e.Stdout, "%s%s\n", in, clean(x.Diagnosis.Text))
		if x.Diagnosis.Advice != "" {
			fmt.Fprintf(e.Stdout, "%s%s\n", in, clean(x.Diagnosis.Advice))
		}
		fmt.Fprintf(e.Stdout, "%se.g. %s to %s at %s: %s\n", in, x.Delivery, clean(x.Recipient), stamp(x.At), clean(x.Reply.String()))
	}
	return nil
}

func scoreCommand() command {
	return command{name: "score", args: "", short: "how good a sender is, from 0 to 100, and what pulls the score down",
		example: `
postrider score
postrider score -by domain
postrider score -by ip -days 30 -json`,
		run: runScore}
}

func runScore(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	p.accountFlag(fs)
	by := fs.String("by", "", "one for each `thing`: account, credential, domain or ip; none: all mail in one")
	days := fs.Int("days", 14, "`days` of history")
	asJSON := fs.Bool("json", false, "print one JSON object a line")
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	q := url.Values{"days": {strconv.Itoa(*days)}}
	if *by != "" {
		q.Set("by", *by)
	}
	n := 0
	return api.All(ctx, c, "/v1/score", q, func(s api.Score) error {
		if *asJSON {
			return printLine(e.Stdout, s)
		}
		if n++; n > 1 {
			fmt.Fprintln(e.Stdout)
		}
		name := "All mail"
		if *by != "" {
			name = clean(cmp.Or(s.Name, s.Key, "(not known)"))
		}
		fmt.Fprintf(e.Stdout, "%s: %.0f of 100, between %.0f and %.0f as far as %.0f deliveries tell\n", name, s.Score, s.Low, s.High, s.Mail)
		for _, r := range s.Reasons {
			fmt.Fprintf(e.Stdout, "%s%+5.1f  %s", in, r.Points, r.Text)
			if r.Rate > 0 {
				fmt.Fprintf(e.Stdout, " %s of it.", percent(r.Rate))
			}
			if fmt.Fprintln(e.Stdout); r.Advice != "" {
				fmt.Fprintf(e.Stdout, "%s       %s\n", in, r.Advice)
			}
		}
		var past []string
		for _, d := range s.History {
			past = append(past, fmt.Sprintf("%.0f", d.Score))
		}
		if len(past) > 0 {
			fmt.Fprintf(e.Stdout, "%sthe last %d days: %s\n", in, len(past), strings.Join(past, " "))
		}
		return nil
	})
}
