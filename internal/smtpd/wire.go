package smtpd

import (
	"errors"
	"net"
	"sync"
	"time"

	"postrider/internal/smtp"
)

// errShutdown is what reading gives once the server is going down.
var errShutdown = errors.New("server is shutting down")

// lastWord is how long a client has to take the 421 of a forced end.
const lastWord = 2 * time.Second

// Replies are gathered up to these many bytes. A session that waits keeps room
// for a few only.
const (
	maxGathered = 4096
	keptRoom    = 128
)

// wire is a connection with its bounds in time. Replies are gathered, and sent
// when the session comes to wait for input: so those to a pipelined group go out
// together (RFC 2920 section 3.2).
type wire struct {
	raw  net.Conn // below TLS
	conn net.Conn // raw, or TLS over it

	out    []byte // gathered
	broken error  // of writing: nothing is written any more

	idle    time.Duration // longest wait for a line, or stall in content
	ends    time.Time     // of the session
	line    time.Time     // end of the wait for a line; zero: starts with the next read
	message time.Time     // end of the time for content; zero: there is none
	content bool          // what is read is content, not lines

	mu   sync.Mutex
	busy bool // in a message, which a shutdown lets finish
	soft bool // shutdown: ends when not busy
	hard bool // ends now
}

func newWire(c net.Conn, idle, session time.Duration) *wire {
	return &wire{raw: c, conn: c, idle: idle, ends: time.Now().Add(session)}
}

// Read sends what waits to be sent, then reads within the bounds.
func (w *wire) Read(b []byte) (int, error) {
	if err := w.flush(); err != nil {
		return 0, err
	}
	if err := w.arm(); err != nil {
		return 0, err
	}
	return w.conn.Read(b)
}

// arm sets the deadline for the next read.
func (w *wire) arm() error {
	now := time.Now()
	if w.line.IsZero() || w.content {
		w.line = now.Add(w.idle)
	}
	end := w.line
	if !w.message.IsZero() && w.message.Before(end) {
		end = w.message
	}
	if w.ends.Before(end) {
		end = w.ends
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hard || w.soft && !w.busy {
		return errShutdown
	}
	return w.raw.SetReadDeadline(end)
}

// late says which bound was passed.
func (w *wire) late() string {
	switch now := time.Now(); {
	case !now.Before(w.ends):
		return "This session has lasted too long. Connect again."
	case !w.message.IsZero() && !now.Before(w.message):
		return "This message took too long. Send it faster, or in parts."
	default:
		return "I have waited too long for your next line."
	}
}

// send gathers a reply.
func (w *wire) send(r smtp.Reply) error {
	w.out = r.AppendTo(w.out)
	if len(w.out) < maxGathered {
		return w.broken
	}
	return w.flush()
}

// flush sends what was gathered.
func (w *wire) flush() error {
	if len(w.out) > 0 && w.broken == nil {
		w.broken = w.write(w.out)
	}
	if w.out = w.out[:0]; cap(w.out) > keptRoom {
		w.out = nil
	}
	return w.broken
}

// write bounds the time that a client takes for our replies.
func (w *wire) write(b []byte) error {
	w.mu.Lock()
	wait := w.idle
	if w.hard {
		wait = lastWord
	}
	err := w.raw.SetWriteDeadline(time.Now().Add(wait))
	w.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = w.conn.Write(b)
	return err
}

// setBusy marks the beginning and end of a message.
func (w *wire) setBusy(busy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = busy
}

// stopping tells whether the session has to end before its next command.
func (w *wire) stopping() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hard || w.soft && !w.busy
}

// stop ends reading: at once, or with soft when the message that is under way
// is done. It may be called from any goroutine.
func (w *wire) stop(soft bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if soft {
		w.soft = true
	} else {
		w.hard = true
		w.raw.SetWriteDeadline(time.Now().Add(lastWord))
	}
	if w.hard || !w.busy {
		w.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// close closes the connection. With linger it first takes in, for a moment, what
// the client is still sending: input that nobody read would make the system
// reset the connection, and the client would never see our last reply.
func (w *wire) close(linger bool) {
	_ = w.flush() // the session is over in any case
	if c, ok := w.conn.(interface{ CloseWrite() error }); ok && linger && c.CloseWrite() == nil {
		const most, moment = 256 << 10, 500 * time.Millisecond
		w.raw.SetReadDeadline(time.Now().Add(moment))
		buf := make([]byte, 4096)
		for n := 0; n < most; {
			m, err := w.raw.Read(buf)
			if err != nil {
				break
			}
			n += m
		}
	}
	w.conn.Close()
}

// prefixed is a connection of which the first bytes were read already.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.first)
	p.first = p.first[n:]
	return n, nil
}
