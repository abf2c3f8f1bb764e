package cli

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"text/tabwriter"

	"postrider/internal/api"
)

func senderCommand() command {
	return command{name: "sender", args: "add ADDRESS | list | remove ADDRESS", short: "verify single addresses, where no domain can be",
		example: `
postrider sender add ann@example.com             # sends a link there; again sends it again
postrider sender add -verified ann@example.com   # the operator's word is enough
postrider sender list
postrider sender remove ann@example.com`,
		run: runSender}
}

func runSender(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	p.accountFlag(fs)
	verified := fs.Bool("verified", false, "add: verify it at once, without a link; for operators")
	asJSON := fs.Bool("json", false, "print JSON; list: one object a line")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	verb := ""
	if len(rest) > 0 {
		verb = rest[0]
	}
	switch {
	case verb != "add" && verb != "list" && verb != "remove":
		return badUsage(e, fs, "say add, list or remove")
	case verb == "list" && len(rest) != 1:
		return badUsage(e, fs, "list takes no address")
	case verb != "list" && len(rest) != 2:
		return badUsage(e, fs, "name one address to %s", verb)
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	if verb == "list" {
		return listSenders(ctx, e, c, *asJSON)
	}
	var out api.Sender
	if verb == "add" {
		err = c.Post(ctx, "/v1/senders", api.NewSender{Address: rest[1], Verified: *verified}, &out)
	} else {
		err = c.Delete(ctx, "/v1/senders/"+url.PathEscape(rest[1]), &out)
	}
	switch {
	case err != nil:
		return err
	case *asJSON:
		return printJSON(e.Stdout, out)
	case verb == "remove":
		fmt.Fprintf(e.Stdout, "Removed %s.\n", clean(out.Address))
	case out.Verified != nil:
		fmt.Fprintf(e.Stdout, "%s is verified: mail may be sent from it.\n", clean(out.Address))
	default:
		fmt.Fprintf(e.Stdout, "A mail with a link is on its way to %s. It is good for a week.\n", clean(out.Address))
	}
	return nil
}

func listSenders(ctx context.Context, e *Env, c *api.Client, asJSON bool) error {
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	if !asJSON {
		fmt.Fprintln(w, "ADDRESS\tASKED\tVERIFIED")
	}
	err := api.All(ctx, c, "/v1/senders", nil, func(s api.Sender) error {
		if asJSON {
			return printLine(e.Stdout, s)
		}
		verified := "not yet"
		if s.Verified != nil {
			verified = stamp(*s.Verified)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", clean(s.Address), stamp(s.Asked), verified)
		return nil
	})
	if err != nil {
		return err
	}
	return w.Flush()
}
