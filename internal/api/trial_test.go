package api_test

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/relay"
)

// step waits for the next step of a trace.
func (s *served) step(from *source) relay.Step {
	s.Helper()
	e, ok := from.next()
	var step relay.Step
	if !ok || e.Event != "" || json.Unmarshal(e.Data, &step) != nil {
		s.Fatalf("want a step, got %q %s", e.Event, e.Data)
	}
	return step
}

// stages are those of a whole trace.
func (s *served) stages(from *source) (all []string, steps []relay.Step) {
	s.Helper()
	for {
		e, ok := from.next()
		if !ok {
			s.Fatal("the trace breaks off")
		}
		if e.Event == "end" {
			return all, steps
		}
		var step relay.Step
		if err := json.Unmarshal(e.Data, &step); err != nil {
			s.Fatal(err)
		}
		if n := len(all); n == 0 || all[n-1] != string(step.Stage) {
			all = append(all, string(step.Stage))
		}
		steps = append(steps, step)
	}
}

// slow is a receiver that goes on only when it is told.
type slow struct {
	*testing.T
	ln   net.Listener
	said chan string // what came
	say  chan string // what to answer
}

func newSlow(t *testing.T) *slow {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &slow{t, ln, make(chan string, 100), make(chan string)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.session(conn)
		}
	}()
	t.Cleanup(func() { ln.Close(); close(s.say); <-ended })
	return s
}

func (s *slow) session(conn net.Conn) {
	defer conn.Close()
	b := make([]byte, 4096)
	for answer := range s.say {
		if _, err := conn.Write([]byte(answer + "\r\n")); err != nil || strings.HasPrefix(answer, "221") {
			return
		}
		n, err := conn.Read(b)
		if err != nil {
			return
		}
		s.said <- string(b[:n])
	}
}

// Each step of a test is there when it has happened, while the next has not.
func TestTestIsLive(t *testing.T) {
	to := newSlow(t)
	s := serve(t, func(c *config.Config) {
		c.Route = []config.Route{{Domain: "*", To: to.ln.Addr().String(), TLS: "none"}}
	})
	key := s.key(object{"name": "k", "scopes": []string{"send"}}, "")
	var sent api.SentTest
	s.decode(s.ask(key, "POST", "/v1/tests", object{"to": "ann@example.net", "from": "me@shop.example"}), &sent)
	trace, _ := s.open(key, "/v1/tests/"+sent.ID+"/trace", "")
	until := func(stage relay.Stage, want string) relay.Step {
		t.Helper()
		for {
			step := s.step(trace)
			if step.Stage == stage && (strings.Contains(step.Command, want) && want != "" || step.Reply != nil && strings.Contains(step.Reply.String(), want) || strings.Contains(step.Text, want) && step.Reply == nil && step.Command == "") {
				return step
			}
		}
	}
	until(relay.StepAccepted, sent.ID)
	if step := until(relay.StepConnect, "is there"); step.Addr.String() != to.ln.Addr().String() || !step.Source.IsValid() || step.Attempt != 1 {
		t.Errorf("connection %+v", step)
	}
	for _, turn := range [][2]string{{"220 slow.test", "EHLO"}, {"250 slow.test", "MAIL FROM"}, {"250 ok", "RCPT TO"}} {
		to.say <- turn[0]
		until(relay.StepReply, turn[0][4:])
		until(relay.StepCommand, turn[1]) // and no more comes before the receiver answers
		<-to.said
	}
	var now api.Test
	s.decode(s.ask(key, "GET", "/v1/tests/"+sent.ID, nil), &now)
	if now.Final || len(now.Steps) < 8 || now.Steps[len(now.Steps)-1].Stage != relay.StepCommand {
		t.Errorf("so far: %+v", now)
	}
	to.say <- "451 4.7.1 Greylisted"
	if step := until(relay.StepOutcome, ""); step.State != "deferred" || step.Status != relay.Warning || step.Text == "" {
		t.Errorf("outcome %+v", step)
	}
	wait := until(relay.StepWait, "tried again")
	if time.Until(wait.Next) < time.Minute {
		t.Errorf("wait %+v", wait)
	}
	to.say <- "221 bye" // to QUIT
	// The next attempt, by order, is shown too.
	if err := s.API.Post(t.Context(), "/v1/deliveries/"+sent.Delivery+"/retry", nil, nil); err != nil {
		t.Fatal(err)
	}
	if step := until(relay.StepConnect, "is there"); step.Attempt != 2 {
		t.Errorf("second attempt: %+v", step)
	}
	to.say <- "550 5.7.1 Go away"
	// A client that comes back knows the steps that it has seen.
	again, _ := s.open(key, "/v1/tests/"+sent.ID+"/trace", trace.last)
	if step := s.step(again); step.Attempt != 2 {
		t.Errorf("after its return: %+v", step)
	}
}

// A test goes the way of all mail, and its trace ends with it.
func TestTest(t *testing.T) {
	s := serve(t, nil)
	key := s.key(object{"name": "k", "scopes": []string{"send", "read"}}, "")
	a := s.ask(key, "POST", "/v1/tests", object{"to": "ann@example.net"})
	if p := a.problem(); a.status != http.StatusForbidden || p.Advice == "" || p.Errors[0].Location != "body.from" {
		t.Errorf("nobody to send it from: %d %s", a.status, a.body)
	}
	var sent api.SentTest
	s.decode(s.ask(key, "POST", "/v1/tests", object{"to": "ann@example.net", "from": "me@shop.example", "subject": "Try", "text": "x"}), &sent)
	trace, _ := s.open(key, "/v1/tests/"+sent.ID+"/trace", "")
	stages, steps := s.stages(trace)
	want := []string{"accepted", "check", "dns", "policy", "connect", "reply", "command", "reply", "command", "reply"}
	if !slices.Equal(stages[:len(want)], want) || stages[len(stages)-1] != "outcome" || !slices.Contains(stages, "signature") || !slices.Contains(stages, "tls") {
		t.Errorf("stages %v", stages)
	}
	if last := steps[len(steps)-1]; last.State != "delivered" || last.Status != relay.Good {
		t.Errorf("the last step: %+v", last)
	}
	var m api.Story
	s.decode(s.ask(key, "GET", "/v1/messages/"+sent.ID, nil), &m)
	if m.Subject != "Try" || !slices.Contains(m.Tags, api.TestTag) || !strings.Contains(m.HeaderID, sent.ID) {
		t.Errorf("message %+v", m)
	}
	// Without what this node keeps, the events tell the same.
	var once, retold api.Test
	s.decode(s.ask(key, "GET", "/v1/tests/"+sent.ID, nil), &once)
	if len(once.Steps) != len(steps) || !once.Final {
		t.Errorf("%d steps at once, %d as they came", len(once.Steps), len(steps))
	}
	s.Traces().Forget(relay.DeliveryID{Message: id(sent.ID), N: 1})
	s.decode(s.ask(key, "GET", "/v1/tests/"+sent.ID, nil), &retold)
	count := func(t api.Test, stage relay.Stage) (n int) {
		for _, s := range t.Steps {
			if s.Stage == stage {
				n++
			}
		}
		return n
	}
	for _, stage := range []relay.Stage{relay.StepTLS, relay.StepReply, relay.StepCommand, relay.StepOutcome} {
		if count(once, stage) != count(retold, stage) || count(retold, stage) == 0 {
			t.Errorf("%s: %d steps as they came, %d from the events", stage, count(once, stage), count(retold, stage))
		}
	}
	// Other mail is not shown to who may only send.
	other := s.send(key, nil)
	if a := s.ask(key, "GET", "/v1/tests/"+other, nil); a.status != http.StatusNotFound {
		t.Errorf("a message that is no test: %d %s", a.status, a.body)
	}
	if a := s.ask(key, "POST", "/v1/tests", object{"to": "ann@example.net", "from": "me@shop.example", "credential": "k"}); a.status != http.StatusForbidden {
		t.Errorf("as another credential: %d %s", a.status, a.body)
	}
	if err := s.API.Post(t.Context(), "/v1/credentials", object{"kind": "smtp", "name": "bulk", "stream": "broadcast"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.API.Post(t.Context(), "/v1/tests", object{"to": "ann@example.net", "from": "me@shop.example", "credential": "bulk"}, &sent); err != nil {
		t.Fatal(err)
	}
	s.decode(s.ask(key, "GET", "/v1/messages/"+sent.ID, nil), &m)
	if m.App != "bulk" || m.Stream != "broadcast" {
		t.Errorf("as a credential: %+v", m)
	}
}
