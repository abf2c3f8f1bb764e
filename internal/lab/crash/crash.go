// Package crash kills the relay with -9 while it works, over and over, and holds
// what clients had acknowledged against what a receiver got.
package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"postrider/internal/api"
	"postrider/internal/lab/process"
	"postrider/internal/sink"
)

// Options say what is run. The zero value of each field is useful.
type Options struct {
	Store    string        // sqlite or postgres. Empty: sqlite
	Servers  bool          // the database's server is killed too, at other moments
	Cycles   int           // kills; 0: 20
	Load     time.Duration // mean time under load before a kill; 0: 1.5 s
	Sessions int           // SMTP sessions at once; 0: 24
	Bounces  int           // recipients of a thousand that the receiver refuses for ever; 0: 30
	Module   string        // folder of the source that is built; empty: the current one
	Dir      string        // folder for everything; empty: a temporary one, which stays when something is wrong
	Patience time.Duration // how long the end waits for the next delivery before it gives up; 0: 30 s
	Progress io.Writer     // for people; nil: none
}

// Result is what came of a run.
type Result struct {
	Store         string  `json:"store"`
	Cycles        int     `json:"cycles"`          // kills
	Early         int     `json:"early"`           // of them, those during a start
	Servers       int     `json:"servers"`         // kills of the database's server, beside
	Seconds       float64 `json:"seconds"`         // of the whole run
	InFlight      int     `json:"in_flight"`       // the most attempts under way at a kill
	InFlightTotal int     `json:"in_flight_total"` // added up over all kills
	Peak          int     `json:"peak"`            // the most attempts under way at any time
	Bound         int     `json:"bound"`           // connections to the receiver at the kills, added up: what may be repeated
	Restart       float64 `json:"restart"`         // longest time from a start to its greeting, in seconds
	Refused       int     `json:"refused"`         // messages answered 4xx or 5xx: they do not count as acknowledged
	Drain         float64 `json:"drain"`           // seconds from the end of the load until the queue was empty
	Torn          int     `json:"torn"`            // rows of the store that contradict each other
	Counted       int     `json:"counted"`         // events that reports count
	Miscounted    int     `json:"miscounted"`      // counts of reports that do not agree with the events
	Stuck         int     `json:"stuck"`           // deliveries that were still live at the end; 1000: that many or more
	Comparison
}

// Err says what is wrong; nil when the relay kept its promises.
func (r *Result) Err() error {
	var errs []error
	fail := func(n int, what string) {
		if n > 0 {
			errs = append(errs, fmt.Errorf("%d %s", n, what))
		}
	}
	fail(r.Lost, "lost")
	fail(r.Altered, "altered")
	fail(r.FalseReports, "false reports")
	fail(r.Strange, "messages that nobody sent")
	fail(r.Torn, "rows torn")
	fail(r.Miscounted, "counts wrong")
	fail(r.Stuck, "deliveries stuck")
	if r.Repeated > r.Bound {
		errs = append(errs, fmt.Errorf("%d repeated, but at most %d attempts were in flight", r.Repeated, r.Bound))
	}
	if r.Messages == 0 {
		errs = append(errs, errors.New("nothing was acknowledged"))
	}
	return errors.Join(errs...)
}

// harness is a run under way.
type harness struct {
	o      Options
	result *Result
	dir    string
	binary string
	engine engine
	relay  *process.Relay
	api    *api.Client
	sink   *sink.Server
	sent   *clientLog
	got    *receiverLog
}

// Run does it all. The error says that the run itself failed, such as a relay
// that does not start again; what it found out about the relay's promises is
// Result.Err.
func Run(ctx context.Context, o Options) (*Result, error) {
	h := &harness{o: o, sent: &clientLog{letters: map[int]acknowledged{}}, got: newReceiverLog()}
	h.o.Cycles = orElse(o.Cycles, 20)
	h.o.Load = orElse(o.Load, 1500*time.Millisecond)
	h.o.Sessions = orElse(o.Sessions, 24)
	h.o.Bounces = orElse(o.Bounces, 30)
	h.o.Patience = orElse(o.Patience, 30*time.Second)
	h.o.Store = orElse(o.Store, "sqlite")
	h.result = &Result{Store: h.o.Store}
	began := time.Now()
	err := h.prepare(ctx)
	if err == nil {
		err = errors.Join(h.run(ctx), h.engine.close())
	}
	h.result.Seconds = time.Since(began).Seconds()
	if o.Dir == "" && h.dir != "" {
		if err == nil && h.result.Err() == nil {
			err = os.RemoveAll(h.dir)
		} else {
			h.say("what is left of it is in %s", h.dir)
		}
	}
	return h.result, err
}

func orElse[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

func (h *harness) say(format string, args ...any) {
	if h.o.Progress != nil {
		fmt.Fprintf(h.o.Progress, format+"\n", args...)
	}
}

// prepare makes the folder and the binary.
func (h *harness) prepare(ctx context.Context) (err error) {
	if h.dir = h.o.Dir; h.dir == "" {
		if h.dir, err = os.MkdirTemp("", "postrider-crash-"); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	if h.engine, err = openEngine(ctx, h.o.Store, h.dir); err != nil {
		return err
	}
	h.binary = filepath.Join(h.dir, "postrider")
	if err := process.Build(ctx, h.o.Module, h.binary); err != nil {
		return errors.Join(err, h.engine.close())
	}
	return nil
}

// run has the relay under load and killed.
func (h *harness) run(ctx context.Context) error {
	return h.serve(ctx, func(ctx context.Context) error {
		if err := h.first(ctx); err != nil {
			return err
		}
		if err := h.load(ctx); err != nil {
			return err
		}
		return h.finish(ctx)
	})
}

// serve runs f with a receiver that listens and a relay that can be started.
func (h *harness) serve(ctx context.Context, f func(context.Context) error) (err error) {
	if h.sink, err = sink.New(sink.Config{Received: h.got.received}); err != nil {
		return fmt.Errorf("start receiver: %w", err)
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- h.sink.Serve(serving) }()
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	stderr, err := os.Create(filepath.Join(h.dir, "relay.log"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer stderr.Close()
	h.relay, err = process.New(process.Options{Binary: h.binary, Dir: h.dir, Receiver: h.sink.Addr(),
		Settings: h.engine.settings + settings, Stderr: stderr})
	if err != nil {
		return err
	}
	defer h.relay.Close()
	h.api = api.NewClient(h.relay.Data)
	return f(ctx)
}

// settings let retries and DSNs come soon.
const settings = `
[queue]
retry = ["1s"]
[suppression]
hard_bounces = false
soft_bounces = 0
[notices]
gather = "1s"
[limits]
messages_per_session = 100000
`

// Clients with a password call from one address, those whose network is their
// credential from another.
var networkAddr = net.IPv4(127, 0, 0, 2)

// first starts the relay for the first time, which prints the password.
func (h *harness) first(ctx context.Context) error {
	if err := h.start(ctx); err != nil {
		return err
	}
	out, err := h.relay.Run(ctx, "credential", "add", "-kind", "network", "-network", networkAddr.String(), "devices")
	if err != nil {
		return fmt.Errorf("add network credential: %w\n%s", err, out)
	}
	return nil
}

func (h *harness) start(ctx context.Context) error {
	began := time.Now()
	if err := h.relay.Launch(); err != nil {
		return err
	}
	if err := h.relay.Ready(ctx, time.Minute); err != nil {
		return err
	}
	h.result.Restart = max(h.result.Restart, time.Since(began).Seconds())
	return nil
}

// load lets clients send while the relay is killed and started.
func (h *harness) load(ctx context.Context) error {
	sending, stop := context.WithCancel(ctx)
	writer := newWriter(h.o.Bounces)
	var wg sync.WaitGroup
	for i := range h.o.Sessions {
		c := &client{addr: h.relay.Addr, from: networkAddr, writer: writer, log: h.sent}
		if i%2 == 0 {
			c.from, c.password = net.IPv4(127, 0, 0, 1), h.relay.Password()
		}
		wg.Go(func() { c.run(sending) })
	}
	defer wg.Wait()
	defer stop()
	if err := h.warm(ctx); err != nil {
		return err
	}
	for h.result.Cycles < h.o.Cycles {
		if err := h.cycle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// enough is how many letters have to be acknowledged before the first kill, so
// that a run is one on a slow machine too.
const enough = 100

// warm waits until enough letters are acknowledged.
func (h *harness) warm(ctx context.Context) error {
	for last, since := 0, time.Now(); ; {
		n := h.sent.count()
		if n >= enough {
			return nil
		}
		if n > last {
			last, since = n, time.Now()
		}
		if time.Since(since) > h.o.Patience {
			return fmt.Errorf("%d letters were acknowledged, and no more in %s", n, h.o.Patience)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// cycle kills the relay at a random moment and starts it again. One in five of
// the starts is killed too, at a random moment of it.
func (h *harness) cycle(ctx context.Context) error {
	before := h.sent.count()
	wait := time.Duration(rand.Float64() * 2 * float64(h.o.Load))
	if h.o.Servers && h.engine.server != nil {
		if err := h.killServer(ctx); err != nil {
			return err
		}
	}
	if err := pause(ctx, wait); err != nil {
		return err
	}
	flight := h.kill(ctx)
	h.say("cycle %3d: killed after %4.1f s, %2d attempts in flight, %5d more acknowledged, %7d in all",
		h.result.Cycles, wait.Seconds(), flight, h.sent.count()-before, h.sent.count())
	for h.result.Cycles < h.o.Cycles && rand.IntN(5) == 0 {
		if err := h.relay.Launch(); err != nil {
			return err
		}
		wait := time.Duration(rand.Float64() * min(0.5, 1.5*h.result.Restart) * float64(time.Second))
		if err := pause(ctx, wait); err != nil {
			return err
		}
		flight := h.kill(ctx)
		h.result.Early++
		h.say("cycle %3d: killed %3d ms into its start, %2d attempts in flight", h.result.Cycles, wait.Milliseconds(), flight)
	}
	return h.start(ctx)
}

// killServer kills the database's server at a random moment and starts it again,
// while the relay goes on.
func (h *harness) killServer(ctx context.Context) error {
	if err := pause(ctx, time.Duration(rand.Float64()*2*float64(h.o.Load))); err != nil {
		return err
	}
	began := time.Now()
	if err := h.engine.server.Kill(); err != nil {
		return fmt.Errorf("kill the database's server: %w", err)
	}
	h.result.Servers++
	if err := h.engine.server.Start(ctx); err != nil {
		return fmt.Errorf("start the database's server: %w", err)
	}
	h.say("           the database's server was killed, and was back after %.1f s", time.Since(began).Seconds())
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// kill kills the relay and notes what was in flight: by its own account, and by
// the receiver's, on whose connections no more than one attempt each can be.
func (h *harness) kill(ctx context.Context) (flight int) {
	var status api.Status
	asking, cancel := context.WithTimeout(ctx, time.Second)
	_ = h.api.Get(asking, "/v1/status", nil, &status) // in the midst of a start nobody answers
	cancel()
	before := h.sink.Stats()
	h.relay.Kill()
	// A connection may have come between the count and the kill.
	bound := int(before.Open + h.sink.Stats().Connections - before.Connections)
	r := h.result
	r.Cycles++
	r.InFlight = max(r.InFlight, status.Queue.InFlight)
	r.InFlightTotal += status.Queue.InFlight
	r.Peak = max(r.Peak, status.Queue.Peak)
	r.Bound += bound
	return status.Queue.InFlight
}

// finish waits until the relay has delivered what it has, stops it, and
// compares.
func (h *harness) finish(ctx context.Context) error {
	began := time.Now()
	h.say("load ended; waiting until the queue is empty")
	if err := h.drain(ctx); err != nil {
		return err
	}
	h.result.Drain = time.Since(began).Seconds()
	if err := h.relay.Stop(); err != nil {
		return err
	}
	torn, counts, err := h.engine.inspect(ctx)
	if err != nil {
		return err
	}
	h.result.Torn = torn
	h.result.Counted, h.result.Miscounted = counts.Events, counts.Wrong
	for _, w := range counts.First {
		h.say("  counted wrong: %s", w)
	}
	h.result.Comparison = *compare(h.sent, h.got)
	h.result.Refused = h.sent.refused
	for _, e := range h.result.examples {
		h.say("  %s", e)
	}
	return nil
}

// drain waits until nothing is live and nothing is missing, or until nothing
// has come for as long as Patience says.
func (h *harness) drain(ctx context.Context) error {
	last, since := int64(-1), time.Now()
	for {
		if n := h.sink.Stats().Messages; n != last {
			last, since = n, time.Now()
		}
		var live api.List[api.Delivery]
		if err := h.api.Get(ctx, "/v1/deliveries", map[string][]string{"live": {"true"}, "limit": {"1000"}}, &live); err != nil {
			return err
		}
		h.result.Stuck = len(live.Data)
		if len(live.Data) == 0 && compare(h.sent, h.got).Lost == 0 {
			return nil
		}
		if time.Since(since) > h.o.Patience {
			h.say("nothing has come for %v", h.o.Patience)
			return nil
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}
