package backlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// letterSize is about how many bytes each message has.
const letterSize = 4096

// raw is content in memory.
type raw []byte

func (b raw) Size() int64                  { return int64(len(b)) }
func (b raw) Bytes() []byte                { return b }
func (b raw) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// letter writes a message that is marked with name and a time.
func letter(name, from string, at time.Time) []byte {
	line := strings.Repeat("x", 76) + "\r\n"
	head := mark(name, at) + "From: " + from + "\r\nSubject: letter\r\nDate: Mon, 1 Jan 2029 00:00:00 +0000\r\n" +
		"Message-ID: <" + fmt.Sprint(at.UnixNano()) + "@client.test>\r\n\r\n"
	return []byte(head + strings.Repeat(line, (letterSize-len(head))/len(line)))
}

// flow is mail that is sent: by whom, where to, and as what.
type flow struct {
	rig  *rig
	by   []*sender
	name string             // of the probe
	to   func(i int) string // domain of message i
}

func (f *flow) send(s *session, i int, at time.Time) error {
	from := f.by[i%len(f.by)].name + "@client.test"
	return s.send(from, fmt.Sprintf("user%d@%s", i, f.to(i)), append(letter(f.name, from, at), ".\r\n"...))
}

// flood sends as fast as the relay acknowledges, over some sessions. It gives
// how many were acknowledged, a second too.
func (f *flow) flood(ctx context.Context, sessions int, d time.Duration) (sent int, rate float64, err error) {
	var n atomic.Int64
	var began time.Time
	err = f.sessions(ctx, sessions, func() { began = time.Now() }, func(s *session, k int) error {
		for time.Since(began) < d && ctx.Err() == nil {
			// Each session has one of the senders.
			i := int(n.Add(1))*len(f.by) + k%len(f.by)
			if err := f.send(s, i, time.Now()); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	return int(n.Load()), float64(n.Load()) / time.Since(began).Seconds(), err
}

// steady sends at a given rate. Times count from when a message was to be sent,
// not from when the relay let it.
func (f *flow) steady(ctx context.Context, rate int, d time.Duration) (sent int, err error) {
	type turn struct {
		i  int
		at time.Time
	}
	n := int(float64(rate) * d.Seconds())
	turns := make([]chan turn, len(f.by))
	for i := range turns {
		turns[i] = make(chan turn, n)
	}
	pace := func() {
		began := time.Now()
		for i := range n {
			at := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
			if pause(ctx, time.Until(at)) != nil {
				break
			}
			turns[i%len(f.by)] <- turn{i, at}
		}
		for _, c := range turns {
			close(c)
		}
	}
	err = f.sessions(ctx, 4*len(f.by), func() { go pace() }, func(s *session, k int) error {
		for t := range turns[k%len(f.by)] {
			if err := f.send(s, t.i, t.at); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// sessions opens some sessions, of which session k belongs to sender k modulo
// their number. When all are open it calls begin, then runs do in each.
func (f *flow) sessions(ctx context.Context, n int, begin func(), do func(s *session, k int) error) error {
	open, errs := make([]*session, n), make([]error, n)
	var dialling, working sync.WaitGroup
	for k := range n {
		dialling.Go(func() { open[k], errs[k] = dial(ctx, f.rig.Addr, f.by[k%len(f.by)].from, "") })
	}
	dialling.Wait()
	err := errors.Join(errs...)
	if err == nil {
		begin()
	}
	for k, s := range open {
		working.Go(func() {
			if s == nil {
				return
			}
			if err == nil {
				errs[k] = do(s, k)
			}
			errs[k] = errors.Join(errs[k], s.quit())
		})
	}
	working.Wait()
	return errors.Join(errs...)
}
