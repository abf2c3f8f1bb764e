package cli

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postrider/internal/alert"
	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/relay"
)

func alertCommand() command {
	return command{name: "alert", args: "list | show ID | ack ID | mute ID | rules | set KIND | channel add mail|webhook|slack TO | channel list | channel test ID | channel remove ID",
		short: "what is wrong, and who is told of it",
		example: `
postrider alert list                                      # what is wrong now
postrider alert list -state all
postrider alert ack ID                                    # somebody looks after it: no reminders
postrider alert mute -for 8h ID
postrider alert rules
postrider alert set -warning 3 -critical 8 bounce-rate
postrider alert set -off quota
postrider alert channel add mail ops@example.com
postrider alert channel add webhook https://example.com/alerts   # prints the secret, once
postrider alert channel add slack https://hooks.slack.com/services/…
postrider alert channel test ID`,
		run: runAlert}
}

// alertFlags are those of all the verbs.
type alertFlags struct {
	place
	json              bool
	state, kind, name string
	lasts             config.Duration
	warning, critical float64
	least             int64
	windows           string
	off, reset        bool
}

func (f *alertFlags) parse(e *Env, fs *flag.FlagSet, args []string) ([]string, error) {
	f.clientFlags(fs)
	f.accountFlag(fs)
	fs.BoolVar(&f.json, "json", false, "print JSON; list: one object a line")
	fs.StringVar(&f.state, "state", "open", "list: `which`: open, ended or all")
	fs.StringVar(&f.kind, "kind", "", "list: only of this `kind`, such as bounce-rate")
	fs.StringVar(&f.name, "name", "", "channel add: a `name` for people")
	fs.TextVar(&f.lasts, "for", config.Duration(24*time.Hour), "mute: for how `long`; 0 ends it")
	fs.Float64Var(&f.warning, "warning", 0, "set: the `percent` that is a warning")
	fs.Float64Var(&f.critical, "critical", 0, "set: the `percent` that is critical")
	fs.Int64Var(&f.least, "least", 0, "set: there is no rate of fewer than so `many`")
	fs.StringVar(&f.windows, "window", "", "set: the `spans` that are looked at, separated by commas: 15m, 30m, 1h, 6h, 24h")
	fs.BoolVar(&f.off, "off", false, "set: nobody is alerted of it")
	fs.BoolVar(&f.reset, "reset", false, "set: as the relay's configuration says again")
	return parse(e, fs, args)
}

func runAlert(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var f alertFlags
	rest, err := f.parse(e, fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 && rest[0] == "channel" {
		return f.channel(ctx, e, fs, rest[1:])
	}
	verb, words, ok := verbs{"list": 0, "show": 1, "ack": 1, "mute": 1, "rules": 0, "set": 1}.of(rest)
	if !ok {
		return badUsage(e, fs, "list, rules, set KIND, or show, ack or mute with an ID, or channel is wanted")
	}
	c, err := f.client()
	if err != nil {
		return err
	}
	switch verb {
	case "list":
		q := url.Values{"limit": {"1000"}, "state": {f.state}}
		if f.kind != "" {
			q.Set("kind", f.kind)
		}
		return printList(ctx, e, c, "/v1/alerts", q, f.json, "ID\tSINCE\tENDED\tSEVERITY\tKIND\tTITLE", func(a api.Alert) []string {
			end := ""
			if a.Ended != nil {
				end = stamp(*a.Ended)
			}
			return []string{a.ID, stamp(a.Opened), end, string(a.Severity), string(a.Kind), a.Title}
		})
	case "rules", "set":
		return f.rules(ctx, e, c, words)
	}
	var out api.Alert
	path := where("/v1/alerts", words[0])
	switch verb {
	case "show":
		err = c.Get(ctx, path, nil, &out)
	case "ack":
		err = c.Post(ctx, path+"/acknowledge", nil, &out)
	case "mute":
		err = c.Post(ctx, path+"/mute", api.AlertMute{Until: time.Now().Add(time.Duration(f.lasts))}, &out)
	}
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(e.Stdout, out)
	}
	showAlert(e, out)
	return nil
}

func showAlert(e *Env, a api.Alert) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(e.Stdout, "%-13s %s\n", name, clean(value))
		}
	}
	at := func(name string, t *time.Time) {
		if t != nil {
			line(name, stamp(*t))
		}
	}
	line("Alert", a.ID)
	line("Account", a.Account)
	line("Kind", string(a.Kind))
	line("About", a.Subject)
	line("Severity", string(a.Severity))
	line("Since", stamp(a.Opened))
	at("Ended", a.Ended)
	at("Acknowledged", a.Taken)
	line("By", a.TakenBy)
	if a.Muted != nil && a.Muted.After(time.Now()) {
		at("Muted until", a.Muted)
	}
	line("Title", a.Title)
	line("Seen", a.Text)
	line("To do", a.Advice)
	for _, f := range a.Figures {
		line("  "+f.Name, f.Value)
	}
	for _, t := range a.Told {
		to, how := t.To, "given up"
		if to == "" {
			to = t.Channel
		}
		switch {
		case t.Sent != nil:
			how = "sent " + stamp(*t.Sent)
		case t.Next != nil:
			how = "next try " + stamp(*t.Next)
		}
		if t.Error != "" {
			how += ": " + t.Error
		}
		line("Told", fmt.Sprintf("%s by %s to %s, %s", t.News, t.Kind, to, how))
	}
}

// rules shows the rules, or changes one before.
func (f *alertFlags) rules(ctx context.Context, e *Env, c *api.Client, words []string) error {
	var out api.AlertRuleList
	var err error
	if len(words) > 0 {
		r := api.AlertRule{Kind: relay.AlertKind(words[0]), On: !f.off, Warning: f.warning, Critical: f.critical, Least: f.least, Windows: split(f.windows), Reset: f.reset}
		err = c.Patch(ctx, "/v1/alert-rules", api.AlertRuleList{Rules: []api.AlertRule{r}}, &out)
	} else {
		err = c.Get(ctx, "/v1/alert-rules", nil, &out)
	}
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(e.Stdout, out)
	}
	number := func(v float64) string {
		if v == 0 {
			return ""
		}
		return strconv.FormatFloat(v, 'f', -1, 64) + " %"
	}
	return printTable(e, "KIND\tON\tWARNING\tCRITICAL\tLEAST\tWINDOWS\tSET BY", out.Rules, func(r api.AlertRule) []string {
		on, least, by := "yes", "", "the relay"
		if !r.On {
			on = "no"
		}
		if r.Least > 0 {
			least = strconv.FormatInt(r.Least, 10)
		}
		if r.Own {
			by = "the account"
		}
		return []string{string(r.Kind), on, number(r.Warning), number(r.Critical), least, strings.Join(r.Windows, ", "), by}
	})
}

// channel looks after where alerts are sent.
func (f *alertFlags) channel(ctx context.Context, e *Env, fs *flag.FlagSet, rest []string) error {
	verb, words, ok := verbs{"add": 2, "list": 0, "test": 1, "remove": 1}.of(rest)
	if !ok {
		return badUsage(e, fs, "channel add mail|webhook|slack TO, channel list, or channel test or remove with an ID is wanted")
	}
	c, err := f.client()
	if err != nil {
		return err
	}
	switch verb {
	case "list":
		return printList(ctx, e, c, "/v1/alert-channels", url.Values{"limit": {"1000"}}, f.json, "ID\tKIND\tTO\tNAME\tSENT\tFAILING", func(h api.AlertChannel) []string {
			failing := ""
			if h.Failing != nil {
				failing = "since " + stamp(*h.Failing) + ": " + h.Error
			}
			return []string{h.ID, string(h.Kind), h.To, h.Name, strconv.FormatInt(h.Sent, 10), failing}
		})
	case "remove":
		if err := c.Delete(ctx, where("/v1/alert-channels", words[0]), nil); err != nil || f.json {
			return err
		}
		fmt.Fprintln(e.Stdout, "Removed.")
		return nil
	case "test":
		return testPost(ctx, e, c, where("/v1/alert-channels", words[0])+"/test", f.json)
	}
	var out api.AddedAlertChannel
	if err := c.Post(ctx, "/v1/alert-channels", alert.Wish{Kind: relay.ChannelKind(words[0]), To: words[1], Name: f.name}, &out); err != nil {
		return err
	}
	if f.json {
		return printJSON(e.Stdout, out)
	}
	fmt.Fprintf(e.Stdout, "Channel   %s\n", out.ID)
	if out.Secret != "" {
		fmt.Fprintf(e.Stdout, "Secret    %s\nRequests are signed with it as Standard Webhooks has it. It is not shown again.\n", out.Secret)
	}
	return nil
}
