package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/daemon"
)

func serveCommand() command {
	return command{name: "serve", args: "", short: "run the relay",
		example: `
postrider serve
postrider serve -data ./data
postrider serve -config /etc/postrider/postrider.toml`,
		run: runServe}
}

func runServe(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.flags(fs)
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	c, err := p.load()
	if err != nil {
		return err
	}
	d, err := daemon.Open(ctx, c, Logger(e.Stderr, c.Log))
	if err != nil {
		return err
	}
	greet(e.Stdout, d)
	return d.Run(ctx)
}

// Logger writes the relay's log as configured.
func Logger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if level.UnmarshalText([]byte(c.Level)) != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// greet says where the relay listens, and the first credential, once.
func greet(w io.Writer, d *daemon.Daemon) {
	fmt.Fprintf(w, "Postrider %s, data in %s\n", Version(), d.Config.Data)
	for _, l := range d.Config.Listen {
		if at := d.Addr(l.Name); at != "" {
			fmt.Fprintf(w, "  %-9s %s\n", l.Mode, at)
		}
	}
	if at := d.APIAddr(); at != "" {
		fmt.Fprintf(w, "  %-9s %s (on %s)\n", "api", d.Config.API.URL, at)
	}
	if at := d.WatchAddr(); at != "" {
		fmt.Fprintf(w, "  %-9s http://%s (metrics and health)\n", "http", at)
	}
	if d.First != nil {
		fmt.Fprintf(w, "A first credential was made; its password is not shown again:\n  user      %s\n  password  %s\n", d.First.User, d.First.Password)
	}
	switch t := d.Config.TLS; {
	case t.ACME:
		fmt.Fprintln(w, "The certificate comes by ACME; the log tells if it does not")
	case t.Cert == "":
		fmt.Fprintf(w, "The certificate is self-signed; clients can trust it by %s\n", filepath.Join(d.Config.Data, daemon.CertName))
	}
}

func configCommand() command {
	return command{name: "config", args: "", short: "print the effective configuration, each setting explained",
		example: `
postrider config > postrider.toml
postrider config -config postrider.toml`,
		run: runConfig}
}

func runConfig(_ context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.flags(fs)
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	c, err := p.load()
	if err != nil {
		return err
	}
	return config.Print(e.Stdout, c)
}

func statusCommand() command {
	return command{name: "status", args: "", short: "tell how the running relay is",
		example: "postrider status -json", run: runStatus}
}

func runStatus(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	var s api.Status
	if err := c.Get(ctx, "/v1/status", nil, &s); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(e.Stdout, s)
	}
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "Postrider\t%s on %s, node %s, %s\n", s.Version, s.Hostname, s.Node, s.Condition)
	fmt.Fprintf(w, "Started\t%s, %s ago\n", stamp(s.Started), age(time.Since(s.Started)))
	names := make([]string, 0, len(s.Listeners))
	for name, at := range s.Listeners {
		names = append(names, name+" at "+at)
	}
	slices.Sort(names)
	fmt.Fprintf(w, "Listeners\t%s\n", strings.Join(names, ", "))
	fmt.Fprintf(w, "In hand\t%d deliveries, %d with an attempt under way (at most %d so far), %d bytes of content\n",
		s.Queue.InHand, s.Queue.InFlight, s.Queue.Peak, s.Queue.Bytes)
	return w.Flush()
}

func versionCommand() command {
	return command{name: "version", args: "", short: "print the version", example: "postrider version",
		run: func(_ context.Context, e *Env, fs *flag.FlagSet, args []string) error {
			if err := parseFlags(e, fs, args); err != nil {
				return err
			}
			_, err := fmt.Fprintf(e.Stdout, "postrider %s\n", Version())
			return err
		}}
}

// Version is the program's version, with the revision it was built from where
// that is known.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return daemon.Version + " " + s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return daemon.Version
}
