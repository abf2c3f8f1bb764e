package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

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
	fits := db.fitting(ctx, batch)
	return db.each(ctx, "put", len(batch), func(ctx context.Context, w *writer, i int) error {
		if !fits[i] {
			return untouched{fmt.Errorf("put: %w", noRoom(errReserve))}
		}
		return db.put(ctx, w, lease, batch[i])
	})
}

var errReserve = errors.New("what is free is kept for the mail that is here")

// fitting tells for which submissions there is room, one after the other.
func (db *DB) fitting(ctx context.Context, batch []*relay.Submission) []bool {
	fits := make([]bool, len(batch))
	var n int64
	for i, s := range batch {
		if fits[i] = db.room == nil || db.room(ctx, n+s.Content.Size()); fits[i] {
			n += s.Content.Size()
		}
	}
	return fits
}

const (
	insertMessage  = "insert into message (id, account, credential, stream, received, sender, subject, header_from, header_id, size, params) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	insertContent  = "insert into content (message, part, bytes) values (?, ?, ?)"
	insertDelivery = "insert into delivery (message, n, account, stream, state, lease, due, expires, updated, notify, recipient, domain, orcpt) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	insertEvent    = "insert into event (id, at, account, message, n, kind, detail) values (?, ?, ?, ?, ?, ?, ?)"
)

func (db *DB) put(ctx context.Context, w *writer, lease int64, s *relay.Submission) error {
	m := s.Message
	if m.ID.IsZero() || m.Account.IsZero() || len(s.Deliveries) == 0 {
		return untouched{&relay.Error{Code: relay.Invalid, Text: "A message without id, account or delivery can't be stored."}}
	}
	for _, d := range s.Deliveries {
		if d.State.Final() || d.ID.Message != m.ID || d.Account != m.Account {
			return untouched{&relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("Delivery %s is final, or not one of message %s.", d.ID, m.ID)}}
		}
	}
	// First, because it may find that there is nothing to be put.
	if s.Answers != nil {
		if err := w.endNotice(ctx, s.Answers); err != nil {
			return err
		}
	}
	params, err := encodeParams(m)
	if err != nil {
		return fmt.Errorf("encode params: %w", err)
	}
	size := s.Content.Size()
	if _, err := w.exec(ctx, insertMessage, m.ID[:], m.Account[:], m.Credential[:], int64(m.Stream), micros(m.Received),
		text(m.Envelope.Sender), text(m.Subject), text(m.From), text(m.HeaderID), size, params); err != nil {
		return err
	}
	if err := w.putContent(ctx, m.ID, s.Content, size); err != nil {
		return fmt.Errorf("put content of %s: %w", m.ID, err)
	}
	if !s.InHand {
		lease = 0
	}
	for _, d := range s.Deliveries {
		if err := db.putDelivery(ctx, w, lease, m, d); err != nil {
			return err
		}
	}
	if s.Answers != nil {
		return db.putReported(ctx, w, m, s.Answers)
	}
	return nil
}

// putReported notes with the deliveries that m, a DSN, is about that their sender
// is told.
func (db *DB) putReported(ctx context.Context, w *writer, m *relay.Message, about *relay.Notice) error {
	what, err := encodeDetail(detail{Reply: relay.Reply{Text: m.ID.String()}})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	for _, n := range about.Deliveries {
		id, err := db.newID()
		if err != nil {
			return err
		}
		if _, err := w.exec(ctx, insertEvent, id[:], micros(m.Received), m.Account[:], about.Message[:], n, int64(relay.EventReported), what); err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) putDelivery(ctx context.Context, w *writer, lease int64, m *relay.Message, d *relay.Delivery) error {
	if d.State != relay.Queued || d.Due.After(m.Received) {
		lease = 0 // not to be tried yet
	}
	if _, err := w.exec(ctx, insertDelivery, m.ID[:], d.ID.N, m.Account[:], int64(d.Stream), int64(d.State), lease,
		micros(d.Due), micros(d.Expires), micros(m.Received), int64(d.Recipient.Notify),
		text(d.Recipient.Address), text(d.Domain), text(d.Recipient.ORcpt)); err != nil {
		return err
	}
	id, err := db.newID()
	if err != nil {
		return err
	}
	_, err = w.exec(ctx, insertEvent, id[:], micros(m.Received), m.Account[:], m.ID[:], d.ID.N, int64(relay.EventAccepted), nil)
	return err
}

// putContent writes content in chunks. Content that is in memory has a method
// Bytes and is not copied.
func (w *writer) putContent(ctx context.Context, id relay.ID, c relay.Content, size int64) error {
	if b, ok := c.(interface{ Bytes() []byte }); ok {
		if int64(len(b.Bytes())) != size {
			return fmt.Errorf("content has %d bytes, said %d", len(b.Bytes()), size)
		}
		return w.putChunks(ctx, id, b.Bytes())
	}
	r, err := c.Open()
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer r.Close()
	buf := make([]byte, min(size+1, chunk))
	var total int64
	for part := 0; ; part++ {
		n, err := io.ReadFull(r, buf)
		end := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !end {
			return fmt.Errorf("read: %w", err)
		}
		total += int64(n)
		if n > 0 || part == 0 {
			if _, err := w.exec(ctx, insertContent, id[:], part, buf[:n]); err != nil {
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

// putChunks writes at least one part, so that empty content exists as well.
func (w *writer) putChunks(ctx context.Context, id relay.ID, b []byte) error {
	for part := 0; part == 0 || len(b) > 0; part++ {
		n := min(len(b), chunk)
		if _, err := w.exec(ctx, insertContent, id[:], part, b[:n:n]); err != nil {
			return err
		}
		b = b[n:]
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
