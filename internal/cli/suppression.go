package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
)

func suppressionCommand() command {
	return command{name: "suppression", args: "add ADDRESS… | list | remove ADDRESS… | import FILE | export", short: "addresses that an account must not send to",
		example: `
postrider suppression add -note "asked by phone" ann@example.com
postrider suppression add @example.net           # the whole domain
postrider suppression add -stream broadcast -reason unsubscribe ann@example.com
postrider suppression list -text example.com
postrider suppression remove ann@example.com
postrider suppression import bounces.csv         # of SendGrid, Mailgun, Postmark, SES, …; - is standard input
postrider suppression export > suppressions.csv`,
		run: runSuppression}
}

func runSuppression(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	p.accountFlag(fs)
	reason := fs.String("reason", "", "add, list, export: `reason`; import: that of all lines, whatever they say: manual, bounce, soft-bounce, complaint or unsubscribe")
	stream := fs.String("stream", "", "`stream`: transactional or broadcast; add, remove, import: for it alone; list, export: what holds for it")
	lasts := fs.String("for", "", "add: holds for this `time` only, such as 90d")
	confirm := fs.String("confirm", "", "remove: `complaint`: although the owner of the address called mail spam")
	note := fs.String("note", "", "add: `words` for people")
	text := fs.String("text", "", "list: `part` of the address")
	asJSON := fs.Bool("json", false, "print JSON; list: one object a line")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	verb, words, ok := verbs{"add": -1, "list": 0, "remove": -1, "import": 1, "export": 0}.of(rest)
	if !ok {
		return badUsage(e, fs, "add ADDRESS…, list, remove ADDRESS…, import FILE or export is wanted")
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	switch verb {
	case "import":
		return importSuppressions(ctx, e, c, words[0], api.NewSuppression{Reason: *reason, Stream: *stream}, *asJSON)
	case "list", "export":
		q := nonEmpty(map[string]string{"limit": "1000", "text": *text, "reason": *reason, "stream": *stream})
		if verb == "export" {
			return exportSuppressions(ctx, e, c, q)
		}
		return printList(ctx, e, c, "/v1/suppressions", q, *asJSON, "ADDRESS\tSTREAM\tREASON\tSINCE\tUNTIL\tNOTE", func(s api.Suppression) []string {
			until := "-"
			if !s.Expires.IsZero() {
				until = stamp(s.Expires)
			}
			return []string{s.Address, cmp.Or(s.Stream, "all"), s.Reason, stamp(s.Created), until, s.Note}
		})
	case "add":
		n := api.NewSuppression{Reason: *reason, Note: *note, Stream: *stream}
		if *lasts != "" {
			var d config.Duration
			if err := d.UnmarshalText([]byte(*lasts)); err != nil {
				return badUsage(e, fs, "-for: %v", err)
			}
			n.Expires = time.Now().Add(time.Duration(d)).UTC()
		}
		return addSuppressions(ctx, e, c, words, n, *asJSON)
	}
	return removeSuppressions(ctx, e, c, words, nonEmpty(map[string]string{"stream": *stream, "confirm": *confirm}), *asJSON)
}

// nonEmpty makes a query of what has a value.
func nonEmpty(all map[string]string) url.Values {
	q := url.Values{}
	for name, v := range all {
		if v != "" {
			q.Set(name, v)
		}
	}
	return q
}

// addSuppressions adds one like n for each address.
func addSuppressions(ctx context.Context, e *Env, c *api.Client, addresses []string, n api.NewSuppression, asJSON bool) error {
	var in api.NewSuppressions
	for _, n.Address = range addresses {
		in.Data = append(in.Data, n)
	}
	var out api.AddedSuppressions
	if err := c.Post(ctx, "/v1/suppressions", in, &out); err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Stdout, out)
	}
	fmt.Fprintf(e.Stdout, "%d new of %d.\n", out.Added, len(addresses))
	return nil
}

func removeSuppressions(ctx context.Context, e *Env, c *api.Client, addresses []string, q url.Values, asJSON bool) error {
	for i, a := range addresses {
		path := where("/v1/suppressions", a)
		if len(q) > 0 {
			path += "?" + q.Encode()
		}
		if err := c.Delete(ctx, path, nil); err != nil {
			if i > 0 {
				return fmt.Errorf("%d of %d are removed, those before %s: %w", i, len(addresses), clean(a), err)
			}
			return err
		}
	}
	if asJSON {
		return printJSON(e.Stdout, map[string]any{"removed": addresses})
	}
	fmt.Fprintf(e.Stdout, "Removed %d: mail is sent there again.\n", len(addresses))
	return nil
}

func auditCommand() command {
	return command{name: "audit", args: "", short: "who changed what, when and from where: the newest last",
		example: `
postrider audit -since 2d
postrider audit -action credential -n 20
postrider audit -account webshop -json`,
		run: runAudit}
}

func runAudit(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	p.accountFlag(fs)
	q := url.Values{}
	for name, doc := range map[string]string{"action": "only this `action`, such as credential.add, or credential for all of that kind", "object": "`id` or name of what was changed",
		"user": "`id` of the user who did it", "credential": "`id` of the key that was used"} {
		fs.Func(name, doc, func(v string) error { q.Set(name, v); return nil })
	}
	for name, doc := range map[string]string{"since": "at or after: a `time` or an age (90m, 2d, 1w)", "until": "before: a `time` or an age"} {
		fs.Func(name, doc, func(v string) error {
			t, err := parseTime(v, time.Now())
			q.Set(name, t.Format(time.RFC3339Nano))
			return err
		})
	}
	most := fs.Int("n", 100, "the greatest `number` to show, the newest ones; 0: all")
	asJSON := fs.Bool("json", false, "print one JSON object a line")
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	if *most < 0 {
		return badUsage(e, fs, "-n: %d is less than nothing", *most)
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	q.Set("limit", strconv.Itoa(min(page, max(1, *most+page*max(0, 1-*most)))))
	var found []api.Change
	err = api.All(ctx, c, "/v1/audit", q, func(v api.Change) error {
		found = append(found, v)
		if len(found) == *most {
			return errEnough
		}
		return nil
	})
	if err != nil && err != errEnough {
		return err
	}
	for i := len(found) - 1; i >= 0; i-- {
		v := found[i]
		if *asJSON {
			if err := printLine(e.Stdout, v); err != nil {
				return err
			}
			continue
		}
		from := v.Actor.Client
		if from == "" {
			from = "this machine"
		}
		fmt.Fprintf(e.Stdout, "%s  %-20s  %s  by %s from %s\n", stamp(v.At), v.Action, clean(v.Object), clean(v.Actor.Name), from)
		for _, side := range []struct {
			name string
			doc  []byte
		}{{"before", v.Before}, {"after ", v.After}} {
			if len(side.doc) > 0 {
				fmt.Fprintf(e.Stdout, "%s%s %s\n", in, side.name, clean(string(side.doc)))
			}
		}
	}
	return nil
}
