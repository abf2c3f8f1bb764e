// Package daemon is the only wiring: it opens the parts of a relay, starts
// them, and stops them in the right order.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/account"
	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/deliver"
	"postrider/internal/dns"
	"postrider/internal/doctor"
	"postrider/internal/domain"
	"postrider/internal/feedback"
	"postrider/internal/limit"
	"postrider/internal/policy"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/smtpclient"
	"postrider/internal/smtpd"
	"postrider/internal/store"
	"postrider/internal/submit"
	"postrider/internal/suppression"
	"postrider/internal/tail"
	"postrider/internal/trace"
	"postrider/internal/unsubscribe"
	"postrider/internal/webhook"
)

// Version of the program.
const Version = "0.1.0-dev"

// Daemon is a relay that is open but does not run yet, or runs.
type Daemon struct {
	Config config.Config
	// First is the credential that was made because there was none; nil else.
	First *Secret

	log        *slog.Logger
	store      *store.DB
	node       *node
	ports      []port
	control    net.Listener
	box        *seal.Box // opens what is sealed in the store
	accounts   *account.Service
	directory  *account.Directory
	filter     *suppression.Filter
	limiter    *limit.Limiter
	domains    *domain.Manager
	senders    *domain.Senders
	hooks      *webhook.Manager
	webhooks   *webhook.Service
	live       *tail.Live
	traces     *trace.Book
	alerts     alerts
	doctor     *doctor.Doctor
	queue      *queue.Queue
	dispatcher *deliver.Dispatcher
	notifier   *feedback.Notifier
	inbox      *feedback.Inbox
	returns    *feedback.Returns
	loops      loops
	rules      *feedback.Rules
	outward    *outward
	certs      *certs
	server     *smtpd.Server
	api        *api.Server
	track      tracking
	web        net.Listener // of the API; nil: only the control socket serves it
	watch      *watch
}

// Secret is a credential as it is shown once.
type Secret struct{ User, Password string }

// Open binds the ports and opens the store. The configuration must have been
// resolved and validated.
func Open(ctx context.Context, c config.Config, log *slog.Logger) (_ *Daemon, err error) {
	d := &Daemon{Config: c, log: log}
	defer func() {
		if err != nil {
			d.abandon()
		}
	}()
	if err := MakeData(c.Data); err != nil {
		return nil, err
	}
	if err = alone(ctx, c.Data); err != nil {
		return nil, err
	}
	if d.watch, err = openWatch(ctx, c, log); err != nil {
		return nil, err
	}
	if d.store, err = openStore(ctx, c, log); err != nil {
		return nil, err
	}
	if d.ports, err = bind(ctx, c, log); err != nil {
		return nil, err
	}
	if d.control, err = bindControl(ctx, c.Data); err != nil {
		return nil, err
	}
	if d.web, err = bindAPI(ctx, c); err != nil {
		return nil, err
	}
	if d.track.ln, err = bindTracking(ctx, c); err != nil {
		return nil, err
	}
	joined := time.Now()
	lease, err := d.store.Join(ctx, c.Node)
	if err != nil {
		return nil, fmt.Errorf("join the store as %s: %w", c.Node, err)
	}
	fitFiles(&d.Config, fileLimit(), log)
	return d, d.wire(ctx, lease, joined)
}

// MakeData makes the data folder where there is none.
func MakeData(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make data folder (data): %w", err)
	}
	return nil
}

// abandon closes what Open has opened.
func (d *Daemon) abandon() {
	for _, p := range d.ports {
		p.Close()
	}
	if d.control != nil {
		d.control.Close()
	}
	if d.web != nil {
		d.web.Close()
	}
	if d.track.ln != nil {
		d.track.ln.Close()
	}
	if d.certs != nil && d.certs.acme != nil {
		d.certs.acme.Close()
	}
	if d.watch != nil {
		d.watch.close()
	}
	if d.store != nil {
		d.store.Close()
	}
}

// wire makes the parts and ties them together, in the direction in which mail
// flows.
func (d *Daemon) wire(ctx context.Context, lease int64, joined time.Time) error {
	c := d.Config
	var err error
	if d.certs, err = openCerts(c, d.log); err != nil {
		return err
	}
	table, err := routes(c)
	if err != nil {
		return err
	}
	resolver, err := dns.New(c.DNS.Servers, time.Duration(c.DNS.Timeout))
	if err != nil {
		return fmt.Errorf("dns.servers: %w", err)
	}
	if d.box, err = openBox(ctx, d.store, cmp.Or(c.Master, filepath.Join(c.Data, "master.key")), d.log); err != nil {
		return err
	}
	if err := d.useACME(ctx); err != nil {
		return err
	}
	if d.outward, err = d.newOutward(resolver); err != nil {
		return err
	}
	home, err := d.store.EnsureAccount(ctx, "default")
	if err != nil {
		return err
	}
	d.directory = account.NewDirectory(d.withFilter())
	d.accounts, err = account.Open(ctx, d.store, d.directory, account.Throttle{Free: c.Login.Free, Delay: time.Duration(c.Login.Delay),
		Max: time.Duration(c.Login.Max), Reset: time.Duration(c.Login.Reset)}, d.log)
	if err != nil {
		return err
	}
	credentials := &account.Manager{Store: d.store, Book: d.directory, NewID: submit.NewID, Changed: d.accounts.Refresh}
	if d.First, err = firstCredential(ctx, credentials, home); err != nil {
		return err
	}
	d.queue = queue.New(d.store, lease, queue.Config{Window: c.Queue.Window, WindowBytes: int64(c.Queue.WindowBytes),
		Batch: c.Queue.Batch, BatchBytes: int64(c.Queue.BatchBytes), Observer: d.watch.metrics,
		Site: func(domain string) string { return d.dispatcher.Site(domain) }}, d.log)
	d.node = newNode(d.store, d.queue, c.Node, c.Store.Shared(), lease, joined, d.log)
	d.limiter = limit.New(d.store, c.Store.Shared(), d.log)
	entrance := submit.New(submit.Config{Hostname: c.Hostname, Expire: time.Duration(c.Queue.Expire), Groups: d.directory, Links: d.unsubscribable(),
		Rules:  policy.Rules{Senders: relay.SenderRule(c.Policy.Senders), DNS: relay.DNSRule(c.Policy.DNS), Sandbox: int64(c.Policy.Sandbox)},
		Limits: policy.Limits{MessageSize: int64(c.Limits.MessageSize), Recipients: c.Limits.Recipients, Hops: c.Limits.Hops}}, d.queue, d.directory, d.limiter)
	if d.rules, err = feedback.OpenRules(c.Feedback.Rules, d.log); err != nil {
		return fmt.Errorf("feedback.rules: %w", err)
	}
	if err := d.wireReturns(); err != nil {
		return err
	}
	d.server = smtpd.New(smtpd.Config{Hostname: c.Hostname, Help: c.Help, TLS: d.certs.tls(),
		TempDir: c.Data, Limits: c.Limits, Drain: time.Duration(c.Queue.Drain), Condition: d.Condition, Observer: d.watch.metrics, Feedback: d.inbox}, d.accounts, entrance, d.log)
	if err := d.wireDelivery(ctx, resolver, table, entrance, home); err != nil {
		return err
	}
	d.notifier = feedback.NewNotifier(feedback.NotifierConfig{Hostname: c.Hostname, From: c.Notices.From,
		Idle: func() bool { return d.Condition() != relay.Working }}, d.store, entrance, d.log)
	if err := d.wireDomains(ctx, resolver, entrance); err != nil {
		return err
	}
	if err := d.wireWebhooks(resolver); err != nil {
		return err
	}
	d.live = tail.NewLive(d.store, tail.Limits{All: c.API.Streams, Account: c.API.AccountStreams}, d.log)
	if err := d.wireTracking(); err != nil {
		return err
	}
	if err := d.wireAlerts(resolver.Addrs, entrance, home); err != nil {
		return err
	}
	d.wireAPI(home, entrance, credentials)
	d.watch.join(ctx, d)
	return nil
}

// wireDelivery makes what takes mail out: the dispatcher, with who signs, renders
// and watches.
func (d *Daemon) wireDelivery(ctx context.Context, resolver *dns.Resolver, table deliver.Routes, entrance *submit.Entrance, home relay.ID) error {
	c := d.Config
	var err error
	leaving := deliverConfig(c)
	leaving.Observer = d.watch.metrics
	d.traces = trace.New()
	leaving.Watcher = d.traces
	leaving.Diagnose, leaving.Provider = d.rules.Diagnose, d.rules.Provider
	leaving.Suppress = suppressRule(c)
	if leaving.Signer, err = openSigner(ctx, c, d.store, d.box, d.directory, d.log); err != nil {
		return err
	}
	d.outward.into(&leaving)
	if err := d.wireRenderer(); err != nil {
		return err
	}
	leaving.Renderer = d.track.renderer
	leaving.Unwanted = unsubscribe.NewUnwanted(d.directory, d.log).Of
	d.outward.reportBy(d, resolver, entrance, home)
	d.dispatcher = deliver.New(leaving, d.queue, d.store, resolver, table, d.log)
	return nil
}

func deliverConfig(c config.Config) deliver.Config {
	out := deliver.Config{Hostname: c.Hostname, Port: c.Delivery.Port, Connections: c.Delivery.Connections,
		PerSite: c.Delivery.PerSite, PerConn: c.Delivery.PerConn, Idle: time.Duration(c.Delivery.Idle),
		Connect: time.Duration(c.Delivery.Connect), Drain: time.Duration(c.Queue.Drain),
		Timeouts: smtpclient.Timeouts{Greeting: time.Duration(c.Delivery.Command), Command: time.Duration(c.Delivery.Command),
			DataStall: time.Duration(c.Delivery.Data), Dot: time.Duration(c.Delivery.Dot)},
		Gather: time.Duration(c.Notices.Gather), Delay: time.Duration(c.Notices.Delay), Spool: c.Data}
	for _, a := range c.Delivery.Source {
		out.Source = append(out.Source, netip.Addr(a))
	}
	for _, w := range c.Queue.Retry {
		out.Retry.Waits = append(out.Retry.Waits, time.Duration(w))
	}
	return out
}

// firstCredential makes one where there never was any, so that a new relay can
// be used at once.
func firstCredential(ctx context.Context, m *account.Manager, home relay.ID) (*Secret, error) {
	all, err := m.List(ctx, relay.Everyone)
	if err != nil || len(all) > 0 {
		return nil, err
	}
	c, password, err := m.Add(ctx, account.Operator(relay.Actor{Name: "postrider"}), account.Wish{Account: home, Kind: account.KindSMTP, Name: "first", User: "postrider"})
	if relay.CodeOf(err) == relay.Conflict {
		return nil, nil // another node that starts just now was faster
	}
	if err != nil {
		return nil, fmt.Errorf("make the first credential: %w", err)
	}
	return &Secret{User: c.User, Password: password}, nil
}

func (d *Daemon) addrs() map[string]string {
	out := map[string]string{}
	for _, p := range d.ports {
		out[p.config.Name] = p.Addr().String()
	}
	return out
}

// Addr is the address of a listener, by its name; empty where there is none.
func (d *Daemon) Addr(listener string) string { return d.addrs()[listener] }

// Condition is whether this node works: takes mail and delivers it.
func (d *Daemon) Condition() relay.Condition { return d.node.condition() }

// Run serves and delivers until ctx ends. Then it takes no more mail, finishes
// what is under way within queue.drain, gives back the rest, and closes the
// store.
func (d *Daemon) Run(ctx context.Context) error {
	defer d.watch.close() // last of all: it tells how the end goes
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWriting()
	written := make(chan error, 1)
	go func() { written <- d.queue.Write(writing) }()

	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return d.dispatcher.Run(running) })
	g.Go(func() error { return d.queue.Run(running, d.dispatcher.Offer) })
	g.Go(func() error { return d.notifier.Run(running) })
	g.Go(func() error { return d.returns.Run(running) })
	g.Go(func() error { return d.rules.Run(running, 5*time.Second) })
	g.Go(func() error { return d.watchDomains(running) })
	g.Go(func() error { return d.accounts.Run(running) })
	g.Go(func() error { return d.filter.Run(running) })
	g.Go(func() error { return d.webhooks.Run(running) })
	g.Go(func() error { return d.live.Run(running) })
	g.Go(func() error { return d.alerts.run(running) })
	g.Go(func() error { return d.sweep(running) })
	g.Go(func() error { return d.upkeep().Run(running) })
	g.Go(func() error { return d.limiter.Run(running) })
	g.Go(func() error { return (&limit.Grower{Store: d.store, Log: d.log}).Run(running) })
	g.Go(func() error { return d.keeper().Run(running) })
	d.outward.start(running, g.Go)
	g.Go(func() error { return d.certs.run(running) })
	if d.certs.acme != nil {
		g.Go(func() error { return d.certs.acme.Run(running) })
	}
	g.Go(func() error { return d.serveAPI(running) })
	g.Go(func() error { return d.serveTracking(running) })
	g.Go(func() error { return d.node.keep(running, d.watch.countReaps(d.store)) })
	for _, p := range d.ports {
		g.Go(func() error { return d.server.Serve(running, p.Listener, p.config) })
		d.log.Info("listening", "name", p.config.Name, "address", p.Addr().String(), "mode", p.config.Mode)
	}
	d.watch.enter("")
	stopped := context.AfterFunc(running, func() { d.watch.enter("draining") })
	defer stopped()
	err := g.Wait()

	closing := context.WithoutCancel(ctx) // drain: what follows is short, and must be done
	err = errors.Join(err, d.queue.Drain(closing))
	stopWriting()
	err = errors.Join(err, <-written, d.store.Leave(closing, d.node.current()), d.store.Close())
	d.log.Info("stopped")
	return err
}
