// Command bench-log measures searches of a log of ten million events: see
// docs/log.md and the Makefile.
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

	"postrider/internal/lab/logbench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run gives the exit status: 0 when all promises were kept, 1 when one was not, 2
// when that could not be found out. The last line of each engine is its figures, as
// JSON.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("bench-log", flag.ContinueOnError)
	flags.SetOutput(errs)
	o := logbench.Default()
	o.Progress = out
	flags.IntVar(&o.Events, "events", o.Events, "events in the log")
	flags.StringVar(&o.Store, "store", "", "`engine`: sqlite or postgres; empty: both")
	flags.IntVar(&o.Rounds, "r", o.Rounds, "searches of each kind")
	flags.DurationVar(&o.Limit, "limit", o.Limit, "time that 95 of 100 searches of each kind must keep to")
	flags.IntVar(&o.Drop, "drop", o.Drop, "messages that are dropped by their age while mail is taken; 0: none")
	flags.StringVar(&o.Dir, "dir", "", "`folder` for the SQLite store, which stays; one that is there is measured as it is; empty: a temporary one")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	results, err := logbench.Run(ctx, o)
	status := 0
	for _, r := range results {
		line, jsonErr := json.Marshal(r)
		if jsonErr != nil {
			panic(jsonErr) // numbers and words only
		}
		fmt.Fprintf(out, "%s\n", line)
		if err := r.Err(); err != nil {
			fmt.Fprintln(errs, "bench-log:", err)
			status = 1
		}
	}
	if err != nil {
		fmt.Fprintln(errs, "bench-log:", err)
		return 2
	}
	return status
}
