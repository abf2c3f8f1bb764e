package webhook

import (
	"context"
	"slices"
	"time"

	"postrider/internal/relay"
)

// aside tells whether a message stands aside.
func (w *worker) aside(message relay.ID) bool {
	return slices.ContainsFunc(w.p.Aside, func(a relay.Aside) bool { return a.Message == message })
}

// bringBack has a message that stands aside go on with an event that came late, if
// it has gone beyond it; what was sent after it comes again. mu is held.
func (w *worker) bringBack(e *relay.WebhookEvent) {
	for i := range w.p.Aside {
		if a := &w.p.Aside[i]; a.Message == e.Message.ID && e.ID.Compare(a.From) < 0 {
			a.From = e.ID
		}
	}
}

// dueAside is the number of a message that stands aside and is to be tried, or
// -1.
func (w *worker) dueAside(now time.Time) int {
	return slices.IndexFunc(w.p.Aside, func(a relay.Aside) bool { return !a.Next.After(now) })
}

// untilAside is how long there is nothing to do for those that stand aside.
func (w *worker) untilAside(now time.Time) time.Duration {
	wait := unaltered
	for _, a := range w.p.Aside {
		wait = min(wait, max(a.Next.Sub(now), time.Millisecond))
	}
	return wait
}

// sendAside sends the first event of a message that stands aside. When no more of
// its events are there it stands in line again; an event that was refused for too
// long is given up, and all others of the message with it.
func (w *worker) sendAside(ctx context.Context, a relay.Aside) error {
	wanted, err := w.nextAside(ctx, a)
	if err != nil {
		return err
	}
	if len(wanted) == 0 {
		w.setAside(a.Message, nil)
		return nil
	}
	answer, ok, err := w.post(ctx, wanted)
	if err != nil || !ok {
		return err
	}
	now := w.s.now()
	if answer.Error == "" {
		w.mu.Lock()
		w.succeed(wanted, now)
		w.mu.Unlock()
		a.From, a.Failures, a.Since, a.Next = after(wanted[0].ID), 0, now, now
		w.setAside(a.Message, &a)
		return nil
	}
	a.Failures++
	a.Next = backoff(w.s.waits, a.Failures, now, answer.Retry)
	if now.Sub(a.Since) >= w.s.config.GiveUp {
		a.Next = time.Time{}
	}
	w.mu.Lock()
	w.fail(wanted, answer, a.Failures, a.Next, now)
	w.mu.Unlock()
	if a.Next.IsZero() {
		w.s.config.Log.Warn("a message's events are not sent any more: a webhook has refused the first of them for too long", "webhook", w.hook.ID, "message", a.Message)
		w.setAside(a.Message, nil)
		return nil
	}
	w.setAside(a.Message, &a)
	return nil
}

// nextAside is the first event of a message that stands aside, however much lies
// before it that is not wanted; empty: there is none.
func (w *worker) nextAside(ctx context.Context, a relay.Aside) ([]*relay.WebhookEvent, error) {
	for {
		events, err := w.s.store.EventsOf(ctx, w.hook.Account, a.Message, a.From, readMost)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(events, w.hook.Wants); i >= 0 {
			return events[i : i+1], nil
		}
		if len(events) < readMost {
			return nil, nil
		}
		a.From = after(events[len(events)-1].ID)
	}
}

// setAside changes what is noted of a message that stands aside; nil: it does no
// longer.
func (w *worker) setAside(message relay.ID, to *relay.Aside) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty = true
	rest := slices.DeleteFunc(slices.Clone(w.p.Aside), func(a relay.Aside) bool { return a.Message == message })
	if to != nil {
		rest = append(rest, *to)
	}
	w.p.Aside = rest
}

// after is the id just after one.
func after(id relay.ID) relay.ID {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]++
		if id[i] != 0 {
			break
		}
	}
	return id
}
