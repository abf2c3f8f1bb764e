// Command bench compares the relay's speed with that of others: see
// docs/performance.md and the Makefile.
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
	"time"

	"postrider/internal/lab/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run gives the exit status: 0 when all was measured, 2 when not.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	o, err := parse(args, errs)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil { // flag has said it
		return 2
	}
	o.Progress = out
	r, err := bench.Run(ctx, *o)
	if err == nil {
		err = r.Print(out)
	}
	if err != nil {
		fmt.Fprintln(errs, "bench:", err)
		return 2
	}
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers and words only
	}
	fmt.Fprintf(out, "%s\n", line)
	return 0
}

func parse(args []string, errs io.Writer) (*bench.Options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(errs)
	o := &bench.Options{}
	names := func(list *[]string) func(string) error {
		return func(value string) error {
			*list = strings.Split(value, ",")
			return nil
		}
	}
	flags.Func("only", "`parts`, with commas: each, kept, large, tls, dkim, latency", names(&o.Only))
	flags.Func("systems", "`systems` beside the direct way, with commas: sqlite, postgres, postfix", names(&o.Systems))
	flags.Func("relay", "`name=file` of a built relay to measure, instead of this source's; several are compared with the first", func(value string) error {
		name, file, found := strings.Cut(value, "=")
		if !found || name == "" {
			return errors.New("not name=file")
		}
		o.Relays = append(o.Relays, bench.Relay{Name: name, Binary: file})
		return nil
	})
	flags.IntVar(&o.Messages, "m", 10000, "messages of a throughput run; a quarter of it where they are large")
	flags.IntVar(&o.Rounds, "r", 3, "rounds")
	flags.IntVar(&o.Sessions, "s", 32, "sessions at once")
	flags.Float64Var(&o.Rate, "rate", 300, "messages a second while latency is measured")
	flags.DurationVar(&o.Lasting, "lasting", 30*time.Second, "how long latency is measured")
	flags.StringVar(&o.Dir, "dir", "", "`folder` on the disk that all systems use; empty: the one for temporary files")
	quick := flags.Bool("quick", false, "in about a minute, and worth as much: -r 1 -m 1000 -lasting 5s unless said otherwise")
	if err := flags.Parse(args); err != nil || !*quick {
		return o, err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range map[string]string{"r": "1", "m": "1000", "lasting": "5s"} {
		if given[name] {
			continue
		}
		if err := flags.Set(name, value); err != nil {
			return nil, err
		}
	}
	return o, nil
}
