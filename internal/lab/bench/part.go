package bench

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"time"
)

// load sends n messages to an address and tells how much processor time that
// took the sender, and when it began, once its sessions stood.
type load func(ctx context.Context, addr string, n int) (sent, error)

type sent struct {
	began time.Time
	cpu   float64 // seconds
}

// entry is one way of sending mail, a line in the table of a part.
type entry struct {
	name   string
	system *system
	load   load
	of     []string // the entries that this one is compared with
}

// part is a comparison of entries, each measured once a round.
type part struct {
	name, what string
	bytes      int
	messages   int
	entries    []*entry
}

// parts are those that count messages a second.
func (b *bench) parts() []part {
	parts := []part{
		{name: Each, what: "10 kB, a connection for each message", bytes: 10 << 10, messages: b.o.Messages},
		{name: Kept, what: "10 kB, kept connections", bytes: 10 << 10, messages: b.o.Messages},
		{name: Large, what: "100 kB, a connection for each message", bytes: 100 << 10, messages: max(b.o.Sessions, b.o.Messages/4)},
		{name: TLS, what: "10 kB, kept sessions, with STARTTLS and AUTH or without", bytes: 10 << 10, messages: b.o.Messages},
		{name: DKIM, what: "10 kB, kept connections, signed (the relay: RSA-2048 and Ed25519; OpenDKIM: RSA-2048) and not", bytes: 10 << 10, messages: b.o.Messages},
	}
	parts = slices.DeleteFunc(parts, func(p part) bool { return !slices.Contains(b.o.Only, p.name) })
	for i := range parts {
		p := &parts[i]
		switch p.name {
		case TLS:
			p.entries = b.sessionEntries(p.bytes)
		case DKIM:
			p.entries = b.signingEntries(p.bytes)
		default:
			p.entries = b.sourceEntries(p)
		}
	}
	return parts
}

// sourceEntries are the direct way and all systems, with smtp-source.
func (b *bench) sourceEntries(p *part) []*entry {
	source := b.smtpSource(p.bytes, p.name == Kept)
	entries := []*entry{{name: direct, system: &system{name: direct, addr: b.sink.addr}, load: source}}
	systems := b.systems
	if p.name == Large {
		systems = slices.DeleteFunc(slices.Clone(systems), func(s *system) bool { return s.relay == nil })
	}
	for _, s := range systems {
		e := &entry{name: s.name, system: s, load: source, of: []string{direct}}
		for _, other := range systems {
			if s.relay != nil && (other.relay == nil || other == s.rival) {
				e.of = append(e.of, other.name)
			}
		}
		entries = append(entries, e)
	}
	return entries
}

// sessionEntries are the relays, each without TLS and with.
func (b *bench) sessionEntries(bytes int) (entries []*entry) {
	for _, s := range b.systems {
		if s.relay == nil {
			continue
		}
		plain := &entry{name: s.name + " plain", system: s, load: b.sessions(bytes, "")}
		secure := &entry{name: s.name + " TLS", system: s, load: b.sessions(bytes, s.relay.Password()), of: []string{plain.name}}
		entries = append(entries, plain, secure)
	}
	return entries
}

// run is what came of sending all messages once.
type run struct {
	rate   float64 // messages a second
	source float64 // seconds of processor time of the sender
	cpu    map[string]float64
	memory map[string]int64
}

// measure does all rounds of a part.
func (b *bench) measure(ctx context.Context, p part) (*Throughput, error) {
	b.say("\n%s: %s", p.name, p.what)
	for _, e := range p.entries {
		if _, err := b.send(ctx, e, max(b.o.Sessions, p.messages/10)); err != nil {
			return nil, fmt.Errorf("warm up %s: %w", e.name, err)
		}
	}
	runs := map[string][]*run{}
	for round := range b.o.Rounds {
		for i := range p.entries {
			e := p.entries[(i+round)%len(p.entries)]
			r, err := b.send(ctx, e, p.messages)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
			runs[e.name] = append(runs[e.name], r)
			b.say("  round %d  %-16s %7.0f msg/s%s", round+1, e.name, r.rate, perThousand(r.cpu, p.messages))
		}
	}
	return p.summary(b.o.Sessions, runs), nil
}

func perThousand(cpu map[string]float64, messages int) (text string) {
	for _, name := range slices.Sorted(maps.Keys(cpu)) {
		text += fmt.Sprintf("  %s %.2f CPU s per 1,000", name, cpu[name]*1000/float64(messages))
	}
	return text
}

// send sends n messages and waits until the receiver has them all.
func (b *bench) send(ctx context.Context, e *entry, n int) (*run, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// What the one before has still to write is not this one's burden.
	if err := exec.CommandContext(ctx, "sync", "-f", b.dir).Run(); err != nil {
		return nil, fmt.Errorf("sync the disk: %w", err)
	}
	if err := b.sink.expect(n); err != nil {
		return nil, err
	}
	u, err := watch(e.system.programs)
	if err != nil {
		return nil, err
	}
	r := &run{}
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		s, err := e.load(ctx, e.system.addr, n)
		if !s.began.IsZero() {
			began = s.began
		}
		r.source = s.cpu
		done <- err
	}()
	sending := true
	err = wait(ctx, 5*time.Millisecond, "the last message", func() (bool, error) {
		select {
		case err := <-done:
			if sending = false; err != nil {
				return false, err
			}
		default:
		}
		if err := u.sample(); err != nil {
			return false, err
		}
		return b.sink.complete()
	})
	ended := time.Now()
	if sending {
		if err != nil {
			cancel()
		}
		if late := <-done; err == nil {
			err = late
		}
	}
	if err != nil {
		return nil, err
	}
	r.rate = float64(n) / ended.Sub(began).Seconds()
	if err := wait(ctx, 10*time.Millisecond, "an empty queue", func() (bool, error) { return e.system.idle(ctx) }); err != nil {
		return nil, err
	}
	r.cpu, r.memory, err = u.end()
	return r, err
}
