package deliver

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/sink"
	"postrider/internal/smtp"
	"postrider/internal/smtpclient"
	"postrider/internal/suppression"
)

func notify(n relay.Notify) func(*queue.Item) {
	return func(it *queue.Item) { it.Delivery.Recipient.Notify = n }
}

func from(sender string) func(*queue.Item) {
	return func(it *queue.Item) { it.Message.Envelope.Sender = sender }
}

func expires(in time.Duration) func(*queue.Item) {
	return func(it *queue.Item) { it.Delivery.Expires = time.Now().Add(in) }
}

// waited is a message that was received some time ago.
func waited(d time.Duration) func(*queue.Item) {
	return func(it *queue.Item) { it.Message.Received = time.Now().Add(-d) }
}

func delayed(it *queue.Item) { it.Delivery.Delayed = true }

func eightBit(it *queue.Item) { it.Message.EightBit = true }

func utf8(it *queue.Item) { it.Message.Envelope.UTF8 = true }

func utf8Header(it *queue.Item) { it.Message.UTF8Header = true }

func requireTLS(it *queue.Item) { it.Message.Envelope.RequireTLS = true }

func stream(s relay.Stream) func(*queue.Item) {
	return func(it *queue.Item) { it.Message.Stream, it.Delivery.Stream = s, s }
}

func account(n byte) func(*queue.Item) {
	return func(it *queue.Item) { it.Message.Account, it.Delivery.Account = relay.ID{n}, relay.ID{n} }
}

func TestDelivered(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").run()
	s := r.sink("127.0.1.1", sink.Config{})
	it := r.item("b@receiver.test", plain)
	o := r.try(it)
	if o.Kind != relay.EventDelivered || o.Reply.Code != 250 || o.Host != "mx.receiver.test" || o.Delivery != it.Delivery.ID || o.Account != it.Delivery.Account || o.Notice != 0 {
		t.Errorf("outcome %+v", o)
	}
	a := o.Attempt
	if a == nil || a.Reused || a.Stage != smtpclient.StageDot || a.Source.String() != "127.0.0.1" || a.Helo != "relay.test" ||
		len(a.Hosts) != 1 || a.Hosts[0].Addr.Addr().String() != "127.0.1.1" || a.Ended.Before(a.Started) {
		t.Errorf("attempt %+v", a)
	}
	if a.TLS == nil || a.TLS.Verified || a.TLS.Problem == "" || a.TLS.Version != "TLS1.3" {
		t.Errorf("a certificate that nobody vouches for: TLS %+v, want it used and not verified", a.TLS)
	}
	var said []string
	for _, x := range a.Dialogue {
		verb, _, _ := strings.Cut(x.Command, " ")
		said = append(said, verb)
	}
	if got, want := strings.Join(said, " "), " EHLO STARTTLS EHLO MAIL RCPT DATA (content,"; got != want {
		t.Errorf("dialogue %q, want %q", got, want)
	}
	m := s.Messages()
	if len(m) != 1 || string(m[0].Content) != plain || m[0].From != "sender@sender.test" {
		t.Errorf("the receiver has %+v", m)
	}
	again := r.try(r.item("c@receiver.test", plain))
	if !again.Attempt.Reused || s.Stats().Connections != 1 {
		t.Errorf("second message: reused %v, %d connections; want one kept connection", again.Attempt.Reused, s.Stats().Connections)
	}
	if again.Attempt.Dialogue[0].Command == "" {
		t.Error("the second message has the first one's opening in its dialogue")
	}
}

// TestReplies plays the receiver simulator's behaviours.
func TestReplies(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.config.Timeouts.Dot = 4 * time.Second // waited for once
	r.config.Suppress = suppression.Rule{Hard: true, Soft: relay.SoftRule{Failures: 5, Within: time.Hour}}
	r.run()
	r.sink("127.0.1.1", sink.Config{})
	for _, tt := range []struct {
		local   string
		changes []func(*queue.Item)
		kind    relay.Kind
		code    int
		stage   string
		unknown bool
		notice  relay.Notify
	}{
		{local: "tempfail", kind: relay.EventDeferred, code: 451, stage: "rcpt"},
		{local: "tempfail-data", kind: relay.EventDeferred, code: 451, stage: "data"},
		{local: "tempfail-dot", kind: relay.EventDeferred, code: 451, stage: "dot"},
		{local: "shutdown", kind: relay.EventDeferred, code: 421, stage: "rcpt"},
		{local: "shutdown-dot", kind: relay.EventDeferred, code: 421, stage: "dot"},
		{local: "drop", kind: relay.EventDeferred, stage: "rcpt"},
		{local: "drop-data", kind: relay.EventDeferred, stage: "data"},
		{local: "drop-dot", kind: relay.EventDeferred, stage: "dot", unknown: true},
		{local: "silent-dot", kind: relay.EventDeferred, stage: "dot", unknown: true},
		{local: "garbage", kind: relay.EventDeferred, stage: "rcpt"},
		{local: "bounce", kind: relay.EventBounced, code: 550, stage: "rcpt", notice: relay.NotifyFailure},
		{local: "spam", kind: relay.EventBounced, code: 550, stage: "dot", notice: relay.NotifyFailure},
		{local: "bounce", changes: []func(*queue.Item){from("")}, kind: relay.EventBounced, code: 550, stage: "rcpt"},
		{local: "bounce", changes: []func(*queue.Item){notify(relay.NotifyNever)}, kind: relay.EventBounced, code: 550, stage: "rcpt"},
		{local: "bounce", changes: []func(*queue.Item){notify(relay.NotifySuccess)}, kind: relay.EventBounced, code: 550, stage: "rcpt"},
		{local: "tempfail", changes: []func(*queue.Item){waited(5 * time.Hour)}, kind: relay.EventDeferred, code: 451, stage: "rcpt", notice: relay.NotifyDelay},
		{local: "tempfail", changes: []func(*queue.Item){waited(5 * time.Hour), delayed}, kind: relay.EventDeferred, code: 451, stage: "rcpt"},
		{local: "tempfail", changes: []func(*queue.Item){waited(5 * time.Hour), from("")}, kind: relay.EventDeferred, code: 451, stage: "rcpt"},
		{local: "tempfail", changes: []func(*queue.Item){waited(5 * time.Hour), notify(relay.NotifyFailure)}, kind: relay.EventDeferred, code: 451, stage: "rcpt"},
		{local: "tempfail", changes: []func(*queue.Item){waited(5 * time.Hour), func(it *queue.Item) { it.Message.Envelope.Release = time.Now() }},
			kind: relay.EventDeferred, code: 451, stage: "rcpt"},
		{local: "tempfail", changes: []func(*queue.Item){expires(30 * time.Second)}, kind: relay.EventExpired, code: 451, stage: "rcpt", notice: relay.NotifyFailure},
		{local: "ok", changes: []func(*queue.Item){notify(relay.NotifySuccess)}, kind: relay.EventDelivered, code: 250, stage: "dot"},
	} {
		content := plain
		if tt.local == "drop-data" {
			content += strings.Repeat("more text\r\n", 500_000) // more than the sockets take by themselves
		}
		o := r.try(r.item(tt.local+"@receiver.test", content, tt.changes...))
		a := o.Attempt
		if o.Kind != tt.kind || o.Reply.Code != tt.code || a.Stage != tt.stage || a.Unknown != tt.unknown || o.Notice != tt.notice {
			t.Errorf("%s: %s %s at %s, unknown %v, notice %v; want %s %d at %s, unknown %v, notice %v", tt.local,
				o.Kind, o.Reply, a.Stage, a.Unknown, o.Notice, tt.kind, tt.code, tt.stage, tt.unknown, tt.notice)
		}
		if wait := o.Due.Sub(o.At); o.Kind == relay.EventDeferred && (wait < 53*time.Second || wait > 67*time.Second) {
			t.Errorf("%s: next attempt after %v, want about a minute", tt.local, wait)
		}
		if o.Notice != 0 && !o.NoticeDue.Equal(o.At.Add(10*time.Second)) {
			t.Errorf("%s: notice due after %v, want 10s", tt.local, o.NoticeDue.Sub(o.At))
		}
		dead, soft := o.Kind == relay.EventBounced && tt.local == "bounce", o.Kind == relay.EventExpired
		if (o.Suppress == relay.ReasonBounce) != dead || (o.Soft.Failures == 5) != soft || dead && o.Address != "bounce@receiver.test" {
			t.Errorf("%s: %s: suppress %q for %q, soft %d", tt.local, o.Kind, o.Suppress, o.Address, o.Soft.Failures)
		}
		if o.Kind != relay.EventDelivered && o.Diagnosis.Text == "" {
			t.Errorf("%s: no diagnosis", tt.local)
		}
	}
}

func TestLaterAttemptsWaitLonger(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").run()
	r.sink("127.0.1.1", sink.Config{})
	o := r.try(r.item("tempfail@receiver.test", plain, func(it *queue.Item) { it.Delivery.Attempts = 1 }))
	if wait := o.Due.Sub(o.At); wait < 53*time.Minute || wait > 67*time.Minute {
		t.Errorf("after the second attempt the next one is due in %v, want about an hour", wait)
	}
}

// TestLesserPeers are receivers that lack an extension which the message would
// need.
func TestLesserPeers(t *testing.T) {
	const eight = "Subject: hello\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
	const utf8Subject = "Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\nHello.\r\n"
	for _, tt := range []struct {
		name     string
		without  sink.Extension
		max      int64
		to       string
		content  string
		changes  []func(*queue.Item)
		kind     relay.Kind
		enhanced string
		notice   relay.Notify
		check    func(*testing.T, *sink.Message)
	}{
		{name: "too large", max: 2000, content: plain + strings.Repeat("more text\r\n", 300), kind: relay.EventBounced, enhanced: "5.3.4", notice: relay.NotifyFailure},
		{name: "8 bits stay", content: eight, changes: []func(*queue.Item){eightBit}, kind: relay.EventDelivered, check: func(t *testing.T, m *sink.Message) {
			if string(m.Content) != eight || !strings.Contains(m.Params, "BODY=8BITMIME") {
				t.Errorf("got %q with %q", m.Content, m.Params)
			}
		}},
		{name: "8 bits converted", without: sink.EightBitMIME, content: eight, changes: []func(*queue.Item){eightBit}, kind: relay.EventDelivered,
			check: func(t *testing.T, m *sink.Message) {
				if text := string(m.Content); !ascii(text) || !strings.Contains(text, "Gr=C3=BC=C3=9Fe") || strings.Contains(m.Params, "BODY") {
					t.Errorf("got %q with %q, want it in quoted-printable", m.Content, m.Params)
				}
			}},
		{name: "8 bits in vain", without: sink.EightBitMIME | sink.SMTPUTF8, content: utf8Subject, changes: []func(*queue.Item){eightBit},
			kind: relay.EventBounced, enhanced: "5.6.3", notice: relay.NotifyFailure},
		{name: "SMTPUTF8", to: "jürgen@receiver.test", content: utf8Subject, changes: []func(*queue.Item){utf8, utf8Header}, kind: relay.EventDelivered,
			check: func(t *testing.T, m *sink.Message) {
				if !strings.Contains(m.Params, "SMTPUTF8") || m.To()[0] != "jürgen@receiver.test" {
					t.Errorf("got %q, %q", m.Params, m.To())
				}
			}},
		{name: "international header", without: sink.SMTPUTF8, content: utf8Subject, changes: []func(*queue.Item){utf8, utf8Header},
			kind: relay.EventBounced, enhanced: "5.6.9", notice: relay.NotifyFailure},
		{name: "international local part", without: sink.SMTPUTF8, to: "jürgen@receiver.test", changes: []func(*queue.Item){utf8},
			kind: relay.EventBounced, enhanced: "5.6.7", notice: relay.NotifyFailure},
		{name: "international sender", without: sink.SMTPUTF8, changes: []func(*queue.Item){utf8, from("jürgen@sender.test")},
			kind: relay.EventBounced, enhanced: "5.6.7", notice: relay.NotifyFailure},
		{name: "international domains only", without: sink.SMTPUTF8, to: "b@bücher.test", changes: []func(*queue.Item){utf8, from("a@grüße.test"),
			func(it *queue.Item) { it.Delivery.Domain = "xn--bcher-kva.test" }}, kind: relay.EventDelivered,
			check: func(t *testing.T, m *sink.Message) {
				if m.From != "a@xn--gre-6ka8l.test" || m.To()[0] != "b@xn--bcher-kva.test" || strings.Contains(m.Params, "UTF8") {
					t.Errorf("from %q to %q with %q, want A-labels", m.From, m.To(), m.Params)
				}
			}},
		{name: "DSN", changes: []func(*queue.Item){notify(relay.NotifySuccess | relay.NotifyDelay), func(it *queue.Item) {
			it.Message.Envelope.Ret, it.Message.Envelope.EnvID, it.Delivery.Recipient.ORcpt = "HDRS", "a+b", "rfc822;b@receiver.test"
		}}, kind: relay.EventDelivered, check: func(t *testing.T, m *sink.Message) {
			if !strings.Contains(m.Params, "RET=HDRS ENVID=a+2Bb") || m.Recipients[0].Params != "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@receiver.test" {
				t.Errorf("parameters %q, %q", m.Params, m.Recipients[0].Params)
			}
		}},
		{name: "no DSN", without: sink.DSN, changes: []func(*queue.Item){notify(relay.NotifySuccess)}, kind: relay.EventDelivered, notice: relay.NotifySuccess},
		{name: "no DSN, null sender", without: sink.DSN, changes: []func(*queue.Item){notify(relay.NotifySuccess), from("")}, kind: relay.EventDelivered},
		{name: "REQUIRETLS without STARTTLS", without: sink.StartTLS, changes: []func(*queue.Item){requireTLS},
			kind: relay.EventBounced, enhanced: "5.7.30", notice: relay.NotifyFailure},
		{name: "REQUIRETLS with a bad certificate", changes: []func(*queue.Item){requireTLS}, kind: relay.EventBounced, enhanced: "5.7.30", notice: relay.NotifyFailure},
		{name: "no TLS", without: sink.StartTLS, kind: relay.EventDelivered, check: func(t *testing.T, m *sink.Message) {
			if m.TLS != "" {
				t.Errorf("TLS %s", m.TLS)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).mx("receiver.test", "127.0.1.1").mx("xn--bcher-kva.test", "127.0.1.1").run()
			s := r.sink("127.0.1.1", sink.Config{Without: tt.without, MaxSize: tt.max})
			to, content := tt.to, tt.content
			if to == "" {
				to = "b@receiver.test"
			}
			if content == "" {
				content = plain
			}
			o := r.try(r.item(to, content, tt.changes...))
			if o.Kind != tt.kind || o.Notice != tt.notice || tt.enhanced != "" && (o.Reply.Enhanced != tt.enhanced || o.Reply.Code != 0) {
				t.Errorf("%s %s, notice %v; want %s %s, notice %v", o.Kind, o.Reply, o.Notice, tt.kind, tt.enhanced, tt.notice)
			}
			if n := len(s.Messages()); tt.kind == relay.EventDelivered && n != 1 || tt.kind != relay.EventDelivered && n != 0 {
				t.Fatalf("the receiver has %d messages", n)
			}
			if tt.check != nil {
				tt.check(t, s.Messages()[0])
			}
		})
	}
}

// TestTLS is about certificates and handshakes, by route.
func TestTLS(t *testing.T) {
	ca, err := sink.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	good, err := ca.Issue(sink.Good, "mx.receiver.test")
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := ca.Issue(sink.WrongName, "mx.receiver.test")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		mode     smtpclient.TLSMode
		cert     tls.Certificate
		fault    sink.TLSFault
		strict   bool
		kind     relay.Kind
		enhanced string
		stage    string
		tls      bool
		verified bool
	}{
		{name: "good", cert: good, kind: relay.EventDelivered, tls: true, verified: true, stage: "dot"},
		{name: "wrong name", cert: wrong, kind: relay.EventDelivered, tls: true, stage: "dot"},
		{name: "handshake fails", cert: good, fault: sink.TLSOldVersion, kind: relay.EventDelivered, stage: "dot"},
		{name: "closed in the handshake", cert: good, fault: sink.TLSClosed, kind: relay.EventDelivered, stage: "dot"},
		{name: "garbage in the handshake", cert: good, fault: sink.TLSGarbage, kind: relay.EventDelivered, stage: "dot"},
		{name: "454 to STARTTLS", cert: good, fault: sink.TLSRefused, kind: relay.EventDelivered, stage: "dot"},
		{name: "required and good", mode: smtpclient.Required, cert: good, kind: relay.EventDelivered, tls: true, verified: true, stage: "dot"},
		{name: "required and wrong", mode: smtpclient.Required, cert: wrong, kind: relay.EventDeferred, enhanced: "4.7.5", stage: "starttls"},
		{name: "required and broken", mode: smtpclient.Required, cert: good, fault: sink.TLSOldVersion, kind: relay.EventDeferred, enhanced: "4.4.2", stage: "starttls"},
		{name: "required and refused", mode: smtpclient.Required, cert: good, fault: sink.TLSRefused, kind: relay.EventDeferred, enhanced: "4.7.0", stage: "starttls"},
		{name: "strict and good", strict: true, cert: good, kind: relay.EventDelivered, tls: true, verified: true, stage: "dot"},
		{name: "strict and wrong", strict: true, cert: wrong, kind: relay.EventBounced, enhanced: "5.7.30", stage: "starttls"},
		{name: "strict and old", strict: true, cert: good, fault: sink.TLSOldVersion, kind: relay.EventBounced, enhanced: "5.7.30", stage: "starttls"},
		{name: "strict and refused for now", strict: true, cert: good, fault: sink.TLSRefused, kind: relay.EventDeferred, enhanced: "4.7.0", stage: "starttls"},
		{name: "strict and cut", strict: true, cert: good, fault: sink.TLSClosed, kind: relay.EventDeferred, enhanced: "4.4.2", stage: "starttls"},
		{name: "strict on a route without TLS", mode: smtpclient.Never, strict: true, cert: good, kind: relay.EventBounced, enhanced: "5.7.30", stage: "mail"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).mx("receiver.test", "127.0.1.1")
			r.routes[0].TLS, r.routes[0].Roots = tt.mode, ca.Pool()
			r.run()
			r.sink("127.0.1.1", sink.Config{TLS: &tls.Config{Certificates: []tls.Certificate{tt.cert}}, TLSFault: tt.fault})
			o := r.try(r.item("b@receiver.test", plain, func(it *queue.Item) { it.Message.Envelope.RequireTLS = tt.strict }))
			if o.Kind != tt.kind || o.Attempt.Stage != tt.stage || tt.enhanced != "" && o.Reply.Enhanced != tt.enhanced {
				t.Errorf("%s %s at %s; want %s %s at %s", o.Kind, o.Reply, o.Attempt.Stage, tt.kind, tt.enhanced, tt.stage)
			}
			if got := o.Attempt.TLS; (got != nil) != tt.tls || got != nil && got.Verified != tt.verified {
				t.Errorf("TLS %+v; want %v, verified %v", got, tt.tls, tt.verified)
			}
			hosts := o.Attempt.Hosts
			if tt.fault == sink.TLSClosed && !tt.strict && (len(hosts) != 2 || hosts[0].Error == "" || hosts[1].Error != "") {
				t.Errorf("hosts %+v: want to see why the connection has no TLS", hosts)
			}
		})
	}
}

// TestREQUIRETLSWaitsForAHostThatIsDown: while one of the hosts might have TLS,
// the message is not given up.
func TestREQUIRETLSWaitsForAHostThatIsDown(t *testing.T) {
	for _, order := range []string{"10 20", "20 10"} {
		up, down, _ := strings.Cut(order, " ")
		r := newRig(t).zone("receiver.test. 60 IN MX "+up+" up.receiver.test.", "receiver.test. 60 IN MX "+down+" down.receiver.test.",
			"up.receiver.test. 60 IN A 127.0.1.1", "down.receiver.test. 60 IN A 127.0.1.2").run()
		r.sink("127.0.1.1", sink.Config{Without: sink.StartTLS})
		o := r.try(r.item("b@receiver.test", plain, requireTLS))
		if o.Kind != relay.EventDeferred || len(o.Attempt.Hosts) != 2 {
			t.Errorf("preferences %s: %s %s; want deferred: the other host may have TLS", order, o.Kind, o.Reply)
		}
	}
}

func TestSmartHost(t *testing.T) {
	for _, tt := range []struct {
		name, password string
		kind           relay.Kind
		stage          string
	}{
		{"right password", "right", relay.EventDelivered, "dot"},
		{"wrong password", "wrong", relay.EventDeferred, "auth"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca, err := sink.NewAuthority()
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t)
			r.routes = Routes{{Domain: "*", Host: "127.0.1.1", Port: r.port, TLS: smtpclient.Required, Roots: ca.Pool(),
				Auth: &smtpclient.Auth{User: "me", Password: tt.password}}}
			r.run()
			cert, err := ca.Issue(sink.Good, "127.0.1.1")
			if err != nil {
				t.Fatal(err)
			}
			s := r.sink("127.0.1.1", sink.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Auth: &sink.Auth{User: "me", Password: "right", Required: true}})
			o := r.try(r.item("b@nowhere.test", plain))
			if o.Kind != tt.kind || o.Attempt.Stage != tt.stage {
				t.Errorf("%s %s at %s, want %s at %s", o.Kind, o.Reply, o.Attempt.Stage, tt.kind, tt.stage)
			}
			if tt.kind == relay.EventDelivered && s.Messages()[0].User != "me" {
				t.Error("it did not log in")
			}
			if strings.Contains(o.Reply.String(), tt.password) {
				t.Errorf("the reply tells the password: %s", o.Reply)
			}
		})
	}
}

// TestOwnTrouble: what goes wrong on our side is not the receiver's fault, does
// not end the message, and is not told to the sender.
func TestOwnTrouble(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").run()
	s := r.sink("127.0.1.1", sink.Config{})
	r.try(r.item("b@receiver.test", plain))
	lost := r.item("b@receiver.test", plain)
	delete(r.kept, lost.Message.ID)
	o := r.try(lost)
	if o.Kind != relay.EventDeferred || o.Reply.Enhanced != "4.3.0" || strings.Contains(o.Reply.Text, "secret") {
		t.Errorf("content that can't be read: %s %s", o.Kind, o.Reply)
	}
	if o := r.try(r.item("b@receiver.test", plain)); o.Kind != relay.EventDelivered || !o.Attempt.Reused || s.Stats().Connections != 1 {
		t.Errorf("the next message: %s, reused %v, %d connections; want the connection unharmed", o.Kind, o.Attempt.Reused, s.Stats().Connections)
	}
}

func TestConversionWithoutRoom(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.config.Spool = r.config.Spool + "/missing"
	r.run()
	r.sink("127.0.1.1", sink.Config{Without: sink.EightBitMIME})
	long := "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + strings.Repeat("\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\r\n", 60_000)
	o := r.try(r.item("b@receiver.test", long, eightBit))
	if o.Kind != relay.EventDeferred || o.Reply.Enhanced != "4.3.0" {
		t.Errorf("no room for the conversion: %s %s; want it tried again", o.Kind, o.Reply)
	}
}

func TestStale(t *testing.T) {
	reply := func(code int) *smtp.Reply { r := smtp.NewReply(code, "", "x"); return &r }
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"none", nil, false},
		{"another kind", errors.New("x"), false},
		{"closed", &smtpclient.Error{Stage: "mail", Err: errors.New("closed")}, true},
		{"421", &smtpclient.Error{Stage: "mail", Reply: reply(421)}, true},
		{"451", &smtpclient.Error{Stage: "mail", Reply: reply(451)}, false},
		{"our refusal", &smtpclient.Error{Stage: "mail", Err: smtp.NewReply(552, "5.3.4", "x")}, false},
		{"at RCPT", &smtpclient.Error{Stage: "rcpt", Err: errors.New("closed")}, false},
		{"421 at RCPT", &smtpclient.Error{Stage: "rcpt", Reply: reply(421)}, false},
		{"unknown", &smtpclient.Error{Stage: "mail", Unknown: true, Err: errors.New("closed")}, false},
	} {
		if got := stale(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
