// Command bench-backlog shows whom a long queue holds up, and what idle sessions
// cost: see docs/performance.md and the Makefile.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"postrider/internal/lab/backlog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run gives the exit status: 0 when all promises were kept, 1 when one was not, 2
// when that could not be found out. The last line is the figures, as JSON.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("bench-backlog", flag.ContinueOnError)
	flags.SetOutput(errs)
	o := backlog.Default()
	o.Progress = out
	only := flags.String("only", "", "`scenarios`, separated by commas: "+strings.Join(backlog.Names(), ", ")+"; empty: all")
	flags.IntVar(&o.N, "n", o.N, "deliveries that wait for one site")
	flags.IntVar(&o.Letters, "letters", o.Letters, "newsletters that password resets stand behind")
	flags.IntVar(&o.Sites, "sites", o.Sites, "sites, of which one in ten is dead")
	flags.IntVar(&o.Domains, "domains", o.Domains, "domains that are all at one slow site")
	flags.IntVar(&o.Lost, "lost", o.Lost, "domains whose DNS does not answer")
	flags.IntVar(&o.Idle, "idle", o.Idle, "sessions that do nothing")
	flags.IntVar(&o.Rounds, "rounds", o.Rounds, "rounds of measuring, turn by turn")
	flags.DurationVar(&o.Load, "load", o.Load, "length of each measurement")
	flags.IntVar(&o.Rate, "rate", o.Rate, "messages a second where latency is measured")
	flags.IntVar(&o.Sessions, "sessions", o.Sessions, "sessions at once where the accept rate is measured")
	flags.DurationVar(&o.Patience, "patience", o.Patience, "how long is waited for what was sent")
	flags.StringVar(&o.Settings, "settings", "", "more `TOML` for the relays")
	flags.StringVar(&o.Dir, "dir", "", "`folder` for everything, which stays; empty: a temporary one")
	flags.StringVar(&o.Module, "source", "", "`folder` of the source that is built; empty: this one")
	flags.StringVar(&o.Binary, "binary", "", "the built `program`; empty: it is built")
	flags.StringVar(&o.Profiles, "profiles", "", "`folder` for profiles of the relay under load; empty: none")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	r, err := backlog.Run(ctx, o)
	if r != nil {
		line, jsonErr := json.Marshal(r)
		if jsonErr != nil {
			panic(jsonErr) // numbers and words only
		}
		defer fmt.Fprintf(out, "%s\n", line)
	}
	if err != nil {
		fmt.Fprintln(errs, "bench-backlog:", err)
		return 2
	}
	if err := r.Err(); err != nil {
		fmt.Fprintln(errs, "bench-backlog:", err)
		return 1
	}
	return 0
}
