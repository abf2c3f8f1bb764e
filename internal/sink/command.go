package sink

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// usage stands before the flags.
const usage = `usage: postrider sink [flags]

A receiver that takes mail for anybody, for testing what sends. What happens is
chosen by the recipient's local part (-list shows the table) and by a scenario
file. Counts are printed every second, and at the end as a line of JSON.

	postrider sink -listen 127.0.0.1:2526 -store mail
	swaks --server 127.0.0.1:2526 --to greylist@example.org
	swaks --server 127.0.0.1:2526 --to reply+550-5.7.1@example.org

`

// flags are those of the command.
type flags struct {
	cfg                              Config
	listen, listenTLS, without, auth string
	certificate, fault, voice        string
	cert, key, ca, scenario          string
	required, list, verbose, debug   bool
}

func (f *flags) define(fs *flag.FlagSet) {
	c := &f.cfg
	fs.StringVar(&f.listen, "listen", "127.0.0.1:2526", "`addresses` to listen on, with commas between; STARTTLS is offered there")
	fs.StringVar(&f.listenTLS, "listen-tls", "", "`addresses` with TLS from the first byte")
	fs.StringVar(&c.Hostname, "hostname", "sink.example", "`name` in the greeting, the replies and the certificate")
	fs.BoolVar(&f.list, "list", false, "print the table of local parts and leave")
	fs.StringVar(&f.scenario, "scenario", "", "TOML `file` that says what happens to whom")
	fs.StringVar(&f.voice, "voice", "plain", "whose wording the replies have: plain, gmail, outlook or yahoo")
	fs.StringVar(&c.Store, "store", "", "`folder` for what was accepted, as .eml with the envelope as .json; made if missing")
	fs.StringVar(&f.without, "without", "", "`extensions` that are not offered, with commas between: "+strings.Join(extensionNames, ","))
	fs.StringVar(&f.certificate, "certificate", "self-signed", "`kind` of certificate that is made: self-signed, good, expired or wrong-name")
	fs.StringVar(&f.ca, "ca", "", "`file` to write the authority to that signs the certificate (not self-signed ones)")
	fs.StringVar(&f.cert, "cert", "", "PEM `file` with a certificate to use instead")
	fs.StringVar(&f.key, "key", "", "PEM `file` with its key")
	fs.StringVar(&f.fault, "tls-fault", "", "how TLS goes wrong: refused, closed, garbage, silent or old-version")
	fs.StringVar(&f.auth, "auth", "", "offer AUTH: any, or `user:password`")
	fs.BoolVar(&f.required, "auth-required", false, "refuse mail without a login")
	fs.Int64Var(&c.MaxSize, "max-size", 100<<20, "largest message, in `bytes`")
	fs.IntVar(&c.MaxRecipients, "max-recipients", 1000, "most recipients of a message; more get 452")
	fs.IntVar(&c.MaxOpen, "max-open", 5000, "most connections at once; more get 421")
	fs.DurationVar(&c.Idle, "idle", 0, "longest wait for the client, and longest silence (default 5m)")
	fs.BoolVar(&f.verbose, "v", false, "log each message and each fault")
	fs.BoolVar(&f.debug, "vv", false, "log the dialogue")
}

// Command is "postrider sink": it reads the arguments, serves until ctx ends,
// and prints to stdout, help and logs to stderr. With -h the error is
// flag.ErrHelp.
func Command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var f flags
	fs := flag.NewFlagSet("sink", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		io.WriteString(stderr, usage)
		fs.PrintDefaults()
	}
	f.define(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if f.list {
		return WriteBehaviours(stdout)
	}
	if err := f.fill(stderr); err != nil {
		return err
	}
	return Run(ctx, f.cfg, stdout)
}

// fill makes the rest of the Config of what was given as text.
func (f *flags) fill(stderr io.Writer) error {
	c := &f.cfg
	c.Listen, c.ListenTLS = addresses(f.listen), addresses(f.listenTLS)
	var err error
	if c.Without, err = ParseExtensions(f.without); err != nil {
		return fmt.Errorf("-without: %w", err)
	}
	if c.Voice, err = ParseVoice(f.voice); err != nil {
		return fmt.Errorf("-voice: %w", err)
	}
	if c.Certificate, err = ParseCertKind(f.certificate); err != nil {
		return fmt.Errorf("-certificate: %w", err)
	}
	if c.TLSFault, err = ParseTLSFault(f.fault); err != nil {
		return fmt.Errorf("-tls-fault: %w", err)
	}
	if f.scenario != "" {
		if c.Scenario, err = LoadScenario(f.scenario); err != nil {
			return err
		}
	}
	if err := f.fillAuth(); err != nil {
		return err
	}
	if f.verbose || f.debug {
		level := slog.LevelInfo
		if f.debug {
			level = slog.LevelDebug
		}
		c.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	}
	return f.fillTLS()
}

func (f *flags) fillAuth() error {
	if f.auth == "" {
		if f.required {
			return fmt.Errorf("-auth-required wants -auth")
		}
		return nil
	}
	a := &Auth{Required: f.required}
	if f.auth != "any" {
		var ok bool
		if a.User, a.Password, ok = strings.Cut(f.auth, ":"); !ok || a.User == "" {
			return fmt.Errorf("-auth: any or user:password is wanted")
		}
	}
	f.cfg.Auth = a
	return nil
}

func (f *flags) fillTLS() error {
	if f.cert != "" || f.key != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return fmt.Errorf("-cert, -key: %w", err)
		}
		f.cfg.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	if f.ca == "" {
		return nil
	}
	var err error
	if f.cfg.Authority, err = NewAuthority(); err != nil {
		return err
	}
	if err := os.WriteFile(f.ca, f.cfg.Authority.PEM(), 0o644); err != nil {
		return fmt.Errorf("-ca: %w", err)
	}
	return nil
}

func addresses(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' })
}
