// Package sink is the receiver simulator: an SMTP server that takes mail for
// anybody and does what the recipient's local part or a scenario asks for:
// accept, refuse, delay, or break.
package sink

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/mailauth"
)

// Extension is a set of what EHLO offers.
type Extension uint16

const (
	Pipelining Extension = 1 << iota
	EightBitMIME
	SMTPUTF8
	Chunking
	DSN
	Size
	RequireTLS
	EnhancedCodes
	StartTLS
)

// extensionNames stand in EHLO and in settings, in the order of the bits.
var extensionNames = []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "SIZE", "REQUIRETLS", "ENHANCEDSTATUSCODES", "STARTTLS"}

// ParseExtensions reads names with commas between them.
func ParseExtensions(s string) (Extension, error) {
	var set Extension
	for word := range strings.SplitSeq(s, ",") {
		word = strings.ToUpper(strings.TrimSpace(word))
		bit := Extension(0)
		for i, name := range extensionNames {
			if name == word {
				bit = 1 << i
			}
		}
		if bit == 0 && word != "" {
			return 0, fmt.Errorf("%q is not an extension: %s", word, strings.Join(extensionNames, ", "))
		}
		set |= bit
	}
	return set, nil
}

// TLSFault is how STARTTLS, or a handshake, goes wrong.
type TLSFault string

const (
	TLSWorks      TLSFault = ""
	TLSRefused    TLSFault = "refused"     // 454 to STARTTLS
	TLSClosed     TLSFault = "closed"      // the connection is closed instead of a handshake
	TLSGarbage    TLSFault = "garbage"     // plain text instead of a handshake
	TLSSilent     TLSFault = "silent"      // nothing instead of a handshake
	TLSOldVersion TLSFault = "old-version" // TLS 1.0 only
)

// ParseTLSFault reads a fault's name.
func ParseTLSFault(s string) (TLSFault, error) {
	switch f := TLSFault(s); f {
	case TLSWorks, TLSRefused, TLSClosed, TLSGarbage, TLSSilent, TLSOldVersion:
		return f, nil
	}
	return "", fmt.Errorf("%q is not a fault of TLS: refused, closed, garbage, silent or old-version", s)
}

// Auth makes the server offer AUTH PLAIN and LOGIN, with or without TLS.
type Auth struct {
	User, Password string // both empty: any login is good
	Required       bool   // MAIL is refused before a login
}

// Config says what the server is. The zero value of each field is useful.
type Config struct {
	Listen      []string    // host:port, STARTTLS offered. Both lists empty: 127.0.0.1:0
	ListenTLS   []string    // host:port, TLS from the first byte
	Hostname    string      // in the greeting and in replies; empty: sink.example
	TLS         *tls.Config // nil: made from Certificate and Authority
	Certificate CertKind    // empty: SelfSigned
	Authority   *Authority  // nil: one of its own
	TLSFault    TLSFault
	Without     Extension // not offered, and refused where used
	Auth        *Auth     // nil: not offered
	Scenario    *Scenario // nil: the local parts decide, in plain words
	Voice       Voice     // where the scenario names none

	MaxSize       int64         // of a message, in bytes, announced as SIZE; 0: 100 MiB
	MaxRecipients int           // of a message; more get 452. 0: 1000
	MaxOpen       int           // connections at once; more get 421. 0: 5000
	Idle          time.Duration // longest wait for the client, longest silence; 0: 5 min

	Store    string         // folder for each accepted message as .eml and .json; empty: none
	Keep     int            // how many of the latest messages Messages gives; 0: none
	Received func(*Message) // called for each accepted message, before the reply; from many goroutines
	Capture  int64          // most bytes of content for Keep and Received; 0: all

	// Resolver is asked for the records by which DKIM, SPF and DMARC are checked, of
	// each message before the reply to it. nil: nothing is checked.
	Resolver mailauth.Resolver

	// React is where what follows later goes; nil: nothing follows.
	React *Reactions

	Log *slog.Logger // nil: none. Info for each transaction, Debug for the dialogue
}

// Server is a receiver that listens.
type Server struct {
	cfg       Config
	scenario  *Scenario
	table     map[string]*behaviour
	voices    voiceSet
	tls       *tls.Config
	listeners []listener
	store     *store
	memory    *memory
	counters  counters
	info      bool // cfg.Log wants it
	debug     bool
	idPrefix  string
	ids       atomic.Int64
	closing   atomic.Bool
	sessions  sync.Pool
	reactor   *reactor // nil: nothing follows
	reacting  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	kept  []*Message // a ring once it is full
	next  int
}

type listener struct {
	net.Listener
	implicit bool
}

// New makes a server and opens its ports.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, table: table(), memory: newMemory(maxRemembered), conns: map[net.Conn]struct{}{}}
	c := &s.cfg
	c.Hostname = orElse(c.Hostname, "sink.example")
	c.MaxSize = orElse(c.MaxSize, 100<<20)
	c.MaxRecipients = orElse(c.MaxRecipients, 1000)
	c.MaxOpen = orElse(c.MaxOpen, 5000)
	c.Idle = orElse(c.Idle, 5*time.Minute)
	c.Voice = orElse(c.Voice, Plain)
	if _, err := ParseVoice(string(c.Voice)); err != nil {
		return nil, err
	}
	s.scenario = c.Scenario
	if s.scenario == nil {
		s.scenario = &Scenario{localParts: true}
	}
	if c.React != nil {
		s.reactor = newReactor(*c.React, c.Hostname)
	}
	s.voices = prepareVoices(c.Hostname, c.Without&EnhancedCodes == 0)
	s.counters = counters{start: time.Now(), refused: map[int]int64{}, faults: map[string]int64{}, dmarc: map[string]int64{}, changed: make(chan struct{})}
	s.idPrefix = strings.ToLower(rand.Text()[:8])
	s.sessions.New = func() any { return newSession(s) }
	var err error
	if s.tls, err = makeTLS(c); err != nil {
		return nil, err
	}
	if c.Store != "" {
		if s.store, err = openStore(c.Store); err != nil {
			return nil, err
		}
	}
	return s, s.listen()
}

func orElse[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// makeTLS makes the configuration that the fields of c ask for.
func makeTLS(c *Config) (*tls.Config, error) {
	conf := c.TLS
	if conf == nil {
		kind, err := ParseCertKind(string(c.Certificate))
		if err != nil {
			return nil, err
		}
		authority := c.Authority
		if authority == nil {
			if authority, err = NewAuthority(); err != nil {
				return nil, err
			}
		}
		cert, err := authority.Issue(kind, c.Hostname)
		if err != nil {
			return nil, err
		}
		conf = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	if _, err := ParseTLSFault(string(c.TLSFault)); err != nil {
		return nil, err
	}
	if c.TLSFault == TLSOldVersion {
		conf = conf.Clone()
		conf.MinVersion, conf.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	}
	return conf, nil
}

// listen opens the ports, all or none.
func (s *Server) listen() error {
	if len(s.cfg.Listen)+len(s.cfg.ListenTLS) == 0 {
		s.cfg.Listen = []string{"127.0.0.1:0"}
	}
	for i, addr := range append(append([]string(nil), s.cfg.Listen...), s.cfg.ListenTLS...) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			s.Close()
			return fmt.Errorf("listen on %s: %w", addr, err)
		}
		s.listeners = append(s.listeners, listener{l, i >= len(s.cfg.Listen)})
	}
	return nil
}

// Addrs gives the addresses that the server listens on: Listen, then ListenTLS.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Addr is the first address, as host:port.
func (s *Server) Addr() string { return s.listeners[0].Addr().String() }

// Close closes the ports. Serve does so itself; who never calls it must call
// Close.
func (s *Server) Close() error {
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Serve takes connections until ctx ends or Close is called; then it ends the
// sessions with 421, waits for them, and returns nil.
func (s *Server) Serve(ctx context.Context) error {
	s.info = s.cfg.Log != nil && s.cfg.Log.Enabled(ctx, slog.LevelInfo)
	s.debug = s.cfg.Log != nil && s.cfg.Log.Enabled(ctx, slog.LevelDebug)
	g, gctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(gctx, s.hangUp) // when ctx ends, or one port fails
	defer stop()
	var open sync.WaitGroup
	for _, l := range s.listeners {
		g.Go(func() error { return s.accept(gctx, l, &open) })
	}
	err := g.Wait()
	s.hangUp()
	open.Wait()
	s.reacting.Wait()
	if s.reactor != nil {
		s.reactor.client.CloseIdleConnections()
	}
	return err
}

// accept starts a session for each connection.
func (s *Server) accept(ctx context.Context, l listener, open *sync.WaitGroup) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			var temporary interface{ Temporary() bool } // too many open files
			if errors.As(err, &temporary) && temporary.Temporary() && sleep(ctx, 50*time.Millisecond) {
				continue
			}
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		open.Add(1)
		go func() {
			defer open.Done()
			s.serve(ctx, conn, l.implicit)
		}()
	}
}

// serve runs one session in a session object that was used before, if there is
// one.
func (s *Server) serve(ctx context.Context, conn net.Conn, implicit bool) {
	n := s.counters.connections.Add(1)
	s.counters.open.Add(1)
	s.mu.Lock()
	s.conns[conn] = struct{}{}
	s.mu.Unlock()
	sn := s.sessions.Get().(*session)
	sn.start(ctx, conn, n)
	sn.run(implicit)
	conn.Close()
	sn.end()
	s.sessions.Put(sn)
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	s.counters.open.Add(-1)
}

// hangUp closes the ports and interrupts every session at its next read.
func (s *Server) hangUp() {
	s.closing.Store(true)
	s.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Wait waits until n messages in all were accepted, those whose reply was lost
// included.
func (s *Server) Wait(ctx context.Context, n int64) error {
	c := &s.counters
	c.waiting.Add(1)
	defer c.waiting.Add(-1)
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if c.messages.Load() >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d messages, have %d: %w", n, c.messages.Load(), ctx.Err())
		}
	}
}

// Messages gives the latest Config.Keep messages, oldest first.
func (s *Server) Messages() []*Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(append([]*Message(nil), s.kept[s.next:]...), s.kept[:s.next]...)
}

// keep adds to the ring.
func (s *Server) keep(m *Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) < s.cfg.Keep {
		s.kept = append(s.kept, m)
		return
	}
	s.kept[s.next] = m
	s.next = (s.next + 1) % len(s.kept)
}

// Run makes a server and serves until ctx ends. It prints to w where it
// listens, counts every second in which something came, with a Resolver what is
// proved of each message, and at the end one line of JSON.
func Run(ctx context.Context, cfg Config, w io.Writer) error {
	w = &shared{w: w}
	if cfg.Resolver != nil {
		cfg.tell(w)
	}
	s, err := New(cfg)
	if err != nil {
		return err
	}
	for i, a := range s.Addrs() {
		how := ""
		if s.listeners[i].implicit {
			how = " (TLS)"
		}
		if _, err := fmt.Fprintf(w, "listening on %s%s\n", a, how); err != nil {
			return errors.Join(fmt.Errorf("print address: %w", err), s.Close())
		}
	}
	done := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error { return s.report(w, done) })
	err = s.Serve(ctx)
	close(done)
	return errors.Join(err, g.Wait())
}

// sleep waits, and tells whether it did so to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
