package deliver

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"postrider/internal/message"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/schedule"
	"postrider/internal/smtp"
	"postrider/internal/smtpclient"
)

// attempt tries one delivery over the worker's connection.
func (w *worker) attempt(ctx context.Context, it *queue.Item) relay.Outcome {
	d := w.d
	a := &relay.Attempt{Started: time.Now(), Helo: d.config.Hostname, Reused: w.served > 0}
	if !a.Reused && w.link.dialled.After(it.Message.Received) {
		a.Started = w.link.dialled // the connection was opened for it
	}
	res, asked, err := w.send(ctx, it)
	if a.Reused && stale(err) && ctx.Err() == nil {
		// The receiver had enough of the connection before we began: that
		// says nothing of the message.
		w.hangUp(ctx)
		if link, err := w.open(ctx); err != nil {
			w.tell(link, it.Delivery.Domain)
			return d.connectFailed(it, link, err, a.Started, time.Now())
		}
		a.Reused = false
		res, asked, err = w.send(ctx, it)
	}
	if w.served++; w.served == 1 {
		a.Dialogue = exchanges(w.conn.Opening())
	}
	a.Dialogue = append(a.Dialogue, exchanges(res.Dialogue)...)
	a.Ended, a.Source, a.Hosts, a.TLS, a.Policy = time.Now(), w.link.source, w.link.hosts, w.link.tls, w.link.policy
	w.tell(w.link, it.Delivery.Domain)
	if err != nil {
		return d.refused(it, a, w.link.host(), err)
	}
	if w.link.best {
		w.pace((*schedule.Pace).Good)
	}
	a.Stage = smtpclient.StageDot
	return d.delivered(it, a, w.link.host(), replyOf(*res.Final), asked)
}

// stale tells whether a kept connection turned out to be over: nothing of the
// message was said on it that the receiver listened to.
func stale(err error) bool {
	var e *smtpclient.Error
	if !errors.As(err, &e) || e.Stage != smtpclient.StageMail || e.Unknown {
		return false
	}
	var ours smtp.Reply
	if e.Reply == nil {
		return !errors.As(e.Err, &ours)
	}
	return e.Reply.Code == 421
}

// inMemory is up to which size, in bytes, converted content stays in memory.
const inMemory = 1 << 20

// send renders the message for this receiver, signs it, and sends it. Errors that
// are not an smtpclient.Error come before anything was said. asked tells whether
// the peer was asked for the reports that the sender wants, and knows how to.
func (w *worker) send(ctx context.Context, it *queue.Item) (res smtpclient.Result, asked bool, err error) {
	content := it.Content()
	if content == nil {
		kept, err := w.d.contents.Content(ctx, it.Message.ID)
		if err != nil {
			return res, false, &localError{err}
		}
		content = stored{kept}
	}
	mail, ours, err := w.envelope(ctx, it)
	if err != nil {
		return res, false, err
	}
	made := message.NewBuffer(w.d.config.Spool, inMemory)
	defer made.Close()
	own, err := w.d.render(ctx, it, content, made)
	if err != nil {
		return res, false, err
	}
	content, rendering := own.Content, "as accepted"
	if own.Own {
		rendering = ""
	}
	if it.Message.EightBit && !w.conn.Extensions().EightBitMIME { // RFC 6152 section 3
		buf := message.NewBuffer(w.d.config.Spool, inMemory)
		defer buf.Close()
		if content, err = to7Bit(content, buf); err != nil {
			return res, false, err
		}
		mail.EightBit = false
		if !own.Own {
			rendering = "7bit"
		}
	}
	fields, err := w.d.config.Signer.Sign(ctx, it.Message, content, rendering)
	if err != nil {
		return res, false, unsigned(err)
	}
	w.watch.signed(fields, mail.From, ours)
	mail.Size = int64(len(fields)) + content.Size()
	mail.Open = func() (io.ReadCloser, error) { return behind(fields, content) }
	if res, err = w.conn.Send(ctx, mail); err != nil {
		w.watch.broke(err)
	}
	return res, !ours && w.conn.Extensions().DSN, err
}

// signError says that a message can't be signed now. What it says is for the log
// only.
type signError struct{ err error }

func (e *signError) Error() string { return e.err.Error() }
func (e *signError) Unwrap() error { return e.err }

// unsigned is the error for a message that could not be signed. Content that
// could not be read for it is no matter of the signature.
func unsigned(err error) error {
	if local := (*localError)(nil); errors.As(err, &local) {
		return err
	}
	return &signError{err}
}

func to7Bit(content relay.Content, buf *message.Buffer) (relay.Content, error) {
	narrow, err := message.To7Bit(content, buf)
	var file *fs.PathError
	var local *localError
	switch {
	case err == nil:
		return narrow, nil
	case errors.As(err, &local):
		return nil, local
	case errors.As(err, &file):
		return nil, &localError{err}
	default:
		return nil, smtp.NewReply(554, "5.6.3", "The receiver takes 7-bit content only, and the message can't be converted: "+err.Error())
	}
}

// localError is trouble on our side. What it says is for the log only.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// stored is content from the store. It marks the store's errors as ours.
type stored struct{ relay.Content }

func (s stored) Open() (io.ReadCloser, error) {
	rc, err := s.Content.Open()
	if err != nil {
		return nil, &localError{err}
	}
	return storedReader{rc}, nil
}

type storedReader struct{ io.ReadCloser }

func (r storedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &localError{err}
	}
	return n, err
}

// envelope is what is said in MAIL and RCPT, with the return path that bounces are
// to take: ours, or the sender's own.
func (w *worker) envelope(ctx context.Context, it *queue.Item) (mail smtpclient.Mail, ours bool, err error) {
	from, ours, err := w.d.config.Signer.ReturnPath(ctx, it.Message, it.Delivery.ID)
	if err != nil {
		return mail, ours, &signError{err}
	}
	mail, err = envelope(it, from, w.conn.Extensions())
	if ours {
		// A report of the peer would come to us, and the sender would not see it:
		// the peer tells of failures, as it does by itself, and what else the
		// sender wants to know we say.
		mail.Ret, mail.Rcpts[0].Notify = "HDRS", ""
	}
	return mail, ours, err
}

// envelope is what is said in MAIL and RCPT to a peer with these extensions. The
// error is an smtp.Reply: the message can't be sent to such a peer.
func envelope(it *queue.Item, from string, ext smtpclient.Extensions) (smtpclient.Mail, error) {
	m, r := it.Message, it.Delivery.Recipient
	env := m.Envelope
	mail := smtpclient.Mail{From: from, UTF8: env.UTF8, EightBit: m.EightBit || m.UTF8Header, RequireTLS: env.RequireTLS,
		Ret: env.Ret, EnvID: env.EnvID, Priority: env.Priority,
		Rcpts: []smtpclient.Rcpt{{Addr: r.Address, Notify: notifyText(r.Notify), ORcpt: r.ORcpt}}}
	if ext.SMTPUTF8 {
		return mail, nil
	}
	// RFC 6531 section 3.3: what is international only in a domain name can be
	// said in ASCII; anything else can't be sent to this peer.
	if env.UTF8 && m.UTF8Header {
		return mail, smtp.NewReply(553, "5.6.9", "The header of the message has non-ASCII characters, which the receiver does not take (it has no SMTPUTF8)")
	}
	mail.UTF8 = false
	for _, p := range []*string{&mail.From, &mail.Rcpts[0].Addr} {
		ascii, ok := asciiAddress(*p)
		if !ok {
			return mail, smtp.NewReply(553, "5.6.7", "The address <"+*p+"> has non-ASCII characters, which the receiver does not take (it has no SMTPUTF8)")
		}
		*p = ascii
	}
	return mail, nil
}

// asciiAddress writes an address with its domain as A-labels.
func asciiAddress(s string) (string, bool) {
	if ascii(s) {
		return s, true
	}
	a, err := smtp.ParseAddress(s, true)
	if err != nil || !ascii(a.Local) {
		return s, false
	}
	if a.Domain, err = a.ASCIIDomain(); err != nil {
		return s, false
	}
	return a.String(), true
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// notifyText is NOTIFY as RFC 3461 section 4.1 writes it.
func notifyText(n relay.Notify) string {
	if n&relay.NotifyNever != 0 {
		return "NEVER"
	}
	var parts []string
	for _, p := range []struct {
		bit  relay.Notify
		name string
	}{{relay.NotifySuccess, "SUCCESS"}, {relay.NotifyFailure, "FAILURE"}, {relay.NotifyDelay, "DELAY"}} {
		if n&p.bit != 0 {
			parts = append(parts, p.name)
		}
	}
	return strings.Join(parts, ",")
}

func replyOf(r smtp.Reply) relay.Reply {
	return relay.Reply{Code: r.Code, Enhanced: r.Enhanced, Text: strings.Join(r.Lines, "\n")}
}

func exchanges(in []smtpclient.Exchange) []relay.Exchange {
	out := make([]relay.Exchange, 0, len(in))
	for _, x := range in {
		out = append(out, relay.Exchange{Command: x.Command, Reply: replyOf(x.Reply)})
	}
	return out
}
