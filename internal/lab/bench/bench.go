// Package bench compares the speed of the relay with that of others, on one
// machine, turn by turn in one run: how many messages a second get through to a
// receiver, at what cost in processor time and memory, and how soon.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"postrider/internal/lab/process"
)

// Parts of the benchmark, by the names that Options.Only knows.
const (
	Each    = "each"    // 10 kB, each message over a connection of its own
	Kept    = "kept"    // 10 kB over kept connections
	Large   = "large"   // 100 kB, each message over a connection of its own
	TLS     = "tls"     // 10 kB over kept sessions with STARTTLS and AUTH, and without
	DKIM    = "dkim"    // 10 kB over kept connections, signed and not
	Latency = "latency" // from the end of the content to the receiver's reply
)

// Systems that are compared with the direct way, by the names that
// Options.Systems knows.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
	Postfix  = "postfix"
	direct   = "direct"
)

// Relay is a program to measure.
type Relay struct {
	Name   string
	Binary string // file
}

// Options say what is run. The zero value of each field is useful.
type Options struct {
	Only     []string      // parts; none: all
	Systems  []string      // none: all
	Relays   []Relay       // none: the one that is built from this source
	Messages int           // of a throughput run; 0: 10,000. A quarter of it where they are large
	Rounds   int           // 0: 3
	Sessions int           // at once; 0: 32
	Rate     float64       // messages a second while latency is measured; 0: 300
	Lasting  time.Duration // of the load while latency is measured; 0: 30 s
	Dir      string        // folder on the disk that all systems use; empty: the one for temporary files
	Progress io.Writer     // for people; nil: none
}

// Result is what came of a run.
type Result struct {
	Cores      int               `json:"cores"`
	FileSystem string            `json:"file_system"` // that all data lay on
	Rounds     int               `json:"rounds"`
	Seconds    float64           `json:"seconds"` // of the whole run
	Throughput []Throughput      `json:"throughput"`
	Latency    map[string]Delays `json:"latency,omitempty"` // by system
	Synced     map[string]string `json:"synced"`            // by system: how it is known that a message is on the disk before its 250
}

// limit is the longest that any one thing may take: then the run has failed.
const limit = 5 * time.Minute

// bench is a run under way.
type bench struct {
	o        Options
	dir      string
	sink     *smtpSink
	receiver *receiver
	systems  []*system // without the direct way
	signing  []*system // that sign, each after the one that is like it but for that
	prover   *prover   // nil: nothing is signed
	closers  []func() error
}

// Run does it all. It takes minutes.
func Run(ctx context.Context, o Options) (r *Result, err error) {
	b := &bench{o: o}
	if err := b.settle(); err != nil {
		return nil, err
	}
	defer func() {
		for _, c := range slices.Backward(b.closers) {
			err = errors.Join(err, c())
		}
	}()
	began := time.Now()
	if r, err = b.run(ctx); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

// settle fills in what the options leave out, and refuses what is not known.
func (b *bench) settle() error {
	o := &b.o
	o.Messages = orElse(o.Messages, 10000)
	o.Rounds = orElse(o.Rounds, 3)
	o.Sessions = orElse(o.Sessions, 32)
	o.Rate = orElse(o.Rate, 300)
	o.Lasting = orElse(o.Lasting, 30*time.Second)
	if err := choose(&o.Only, Each, Kept, Large, TLS, DKIM, Latency); err != nil {
		return err
	}
	if err := choose(&o.Systems, SQLite, Postgres, Postfix); err != nil {
		return err
	}
	if o.Messages < o.Sessions {
		return fmt.Errorf("%d messages are too few for %d sessions", o.Messages, o.Sessions)
	}
	return nil
}

func orElse[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// choose checks names and puts them into the order of those that are known. None
// are all.
func choose(names *[]string, known ...string) error {
	for _, n := range *names {
		if !slices.Contains(known, n) {
			return fmt.Errorf("%q is not known here: %s", n, strings.Join(known, ", "))
		}
	}
	chosen := slices.DeleteFunc(slices.Clone(known), func(n string) bool { return !slices.Contains(*names, n) })
	if *names = known; len(chosen) > 0 {
		*names = chosen
	}
	return nil
}

func (b *bench) say(format string, args ...any) {
	if b.o.Progress != nil {
		fmt.Fprintf(b.o.Progress, format+"\n", args...)
	}
}

// later has f called at the end of the run, the latest first.
func (b *bench) later(f func() error) { b.closers = append(b.closers, f) }

func (b *bench) run(ctx context.Context) (*Result, error) {
	r := &Result{Cores: runtime.NumCPU(), Rounds: b.o.Rounds, Latency: map[string]Delays{}, Synced: map[string]string{}}
	if err := b.prepare(ctx, r); err != nil {
		return nil, err
	}
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	for _, s := range b.systems {
		r.Synced[s.name] = s.synced
	}
	for _, p := range b.parts() {
		t, err := b.measure(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		r.Throughput = append(r.Throughput, *t)
	}
	if !slices.Contains(b.o.Only, Latency) {
		return r, nil
	}
	for _, s := range b.systems {
		if s.relay == nil {
			continue
		}
		d, err := b.delays(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("latency of %s: %w", s.name, err)
		}
		r.Latency[s.name] = *d
	}
	return r, nil
}

// prepare makes the folder and the program.
func (b *bench) prepare(ctx context.Context, r *Result) (err error) {
	if b.dir, err = os.MkdirTemp(b.o.Dir, "postrider-bench-"); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	b.later(func() error { return os.RemoveAll(b.dir) })
	// Postfix and PostgreSQL walk to their folders as users of their own.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	kind, err := exec.CommandContext(ctx, "stat", "-f", "-c", "%T", b.dir).Output()
	if err != nil {
		return fmt.Errorf("find out the kind of the file system: %w", err)
	}
	if r.FileSystem = strings.TrimSpace(string(kind)); r.FileSystem == "tmpfs" {
		b.say("%s is in memory, where a sync costs nothing: the figures are worth nothing without -dir, a folder on a disk", b.dir)
	}
	if len(b.o.Relays) > 0 || !slices.ContainsFunc(b.o.Systems, isStore) {
		return nil
	}
	binary := filepath.Join(b.dir, "postrider")
	b.o.Relays = []Relay{{Binary: binary}}
	return process.Build(ctx, "", binary)
}

func isStore(name string) bool { return name == SQLite || name == Postgres }

// start starts the receivers and all the systems.
func (b *bench) start(ctx context.Context) (err error) {
	if b.sink, err = startSink(ctx, b.dir); err != nil {
		return err
	}
	b.later(b.sink.close)
	if slices.Contains(b.o.Only, Latency) {
		if b.receiver, err = startReceiver(ctx); err != nil {
			return err
		}
		b.later(b.receiver.close)
	}
	for _, name := range b.o.Systems {
		if name == Postfix {
			if err := b.startPostfix(ctx, Postfix, ""); err != nil {
				return err
			}
			continue
		}
		if err := b.startRelays(ctx, name); err != nil {
			return err
		}
	}
	if !slices.Contains(b.o.Only, DKIM) {
		return nil
	}
	return b.startSigning(ctx)
}

// wait asks until the answer is yes.
func wait(ctx context.Context, every time.Duration, what string, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if done, err := f(); err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(every):
		}
	}
}
