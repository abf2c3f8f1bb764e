package store

import (
	"context"
	"fmt"
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

// longest is the longest text that is sought for, in bytes.
const longest = 1000

// Deliveries searches the log: the newest message first, and within a message
// in the order of the envelope.
func (db *DB) Deliveries(ctx context.Context, account relay.ID, f relay.DeliveryFilter) ([]relay.Logged, error) {
	for _, s := range []string{f.Recipient, f.Sender, f.Message, f.Subject, f.Reply, f.Domain, f.Client, f.Script, f.Tag} {
		if len(s) > longest {
			return nil, &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("Texts to search for have at most %d bytes.", longest)}
		}
	}
	var c conditions
	c.account("d.account", account)
	c.contains("d.recipient", f.Recipient)
	if f.Sender == relay.NullSender {
		c.add("m.sender = ''")
	} else {
		c.contains("m.sender", f.Sender)
	}
	c.contains("m.subject", f.Subject)
	c.contains("cast(d.code as text) || ' ' || d.enhanced || ' ' || d.reply", f.Reply)
	if f.Domain != "" {
		c.add("d.domain = ?", strings.ToLower(text(f.Domain)))
	}
	if !f.Credential.IsZero() {
		c.add("m.credential = ?", f.Credential[:])
	}
	c.contains("m.client || ' ' || m.helo", f.Client)
	c.contains("m.script", f.Script)
	if f.Tag != "" {
		c.add(`m.tags like ? escape '\'`, "%\n"+likeEscaper.Replace(text(f.Tag))+"\n%")
	}
	c.message(f.Message)
	c.states(f)
	c.times(f)
	if f.Before != nil {
		id := f.Before.Message
		c.add("d.message <= ? and (d.message < ? or d.n > ?)", id[:], id[:], f.Before.N)
	}
	limit := f.Limit
	if limit <= 0 {
		limit = relay.DefaultLimit
	}
	var found []relay.Logged
	err := db.read(ctx, "select "+deliveryOf+", "+messageColumns+" from delivery d join message m on m.id = d.message where "+c.String()+
		" order by d.message desc, d.n limit ?", func(row scanner) error {
		var d deliveryRow
		var m messageRow
		if err := row.Scan(append(d.targets(), m.targets()...)...); err != nil {
			return err
		}
		message, err := m.message()
		if err != nil {
			return err
		}
		if last := len(found) - 1; last >= 0 && found[last].Message.ID == message.ID {
			message = found[last].Message
		}
		found = append(found, relay.Logged{Delivery: *d.delivery(), Message: message})
		return nil
	}, append(c.args, limit)...)
	if err != nil {
		return nil, db.fail("search log", err)
	}
	return found, nil
}

// message seeks by id, or by the Message-ID header.
func (c *conditions) message(s string) {
	if s == "" {
		return
	}
	if id, err := relay.ParseID(s); err == nil {
		c.add("d.message = ?", id[:])
		return
	}
	bare := strings.Trim(text(s), "<>")
	c.add("m.header_id in (?, ?)", bare, "<"+bare+">")
}

func (c *conditions) states(f relay.DeliveryFilter) {
	if f.Live {
		// The three indexes of what is live: the log may be long, and little of
		// it live.
		c.add("(d.message, d.n) in (select message, n from delivery where lease = 0 and state < 3 and stream > 0" +
			" union all select message, n from delivery where lease > 0 and state < 3 union all select message, n from delivery where state = 3)")
	}
	if len(f.States) > 0 {
		args := make([]any, len(f.States))
		for i, s := range f.States {
			args[i] = int64(s)
		}
		c.add("d.state in (?"+strings.Repeat(", ?", len(args)-1)+")", args...)
	}
}

// times narrows the search by the time in the ids, then by Received itself.
func (c *conditions) times(f relay.DeliveryFilter) {
	if !f.Since.IsZero() {
		first := idAt(f.Since.Add(-idSlack))
		c.add("d.message >= ? and m.received >= ?", first[:], micros(f.Since))
	}
	if !f.Until.IsZero() {
		end := idAt(f.Until.Add(idSlack))
		c.add("d.message < ? and m.received < ?", end[:], micros(f.Until))
	}
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
	err = db.read(ctx, "select "+deliveryColumns+" from delivery where message = ? order by n", func(row scanner) error {
		var r deliveryRow
		if err := row.Scan(r.targets()...); err != nil {
			return err
		}
		d := r.delivery()
		s.Deliveries = append(s.Deliveries, d)
		s.Message.Envelope.Recipients = append(s.Message.Envelope.Recipients, d.Recipient)
		return nil
	}, message[:])
	if err != nil {
		return nil, db.fail("read deliveries", err)
	}
	s.Events, err = db.events(ctx, selectEvents+"e.message = ? order by e.id", message[:])
	if err != nil {
		return nil, err
	}
	return &s, nil
}
