package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"postrider/internal/relay"
	"postrider/internal/smtp"
)

func (s *Server) queueRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/queue", ID: "list-queue", Tag: "Messages", Right: Read, OfAccount: true,
		Summary: "How much waits, and for whom", Doc: "One entry for each domain of recipients and stream; for operators, who see all accounts, for each account too. Each recipient of a message counts as one. Counts are of the moment, for all nodes. Counting takes time where very much waits. One count at a time is made by a node; who waits for more than ten seconds gets 503.",
		Example: Example{Params: object{"limit": 100}, Answer: object{"data": []any{object{"domain": "example.net", "stream": "transactional", "account": ExampleAccount,
			"waiting": 42, "deferred": 40, "in_hand": 3, "held": 0, "oldest": ExampleTime, "due": "2026-03-01T08:31:00Z",
			"last": object{"at": ExampleTime, "host": "mx.example.net", "reply": object{"code": 451, "enhanced": "4.7.1", "text": "Try again later"},
				"diagnosis": object{"category": "soft/greylisted", "text": "The receiver wants the message to be sent once more, later.", "advice": "Wait."}}}}}},
	}, s.queue)
}

// Backlog is what waits for one domain.
type Backlog struct {
	Domain   string     `json:"domain" doc:"Of the recipients, as A-labels"`
	Stream   string     `json:"stream"`
	Account  string     `json:"account" doc:"Id of the account whose mail it is"`
	Waiting  int64      `json:"waiting" doc:"Deliveries that wait for an attempt, with those that were deferred"`
	Deferred int64      `json:"deferred" doc:"Of those that wait: how many have been tried"`
	InHand   int64      `json:"in_hand" doc:"Deliveries that nodes work on, or are about to"`
	Held     int64      `json:"held" doc:"Deliveries that wait for a person"`
	Oldest   time.Time  `json:"oldest" doc:"When the first of all these was accepted"`
	Due      *time.Time `json:"due,omitempty" doc:"When the first of those that wait may be tried"`
	Last     *Deferral  `json:"last,omitempty" doc:"The latest deferral, as far as it stands near either end of the line"`
}

// Deferral is why something waits for its next attempt.
type Deferral struct {
	At        time.Time       `json:"at"`
	Host      string          `json:"host,omitempty"`
	Reply     relay.Reply     `json:"reply"`
	Diagnosis relay.Diagnosis `json:"diagnosis"`
}

// longestCount bounds how long what waits is counted, with the wait for others'
// counts: one key must not keep the store busy with it.
const longestCount = 10 * time.Second

func (s *Server) queue(ctx context.Context, q *struct {
	Domain string `query:"domain" maxLength:"255" doc:"Only of this domain"`
	Page
}) (*body[List[Backlog]], error) {
	f := relay.BacklogFilter{Domain: q.Domain, Limit: q.Limit}
	if ascii, err := smtp.ASCIIDomain(q.Domain); err == nil && q.Domain != "" {
		f.Domain = ascii // as it is kept
	}
	account := CallerOf(ctx).Account
	var err error
	if f.After, err = parseClass(q.Cursor); err != nil {
		return nil, invalid("query.cursor", sentence(err), "Give the next of the page before.")
	}
	counting, cancel := context.WithTimeout(ctx, longestCount)
	defer cancel()
	found, err := s.count(counting, account, f)
	if err != nil && errors.Is(counting.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, &relay.Error{Code: relay.Busy, Text: "What waits can't be counted in time.", Advice: "Try again later, with a smaller limit or for one domain.",
			Retry: time.Now().Add(longestCount), Err: err}
	}
	out := List[Backlog]{Data: make([]Backlog, 0, len(found))}
	for _, b := range found {
		e := Backlog{Domain: b.Domain, Stream: b.Stream.String(), Account: b.Account.String(), Waiting: b.Queued + b.Deferred, Deferred: b.Deferred,
			InHand: b.InHand, Held: b.Held, Oldest: b.Oldest, Due: moment(b.Due)}
		if l := b.Last; l != nil {
			e.Last = &Deferral{l.At, l.Host, l.Reply, l.Diagnosis}
		}
		out.Data = append(out.Data, e)
	}
	if len(found) == q.Limit {
		out.Next = classText(found[len(found)-1].Class)
	}
	return answer(out, err)
}

// count counts when nobody else does.
func (s *Server) count(ctx context.Context, account relay.ID, f relay.BacklogFilter) ([]relay.Backlog, error) {
	select {
	case s.counting <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.counting }()
	return s.config.Mail.Backlog(ctx, account, f)
}

// classText is a class as a cursor; the domain is last, because it may be
// anything.
func classText(c relay.Class) string {
	return fmt.Sprintf("%d.%s.%s", int8(c.Stream), c.Account, c.Domain)
}

func parseClass(s string) (c relay.Class, err error) {
	if s == "" {
		return c, nil
	}
	parts := strings.SplitN(s, ".", 3)
	if len(parts) < 3 {
		return c, fmt.Errorf("%q is no cursor of this list", cut(s))
	}
	stream, err := strconv.ParseInt(parts[0], 10, 8)
	if err == nil {
		c.Account, err = relay.ParseID(parts[1])
	}
	if err != nil {
		return c, fmt.Errorf("%q is no cursor of this list", cut(s))
	}
	c.Stream, c.Domain = relay.Stream(stream), parts[2]
	return c, nil
}
