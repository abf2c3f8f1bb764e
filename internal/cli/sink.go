package cli

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"postrider/internal/config"
	"postrider/internal/dns"
	"postrider/internal/sink"
)

func sinkCommand() command {
	return command{name: "sink", args: "", short: "simulate receivers, to test what sends mail",
		example: `
postrider sink -listen 127.0.0.1:2526 -store mail
postrider sink -voice gmail -v
postrider sink -verify -dns 127.0.0.1:5353
postrider sink -certificate expired -without pipelining,chunking
postrider sink -scenario scenario.toml
postrider sink -react-smtp 127.0.0.1:2500 -react-http 127.0.0.1:8026
postrider sink -list`,
		run: runSink}
}

func runSink(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var c sink.Config
	var listen, listenTLS, scenario, voice, certificate, fault, without, auth, maxSize string
	fs.StringVar(&listen, "listen", "127.0.0.1:2526", "`addresses` with STARTTLS offered, separated by commas")
	fs.StringVar(&listenTLS, "listen-tls", "", "`addresses` with TLS from the first byte, separated by commas")
	fs.StringVar(&c.Hostname, "hostname", "", "`name` in the greeting and in replies")
	fs.StringVar(&scenario, "scenario", "", "`file` that says what happens to whom (docs/sink.md)")
	fs.StringVar(&voice, "voice", "plain", "whose `wording` the replies have: "+voices())
	fs.StringVar(&c.Store, "store", "", "`folder` to keep each accepted message in, as .eml with its envelope as .json")
	fs.StringVar(&certificate, "certificate", string(sink.SelfSigned), "`kind` of certificate: self-signed, good, expired or wrong-name")
	fs.StringVar(&fault, "tls-fault", "", "`how` STARTTLS goes wrong: refused, closed, garbage, silent or old-version")
	fs.StringVar(&without, "without", "", "`extensions` not to offer: pipelining, 8bitmime, smtputf8, chunking, dsn, size, requiretls, enhancedstatuscodes, starttls")
	fs.StringVar(&auth, "auth", "", "`user:password` that AUTH takes; any: whatever comes")
	authRequired := fs.Bool("auth-required", false, "refuse mail without a login")
	ca := fs.String("ca", "", "`file` to write the authority to that signs certificates")
	cert := fs.String("cert", "", "`file` with a certificate of your own, PEM; with -key")
	key := fs.String("key", "", "`file` with its key, PEM")
	fs.StringVar(&maxSize, "max-size", "100MB", "largest `size` of a message")
	verify := fs.Bool("verify", false, "check DKIM, SPF and DMARC of each message and print what is proved")
	servers := fs.String("dns", "", "`addresses` of DNS servers that -verify asks, separated by commas; empty: those of the system")
	var react sink.Reactions
	fs.StringVar(&react.SMTP, "react-smtp", "", "`host:port` that late bounces, complaints and answers are sent to; empty: none are")
	fs.StringVar(&react.HTTP, "react-http", "", "`host:port` where links of messages are asked for, whatever host they name; empty: none are followed")
	v := fs.Bool("v", false, "log each message and each fault")
	vv := fs.Bool("vv", false, "log the whole dialogue")
	list := fs.Bool("list", false, "print what each local part asks for, and leave")
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	if *list {
		return sink.WriteBehaviours(e.Stdout)
	}
	c.Listen, c.ListenTLS = split(listen), split(listenTLS)
	var err error
	if c.Voice, err = sink.ParseVoice(voice); err != nil {
		return badUsage(e, fs, "-voice: %v", err)
	}
	if c.Certificate, err = sink.ParseCertKind(certificate); err != nil {
		return badUsage(e, fs, "-certificate: %v", err)
	}
	if c.TLSFault, err = sink.ParseTLSFault(fault); err != nil {
		return badUsage(e, fs, "-tls-fault: %v", err)
	}
	if c.Without, err = sink.ParseExtensions(without); err != nil {
		return badUsage(e, fs, "-without: %v", err)
	}
	var size config.Size
	if err := size.UnmarshalText([]byte(maxSize)); err != nil {
		return badUsage(e, fs, "-max-size: %v", err)
	}
	c.MaxSize = int64(size)
	if auth != "" || *authRequired {
		c.Auth = &sink.Auth{Required: *authRequired}
		if auth != "any" && auth != "" {
			user, password, ok := strings.Cut(auth, ":")
			if !ok {
				return badUsage(e, fs, "-auth: user:password or any is wanted")
			}
			c.Auth.User, c.Auth.Password = user, password
		}
	}
	if err := sinkCertificates(&c, *ca, *cert, *key); err != nil {
		return err
	}
	if scenario != "" {
		if c.Scenario, err = sink.LoadScenario(scenario); err != nil {
			return err
		}
	}
	if *verify {
		if c.Resolver, err = dns.New(split(*servers), 0); err != nil {
			return badUsage(e, fs, "-dns: %v", err)
		}
	}
	if react.SMTP != "" || react.HTTP != "" {
		c.React = &react
	}
	c.Log = sinkLog(e.Stderr, *v, *vv)
	return sink.Run(ctx, c, e.Stdout)
}

// sinkCertificates loads a certificate, or makes the authority for one.
func sinkCertificates(c *sink.Config, ca, cert, key string) error {
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("load certificate: %w", err)
		}
		c.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	if ca == "" {
		return nil
	}
	authority, err := sink.NewAuthority()
	if err != nil {
		return err
	}
	c.Authority = authority
	return os.WriteFile(ca, authority.PEM(), 0o644)
}

func voices() string {
	names := make([]string, 0, 4)
	for _, v := range sink.Voices() {
		names = append(names, string(v))
	}
	return strings.Join(names, ", ")
}

func sinkLog(w io.Writer, v, vv bool) *slog.Logger {
	switch {
	case vv:
		return Logger(w, config.Log{Level: "debug", Format: "text"})
	case v:
		return Logger(w, config.Log{Level: "info", Format: "text"})
	default:
		return nil
	}
}
