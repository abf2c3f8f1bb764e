package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"postrider/internal/api"
	"postrider/internal/relay"
)

func testCommand() command {
	return command{name: "test", args: "ADDRESS", short: "send a test message and watch each step of its way",
		example: `
postrider test you@example.org
postrider test -from orders@shop.example -stream broadcast you@example.org
postrider test -credential webshop -wait 1h you@example.org
postrider test -watch 06bw8sf8dhkx94jkm5k3vz1m3r`,
		run: runTest}
}

func runTest(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	var m api.NewTest
	p.clientFlags(fs)
	p.accountFlag(fs)
	from := fs.String("from", "", "`address` of who writes; else one in a verified domain, or a verified sender, of the account")
	fs.StringVar(&m.Credential, "credential", "", "submit it as this `credential`: its id, name or user")
	fs.StringVar(&m.Stream, "stream", "", "`stream`: transactional or broadcast; else the credential's own")
	fs.StringVar(&m.Subject, "subject", "", "the `subject`")
	fs.StringVar(&m.Text, "text", "", "the `text`")
	wait := fs.Duration("wait", 5*time.Minute, "watch for so long where the message is not final before")
	watch := fs.String("watch", "", "send nothing, and watch the test of that `id`")
	asJSON := fs.Bool("json", false, "print one JSON object a line: a step each")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	if *wait <= 0 {
		return badUsage(e, fs, "-wait: %v is no time to watch for", *wait)
	}
	if (*watch == "") == (len(rest) == 0) || len(rest) > 1 {
		return badUsage(e, fs, "name one address to send to, or a test to -watch")
	}
	if len(rest) == 1 {
		if m.To, err = address(rest[0]); err == nil && *from != "" {
			m.From, err = address(*from)
		}
		if err != nil {
			return badUsage(e, fs, "%v", err)
		}
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	id := *watch
	if id == "" {
		var sent api.SentTest
		if err := c.Post(ctx, "/v1/tests", m, &sent); err != nil {
			return err
		}
		id = sent.ID
	}
	return watchTest(ctx, e, c, id, *wait, *asJSON)
}

// watchTest prints the steps of a test until it is final or the time is over. A
// test that failed is an error.
func watchTest(ctx context.Context, e *Env, c *api.Client, id string, wait time.Duration, asJSON bool) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	state := ""
	s := &api.Stream{Path: "/v1/tests/" + url.PathEscape(id) + "/trace"}
	_, err := api.Follow(ctx, c, s, func(_ string, step relay.Step) error {
		if step.Stage == relay.StepOutcome && step.State != "" {
			state = step.State
		}
		if asJSON {
			return printLine(e.Stdout, step)
		}
		return printStep(e.Stdout, step)
	})
	switch {
	case err == nil && state != "delivered":
		return fmt.Errorf("the message was not delivered: it is %s. \"postrider message %s\" tells its whole story", state, id)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("after %s the message is not final yet. Go on watching with \"postrider test -watch %s\"", took(wait), id)
	case errors.Is(err, context.Canceled):
		fmt.Fprintf(e.Stderr, "The message is on its way still. Go on watching with \"postrider test -watch %s\".\n", id)
		return nil
	}
	return err
}

// marks are what a step's status looks like.
var marks = map[relay.Verdict]string{relay.Good: "+ ", relay.Warning: "! ", relay.Bad: "x ", relay.Unknown: "? "}

func printStep(w io.Writer, s relay.Step) error {
	line := func(text string) string {
		return fmt.Sprintf("%s  %-9s  %s\n", s.At.Local().Format("15:04:05.000"), s.Stage, text)
	}
	var b strings.Builder
	switch s.Stage {
	case relay.StepCommand:
		b.WriteString(line("> " + clean(s.Command)))
	case relay.StepReply:
		if s.Reply == nil {
			b.WriteString(line("x " + clean(s.Text)))
			break
		}
		for text := range strings.SplitSeq(s.Reply.Text, "\n") {
			r := relay.Reply{Code: s.Reply.Code, Enhanced: s.Reply.Enhanced, Text: text}
			b.WriteString(line("< " + clean(strings.TrimSpace(r.String()))))
		}
	case relay.StepConnect:
		text := marks[s.Status] + clean(s.Host) + " " + s.Addr.String()
		if s.Source.IsValid() {
			text += " from " + s.Source.String()
		}
		b.WriteString(line(text + ": " + clean(s.Text)))
	case relay.StepTLS:
		text := marks[s.Status]
		if s.TLS != nil {
			text += s.TLS.Version + " " + s.TLS.Cipher + ". "
		}
		b.WriteString(line(text + clean(s.Text)))
	case relay.StepOutcome:
		text := marks[s.Status]
		if s.State != "" {
			text += strings.ToUpper(s.State) + ": "
		}
		b.WriteString(line(text + clean(s.Text)))
	case relay.StepWait:
		text := clean(s.Text)
		if !s.Next.IsZero() {
			text = fmt.Sprintf("It is tried again at %s, in %s.", stamp(s.Next), took(max(time.Until(s.Next), 0)))
		}
		b.WriteString(line(text))
	default:
		b.WriteString(line(marks[s.Status] + clean(s.Text)))
	}
	for _, h := range s.Hosts {
		var addrs []string
		for _, a := range h.Addrs {
			addrs = append(addrs, a.String())
		}
		b.WriteString(line(fmt.Sprintf("  %d %s (%s)", h.Pref, clean(h.Name), strings.Join(addrs, ", "))))
	}
	if s.Advice != "" {
		b.WriteString(line("  What to do: " + clean(s.Advice)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
