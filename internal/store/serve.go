package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"postrider/internal/relay"
)

// free are webhooks that no node serves which lives.
const free = "p.active = 1 and p.lease <> ? and not exists (select 1 from node n where n.lease = p.lease)"

// Served is what a node with a lease has to do with webhooks.
type Served struct {
	Webhooks []*relay.Webhook // that it serves, in the order of their ids
	Epochs   []int64          // of their progress
	Share    int              // as many as it should serve, so that the others do as well
}

// ServeWebhooks takes webhooks that nobody serves, up to the node's share, and
// gives all that it serves. They are the node's while its lease lasts.
func (db *DB) ServeWebhooks(ctx context.Context, lease int64) (*Served, error) {
	s := &Served{}
	var all, nodes, idle int
	err := db.read(ctx, "select (select count(*) from webhook_progress where active = 1), (select count(*) from node where draining = 0 and beat >= "+db.dialect.Now+" - ?),"+
		" (select count(*) from webhook_progress p where "+free+")", func(row scanner) error { return row.Scan(&all, &nodes, &idle) }, relay.LeaseTime.Microseconds(), lease)
	if err == nil && all > 0 {
		nodes = max(nodes, 1)
		s.Share = (all + nodes - 1) / nodes
		err = db.serving(ctx, lease, s)
	}
	if err == nil && idle > 0 && len(s.Webhooks) < s.Share {
		if err = db.takeWebhooks(ctx, lease, s.Share-len(s.Webhooks)); err == nil {
			err = db.serving(ctx, lease, s)
		}
	}
	if err != nil {
		return nil, db.fail("serve webhooks", err)
	}
	return s, nil
}

func (db *DB) serving(ctx context.Context, lease int64, s *Served) error {
	s.Webhooks, s.Epochs = nil, nil
	return db.read(ctx, "select h.id, h.account, h.settings, h.created, h.version, p.epoch from webhook_progress p join webhook h on h.id = p.webhook where p.lease = ? and p.active = 1 order by h.id",
		func(row scanner) error {
			var epoch int64
			h, err := db.scanWebhook(also{row, &epoch})
			s.Webhooks, s.Epochs = append(s.Webhooks, h), append(s.Epochs, epoch)
			return err
		}, lease)
}

// also scans one column more.
type also struct {
	scanner
	last any
}

func (a also) Scan(to ...any) error { return a.scanner.Scan(append(to, a.last)...) }

func (db *DB) takeWebhooks(ctx context.Context, lease int64, limit int) error {
	return db.write(ctx, "take webhooks", func(ctx context.Context, w *writer) error {
		if err := w.holds(ctx, lease); err != nil {
			return err
		}
		var ids [][]byte
		err := w.query(ctx, "select p.webhook from webhook_progress p where "+free+" order by p.webhook limit ? "+w.dialect.Lock, func(row scanner) error {
			var id []byte
			err := row.Scan(&id)
			ids = append(ids, id)
			return err
		}, lease, limit)
		for _, id := range ids {
			if err == nil {
				_, err = w.exec(ctx, "update webhook_progress set lease = ? where webhook = ?", lease, id)
			}
		}
		return err
	})
}

// YieldWebhooks gives webhooks back that the node serves, for others to take.
func (db *DB) YieldWebhooks(ctx context.Context, lease int64, ids []relay.ID) error {
	return db.write(ctx, "give back webhooks", func(ctx context.Context, w *writer) error {
		for _, id := range ids {
			if _, err := w.exec(ctx, "update webhook_progress set lease = 0 where webhook = ? and lease = ?", id[:], lease); err != nil {
				return err
			}
		}
		return nil
	})
}

// mostFailures is how many are kept of each webhook.
const mostFailures = 100

// SaveWebhooks notes how far webhooks have come that the node serves. One that is
// another's now, or was set back, is passed over.
func (db *DB) SaveWebhooks(ctx context.Context, lease int64, states []relay.WebhookState) error {
	return db.write(ctx, "note progress", func(ctx context.Context, w *writer) error {
		if err := w.holds(ctx, lease); err != nil {
			return err
		}
		for i := range states {
			if err := db.saveWebhook(ctx, w, lease, &states[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (db *DB) saveWebhook(ctx context.Context, w *writer, lease int64, s *relay.WebhookState) error {
	doc, err := json.Marshal(s.Progress)
	if err != nil {
		return fmt.Errorf("encode progress: %w", err)
	}
	n, err := w.exec(ctx, "update webhook_progress set progress = ? where webhook = ? and lease = ? and epoch = ?", doc, s.Webhook[:], lease, s.Epoch)
	if err != nil || n == 0 || len(s.Failures) == 0 {
		return err
	}
	for _, f := range s.Failures {
		id, err := db.newID()
		if err != nil {
			return err
		}
		f.Answer, f.Error = text(f.Answer), text(f.Error)
		detail, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("encode failure: %w", err)
		}
		if _, err := w.exec(ctx, "insert into webhook_failure (webhook, id, detail) values (?, ?, ?)", s.Webhook[:], id[:], detail); err != nil {
			return err
		}
	}
	return w.send(ctx, "delete from webhook_failure where webhook = ? and id in (select id from webhook_failure where webhook = ? order by id desc limit 1000 offset ?)",
		s.Webhook[:], s.Webhook[:], mostFailures)
}

func scanHead(row scanner) (*relay.EventHead, error) {
	var h relay.EventHead
	var id, account []byte
	err := row.Scan(&id, &account, &h.Kind)
	h.ID, h.Account = toID(id), toID(account)
	return &h, err
}

// Tail gives events after that id, in the order of ids, of the accounts whose
// webhooks the node serves.
func (db *DB) Tail(ctx context.Context, lease int64, after relay.ID, limit int) ([]*relay.EventHead, error) {
	return collect(ctx, db, "follow events", scanHead, "select e.id, e.account, e.kind from event e where e.id > ?"+
		" and e.account in (select p.account from webhook_progress p where p.lease = ? and p.active = 1) order by e.id limit ?", after[:], lease, limit)
}

// Heads gives the first of the account's events after that id, in the order of
// ids. Asked for an account that has few of many it reads them all; ScanEvents is
// for that.
func (db *DB) Heads(ctx context.Context, account, after relay.ID, limit int) ([]*relay.EventHead, error) {
	var c conditions
	c.account("account", account)
	c.add("id > ?", after[:])
	return collect(ctx, db, "follow events", scanHead, "select id, account, kind from event where "+c.String()+" order by id limit ?", append(c.args, limit)...)
}

// LastEvent is the greatest id of an event that there is.
func (db *DB) LastEvent(ctx context.Context) (last relay.ID, err error) {
	err = db.read(ctx, "select id from event order by id desc limit 1", func(row scanner) error {
		var id []byte
		err := row.Scan(&id)
		last = toID(id)
		return err
	})
	if err != nil {
		return last, db.fail("read last event", err)
	}
	return last, nil
}

// Horizon is the id before which no event can be committed any more, as far as
// ids are made by a clock; whole tells that there is none, because each event is
// committed after all of lesser ids.
func (db *DB) Horizon() (horizon relay.ID, whole bool) {
	if db.dialect.Single {
		return relay.Everyone, true
	}
	// A transaction ends within the patience, or the server ends it when it has
	// had no statement of it for a while.
	return idAt(db.clock.theirs().Add(-2 * db.dialect.Patience)), false
}

// ScanEvents looks at the first rows events after one id, up to another, and
// gives those of the account, or of Everyone; end is how far it came. It takes the same time
// however few are the account's.
func (db *DB) ScanEvents(ctx context.Context, account, after, to relay.ID, rows int) (found []relay.EventHead, end relay.ID, err error) {
	n := 0
	err = db.read(ctx, "select id, account, kind from event where id > ? and id <= ? order by id limit ?", func(row scanner) error {
		h, err := scanHead(row)
		if end = h.ID; h.Account == account || account == relay.Everyone {
			found = append(found, *h)
		}
		n++
		return err
	}, after[:], to[:], rows)
	if err != nil {
		return nil, end, db.fail("read events", err)
	}
	if n < rows {
		end = to
	}
	return found, end, nil
}

const selectWebhookEvents = "select e.id, e.at, e.account, e.message, e.n, e.kind, e.detail, m.sender, m.subject, m.header_id, d.recipient, " + messageColumns +
	" from event e join message m on m.id = e.message join delivery d on d.message = e.message and d.n = e.n where "

func scanWebhookEvent(row scanner) (*relay.WebhookEvent, error) {
	var m messageRow
	e, err := scanEvent(beside{row, m.targets()})
	if err != nil {
		return nil, err
	}
	message, err := m.message()
	if err != nil {
		return nil, err
	}
	return &relay.WebhookEvent{Event: *e, Message: message}, nil
}

// beside scans further columns.
type beside struct {
	scanner
	rest []any
}

func (b beside) Scan(to ...any) error { return b.scanner.Scan(slices.Concat(to, b.rest)...) }

// EventsByID gives those of the account's events that are there still, in the
// order of ids, with their messages.
func (db *DB) EventsByID(ctx context.Context, account relay.ID, ids []relay.ID) ([]*relay.WebhookEvent, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var c conditions
	c.account("e.account", account)
	if db.dialect.Arrays {
		list := make([][]byte, len(ids))
		for i := range ids {
			list[i] = ids[i][:]
		}
		c.add("e.id = any(cast(? as bytea[]))", list)
	} else {
		args := make([]any, len(ids))
		for i := range ids {
			args[i] = ids[i][:]
		}
		c.add("e.id in (?"+strings.Repeat(", ?", len(ids)-1)+")", args...)
	}
	return collect(ctx, db, "read events", scanWebhookEvent, selectWebhookEvents+c.String()+" order by e.id", c.args...)
}

// EventsOf gives the events of a message of the account from one id on, in the
// order of ids.
func (db *DB) EventsOf(ctx context.Context, account, message, from relay.ID, limit int) ([]*relay.WebhookEvent, error) {
	var c conditions
	c.account("e.account", account)
	c.add("e.message = ? and e.id >= ?", message[:], from[:])
	return collect(ctx, db, "read events", scanWebhookEvent, selectWebhookEvents+c.String()+" order by e.id limit ?", append(c.args, limit)...)
}
