package acme

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postrider/internal/mailauth"
	"postrider/internal/relay"
)

// Domains gives the domains whose tracking hosts are to have certificates; store.DB
// does.
type Domains interface {
	Domains(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Domain, error)
	// DirectoryChanged is a number that changes with the domains.
	DirectoryChanged(ctx context.Context) (int64, error)
}

// HostsConfig says how certificates are got for the tracking hosts of domains: hosts
// that come and go, and are other people's.
type HostsConfig struct {
	Domains Domains
	// Covered tells whether there is a certificate for a host anyway.
	Covered func(host string) bool
	PerHour int             // orders, of all nodes
	Weekly  int             // first certificates for hosts of one registered domain in a week; 0: 40
	Most    int             // hosts; 0: 100,000
	Every   time.Duration   // how often it is looked whether something is to be done; 0: 10 seconds
	Waits   []time.Duration // of a host after failures; the last one repeats. Nil: 15 minutes to a day
	Gone    time.Duration   // how long the certificate of a host is kept that nobody wants; 0: a week
	Idle    func() bool     // this node does nothing at the moment; nil: it always works
}

func (c HostsConfig) filled() HostsConfig {
	c.Weekly, c.Most = cmp.Or(c.Weekly, 40), cmp.Or(c.Most, 100_000)
	c.Every, c.Gone = cmp.Or(c.Every, 10*time.Second), cmp.Or(c.Gone, 7*24*time.Hour)
	if c.Waits == nil {
		c.Waits = []time.Duration{15 * time.Minute, time.Hour, 3 * time.Hour, 12 * time.Hour, 24 * time.Hour}
	}
	if c.Covered == nil {
		c.Covered = func(string) bool { return false }
	}
	return c
}

// Host is where a tracking host stands.
type Host struct {
	Name     string    `json:"name"`
	Account  relay.ID  `json:"account"`          // whose domain it belongs to
	First    time.Time `json:"first,omitzero"`   // when its first certificate came
	From     time.Time `json:"from,omitzero"`    // of its certificate
	Expires  time.Time `json:"expires,omitzero"` // zero: there is none
	Renew    time.Time `json:"renew,omitzero"`   // when the next one is asked for
	Tried    time.Time `json:"tried,omitzero"`
	Failures int       `json:"failures,omitempty"` // since the last success
	Error    string    `json:"error,omitempty"`    // of the last one
	Again    time.Time `json:"again,omitzero"`     // it is not asked for before
	Gone     time.Time `json:"gone,omitzero"`      // since when no domain leads here by that name

	registered string // the registered domain above it
}

// due is when the host is to be asked for next.
func (h *Host) due() time.Time {
	if h.Renew.After(h.Again) {
		return h.Renew
	}
	return h.Again
}

const (
	// hostsFolder is where the Hosts stand in the store, and hostsTrouble those whose
	// certificates are not renewed.
	hostsFolder  = "acme-hosts/"
	hostsTrouble = "acme-trouble"
	hostsLock    = "acme-hosts"
	mostTrouble  = 1000
	// fewestFailures is after how many failures a host without a certificate is in
	// trouble: more than an hour after the first one.
	fewestFailures = 3

	ordersAtOnce = 4
	orderTime    = 5 * time.Minute
	pageOfHosts  = 500
)

// hosts sees to the certificates of tracking hosts. One node at a time orders them;
// what it knows of each is in the store too, for the next one and for who asks.
type hosts struct {
	HostsConfig
	manager *Manager
	owner   string
	log     *slog.Logger
	now     func() time.Time

	// The rest is the business of the one goroutine in run.
	asked   time.Time        // for the lock
	known   map[string]*Host // nil: another node orders
	unkept  map[string]bool  // what the store did not take
	running map[string]bool
	orders  []order // of the last hour
	ended   chan Host
	change  int64     // the number at the last walk
	rest    time.Time // no walk before
	walked  time.Time
	full    bool
	trouble string // as it stands in the store

	counts atomic.Pointer[map[string]int] // by where their certificates stand
}

// order is one that was begun.
type order struct {
	at    time.Time
	again bool // after a failure
}

func newHosts(c HostsConfig, m *Manager) *hosts {
	return &hosts{HostsConfig: c.filled(), manager: m, owner: rand.Text(), log: m.log, now: time.Now,
		unkept: map[string]bool{}, running: map[string]bool{}, ended: make(chan Host)}
}

// run orders until ctx ends.
func (h *hosts) run(ctx context.Context) {
	var wg sync.WaitGroup
	tick := time.NewTicker(h.Every)
	defer tick.Stop()
	failing := false
	for {
		var err error
		select {
		case <-ctx.Done():
			h.end(ctx, &wg)
			return
		case done := <-h.ended:
			err = h.settle(ctx, done)
		case <-tick.C:
			err = h.round(ctx, &wg)
		}
		if err != nil && !failing && ctx.Err() == nil {
			h.log.Error("certificates of tracking hosts can't be seen to; trying on", "err", err)
		}
		failing = err != nil
	}
}

// end waits for what is under way, and lets another node go on.
func (h *hosts) end(ctx context.Context, wg *sync.WaitGroup) {
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }()
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second) // drain: what came of the last orders
	defer cancel()
	for waiting := true; waiting; {
		select {
		case done := <-h.ended:
			if err := h.settle(within, done); err != nil {
				h.log.Warn("what came of an order is not kept", "host", done.Name, "err", err)
			}
		case <-all:
			waiting = false
		}
	}
	if h.known != nil {
		if err := h.manager.files.files.Unlock(within, hostsLock, h.owner); err != nil {
			h.log.Debug("the lock of orders stays until it runs out", "err", err)
		}
	}
}

// round does what there is to be done.
func (h *hosts) round(ctx context.Context, wg *sync.WaitGroup) error {
	if h.Idle != nil && h.Idle() {
		return nil
	}
	if mine, err := h.lock(ctx); err != nil || !mine {
		return err
	}
	for name := range h.unkept {
		if host := h.known[name]; host != nil {
			if err := h.keep(ctx, *host); err != nil {
				return err
			}
		}
		delete(h.unkept, name)
	}
	if err := h.walk(ctx); err != nil {
		return err
	}
	for _, host := range h.next() {
		h.running[host.Name] = true
		h.orders = append(h.orders, order{h.now(), host.Failures > 0})
		wg.Go(func() { h.ended <- h.order(ctx, host) })
	}
	return h.tell(ctx)
}

// lock tells whether this node is the one that orders. Whoever becomes it reads
// what the one before knew.
func (h *hosts) lock(ctx context.Context) (bool, error) {
	now := h.now()
	if h.known != nil && now.Sub(h.asked).Abs() < lease/4 {
		return true, nil
	}
	mine, err := h.manager.files.files.Lock(ctx, hostsLock, h.owner, lease)
	if err != nil {
		return false, err
	}
	h.asked = now
	if !mine {
		h.known = nil
		h.counts.Store(nil)
		return false, nil
	}
	if h.known != nil {
		return true, nil
	}
	return true, h.load(ctx)
}

// load reads what is known.
func (h *hosts) load(ctx context.Context) error {
	files, err := h.manager.files.files.Files(ctx, hostsFolder)
	if err != nil {
		return err
	}
	known, orders, hour := map[string]*Host{}, []order(nil), h.now().Add(-time.Hour)
	for _, f := range files {
		host, err := h.manager.Host(ctx, strings.TrimPrefix(f.Name, hostsFolder))
		if err != nil {
			return err
		}
		if host == nil {
			continue
		}
		host.registered = mailauth.OrganizationalDomain(host.Name)
		known[host.Name] = host
		if host.Tried.After(hour) {
			orders = append(orders, order{host.Tried, host.Failures > 1})
		}
	}
	h.known, h.orders = known, orders
	h.change, h.rest, h.walked, h.trouble = -1, time.Time{}, time.Time{}, "?"
	return nil
}

// walk looks which hosts are wanted, when domains have changed and now and then. It
// rests for twenty times as long as it took.
func (h *hosts) walk(ctx context.Context) error {
	began := h.now()
	change, err := h.Domains.DirectoryChanged(ctx)
	if err != nil {
		return err
	}
	if began.Before(h.rest) || change == h.change && began.Sub(h.walked) < h.manager.config.Check {
		return nil
	}
	wanted, full := map[string]relay.ID{}, false
	for after := (relay.ID{}); ; {
		some, err := h.Domains.Domains(ctx, relay.Everyone, after, pageOfHosts)
		if err != nil {
			return err
		}
		for _, d := range some {
			after = d.ID
			name := d.TrackingHost()
			if name == "" || h.manager.fixed(name) || h.Covered(name) {
				continue
			}
			if full = len(wanted) >= h.Most; full {
				break
			}
			wanted[name] = d.Account
		}
		if full || len(some) < pageOfHosts {
			break
		}
	}
	if full && !h.full {
		h.log.Error("there are more tracking hosts than have certificates", "most", h.Most)
	}
	h.full = full
	if err := h.compare(ctx, wanted, full); err != nil {
		return err
	}
	h.change, h.walked = change, began
	h.rest = h.now().Add(20 * h.now().Sub(began))
	return nil
}

// compare takes up what is wanted and lets go of what is not.
func (h *hosts) compare(ctx context.Context, wanted map[string]relay.ID, full bool) error {
	now := h.now()
	for name, account := range wanted {
		known := h.known[name]
		switch {
		case known == nil:
			h.known[name] = &Host{Name: name, Account: account, Again: now, registered: mailauth.OrganizationalDomain(name)}
			continue // it is kept with what comes of it
		case known.Gone.IsZero() && known.Account == account:
			continue
		}
		next := *known
		if !next.Gone.IsZero() && next.Failures > 0 { // it may be mended
			next.Failures, next.Again = 0, next.Tried.Add(h.Waits[0])
		}
		next.Gone, next.Account = time.Time{}, account
		if err := h.keep(ctx, next); err != nil {
			return err
		}
	}
	for name, known := range h.known {
		if _, still := wanted[name]; still || h.running[name] || full {
			continue
		}
		var err error
		switch {
		case known.Gone.IsZero():
			next := *known
			next.Gone = now
			err = h.keep(ctx, next)
		case now.Sub(known.Gone) >= h.Gone || !known.Expires.After(now):
			err = h.drop(ctx, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// drop removes all that there is of a host.
func (h *hosts) drop(ctx context.Context, name string) error {
	if err := h.manager.remove(ctx, name); err != nil {
		return err
	}
	if err := missing(h.manager.files.files.RemoveFile(ctx, hostsFolder+name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(h.known, name)
	h.log.Info("the certificate of a tracking host is dropped: no domain leads here by it any more", "host", name)
	return nil
}

// next are the hosts that are to be asked for now: those that did not fail first,
// which have half of the orders to themselves.
func (h *hosts) next() (chosen []Host) {
	now := h.now()
	h.orders = slices.DeleteFunc(h.orders, func(o order) bool { return now.Sub(o.at).Abs() >= time.Hour })
	all, again := len(h.orders), 0
	for _, o := range h.orders {
		if o.again {
			again++
		}
	}
	var due []*Host
	fresh := map[string]int{} // of each registered domain, in a week
	for _, k := range h.known {
		if now.Sub(k.First) < 7*24*time.Hour || h.running[k.Name] {
			fresh[k.registered]++
		}
		if k.Gone.IsZero() && !h.running[k.Name] && !now.Before(k.due()) {
			due = append(due, k)
		}
	}
	slices.SortFunc(due, func(a, b *Host) int {
		return cmp.Or(cmp.Compare(min(a.Failures, 1), min(b.Failures, 1)), a.due().Compare(b.due()), strings.Compare(a.Name, b.Name))
	})
	for _, k := range due {
		if all >= h.PerHour || len(h.running)+len(chosen) >= ordersAtOnce {
			break
		}
		if k.Expires.IsZero() && fresh[k.registered] >= h.Weekly {
			continue
		}
		if k.Failures > 0 {
			if again >= (h.PerHour+1)/2 {
				break
			}
			again++
		}
		all++
		fresh[k.registered]++
		chosen = append(chosen, *k)
	}
	return chosen
}

// order gets the certificate of a host, where it has none that is fresh, and gives
// what came of it.
func (h *hosts) order(ctx context.Context, host Host) Host {
	within, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	if err := h.manager.purge(within, host.Name); err != nil { // the store's fault
		h.log.Warn("no certificate is asked for", "host", host.Name, "err", err)
		host.Again = h.now().Add(time.Minute)
		return host
	}
	host.Tried = h.now()
	err := h.manager.magic.RenewCertSync(within, host.Name, false)         // the first one, too
	cert, loadErr := h.manager.load(context.WithoutCancel(ctx), host.Name) // drain: it may be there
	if cert != nil {
		if host.First.IsZero() {
			host.First = host.Tried
		}
		life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)
		host.From, host.Expires, host.Renew = cert.Leaf.NotBefore, cert.Leaf.NotAfter, cert.Leaf.NotAfter.Add(-life/3)
	}
	if err == nil && loadErr != nil {
		err = loadErr
	}
	if err == nil && cert == nil {
		err = errors.New("the authority gave a certificate that is not for this name")
	}
	switch {
	case err != nil && ctx.Err() != nil: // nobody's fault
		host.Again = h.now()
	case err != nil:
		wait := h.Waits[min(host.Failures, len(h.Waits)-1)]
		host.Failures++
		host.Error, host.Again = plain(err), h.now().Add(wait)
		h.log.Warn("no certificate for a tracking host; it will be tried again", "host", host.Name, "account", host.Account, "failures", host.Failures, "again_in", wait, "err", err)
	default:
		h.manager.served.forget(host.Name)
		host.Failures, host.Error = 0, ""
		host.Again = h.now().Add(h.manager.config.Check) // where it was not renewed although it is time
		h.log.Info("there is a certificate for a tracking host", "host", host.Name, "account", host.Account, "expires", host.Expires)
	}
	return host
}

var (
	// address is what an error says of where an order stands at the authority.
	address = regexp.MustCompile(` \((order|ca)=[^)]*\)`)
	// steps are those that an error names before what the authority says.
	steps = regexp.MustCompile(`^.*urn:ietf:params:acme:error:`)
)

// plain is an error for people: what the authority says, without where.
func plain(err error) string {
	s := steps.ReplaceAllString(address.ReplaceAllString(err.Error(), ""), "")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}

// settle notes what came of an order.
func (h *hosts) settle(ctx context.Context, done Host) error {
	delete(h.running, done.Name)
	if now := h.known[done.Name]; now != nil { // whose it is may have changed meanwhile
		done.Gone, done.Account = now.Gone, now.Account
	}
	return h.keep(ctx, done)
}

// keep notes where a host stands.
func (h *hosts) keep(ctx context.Context, host Host) error {
	if h.known != nil {
		h.known[host.Name] = &host
	}
	b, err := json.Marshal(host)
	if err != nil {
		return fmt.Errorf("encode host: %w", err)
	}
	if err := h.manager.files.files.PutFile(ctx, hostsFolder+host.Name, b); err != nil {
		h.unkept[host.Name] = true
		return err
	}
	return nil
}

// tell notes which certificates are not renewed, or do not come at all, for who
// watches.
func (h *hosts) tell(ctx context.Context) error {
	var all []Host
	counts := map[string]int{"there": 0, "waiting": 0, "failing": 0}
	for _, k := range h.known {
		switch {
		case !k.Gone.IsZero():
		case k.Failures > 0:
			counts["failing"]++
		case k.Expires.IsZero():
			counts["waiting"]++
		default:
			counts["there"]++
		}
		if k.Gone.IsZero() && (k.Failures > 0 && !k.Expires.IsZero() || k.Failures >= fewestFailures) {
			all = append(all, *k)
		}
	}
	h.counts.Store(&counts)
	slices.SortFunc(all, func(a, b Host) int {
		if a.Expires.IsZero() != b.Expires.IsZero() { // what can get worse comes first
			return map[bool]int{true: 1, false: -1}[a.Expires.IsZero()]
		}
		return cmp.Or(a.Expires.Compare(b.Expires), strings.Compare(a.Name, b.Name))
	})
	b, err := json.Marshal(all[:min(len(all), mostTrouble)])
	if err != nil {
		return fmt.Errorf("encode hosts: %w", err)
	}
	if string(b) == h.trouble {
		return nil
	}
	if err := h.manager.files.files.PutFile(ctx, hostsTrouble, b); err != nil {
		return err
	}
	h.trouble = string(b)
	return nil
}
