// Package demo is the main job as a show: a relay and simulated receivers on
// loopback, realistic messages sent to them over SMTP, and what became of each.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/config"
	"postrider/internal/dns"
	"postrider/internal/lab"
	"postrider/internal/lab/fakedns"
	"postrider/internal/sink"
)

// Options are what the caller may choose.
type Options struct {
	Dir     string // data folder, without a relay's data yet; empty: a new temporary one, removed at the end
	Once    bool   // leave after the table
	Program string // how the person called the program, for the lines to copy
}

// ErrUnforeseen means that a message did not reach the outcome that its
// scenario foresees.
var ErrUnforeseen = errors.New("not every message came to what its scenario foresees")

// Run shows the demo. Without Once it then stays up until ctx ends.
func Run(ctx context.Context, w, logs io.Writer, o Options) (err error) {
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "postrider-demo-"); err != nil {
			return fmt.Errorf("make data folder: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
	}
	net, err := openReceivers()
	if err != nil {
		return err
	}
	var g errgroup.Group
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // the receivers outlive the relay
	defer func() { stop(); err = errors.Join(err, g.Wait(), net.close()) }()

	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r, err := lab.Start(context.WithoutCancel(ctx), o.Dir, log, func(c *config.Config) { configure(c, net) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Stop()) }()
	if r.First == nil { // nobody knows that relay's password any more
		return fmt.Errorf("%s holds a relay's data already; the demo wants a folder of its own", o.Dir)
	}
	if err := net.publish(r.DNS); err != nil {
		return err
	}
	if net.proofs.Resolver, err = dns.New([]string{r.DNS.Addr()}, 5*time.Second); err != nil {
		return err
	}
	for _, s := range net.sinks {
		g.Go(func() error { return s.Serve(serving) })
	}
	fmt.Fprintf(w, "Postrider and %d simulated receivers run on loopback; data in %s\n\n", len(net.sinks), o.Dir)
	if err := errors.Join(own(ctx, w, r), ctx.Err()); err != nil {
		return err
	}
	h, err := openHook(ctx, r)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := show(ctx, w, r, net.proofs, h); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if o.Once {
		return nil
	}
	invite(w, r, o)
	<-ctx.Done()
	fmt.Fprintln(w, "\nStopping.")
	return nil
}

// configure shortens the waits and opens the usual port, all by configuration.
func configure(c *config.Config, world *receivers) {
	c.Delivery.Port = world.port
	c.Queue.Retry = []config.Duration{config.Duration(1500 * time.Millisecond), config.Duration(2 * time.Second)}
	c.Limits.MessageSize = 20 << 20
	c.Policy.Senders = "verified" // as it is by default; the lab's relays take anybody's
	c.Service.Domain = "relay.test"
	c.HTTP.Listen = "127.0.0.1:0"
	for at, address := range map[string]*string{"127.0.0.1:2525": &c.Listen[0].Address, "127.0.0.1:4650": &c.Listen[1].Address,
		"127.0.0.1:9525": &c.HTTP.Listen} {
		if ln, err := net.Listen("tcp", at); err == nil { // else the system chooses a port
			ln.Close()
			*address = at
		}
	}
	c.Listen = append(c.Listen[:2], config.Listener{Name: "feedback", Address: world.back.SMTP, Mode: "feedback"})
	c.Tracking.Listen, c.Tracking.Early = world.back.HTTP, 0 // its recipients are quick
	c.Webhooks.Private = []config.Prefix{config.Prefix(netip.MustParsePrefix("127.0.0.0/8"))}
}

// receivers is the Internet of the demo: one address a receiver, all on one
// port.
type receivers struct {
	port   int
	sinks  []*sink.Server
	back   *sink.Reactions // where what follows later goes
	zone   []string
	proofs *proofs
}

// openReceivers opens the simulated receivers. Everything at 127.0.1.x.
func openReceivers() (_ *receivers, err error) {
	n := &receivers{proofs: &proofs{by: map[string]*sink.Proof{}}, back: new(sink.Reactions)}
	for _, at := range []*string{&n.back.SMTP, &n.back.HTTP} {
		if *at, err = freePort(); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	authority, err := sink.NewAuthority()
	if err != nil {
		return nil, err
	}
	for i, rc := range []struct {
		host    string
		domains []string
		config  sink.Config
	}{
		{"mx.example.test", []string{"example.test", "shop.test"}, sink.Config{}},
		{"mx.gmail.test", []string{"gmail.test"}, sink.Config{Voice: sink.Gmail}},
		{"mx.outlook.test", []string{"outlook.test"}, sink.Config{Voice: sink.Outlook}},
		{"mx.plaintext.test", []string{"plaintext.test"}, sink.Config{Without: sink.StartTLS}},
		{"mx.expired.test", []string{"expired.test"}, sink.Config{Certificate: sink.Expired}},
		{"mx.broken-tls.test", []string{"broken-tls.test"}, sink.Config{TLSFault: sink.TLSGarbage}},
		{"mx.seven-bit.test", []string{"seven-bit.test"}, sink.Config{Without: sink.EightBitMIME | sink.SMTPUTF8 | sink.Pipelining | sink.Chunking}},
	} {
		at := netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)})
		rc.config.Authority, rc.config.Hostname = authority, rc.host
		rc.config.Resolver, rc.config.Received, rc.config.React = n.proofs, n.proofs.received, n.back
		rc.config.Listen = []string{net.JoinHostPort(at.String(), strconv.Itoa(n.port))}
		s, err := sink.New(rc.config)
		if err != nil {
			return nil, fmt.Errorf("open receiver %s: %w", rc.host, err)
		}
		n.sinks = append(n.sinks, s)
		n.port = s.Addrs()[0].(*net.TCPAddr).Port
		n.zone = append(n.zone, fmt.Sprintf("%s. 60 IN A %s", rc.host, at))
		for _, d := range rc.domains {
			n.zone = append(n.zone, fmt.Sprintf("%s. 60 IN MX 10 %s.", d, rc.host))
		}
	}
	n.zone = append(n.zone,
		"null-mx.test. 60 IN MX 0 .",
		"half-down.test. 60 IN MX 10 down.half-down.test.",
		"half-down.test. 60 IN MX 20 mx.example.test.",
		"down.half-down.test. 60 IN A 127.0.1.250", // where nothing listens
		"inside.test. 60 IN MX 10 router.inside.test.",
		"router.inside.test. 60 IN A 192.168.1.1",
		// Whatever else a person writes to: no mail leaves the demo.
		"*. 60 IN MX 10 mx.example.test.",
	)
	return n, nil
}

// close closes receivers that may not have served.
func (n *receivers) close() error {
	var errs []error
	for _, s := range n.sinks {
		if err := s.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (n *receivers) publish(dns *fakedns.Server) error {
	if err := dns.Add(n.zone...); err != nil {
		return fmt.Errorf("publish DNS records: %w", err)
	}
	dns.Fail("does-not-exist.test.", nxdomain)
	return nil
}

// nxdomain is the DNS's code for a name that does not exist (RFC 1035 section
// 4.1.1).
const nxdomain = 3

// invite tells how to send one's own mail.
func invite(w io.Writer, r *lab.Relay, o Options) {
	host, port, _ := net.SplitHostPort(r.Addr("starttls"))
	ca := filepath.Join(o.Dir, filepath.Base(r.CAFile))
	fmt.Fprintf(w, `
It stays up; send mail of your own. Whatever the recipient, it goes to the simulated
receivers; local parts such as user-unknown@, greylist@ or slow@ choose what they do
(%[1]s sink -list).

  Host      %[2]s
  Ports     %[3]s (STARTTLS), %[4]s (TLS from the first byte)
  User      %[5]s
  Password  %[6]s

swaks:
  swaks --server %[2]s:%[3]s -tls --auth-user %[5]s --auth-password %[6]s --from me@shop.test --to greylist@example.test

Python:
  python3 -c 'import smtplib,ssl; s=smtplib.SMTP("localhost",%[3]s); s.starttls(context=ssl.create_default_context(cafile="%[7]s")); s.login("%[5]s","%[6]s"); print(s.sendmail("me@shop.test",["you@example.test"],"Subject: Hello\r\n\r\nHello\r\n"))'

Then see what became of it:
  %[1]s log -data %[8]s -n 5
  %[1]s message -data %[8]s ID
  %[1]s queue -data %[8]s
  %[1]s log -data %[8]s -follow
  curl http://%[9]s/metrics

Ctrl-C ends it.
`, o.Program, host, port, portOf(r.Addr("tls")), r.User, r.Password, ca, o.Dir, r.WatchAddr())
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
