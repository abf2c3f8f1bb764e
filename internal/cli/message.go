package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"postrider/internal/api"
	"postrider/internal/relay"
)

func messageCommand() command {
	return command{name: "message", args: "ID", short: "tell the whole story of one message",
		example: `
postrider message 06bw8sf8dhkx94jkm5k3vz1m3r
postrider message -json 06bw8sf8dhkx94jkm5k3vz1m3r-2`,
		run: runMessage}
}

func runMessage(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.flags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return badUsage(e, fs, "the id of one message is wanted: the reply to DATA names it, \"postrider log\" finds it")
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	var s api.Story
	if err := c.Get(ctx, "/v1/messages/"+url.PathEscape(rest[0]), nil, &s); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(e.Stdout, s)
	}
	printStory(e.Stdout, &s)
	return nil
}

func printStory(w io.Writer, s *api.Story) {
	fmt.Fprintf(w, "Message    %s\nAccepted   %s\nSender     <%s>\n", s.ID, stamp(s.Received), clean(s.Sender))
	if s.From != "" {
		fmt.Fprintf(w, "From       %s\n", clean(s.From))
	}
	fmt.Fprintf(w, "Subject    %s\nMessage-ID %s\nSize       %d bytes\n", clean(s.Subject), clean(s.HeaderID), s.Size)
	if s.Client != "" {
		via := s.Protocol
		if s.Listener != "" {
			via += " on " + s.Listener
		}
		if s.TLS != "" {
			via += ", " + s.TLS
		}
		fmt.Fprintf(w, "Client     %s, calling itself %s, by %s\n", s.Client, clean(s.Helo), clean(via))
	}
	if s.User != "" {
		fmt.Fprintf(w, "User       %s\n", clean(s.User))
	}
	if s.Protocol == "DSN" {
		fmt.Fprint(w, "Origin     a report that this relay wrote itself\n")
	}
	for _, d := range s.Deliveries {
		fmt.Fprintf(w, "\nDelivery %s to <%s>: %s", d.ID, clean(d.Recipient), d.State)
		if d.Due != nil {
			fmt.Fprintf(w, ", next attempt %s", stamp(*d.Due))
		}
		fmt.Fprintln(w)
		if d.Diagnosis.Text != "" {
			fmt.Fprintf(w, "  %s\n", clean(d.Diagnosis.Text))
		}
		if d.Diagnosis.Advice != "" {
			fmt.Fprintf(w, "  What to do: %s\n", clean(d.Diagnosis.Advice))
		}
		n := 0
		for _, ev := range s.Events {
			if ev.Delivery != d.ID {
				continue
			}
			if ev.Attempt != nil {
				n++
			}
			printEvent(w, ev, n)
		}
	}
}

func printEvent(w io.Writer, ev api.Event, n int) {
	fmt.Fprintf(w, "  %s  %s", ev.At.Local().Format("2006-01-02 15:04:05.000"), ev.Kind)
	if r := ev.Reply.String(); r != "" {
		fmt.Fprintf(w, ": %s", clean(r))
	}
	fmt.Fprintln(w)
	if ev.Attempt != nil {
		printAttempt(w, ev.Attempt, n)
	}
}

func printAttempt(w io.Writer, a *relay.Attempt, n int) {
	const in = "      "
	fmt.Fprintf(w, "%sattempt %d, %s", in, n, a.Ended.Sub(a.Started).Round(time.Millisecond))
	if a.Source.IsValid() {
		fmt.Fprintf(w, ", from %s", a.Source)
	}
	if a.Stage != "" {
		fmt.Fprintf(w, ", ended at %s", a.Stage)
	}
	if a.Unknown {
		fmt.Fprint(w, "; the content went out whole but no reply came")
	}
	fmt.Fprintln(w)
	for _, h := range a.Hosts {
		fmt.Fprintf(w, "%sMX %s", in, clean(h.Name))
		if h.Addr != (netip.AddrPort{}) {
			fmt.Fprintf(w, " %s", h.Addr)
		}
		if h.Error != "" {
			fmt.Fprintf(w, ": %s", clean(h.Error))
		} else if a.Reused {
			fmt.Fprint(w, ", over a connection that was open already")
		}
		fmt.Fprintln(w)
	}
	if t := a.TLS; t != nil {
		verdict := "the certificate verifies"
		if !t.Verified {
			verdict = "the certificate does not verify: " + clean(t.Problem)
		}
		fmt.Fprintf(w, "%s%s %s, %s\n", in, t.Version, t.Cipher, verdict)
	} else if len(a.Dialogue) > 0 {
		fmt.Fprintf(w, "%sno TLS\n", in)
	}
	for _, x := range a.Dialogue {
		if x.Command != "" {
			fmt.Fprintf(w, "%s> %s\n", in, clean(x.Command))
		}
		for line := range strings.Lines(x.Reply.String()) {
			fmt.Fprintf(w, "%s< %s\n", in, clean(strings.TrimRight(line, "\n")))
		}
	}
}
