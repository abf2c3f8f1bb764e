package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postrider/internal/relay"
	"postrider/internal/schedule"
	"postrider/internal/store"
)

// Item is a delivery that this node has in hand.
type Item struct {
	Delivery *relay.Delivery
	Message  *relay.Message

	content *content
	part    schedule.Part // whose room it has
	version version
	// Guarded by Queue.mu:
	lease  int64 // that it is in hand by
	flight bool  // an attempt is under way
	gone   bool  // settled, or taken away by an operator, or by Suspend or Drain
}

// version tells one stand of a delivery from another.
type version struct {
	updated  int64 // microseconds since 1970
	attempts int
}

func versionOf(d *relay.Delivery) version { return version{d.Updated.UnixMicro(), d.Attempts} }

// content is shared by the deliveries of one message.
type content struct {
	data relay.Content // nil: in the store only
	part schedule.Part // whose memory it has
	refs int           // guarded by Queue.mu
}

// Content is the item's content where it is still in memory, else nil.
func (it *Item) Content() relay.Content {
	if it.content == nil {
		return nil
	}
	return it.content.data
}

// Begin marks that an attempt starts. It is false where the item has been held
// or cancelled meanwhile, and where this node must not begin any.
func (q *Queue) Begin(it *Item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if it.gone || q.asleep {
		return false
	}
	it.flight = true
	q.flight++
	q.peak = max(q.peak, q.flight)
	return true
}

// dropLocked takes an item out of hand.
func (q *Queue) dropLocked(it *Item) {
	if it.gone {
		return
	}
	it.gone = true
	if q.hand[it.Delivery.ID] == it { // it may have come back as another item
		delete(q.hand, it.Delivery.ID)
	}
	if it.flight {
		q.flight--
	}
	it.content.refs--
	if it.content.refs == 0 && it.content.data != nil {
		q.memory.Take(it.content.part, -it.content.data.Size())
	}
	q.room.Take(it.part, -1)
	q.roomLocked(it.part)
}

// Order does what an operator wants with a delivery: hold, release (which is
// also "retry now") or cancel it. The account is the delivery's own: the caller
// has looked it up. A relay.Error says what stands against the order.
func (q *Queue) Order(ctx context.Context, account relay.ID, id relay.DeliveryID, kind relay.Kind) error {
	now := time.Now()
	o := relay.Outcome{Delivery: id, Account: account, Kind: kind, At: now, Due: now}
	q.mu.Lock()
	it := q.hand[id]
	flight := it != nil && it.flight
	if it != nil && !flight && kind != relay.EventReleased {
		q.dropLocked(it)
	}
	q.mu.Unlock()
	var err error
	switch {
	case flight:
		return &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("An attempt at %s is under way.", id), Advice: "Try again when it has ended."}
	case it == nil:
		// Without our lease, so that the order fails if the delivery is being
		// claimed at this moment, by us or by another node.
		if err = q.kept.Settle(ctx, 0, []relay.Outcome{o})[0]; err == nil && kind == relay.EventReleased {
			q.hurry(ctx, id, now)
		}
	case kind == relay.EventReleased:
		return nil // it is next in line already
	default:
		// Once taken out of hand, the order must not get lost with its client.
		err = q.Settle(context.WithoutCancel(ctx), o)
	}
	if errors.Is(err, store.ErrSettled) {
		return &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("Nothing can be done about %s now.", id),
			Advice: "It has ended, or it is being taken in hand. Look again.", Err: err}
	}
	return err
}

// Reschedule gives deliveries of one message, as they were looked up, another
// time to be tried first, all in one transaction; one error for each. It is for
// what has not been tried and is not due: of anything else a relay.Error Conflict
// says that it is too late.
func (q *Queue) Reschedule(ctx context.Context, deliveries []*relay.Delivery, due time.Time) []error {
	now := time.Now()
	batch := make([]relay.Outcome, len(deliveries))
	for i, d := range deliveries {
		batch[i] = relay.Outcome{Delivery: d.ID, Account: d.Account, Kind: relay.EventRescheduled, At: now, Due: due,
			Diagnosis: relay.Diagnosis{Text: fmt.Sprintf("It is not to be delivered before %s, instead of %s.", due.UTC().Format(time.RFC3339), d.Due.UTC().Format(time.RFC3339))}}
	}
	// Without our lease: what is in hand is due.
	errs := q.kept.Settle(ctx, 0, batch)
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, err := range errs {
		switch {
		case err == nil:
			q.noteLocked(deliveries[i].Class(), due)
		case errors.Is(err, store.ErrSettled):
			errs[i] = &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("It is too late to give %s another time.", deliveries[i].ID),
				Advice: "It has been tried, or it is held, due or done. Look again.", Err: err}
		}
	}
	return errs
}

// hurry lets a delivery that waits in the store be claimed soon.
func (q *Queue) hurry(ctx context.Context, id relay.DeliveryID, now time.Time) {
	c, err := q.kept.Class(ctx, id)
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		q.claimer.rewalk = true // that finds it
	} else {
		q.waiting.Note(c, now)
		q.waiting.Hurry(c)
	}
	q.stirLocked()
}

// answered tells whether an attempt ended where the receiver speaks of the
// message, and no more of us or of itself.
func answered(a *relay.Attempt) bool {
	switch a.Stage {
	case "mail", "rcpt", "data", "dot":
		return true
	}
	return false
}
