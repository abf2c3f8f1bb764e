package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postrider/internal/api"
	"postrider/internal/relay"
)

func logCommand() command {
	return command{name: "log", args: "", short: "find deliveries: one line each, the newest last",
		example: `
postrider log -recipient ann@example.com -since 2d
postrider log -outcome bounced,expired -reply "blocked" -n 20
postrider log -outcome complained,unsubscribed -since 1w
postrider log -category no-such-mailbox -provider gmail -since 1w
postrider log -tag invoice -metadata customer:4711
postrider log -follow -sender webshop.example
postrider log -message "<20260101.1@webshop.example>" -json`,
		run: runLog}
}

// search are the flags that say which deliveries are meant.
type search struct {
	recipient, sender, message, subject, outcome, reply, domain, since, until string
	credential, tag, metadata, category, provider, source, client, script     string
	limit                                                                     int
}

func (s *search) flags(fs *flag.FlagSet, limit int) {
	fs.StringVar(&s.recipient, "recipient", "", "part of the recipient's `address`, from the beginning of a word on: ann, @example.net")
	fs.StringVar(&s.sender, "sender", "", "part of the envelope sender's `address`, or of that in From")
	fs.StringVar(&s.message, "message", "", "message `id`, or its Message-ID header")
	fs.StringVar(&s.subject, "subject", "", "`words` of the subject, the last one maybe unfinished; in quotation marks: together")
	fs.StringVar(&s.outcome, "outcome", "", "`states`, separated by commas: queued, deferred, held, delivered, bounced, expired, cancelled; or what recipients did: opened, clicked, complained, unsubscribed")
	fs.StringVar(&s.reply, "reply", "", "`words` of the receiver's last reply, codes included")
	fs.StringVar(&s.domain, "domain", "", "the recipient's `domain`")
	fs.StringVar(&s.credential, "credential", "", "id or `name` of the credential that it came with")
	fs.StringVar(&s.tag, "tag", "", "a `tag`, whole")
	fs.StringVar(&s.metadata, "metadata", "", "`key:value`s, separated by commas; key: stands for any value")
	fs.StringVar(&s.category, "category", "", "`category` of the diagnosis: hard/no-such-mailbox, hard or no-such-mailbox")
	fs.StringVar(&s.provider, "provider", "", "`name` of the receiving service, such as Gmail")
	fs.StringVar(&s.source, "source", "", "our `address` at the last attempt")
	fs.StringVar(&s.client, "client", "", "part of the `address` or name of the client that sent it")
	fs.StringVar(&s.script, "script", "", "part of the `name` of the program that sent it, as its mail tells it")
	fs.StringVar(&s.since, "since", "", "accepted at or after: a `time` (2026-01-31, 2026-01-31T15:04, 15:04) or an age (90m, 2d, 1w)")
	fs.StringVar(&s.until, "until", "", "accepted before: a `time` or an age")
	fs.IntVar(&s.limit, "n", limit, "the greatest `number` to take, the newest ones; 0: all")
}

// tidy brings what people paste into the form in which it is sought.
func (s *search) tidy() error {
	for _, address := range []*string{&s.recipient, &s.sender} {
		if *address != "<>" {
			*address = strings.TrimSuffix(strings.TrimPrefix(*address, "<"), ">")
		}
	}
	if id, err := relay.ParseDeliveryID(s.message); err == nil {
		s.message = id.Message.String()
	}
	s.domain = strings.TrimPrefix(s.domain, "@")
	states := split(strings.ToLower(s.outcome))
	for _, state := range states {
		if _, _, err := relay.ParseOutcome(state); err != nil {
			if new(relay.Kind).UnmarshalText([]byte(state)) == nil {
				return fmt.Errorf("-outcome: %q is no outcome that deliveries are found by; such events are shown by -follow -since 7d -event %s", state, state)
			}
			return fmt.Errorf("-outcome: %w: queued, deferred, held, delivered, bounced, expired or cancelled; opened, clicked, complained or unsubscribed", err)
		}
	}
	s.outcome = strings.Join(states, ",")
	if s.limit < 0 {
		return fmt.Errorf("-n: %d is less than nothing", s.limit)
	}
	return nil
}

// query is what the flags ask the server for.
func (s *search) query(now time.Time) (url.Values, error) {
	if err := s.tidy(); err != nil {
		return nil, err
	}
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("recipient", s.recipient)
	set("sender", s.sender)
	set("message", s.message)
	set("subject", s.subject)
	set("reply", s.reply)
	set("domain", s.domain)
	set("credential", s.credential)
	set("tag", s.tag)
	set("metadata", s.metadata)
	set("category", s.category)
	set("provider", s.provider)
	set("source", s.source)
	set("client", s.client)
	set("script", s.script)
	set("state", s.outcome)
	for name, value := range map[string]string{"since": s.since, "until": s.until} {
		if value == "" {
			continue
		}
		t, err := parseTime(value, now)
		if err != nil {
			return nil, fmt.Errorf("-%s: %w", name, err)
		}
		q.Set(name, t.Format(time.RFC3339Nano))
	}
	return q, nil
}

// parseTime reads a date, a time or an age.
func parseTime(s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if t, err := time.Parse("15:04", s); err == nil { // of today
		y, m, d := now.Date()
		return time.Date(y, m, d, t.Hour(), t.Minute(), 0, 0, now.Location()), nil
	}
	age, err := time.ParseDuration(s)
	for unit, long := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if count, ok := strings.CutSuffix(s, unit); ok {
			var n float64
			n, err = strconv.ParseFloat(count, 64)
			age = time.Duration(n * float64(long))
		}
	}
	if err != nil || age < 0 {
		return time.Time{}, fmt.Errorf("%q is neither a time (2026-01-31T15:04, 15:04) nor an age (90m, 2d, 1w)", s)
	}
	return now.Add(-age), nil
}

const page = 500

// errEnough ends a search that has found what it may.
var errEnough = errors.New("enough")

// find calls f with each delivery that the query finds, newest first, up to
// limit.
func find(ctx context.Context, c *api.Client, q url.Values, limit int, f func(api.Delivery) error) error {
	ask := page
	if limit > 0 {
		ask = min(page, limit)
	}
	q.Set("limit", strconv.Itoa(ask))
	n := 0
	err := api.All(ctx, c, "/v1/deliveries", q, func(d api.Delivery) error {
		if err := f(d); err != nil {
			return err
		}
		if n++; n == limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// usual is how many deliveries the log shows.
const usual = 100

func runLog(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	var s search
	p.clientFlags(fs)
	p.accountFlag(fs)
	s.flags(fs, usual)
	follow := fs.Bool("follow", false, "go on and show each event as it happens, until interrupted")
	kinds := fs.String("event", "", "with -follow: `kinds` of events, separated by commas, such as complained or feedback, beside those of -outcome")
	asJSON := fs.Bool("json", false, "print one JSON object a line")
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	if *kinds != "" && !*follow {
		return badUsage(e, fs, "-event goes with -follow (add -since 7d for what was); -outcome finds deliveries")
	}
	q, err := s.query(time.Now())
	if err != nil {
		return badUsage(e, fs, "%v", err)
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	if *follow {
		if q, err = live(q, *kinds); err != nil {
			return badUsage(e, fs, "%v", err)
		}
		return followLog(ctx, e, c, q, *asJSON)
	}
	var found []api.Delivery
	ask := s.limit
	if ask > 0 {
		ask++ // to know whether there are more
	}
	err = find(ctx, c, q, ask, func(d api.Delivery) error { found = append(found, d); return nil })
	if err != nil {
		return err
	}
	more := s.limit > 0 && len(found) > s.limit
	if more {
		found = found[:s.limit]
	}
	// The newest message last, its recipients in the order of the envelope.
	slices.SortStableFunc(found, func(a, b api.Delivery) int { return strings.Compare(a.Message, b.Message) })
	for _, d := range found {
		if *asJSON {
			if err := printLine(e.Stdout, d); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(e.Stdout, logLine(d))
	}
	if len(found) == 0 && !*asJSON {
		fmt.Fprintln(e.Stderr, "No delivery matches.")
	}
	chosen := false // who says -n knows
	fs.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "n" })
	if more && !chosen {
		fmt.Fprintf(e.Stderr, "These are the newest %d; there are more (-n 0 shows all).\n", s.limit)
	}
	return nil
}

func logLine(d api.Delivery) string {
	line := fmt.Sprintf("%s  %s  %-9s  <%s> → <%s>  %s", stamp(d.Received), d.ID, strings.Join(append([]string{d.State}, d.Happened...), ", "), clean(d.Sender), clean(d.Recipient), attempts(d.Attempts))
	switch {
	case d.Due != nil && d.Attempts == 0:
		line += ", due " + next(d)
	case d.Due != nil:
		line += ", next " + next(d)
	case d.State != "held":
		line += " in " + took(d.Updated.Sub(d.Received))
	}
	// Where no receiver was asked, why is all that there is.
	if said := cmp.Or(d.Reply.String(), d.Diagnosis.Text); said != "" {
		line += "  " + clean(said)
	}
	return line
}

func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

// followLog shows events as they happen. It outlives the server's restarts.
func followLog(ctx context.Context, e *Env, c *api.Client, q url.Values, asJSON bool) error {
	away := false
	stream := &api.Stream{Path: "/v1/events/stream?" + q.Encode(), Begun: func() {
		if away {
			fmt.Fprintln(e.Stderr, "The server answers again.")
		}
		away = false
	}, Broken: func(err error) {
		if !away {
			fmt.Fprintf(e.Stderr, "Waiting for the server: %v\n", err)
		}
		away = true
	}}
	end, err := api.Follow(ctx, c, stream, func(_ string, ev api.LiveEvent) error {
		if asJSON {
			return printLine(e.Stdout, ev)
		}
		_, err := fmt.Fprintln(e.Stdout, eventLine(ev.Event))
		return err
	})
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		return errors.New(end.Text)
	}
	return err
}

// live is what of the search concerns events as they come.
func live(q url.Values, kinds string) (url.Values, error) {
	out := url.Values{}
	for name := range q {
		switch name {
		case "state":
			// What leads to them. One leads to "queued" from more than one side.
			out.Set("kind", strings.ReplaceAll(q.Get(name), "queued", "accepted,released,rescheduled"))
		case "recipient", "sender", "message", "subject", "reply", "domain", "credential", "tag", "stream", "category", "metadata", "provider", "source", "client", "script", "since":
			out.Set(name, q.Get(name))
		default:
			return nil, fmt.Errorf("-follow has no use for -%s", name)
		}
	}
	if kinds != "" {
		out.Set("kind", strings.Trim(out.Get("kind")+","+kinds, ","))
	}
	return out, nil
}

func eventLine(ev api.Event) string {
	line := fmt.Sprintf("%s  %s  %-9s  <%s> → <%s>", stamp(ev.At), ev.Delivery, ev.Kind, clean(ev.Sender), clean(ev.Recipient))
	if said := said(ev); said != "" {
		line += "  " + said
	}
	return line
}
