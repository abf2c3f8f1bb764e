package cli

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"postrider/internal/api"
	"postrider/internal/relay"
)

func credentialCommand() command {
	return command{name: "credential", args: "add NAME | list | revoke ID|USER|NAME", short: "make, list and revoke what apps and devices log in with",
		example: `
postrider credential add webshop
postrider credential add -kind key billing
postrider credential add -kind network -network 192.168.7.0/24 -repair-lf scanners
postrider credential add -user olduser -password-stdin legacy < password.txt
postrider credential list
postrider credential revoke webshop`,
		run: runCredential}
}

func runCredential(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.flags(fs)
	var add api.NewCredential
	var networks, senders string
	var passwordStdin bool
	fs.StringVar(&add.Kind, "kind", "smtp", "add: `kind`: smtp (user and password), key (API key) or network (addresses that need no password)")
	fs.StringVar(&add.User, "user", "", "add smtp: user `name` to bring along; else one is made")
	fs.BoolVar(&passwordStdin, "password-stdin", false, "add smtp: read a password to bring along from standard input; else one is made")
	fs.StringVar(&networks, "network", "", "add network: `networks`, separated by commas")
	fs.StringVar(&senders, "sender", "", "add: allowed envelope senders, `addresses` or domains, separated by commas; else any")
	fs.StringVar(&add.Stream, "stream", "transactional", "add: `stream`: transactional or broadcast; transactional mail overtakes broadcast")
	fs.BoolVar(&add.RepairLF, "repair-lf", false, "add: repair bare line feeds, as old scanners send them")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return badUsage(e, fs, "add, list or revoke is wanted")
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	add.Networks, add.Senders = split(networks), split(senders)
	switch verb := rest[0]; {
	case verb == "add" && len(rest) == 2:
		if !slices.Contains([]string{"smtp", "key", "network"}, add.Kind) {
			return badUsage(e, fs, "-kind: %q is not smtp, key or network", add.Kind)
		}
		if _, err := relay.ParseStream(add.Stream); err != nil {
			return badUsage(e, fs, "-stream: %v: transactional or broadcast", err)
		}
		add.Name = rest[1]
		if passwordStdin {
			// One that ends without a newline is a password too.
			line, err := bufio.NewReader(e.Stdin).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read password: %w", err)
			}
			if add.Password = strings.TrimRight(line, "\r\n"); add.Password == "" {
				return errors.New("no password on standard input")
			}
		}
		return addCredential(ctx, e, c, add, *asJSON)
	case verb == "list" && len(rest) == 1:
		return listCredentials(ctx, e, c, *asJSON)
	case verb == "revoke" && len(rest) == 2:
		var out api.Credential
		if err := c.Delete(ctx, "/v1/credentials/"+url.PathEscape(rest[1]), &out); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(e.Stdout, out)
		}
		fmt.Fprintf(e.Stdout, "Revoked %s %q (%s).\n", out.Kind, out.Name, out.ID)
		return nil
	default:
		return badUsage(e, fs, "add NAME, list, or revoke NAME is wanted, not %q", strings.Join(rest, " "))
	}
}

func addCredential(ctx context.Context, e *Env, c *api.Client, add api.NewCredential, asJSON bool) error {
	var out api.AddedCredential
	if err := c.Post(ctx, "/v1/credentials", add, &out); err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Stdout, out)
	}
	switch {
	case out.Kind == "network":
		fmt.Fprintf(e.Stdout, "Clients in %s need no password now.\n", strings.Join(out.Networks, ", "))
	case out.Kind == "key":
		fmt.Fprintf(e.Stdout, "API key   %s\nOver SMTP it is the password, with any user name. It is not shown again.\n", out.Secret)
	case out.Secret == "":
		fmt.Fprintf(e.Stdout, "User      %s\nPassword  the one you brought along\n", out.User)
	default:
		fmt.Fprintf(e.Stdout, "User      %s\nPassword  %s\nThe password is not shown again.\n", out.User, out.Secret)
	}
	return nil
}

func listCredentials(ctx context.Context, e *Env, c *api.Client, asJSON bool) error {
	all := []api.Credential{}
	err := api.All(ctx, c, "/v1/credentials", nil, func(c api.Credential) error { all = append(all, c); return nil })
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Stdout, all)
	}
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tKIND\tNAME\tUSER OR NETWORK\tSTREAM\tCREATED\tSTATUS\tSPECIAL")
	for _, c := range all {
		status := "live"
		if c.Revoked != nil {
			status = "revoked " + stamp(*c.Revoked)
		}
		who := c.User
		if len(c.Networks) > 0 {
			who = strings.Join(c.Networks, ",")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.ID, c.Kind, clean(c.Name), clean(who), c.Stream, stamp(c.Created), status, special(c))
	}
	return w.Flush()
}

// special is what a credential has beyond the usual.
func special(c api.Credential) string {
	var s []string
	if len(c.Senders) > 0 {
		s = append(s, "sends as "+clean(strings.Join(c.Senders, ", ")))
	}
	if c.RepairLF {
		s = append(s, "bare line feeds repaired")
	}
	return strings.Join(s, "; ")
}

func split(list string) []string {
	var out []string
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
