package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"postrider/internal/api"
	"postrider/internal/relay"
)

func messageCommand() command {
	return command{name: "message", args: "ID|MESSAGE-ID", short: "tell the whole story of one message",
		example: `
postrider message 06bw8sf8dhkx94jkm5k3vz1m3r
postrider message -json 06bw8sf8dhkx94jkm5k3vz1m3r-2
postrider message "<20260101.1@webshop.example>"`,
		run: runMessage}
}

func runMessage(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	p.accountFlag(fs)
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
	id, err := whichMessage(ctx, c, rest[0])
	if err != nil {
		return err
	}
	s, err := story(ctx, c, id)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(e.Stdout, s)
	}
	printStory(e.Stdout, s)
	return nil
}

// story reads one, part by part.
func story(ctx context.Context, c *api.Client, id string) (*api.Story, error) {
	var whole *api.Story
	q := url.Values{}
	for {
		var s api.Story
		if err := c.Get(ctx, "/v1/messages/"+url.PathEscape(id), q, &s); err != nil {
			return nil, err
		}
		if whole == nil {
			whole = &s
		} else {
			whole.Deliveries, whole.Events, whole.Cut = append(whole.Deliveries, s.Deliveries...), append(whole.Events, s.Events...), whole.Cut || s.Cut
		}
		if s.Next == "" {
			break
		}
		q.Set("cursor", s.Next)
	}
	whole.Next = ""
	slices.SortStableFunc(whole.Events, func(a, b api.Event) int { return strings.Compare(a.ID, b.ID) })
	return whole, nil
}

// whichMessage gives the id of a message that is named by its Message-ID header;
// any other name is taken for an id.
func whichMessage(ctx context.Context, c *api.Client, name string) (string, error) {
	if !strings.Contains(name, "@") {
		return name, nil
	}
	var ids []string
	err := find(ctx, c, url.Values{"message": {name}}, 1000, func(d api.Delivery) error {
		if !slices.Contains(ids, d.Message) {
			ids = append(ids, d.Message)
		}
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case len(ids) == 0:
		return "", fmt.Errorf("there is no message with the Message-ID %s", clean(name))
	case len(ids) > 1:
		return "", fmt.Errorf("%d messages have this Message-ID: %s", len(ids), strings.Join(ids[:min(len(ids), 10)], " "))
	}
	return ids[0], nil
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
		name := ""
		if s.Helo != "" { // over HTTP nobody says one
			name = ", calling itself " + clean(s.Helo)
		}
		fmt.Fprintf(w, "Client     %s%s, by %s\n", s.Client, name, clean(via))
	}
	if s.User != "" {
		fmt.Fprintf(w, "User       %s\n", clean(s.User))
	}
	if s.App != "" {
		fmt.Fprintf(w, "Credential %s\n", clean(s.App))
	}
	if s.Script != "" {
		fmt.Fprintf(w, "Script     %s\n", clean(s.Script))
	}
	fmt.Fprintf(w, "Stream     %s\n", s.Stream)
	if len(s.Tags) > 0 {
		fmt.Fprintf(w, "Tags       %s\n", clean(strings.Join(s.Tags, ", ")))
	}
	for _, key := range slices.Sorted(maps.Keys(s.Metadata)) {
		fmt.Fprintf(w, "Metadata   %s:%s\n", clean(key), clean(s.Metadata[key]))
	}
	if s.About != "" {
		fmt.Fprintf(w, "About      message %s, which it reports on to its sender\n", s.About)
	}
	if s.Protocol == "DSN" {
		fmt.Fprint(w, "Origin     a report that this relay wrote itself\n")
	}
	for _, d := range s.Deliveries {
		fmt.Fprintf(w, "\nDelivery %s to <%s>: %s\n", d.ID, clean(d.Recipient), standing(d))
		if d.Diagnosis.Text != "" {
			fmt.Fprintf(w, "  %s\n", clean(d.Diagnosis.Text))
		}
		// What an operator stopped needs no advice, least of all to wait.
		if d.Diagnosis.Advice != "" && d.State != "held" && d.State != "cancelled" {
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
			printEvent(w, ev, n, d.Diagnosis.Text)
		}
	}
	if s.Cut {
		fmt.Fprint(w, "\nThere are more events than these, which are the first of each delivery.\n")
	}
}

// standing tells where a delivery stands, and until when.
func standing(d api.Delivery) string {
	switch {
	case d.State == "held":
		return "held until somebody releases or cancels it"
	case d.Due == nil:
		return d.State + " " + took(d.Updated.Sub(d.Received)) + " after it was accepted"
	case time.Until(*d.Due) > 0:
		return fmt.Sprintf("%s, next attempt %s, given up %s", d.State, stamp(*d.Due), stamp(d.Expires))
	default:
		return fmt.Sprintf("%s, due now: waits for its turn or is being tried, given up %s", d.State, stamp(d.Expires))
	}
}

// said is what the receiver answered, or what stands for that.
func said(ev api.Event) string {
	switch {
	case ev.Kind == "reported":
		return "the sender is told by message " + clean(ev.Reply.Text)
	case ev.Engagement != nil:
		return clean(done(ev.Engagement))
	}
	return clean(ev.Reply.String())
}

// done is what a recipient did: with what, by what program, and from where.
func done(e *relay.Engagement) string {
	var words []string
	add := func(before, word string) {
		if word != "" {
			words = append(words, before+word)
		}
	}
	add("", e.URL)
	add("by ", e.Method)
	add("group ", e.Group)
	add("by a machine: ", e.Machine)
	add("through ", e.Proxy)
	if e.Client.IsValid() {
		add("from ", e.Client.String())
	}
	add("with ", e.UserAgent)
	return strings.Join(words, ", ")
}

// printEvent prints a fact; its meaning too, where the delivery's own, which is
// told already, is another.
func printEvent(w io.Writer, ev api.Event, n int, told string) {
	fmt.Fprintf(w, "  %s  %s", ev.At.Local().Format("2006-01-02 15:04:05.000"), ev.Kind)
	if said := said(ev); said != "" {
		fmt.Fprintf(w, ": %s", said)
	}
	fmt.Fprintln(w)
	if ev.Diagnosis.Text != "" && ev.Diagnosis.Text != told {
		fmt.Fprintf(w, "%s%s\n", in, clean(ev.Diagnosis.Text))
	}
	if ev.Attempt != nil {
		printAttempt(w, ev.Attempt, n, ev.Kind != "delivered")
	}
}

const in = "      " // before what belongs to an event

// stages says in people's words where an attempt ended.
var stages = map[string]string{"route": "the search for a mail server", "connect": "the connection", "greeting": "the greeting", "ehlo": "EHLO",
	"starttls": "STARTTLS", "auth": "AUTH", "mail": "MAIL", "rcpt": "RCPT", "data": "DATA", "dot": "the reply to the content"}

func printAttempt(w io.Writer, a *relay.Attempt, n int, failed bool) {
	fmt.Fprintf(w, "%sattempt %d took %s", in, n, took(a.Ended.Sub(a.Started)))
	if a.Source.IsValid() {
		fmt.Fprintf(w, ", from %s", a.Source)
	}
	if failed && a.Stage != "" {
		fmt.Fprintf(w, ", ended at %s", cmp.Or(stages[a.Stage], a.Stage))
	}
	if a.Unknown {
		fmt.Fprint(w, "; the content went out whole but no reply came")
	}
	fmt.Fprintln(w)
	for _, h := range a.Hosts {
		switch {
		case !h.Addr.IsValid():
			fmt.Fprintf(w, "%sMX %s", in, clean(h.Name))
		case h.Name == h.Addr.Addr().String(): // of a route
			fmt.Fprintf(w, "%shost %s", in, h.Addr)
		default:
			fmt.Fprintf(w, "%sMX %s %s", in, clean(h.Name), h.Addr)
		}
		if h.Error != "" {
			fmt.Fprintf(w, ": %s", clean(h.Error))
		} else if a.Reused {
			fmt.Fprint(w, ", over a connection that was open already")
		}
		fmt.Fprintln(w)
	}
	if a.Policy != "" {
		fmt.Fprintf(w, "%sthe receiver's policy on TLS: %s\n", in, clean(a.Policy))
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
		printReply(w, x.Reply)
	}
}

// printReply prints a reply as it came: each line with its code.
func printReply(w io.Writer, r relay.Reply) {
	if r.Code == 0 {
		fmt.Fprintf(w, "%s< (no reply)\n", in)
		return
	}
	lines := strings.Split(r.Text, "\n")
	for i, line := range lines {
		if r.Enhanced != "" {
			line = r.Enhanced + " " + line
		}
		mark := "-"
		if i == len(lines)-1 {
			mark = " "
		}
		fmt.Fprintf(w, "%s< %s\n", in, clean(strings.TrimRight(fmt.Sprintf("%03d%s%s", r.Code, mark, line), " ")))
	}
}
