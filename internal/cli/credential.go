package cli

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/relay"
)

func credentialCommand() command {
	return command{name: "credential", args: "add NAME | list | show NAME | set NAME | rotate NAME | block NAME | unblock NAME | revoke NAME", short: "what apps and devices log in with: make, change, rotate, revoke",
		example: `
postrider credential add webshop
postrider credential add -kind key -scope send,read -limit "1000 recipients/hour" billing
postrider credential add -kind network -network 192.168.7.0/24 -repair-lf scanners
postrider credential add -user olduser -password-stdin legacy < password.txt
postrider credential list
postrider credential set -sender shop.example webshop
postrider credential rotate webshop              # the old secret is good for a day yet
postrider credential block -reason "runs wild" webshop
postrider credential revoke webshop`,
		run: runCredential}
}

// credentialFlags are those of all its verbs.
type credentialFlags struct {
	place
	add                                             api.NewCredential
	networks, senders, scopes, limit, reason, until string
	overlap                                         config.Duration
	passwordStdin, json                             bool
}

func (f *credentialFlags) register(fs *flag.FlagSet) {
	f.clientFlags(fs)
	f.accountFlag(fs)
	fs.StringVar(&f.add.Kind, "kind", "smtp", "add: `kind`: smtp (user and password), key (API key) or network (addresses that need no password)")
	fs.StringVar(&f.add.User, "user", "", "add smtp: user `name` to bring along; else one is made")
	fs.BoolVar(&f.passwordStdin, "password-stdin", false, "add smtp: read a password to bring along from standard input; else one is made")
	fs.StringVar(&f.networks, "network", "", "add, set network: `networks`, separated by commas")
	fs.StringVar(&f.senders, "sender", "", "add, set: allowed senders, `addresses` or domains, separated by commas; else all of the account's")
	fs.StringVar(&f.scopes, "scope", "", "add, set key: `scopes`, separated by commas: send, read, manage; else send")
	fs.StringVar(&f.limit, "limit", "", "add, set: `limits`, separated by commas: \"1000 recipients/hour,10 messages/second burst 50\"; \"\" for none")
	fs.StringVar(&f.add.Stream, "stream", "transactional", "add, set: `stream`: transactional or broadcast; transactional mail overtakes broadcast")
	fs.StringVar(&f.add.Pool, "pool", "", "add, set: `pool` of source addresses")
	fs.BoolVar(&f.add.RepairLF, "repair-lf", false, "add, set: repair bare line feeds, as old scanners send them")
	fs.BoolVar(&f.add.Archive, "archive", false, "add, set: keep content after the last delivery")
	fs.BoolVar(&f.add.Opens, "opens", false, "add, set: track opens of its HTML mail; the relay needs [tracking] listen")
	fs.BoolVar(&f.add.Clicks, "clicks", false, "add, set: track links in its HTML mail; likewise")
	fs.StringVar(&f.add.Group, "group", "", "add, set: `id` of the unsubscribe group of mail that names none; \"\" for none")
	fs.StringVar(&f.until, "expires", "", "add, set: `time` at which it ends: 2026-12-31; \"never\" takes it back")
	fs.StringVar(&f.reason, "reason", "", "block: `why`; who is refused is told it")
	fs.TextVar(&f.overlap, "overlap", config.Duration(24*time.Hour), "rotate: how `long` the old secret is good yet: 24h, 7d, 0")
	fs.BoolVar(&f.json, "json", false, "print JSON; list: one object a line")
}

func runCredential(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var f credentialFlags
	f.register(fs)
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	verb, words, ok := verbs{"add": 1, "list": 0, "show": 1, "set": 1, "rotate": 1, "block": 1, "unblock": 1, "revoke": 1}.of(rest)
	if !ok {
		return badUsage(e, fs, "add NAME, list, or show, set, rotate, block, unblock or revoke with a NAME is wanted, not %q", strings.Join(rest, " "))
	}
	if !slices.Contains([]string{"smtp", "key", "network"}, f.add.Kind) {
		return badUsage(e, fs, "-kind: %q is not smtp, key or network", f.add.Kind)
	}
	if _, err := relay.ParseStream(f.add.Stream); err != nil {
		return badUsage(e, fs, "-stream: %v: transactional or broadcast", err)
	}
	if f.until != "" && f.until != "never" {
		if f.add.Expires, err = parseTime(f.until, time.Now()); err != nil {
			return badUsage(e, fs, "-expires: %v", err)
		}
	}
	for _, s := range split(f.scopes) {
		f.add.Scopes = append(f.add.Scopes, relay.Scope(s))
	}
	f.add.Networks, f.add.Senders, f.add.Limits = split(f.networks), split(f.senders), split(f.limit)
	c, err := f.client()
	if err != nil {
		return err
	}
	switch verb {
	case "add":
		f.add.Name = words[0]
		if f.passwordStdin {
			if f.add.Password, err = readPassword(e); err != nil {
				return err
			}
		}
		return addCredential(ctx, e, c, f.add, f.json)
	case "list":
		return listCredentials(ctx, e, c, f.json)
	case "rotate":
		var out api.AddedCredential
		if err := c.Post(ctx, where("/v1/credentials", words[0])+"/rotate", map[string]int64{"overlap": int64(time.Duration(f.overlap).Seconds())}, &out); err != nil {
			return err
		}
		return showSecret(e, out, f.json)
	}
	return f.one(ctx, e, c, verb, words[0], given(fs))
}

// one does what answers with the credential alone.
func (f *credentialFlags) one(ctx context.Context, e *Env, c *api.Client, verb, name string, g changes) error {
	var out api.Credential
	var err error
	path, did := where("/v1/credentials", name), map[string]string{"set": "Changed", "block": "Blocked", "unblock": "Unblocked", "revoke": "Revoked"}[verb]
	status := func(s relay.Status) *relay.Status { return &s }
	switch verb {
	case "show":
		err = c.Get(ctx, path, nil, &out)
	case "block":
		err = c.Patch(ctx, path, api.CredentialChange{Status: status(relay.Blocked), Reason: &f.reason}, &out)
	case "unblock":
		err = c.Patch(ctx, path, api.CredentialChange{Status: status(relay.Active), Reason: new(string)}, &out)
	case "revoke":
		err = c.Delete(ctx, path, &out)
	case "set":
		err = c.Patch(ctx, path, api.CredentialChange{Networks: ifGiven(g, "network", f.add.Networks, same), Senders: ifGiven(g, "sender", f.add.Senders, orNone), Scopes: ifGiven(g, "scope", f.add.Scopes, same),
			Limits: ifGiven(g, "limit", f.add.Limits, orNone), Stream: ifGiven(g, "stream", f.add.Stream, same), Pool: ifGiven(g, "pool", f.add.Pool, same),
			RepairLF: ifGiven(g, "repair-lf", f.add.RepairLF, same), Archive: ifGiven(g, "archive", f.add.Archive, same), Opens: ifGiven(g, "opens", f.add.Opens, same), Clicks: ifGiven(g, "clicks", f.add.Clicks, same), Group: ifGiven(g, "group", f.add.Group, same), Expires: ifGiven(g, "expires", f.add.Expires, same)}, &out)
	}
	if err != nil {
		return err
	}
	if f.json || verb == "show" {
		return printJSON(e.Stdout, out)
	}
	fmt.Fprintf(e.Stdout, "%s %s %q (%s).\n", did, out.Kind, out.Name, out.ID)
	if verb == "set" && (f.add.Opens || f.add.Clicks) {
		warnUntracked(ctx, e, c)
	}
	return nil
}

// warnUntracked says it where nothing can be tracked, as far as the caller may know.
func warnUntracked(ctx context.Context, e *Env, c *api.Client) {
	var s api.Status
	if err := c.Get(ctx, "/v1/status", nil, &s); err == nil && s.Listeners["tracking"] == "" {
		fmt.Fprintln(e.Stderr, "Nothing is tracked for now: the relay serves no links ([tracking] listen).")
	}
}

// orNone is a list that is there, if only to say that there is none.
func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// readPassword reads a line. One that ends without a newline is a password too.
func readPassword(e *Env) (string, error) {
	line, err := bufio.NewReader(e.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("no password on standard input")
	}
	return line, nil
}

func addCredential(ctx context.Context, e *Env, c *api.Client, add api.NewCredential, asJSON bool) error {
	var out api.AddedCredential
	if err := c.Post(ctx, "/v1/credentials", add, &out); err != nil {
		return err
	}
	if add.Opens || add.Clicks {
		warnUntracked(ctx, e, c)
	}
	return showSecret(e, out, asJSON)
}

// showSecret prints a secret, once.
func showSecret(e *Env, out api.AddedCredential, asJSON bool) error {
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
	return printList(ctx, e, c, "/v1/credentials", nil, asJSON, "ID\tKIND\tNAME\tUSER OR NETWORK\tSTREAM\tCREATED\tLAST USED\tSTATUS\tSPECIAL", func(c api.Credential) []string {
		who := c.User
		if len(c.Networks) > 0 {
			who = strings.Join(c.Networks, ",")
		}
		used := "never"
		if c.Used != nil {
			used = stamp(*c.Used)
		}
		return []string{c.ID, c.Kind, c.Name, who, c.Stream, stamp(c.Created), used, standingOf(c), special(c)}
	})
}

// standingOf tells whether a credential works.
func standingOf(c api.Credential) string {
	switch {
	case c.Revoked != nil:
		return "revoked " + stamp(*c.Revoked)
	case c.Expires != nil && time.Now().After(*c.Expires):
		return "expired " + stamp(*c.Expires)
	case c.Status == relay.Active:
		return "live"
	default:
		return string(c.Status)
	}
}

// special is what a credential has beyond the usual.
func special(c api.Credential) string {
	var s []string
	if len(c.Senders) > 0 {
		s = append(s, "sends as "+strings.Join(c.Senders, ", "))
	}
	if len(c.Scopes) > 0 {
		var scopes []string
		for _, v := range c.Scopes {
			scopes = append(scopes, string(v))
		}
		s = append(s, "may "+strings.Join(scopes, ", "))
	}
	if len(c.Limits) > 0 {
		s = append(s, "at most "+strings.Join(c.Limits, ", "))
	}
	if c.Previous != nil && time.Now().Before(*c.Previous) {
		s = append(s, "the secret before is good until "+stamp(*c.Previous))
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
