package backlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postrider/internal/account"
	"postrider/internal/lab/process"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
	"postrider/internal/submit"
)

// sender is somebody who may send: a credential of an account, known by the
// address that it calls from.
type sender struct {
	name    string // of the account
	stream  relay.Stream
	from    net.IP
	account relay.ID
}

// The account hog has the long queue; shops are the others.
const (
	hogUrgent = iota
	hogBulk
	firstShop
	shops = 4
)

// rig is a relay with accounts.
type rig struct {
	*process.Relay
	dir     string
	senders []*sender
	stderr  *os.File
}

// newRig makes a relay that has run once and is stopped. Its DNS knows four
// domains, and all below them: good.test, slow.test, refused.test and
// silent.test.
func (h *harness) newRig(ctx context.Context, name string) (*rig, error) {
	r := &rig{dir: filepath.Join(h.dir, name)}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	var err error
	if r.stderr, err = os.Create(filepath.Join(r.dir, "relay.log")); err != nil {
		return nil, fmt.Errorf("make log: %w", err)
	}
	r.Relay, err = process.New(process.Options{Binary: h.binary, Dir: r.dir, Stderr: r.stderr, Settings: fmt.Sprintf(`
[limits]
sessions = 20000
sessions_per_client = 20000
messages_per_session = 1000000
[notices]
delay_warning = "0s"
[delivery]
port = %d
%s`, h.port, h.o.Settings)})
	if err != nil {
		return nil, err
	}
	for name, host := range map[string]string{"good": goodHost, "slow": slowHost, "refused": refusedHost, "silent": silentHost} {
		err = errors.Join(err, r.site(name+".test", host), r.DNS().Add("*."+name+".test. 3600 IN MX 10 mx."+name+".test."))
	}
	if err == nil {
		err = r.prepare(ctx)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// site makes a domain with a mail server of its own.
func (r *rig) site(domain, host string) error {
	return r.DNS().Add(domain+". 3600 IN MX 10 mx."+domain+".", "mx."+domain+". 3600 IN A "+host)
}

func (r *rig) close() {
	r.Close()
	r.stderr.Close()
}

// prepare lets the relay make its store, and adds accounts.
func (r *rig) prepare(ctx context.Context) error {
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.Stop(); err != nil {
		return err
	}
	return r.edit(ctx, func(db *store.DB) error {
		if err := r.add(ctx, db, "hog", relay.Transactional); err != nil {
			return err
		}
		if err := r.add(ctx, db, "hog", relay.Broadcast); err != nil {
			return err
		}
		for i := range shops {
			if err := r.add(ctx, db, "shop"+strconv.Itoa(i+1), relay.Transactional); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *rig) add(ctx context.Context, db *store.DB, name string, stream relay.Stream) error {
	id, err := db.EnsureAccount(ctx, name)
	if err != nil {
		return err
	}
	s := &sender{name: name, stream: stream, from: net.IPv4(127, 0, 1, byte(len(r.senders)+1)), account: id}
	m := &account.Manager{Store: db, Book: account.NewDirectory(db), NewID: submit.NewID, Changed: func(context.Context) error { return nil }}
	addr, _ := netip.AddrFromSlice(s.from.To4())
	_, _, err = m.Add(ctx, account.Operator(relay.Actor{}), account.Wish{Account: id, Kind: account.KindNetwork, Name: name + " " + stream.String(),
		Networks: []netip.Prefix{netip.PrefixFrom(addr, 32)}, Stream: stream})
	r.senders = append(r.senders, s)
	return err
}

// start starts the relay and waits until it greets.
func (r *rig) start(ctx context.Context) error {
	if err := r.Launch(); err != nil {
		return err
	}
	if err := r.Ready(ctx, 4*time.Minute); err != nil {
		log, _ := os.ReadFile(r.stderr.Name())
		return fmt.Errorf("%w\n%s", err, log[max(0, len(log)-2000):])
	}
	return nil
}

// edit opens the store of a relay that does not run.
func (r *rig) edit(ctx context.Context, f func(*store.DB) error) error {
	db, err := sqlite.Open(ctx, filepath.Join(r.Data, "postrider.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	return errors.Join(f(db), db.Close())
}

// perMessage is how many recipients each message has that fill makes.
const perMessage = 1000

// fill puts deliveries that wait into the store of a relay that does not run.
// They are marked with name; domain says where delivery i goes.
func (r *rig) fill(ctx context.Context, s *sender, name string, n int, domain func(i int) string) error {
	content := letter(name, s.name+"@client.test", time.Now())
	return r.edit(ctx, func(db *store.DB) error {
		var batch []*relay.Submission
		for i := 0; i < n; {
			m, err := submission(s, content)
			if err != nil {
				return err
			}
			for ; i < n && len(m.Deliveries) < perMessage; i++ {
				m.Deliveries = append(m.Deliveries, &relay.Delivery{
					ID: relay.DeliveryID{Message: m.Message.ID, N: len(m.Deliveries) + 1}, Account: s.account, Stream: s.stream,
					Recipient: relay.Recipient{Address: fmt.Sprintf("user%d@%s", i, domain(i)), Notify: relay.NotifyNever}, Domain: domain(i),
					State: relay.Queued, Due: m.Message.Received, Expires: m.Message.Received.Add(5 * 24 * time.Hour), Updated: m.Message.Received})
			}
			if batch = append(batch, m); len(batch) < 10 && i < n {
				continue
			}
			if err := errors.Join(db.Put(ctx, 0, batch)...); err != nil {
				return err
			}
			batch = batch[:0]
		}
		return nil
	})
}

func submission(s *sender, content []byte) (*relay.Submission, error) {
	id, err := submit.NewID()
	if err != nil {
		return nil, err
	}
	return &relay.Submission{Content: raw(content), Message: &relay.Message{ID: id, Account: s.account, Stream: s.stream,
		Received: time.Now().Truncate(time.Microsecond), Envelope: relay.Envelope{Sender: s.name + "@client.test"},
		Subject: "waiting", Size: int64(len(content))}}, nil
}

// maxRSS is the most memory that the relay has had since its start, in bytes.
func (r *rig) maxRSS() int64 { return procStatus(r.PID(), "VmHWM:") }

// rss is what it has now.
func (r *rig) rss() int64 { return procStatus(r.PID(), "VmRSS:") }

func procStatus(pid int, key string) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}
