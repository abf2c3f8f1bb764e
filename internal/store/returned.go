package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// returnedDetail is what of a mail that came back is never searched.
type returnedDetail struct {
	Sender   string `json:"sender,omitempty"`
	Size     int64  `json:"size"`
	Client   string `json:"client,omitempty"`
	Helo     string `json:"helo,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Listener string `json:"listener,omitempty"`
	TLS      string `json:"tls,omitempty"`

	Unsubscribe bool   `json:"unsubscribe,omitempty"`
	Provider    string `json:"provider,omitempty"`
	Expired     bool   `json:"expired,omitempty"`
}

var returnedTable = newTable("returned", "", columns(blob, "id account message"), columns(number, "n received"), columns(blob, "detail bytes"))

// AddReturned keeps mail that came back, all of it or none.
func (db *DB) AddReturned(ctx context.Context, list []*relay.Returned) error {
	rows := make([][]any, len(list))
	var size int64
	for i, r := range list {
		if r.ID.IsZero() || r.Account.IsZero() || r.Account == relay.Everyone || r.Delivery.Message.IsZero() {
			return &relay.Error{Code: relay.Invalid, Text: "Mail that came back needs an id, an account and a delivery."}
		}
		s := &r.Source
		d := returnedDetail{Sender: r.Sender, Size: r.Size, Helo: s.Helo, Protocol: s.Protocol, Listener: s.Listener, TLS: s.TLS, Unsubscribe: r.Unsubscribe, Provider: r.Provider, Expired: r.Expired}
		if s.Client.IsValid() {
			d.Client = s.Client.String()
		}
		doc, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("encode returned mail: %w", err)
		}
		size += int64(len(r.Content))
		rows[i] = []any{r.ID[:], r.Account[:], r.Delivery.Message[:], int64(r.Delivery.N), db.clock.micros(r.Received), doc, r.Content}
	}
	if db.room != nil && !db.room(ctx, size) {
		return fmt.Errorf("add returned mail: %w", noRoom(errReserve))
	}
	return db.write(ctx, "add returned mail", func(ctx context.Context, w *writer) error { return w.insert(ctx, returnedTable, rows...) })
}

// returnedAtOnce is how many bytes of mail that came back are read at once, about.
const returnedAtOnce = 16 << 20

// errEnough ends a reading.
var errEnough = errors.New("that is enough")

// Returned gives mail that came back for an account and is not dealt with, the
// oldest first, after the one of that id: limit mails at most, and fewer where they
// are large. relay.Everyone stands for all accounts.
func (db *DB) Returned(ctx context.Context, account, after relay.ID, limit int) (list []*relay.Returned, err error) {
	var c conditions
	c.account("account", account)
	c.add("id > ?", after[:])
	size := 0
	err = db.read(ctx, "select id, account, message, n, received, detail, bytes from returned where "+c.String()+" order by id limit ?", func(row scanner) error {
		r, err := db.scanReturned(row)
		if err != nil {
			return err
		}
		list = append(list, r)
		if size += len(r.Content); size >= returnedAtOnce {
			return errEnough
		}
		return nil
	}, append(c.args, limit)...)
	if err != nil && !errors.Is(err, errEnough) {
		return nil, db.fail("read returned mail", err)
	}
	return list, nil
}

func (db *DB) scanReturned(row scanner) (*relay.Returned, error) {
	r := &relay.Returned{}
	var id, account, message, doc []byte
	var received int64
	if err := row.Scan(&id, &account, &message, &r.Delivery.N, &received, &doc, &r.Content); err != nil {
		return nil, err
	}
	r.ID, r.Account, r.Delivery.Message, r.Received = toID(id), toID(account), toID(message), db.clock.time(received)
	var d returnedDetail
	if err := json.Unmarshal(doc, &d); err != nil {
		return nil, fmt.Errorf("read returned mail %s: %w", r.ID, err)
	}
	r.Sender, r.Size, r.Unsubscribe, r.Provider, r.Expired = d.Sender, d.Size, d.Unsubscribe, d.Provider, d.Expired
	r.Source = relay.Source{Helo: d.Helo, Protocol: d.Protocol, Listener: d.Listener, TLS: d.TLS}
	if d.Client != "" {
		client, err := netip.ParseAddrPort(d.Client)
		if err != nil {
			return nil, fmt.Errorf("read client of returned mail %s: %w", r.ID, err)
		}
		r.Source.Client = client
	}
	return r, nil
}

// ReturnedAccounts gives the next accounts after one that have mail which came back
// and is not dealt with. It steps from one to the next by an index, however much each
// has.
func (db *DB) ReturnedAccounts(ctx context.Context, after relay.ID, limit int) (list []relay.ID, err error) {
	for len(list) < limit {
		n := len(list)
		err := db.read(ctx, "select account from returned where account > ? order by account limit 1", func(row scanner) error {
			var b []byte
			err := row.Scan(&b)
			after = toID(b)
			list = append(list, after)
			return err
		}, after[:])
		if err != nil {
			return nil, db.fail("find accounts with returned mail", err)
		}
		if len(list) == n {
			break
		}
	}
	return list, nil
}

// OldestReturned is when the mail came that has waited longest to be dealt with; the
// zero time where none waits.
func (db *DB) OldestReturned(ctx context.Context) (at time.Time, err error) {
	err = db.read(ctx, "select received from returned order by id limit 1", func(row scanner) error {
		var received int64
		err := row.Scan(&received)
		at = db.clock.time(received)
		return err
	})
	if err != nil {
		return at, db.fail("find oldest returned mail", err)
	}
	return at, nil
}

// ReturnedAbout gives those of these deliveries that are there, of whichever account,
// each with its message.
func (db *DB) ReturnedAbout(ctx context.Context, ids []relay.DeliveryID) (found []*relay.Logged, err error) {
	messages := map[relay.ID]*relay.Message{}
	for some := range slices.Chunk(ids, linkedAtOnce) {
		args := make([]any, 0, 2*len(some))
		for i := range some {
			args = append(args, some[i].Message[:], int64(some[i].N))
		}
		which := strings.Repeat(" or d.message = ? and d.n = ?", len(some))[len(" or "):]
		err := db.readLogged(ctx, messages, &found, "select "+deliveryOf+", "+messageColumns+" from delivery d join message m on m.id = d.message where "+which, args...)
		if err != nil {
			return nil, db.fail("find what returned mail is about", err)
		}
	}
	return found, nil
}

// EndReturned ends mail that came back without an outcome: what it is about is
// not there any more. ErrSettled says that it had ended.
func (db *DB) EndReturned(ctx context.Context, id relay.ID) error {
	return db.each(ctx, "end returned mail", 1, oneByOne(func(ctx context.Context, w *writer, _ int) error { return w.endReturned(ctx, id) }))[0]
}

func (w *writer) endReturned(ctx context.Context, id relay.ID) error {
	gone, err := w.exec(ctx, "delete from returned where id = ?", id[:])
	if err == nil && gone == 0 {
		err = untouched{fmt.Errorf("end returned mail %s: %w", id, ErrSettled)}
	}
	return err
}

const bounceDelivered = "update delivery set state = ?, updated = ?, code = ?, enhanced = ?, reply = ?, host = ?, category = ?, diagnosis = ?, advice = ?" +
	" where message = ? and n = ? and account = ? and state = ?"

// settleLate writes what comes of mail that came back, or of what a recipient did.
// Whoever ends the row of a mail is the one to write; no lease is asked for.
func (db *DB) settleLate(ctx context.Context, w *writer, o *relay.Outcome, sums *sums, v *verdicts) error {
	if err := w.unlessUnknown(ctx, o); err != nil {
		return err
	}
	if o.Kind == relay.EventUnsubscribed || o.Kind == relay.EventResubscribed {
		return db.settleWish(ctx, w, o, sums)
	}
	if !o.Answers.IsZero() {
		if err := w.endReturned(ctx, o.Answers); err != nil {
			return err
		}
	}
	kind := o.Kind
	if kind == relay.EventBounced {
		r, d := &o.Reply, &o.Diagnosis
		changed, err := w.exec(ctx, bounceDelivered, int64(relay.Bounced), db.clock.micros(o.At), int64(r.Code), text(r.Enhanced), text(r.Text), text(o.Host),
			text(d.Category), text(d.Text), text(d.Advice), o.Delivery.Message[:], int64(o.Delivery.N), o.Account[:], int64(relay.Delivered))
		if err != nil {
			return err
		}
		if changed == 0 { // bounced before, or not delivered yet
			kind = relay.EventFeedback
		} else if o.Notice != 0 {
			if err := w.insert(ctx, noticeTable, []any{o.Delivery.Message[:], int64(o.Notice), int64(o.Delivery.N), db.clock.micros(o.NoticeDue)}); err != nil {
				return err
			}
		}
	}
	told := *o
	told.Kind = kind
	d, doc, err := w.lateDetail(ctx, &told)
	if err != nil {
		return err
	}
	event, err := db.event(o.At, o.Account, o.Delivery, kind, doc)
	if err != nil {
		return err
	}
	if err := w.insert(ctx, eventTable, event); err != nil {
		return err
	}
	sums.add(db.clock, &told, &d)
	v.add(o, kind, toID(event[0].([]byte)))
	return nil
}

// lateDetail is the detail of what came after the attempts. The event has the
// provider and the source of the delivery, so that it tells by itself where it
// counts; the outcome gets the provider too. doc is the detail as it is stored.
func (w *writer) lateDetail(ctx context.Context, o *relay.Outcome) (d detail, doc []byte, err error) {
	provider := ""
	err = w.query(ctx, "select provider, source from delivery where message = ? and n = ? and account = ?", func(row scanner) error {
		return row.Scan(&provider, &d.Source)
	}, o.Delivery.Message[:], int64(o.Delivery.N), o.Account[:])
	if err != nil {
		return d, nil, err
	}
	o.Provider = cmp.Or(o.Provider, provider)
	mark, err := w.marked(ctx, o)
	if err != nil {
		return d, nil, err
	}
	if o.Kind == relay.EventBounced {
		mark = relay.MarkLate
	}
	source := d.Source
	d = detailOf(o)
	d.Source, d.Mark = source, mark
	if doc, err = encodeDetail(d); err != nil {
		return d, nil, fmt.Errorf("encode event of %s: %w", o.Delivery, err)
	}
	return d, doc, nil
}

// unlessUnknown is an error where the account has no such delivery.
func (w *writer) unlessUnknown(ctx context.Context, o *relay.Outcome) error {
	err := w.unsettled(ctx, o)
	if u, ok := err.(untouched); ok && relay.CodeOf(u.error) != relay.NotFound {
		return nil // it is there; what else unsettled says is of no concern
	}
	return err
}
