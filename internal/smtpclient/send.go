package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"postrider/internal/smtp"
)

// Result is what the peer answered to one message.
type Result struct {
	Mail     *smtp.Reply
	Rcpts    []smtp.Reply // one for each recipient, in order; Code 0: none came
	Data     *smtp.Reply  // to DATA; nil with BDAT
	Final    *smtp.Reply  // to the content
	Dialogue []Exchange
}

// Bounds of one flight of pipelined commands. Less than any usual socket buffer
// holds, so that neither side waits for the other to read (RFC 2920 section 3.1).
const maxFlight = 8 << 10

// step is one command of a transaction: where it stands in the transaction's
// text, and what its reply means.
type step struct {
	kind     kind
	from, to int
}

type kind uint8

const (
	kindReset kind = iota
	kindMail
	kindRcpt
	kindData
)

var stageOf = [...]string{kindReset: StageMail, kindMail: StageMail, kindRcpt: StageRcpt, kindData: StageData}

// transaction is one Send.
type transaction struct {
	*Conn
	m        *Mail
	res      Result
	text     string // all the commands
	steps    []step
	accepted int
	heard    int         // recipients whose reply came
	refusal  *smtp.Reply // the last one of a recipient
}

// Send sends one message to its recipients in one transaction. The error is nil
// when the peer took the message for at least one of them: Result.Rcpts tells
// which. Else it is an *Error; with Reply at StageRcpt, every recipient was
// refused for itself and no content was sent. After an error, Usable tells
// whether the session goes on.
func (c *Conn) Send(ctx context.Context, m Mail) (Result, error) {
	if c.broken || c.stopped.Load() {
		return Result{}, &Error{Stage: StageMail, Err: errors.New("the session is over")}
	}
	if err := m.check(c); err != nil {
		return Result{}, &Error{Stage: StageMail, Err: err}
	}
	if err := context.Cause(ctx); err != nil {
		return Result{}, &Error{Stage: StageMail, Err: err}
	}
	release := context.AfterFunc(ctx, c.stop)
	t := transaction{Conn: c, m: &m}
	err := t.run()
	if !release() && err != nil {
		c.fail()
	}
	c.trim()
	if err == nil {
		return t.res, nil
	}
	return t.res, c.explain(ctx, err)
}

// fail ends the session at once, without a word: in the middle of content
// anything else might be taken for content.
func (c *Conn) fail() {
	c.broken = true
	c.raw.Close()
}

// maxKept is the most, in bytes, that is kept of a chunk for the next message.
const maxKept = 64 << 10

// trim lets go of the memory of an unusual message.
func (c *Conn) trim() {
	if cap(c.lines) > 2*maxFlight {
		c.lines = nil
	}
	if cap(c.chunk) > maxKept {
		c.chunk = nil
	}
	if cap(c.steps) > 64 {
		c.steps = nil
	}
}

// broke is the error for a session that cannot go on.
func (t *transaction) broke(stage string, err error) *Error {
	t.fail()
	return &Error{Stage: stage, Err: err}
}

// turnedDown is the error for a reply that ends the transaction, and the session
// too if it is 421 or senseless.
func (t *transaction) turnedDown(stage string, r smtp.Reply) *Error {
	t.dirty = true
	if r.Code == 421 || r.Positive() {
		t.fail()
	}
	return refused(stage, r)
}

func (t *transaction) run() *Error {
	if t.br.Buffered() > 0 {
		// A farewell while the session was idle; anything else is confusion.
		if r := t.lastReply(); r.Code == 421 {
			return t.turnedDown(StageMail, r)
		}
		return t.broke(StageMail, errOutOfTurn)
	}
	t.plan()
	t.mails++
	if err := t.say(t.steps); err != nil {
		return err
	}
	if err := t.judge(); err != nil {
		return err
	}
	if t.br.Buffered() > 0 {
		return t.broke(StageData, errOutOfTurn)
	}
	switch {
	case t.ext.Chunking && !t.ext.Pipelining:
		return t.sendChunks()
	case t.res.Data == nil: // not pipelined
		if err := t.sayLine(kindData, "DATA"); err != nil {
			return err
		}
	}
	if t.res.Data.Code/100 != 3 {
		return t.turnedDown(StageData, *t.res.Data)
	}
	return t.sendData()
}

// plan writes down the commands. Which way the content goes:
//
//   - With PIPELINING, MAIL, RCPT and DATA share a flight, and the content is the
//     next one: two round trips. BDAT after the replies to RCPT needs as many, so
//     DATA, which every server knows best, is used.
//   - Without PIPELINING, BDAT (RFC 3030) spares the round trip of DATA and is
//     used where it is offered.
//
// With both, BDAT could share the flight of MAIL and RCPT and spare one round trip
// more. It does not: a peer that refuses the RCPT and then fails to skip the chunk
// (RFC 3030 section 2) would read the content as commands.
func (t *transaction) plan() {
	c, b := t.Conn, t.lines[:0]
	steps := t.Conn.steps[:0]
	add := func(k kind, from int) { steps = append(steps, step{k, from, len(b)}) }
	if c.dirty {
		b = append(b, "RSET\r\n"...)
		add(kindReset, 0)
	}
	from := len(b)
	b = t.m.appendMail(b, &c.ext)
	add(kindMail, from)
	for i := range t.m.Rcpts {
		from = len(b)
		b = t.m.Rcpts[i].append(b, &c.ext)
		add(kindRcpt, from)
	}
	if c.ext.Pipelining {
		from = len(b)
		b = append(b, "DATA\r\n"...)
		add(kindData, from)
	}
	t.text, c.lines = string(b), b
	t.steps, c.steps = steps, steps
	t.res.Rcpts = make([]smtp.Reply, len(t.m.Rcpts))
	t.res.Dialogue = make([]Exchange, 0, len(steps)+2)
}

func appendBdat(b []byte, n int, last bool) []byte {
	b = strconv.AppendInt(append(b, "BDAT "...), int64(n), 10)
	if last {
		b = append(b, " LAST"...)
	}
	return append(b, '\r', '\n')
}

// say sends the steps and reads their replies, many at once where the peer lets
// us (RFC 2920). It stops early when nobody is left to send to.
func (t *transaction) say(steps []step) *Error {
	for len(steps) > 0 {
		n := 1
		if t.ext.Pipelining {
			for n < len(steps) && steps[n].to-steps[0].from <= maxFlight {
				n++
			}
		}
		t.bw.WriteString(t.text[steps[0].from:steps[n-1].to])
		if r, err := t.flush(); err != nil {
			return t.unsaid(steps[0], r, err)
		}
		if t.opt.Watch != nil {
			for _, s := range steps[:n] {
				t.sent(t.text[s.from : s.to-2])
			}
		}
		for _, s := range steps[:n] {
			if err := t.hear(s); err != nil && !t.hopeless() {
				return err
			} else if err != nil {
				return nil // the refusal before it says more
			}
		}
		if t.hopeless() {
			return nil
		}
		steps = steps[n:]
	}
	return nil
}

// unsaid is the error for a flight that could not be sent. r is what the peer
// left behind, if not zero: it is not about what it never read, so a 5xx must not
// count against the message.
func (t *transaction) unsaid(s step, r smtp.Reply, err error) *Error {
	switch {
	case r.Temporary():
		t.note(t.text[s.from:s.to-2], r)
		t.fail()
		return refused(stageOf[s.kind], r)
	case r.Code != 0:
		err = fmt.Errorf("%w: %s", errOutOfTurn, r)
	}
	return t.broke(stageOf[s.kind], err)
}

// hopeless tells whether the peer refused MAIL or each recipient.
func (t *transaction) hopeless() bool {
	return t.res.Mail != nil && !t.res.Mail.Positive() || t.heard == len(t.m.Rcpts) && t.accepted == 0
}

// sayLine says one more command of the transaction.
func (t *transaction) sayLine(k kind, line string) *Error {
	t.text = line + "\r\n"
	return t.say([]step{{k, 0, len(t.text)}})
}

// hear reads the reply to a step and keeps it. Only what ends the session is an
// error here.
func (t *transaction) hear(s step) *Error {
	r, err := t.readReply(t.opt.Timeouts.Command, maxReply)
	t.note(t.text[s.from:s.to-2], r)
	if err != nil {
		return t.broke(stageOf[s.kind], err)
	}
	switch s.kind {
	case kindReset:
		if r.Code/100 != 2 && r.Code != 421 {
			// Not a word about the message that is to come.
			return t.broke(StageMail, fmt.Errorf("the receiver refused RSET: %s", r))
		}
		t.dirty = false
	case kindMail:
		t.res.Mail = &r
	case kindRcpt:
		t.res.Rcpts[t.heard] = r
		t.heard++
		if r.Positive() {
			t.accepted++
		} else {
			t.refusal = &r
		}
	case kindData:
		t.res.Data = &r
		return t.only421(StageData, r)
	}
	if r.Code/100 == 3 {
		return t.turnedDown(stageOf[s.kind], r)
	}
	return t.only421(stageOf[s.kind], r)
}

func (t *transaction) only421(stage string, r smtp.Reply) *Error {
	if r.Code == 421 {
		return t.turnedDown(stage, r)
	}
	return nil
}

func (t *transaction) note(command string, r smtp.Reply) {
	t.res.Dialogue = append(t.res.Dialogue, Exchange{Command: command, Reply: r})
	t.came(r)
}

// judge tells whether any recipient is left to send content to. A peer that
// answers 354 to the DATA which followed refused recipients waits for content: it
// gets none, but a lone dot (RFC 2920 section 3.1).
func (t *transaction) judge() *Error {
	stage, why := StageRcpt, t.refusal
	switch {
	case !t.res.Mail.Positive():
		stage, why = StageMail, t.res.Mail
	case t.accepted > 0:
		return nil
	}
	err := refused(stage, *why)
	t.dirty = true
	switch d := t.res.Data; {
	case d == nil || d.Temporary() || d.Permanent():
		return err
	case d.Code/100 == 2:
		t.fail()
		return err
	}
	t.bw.WriteString(".\r\n")
	t.sent(".")
	if _, e := t.flush(); e != nil {
		t.fail()
		return err
	}
	r, e := t.readReply(t.opt.Timeouts.Command, maxReply)
	if e != nil || r.Code == 421 {
		t.fail()
	}
	if e == nil {
		t.note(".", r)
	}
	return err
}

// final judges the reply to the content.
func (t *transaction) final(stage string, r smtp.Reply) *Error {
	t.res.Final = &r
	if r.Code/100 == 2 {
		return nil
	}
	return t.turnedDown(stage, r)
}

// contentError is trouble with the content on our side.
type contentError struct{ err error }

func (e *contentError) Error() string { return fmt.Sprintf("read the content: %v", e.err) }
func (e *contentError) Unwrap() error { return e.err }

// ended completes a transfer of content: r and err are what transmit gave, sent
// whether the peer has it all.
func (t *transaction) ended(command string, r smtp.Reply, sent bool, err error) *Error {
	t.note(command, r)
	switch {
	case sent && err == nil:
		return t.final(StageDot, r)
	case sent:
		e := t.broke(StageDot, err)
		e.Unknown = true
		return e
	case r.Temporary() || r.Permanent():
		t.res.Final = &r
		t.fail()
		return refused(StageData, r)
	case r.Code != 0:
		return t.broke(StageData, fmt.Errorf("%w: %s", errOutOfTurn, r))
	default:
		return t.broke(StageData, err)
	}
}

var errStalled = fmt.Errorf("the receiver takes no more content: %w", os.ErrDeadlineExceeded)
