// Command crash kills the relay with -9 under load, over and over, and tells
// what became of the mail: see docs/durability.md and the Makefile.
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
	"syscall"
	"time"

	"postrider/internal/lab/crash"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run gives the exit status: 0 when the relay kept its promises, 1 when it did
// not, 2 when that could not be found out.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("crash", flag.ContinueOnError)
	flags.SetOutput(errs)
	o := crash.Options{Progress: out}
	flags.StringVar(&o.Store, "store", "sqlite", "`engine` that keeps the mail: sqlite or postgres, which is started for it")
	flags.BoolVar(&o.Servers, "kill-server", false, "kill the database's server too, once a cycle")
	flags.IntVar(&o.Cycles, "cycles", 20, "how often the relay is killed")
	seconds := flags.Float64("seconds", 1.5, "mean time of load before a kill")
	flags.IntVar(&o.Sessions, "sessions", 24, "SMTP sessions at once")
	flags.IntVar(&o.Bounces, "bounces", 30, "recipients of a thousand that the receiver refuses for ever")
	flags.StringVar(&o.Module, "source", "", "`folder` of the source that is built; empty: this one")
	flags.StringVar(&o.Dir, "dir", "", "`folder` for everything; empty: a temporary one, which stays if something is wrong")
	flags.DurationVar(&o.Patience, "patience", 30*time.Second, "how long the end waits for the next delivery before it gives up")
	order := flags.Bool("order", false, "instead, watch one message with strace: it is synced before its 250")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	o.Load = time.Duration(*seconds * float64(time.Second))
	if *order {
		return watch(ctx, o, out, errs)
	}
	r, err := crash.Run(ctx, o)
	if err != nil {
		fmt.Fprintln(errs, "crash:", err)
		return 2
	}
	print(out, r)
	if err := r.Err(); err != nil {
		fmt.Fprintln(errs, "crash:", err)
		return 1
	}
	return 0
}

func print(out io.Writer, r *crash.Result) {
	fmt.Fprintf(out, `
cycles        %7d   of them %d killed while starting
acknowledged  %7d   recipients of %d messages
delivered     %7d   unchanged, and %d refused for ever and reported by DSN
lost          %7d
repeated      %7d   at most %d attempts were in flight at all kills together
in flight     %7d   the most at one kill; %d at any time

`, r.Cycles, r.Early, r.Acknowledged, r.Messages, r.Delivered, r.Reported, r.Lost, r.Repeated, r.Bound, r.InFlight, r.Peak)
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers and words only
	}
	fmt.Fprintf(out, "%s\n", line)
}

// watch prints the calls that keep one message.
func watch(ctx context.Context, o crash.Options, out, errs io.Writer) int {
	calls, err := crash.Order(ctx, o)
	for _, c := range calls {
		fmt.Fprintln(out, c)
	}
	if err == nil {
		fmt.Fprintln(out, "in order: written, synced, acknowledged")
	}
	line, bad := json.Marshal(struct {
		Store   string `json:"store"`
		Calls   int    `json:"calls"` // that matter, as far as they were found
		InOrder bool   `json:"in_order"`
	}{o.Store, len(calls), err == nil})
	if bad != nil {
		panic(bad)
	}
	fmt.Fprintf(out, "%s\n", line)
	switch {
	case err == nil:
		return 0
	case len(calls) == 0: // there was nothing to judge
		fmt.Fprintln(errs, "crash:", err)
		return 2
	}
	fmt.Fprintln(errs, "crash:", err)
	return 1
}
