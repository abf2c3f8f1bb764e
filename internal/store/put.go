package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"postrider/internal/relay"
)

// chunk is the most content in one row, in bytes: small enough for any engine,
// and for reading a large message back without holding it whole.
const chunk = 256 << 10

// Put makes a batch durable, in one transaction with one sync. Error i belongs
// to batch[i]; nil means that all of it is on disk. A submission at fault
// (its id exists, its content can't be read, there is no room for it) fails
// alone.
//
// Of a submission in hand the deliveries that may be tried at once are leased to
// lease; all others wait to be claimed.
func (db *DB) Put(ctx context.Context, lease int64, batch []*relay.Submission) []error {
	return db.each(ctx, "put", len(batch), db.putting(ctx, lease, batch))
}

func (db *DB) putting(ctx context.Context, lease int64, batch []*relay.Submission) batch {
	fits := db.fitting(ctx, batch)
	return func(ctx context.Context, w *writer, parts []int, fail func(int, error)) error {
		var m mail
		for _, i := range parts {
			err := error(untouched{fmt.Errorf("put: %w", noRoom(errReserve))})
			if fits[i] {
				err = db.gather(ctx, w, &m, lease, batch[i])
			}
			if u, ok := err.(untouched); ok {
				fail(i, u.error)
			} else if err != nil {
				return err
			}
		}
		return w.putMail(ctx, lease, &m)
	}
}

var errReserve = errors.New("what is free is kept for the mail that is here")

// fitting tells for which submissions there is room, one after the other.
func (db *DB) fitting(ctx context.Context, batch []*relay.Submission) []bool {
	fits := make([]bool, len(batch))
	var n int64
	for _, s := range batch {
		n += s.Content.Size()
	}
	all := db.room == nil || db.room(ctx, n) // the usual case is asked about once
	n = 0
	for i, s := range batch {
		if fits[i] = all || db.room(ctx, n+s.Content.Size()); fits[i] {
			n += s.Content.Size()
		}
	}
	return fits
}

var (
	messageTable = newTable("message", "", columns(blob, "id account credential"), columns(number, "stream received size"),
		columns(words, "sender subject header_from header_id client helo script tags"), columns(number, "archive"), columns(blob, "params"))
	contentTable  = newTable("content", "", columns(blob, "message"), columns(number, "part"), columns(blob, "bytes"))
	deliveryTable = newTable("delivery", "", columns(blob, "message account"), columns(number, "n stream state lease due expires updated notify"),
		columns(words, "recipient domain orcpt"))
	eventTable = newTable("event", "", columns(blob, "id account message"), columns(number, "at n kind"), columns(blob, "detail"))
)

// mail is what a batch of submissions comes to: rows of the tables.
type mail struct {
	messages, contents, deliveries, events [][]any

	cancelled [][]any // diagnosis of deliveries that are not to be made, and their keys
	sums      sums

	bytes  int  // in contents
	leased bool // a delivery is in our hand
}

// most is how much content is gathered before it is written, in bytes.
const most = 4 << 20

// putMail writes what was gathered.
func (w *writer) putMail(ctx context.Context, lease int64, m *mail) error {
	if m.leased {
		if err := w.holds(ctx, lease); err != nil {
			return err
		}
	}
	if err := w.insert(ctx, messageTable, m.messages...); err != nil {
		return err
	}
	if err := w.putContents(ctx, m); err != nil {
		return err
	}
	if err := w.insert(ctx, deliveryTable, m.deliveries...); err != nil {
		return err
	}
	for _, row := range m.cancelled {
		if err := w.send(ctx, "update delivery set category = ?, diagnosis = ?, advice = ? where message = ? and n = ?", row...); err != nil {
			return err
		}
	}
	if err := w.putSums(ctx, lease, &m.sums); err != nil {
		return err
	}
	return w.insert(ctx, eventTable, m.events...)
}

// putContents writes the content that was gathered so far.
func (w *writer) putContents(ctx context.Context, m *mail) error {
	err := w.insert(ctx, contentTable, m.contents...)
	m.contents, m.bytes = nil, 0
	return err
}

// gather adds a submission to m. Of content that is large it writes some at once.
func (db *DB) gather(ctx context.Context, w *writer, to *mail, lease int64, s *relay.Submission) error {
	m := s.Message
	if m.ID.IsZero() || m.Account.IsZero() || len(s.Deliveries) == 0 {
		return untouched{&relay.Error{Code: relay.Invalid, Text: "A message without id, account or delivery can't be stored."}}
	}
	for _, d := range s.Deliveries {
		if d.State.Final() && d.State != relay.Cancelled || d.ID.Message != m.ID || d.Account != m.Account {
			return untouched{&relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("Delivery %s is final, or not one of message %s.", d.ID, m.ID)}}
		}
	}
	// First, because it may find that there is nothing to be put.
	if s.Answers != nil {
		if err := w.endNotice(ctx, s.Answers); err != nil {
			return err
		}
	}
	if s.Once != nil {
		if err := w.once(ctx, m, s.Once); err != nil {
			return err
		}
	}
	params, err := encodeParams(m)
	if err != nil {
		return fmt.Errorf("encode params: %w", err)
	}
	client := ""
	if m.Source.Client.IsValid() {
		client = m.Source.Client.Addr().String()
	}
	size := s.Content.Size()
	to.messages = append(to.messages, []any{m.ID[:], m.Account[:], m.Credential[:], int64(m.Stream), db.clock.micros(m.Received), size,
		text(m.Envelope.Sender), text(m.Subject), text(m.From), text(m.HeaderID), client, text(m.Source.Helo), text(m.Script), joinTags(m.Tags), bit(m.Archive), params})
	if m.Archive || slices.ContainsFunc(s.Deliveries, func(d *relay.Delivery) bool { return !d.State.Final() }) {
		if err := w.gatherContent(ctx, to, m.ID, s.Content, size); err != nil {
			return fmt.Errorf("put content of %s: %w", m.ID, err)
		}
	}
	to.sums.accepted(db.clock, m, int64(len(s.Deliveries)))
	warning, err := encodeDetail(detail{Diagnosis: s.Warning})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	for _, d := range s.Deliveries {
		held := lease
		if !s.InHand || d.State != relay.Queued || d.Due.After(m.Received) {
			held = 0 // not to be tried yet
		}
		to.leased = to.leased || held != 0
		to.deliveries = append(to.deliveries, []any{m.ID[:], m.Account[:], int64(d.ID.N), int64(d.Stream), int64(d.State), held,
			db.clock.micros(d.Due), db.clock.micros(d.Expires), db.clock.micros(m.Received), int64(d.Recipient.Notify),
			text(d.Recipient.Address), text(d.Domain), text(d.Recipient.ORcpt)})
		e, err := db.event(m.Received, m.Account, d.ID, relay.EventAccepted, warning)
		if err != nil {
			return err
		}
		to.events = append(to.events, e)
		if d.State == relay.Cancelled {
			if err := db.gatherCancelled(to, m, d); err != nil {
				return err
			}
		}
	}
	if s.Answers != nil {
		return db.gatherReported(to, m, s.Answers)
	}
	return nil
}

// gatherCancelled notes of a delivery that it is not made, and why.
func (db *DB) gatherCancelled(to *mail, m *relay.Message, d *relay.Delivery) error {
	why, err := encodeDetail(detail{Diagnosis: d.Diagnosis})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	e, err := db.event(m.Received, m.Account, d.ID, relay.EventCancelled, why)
	if err != nil {
		return err
	}
	to.events = append(to.events, e)
	to.cancelled = append(to.cancelled, []any{text(d.Diagnosis.Category), text(d.Diagnosis.Text), text(d.Diagnosis.Advice), m.ID[:], int64(d.ID.N)})
	to.sums.add(db.clock, &relay.Outcome{Delivery: d.ID, Account: m.Account, At: m.Received, Kind: relay.EventCancelled, Diagnosis: d.Diagnosis, Message: m}, &detail{})
	return nil
}

// onceFor is for how long a key keeps a request from being taken twice.
const onceFor = 24 * time.Hour

// once keeps the message's key, or says what came of the request that had it
// before.
func (w *writer) once(ctx context.Context, m *relay.Message, o *relay.Once) error {
	now := w.dialect.Now
	ours, err := w.exec(ctx, "insert into once (account, word, digest, message, expires) values (?, ?, ?, ?, "+now+" + ?) on conflict (account, word)"+
		" do update set digest = excluded.digest, message = excluded.message, expires = excluded.expires where once.expires <= "+now,
		m.Account[:], text(o.Key), o.Digest[:], m.ID[:], onceFor.Microseconds())
	if err != nil || ours > 0 {
		return err
	}
	var digest, first []byte
	err = w.query(ctx, "select digest, message from once where account = ? and word = ?", func(row scanner) error { return row.Scan(&digest, &first) },
		m.Account[:], text(o.Key))
	if err != nil {
		return err
	}
	if !bytes.Equal(digest, o.Digest[:]) {
		return untouched{&relay.Error{Code: relay.Conflict, Text: "Another request had this idempotency key within the last day.", Advice: "Make a new key for each message."}}
	}
	return untouched{&relay.Error{Code: relay.Repeated, Text: "This request was taken before.", Err: &relay.Earlier{Message: toID(first)}}}
}

// event makes a row of the table of events.
func (db *DB) event(at time.Time, account relay.ID, d relay.DeliveryID, k relay.Kind, detail []byte) ([]any, error) {
	id, err := db.newID()
	if err != nil {
		return nil, err
	}
	return []any{id[:], account[:], d.Message[:], db.clock.micros(at), int64(d.N), int64(k), detail}, nil
}

// gatherReported notes with the deliveries that m, a DSN, is about that their
// sender is told.
func (db *DB) gatherReported(to *mail, m *relay.Message, about *relay.Notice) error {
	what, err := encodeDetail(detail{Reply: relay.Reply{Text: m.ID.String()}})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	for _, n := range about.Deliveries {
		e, err := db.event(m.Received, m.Account, relay.DeliveryID{Message: about.Message, N: n}, relay.EventReported, what)
		if err != nil {
			return err
		}
		to.events = append(to.events, e)
	}
	return nil
}

// gatherContent adds content in chunks, at least one, so that empty content
// exists as well. Content that is in memory has a method Bytes and is not copied;
// other content is written as it is read.
func (w *writer) gatherContent(ctx context.Context, to *mail, id relay.ID, c relay.Content, size int64) error {
	if b, ok := c.(interface{ Bytes() []byte }); ok {
		rest := b.Bytes()
		if int64(len(rest)) != size {
			return fmt.Errorf("content has %d bytes, said %d", len(rest), size)
		}
		for part := int64(0); part == 0 || len(rest) > 0; part++ {
			n := min(len(rest), chunk)
			to.contents = append(to.contents, []any{id[:], part, rest[:n:n]})
			rest = rest[n:]
		}
		if to.bytes += int(size); to.bytes > most {
			if err := w.putContents(ctx, to); err != nil {
				return err
			}
			return w.flush(ctx)
		}
		return nil
	}
	r, err := c.Open()
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer r.Close()
	buf := make([]byte, min(size+1, chunk))
	var total int64
	for part := int64(0); ; part++ {
		n, err := io.ReadFull(r, buf)
		end := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !end {
			return fmt.Errorf("read: %w", err)
		}
		total += int64(n)
		if n > 0 || part == 0 {
			if err := w.insert(ctx, contentTable, []any{id[:], part, buf[:n]}); err != nil {
				return err
			}
			if err := w.flush(ctx); err != nil { // before buf is used again
				return err
			}
		}
		if end {
			break
		}
	}
	if total != size {
		return fmt.Errorf("content has %d bytes, said %d", total, size)
	}
	return nil
}

// content of a message, read from the database chunk by chunk.
type content struct {
	ctx  context.Context // of the call that asked for the content
	db   *DB
	id   relay.ID
	size int64
}

// Content gives the content of a message, or a relay.Error NotFound when it is
// kept no longer. Reading goes on as long as ctx does.
func (db *DB) Content(ctx context.Context, message relay.ID) (relay.Content, error) {
	c := content{ctx: ctx, db: db, id: message, size: -1}
	err := db.read(ctx, "select m.size from message m where m.id = ? and exists (select 1 from content c where c.message = m.id)",
		func(row scanner) error { return row.Scan(&c.size) }, message[:])
	if err != nil {
		return nil, db.fail("find content", err)
	}
	if c.size < 0 {
		return nil, &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("The content of message %s is not kept any more.", message)}
	}
	return c, nil
}

func (c content) Size() int64 { return c.size }

func (c content) Open() (io.ReadCloser, error) { return &contentReader{content: c}, nil }

// contentReader reads each chunk with a query of its own: a slow reader holds
// up neither a connection nor a checkpoint.
type contentReader struct {
	content
	part int
	read int64
	rest bytes.Reader
}

func (r *contentReader) Read(p []byte) (int, error) {
	for r.rest.Len() == 0 {
		if r.read == r.size {
			return 0, io.EOF
		}
		var b []byte
		err := r.db.read(r.ctx, "select bytes from content where message = ? and part = ?",
			func(row scanner) error { return row.Scan(&b) }, r.id[:], r.part)
		if err != nil {
			return 0, r.db.fail("read content", err)
		}
		if len(b) == 0 {
			return 0, fmt.Errorf("read content of %s: %w", r.id, io.ErrUnexpectedEOF)
		}
		r.part++
		r.read += int64(len(b))
		r.rest.Reset(b)
	}
	return r.rest.Read(p)
}

func (r *contentReader) Close() error { return nil }
