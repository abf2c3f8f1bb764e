package cli

import (
	"context"
	"flag"
	"fmt"
	"net/url"

	"postrider/internal/api"
)

func untrackedCommand() command {
	return command{name: "untracked", args: "add ADDRESS… | list | remove ADDRESS…", short: "addresses whose opens and clicks are not tracked",
		example: `
postrider untracked add -note "asked for it" ann@example.com
postrider untracked add @example.net             # the whole domain
postrider untracked list
postrider untracked remove ann@example.com`,
		run: runUntracked}
}

func runUntracked(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	p.accountFlag(fs)
	note := fs.String("note", "", "add: `words` for people")
	text := fs.String("text", "", "list: `part` of the address")
	asJSON := fs.Bool("json", false, "print JSON; list: one object a line")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	verb, words, ok := verbs{"add": -1, "list": 0, "remove": -1}.of(rest)
	if !ok {
		return badUsage(e, fs, "add ADDRESS…, list or remove ADDRESS… is wanted")
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	switch verb {
	case "list":
		q := url.Values{"limit": {"1000"}}
		if *text != "" {
			q.Set("text", *text)
		}
		return printList(ctx, e, c, "/v1/untracked", q, *asJSON, "ADDRESS\tSINCE\tNOTE", func(u api.Untracked) []string {
			return []string{u.Address, stamp(u.Created), u.Note}
		})
	case "add":
		added := 0
		for _, a := range words {
			var out api.AddedUntracked
			if err := c.Post(ctx, "/v1/untracked", api.NewUntracked{Address: a, Note: *note}, &out); err != nil {
				return err
			}
			if out.Added {
				added++
			}
		}
		if *asJSON {
			return printJSON(e.Stdout, map[string]any{"added": added})
		}
		fmt.Fprintf(e.Stdout, "%d new of %d.\n", added, len(words))
	case "remove":
		for _, a := range words {
			if err := c.Delete(ctx, where("/v1/untracked", a), nil); err != nil {
				return err
			}
		}
		if *asJSON {
			return printJSON(e.Stdout, map[string]any{"removed": words})
		}
		fmt.Fprintf(e.Stdout, "Removed %d.\n", len(words))
	}
	return nil
}
