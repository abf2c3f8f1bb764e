package deliver

import (
	"errors"
	"math/rand/v2"
	"time"

	"postrider/internal/feedback"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/smtpclient"
	"postrider/internal/suppression"
)

// delivered is the outcome of an attempt that the receiver said yes to.
func (d *Dispatcher) delivered(it *queue.Item, a *relay.Attempt, host string, r relay.Reply, peerDSN bool) relay.Outcome {
	o := relay.Outcome{Delivery: it.Delivery.ID, Account: it.Delivery.Account, Kind: relay.EventDelivered, At: a.Ended,
		Host: host, Reply: r, Attempt: a}
	// A peer that knows DSN tells the sender itself (RFC 3461 section 5.2.2);
	// for another one we say that the message was handed on.
	if it.Delivery.Recipient.Notify&relay.NotifySuccess != 0 && !peerDSN {
		d.notice(&o, it, relay.NotifySuccess)
	}
	d.judge(&o, it)
	return o
}

// refused is the outcome of an attempt that ended in an error on the way.
func (d *Dispatcher) refused(it *queue.Item, a *relay.Attempt, host string, err error) relay.Outcome {
	stage, r, permanent := smtpclient.StageMail, relay.Reply{}, false
	var e *smtpclient.Error
	if errors.As(err, &e) {
		stage, a.Unknown = e.Stage, e.Unknown
	}
	var ours smtp.Reply
	var local *localError
	var unsigned *signError
	switch {
	case e != nil && e.Reply != nil:
		r, permanent = replyOf(*e.Reply), e.Permanent()
	case errors.As(err, &ours): // we refuse what the receiver would not take
		r, permanent = replyOf(ours), ours.Permanent()
		r.Code = 0
	case d.attempts.Err() != nil:
		return d.interrupted(it, a)
	case errors.As(err, &local):
		d.log.Error("the content of a message can't be read; the delivery will be tried again", "delivery", it.Delivery.ID, "err", local)
		r = relay.Reply{Enhanced: "4.3.0", Text: "The relay can't read the message at the moment."}
	case errors.As(err, &unsigned):
		d.log.Error("a message can't be signed; the delivery will be tried again", "delivery", it.Delivery.ID, "from", it.Message.From, "err", unsigned)
		stage, r = feedback.StageSign, relay.Reply{Enhanced: "4.7.0", Text: "The relay can't sign the message for its domain at the moment, and does not send it unsigned."}
	case a.Unknown:
		r = relay.Reply{Enhanced: "4.4.2", Text: "The whole message was sent, but no reply came (" + e.Err.Error() + "); the receiver may have it"}
	case e != nil:
		r = relay.Reply{Enhanced: "4.4.2", Text: e.Err.Error()}
	default:
		r = relay.Reply{Enhanced: "4.3.0", Text: err.Error()}
	}
	return d.failed(it, a, stage, host, r, permanent)
}

// connectFailed is the outcome where no host served. It is never final: what a
// host says before it knows the message is about us, not about the message.
// Only REQUIRETLS is (RFC 8689 section 4.2.1).
func (d *Dispatcher) connectFailed(it *queue.Item, l link, err error, started, ended time.Time) relay.Outcome {
	a := &relay.Attempt{Started: started, Ended: ended, Source: l.source, Helo: d.config.Hostname, Hosts: l.hosts, Policy: l.policy}
	if d.attempts.Err() != nil {
		return d.interrupted(it, a)
	}
	stage, r, permanent := feedback.StageConnect, relay.Reply{Enhanced: "4.4.1", Text: err.Error()}, false
	var e *smtpclient.Error
	if errors.As(err, &e) {
		stage, a.Dialogue = e.Stage, exchanges(e.Dialogue)
		switch {
		case e.Reply != nil:
			r = replyOf(*e.Reply)
		case stage == feedback.StageConnect:
			r.Text = e.Err.Error()
		default:
			r = relay.Reply{Enhanced: tlsCode(e), Text: e.Err.Error()}
		}
		if it.Message.Envelope.RequireTLS && lacksTLS(err) {
			r.Code, r.Enhanced, permanent = 0, "5.7.30", true
		}
	}
	return d.failed(it, a, stage, l.host(), r, permanent)
}

// routeFailed is the outcome where there is nothing to connect to.
func (d *Dispatcher) routeFailed(it *queue.Item, p *problem, now time.Time) relay.Outcome {
	a := &relay.Attempt{Started: now, Ended: now, Helo: d.config.Hostname}
	return d.failed(it, a, feedback.StageRoute, "", relay.Reply{Enhanced: p.enhanced, Text: p.text}, p.permanent)
}

// interrupted is the outcome of an attempt that our shutdown cut short. It says
// nothing about the receiver: another one is made as soon as it can be.
func (d *Dispatcher) interrupted(it *queue.Item, a *relay.Attempt) relay.Outcome {
	o := d.failed(it, a, "", "", relay.Reply{Enhanced: "4.3.2", Text: errShutdown.Error()}, false)
	if o.Kind == relay.EventDeferred {
		o.Due = a.Ended
	}
	return o
}

// failed decides what an attempt without success means: tried again, bounced or
// expired; and whether the sender is told.
func (d *Dispatcher) failed(it *queue.Item, a *relay.Attempt, stage, host string, r relay.Reply, permanent bool) relay.Outcome {
	a.Stage = stage
	o := relay.Outcome{Delivery: it.Delivery.ID, Account: it.Delivery.Account, Kind: relay.EventBounced, At: a.Ended,
		Host: host, Reply: r, Diagnosis: d.config.Diagnose(stage, r, host, it.Delivery.Recipient.Address), Attempt: a}
	if permanent {
		d.notice(&o, it, relay.NotifyFailure)
		d.judge(&o, it)
		return o
	}
	next, more := d.config.Retry.Next(a.Ended, it.Delivery.Expires, it.Delivery.Attempts+1, rand.Float64())
	if !more {
		o.Kind = relay.EventExpired
		d.notice(&o, it, relay.NotifyFailure)
		d.judge(&o, it)
		return o
	}
	o.Kind, o.Due = relay.EventDeferred, next
	first := it.Message.Received
	if it.Message.Envelope.Release.After(first) {
		first = it.Message.Envelope.Release
	}
	if d.config.Delay > 0 && !it.Delivery.Delayed && a.Ended.Sub(first) >= d.config.Delay {
		d.notice(&o, it, relay.NotifyDelay)
	}
	return o
}

// unwanted is the outcome of a delivery whose recipient wants no such mail any more.
func (d *Dispatcher) unwanted(it *queue.Item) (o relay.Outcome, unwanted bool) {
	if d.config.Unwanted == nil {
		return o, false
	}
	why, unwanted := d.config.Unwanted(d.attempts, it.Message, it.Delivery)
	return relay.Outcome{Delivery: it.Delivery.ID, Account: it.Delivery.Account, Kind: relay.EventCancelled, At: time.Now(), Diagnosis: why}, unwanted
}

// judge says what an end means for further mail to the address.
func (d *Dispatcher) judge(o *relay.Outcome, it *queue.Item) {
	o.Address = suppression.Key(it.Delivery.Recipient.Address)
	d.config.Suppress.Judge(o)
}

// notice asks for a DSN where the sender wants one and there is a sender: never
// for the null sender, or two servers would report to each other for ever (RFC
// 3461 section 6.2, RFC 5321 section 4.5.5).
func (d *Dispatcher) notice(o *relay.Outcome, it *queue.Item, kind relay.Notify) {
	if it.Message.Envelope.Sender == "" || !it.Delivery.Recipient.Notify.Wants(kind) {
		return
	}
	o.Notice, o.NoticeDue = kind, o.At.Add(d.config.Gather)
}
