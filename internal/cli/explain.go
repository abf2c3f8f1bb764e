package cli

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"postrider/internal/bounce"
	"postrider/internal/classify"
)

func explainCommand() command {
	return command{
		name: "explain", args: "REPLY | -mail FILE… | -", short: "say what an SMTP reply, an error of a mail program or a bounce means",
		example: `
postrider explain "550 5.7.1 Our system has detected that this message is likely unsolicited mail"
postrider explain "SMTP Error: Could not authenticate."
postrider explain -mail bounce.eml
postrider explain -json -mail Maildir/new          every file in the folder, one object a line
grep said: /var/log/mail.log | postrider explain -json -    one reply a line`,
		run: runExplain,
	}
}

// explanation is one answer, as JSON.
type explanation struct {
	File      string `json:"file,omitempty"`
	Recipient string `json:"recipient"`
	Asked     string `json:"original_recipient,omitempty"` // where the mail was passed on: the address that it was sent to
	Kind      string `json:"kind"`
	Category  string `json:"category"`
	Code      int    `json:"code,omitempty"`
	Enhanced  string `json:"enhanced"`
	Provider  string `json:"provider"`
	Retry     bool   `json:"retry"`
	Suppress  bool   `json:"suppress"`
	Diagnosis string `json:"diagnosis"`
	What      string `json:"what"`
	Why       string `json:"why"`
	Do        string `json:"do"`
	Turn      string `json:"turn"`
	Meaning   string `json:"meaning"`
	Rule      string `json:"rule,omitempty"`
	Mail      string `json:"mail,omitempty"`        // report, complaint, auto-reply, challenge, unknown
	Action    string `json:"action,omitempty"`      // failed, delayed, delivered, …
	Host      string `json:"host,omitempty"`        // that said it
	Reply     string `json:"reply,omitempty"`       // its words
	Original  string `json:"original_id,omitempty"` // Message-ID of the message that this is about
}

func newExplanation(r classify.Result) explanation {
	return explanation{Kind: string(r.Kind), Category: r.Category, Code: r.Code, Enhanced: r.Enhanced, Provider: r.Provider, Retry: r.Retry, Suppress: r.Suppress,
		Diagnosis: r.Diagnosis(), What: r.What, Why: r.Why, Do: r.Do, Turn: r.Turn, Meaning: r.Meaning, Rule: r.Rule}
}

// explainer writes explanations.
type explainer struct {
	rules *classify.Classifier
	out   *bufio.Writer
	json  bool
	reply classify.Reply // what the flags say of replies
	first bool
}

func runExplain(_ context.Context, e *Env, fset *flag.FlagSet, args []string) error {
	var x explainer
	mail := fset.Bool("mail", false, "the arguments are mails that came back: files, folders, or - for standard input")
	rules := fset.String("rules", "", "ask the rules in this `file` first (see docs/classification.md)")
	fset.BoolVar(&x.json, "json", false, "print one JSON object a line")
	fset.StringVar(&x.reply.Stage, "stage", "", "`command` that was answered: connect, ehlo, starttls, auth, mail, rcpt, data or dot")
	fset.StringVar(&x.reply.Host, "host", "", "`name` of the server that answered")
	fset.StringVar(&x.reply.To, "domain", "", "the recipient's `domain`, or whole address")
	rest, err := parse(e, fset, args)
	if err != nil {
		return err
	}
	if strings.TrimSpace(strings.Join(rest, "")) == "" {
		return badUsage(e, fset, "it needs a reply, - for replies from standard input, or -mail and files")
	}
	if x.rules, err = classify.Load(*rules); err != nil {
		return err
	}
	x.out, x.first = bufio.NewWriter(e.Stdout), true
	switch {
	case *mail:
		err = x.mails(e, rest)
	case len(rest) == 1 && rest[0] == "-":
		err = x.lines(e.Stdin)
	default:
		err = x.one(strings.Join(rest, " "))
	}
	return errors.Join(err, x.out.Flush())
}

// mostLine is how much of a line is read; no reply is as long.
const mostLine = 1 << 20

// lines explains each line as a reply.
func (x *explainer) lines(r io.Reader) error {
	in := bufio.NewReaderSize(r, mostLine)
	for {
		line, more, err := in.ReadLine()
		if errors.Is(err, io.EOF) {
			return nil
		}
		text := string(line)
		for more && err == nil { // the rest of a line that is longer
			_, more, err = in.ReadLine()
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read replies: %w", err)
		}
		if strings.TrimSpace(text) == "" {
			continue
		}
		if err := x.one(text); err != nil {
			return err
		}
	}
}

func (x *explainer) one(text string) error {
	r := x.reply
	r.Text = strings.ReplaceAll(text, `\n`, "\n")
	ex := newExplanation(x.rules.Classify(r))
	if x.json {
		ex.Reply = text
	}
	return x.print(ex)
}

// mails explains files. One that can't be read is told on standard error, and the
// others are read all the same.
func (x *explainer) mails(e *Env, names []string) error {
	failed := 0
	read := func(name string) error {
		if err := x.mail(e, name); err != nil {
			failed++
			fmt.Fprintf(e.Stderr, "postrider explain: %v\n", err)
		}
		return nil
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if name == "-" || err != nil || !info.IsDir() {
			read(name)
			continue
		}
		err = filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
				return err
			}
			// A pipe or a device in a folder is no mail, and may never end.
			if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
				return nil
			}
			return read(path)
		})
		if err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of the mails could not be read", failed)
	}
	return nil
}

func (x *explainer) mail(e *Env, name string) error {
	in := e.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	m, err := bounce.Read(in)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	verdicts := m.Judge(x.rules)
	if len(verdicts) == 0 {
		ex := newExplanation(x.rules.Meaning("unrecognised", "", ""))
		ex.File, ex.Mail = name, "unknown"
		return x.print(ex)
	}
	for _, v := range verdicts {
		ex := newExplanation(v.Result)
		ex.File, ex.Mail, ex.Original = name, string(m.Kind), m.Original.MessageID
		ex.Recipient, ex.Action, ex.Host, ex.Reply = v.Recipient.Address, v.Recipient.Action, v.Recipient.Host, v.Recipient.Reply
		ex.Asked = v.Recipient.Asked
		if err := x.print(ex); err != nil {
			return err
		}
	}
	return nil
}

func (x *explainer) print(ex explanation) error {
	if x.json {
		return printLine(x.out, ex)
	}
	if !x.first {
		fmt.Fprintln(x.out)
	}
	x.first = false
	if ex.File != "" {
		fmt.Fprintf(x.out, "%s: %s\n", clean(ex.File), clean(strings.TrimSpace(ex.Recipient+" "+ex.Action)))
	}
	head := ex.Kind + ", " + ex.Category
	if ex.Provider != "" {
		head += ", " + ex.Provider
	}
	fmt.Fprintf(x.out, "%s\n", clean(head))
	if ex.File != "" && ex.Reply != "" {
		fmt.Fprintf(x.out, "  It said:       %s\n", clean(ex.Reply))
	}
	fmt.Fprintf(x.out, "  What happened: %s\n", clean(ex.What))
	if ex.Why != "" {
		fmt.Fprintf(x.out, "  Likely cause:  %s\n", clean(ex.Why))
	}
	fmt.Fprintf(x.out, "  What to do:    %s\n", clean(ex.Do))
	again, address := "no", "no"
	if ex.Retry {
		again = "can help"
	}
	if ex.Suppress {
		address = "yes"
	}
	_, err := fmt.Fprintf(x.out, "  Whose turn:    %s. Trying again: %s. Drop the address: %s.\n", ex.Turn, again, address)
	return err
}
