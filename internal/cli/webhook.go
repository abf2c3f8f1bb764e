package cli

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/webhook"
)

func webhookCommand() command {
	return command{name: "webhook", args: "add URL | list | show ID | set ID | pause ID | resume ID | rotate ID | test ID | failures ID | replay ID | remove ID", short: "send events to programs of yours, over HTTP",
		example: `
postrider webhook add https://shop.example/hooks/mail     # prints the secret, once
postrider webhook add -event bounced,expired -batch 100 -wait 5s https://shop.example/hooks/mail
postrider webhook list
postrider webhook test ID
postrider webhook failures ID                             # and what the receiver answered
postrider webhook replay -since 24h ID                    # send the last day again
postrider webhook rotate -keep 24h ID`,
		run: runWebhook}
}

// webhookFlags are those of all the verbs.
type webhookFlags struct {
	place
	json                          bool
	address, events, tags, stream string
	credentials, note, since      string
	batch                         int
	wait                          time.Duration
	keep                          config.Duration
	settings                      webhook.Settings
}

func (f *webhookFlags) parse(e *Env, fs *flag.FlagSet, args []string) ([]string, error) {
	f.clientFlags(fs)
	f.accountFlag(fs)
	fs.BoolVar(&f.json, "json", false, "print JSON; list, failures: one object a line")
	fs.StringVar(&f.address, "url", "", "set: another `address`")
	fs.StringVar(&f.events, "event", "", "add, set: `kinds` of events, separated by commas: accepted, delivered, deferred, bounced, expired, held, released, cancelled, rescheduled, reported, feedback, complained, opened, clicked, unsubscribed, resubscribed; \"\" for all")
	fs.StringVar(&f.tags, "tag", "", "add, set: only of messages with one of these `tags`, separated by commas; \"\" for all")
	fs.StringVar(&f.credentials, "credential", "", "add, set: only of messages that came with one of these credentials, `ids` separated by commas; \"\" for all")
	fs.StringVar(&f.stream, "stream", "", "add, set: only of messages of this `stream`: transactional or broadcast; \"\" for both")
	fs.StringVar(&f.note, "note", "", "add, set: `words` for people")
	fs.IntVar(&f.batch, "batch", 0, "add, set: most `events` in a request, which is an array then; 0: one, and no array")
	fs.DurationVar(&f.wait, "wait", 0, "add, set: how `long` an array waits for more events, up to 1m")
	fs.TextVar(&f.keep, "keep", config.Duration(24*time.Hour), "rotate: how `long` the old secret is good yet")
	fs.StringVar(&f.since, "since", "", "replay: from `when`: a time (2026-01-31, 2026-01-31T15:04, 15:04) or an age (90m, 2d, 1w)")
	rest, err := parse(e, fs, args)
	if err != nil {
		return nil, err
	}
	events, tags, credentials, wait := orNone(split(f.events)), orNone(split(f.tags)), orNone(split(f.credentials)), f.wait.Seconds()
	fs.Visit(func(one *flag.Flag) {
		switch one.Name {
		case "url":
			f.settings.URL = &f.address
		case "event":
			f.settings.Events = &events
		case "tag":
			f.settings.Tags = &tags
		case "credential":
			f.settings.Credentials = &credentials
		case "stream":
			f.settings.Stream = &f.stream
		case "note":
			f.settings.Description = &f.note
		case "batch":
			f.settings.Batch = &f.batch
		case "wait":
			f.settings.Wait = &wait
		}
	})
	return rest, nil
}

func runWebhook(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var f webhookFlags
	rest, err := f.parse(e, fs, args)
	if err != nil {
		return err
	}
	verb, words, ok := verbs{"add": 1, "list": 0, "show": 1, "set": 1, "pause": 1, "resume": 1, "rotate": 1, "test": 1, "failures": 1, "replay": 1, "remove": 1}.of(rest)
	if !ok {
		return badUsage(e, fs, "add URL, list, or show, set, pause, resume, rotate, test, failures, replay or remove with an ID is wanted")
	}
	c, err := f.client()
	if err != nil {
		return err
	}
	if verb == "list" {
		return printList(ctx, e, c, "/v1/webhooks", url.Values{"limit": {"1000"}}, f.json, "ID\tSTATUS\tEVENTS\tURL", func(h api.Webhook) []string {
			return []string{h.ID, string(h.Status), eventNames(h), h.URL}
		})
	}
	path := where("/v1/webhooks", words[0])
	var out api.Webhook
	switch verb {
	case "add":
		f.settings.URL = &words[0]
		return f.secret(ctx, e, c, "/v1/webhooks", f.settings)
	case "rotate":
		keep := time.Duration(f.keep).Hours()
		return f.secret(ctx, e, c, path+"/rotate", api.WebhookRotation{Keep: &keep})
	case "test":
		return testPost(ctx, e, c, path+"/test", f.json)
	case "failures":
		return printList(ctx, e, c, path+"/failures", nil, f.json, "WHEN\tTRY\tSTATUS\tEVENTS\tFIRST ABOUT\tNEXT\tERROR\tANSWER", failureRow)
	case "remove":
		if err := c.Delete(ctx, path, nil); err != nil || f.json {
			return err
		}
		fmt.Fprintln(e.Stdout, "Removed.")
		return nil
	case "show":
		err = c.Get(ctx, path, nil, &out)
	case "set":
		err = c.Patch(ctx, path, f.settings, &out)
	case "pause", "resume":
		paused := verb == "pause"
		err = c.Patch(ctx, path, webhook.Settings{Paused: &paused}, &out)
	case "replay":
		at, bad := parseTime(f.since, time.Now())
		if bad != nil {
			return badUsage(e, fs, "-since: %v", bad)
		}
		err = c.Post(ctx, path+"/replay", api.WebhookReplay{Since: at}, &out)
	}
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(e.Stdout, out)
	}
	showWebhook(e, out)
	return nil
}

// secret asks for what has a secret in its answer.
func (f *webhookFlags) secret(ctx context.Context, e *Env, c *api.Client, path string, in any) error {
	var out api.SecretWebhook
	if err := c.Post(ctx, path, in, &out); err != nil {
		return err
	}
	if f.json {
		return printJSON(e.Stdout, out)
	}
	fmt.Fprintf(e.Stdout, "Webhook   %s\nSecret    %s\nRequests are signed with it as Standard Webhooks has it. It is not shown again.\n", out.ID, out.Secret)
	return nil
}

// testPost asks for a sample to be sent, and tells the receiver's answer.
func testPost(ctx context.Context, e *Env, c *api.Client, path string, asJSON bool) error {
	var out api.WebhookAnswer
	if err := c.Post(ctx, path, nil, &out); err != nil {
		return err
	}
	if asJSON {
		if err := printJSON(e.Stdout, out); err != nil {
			return err
		}
	} else if out.Error == "" && out.Status == 0 {
		fmt.Fprintln(e.Stdout, "It is on its way.")
	} else if out.Error == "" {
		fmt.Fprintf(e.Stdout, "It was taken: the receiver answered %d after %v.\n", out.Status, seconds(out.Took))
	} else if out.Answer != "" {
		fmt.Fprintf(e.Stdout, "The receiver said: %s\n", clean(out.Answer))
	}
	if out.Error != "" {
		return fmt.Errorf("it was not taken: %s", clean(out.Error))
	}
	return nil
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond)
}

func eventNames(h api.Webhook) string {
	if len(h.Events) == 0 {
		return "all"
	}
	return strings.Join(h.Events, ",")
}

func failureRow(f api.WebhookFailure) []string {
	status, next := "none", "given up"
	if f.Status > 0 {
		status = strconv.Itoa(f.Status)
	}
	if f.Next != nil {
		next = stamp(*f.Next)
	}
	return []string{stamp(f.At), strconv.Itoa(f.Try), status, strconv.Itoa(f.Events), f.Message, next, f.Error, f.Answer}
}

func showWebhook(e *Env, h api.Webhook) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(e.Stdout, "%-12s%s\n", name, clean(value))
		}
	}
	line("Webhook", h.ID)
	line("URL", h.URL)
	line("Note", h.Description)
	line("Events", eventNames(h))
	line("Tags", strings.Join(h.Tags, ", "))
	line("Credentials", strings.Join(h.Credentials, ", "))
	line("Stream", h.Stream)
	if h.Batch > 0 {
		line("Batch", fmt.Sprintf("up to %d, waiting for %v", h.Batch, seconds(h.Wait)))
	}
	line("Status", string(h.Status))
	line("Reason", h.Reason)
	p := h.Progress
	if p == nil {
		return
	}
	line("Sent", fmt.Sprintf("%d events", p.Sent))
	if p.Delivered != nil {
		line("Last taken", stamp(*p.Delivered))
	}
	if p.Failing != nil {
		line("Failing", fmt.Sprintf("since %s, %d requests", stamp(*p.Failing), p.Failures))
	}
	if p.Next != nil {
		line("Next try", stamp(*p.Next))
	}
	if p.Aside > 0 {
		line("Aside", fmt.Sprintf("%d messages, whose events are refused while others are taken", p.Aside))
	}
	line("Sent by", p.Node)
}
