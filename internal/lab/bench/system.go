package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postrider/internal/api"
	"postrider/internal/lab/postgres"
	"postrider/internal/lab/process"
)

// system is something that mail is sent through.
type system struct {
	name     string
	addr     string
	synced   string         // how it is known that a message is on the disk before its 250
	programs []program      // whose use of the machine counts
	relay    *process.Relay // nil: none
	rival    *system        // the relay that this one is compared with; nil: none
	empty    func(context.Context) (bool, error)
}

// idle tells whether nothing is queued any more.
func (s *system) idle(ctx context.Context) (bool, error) {
	if s.empty == nil {
		return true, nil
	}
	return s.empty(ctx)
}

// startRelays starts a relay for each program on a store. The first is the rival
// of the others on this store, and its own is the first on the store before.
func (b *bench) startRelays(ctx context.Context, store string) error {
	var rival *system
	if len(b.systems) > 0 {
		rival = b.systems[0]
	}
	for i, r := range b.o.Relays {
		s, err := b.startRelay(ctx, r, store, "", "")
		if err != nil {
			return fmt.Errorf("start %s: %w", s.name, err)
		}
		s.rival = rival
		if b.systems = append(b.systems, s); i == 0 {
			rival = s
		}
	}
	return nil
}

// startRelay starts one relay. does is what it does beside the others, as the end
// of its name, by settings of its own.
func (b *bench) startRelay(ctx context.Context, r Relay, store, does, own string) (*system, error) {
	s := &system{name: store, synced: "make crash-order STORE=" + store}
	if r.Name != "" {
		s.name = r.Name
		if slices.ContainsFunc(b.o.Systems, func(other string) bool { return isStore(other) && other != store }) {
			s.name += " " + store
		}
	}
	s.name += does
	dir := filepath.Join(b.dir, strings.ReplaceAll(s.name, " ", "-"))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return s, fmt.Errorf("make folder: %w", err)
	}
	settings, err := b.settings(ctx, s, store)
	if err != nil {
		return s, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return s, fmt.Errorf("make log: %w", err)
	}
	b.later(log.Close)
	s.relay, err = process.New(process.Options{Binary: r.Binary, Dir: dir, Receiver: b.sink.addr, Settings: settings + own, Stderr: log})
	if err != nil {
		return s, err
	}
	b.later(func() error { s.relay.Close(); return nil })
	if err := errors.Join(s.relay.Launch(), s.relay.Ready(ctx, 4*time.Minute)); err != nil {
		text, _ := os.ReadFile(log.Name()) // it only helps to understand
		return s, fmt.Errorf("%w\n%s", err, text)
	}
	if out, err := s.relay.Run(ctx, "credential", "add", "-kind", "network", "-network", "127.0.0.1/32", "bench"); err != nil {
		return s, fmt.Errorf("add network credential: %w\n%s", err, out)
	}
	client := api.NewClient(s.relay.Data)
	s.addr = s.relay.Addr
	s.programs = append([]program{{name: "relay", pid: s.relay.PID()}}, s.programs...)
	// What has been delivered is in the queue's hand until that is stored.
	s.empty = func(ctx context.Context) (bool, error) {
		var status api.Status
		err := client.Get(ctx, "/v1/status", nil, &status)
		return status.Queue.InHand == 0, err
	}
	return s, nil
}

// settings of a relay: the defaults, but for limits that a single client with
// many sessions and messages would meet.
func (b *bench) settings(ctx context.Context, s *system, store string) (string, error) {
	var text strings.Builder
	if store == Postgres {
		server, err := postgres.New(ctx, postgres.Options{Dir: b.dir, Settings: []string{"max_wal_size = 2GB", "shared_buffers = 256MB"}})
		if err != nil {
			return "", err
		}
		b.later(server.Close)
		s.programs = append(s.programs, program{name: "server", pid: server.PID(), group: true})
		fmt.Fprintf(&text, "store = %q\n", server.URL())
	}
	fmt.Fprintf(&text, "[limits]\nmessages_per_session = 100000000\nsessions_per_client = %d\n", max(1000, 2*b.o.Sessions))
	if b.receiver != nil {
		fmt.Fprintf(&text, "[[route]]\ndomain = %q\nto = %q\n", timedDomain, b.receiver.addr())
	}
	return text.String(), nil
}
