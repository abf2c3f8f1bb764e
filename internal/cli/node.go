package cli

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"text/tabwriter"
	"time"

	"postrider/internal/api"
)

func nodeCommand() command {
	return command{name: "node", args: "list | drain [-undo] NAME", short: "show the nodes that share the store; drain one",
		example: `
postrider node list
postrider node list -json
postrider node drain relay-2        # before its machine is stopped
postrider node drain -undo relay-2`,
		run: runNode}
}

func runNode(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	undo := fs.Bool("undo", false, "drain: let the node work again")
	asJSON := fs.Bool("json", false, "print JSON: list one object a line, drain what was ordered")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	do := ""
	if len(rest) > 0 {
		do = rest[0]
	}
	switch {
	case do != "list" && do != "drain":
		return badUsage(e, fs, "say list or drain")
	case do == "list" && (len(rest) > 1 || *undo):
		return badUsage(e, fs, "list takes no name and no -undo")
	case do == "drain" && len(rest) != 2:
		return badUsage(e, fs, "name the node to drain; \"postrider node list\" shows them")
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	if do == "drain" {
		return drainNode(ctx, e, c, rest[1], *undo, *asJSON)
	}
	return listNodes(ctx, e, c, *asJSON)
}

func listNodes(ctx context.Context, e *Env, c *api.Client, asJSON bool) error {
	var all api.List[api.Node]
	if err := c.Get(ctx, "/v1/nodes", nil, &all); err != nil {
		return err
	}
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	if !asJSON {
		fmt.Fprintln(w, "NAME\tSTATE\tVERSION\tSINCE\tLAST HEARD\tIN HAND")
	}
	for _, n := range all.Data {
		if asJSON {
			if err := printLine(e.Stdout, n); err != nil {
				return err
			}
			continue
		}
		name := n.Name
		if n.Self {
			name += " (this one)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s ago\t%d\n", name, n.State, n.Version, stamp(n.Joined), took(time.Duration(n.Silent*float64(time.Second))), n.InHand)
	}
	return w.Flush()
}

// drained is what a node was ordered.
type drained struct {
	Name     string `json:"name"`
	Draining bool   `json:"draining"`
}

func drainNode(ctx context.Context, e *Env, c *api.Client, name string, undo, asJSON bool) error {
	path := "/v1/nodes/" + url.PathEscape(name) + "/drain"
	if undo {
		if err := c.Delete(ctx, path, nil); err != nil {
			return err
		}
		if asJSON {
			return printLine(e.Stdout, drained{name, false})
		}
		fmt.Fprintf(e.Stdout, "%s works again, within two seconds.\n", name)
		return nil
	}
	if err := c.Post(ctx, path, nil, nil); err != nil {
		return err
	}
	if asJSON {
		return printLine(e.Stdout, drained{name, true})
	}
	fmt.Fprintf(e.Stdout, "%s drains, within two seconds: it takes no more mail, gives back what it has not begun, and ends what is under way.\n"+
		"When \"postrider node list\" shows nothing in its hand, it can be stopped. -undo, or a restart, lets it work again.\n", name)
	return nil
}
