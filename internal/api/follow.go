package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// comeBack is how long a broken stream waits before it is taken up again.
const comeBack = time.Second

// Stream is one that a client reads.
type Stream struct {
	Path   string      // with its query
	Begun  func()      // called when the server has begun to send, each time; may be nil
	Broken func(error) // called when it breaks off and is to be taken up again; may be nil

	open bool   // it was, once
	last string // id
}

// Follow reads a stream from the server: f gets the id and the data of each event;
// with the id as its cursor a stream goes on after it. One that breaks off, or that
// the server ends though there may be more, is taken up again after the last event
// that came. It ends with ctx, with f's error, or with the stream: the end is what
// the server said of that.
func Follow[T any](ctx context.Context, c *Client, s *Stream, f func(id string, v T) error) (*StreamEnd, error) {
	for {
		end, err := s.once(ctx, c, func(data []byte) error {
			var v T
			if err := json.Unmarshal(data, &v); err != nil {
				return fmt.Errorf("read event: %w", err)
			}
			if err := f(s.last, v); err != nil {
				return enough{err}
			}
			return nil
		})
		var stop enough
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.As(err, &stop):
			return nil, stop.error
		case err != nil && (!s.open || final(err)):
			return nil, err
		case end != nil && end.Reason != "slow" && end.Reason != "stopping" && end.Reason != "failed":
			return end, nil
		}
		if s.Broken != nil {
			if err == nil {
				err = errors.New(end.Text)
			}
			s.Broken(err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(comeBack):
		}
	}
}

// final tells whether asking again is of no use.
func final(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Status < 500 && r.Status != http.StatusTooManyRequests
}

// enough is an error of whoever the events are for.
type enough struct{ error }

var errBroken = errors.New("the server broke the stream off")

// once reads until the connection ends.
func (s *Stream) once(ctx context.Context, c *Client, f func(data []byte) error) (*StreamEnd, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.askWith(ctx, http.MethodGet, s.Path, nil, func(h http.Header) {
		h.Set("Accept", eventStream)
		if s.last != "" {
			h.Set("Last-Event-ID", s.last)
		}
	})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, eventStream) {
		return nil, fmt.Errorf("the server answers with %q instead of a stream", kind)
	}
	if s.open = true; s.Begun != nil {
		s.Begun()
	}
	// A server that has gone without a word sends no more signs of life.
	silent := time.AfterFunc(4*usualPace.beat, cancel)
	defer silent.Stop()
	lines := bufio.NewReader(resp.Body)
	for {
		event, data, err := s.next(lines, func() { silent.Reset(4 * usualPace.beat) })
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errBroken
			}
			return nil, err
		}
		if event == "end" {
			var end StreamEnd
			if err := json.Unmarshal(data, &end); err != nil {
				return nil, fmt.Errorf("read event: %w", err)
			}
			return &end, nil
		}
		if err := f(data); err != nil {
			return nil, err
		}
	}
}

// next reads one event, as the HTML standard has it (section 9.2.6).
func (s *Stream) next(lines *bufio.Reader, alive func()) (event string, data []byte, err error) {
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", nil, err
		}
		alive()
		line = strings.TrimRight(line, "\r\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != nil:
			return event, data, nil
		case line == "":
			event = ""
		case name == "event":
			event = value
		case name == "id":
			s.last = value
		case name == "data":
			data = append(data, value...)
		}
	}
}
