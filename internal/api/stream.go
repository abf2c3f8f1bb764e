package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"postrider/internal/tail"
)

// eventStream is the media type of Server-Sent Events (WHATWG HTML, section 9.2).
const eventStream = "text/event-stream"

// streamPace is how streams are kept going.
type streamPace struct {
	beat  time.Duration // something is sent at least so often
	check time.Duration // the key is looked at so often
	write time.Duration // that the client may take for what is sent
	retry time.Duration // after which a client is to come back
}

var usualPace = streamPace{beat: 15 * time.Second, check: time.Second, write: 20 * time.Second, retry: 2 * time.Second}

// StreamEnd is the data of the last event of a stream, whose type is "end".
type StreamEnd struct {
	Reason string `json:"reason" enum:"limit,time,final,slow,revoked,stopping,failed" doc:"limit, time: as was asked. final: nothing more can come. slow: the client is too far behind. revoked: the key is not good for it any more. stopping: the server is being stopped. failed: the store can't be read"`
	Text   string `json:"text" doc:"The same for people"`
	Cursor string `json:"cursor,omitempty" doc:"To go on after what came"`
}

// streamSchema describes a stream whose events have that data.
func streamSchema(data *huma.Schema) *huma.Schema {
	end := &huma.Schema{Type: huma.TypeObject, Required: []string{"reason", "text"}, Properties: map[string]*huma.Schema{
		"reason": {Type: huma.TypeString, Enum: []any{"limit", "time", "final", "slow", "revoked", "stopping", "failed"}}, "text": {Type: huma.TypeString}, "cursor": {Type: huma.TypeString}}}
	item := func(event string, data *huma.Schema) *huma.Schema {
		o := &huma.Schema{Type: huma.TypeObject, Required: []string{"data"}, Properties: map[string]*huma.Schema{"id": {Type: huma.TypeString, Description: "Of Last-Event-ID, to go on after it"}, "data": data}}
		if event != "" {
			o.Required = append(o.Required, "event")
			o.Properties["event"] = &huma.Schema{Type: huma.TypeString, Enum: []any{event}}
		}
		return o
	}
	return &huma.Schema{Type: huma.TypeArray, Description: "Each item is an event of the stream, with its data as JSON", Items: &huma.Schema{AnyOf: []*huma.Schema{item("", data), item("end", end)}}}
}

// output is a stream to one client.
type output struct {
	w     http.ResponseWriter
	to    *http.ResponseController
	write time.Duration
}

// send sends one event of a stream. The error says that the client has gone, or
// does not take it in time.
func (o *output) send(event, id string, data any) error {
	var b bytes.Buffer
	if event != "" {
		fmt.Fprintf(&b, "event: %s\n", event)
	}
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	fmt.Fprintf(&b, "data: %s\n\n", text)
	return o.put(b.Bytes())
}

// beat shows that the stream is alive, and how far the client has come.
func (o *output) beat(id string) error {
	if id == "" {
		return o.put([]byte(": alive\n\n"))
	}
	return o.put([]byte(": alive\nid: " + id + "\n\n"))
}

func (o *output) put(b []byte) error {
	_ = o.to.SetWriteDeadline(time.Now().Add(o.write)) // not each kind of connection knows it
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.to.Flush()
}

// over is why a stream ends that a client could go on with.
type over struct{ reason, text string }

func (o *over) Error() string { return o.text }

var (
	errStopping = &over{"stopping", "The server is being stopped. Go on with another one, or in a moment."}
	errTime     = &over{"time", "It was asked for so long."}
	errLimit    = &over{"limit", "It was asked for so many."}
	errFinal    = &over{"final", "Nothing more can come."}
)

// stream answers with a stream that run sends. The context that run gets ends when
// the client has gone, the key is not good any more, the server ends, or the time
// is over; for is 0 where there is no such time. What run gives back ends the
// stream; cursor is asked for then.
func (s *Server) stream(right Right, most time.Duration, run func(ctx context.Context, out *output) error, cursor func() string, end func()) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(c huma.Context) {
		defer end()
		r, w := humago.Unwrap(c)
		h := w.Header()
		h.Set("Content-Type", eventStream)
		h.Set("X-Accel-Buffering", "no") // a proxy is not to gather it
		h.Set("Cache-Control", "no-store, no-transform")
		out := &output{w: w, to: http.NewResponseController(w), write: s.pace.write}
		ctx, cancel := context.WithCancelCause(r.Context())
		watching := make(chan struct{})
		go func() {
			defer close(watching)
			s.watch(ctx, r, right, most, cancel)
		}()
		defer func() { cancel(nil); <-watching }()
		if out.put(fmt.Appendf(nil, "retry: %d\n\n", s.pace.retry.Milliseconds())) != nil {
			return
		}
		err := run(ctx, out)
		if r.Context().Err() != nil {
			return // nobody is there
		}
		if e := s.endOf(err); e != nil {
			e.Cursor = cursor()
			_ = out.send("end", e.Cursor, e) // who does not take it sees that the connection ends
			if e.Reason == "failed" {
				exchangeOf(r.Context()).failure = err
			}
		}
	}}
}

// watch ends a stream that may not, or need not, go on.
func (s *Server) watch(ctx context.Context, r *http.Request, right Right, most time.Duration, end context.CancelCauseFunc) {
	check := time.NewTicker(s.pace.check)
	defer check.Stop()
	var late <-chan time.Time
	if most > 0 {
		timer := time.NewTimer(most)
		defer timer.Stop()
		late = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-stopping(ctx):
			end(errStopping)
		case <-late:
			end(errTime)
		case <-check.C:
			if err := s.still(r, exchangeOf(ctx), right); err != nil && ctx.Err() == nil {
				end(&over{"revoked", explain(err)})
			}
		}
	}
}

// endOf is what the client is told of the end; nil: it is not there.
func (s *Server) endOf(err error) *StreamEnd {
	var o *over
	var gone writeError
	switch {
	case errors.As(err, &gone):
		return nil
	case errors.As(err, &o):
		return &StreamEnd{Reason: o.reason, Text: o.text}
	case errors.Is(err, tail.ErrEnded):
		return &StreamEnd{Reason: errStopping.reason, Text: errStopping.text}
	case errors.Is(err, tail.ErrSlow):
		return &StreamEnd{Reason: "slow", Text: "More has come than was taken. Go on after the last event; what came since is in the log."}
	}
	return &StreamEnd{Reason: "failed", Text: "Events can't be read at the moment. Come back in a moment."}
}

// writeError says that the client has gone, or takes nothing.
type writeError struct{ error }
