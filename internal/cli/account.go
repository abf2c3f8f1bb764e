package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"postrider/internal/api"
	"postrider/internal/relay"
)

func accountCommand() command {
	return command{name: "account", args: "add NAME | list | show NAME | set NAME | close NAME", short: "make and change accounts: tenants that have all else",
		example: `
postrider account add webshop
postrider account add -plan small -account agency customer-1   # below the account agency
postrider account set -status blocked -reason "unpaid" webshop
postrider account set -limit "1000 recipients/hour,20000 recipients/day" webshop
postrider account set -senders any printers     # may send in anybody's name
postrider account list
postrider account close webshop`,
		run: runAccount}
}

// changes are flags that were given: pointers to their values.
type changes struct{ given map[string]bool }

func given(fs *flag.FlagSet) changes {
	c := changes{map[string]bool{}}
	fs.Visit(func(f *flag.Flag) { c.given[f.Name] = true })
	return c
}

// ifGiven is a pointer to the flag's value, or nil.
func ifGiven[T, U any](c changes, name string, v T, as func(T) U) *U {
	if !c.given[name] {
		return nil
	}
	u := as(v)
	return &u
}

func same[T any](v T) T { return v }

func runAccount(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	var title, plan, status, reason, senders, dns, suppressed, track, limit string
	var daily int64
	p.clientFlags(fs)
	p.accountFlag(fs)
	fs.StringVar(&title, "title", "", "add, set: `name` that recipients see where they unsubscribe; else the domain that mail is from")
	fs.StringVar(&plan, "plan", "", "add, set: `name` of a plan")
	fs.StringVar(&status, "status", "", "add, set: `status`: active, sandbox (sends to its own verified addresses) or blocked")
	fs.StringVar(&reason, "reason", "", "add, set: `why`; who is refused is told it")
	fs.StringVar(&senders, "senders", "", "add, set: in whose `names` it may send: verified or any")
	fs.StringVar(&dns, "dns", "", "add, set: `what` becomes of mail of domains with broken records: warn or refuse")
	fs.StringVar(&suppressed, "suppressed", "", "add, set: `what` becomes of suppressed recipients: drop or refuse")
	fs.StringVar(&track, "track", "", "add, set: `what` is tracked of mail that nothing else is said of: opens, clicks, text; off: nothing of any mail")
	fs.StringVar(&limit, "limit", "", "add, set: `limits`, separated by commas: \"1000 recipients/hour,10 messages/second burst 50\"; \"\" for none")
	fs.Int64Var(&daily, "daily", 0, "set: `recipients` a day, for a new account that grows; 0: grown up")
	logDays := fs.Int("log-days", 0, "set: for how many `days` the log is kept; 0: as the plan says, -1: for ever")
	contentDays := fs.Int("content-days", 0, "set: for how many `days` archived content is kept; 0: as the plan says, -1: for ever")
	open := fs.Bool("open", false, "set: open a closed account again")
	asJSON := fs.Bool("json", false, "print JSON; list: one object a line")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	verb, words, ok := verbs{"add": 1, "list": 0, "show": 1, "set": 1, "close": 1}.of(rest)
	if !ok {
		return badUsage(e, fs, "add NAME, list, show NAME, set NAME or close NAME is wanted")
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	if verb == "list" {
		return printList(ctx, e, c, "/v1/accounts", nil, *asJSON, "NAME\tID\tSTATUS\tPLAN\tLIMITS\tCREATED\tPARENT", func(a api.Account) []string {
			return []string{a.Name, a.ID, accountStatus(a), a.Plan, strings.Join(a.Limits, ", "), stamp(a.Created), a.Parent}
		})
	}
	var out api.Account
	switch verb {
	case "add":
		err = c.Post(ctx, "/v1/accounts", api.NewAccount{Name: words[0], Title: title, Plan: plan, Status: relay.Status(status), Reason: reason, Senders: relay.SenderRule(senders),
			DNS: relay.DNSRule(dns), Muted: relay.SuppressRule(suppressed), Track: relay.Track(track), Limits: split(limit)}, &out)
	case "show":
		err = c.Get(ctx, where("/v1/accounts", words[0]), nil, &out)
	case "set":
		g := given(fs)
		err = c.Patch(ctx, where("/v1/accounts", words[0]), api.AccountChange{Title: ifGiven(g, "title", title, same), Plan: ifGiven(g, "plan", plan, same), Reason: ifGiven(g, "reason", reason, same),
			Status:  ifGiven(g, "status", status, func(s string) relay.Status { return relay.Status(s) }),
			Senders: ifGiven(g, "senders", senders, func(s string) relay.SenderRule { return relay.SenderRule(s) }),
			DNS:     ifGiven(g, "dns", dns, func(s string) relay.DNSRule { return relay.DNSRule(s) }),
			Muted:   ifGiven(g, "suppressed", suppressed, func(s string) relay.SuppressRule { return relay.SuppressRule(s) }),
			Track:   ifGiven(g, "track", track, func(s string) relay.Track { return relay.Track(s) }),
			Limits:  ifGiven(g, "limit", limit, func(s string) []string { return orNone(split(s)) }), Daily: ifGiven(g, "daily", daily, same),
			LogDays: ifGiven(g, "log-days", *logDays, same), ContentDays: ifGiven(g, "content-days", *contentDays, same),
			Closed: ifGiven(g, "open", *open, func(open bool) bool { return !open })}, &out)
	case "close":
		err = c.Delete(ctx, where("/v1/accounts", words[0]), &out)
	}
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(e.Stdout, out)
	}
	return printAccount(e.Stdout, out)
}

func accountStatus(a api.Account) string {
	if a.Closed != nil {
		return "closed " + stamp(*a.Closed)
	}
	return string(a.Status)
}

func printAccount(out io.Writer, a api.Account) error {
	daily := ""
	if a.Daily > 0 {
		daily = strconv.FormatInt(a.Daily, 10) + " recipients a day for now"
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, line := range [][2]string{{"Account", a.Name}, {"Id", a.ID}, {"Title", a.Title}, {"Parent", a.Parent}, {"Status", accountStatus(a)}, {"Reason", a.Reason}, {"Plan", a.Plan},
		{"Senders", string(a.Senders)}, {"DNS", string(a.DNS)}, {"Suppressed", string(a.Muted)}, {"Tracked", string(a.Track)}, {"Limits", strings.Join(a.Limits, ", ")}, {"New", daily}, {"Log kept", days(a.LogDays)}, {"Content kept", days(a.ContentDays)}, {"Created", stamp(a.Created)}} {
		if line[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", line[0], clean(line[1]))
		}
	}
	return w.Flush()
}

// days says for how long something is kept; nothing where it is not said.
func days(n int) string {
	switch {
	case n == 0:
		return ""
	case n < 0:
		return "for ever"
	}
	return strconv.Itoa(n) + " days"
}

func planCommand() command {
	return command{name: "plan", args: "list | set NAME | remove NAME", short: "sets of limits that accounts share",
		example: `
postrider plan set -limit "10000 recipients/month,1000 recipients/hour" -start 200 -log-days 45 small
postrider plan list
postrider plan remove small`,
		run: runPlan}
}

func runPlan(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	var in api.NewPlan
	p.clientFlags(fs)
	limit := fs.String("limit", "", "set: all `limits` of the plan, separated by commas")
	fs.Int64Var(&in.Start, "start", 0, "set: `recipients` a day that a new account begins with, and that double with each good day; 0: at once all")
	fs.IntVar(&in.LogDays, "log-days", 0, "set: for how many `days` logs are kept; 0: as the configuration says, -1: for ever")
	fs.IntVar(&in.ContentDays, "content-days", 0, "set: for how many `days` archived content is kept; 0: as the configuration says, -1: for ever")
	asJSON := fs.Bool("json", false, "print JSON; list: one object a line")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	verb, words, ok := verbs{"list": 0, "set": 1, "remove": 1}.of(rest)
	if !ok {
		return badUsage(e, fs, "list, set NAME or remove NAME is wanted")
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	switch verb {
	case "list":
		return printList(ctx, e, c, "/v1/plans", nil, *asJSON, "NAME\tLIMITS\tSTART\tLOG KEPT", func(p api.Plan) []string {
			return []string{p.Name, strings.Join(p.Limits, ", "), strconv.FormatInt(p.Start, 10), days(p.LogDays)}
		})
	case "remove":
		if err := c.Delete(ctx, where("/v1/plans", words[0]), nil); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(e.Stdout, map[string]string{"removed": words[0]})
		}
		fmt.Fprintf(e.Stdout, "Removed the plan %s.\n", clean(words[0]))
		return nil
	}
	var out api.Plan
	in.Limits = split(*limit)
	if err := c.Put(ctx, where("/v1/plans", words[0]), in, &out); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(e.Stdout, out)
	}
	fmt.Fprintf(e.Stdout, "Plan %s: %s.\n", clean(out.Name), clean(strings.Join(out.Limits, ", ")))
	return nil
}

func limitCommand() command {
	return command{name: "limit", args: "", short: "show the limits of an account, and what is used up",
		example: `
postrider limit
postrider limit -account webshop
postrider limit -account webshop -credential crm -json`,
		run: runLimit}
}

func runLimit(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	p.accountFlag(fs)
	credential := fs.String("credential", "", "id, user name or `name` of a credential whose limits count too")
	asJSON := fs.Bool("json", false, "print one JSON object a line")
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	q := map[string][]string{}
	if *credential != "" {
		q["credential"] = []string{*credential}
	}
	return printList(ctx, e, c, "/v1/limits", q, *asJSON, "LIMIT\tOF\tUSED\tBEGINS ANEW", func(l api.LimitState) []string {
		used, reset := "-", "-"
		if l.Reset != nil {
			used, reset = strconv.FormatInt(l.Used, 10), stamp(*l.Reset)
		}
		return []string{l.Limit, l.Whose, used, reset}
	})
}
