package storetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

var putTests = []test{
	{"whole", func(f *fixture) {
		s := full(f.me)
		f.put(f.lease, s)
		f.reopen()
		got := f.story(s.Message.ID)
		f.equal("message", got.Message, s.Message)
		f.equal("deliveries", got.Deliveries, s.Deliveries)
		if b := f.content(s.Message.ID); !bytes.Equal(b, s.Content.(memory)) {
			f.Errorf("content is %q", b)
		}
		var events []*relay.Event
		for i, d := range s.Deliveries {
			events = append(events, &relay.Event{ID: got.Events[i].ID, At: noon, Account: f.me, Delivery: d.ID, Kind: relay.EventAccepted,
				Sender: s.Message.Envelope.Sender, Subject: s.Message.Subject, HeaderID: s.Message.HeaderID, Recipient: d.Recipient.Address})
		}
		f.equal("events", got.Events, events)
	}},
	{"cancelled", func(f *fixture) {
		why := relay.Diagnosis{Category: "suppressed", Text: "It is suppressed.", Advice: "Take it off the list."}
		warning := relay.Diagnosis{Category: "warning/dns", Text: "A record is missing."}
		some, all, kept := f.message("a@example.net", "b@example.net"), f.message("a@example.net"), f.message("a@example.net")
		some.Warning, kept.Message.Archive = warning, true
		for _, d := range []*relay.Delivery{some.Deliveries[1], all.Deliveries[0], kept.Deliveries[0]} {
			d.State, d.Diagnosis = relay.Cancelled, why
		}
		f.put(f.lease, some, all, kept)
		story := f.story(some.Message.ID)
		if d := story.Deliveries; d[0].State != relay.Queued || d[1].State != relay.Cancelled || d[1].Diagnosis != why || d[0].Diagnosis != (relay.Diagnosis{}) {
			f.Errorf("deliveries %+v %+v", d[0], d[1])
		}
		var told []string
		for _, e := range story.Events {
			told = append(told, e.Kind.String()+" "+e.Diagnosis.Category)
		}
		f.equal("events", told, []string{"accepted warning/dns", "accepted warning/dns", "cancelled suppressed"})
		for _, s := range []*relay.Submission{some, all, kept} {
			if c := f.content(s.Message.ID); (c == nil) != (s == all) {
				f.Errorf("content %q of %v", c, s.Message.ID)
			}
		}
		counts, err := f.db.Outcomes(f.Context(), f.me, noon, noon)
		if err != nil || len(counts) != 1 || counts[0].N != 3 || counts[0].Kind != relay.EventCancelled {
			f.Errorf("outcomes %+v, %v", counts, err)
		}
		o := relay.Outcome{Delivery: some.Deliveries[1].ID, Account: f.me, Kind: relay.EventReleased, At: noon.Add(time.Second), Due: noon.Add(time.Second)}
		if err := f.db.Settle(f.Context(), 0, []relay.Outcome{o})[0]; !errors.Is(err, store.ErrSettled) {
			f.Errorf("released: %v", err)
		}
	}},
	{"content", func(f *fixture) {
		for _, size := range []int{0, 1, 262143, 262144, 262145, 524288, 3<<20 + 7} {
			want := make([]byte, size)
			rand.NewChaCha8([32]byte{byte(size)}).Read(want)
			for _, c := range []relay.Content{memory(want), stream{int64(size), func() (io.ReadCloser, error) {
				return io.NopCloser(oneByOne{bytes.NewReader(want)}), nil
			}}} {
				s := f.message("a@example.net")
				s.Content, s.Message.Size = c, int64(size)
				f.put(f.lease, s)
				if got := f.content(s.Message.ID); got == nil || !bytes.Equal(got, want) {
					f.Errorf("%T of %d bytes: got %d bytes back, differing", c, size, len(got))
				}
			}
		}
	}},
	{"one at fault", func(f *fixture) {
		unreadable := errors.New("unreadable")
		bad := []func(s, other *relay.Submission){
			func(s, other *relay.Submission) {
				s.Message.ID, s.Deliveries[0].ID.Message = other.Message.ID, other.Message.ID
			},
			func(s, _ *relay.Submission) {
				s.Content = stream{3, func() (io.ReadCloser, error) { return nil, unreadable }}
			},
			func(s, _ *relay.Submission) {
				s.Content = stream{3, func() (io.ReadCloser, error) { return io.NopCloser(failing{unreadable}), nil }}
			},
			func(s, _ *relay.Submission) {
				s.Content = stream{3, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("long")), nil }}
			},
			func(s, _ *relay.Submission) {
				s.Content = stream{5, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("long")), nil }}
			},
			func(s, _ *relay.Submission) { s.Content = misjudged{memory("long")} },
			func(s, _ *relay.Submission) { s.Deliveries[0].State = relay.Delivered },
			func(s, _ *relay.Submission) { s.Deliveries[0].Account = relay.Everyone },
			func(s, _ *relay.Submission) { s.Deliveries = append(s.Deliveries, s.Deliveries[0]) },
			func(s, _ *relay.Submission) { s.Deliveries = nil },
		}
		for i, spoil := range bad {
			batch := []*relay.Submission{f.message("a@example.net"), f.message("b@example.net"), f.message("c@example.net")}
			spoil(batch[1], batch[0])
			errs := f.db.Put(f.Context(), f.lease, batch)
			if errs[0] != nil || errs[1] == nil || errs[2] != nil {
				f.Errorf("fault %d: errors are %v", i, errs)
			}
			for _, s := range []*relay.Submission{batch[0], batch[2]} {
				if n := len(f.story(s.Message.ID).Events); n != 1 {
					f.Errorf("fault %d: a good message has %d events", i, n)
				}
			}
			if batch[1].Message.ID == batch[0].Message.ID {
				continue
			}
			if _, err := f.db.Story(f.Context(), f.me, batch[1].Message.ID); relay.CodeOf(err) != relay.NotFound {
				f.Errorf("fault %d: the bad message: %v", i, err)
			}
			if f.content(batch[1].Message.ID) != nil {
				f.Errorf("fault %d: the bad message has content", i)
			}
		}
	}},
	{"leases what is ready", func(f *fixture) {
		s := f.message("ready@x.test", "later@x.test", "held@x.test", "past@x.test", "never@x.test")
		d := s.Deliveries
		d[1].Due = noon.Add(time.Microsecond)
		d[2].State = relay.Held
		d[3].Due = noon.Add(-time.Hour)
		d[4].Due = time.Time{}
		f.put(f.lease, s)
		got := f.claim(noon.Add(time.Hour), 10)
		if len(got) != 1 || got[0].Delivery.ID.N != 2 {
			f.Errorf("claimed %d, want the second alone", len(got))
		}
		s = f.message("ready@x.test")
		s.InHand = false
		f.put(f.lease, s)
		if got := f.claim(noon, 10); len(got) != 1 {
			f.Errorf("put, but not in hand, then claimed %d, want it", len(got))
		}
		s = f.message("ready@x.test", "held@x.test")
		s.Deliveries[1].State = relay.Held
		f.put(0, s)
		if got := f.claim(noon, 10); len(got) != 1 || got[0].Delivery.ID.N != 1 {
			f.Errorf("put without a lease, then claimed %d, want the first alone", len(got))
		}
	}},
	{"only under a lease that lasts", func(f *fixture) {
		if f.engine.Single {
			return // nobody ends it
		}
		lease := f.another()
		f.put(lease, f.message("a@x.test"))
		if err := f.db.Leave(f.Context(), lease); err != nil {
			f.Fatal(err)
		}
		batch := []*relay.Submission{f.message("b@x.test"), f.message("c@x.test")}
		for i, err := range f.db.Put(f.Context(), lease, batch) {
			if !errors.Is(err, store.ErrLeaseLost) || relay.CodeOf(err) != relay.Unavailable {
				f.Errorf("put %d under a lease that has ended: %v", i, err)
			}
			if _, err := f.db.Story(f.Context(), f.me, batch[i].Message.ID); relay.CodeOf(err) != relay.NotFound {
				f.Errorf("refused, and there: %v", err)
			}
		}
		if _, _, err := f.db.Claim(f.Context(), lease, noon, []relay.Want{{Class: batch[0].Deliveries[0].Class(), Limit: 1}}); !errors.Is(err, store.ErrLeaseLost) {
			f.Errorf("claim under a lease that has ended: %v", err)
		}
		// What is not to be in its hand it may put.
		batch[0].InHand = false
		f.put(lease, batch[0])
	}},
	{"odd text", func(f *fixture) {
		s := f.message("jörg@exämple.test")
		s.Message.Subject = "NUL \x00, broken \xff\xfe, 漢字 🐎"
		s.Message.From = "o'hara; drop table message; --@x.test"
		f.put(f.lease, s)
		o := outcome(s.Deliveries[0], relay.EventDeferred)
		o.Reply.Text = "b\x00roken \xe4 日本語"
		f.settle(f.lease, o)
		got := f.story(s.Message.ID)
		f.equal("subject", got.Message.Subject, "NUL \uFFFD, broken \uFFFD, 漢字 🐎")
		f.equal("from", got.Message.From, s.Message.From)
		f.equal("recipient", got.Deliveries[0].Recipient.Address, "jörg@exämple.test")
		f.equal("reply", got.Deliveries[0].Reply.Text, "b\uFFFDroken \uFFFD 日本語")
	}},
}

// full makes a submission in which nothing is zero that can be other.
func full(account relay.ID) *relay.Submission {
	s := Submission(account, noon, []byte("Subject: \xff\x00\r\n\r\n.\r\n"), "a@example.net", "b@example.org")
	m := s.Message
	m.Credential, m.Stream = NewID(noon), relay.Broadcast
	m.Subject, m.From, m.HeaderID, m.EightBit, m.UTF8Header = "Grüße", "jörg@example.com", "<x@y>", true, true
	m.Envelope = relay.Envelope{Sender: "app@example.com", UTF8: true, RequireTLS: true, Ret: "FULL", EnvID: "env+1", Priority: -4, Release: noon.Add(time.Hour),
		Recipients: []relay.Recipient{{Address: "a@example.net", Notify: relay.NotifyNever, ORcpt: "rfc822;A@example.net"},
			{Address: "b@example.org", Notify: relay.NotifySuccess | relay.NotifyDelay, ORcpt: "utf-8;b@example.org"}}}
	m.Source = relay.Source{Client: netip.MustParseAddrPort("[2001:db8::1]:2525"), Helo: "client", Protocol: "ESMTPSA", Listener: "submission", TLS: "TLS1.3 X", User: "app"}
	for i, d := range s.Deliveries {
		d.Stream, d.Recipient = relay.Broadcast, m.Envelope.Recipients[i]
		d.Due = noon.Add(time.Duration(i) * time.Microsecond)
	}
	s.Deliveries[1].State = relay.Held
	return s
}

// oneByOne reads less than was asked for.
type oneByOne struct{ r io.Reader }

func (o oneByOne) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1000)]) }

// misjudged content is longer than it says.
type misjudged struct{ memory }

func (misjudged) Size() int64 { return 3 }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
