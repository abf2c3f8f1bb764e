package store

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// idSlack is how far the time in a message's id may be from its Received: by
// as much a search by time reads beyond the ids that its times would give. A
// clock that is set back lets the ids run ahead for that long.
const idSlack = time.Hour

// conditions gathers what a query asks for.
type conditions struct {
	where []string
	args  []any
}

func (c *conditions) add(where string, args ...any) {
	c.where, c.args = append(c.where, where), append(c.args, args...)
}

// account keeps to what is the account's own.
func (c *conditions) account(column string, id relay.ID) {
	if id != relay.Everyone {
		c.add(column+" = ?", id[:])
	}
}

// contains seeks part as it stands, in either case.
func (c *conditions) contains(column, part string) {
	if part != "" {
		c.add("lower("+column+`) like lower(?) escape '\'`, "%"+likeEscaper.Replace(text(part))+"%")
	}
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func (c *conditions) String() string {
	if len(c.where) == 0 {
		return "1 = 1"
	}
	return strings.Join(c.where, " and ")
}

// idAt is the smallest id of that millisecond.
func idAt(t time.Time) (id relay.ID) {
	ms := uint64(max(t.UnixMilli(), 0))
	for i := 5; i >= 0; i-- {
		id[i] = byte(ms)
		ms >>= 8
	}
	return id
}

// Events gives the account's events after the one of that id, in the order of
// ids; the zero id gives them from the first.
//
// Where one node writes at a time this is the order of commits, and who asks
// again with the last id misses nothing. Elsewhere an event may be committed after
// one with a greater id, by as long as a transaction may take: who follows looks
// back, as the command line does.
func (db *DB) Events(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Event, error) {
	var c conditions
	c.account("e.account", account)
	c.add("e.id > ?", after[:])
	return db.events(ctx, selectEvents+c.String()+" order by e.id limit ?", append(c.args, limit)...)
}

// EventPage looks at so many events at once, first and later.
const eventsFirst, eventsMost = 5000, 320_000

// EventPage is Events that ends when it has taken that long, however few of many are
// the account's. Next is where it goes on, zero where it has seen all.
func (db *DB) EventPage(ctx context.Context, account, after relay.ID, limit int, within time.Duration) (found []*relay.Event, next relay.ID, err error) {
	began := time.Now()
	next = after
	for rows := eventsFirst; ; rows = min(8*rows, eventsMost) {
		to := relay.Everyone
		err := db.read(ctx, "select id from event where id > ? order by id limit 1 offset ?", func(row scanner) error {
			var id []byte
			err := row.Scan(&id)
			to = toID(id)
			return err
		}, next[:], rows-1)
		if err != nil {
			return nil, relay.ID{}, db.fail("read events", err)
		}
		var c conditions
		c.account("e.account", account)
		c.add("e.id > ? and e.id <= ?", next[:], to[:])
		some, err := db.events(ctx, selectEvents+c.String()+" order by e.id limit ?", append(c.args, limit-len(found))...)
		if err != nil {
			return nil, relay.ID{}, err
		}
		found = append(found, some...)
		switch next = to; {
		case len(found) >= limit:
			return found, found[len(found)-1].ID, nil
		case to == relay.Everyone:
			return found, relay.ID{}, nil
		case time.Since(began) >= within:
			return found, next, nil
		}
	}
}

func (db *DB) events(ctx context.Context, query string, args ...any) ([]*relay.Event, error) {
	var found []*relay.Event
	err := db.read(ctx, query, func(row scanner) error {
		e, err := scanEvent(row)
		found = append(found, e)
		return err
	}, args...)
	if err != nil {
		return nil, db.fail("read events", err)
	}
	return found, nil
}

// Story gives everything that is known of a message, or a relay.Error NotFound.
func (db *DB) Story(ctx context.Context, account, message relay.ID) (*relay.Story, error) {
	s, err := db.storyHead(ctx, account, message)
	if err != nil {
		return nil, err
	}
	if err := db.storyDeliveries(ctx, s, 0, math.MaxInt32); err != nil {
		return nil, err
	}
	s.Events, err = db.events(ctx, selectEvents+"e.message = ? order by e.id", message[:])
	if err != nil {
		return nil, err
	}
	return s, nil
}

// StoryPart gives a part of what is known of a message. Envelope.Recipients are those
// of the part.
func (db *DB) StoryPart(ctx context.Context, account, message relay.ID, p relay.StoryPart) (*relay.Story, error) {
	s, err := db.storyHead(ctx, account, message)
	if err != nil {
		return nil, err
	}
	if err := db.storyDeliveries(ctx, s, p.After, p.Deliveries+1); err != nil || len(s.Deliveries) == 0 {
		return s, err
	}
	more := len(s.Deliveries) > p.Deliveries
	keep := min(len(s.Deliveries), p.Deliveries)
	// By delivery, so that those whose events are complete are known.
	s.Events, err = db.events(ctx, selectEvents+"e.message = ? and e.n > ? and e.n <= ? order by e.n, e.id limit ?", message[:], p.After, s.Deliveries[keep-1].ID.N, p.Events+1)
	if err != nil {
		return nil, err
	}
	if len(s.Events) > p.Events {
		lacks := s.Events[p.Events].Delivery.N
		s.Events = s.Events[:p.Events]
		if s.Cut = lacks == s.Deliveries[0].ID.N; s.Cut {
			keep, more = 1, len(s.Deliveries) > 1
		} else {
			keep, _ = slices.BinarySearchFunc(s.Deliveries, lacks, func(d *relay.Delivery, n int) int { return d.ID.N - n })
			more = true
			s.Events = slices.DeleteFunc(s.Events, func(e *relay.Event) bool { return e.Delivery.N >= lacks })
		}
	}
	s.Deliveries, s.Message.Envelope.Recipients = s.Deliveries[:keep], s.Message.Envelope.Recipients[:keep]
	if more {
		s.Next = s.Deliveries[keep-1].ID.N
	}
	slices.SortFunc(s.Events, func(a, b *relay.Event) int { return a.ID.Compare(b.ID) })
	return s, nil
}

// storyHead begins a story with its message.
func (db *DB) storyHead(ctx context.Context, account, message relay.ID) (*relay.Story, error) {
	var c conditions
	c.account("m.account", account)
	c.add("m.id = ?", message[:])
	var s relay.Story
	err := db.read(ctx, "select "+messageColumns+", case when exists (select 1 from content c where c.message = m.id) then 1 else 0 end from message m where "+c.String(), func(row scanner) error {
		var r messageRow
		var kept int64
		if err := row.Scan(append(r.targets(), &kept)...); err != nil {
			return err
		}
		m, err := r.message()
		s.Message, s.Content = m, kept != 0
		return err
	}, c.args...)
	if err != nil {
		return nil, db.fail("read message", err)
	}
	if s.Message == nil {
		return nil, notFound("message", message)
	}
	return &s, nil
}

// storyDeliveries reads its deliveries after a number.
func (db *DB) storyDeliveries(ctx context.Context, s *relay.Story, after, most int) error {
	err := db.read(ctx, "select "+deliveryColumns+" from delivery where message = ? and n > ? order by n limit ?", func(row scanner) error {
		var r deliveryRow
		if err := row.Scan(r.targets()...); err != nil {
			return err
		}
		d := r.delivery()
		s.Deliveries = append(s.Deliveries, d)
		s.Message.Envelope.Recipients = append(s.Message.Envelope.Recipients, d.Recipient)
		return nil
	}, s.Message.ID[:], after, most)
	if err != nil {
		return db.fail("read deliveries", err)
	}
	return nil
}
