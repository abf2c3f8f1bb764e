package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"postrider/internal/account"
	"postrider/internal/compose"
	"postrider/internal/domain"
	"postrider/internal/relay"
)

// TestTag is the tag of test messages.
const TestTag = "postrider-test"

func (s *Server) trialRoutes() {
	Register(s, Route{Method: http.MethodPost, Path: "/v1/tests", ID: "send-test", Tag: "Messages", Right: Send, OfAccount: true, Status: http.StatusAccepted,
		Summary: "Send a test and watch it", Doc: "A test is a message like any other: it passes the same checks, limits and queue, and bears the tag postrider-test. Over a connection of its own it shows each step; the node that took it shows them as they happen. " +
			"Without from it is sent in the name of a verified domain or sender of the account. With a credential, which takes the right to manage them, it is submitted as by that.",
		Example: Example{Body: object{"to": "ann@example.net", "from": "orders@shop.example"},
			Answer: object{"id": ExampleTest, "delivery": ExampleTest + "-1", "from": "orders@shop.example", "to": "ann@example.net"}},
	}, s.sendTest)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/tests/{id}", ID: "get-test", Tag: "Messages", Right: Send, OfAccount: true,
		Summary: "What a test has come to so far", Doc: "All steps until now. Where another node made an attempt, its steps are there when it is over.",
		Example: Example{Params: object{"id": ExampleTest}, Answer: exampleTest()},
	}, s.getTest)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/tests/{id}/trace", ID: "trace-test", Tag: "Messages", Right: Send, OfAccount: true,
		Summary: "The steps of a test, as they happen", Doc: "A stream of Server-Sent Events with one step each, from the first one on. It ends with the reason final when the delivery is final. A deferral ends nothing: the step wait says when it is tried again. Close the stream, and come back, whenever you like; Last-Event-ID passes over what is known.",
		Streams: func(r huma.Registry) *huma.Schema { return r.Schema(typeOf[relay.Step](), true, "Step") },
		Example: Example{Params: object{"id": ExampleTest, "seconds": 1}, Answer: []any{object{"id": "1", "data": exampleStep()},
			object{"event": "end", "data": object{"reason": "final", "text": "Nothing more can come.", "cursor": "1"}}}},
	}, s.traceTest)
}

func exampleStep() object {
	return object{"at": ExampleTime, "stage": "accepted", "status": "good", "text": "Accepted as " + ExampleTest + " from <orders@shop.example> to <ann@example.net>."}
}

func exampleTest() object {
	return object{"id": ExampleTest, "delivery": ExampleTest + "-1", "from": "orders@shop.example", "to": "ann@example.net", "state": "delivered", "final": true, "steps": []any{exampleStep()}}
}

// NewTest is what POST /v1/tests takes.
type NewTest struct {
	To         Address `json:"to" doc:"The recipient"`
	From       Address `json:"from,omitzero" doc:"Who writes; without it an address in a verified domain, or a verified sender, of the account"`
	Credential string  `json:"credential,omitempty" maxLength:"300" doc:"Id, name or user of a credential of the account, to submit it as that"`
	Stream     string  `json:"stream,omitempty" enum:"transactional,broadcast" doc:"Kind of mail; the credential's own unless said otherwise"`
	Subject    string  `json:"subject,omitempty" maxLength:"500"`
	Text       string  `json:"text,omitempty" maxLength:"100000" doc:"Plain text"`
}

// SentTest is the answer to that.
type SentTest struct {
	ID       string `json:"id" doc:"Of the message"`
	Delivery string `json:"delivery"`
	From     string `json:"from"`
	To       string `json:"to"`
}

// Test is a test so far.
type Test struct {
	SentTest
	State string       `json:"state"`
	Final bool         `json:"final" doc:"Nothing more will be tried"`
	Next  *time.Time   `json:"next,omitempty" doc:"The next attempt"`
	Steps []relay.Step `json:"steps" nullable:"false"`
}

func (s *Server) sendTest(ctx context.Context, in *body[NewTest]) (*body[SentTest], error) {
	q := &in.Body
	if _, err := compose.Address(q.To).Check(); err != nil {
		return nil, at("body.to", &relay.Error{Code: relay.BadAddress, Text: fmt.Sprintf("%q can't be an address: %v.", cut(q.To.Email), err), Advice: "Write it as user@example.com."})
	}
	who, err := s.testSender(ctx, q)
	if err != nil {
		return nil, err
	}
	if q.From.Email == "" {
		if q.From.Email, err = s.testFrom(ctx, who); err != nil {
			return nil, err
		}
	}
	m := &NewMessage{From: q.From, To: []Address{q.To}, Subject: q.Subject, Text: q.Text, Stream: q.Stream, Tags: []string{TestTag}}
	if m.Subject == "" {
		m.Subject = "Postrider test, " + time.Now().UTC().Format("2 January 2006 15:04:05 UTC")
	}
	if m.Text == "" {
		m.Text = fmt.Sprintf("This is a test message. It was sent through %s to see whether mail arrives, and how.\n\nNobody needs to answer it.\n", s.config.Info.Hostname)
	}
	d, err := s.draft(ctx, m)
	if err != nil {
		return nil, err
	}
	if q.Credential != "" {
		d.Identity, d.Stream = who, 0
		if q.Stream != "" {
			if d.Stream, err = ownStream(who, q.Stream); err != nil {
				return nil, err
			}
		}
	}
	if d.ID, err = s.config.NewID(); err != nil {
		return nil, err
	}
	id := relay.DeliveryID{Message: d.ID, N: 1}
	s.config.Traces.Open(id) // before it is there: the attempt may be faster than the answer
	if _, err := s.config.Entrance.Submit(ctx, *d); err != nil {
		s.config.Traces.Forget(id)
		return nil, s.limited(ctx, d.Identity.Account, spoken(placed(m, d, err)))
	}
	return answer(SentTest{ID: d.ID.String(), Delivery: id.String(), From: m.From.Email, To: d.Envelope.Recipients[0].Address}, nil)
}

// testSender is as whom a test is submitted.
func (s *Server) testSender(ctx context.Context, q *NewTest) (*account.Identity, error) {
	if q.Credential == "" {
		who, _, err := submitter(ctx, "")
		return who, err
	}
	c := CallerOf(ctx)
	if !c.Rights.Has(account.Build) {
		return nil, at("body.credential", &relay.Error{Code: relay.Forbidden, Text: "To test with another credential takes a key with the " + Build.String() + ".", Advice: "Leave the credential out, or use such a key."})
	}
	who, err := s.config.Credentials.As(ctx, c.Into(), q.Credential)
	return who, at("body.credential", err)
}

// testFrom finds an address that the account may write from.
func (s *Server) testFrom(ctx context.Context, who *account.Identity) (string, error) {
	allowed := func(address string) bool {
		_, domain, _ := strings.Cut(address, "@")
		return len(who.Senders) == 0 || slices.ContainsFunc(who.Senders, func(a string) bool {
			return strings.EqualFold(a, address) || strings.EqualFold(strings.TrimPrefix(a, "@"), domain)
		})
	}
	const most = 1000
	domains, err := s.config.Domains.List(ctx, who.Account, relay.ID{}, most)
	if err != nil {
		return "", err
	}
	for _, failing := range []bool{false, true} {
		for _, d := range domains {
			if address := "postrider-test@" + d.Name; !d.Verified.IsZero() && d.Failing.IsZero() != failing && allowed(address) {
				return address, nil
			}
		}
	}
	senders, err := s.config.Senders.List(ctx, who.Account, relay.ID{}, most)
	if err != nil {
		return "", err
	}
	for _, v := range senders {
		if !v.Verified.IsZero() && allowed(v.Address) {
			return v.Address, nil
		}
	}
	return "", at("body.from", &relay.Error{Code: relay.Unverified, Text: "The account has no verified domain and no verified sender that the test could come from.",
		Advice: "Add a domain (\"postrider domain add DOMAIN\") or a sender (\"postrider sender add ADDRESS\"), or name an address with from (\"-from\")."})
}

type testQuery struct {
	ID string `path:"id" doc:"Id of the test"`
}

func (s *Server) getTest(ctx context.Context, q *testQuery) (*body[Test], error) {
	t, err := s.openTest(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	err = t.look(ctx)
	out := Test{SentTest: SentTest{ID: t.story.Message.ID.String(), Delivery: t.id.String(), From: t.story.Message.From, To: t.delivery().Recipient.Address},
		State: t.delivery().State.String(), Final: t.final(), Steps: t.steps}
	if !out.Final && t.delivery().State != relay.Held {
		out.Next = moment(t.delivery().Due)
	}
	return answer(out, err)
}

type traceQuery struct {
	ID          string `path:"id" doc:"Id of the test"`
	Seconds     int    `query:"seconds" minimum:"0" maximum:"86400" doc:"End after so many seconds; 0: do not"`
	LastEventID string `header:"Last-Event-ID" maxLength:"200" doc:"As EventSource sends it when it comes back"`
}

func (s *Server) traceTest(ctx context.Context, q *traceQuery) (*huma.StreamResponse, error) {
	t, err := s.openTest(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	give, err := s.config.Live.Take(CallerOf(ctx).Account)
	if err != nil {
		return nil, err
	}
	t.last = q.LastEventID
	cursor := ""
	run := func(ctx context.Context, out *output) error {
		beat := time.Now()
		for told := 0; ; {
			_, news := s.config.Traces.Steps(t.id) // before the look: what comes after it is news
			if err := t.look(ctx); err != nil {
				return err
			}
			told = max(told, t.known())
			for ; told < len(t.steps); told++ {
				cursor = t.cursor(told)
				if err := out.send("", cursor, t.steps[told]); err != nil {
					return writeError{err}
				}
				beat = time.Now()
			}
			if t.final() {
				return errFinal
			}
			if time.Since(beat) > s.pace.beat {
				if err := out.beat(cursor); err != nil {
					return writeError{err}
				}
				beat = time.Now()
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-news:
			case <-time.After(time.Second): // other nodes may have made an attempt
			}
		}
	}
	return s.stream(Send, time.Duration(q.Seconds)*time.Second, run, func() string { return cursor }, give), nil
}

// trial is a test that somebody looks at.
type trial struct {
	s       *Server
	account relay.ID
	id      relay.DeliveryID
	last    string // Last-Event-ID
	checks  []relay.Step

	story *relay.Story
	steps []relay.Step
	marks []string // of each step, so that it is known again by other nodes too
}

// openTest finds a test of the caller's account.
func (s *Server) openTest(ctx context.Context, which string) (*trial, error) {
	id, err := messageID(which)
	if err != nil {
		return nil, err
	}
	t := &trial{s: s, account: CallerOf(ctx).Account, id: relay.DeliveryID{Message: id, N: 1}}
	if t.story, err = s.config.Mail.Story(ctx, t.account, id); err != nil {
		return nil, at("path.id", err)
	}
	if !slices.Contains(t.story.Message.Tags, TestTag) {
		// A key that only sends is not to read the log by this.
		return nil, at("path.id", &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("Message %s is no test.", id), Advice: "\"postrider message ID\" tells of any message."})
	}
	if len(t.story.Deliveries) == 0 {
		return nil, at("path.id", dropped(id))
	}
	t.checks, err = s.checks(ctx, t.story)
	return t, err
}

// dropped says that a message is gone whose parts were read one after the other.
func dropped(id relay.ID) error {
	return &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no message %s any more.", id), Advice: "[retention] says for how long messages are kept."}
}

func (t *trial) delivery() *relay.Delivery { return t.story.Deliveries[0] }

func (t *trial) final() bool { return t.delivery().State.Final() }

// cursor names a step.
func (t *trial) cursor(i int) string { return t.marks[i] }

// known is how many steps the client has.
func (t *trial) known() int {
	if t.last == "" {
		return 0
	}
	return slices.Index(t.marks, t.last) + 1
}

// read reads the story. Its parts are read one after the other: where the events
// know more than the delivery it is read once more.
func (t *trial) read(ctx context.Context) (err error) {
	for range 3 {
		if t.story, err = t.s.config.Mail.Story(ctx, t.account, t.id.Message); err != nil {
			return err
		}
		if len(t.story.Deliveries) == 0 {
			return dropped(t.id.Message)
		}
		state := relay.Queued
		for _, e := range t.story.Events {
			if !e.Kind.Stays() {
				state = e.Kind.State()
			}
		}
		if state == t.delivery().State {
			break
		}
	}
	return nil
}

// look puts together what is known now: the steps that this node made, and what
// the events tell of those that others made. Steps that were there stay where they
// are.
func (t *trial) look(ctx context.Context) (err error) {
	if err = t.read(ctx); err != nil {
		return err
	}
	kept, _ := t.s.config.Traces.Steps(t.id) // after the events: an attempt whose event is there has all its steps
	live := map[int][]relay.Step{}
	for _, step := range kept {
		live[step.Attempt] = append(live[step.Attempt], step)
	}
	t.steps, t.marks = nil, nil
	add := func(mark string, steps ...relay.Step) {
		for i, step := range steps {
			t.steps, t.marks = append(t.steps, step), append(t.marks, fmt.Sprintf("%s-%d", mark, i))
		}
	}
	n := 0
	for _, e := range t.story.Events {
		switch {
		case e.Kind == relay.EventAccepted:
			add("a", accepted(t.story, e)...)
			add("c", t.checks...)
			continue
		case e.Attempt == nil:
		default:
			n++
			mine := live[n]
			if mine == nil {
				mine = retold(e.Attempt, n)
			}
			add(fmt.Sprintf("s%d", n), mine...)
		}
		add(e.ID.String(), outcome(e, n))
		if e.Kind == relay.EventDeferred {
			wait := relay.Step{At: e.At, Attempt: n, Stage: relay.StepWait, Text: "It is tried again later."}
			if d := t.delivery(); d.State == relay.Deferred && e == t.story.Events[len(t.story.Events)-1] {
				wait.Next, wait.Text = d.Due, "It is tried again at "+d.Due.UTC().Format("15:04:05 UTC on 2 January")+"."
			}
			add(e.ID.String()+"-w", wait)
		}
	}
	if !t.final() {
		add(fmt.Sprintf("s%d", n+1), live[n+1]...)
	}
	return nil
}

// checks are what policy and the domain's records say of the sender.
func (s *Server) checks(ctx context.Context, story *relay.Story) (steps []relay.Step, err error) {
	m := story.Message
	say := func(status relay.Verdict, text, advice string) {
		steps = append(steps, relay.Step{At: m.Received, Stage: relay.StepCheck, Status: status, Text: text, Advice: advice})
	}
	_, name, _ := strings.Cut(m.From, "@")
	d, err := s.domainOf(ctx, m.Account, name)
	if err != nil {
		return nil, err
	}
	switch {
	case d == nil:
		say(relay.Warning, fmt.Sprintf("%s is no domain of the account: the message is not signed for it, and its DMARC policy fails.", name), fmt.Sprintf("Add it: \"postrider domain add %s\".", name))
		return steps, nil
	case d.Verified.IsZero():
		say(relay.Warning, fmt.Sprintf("%s is a domain of the account that is not verified.", d.Name), fmt.Sprintf("Publish its records: \"postrider domain records %s\".", d.Name))
	default:
		say(relay.Good, fmt.Sprintf("%s is a verified domain of the account.", d.Name), "")
	}
	for _, f := range d.Findings {
		text := strings.TrimSpace(f.Text)
		if f.Name != "" {
			text = f.Name + ": " + text
		}
		say(f.Status, f.Check+", "+text, f.Advice)
	}
	return steps, nil
}

// domainOf is the account's domain that a name is or is below; nil: there is none.
func (s *Server) domainOf(ctx context.Context, account relay.ID, name string) (*relay.Domain, error) {
	for name, err := domain.Name(name); err == nil && strings.Contains(name, "."); {
		d, err := s.config.Domains.Find(ctx, account, name)
		if err == nil || relay.CodeOf(err) != relay.NotFound {
			return d, err
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return nil, nil
}

// accepted tells that the message was taken, and with which warnings.
func accepted(story *relay.Story, e *relay.Event) []relay.Step {
	m := story.Message
	steps := []relay.Step{{At: e.At, Stage: relay.StepAccepted, Status: relay.Good,
		Text: fmt.Sprintf("Accepted as %s from <%s> to <%s>, %d bytes, %s.", m.ID, m.Envelope.Sender, e.Recipient, m.Size, m.Stream)}}
	if e.Diagnosis.Text != "" {
		steps = append(steps, relay.Step{At: e.At, Stage: relay.StepCheck, Status: relay.Warning, Text: e.Diagnosis.Text, Advice: e.Diagnosis.Advice})
	}
	return steps
}

// outcome tells what an event means.
func outcome(e *relay.Event, attempt int) relay.Step {
	s := relay.Step{At: e.At, Attempt: attempt, Stage: relay.StepOutcome, State: e.Kind.State().String(), Text: e.Diagnosis.Text, Advice: e.Diagnosis.Advice}
	if e.Reply != (relay.Reply{}) {
		s.Reply = &e.Reply
	}
	if e.Kind.Stays() {
		s.State = ""
	}
	switch e.Kind {
	case relay.EventDelivered:
		s.Status, s.Text = relay.Good, "The receiver has taken the message. Whether it is shown in the inbox is the receiver's affair: look there, and at the spam folder."
	case relay.EventDeferred:
		s.Status = relay.Warning
	case relay.EventBounced, relay.EventExpired, relay.EventCancelled, relay.EventComplained:
		s.Status = relay.Bad
	case relay.EventHeld:
		s.Status, s.Text = relay.Warning, "Somebody holds the delivery."
	case relay.EventReleased:
		s.Text = "Somebody wants it to be tried at once."
	}
	if s.Text == "" {
		s.Text = "Event: " + e.Kind.String() + "."
	}
	return s
}

// retold are the steps of an attempt that this node did not make, or that it has
// forgotten.
func retold(a *relay.Attempt, n int) (steps []relay.Step) {
	add := func(s relay.Step) {
		s.Attempt = n
		steps = append(steps, s)
	}
	for _, h := range a.Hosts {
		s := relay.Step{At: a.Started, Stage: relay.StepConnect, Status: relay.Good, Host: h.Name, Addr: h.Addr, Source: a.Source, Text: "The connection is there."}
		if h.Error != "" {
			s.Status, s.Text, s.Source = relay.Bad, h.Error, a.Source
		}
		add(s)
	}
	if a.Policy != "" {
		add(relay.Step{At: a.Started, Stage: relay.StepPolicy, Text: "The receiver asks for TLS: " + a.Policy + "."})
	}
	if a.TLS != nil {
		s := relay.Step{At: a.Started, Stage: relay.StepTLS, Status: relay.Good, TLS: a.TLS, Text: "The certificate verifies."}
		if !a.TLS.Verified {
			s.Status, s.Text = relay.Warning, "The certificate does not verify: "+a.TLS.Problem+"."
		}
		add(s)
	}
	for _, x := range a.Dialogue {
		if x.Command != "" {
			add(relay.Step{At: a.Started, Stage: relay.StepCommand, Command: x.Command})
		}
		if r := x.Reply; r.Code != 0 {
			s := relay.Step{At: a.Ended, Stage: relay.StepReply, Reply: &r}
			if r.Code >= 400 {
				s.Status = relay.Bad
			}
			add(s)
		}
	}
	return steps
}
