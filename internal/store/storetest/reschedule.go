package storetest

import (
	"errors"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// rescheduled moves deliveries that stand differently: only what was not tried
// and is not due can be moved.
func rescheduled(f *fixture) {
	later := noon.Add(time.Hour)
	deferred := func(due time.Time) func(d *relay.Delivery) {
		return func(d *relay.Delivery) {
			o := outcome(d, relay.EventDeferred)
			o.Due = due
			f.settle(0, o)
		}
	}
	ordered := func(kind relay.Kind) func(d *relay.Delivery) {
		return func(d *relay.Delivery) { f.settle(0, order(d, kind, noon)) }
	}
	for name, c := range map[string]struct {
		due   time.Time
		given func(d *relay.Delivery)
		want  bool
	}{
		"not due":   {later, func(*relay.Delivery) {}, true},
		"due":       {noon, func(*relay.Delivery) {}, false},
		"in hand":   {later, func(d *relay.Delivery) { f.claimAs(d.Class(), 1) }, false},
		"held":      {later, ordered(relay.EventHeld), false},
		"cancelled": {later, ordered(relay.EventCancelled), false},
		"deferred":  {noon, deferred(later), false},
		"tried, then released for later": {noon, func(d *relay.Delivery) {
			deferred(later)(d)
			o := order(d, relay.EventReleased, noon.Add(2*time.Second))
			o.Due = later
			f.settle(0, o)
		}, false},
	} {
		s := f.message("a@" + NewID(noon).String() + ".test")
		s.InHand = false
		d := s.Deliveries[0]
		d.Due = c.due
		f.put(0, s)
		c.given(d)
		before := f.story(s.Message.ID)
		o := order(d, relay.EventRescheduled, noon.Add(time.Minute))
		o.Due, o.Diagnosis.Text = noon.Add(26*time.Hour), "Moved."
		err := f.db.Settle(f.Context(), 0, []relay.Outcome{o})[0]
		after := f.story(s.Message.ID)
		if !c.want {
			if !errors.Is(err, store.ErrSettled) {
				f.Errorf("%s: %v", name, err)
			}
			f.equal(name, after, before)
			continue
		}
		f.must(err)
		was, is := before.Deliveries[0], after.Deliveries[0]
		f.equal(name, []any{is.State, is.Attempts, is.Due, is.Expires, is.Reply, is.Diagnosis},
			[]any{relay.Queued, 0, o.Due, was.Expires.Add(25 * time.Hour), was.Reply, was.Diagnosis})
		f.equal("kinds", kinds(after), []relay.Kind{relay.EventAccepted, relay.EventRescheduled})
		f.equal("told", after.Events[1].Diagnosis.Text, "Moved.")
		back := o
		back.At, back.Due = o.At.Add(time.Second), later // and earlier again
		f.settle(0, back)
		f.equal("earlier", f.story(s.Message.ID).Deliveries[0].Expires, was.Expires)
	}
}
