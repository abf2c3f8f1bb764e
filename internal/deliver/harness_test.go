package deliver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/dns"
	"postrider/internal/lab/fakedns"
	"postrider/internal/message"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/schedule"
	"postrider/internal/sink"
	"postrider/internal/smtpclient"
)

// patience bounds each wait: what does not happen fails the test instead of
// hanging it.
const patience = time.Minute

// rig is a dispatcher with its surroundings.
type rig struct {
	t        *testing.T
	dns      *fakedns.Server
	port     int
	queue    *fakeQueue
	kept     fakeContents
	config   Config
	routes   Routes
	d        *Dispatcher
	end      func() // stops the dispatcher and waits for it
	gates    []*gate
	resolver *dns.Resolver // nil: one that trusts nobody
}

// gate holds sessions back until it is opened, at the end of the test at the
// latest.
type gate struct {
	opened chan struct{}
	open   func()
}

func (r *rig) gate() *gate {
	g := &gate{opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	r.gates = append(r.gates, g)
	return g
}

func (g *gate) pass() { <-g.opened }

func (r *rig) openGates() {
	for _, g := range r.gates {
		g.open()
	}
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newRig(t *testing.T) *rig {
	t.Helper()
	server, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	r := &rig{t: t, dns: server, port: freePort(t), queue: newFakeQueue(), kept: fakeContents{}}
	r.config = Config{Hostname: "relay.test", Port: r.port, Connections: 100, PerSite: 20, PerConn: 100, Idle: time.Minute,
		Connect: patience, Drain: patience, Retry: schedule.Retry{Waits: []time.Duration{time.Minute, time.Hour}},
		Gather: 10 * time.Second, Delay: 4 * time.Hour, Spool: t.TempDir(),
		Timeouts: smtpclient.Timeouts{Greeting: patience, Command: patience, DataStall: patience, Dot: patience}}
	r.routes = Routes{{Domain: "*", Port: r.port, TLS: smtpclient.Opportunistic, Private: loopback}}
	return r
}

// freePort is a port that is free on all addresses. It lies below those that
// systems hand out by themselves, so that it stays free.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		if ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func (r *rig) zone(lines ...string) *rig {
	r.t.Helper()
	if err := r.dns.Add(lines...); err != nil {
		r.t.Fatal(err)
	}
	return r
}

// mx makes a domain with one host, mx.<domain>, at addr.
func (r *rig) mx(domain, addr string) *rig {
	r.t.Helper()
	return r.zone(domain+". 60 IN MX 10 mx."+domain+".", "mx."+domain+". 60 IN A "+addr)
}

// make makes the dispatcher, without running it.
func (r *rig) make() *rig {
	r.t.Helper()
	if r.resolver == nil {
		resolver, err := dns.New([]string{r.dns.Addr()}, patience)
		if err != nil {
			r.t.Fatal(err)
		}
		r.resolver = resolver
	}
	r.d = New(r.config, r.queue, r.kept, r.resolver, r.routes, slog.New(slog.DiscardHandler))
	return r
}

// run makes the dispatcher, if need be, and runs it until end or the test's end.
func (r *rig) run() *rig {
	r.t.Helper()
	if r.d == nil {
		r.make()
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.d.Run(ctx); err != nil {
			r.t.Error(err)
		}
	}()
	r.end = sync.OnceFunc(func() {
		cancel()
		<-ended
		r.audit()
	})
	r.t.Cleanup(func() { r.openGates(); r.end() })
	return r
}

// audit checks, after the end, that the books are in order.
func (r *rig) audit() {
	r.t.Helper()
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conns != 0 || d.idle != 0 || d.leaving != 0 {
		r.t.Errorf("after the end: %d workers, %d idle, %d leaving", d.conns, d.idle, d.leaving)
	}
	for name, s := range d.sites {
		if s.open != 0 || s.idle != 0 || s.leaving != 0 {
			r.t.Errorf("site %s after the end: %d open, %d idle, %d leaving", name, s.open, s.idle, s.leaving)
		}
		for _, l := range s.lanes {
			if l.workers != 0 || l.coming != 0 || l.serving != 0 || len(l.idle) != 0 {
				r.t.Errorf("lane %v after the end: %d workers, %d coming, %d serving, %d idle", l.key, l.workers, l.coming, l.serving, len(l.idle))
			}
		}
	}
	if open := r.queue.open(); len(open) > 0 {
		r.t.Errorf("begun, never settled: %v", open)
	}
}

var lastID struct {
	sync.Mutex
	n uint32
}

func newID() (id relay.ID) {
	lastID.Lock()
	defer lastID.Unlock()
	lastID.n++
	id[0], id[1], id[2] = byte(lastID.n>>16), byte(lastID.n>>8), byte(lastID.n)
	return id
}

const plain = "From: a@sender.test\r\nTo: b@receiver.test\r\nSubject: hello\r\n\r\nHello.\r\n"

// item is a delivery of a message with this content to an address. The changes
// may alter it.
func (r *rig) item(to, content string, changes ...func(*queue.Item)) *queue.Item {
	now := time.Now()
	_, domain, _ := strings.Cut(to, "@")
	m := &relay.Message{ID: newID(), Account: relay.ID{1}, Stream: relay.Transactional, Received: now,
		Envelope: relay.Envelope{Sender: "sender@sender.test"}, Size: int64(len(content))}
	it := &queue.Item{Message: m, Delivery: &relay.Delivery{ID: relay.DeliveryID{Message: m.ID, N: 1}, Account: m.Account,
		Stream: m.Stream, Recipient: relay.Recipient{Address: to}, Domain: domain, State: relay.Queued, Due: now, Expires: now.Add(5 * 24 * time.Hour)}}
	r.kept.Store(m.ID, content)
	for _, change := range changes {
		change(it)
	}
	return it
}

// offer offers items.
func (r *rig) offer(items ...*queue.Item) {
	for _, it := range items {
		r.d.Offer(it)
	}
}

// try offers one item and gives its outcome, when nothing is under way any more.
func (r *rig) try(it *queue.Item) relay.Outcome {
	r.t.Helper()
	r.offer(it)
	o := r.outcome(it)
	r.calm()
	return o
}

// calm waits until all workers are idle or gone.
func (r *rig) calm() {
	r.t.Helper()
	r.eventually("all workers are idle", func(d *Dispatcher) bool { return d.conns == d.idle })
}

func (r *rig) outcome(it *queue.Item) relay.Outcome {
	r.t.Helper()
	return r.queue.wait(r.t, it)[0]
}

// all waits until each item is settled, and counts the outcomes by kind.
func (r *rig) all(items []*queue.Item) map[relay.Kind]int {
	r.t.Helper()
	counts := map[relay.Kind]int{}
	for i, o := range r.queue.wait(r.t, items...) {
		counts[o.Kind]++
		if o.Kind != relay.EventDelivered {
			r.t.Logf("item %d: %s %s", i, o.Kind, o.Reply)
		}
	}
	return counts
}

// many are n items to one address.
func (r *rig) many(n int, to string, changes ...func(*queue.Item)) []*queue.Item {
	items := make([]*queue.Item, n)
	for i := range items {
		items[i] = r.item(to, plain, changes...)
	}
	return items
}

// eventually waits for a fact about the dispatcher's books.
func (r *rig) eventually(what string, fact func(*Dispatcher) bool) {
	r.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		r.d.mu.Lock()
		ok := fact(r.d)
		r.d.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("never came about: %s", what)
		}
	}
}

// fakeContents is the store's content.
type fakeContents map[relay.ID]string

var contentsMu sync.Mutex

func (f fakeContents) Store(id relay.ID, text string) {
	contentsMu.Lock()
	defer contentsMu.Unlock()
	f[id] = text
}

func (f fakeContents) Content(_ context.Context, id relay.ID) (relay.Content, error) {
	contentsMu.Lock()
	defer contentsMu.Unlock()
	text, ok := f[id]
	if !ok {
		return nil, errors.New("no such content: secret of the store")
	}
	return message.Bytes([]byte(text)), nil
}

// fakeQueue records what the dispatcher does with items.
type fakeQueue struct {
	block func(relay.Outcome) // called by Settle, before it records
	mu    sync.Mutex
	news  *sync.Cond
	taken map[relay.DeliveryID]bool // Begin says no
	begun map[relay.DeliveryID]int
	ended map[relay.DeliveryID][]relay.Outcome
	order []relay.DeliveryID // of Begin
}

func newFakeQueue() *fakeQueue {
	q := &fakeQueue{taken: map[relay.DeliveryID]bool{}, begun: map[relay.DeliveryID]int{}, ended: map[relay.DeliveryID][]relay.Outcome{}}
	q.news = sync.NewCond(&q.mu)
	return q
}

func (q *fakeQueue) Begin(it *queue.Item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken[it.Delivery.ID] {
		return false
	}
	q.begun[it.Delivery.ID]++
	q.order = append(q.order, it.Delivery.ID)
	q.news.Broadcast()
	return true
}

func (q *fakeQueue) Settle(ctx context.Context, o relay.Outcome) error {
	if q.block != nil {
		q.block(o)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended[o.Delivery] = append(q.ended[o.Delivery], o)
	q.news.Broadcast()
	return nil
}

// open are the items that were begun and not settled as often.
func (q *fakeQueue) open() (ids []relay.DeliveryID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, n := range q.begun {
		if len(q.ended[id]) != n {
			ids = append(ids, id)
		}
	}
	return ids
}

func (q *fakeQueue) settled(it *queue.Item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ended[it.Delivery.ID]) > 0
}

func (q *fakeQueue) hasBegun(it *queue.Item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.begun[it.Delivery.ID] > 0
}

// wait gives the outcomes of the items, which must be settled once each.
func (q *fakeQueue) wait(t *testing.T, items ...*queue.Item) []relay.Outcome {
	t.Helper()
	over := false
	timer := time.AfterFunc(patience, func() {
		q.mu.Lock()
		over = true
		q.mu.Unlock()
		q.news.Broadcast()
	})
	defer timer.Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []relay.Outcome
	for i, it := range items {
		for len(q.ended[it.Delivery.ID]) == 0 {
			if over {
				t.Fatalf("item %d of %d (%s) is not settled; begun %d times", i, len(items), it.Delivery.Recipient.Address, q.begun[it.Delivery.ID])
			}
			q.news.Wait()
		}
		got := q.ended[it.Delivery.ID]
		if len(got) != 1 || q.begun[it.Delivery.ID] != 1 {
			t.Errorf("item %d: begun %d times, settled %d times", i, q.begun[it.Delivery.ID], len(got))
		}
		out = append(out, got[0])
	}
	return out
}

// sink starts the receiver simulator at an address, on the rig's port.
func (r *rig) sink(addr string, c sink.Config) *sink.Server {
	r.t.Helper()
	c.Listen = []string{net.JoinHostPort(addr, fmt.Sprint(r.port))}
	c.Keep = 10_000
	s, err := sink.New(c)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Serve(ctx); err != nil {
			r.t.Error(err)
		}
	}()
	r.t.Cleanup(func() { cancel(); <-ended })
	return s
}

// peer is a receiver that does as a test says, and counts connections.
type peer struct {
	t  *testing.T
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex
	total  int // connections so far
	now    int
	most   int      // at once
	quits  int      // connections that ended with QUIT
	rcpts  []string // of accepted messages, in order
	conns  map[net.Conn]bool
	closed bool
}

// talk is one session of a peer.
type talk struct {
	*peer
	n    int // of the connection, from 1
	conn net.Conn
	br   *bufio.Reader
	ext  []string
	// on may answer a command in the usual answer's place; "." is the end of the
	// content. Empty: as usual. hangUp: close.
	on   func(line string) string
	rcpt string
	data string // content of the latest message

	client net.Conn // as accepted
	left   bool
}

const hangUp = "(hang up)"

// peer starts a peer at an address, on the rig's port. each is called for every
// session; it usually sets on, and calls serve.
func (r *rig) peer(addr string, each func(*talk)) *peer {
	r.t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(addr, fmt.Sprint(r.port)))
	if err != nil {
		r.t.Fatal(err)
	}
	p := &peer{t: r.t, ln: ln, conns: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.total++
			p.now++
			p.most = max(p.most, p.now)
			p.conns[conn] = true
			s := &talk{peer: p, n: p.total, conn: conn, client: conn, br: bufio.NewReader(conn), ext: []string{"PIPELINING", "8BITMIME", "SIZE"}}
			if p.closed {
				conn.Close()
			}
			p.mu.Unlock()
			p.wg.Go(func() {
				defer s.leave()
				defer func() { s.conn.Close() }()
				each(s)
			})
		}
	})
	r.t.Cleanup(func() {
		r.openGates()
		p.stop()
		p.wg.Wait()
	})
	return p
}

// stop takes the peer down: nobody listens, and connections are cut.
func (p *peer) stop() {
	p.ln.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
}

func (p *peer) count() (total, now, most, quits int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total, p.now, p.most, p.quits
}

func (p *peer) received() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.rcpts...)
}

// leave counts the session as over, once.
func (s *talk) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.left {
		s.left = true
		s.now--
		delete(s.conns, s.client)
	}
}

func (s *talk) say(lines string) { io.WriteString(s.conn, lines+"\r\n") }

func (s *talk) hear() (string, bool) {
	line, err := s.br.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err == nil
}

// serve is the session of a receiver that takes everything.
func (s *talk) serve() {
	s.say("220 peer.test ESMTP")
	for {
		line, ok := s.hear()
		if !ok {
			return
		}
		if !s.answer(line) {
			return
		}
	}
}

func (s *talk) answer(line string) bool {
	verb := strings.ToUpper(line[:min(4, len(line))])
	reply := ""
	if s.on != nil {
		reply = s.on(line)
	}
	switch {
	case reply == hangUp:
		return false
	case reply != "":
		s.say(reply)
		return !strings.HasPrefix(reply, "421")
	case verb == "EHLO":
		s.say("250-peer.test")
		for _, e := range s.ext {
			s.say("250-" + e)
		}
		s.say("250 ENHANCEDSTATUSCODES")
	case verb == "RCPT":
		s.rcpt = line
		s.say("250 2.1.5 OK")
	case verb == "DATA":
		s.say("354 go on")
		return s.content()
	case verb == "QUIT":
		s.mu.Lock()
		s.quits++
		s.mu.Unlock()
		s.leave() // before the client may know
		s.say("221 2.0.0 bye")
		return false
	default:
		s.say("250 2.0.0 OK")
	}
	return true
}

func (s *talk) content() bool {
	var b strings.Builder
	for {
		line, err := s.br.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
	s.data = b.String()
	reply := ""
	if s.on != nil {
		reply = s.on(".")
	}
	if reply == hangUp {
		return false
	}
	if reply == "" {
		reply = "250 2.0.0 taken"
		s.mu.Lock()
		s.rcpts = append(s.rcpts, s.rcpt)
		s.mu.Unlock()
	}
	s.say(reply)
	return !strings.HasPrefix(reply, "421")
}

// wrap makes the session TLS, after STARTTLS.
func (s *talk) wrap(cert tls.Certificate) bool {
	tc := tls.Server(s.conn, &tls.Config{Certificates: []tls.Certificate{cert}})
	if tc.Handshake() != nil {
		return false
	}
	s.conn, s.br = tc, bufio.NewReader(tc)
	return true
}
