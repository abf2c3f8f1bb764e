package storetest

import (
	"errors"

	"postrider/internal/relay"
	"postrider/internal/store"
)

var commitTests = []test{
	{"both kinds in one", func(f *fixture) {
		old := f.message("a@example.net")
		f.put(f.lease, old)
		fresh := f.message("b@example.net")
		puts, ends := f.db.Commit(f.Context(), f.lease, []*relay.Submission{fresh}, []relay.Outcome{outcome(old.Deliveries[0], relay.EventDelivered)})
		if len(puts) != 1 || len(ends) != 1 || puts[0] != nil || ends[0] != nil {
			f.Fatalf("answers %v and %v", puts, ends)
		}
		f.state(old, relay.Delivered)
		f.state(fresh, relay.Queued)
	}},
	{"one kind alone, or none", func(f *fixture) {
		s := f.message("a@example.net")
		if puts, ends := f.db.Commit(f.Context(), f.lease, []*relay.Submission{s}, nil); len(puts) != 1 || puts[0] != nil || len(ends) != 0 {
			f.Errorf("a message alone: %v and %v", puts, ends)
		}
		o := outcome(s.Deliveries[0], relay.EventDelivered)
		if puts, ends := f.db.Commit(f.Context(), f.lease, nil, []relay.Outcome{o}); len(puts) != 0 || len(ends) != 1 || ends[0] != nil {
			f.Errorf("an outcome alone: %v and %v", puts, ends)
		}
		if puts, ends := f.db.Commit(f.Context(), f.lease, nil, nil); len(puts)+len(ends) != 0 {
			f.Errorf("nothing: %v and %v", puts, ends)
		}
		f.state(s, relay.Delivered)
	}},
	{"a bad part fails alone", func(f *fixture) {
		old := f.message("a@example.net", "b@example.net")
		f.put(f.lease, old)
		done, again := outcome(old.Deliveries[0], relay.EventDelivered), outcome(old.Deliveries[1], relay.EventBounced)
		f.settle(f.lease, again)
		good, twice := f.message("c@example.net"), f.message("d@example.net")
		twice.Message.ID = old.Message.ID // exists
		for _, d := range twice.Deliveries {
			d.ID.Message = old.Message.ID
		}
		puts, ends := f.db.Commit(f.Context(), f.lease, []*relay.Submission{twice, good}, []relay.Outcome{again, done})
		if relay.CodeOf(puts[0]) != relay.Conflict || puts[1] != nil {
			f.Errorf("messages: %v", puts)
		}
		if !errors.Is(ends[0], store.ErrSettled) || ends[1] != nil {
			f.Errorf("outcomes: %v", ends)
		}
		f.state(good, relay.Queued)
		f.state(old, relay.Delivered)
	}},
}

// state says what must have become of a message's first delivery.
func (f *fixture) state(s *relay.Submission, want relay.State) {
	if got := f.story(s.Message.ID).Deliveries[0].State; got != want {
		f.Errorf("%s is %s; want %s", s.Message.ID, got, want)
	}
}
