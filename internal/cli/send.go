package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postrider/internal/api"
	"postrider/internal/compose"
)

func sendCommand() command {
	return command{name: "send", args: "", short: "send a message",
		example: `
postrider send -from orders@shop.example -to ann@example.net -subject "Your order" -text "Thank you."
postrider send -from "Shop <orders@shop.example>" -to ann@example.net -subject Hello -text-file hello.txt -html-file hello.html -attach invoice.pdf
postrider send -from orders@shop.example -to ann@example.net -raw message.eml -key order-1001`,
		run: runSend}
}

// texts is a flag that may be given many times.
type texts []string

func (t *texts) String() string     { return strings.Join(*t, ", ") }
func (t *texts) Set(s string) error { *t = append(*t, s); return nil }

func runSend(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	var m api.NewMessage
	var to, cc, bcc, attach, headers, tags texts
	p.clientFlags(fs)
	p.accountFlag(fs)
	from := fs.String("from", "", "`address` of who writes: user@example.com or Name <user@example.com>")
	fs.Var(&to, "to", "`address` of a recipient; more than once for more")
	fs.Var(&cc, "cc", "`address` of a recipient of a copy; more than once for more")
	fs.Var(&bcc, "bcc", "`address` of a recipient that the others are not told of; more than once for more")
	reply := fs.String("reply-to", "", "`address` where answers go")
	fs.StringVar(&m.Subject, "subject", "", "the `subject`")
	fs.StringVar(&m.Text, "text", "", "the `text`")
	fs.StringVar(&m.HTML, "html", "", "the same as `HTML`")
	text := fs.String("text-file", "", "`file` with the text; - reads standard input")
	html := fs.String("html-file", "", "`file` with the HTML; - reads standard input")
	raw := fs.String("raw", "", "`file` with a whole message (.eml), instead of all that it is made of; - reads standard input")
	fs.Var(&attach, "attach", "`file` to attach; more than once for more")
	fs.Var(&headers, "header", "another header `field`, as \"Name: value\"; more than once for more")
	fs.Var(&tags, "tag", "a `word` to find it again by; more than once for more")
	fs.StringVar(&m.Stream, "stream", "", "`stream`: transactional or broadcast; else the credential's own")
	group := fs.String("group", "", "`id` of the unsubscribe group that it is of")
	unsubscribe := fs.Bool("unsubscribe", false, "whether recipients can unsubscribe by a link; else as the credential and the stream say")
	later := fs.String("at", "", "not to be delivered before: a `time` (2026-01-31T15:04, 15:04)")
	key := fs.String("key", "", "idempotency `key`: with it a repeated call sends nothing twice")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	if *from == "" && *raw == "" {
		return badUsage(e, fs, "say -from who writes")
	}
	if len(to)+len(cc)+len(bcc) == 0 && *raw == "" {
		return badUsage(e, fs, "say -to whom it goes")
	}
	var err error
	if *later != "" {
		if m.SendAt, err = parseTime(*later, time.Now()); err != nil {
			return badUsage(e, fs, "-at: %v", err)
		}
	}
	m.Tags = tags
	if g := given(fs); *group != "" || g.given["unsubscribe"] {
		m.Unsubscribe = &api.NewUnsubscribe{Group: *group, Enabled: ifGiven(g, "unsubscribe", *unsubscribe, same)}
	}
	if err := errors.Join(addresses(&m.ReplyTo, *reply), addresses(&m.To, to...), addresses(&m.Cc, cc...), addresses(&m.Bcc, bcc...)); err != nil {
		return badUsage(e, fs, "%v", err)
	}
	if *from != "" {
		if m.From, err = address(*from); err != nil {
			return badUsage(e, fs, "%v", err)
		}
	}
	if g := given(fs).given; g["text"] && g["text-file"] || g["html"] && g["html-file"] {
		return badUsage(e, fs, "say the text, or name the file that it is in, not both")
	}
	if err := fillMessage(e, &m, *text, *html, *raw, headers, attach); err != nil {
		return err
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	c.IdempotencyKey = *key
	var out api.Sent
	if err := c.Post(ctx, "/v1/messages", m, &out); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(e.Stdout, out)
	}
	fmt.Fprintf(e.Stdout, "Queued as %s for %d recipients. \"postrider message %[1]s\" tells what becomes of it.\n", out.ID, len(out.Deliveries))
	return nil
}

// addresses reads those that were said into to.
func addresses(to *[]api.Address, from ...string) (all error) {
	for _, s := range from {
		if s == "" {
			continue
		}
		a, err := address(s)
		all = errors.Join(all, err)
		*to = append(*to, a)
	}
	return all
}

func address(s string) (api.Address, error) {
	a, err := compose.Parse(s)
	return api.Address(a), err
}

// fillMessage reads the files.
func fillMessage(e *Env, m *api.NewMessage, text, html, raw string, headers, attach texts) error {
	for _, f := range []struct {
		name string
		take func([]byte)
	}{{text, func(b []byte) { m.Text = string(b) }}, {html, func(b []byte) { m.HTML = string(b) }}, {raw, func(b []byte) { m.Raw = b }}} {
		if f.name == "" {
			continue
		}
		b, err := readFile(e, f.name)
		if err != nil {
			return err
		}
		f.take(b)
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return fmt.Errorf("-header: %q is not a field; write it as \"Name: value\"", h)
		}
		if m.Headers == nil {
			m.Headers = map[string]string{}
		}
		m.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	for _, name := range attach {
		b, err := readFile(e, name)
		if err != nil {
			return err
		}
		m.Attachments = append(m.Attachments, api.Attachment{Filename: filepath.Base(name), Content: b})
	}
	return nil
}

func readFile(e *Env, name string) ([]byte, error) {
	if name == "-" {
		b, err := io.ReadAll(e.Stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return b, nil
	}
	return os.ReadFile(name)
}
