package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"postrider/internal/api"
	"postrider/internal/domain"
	"postrider/internal/relay"
)

func domainCommand() command {
	return command{name: "domain", args: "add NAME | list | show NAME | records NAME | check NAME | set NAME | rotate NAME | remove NAME | zone", short: "add sending domains; see what to publish, and whether it is there",
		example: `
postrider domain add example.com            # prints the records to publish
postrider domain add -publish cname example.com
postrider domain check example.com          # what is there, what should be, how to mend it
postrider domain show example.com           # what the last check found
postrider domain records example.com
postrider domain set -when-broken sandbox example.com
postrider domain rotate example.com         # new DKIM keys; the old ones sign until those are seen
postrider domain list
postrider domain zone                       # for the operator: what the relay's own zone must hold`,
		run: runDomain}
}

// domainFlags are those of all the verbs.
type domainFlags struct {
	place
	json                                   bool
	publish, returnPath, tracking, fallsTo string
	track                                  string
	settings                               domain.Settings
}

func (f *domainFlags) parse(e *Env, fs *flag.FlagSet, args []string) ([]string, error) {
	f.clientFlags(fs)
	f.accountFlag(fs)
	fs.BoolVar(&f.json, "json", false, "print JSON")
	fs.StringVar(&f.publish, "publish", "", "add, set: `how` keys are published: txt (in the domain's zone) or cname (delegated to the relay's)")
	fs.StringVar(&f.returnPath, "return-path", "", "add, set: first `label` of the return-path host; \"\" for none")
	fs.StringVar(&f.tracking, "tracking", "", "add, set: first `label` of the tracking host; \"\" for none")
	fs.StringVar(&f.track, "track", "", "add, set: `what` is tracked of its mail where neither message nor credential says: opens, clicks, text; off; \"\" for as the account says")
	fs.StringVar(&f.fallsTo, "when-broken", "", "add, set: `what` follows when records are gone for longer than the grace period: warn or sandbox")
	rest, err := parse(e, fs, args)
	if err != nil {
		return nil, err
	}
	fs.Visit(func(one *flag.Flag) {
		switch one.Name {
		case "publish":
			f.settings.Publish = &f.publish
		case "return-path":
			f.settings.ReturnPath = &f.returnPath
		case "tracking":
			f.settings.Tracking = &f.tracking
		case "track":
			f.settings.Track = (*relay.Track)(&f.track)
		case "when-broken":
			rule := relay.BrokenRule(f.fallsTo)
			f.settings.Broken = &rule
		}
	})
	return rest, nil
}

// domainPath is where a request goes.
func domainPath(parts ...string) string {
	for i := 1; i < len(parts); i++ {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/v1/" + strings.Join(parts, "/")
}

func runDomain(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var f domainFlags
	rest, err := f.parse(e, fs, args)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return badUsage(e, fs, "say add, list, show, records, check, set, rotate, remove or zone")
	}
	verb, names := rest[0], rest[1:]
	if want := map[string]int{"list": 0, "zone": 0, "add": 1, "show": 1, "records": 1, "check": 1, "set": 1, "rotate": 1, "remove": 1}; len(names) != want[verb] || verb == "" {
		return badUsage(e, fs, "%s takes %d names", verb, want[verb])
	}
	c, err := f.client()
	if err != nil {
		return err
	}
	switch verb {
	case "add":
		return f.planned(ctx, e, c, domainPath("domains"), api.NewDomain{Name: names[0], Settings: f.settings})
	case "rotate":
		return f.planned(ctx, e, c, domainPath("domains", names[0], "rotate"), nil)
	case "list":
		return f.list(ctx, e, c)
	case "records":
		var plan domain.Plan
		if err := c.Get(ctx, domainPath("domains", names[0], "records"), nil, &plan); err != nil {
			return err
		}
		if f.json {
			return printJSON(e.Stdout, plan)
		}
		printPlan(e.Stdout, &plan)
		return nil
	case "show":
		var d api.Domain
		if err := c.Get(ctx, domainPath("domains", names[0]), nil, &d); err != nil {
			return err
		}
		if f.json {
			return printJSON(e.Stdout, d)
		}
		printDomain(e.Stdout, d)
		return nil
	case "check":
		return f.check(ctx, e, c, names[0])
	case "set":
		var out api.Domain
		err := c.Patch(ctx, domainPath("domains", names[0]), f.settings, &out)
		return f.tell(e, out, err, fmt.Sprintf("Changed: keys by %s, return path %q, tracking %q, when broken: %s.\n", out.Publish, out.ReturnPath, out.Tracking, out.Broken))
	case "remove":
		var out api.Domain
		err := c.Delete(ctx, domainPath("domains", names[0]), &out)
		return f.tell(e, out, err, fmt.Sprintf("Removed %s. Its records need not be published any more; let the DKIM ones stay for a week, for mail that is on its way.\n", out.Name))
	case "zone":
		var out api.OwnZone
		if err := c.Get(ctx, "/v1/zone", nil, &out); err != nil {
			return err
		}
		if f.json {
			return printJSON(e.Stdout, out)
		}
		_, err := io.WriteString(e.Stdout, out.Zone)
		return err
	default:
		return badUsage(e, fs, "%q is none of add, list, show, records, check, set, rotate, remove, zone", verb)
	}
}

func (f *domainFlags) tell(e *Env, out any, err error, text string) error {
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(e.Stdout, out)
	}
	_, err = io.WriteString(e.Stdout, text)
	return err
}

// planned asks for what has records to publish, and shows them.
func (f *domainFlags) planned(ctx context.Context, e *Env, c *api.Client, path string, in any) error {
	var out api.PlannedDomain
	if err := c.Post(ctx, path, in, &out); err != nil {
		return err
	}
	if f.json {
		return printJSON(e.Stdout, out)
	}
	printPlan(e.Stdout, out.Plan)
	fmt.Fprintf(e.Stdout, "\nWhen they are published: postrider domain check %s\n", out.Domain.Name)
	return nil
}

func (f *domainFlags) list(ctx context.Context, e *Env, c *api.Client) error {
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	if !f.json {
		fmt.Fprintln(w, "DOMAIN\tSTATUS\tRETURN PATH\tKEYS\tCHECKED\tWRONG")
	}
	err := api.All(ctx, c, "/v1/domains", nil, func(d api.Domain) error {
		if f.json {
			return printLine(e.Stdout, d)
		}
		path, checked, wrong := "not yet", "never", 0
		if d.Aligned != nil {
			path = d.ReturnPath + "." + d.Name
		}
		if d.Checked != nil {
			checked = stamp(*d.Checked)
		}
		for _, found := range d.Findings {
			if found.Status == relay.Bad || found.Status == relay.Warning {
				wrong++
			}
		}
		var keys []string
		for _, k := range d.Keys {
			keys = append(keys, fmt.Sprintf("%s %s", k.Selector, k.State))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", d.Name, d.Status, path, strings.Join(keys, ", "), checked, wrong)
		return nil
	})
	if err != nil {
		return err
	}
	return w.Flush()
}

func (f *domainFlags) check(ctx context.Context, e *Env, c *api.Client, name string) error {
	var d api.Domain
	if err := c.Post(ctx, domainPath("domains", name, "check"), nil, &d); err != nil {
		return err
	}
	if f.json {
		if err := printJSON(e.Stdout, d); err != nil {
			return err
		}
		return badFound(d.Findings)
	}
	printDomain(e.Stdout, d)
	return badFound(d.Findings)
}

// printDomain shows what the last check found, and what follows.
func printDomain(w io.Writer, d api.Domain) {
	printFindings(w, append(slices.Clip(d.Findings), certificateFinding(d.Certificate)...))
	fmt.Fprintln(w)
	switch {
	case d.Checked == nil:
		fmt.Fprintf(w, "%s was not checked yet.\n", d.Name)
	case d.Status == "failing":
		fmt.Fprintf(w, "%s: records have been missing since %s. If that lasts: %s.\n", d.Name, stamp(*d.Failing),
			map[relay.BrokenRule]string{relay.BrokenWarn: "nothing but this report", relay.BrokenSandbox: "its mail is treated as from an unverified domain"}[d.Broken])
	case d.Verified == nil:
		fmt.Fprintf(w, "%s is not verified: nothing can be sent in its name yet.\n", d.Name)
	case d.Aligned == nil:
		fmt.Fprintf(w, "%s is verified. Mail leaves with its own envelope sender until the return path works.\n", d.Name)
	default:
		fmt.Fprintf(w, "%s is verified, and mail leaves with its return path.\n", d.Name)
	}
}

// certificateFinding shows where a certificate stands as findings are shown. Where
// the host does not lead here its own finding says so already.
func certificateFinding(c *relay.HostCertificate) []relay.Finding {
	if c == nil || c.State == relay.CertificateNotYet {
		return nil
	}
	f := relay.Finding{Check: "certificate", Name: c.Host, Status: relay.Good, Text: c.Text, Advice: c.Advice}
	if c.Failures > 0 {
		f.Status = relay.Warning
	}
	return []relay.Finding{f}
}

// badFound is an error where something is bad, for the exit status.
func badFound(found []relay.Finding) error {
	n := 0
	for _, f := range found {
		if f.Status == relay.Bad {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("one thing is bad")
	default:
		return fmt.Errorf("%d things are bad", n)
	}
}

// printPlan shows records in the words of the provider's panel, to be copied.
func printPlan(w io.Writer, p *domain.Plan) {
	name, value := "Name", "Value"
	fmt.Fprintf(w, "Records of %s, in the zone %s", p.Domain, p.Zone)
	if p.Panel != nil {
		name, value = p.Panel.Name, p.Panel.Value
		fmt.Fprintf(w, ", which %s serves.\nThey are entered under %s.\n", p.Panel.Provider, p.Panel.Where)
		if p.Panel.TXT != "" {
			fmt.Fprintf(w, "TXT: %s\n", p.Panel.TXT)
		}
		if p.Panel.CNAME != "" {
			fmt.Fprintf(w, "CNAME: %s\n", p.Panel.CNAME)
		}
	} else {
		fmt.Fprint(w, ". Names stand without the zone, as most panels want them.\n")
	}
	width := max(len(name), len(value), len("Type"))
	for _, r := range p.Records {
		need := "recommended"
		switch {
		case r.Required:
			need = "required"
		case r.Purpose == domain.Tracking:
			need = "optional"
		}
		host := r.Host
		if p.Panel != nil && host == "@" {
			host = cmp.Or(p.Panel.Apex, "(leave empty)")
		}
		fmt.Fprintf(w, "\n%s (%s)\n", r.Purpose, need)
		if r.Note != "" {
			fmt.Fprintf(w, "  %s\n", r.Note)
		}
		fmt.Fprintf(w, "  %-*s  %s\n  %-*s  %s\n  %-*s  %s\n", width, "Type", r.Type, width, name, clean(host), width, value, clean(r.Value))
	}
}

// marks are the words that findings begin with.
func mark(v relay.Verdict) string {
	switch v {
	case relay.Good:
		return "good"
	case relay.Warning:
		return "warning"
	case relay.Bad:
		return "BAD"
	default:
		return "unknown"
	}
}

// printFindings shows what was looked at, and of what is not good what is there,
// what should be, and how to mend it.
func printFindings(w io.Writer, found []relay.Finding) {
	width := 0
	for _, f := range found {
		width = max(width, len(f.Check))
	}
	const indent = "                       "
	for _, f := range found {
		about := f.Check
		fmt.Fprintf(w, "%-8s %-*s  ", mark(f.Status), width, about)
		if f.Name != "" {
			fmt.Fprintf(w, "%s: ", clean(f.Name))
		}
		fmt.Fprintln(w, clean(f.Text))
		if f.Status == relay.Good {
			continue
		}
		pad := indent[:min(9+width+2, len(indent))]
		for _, v := range f.Found {
			fmt.Fprintf(w, "%sfound     %s\n", pad, clean(v))
		}
		for _, v := range f.Expected {
			fmt.Fprintf(w, "%sexpected  %s\n", pad, clean(v))
		}
		if f.Advice != "" {
			fmt.Fprintf(w, "%s→ %s\n", pad, clean(f.Advice))
		}
	}
}
