// Package smtpd takes mail in over SMTP: listeners and sessions (RFC 5321, RFC
// 6409). It learns who a client is, reads envelope and content, and hands both
// to the entrance; it decides nothing about the mail itself.
package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"postrider/internal/account"
	"postrider/internal/config"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/submit"
)

// Accounts knows who a client is. Errors are relay.Error.
type Accounts interface {
	// Login checks a user name and password. It slows down guessing.
	Login(ctx context.Context, client netip.Addr, user, password string) (*account.Identity, error)
	// SCRAM gives the verifier of a user, also for users that do not exist. How
	// the exchange ended goes to Failed or Succeeded.
	SCRAM(ctx context.Context, client netip.Addr, user string) (*account.Verifier, error)
	Failed(client netip.Addr, user string)
	// Succeeded may refuse a user for another reason than the password.
	Succeeded(ctx context.Context, client netip.Addr, user string) error
	// Network gives the identity of a client that needs no password, or nil.
	Network(ctx context.Context, client netip.Addr) *account.Identity
	// Alive tells whether an identity still holds. It is asked before each message.
	Alive(ctx context.Context, id *account.Identity) bool
}

// Entrance takes messages. Once Submit has given an id the message is durable.
// Sender and Recipient tell of a refusal before the content comes, as far as it is
// known then.
type Entrance interface {
	Submit(ctx context.Context, d submit.Draft) (relay.ID, error)
	Sender(ctx context.Context, id *account.Identity, sender string) error
	Recipient(ctx context.Context, id *account.Identity, sender, recipient string) error
}

// Observer is told what sessions do, to count it. Its methods are called from
// many goroutines, on the way of every message: they do not wait.
type Observer interface {
	// Session tells that one began on a listener, or ended.
	Session(listener string, begins bool)
	// TurnedAway tells that one came to nothing, and why: one of the constants.
	TurnedAway(listener, why string)
	// Login tells of an AUTH that was decided, and the code of the reply.
	Login(mechanism string, code int)
	// Accepted tells of a message that is about to be answered with 250.
	Accepted(m Accepted)
	// Refused tells of a reply of 400 or more, at one of the stages.
	Refused(stage string, r smtp.Reply)
}

// Why a session came to nothing.
const (
	AwayFull     = "full"         // as many sessions as may be
	AwayClient   = "client_limit" // as many of this client as may be
	AwayProxy    = "proxy_header" // none came where one has to
	AwayTLS      = "tls"          // the handshake failed, with STARTTLS too
	AwayDraining = "draining"     // this node takes no mail, by order
)

// Stages are where a session can be refused something: at one of these
// commands (DATA and BDAT are one), or anywhere else.
const (
	StageAuth     = "auth"
	StageStartTLS = "starttls"
	StageMail     = "mail"
	StageRcpt     = "rcpt"
	StageData     = "data"
	StageOther    = "other"
)

func stageOf(v smtp.Verb) string {
	switch v {
	case smtp.AUTH:
		return StageAuth
	case smtp.STARTTLS:
		return StageStartTLS
	case smtp.MAIL:
		return StageMail
	case smtp.RCPT:
		return StageRcpt
	case smtp.DATA, smtp.BDAT:
		return StageData
	default:
		return StageOther
	}
}

// Accepted is a message that was taken in.
type Accepted struct {
	Stream     relay.Stream
	Recipients int
	Size       int64         // bytes of content, as they came
	Took       time.Duration // from the end of the content to the reply
}

// unobserved is for a Config without an Observer.
type unobserved struct{}

func (unobserved) Session(string, bool)       {}
func (unobserved) TurnedAway(string, string)  {}
func (unobserved) Login(string, int)          {}
func (unobserved) Accepted(Accepted)          {}
func (unobserved) Refused(string, smtp.Reply) {}

// Config is what all listeners have in common.
type Config struct {
	Hostname string        // in the greeting and EHLO
	Help     string        // page that refusals link to, at the enhanced code; empty: they do not
	TLS      *tls.Config   // with the certificate or GetCertificate; nil: TLS is not offered
	TempDir  string        // for messages too large for memory; empty: the system's
	Limits   config.Limits // what a client may do
	Drain    time.Duration // how long a shutdown waits for messages that are under way
	Observer Observer      // nil: nobody counts
	Feedback Entrance      // takes what comes in on listeners of mode feedback; nil: there may be none
	// Condition tells whether this node takes mail; nil: it does. Draining, it
	// ends sessions instead of beginning messages, with 421; suspended, it
	// refuses messages and logins with 4xx, without asking the store.
	Condition func() relay.Condition
}

// Modes of a listener, as in the configuration.
const (
	ModeSTARTTLS = "starttls" // plain until STARTTLS; AUTH only after it
	ModeTLS      = "tls"      // TLS from the first byte (RFC 8314 section 3.3)
	ModePlain    = "plain"    // no TLS; AUTH in the clear
	ModeFeedback = "feedback" // as starttls, without AUTH: anybody may send, to addresses that Config.Feedback takes
)

// ListenerConfig is what one listener does its own way.
type ListenerConfig struct {
	Name      string         // in logs and in the source of a message
	Mode      string         // one of the modes
	MinTLS    uint16         // lowest version, as tls.VersionTLS12, which is also the default
	Proxy     []netip.Prefix // peers that must send a PROXY header first; no others may
	PlainAuth bool           // in mode starttls: AUTH is offered without TLS too
}

// Server serves SMTP sessions on any number of listeners.
type Server struct {
	config   Config
	accounts Accounts
	entrance Entrance
	log      *slog.Logger
	habits   habits
	memory   *message.Memory // for the content of all sessions
	buffers  smtp.Pool

	mu      sync.Mutex
	total   int
	clients map[netip.Addr]int
}

// New makes a server that listens nowhere yet.
func New(c Config, a Accounts, e Entrance, log *slog.Logger) *Server {
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
	return &Server{config: c, accounts: a, entrance: e, log: log, memory: message.NewMemory(allInMemory), clients: map[netip.Addr]int{}}
}

// listener is a Server on one port.
type listener struct {
	*Server
	ListenerConfig
	entrance Entrance    // what comes in here goes there
	most     int64       // bytes of a message
	tls      *tls.Config // nil: no TLS here
}

func (s *Server) listener(lc ListenerConfig) *listener {
	l := &listener{Server: s, ListenerConfig: lc, entrance: s.entrance, most: int64(s.config.Limits.MessageSize), tls: tlsConfig(s.config.TLS, lc)}
	if l.Mode == ModeFeedback {
		l.entrance, l.most = s.config.Feedback, min(l.most, maxFeedback)
	}
	return l
}

// Serve accepts sessions on ln until ctx ends, and closes ln. Then it ends idle
// sessions at once, lets those that are in a message finish it within the drain
// time, and returns when the last session is over. The error tells why ln
// broke; it is nil when ctx ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener, lc ListenerConfig) error {
	l := s.listener(lc)
	if l.entrance == nil {
		ln.Close()
		return fmt.Errorf("serve %s: nothing takes feedback", lc.Name)
	}
	if l.Mode == ModeTLS && l.tls == nil {
		ln.Close()
		return fmt.Errorf("serve %s: mode tls wants a certificate", lc.Name)
	}
	soft, stop := context.WithCancel(ctx)
	defer stop()
	// What sessions do may outlive ctx by the drain time.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()

	var sessions sync.WaitGroup
	err := l.accept(ctx, ln, func(c net.Conn) {
		sessions.Go(func() { l.serve(soft, hard, c) })
	})
	stop()
	drain := time.AfterFunc(s.config.Drain, cancel)
	defer drain.Stop()
	sessions.Wait()
	return err
}

// accept hands each connection to start until ctx ends or ln breaks.
func (l *listener) accept(ctx context.Context, ln net.Listener, start func(net.Conn)) error {
	const first, most = 5 * time.Millisecond, time.Second
	wait := first
	for {
		c, err := ln.Accept()
		if err == nil {
			wait = first
			start(c)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept on %s: %w", l.Name, err)
		}
		// Out of file descriptors, or the peer was gone already: it passes.
		l.log.Warn("connection not accepted", "listener", l.Name, "err", err, "pause", wait)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		wait = min(2*wait, most)
	}
}

// enter counts a session in, or tells which limit is reached. Address blocks of
// IPv6 are counted as one client: a single customer has at least a /64.
func (s *Server) enter(client netip.Addr) (leave func(), why, refused string) {
	if client.Is6() {
		if p, err := client.Prefix(64); err == nil {
			client = p.Addr()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch l := s.config.Limits; {
	case s.total >= l.Sessions:
		return nil, AwayFull, "The server has as many sessions as it can take. Try again later."
	case s.clients[client] >= l.PerClient:
		return nil, AwayClient, fmt.Sprintf("Your address has %d sessions already. Use those, or close some.", l.PerClient)
	}
	s.total++
	s.clients[client]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total--
		if s.clients[client]--; s.clients[client] == 0 {
			delete(s.clients, client)
		}
	}, "", ""
}

// habits remembers clients that wait for the greeting, as RFC 5321 section 3.1
// has it. Before it greets, a port for STARTTLS waits a moment whether the client
// begins TLS by itself, as some devices do on any port: long enough for a slow
// device where the client is not known, hardly at all where it is.
type habits struct {
	mu      sync.Mutex
	patient map[netip.Addr]struct{}
}

const (
	strangerWait = 300 * time.Millisecond
	patientWait  = 5 * time.Millisecond
)

// maxHabits bounds the memory; beyond it everything is learnt anew.
const maxHabits = 10_000

// wait is how long to wait for TLS of the client at a.
func (h *habits) wait(a netip.Addr) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.patient[a]; ok {
		return patientWait
	}
	return strangerWait
}

func (h *habits) learn(a netip.Addr, waits bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !waits {
		delete(h.patient, a)
		return
	}
	if h.patient == nil || len(h.patient) >= maxHabits {
		h.patient = map[netip.Addr]struct{}{}
	}
	h.patient[a] = struct{}{}
}
