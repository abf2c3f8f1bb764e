// Package backlog shows whom a relay holds up: it gives one account a long queue
// for a site that does not take it, and measures what becomes of the mail of all
// the others. It runs the program as a process, with a DNS server and receivers
// of its own, all on loopback.
package backlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postrider/internal/lab/process"
)

// Options say what is run, and how much of it. Default gives the full size.
type Options struct {
	Only     []string      // names of scenarios; empty: all
	N        int           // deliveries that wait for the one site
	Letters  int           // newsletters that the password resets stand behind
	Sites    int           // of which one in ten is dead
	Domains  int           // that are all at one slow site
	Lost     int           // domains whose DNS does not answer
	Idle     int           // sessions that do nothing
	Rounds   int           // of measuring, turn by turn
	Load     time.Duration // of each measurement
	Rate     int           // messages a second where the rate is given
	Sessions int           // that send as fast as they can
	Patience time.Duration // how long is waited for what was sent; what comes later, or not, is late
	Settings string        // more TOML for the relays
	Dir      string        // folder for everything; empty: a temporary one
	Binary   string        // the built program; empty: it is built
	Module   string        // folder of the source that is built; empty: the current one
	Profiles string        // folder for profiles of the relay under load; empty: none
	Progress io.Writer     // for people; nil: none
}

// Default is the size that the promises name.
func Default() Options {
	return Options{N: 1_000_000, Letters: 200_000, Sites: 1000, Domains: 100_000, Lost: 20_000, Idle: 10_000,
		Rounds: 3, Load: 5 * time.Second, Rate: 200, Sessions: 16, Patience: 30 * time.Second}
}

// Result is what came of a run; what was not asked for is nil.
type Result struct {
	Slow    *Hog    `json:"slow,omitempty"`    // the site accepts slowly
	Refused *Hog    `json:"refused,omitempty"` // it refuses connections
	Silent  *Hog    `json:"silent,omitempty"`  // it does not answer
	Spread  *Hog    `json:"spread,omitempty"`  // many domains at one slow site
	Lost    *Hog    `json:"lost,omitempty"`    // many domains whose DNS does not answer
	Resets  *Resets `json:"resets,omitempty"`
	Sites   *Sites  `json:"sites,omitempty"`
	Idle    *Idle   `json:"idle,omitempty"`
	IdleTLS *Idle   `json:"idle_tls,omitempty"`
	Seconds float64 `json:"seconds"` // of the whole run
}

// scenario is one thing to be shown.
type scenario struct {
	name string
	run  func(*harness, context.Context) error
}

func scenarios() []scenario {
	return []scenario{
		{"idle", (*harness).idle}, {"idle-tls", (*harness).idleTLS},
		{"slow", (*harness).slow}, {"refused", (*harness).refused}, {"silent", (*harness).silent},
		{"spread", (*harness).spread}, {"lost", (*harness).lost},
		{"resets", (*harness).resets}, {"sites", (*harness).sites},
	}
}

// Names gives those of all scenarios.
func Names() []string {
	var names []string
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	return names
}

// harness is a run under way.
type harness struct {
	o      Options
	dir    string
	binary string
	began  time.Time
	result Result
	filled map[string]*rig // relays with mail for a site that several scenarios use
	*receivers
}

// Run does it all. The error says that the run itself failed; what it found out
// is in the result, which is of use with an error too.
func Run(ctx context.Context, o Options) (_ *Result, err error) {
	for _, name := range o.Only {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("there is no scenario %q: %s", name, strings.Join(Names(), ", "))
		}
	}
	h := &harness{o: o, dir: o.Dir, began: time.Now(), filled: map[string]*rig{}}
	if h.dir == "" {
		if h.dir, err = os.MkdirTemp("", "postrider-backlog-"); err != nil {
			return nil, fmt.Errorf("make folder: %w", err)
		}
		defer os.RemoveAll(h.dir)
	}
	if h.binary = o.Binary; h.binary == "" {
		h.binary = filepath.Join(h.dir, "postrider")
		if err := process.Build(ctx, o.Module, h.binary); err != nil {
			return nil, err
		}
	}
	if h.receivers, err = startReceivers(ctx); err != nil {
		return nil, err
	}
	err = h.all(ctx)
	for _, r := range h.filled {
		r.Close()
	}
	err = errors.Join(err, h.receivers.stop())
	h.result.Seconds = time.Since(h.began).Seconds()
	return &h.result, err
}

func (h *harness) all(ctx context.Context) error {
	for _, s := range scenarios() {
		if len(h.o.Only) > 0 && !slices.Contains(h.o.Only, s.name) {
			continue
		}
		h.say("== %s", s.name)
		if err := s.run(h, ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (h *harness) say(format string, args ...any) {
	if h.o.Progress != nil {
		fmt.Fprintf(h.o.Progress, "%6.1f  %s\n", time.Since(h.began).Seconds(), fmt.Sprintf(format, args...))
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
