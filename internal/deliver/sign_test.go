package deliver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/feedback"
	"postrider/internal/mailauth"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/signing"
	"postrider/internal/sink"
)

// directory has one domain.
type directory struct{ domain *relay.Domain }

func (d directory) Domain(_ context.Context, account relay.ID, name string) (*relay.Domain, error) {
	if account != d.domain.Account || name != d.domain.Name {
		return nil, nil
	}
	return d.domain, nil
}

// signer gives the rig's dispatcher a real signer for sender.test, whose keys the
// rig's DNS has.
func (r *rig) signer(aligned bool) (*signing.Signer, *seal.Box) {
	r.t.Helper()
	box, err := seal.New(seal.NewKey())
	if err != nil {
		r.t.Fatal(err)
	}
	d := &relay.Domain{ID: relay.ID{7}, Account: relay.ID{1}, Name: "sender.test", ReturnPath: "bounce"}
	if aligned {
		d.Aligned = time.Now()
	}
	for _, algorithm := range []string{mailauth.RSA, mailauth.Ed25519} {
		k, err := signing.NewKey(box, d, algorithm, algorithm, time.Now())
		if err != nil {
			r.t.Fatal(err)
		}
		k.State = relay.KeySigning
		d.Keys = append(d.Keys, k)
		half := len(k.Public) / 2 // a string of a TXT record has 255 bytes at most
		r.zone(fmt.Sprintf("%s._domainkey.sender.test. 60 IN TXT %q %q", k.Selector, k.Public[:half], k.Public[half:]))
	}
	s, err := signing.New(box, directory{d}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.config.Signer = s
	return s, box
}

// byA sets what acceptance found in From.
func byA(it *queue.Item) { it.Message.From = "a@sender.test" }

// What arrives verifies: of the content that is really sent, after its conversion.
func TestSigned(t *testing.T) {
	for name, tt := range map[string]struct {
		content string
		without sink.Extension
		changes []func(*queue.Item)
		holds   string // in what arrived
	}{
		"plain":           {content: plain, holds: "Hello."},
		"eight bits":      {content: strings.Replace(plain, "Hello", "Grüße", 1), changes: []func(*queue.Item){eightBit}, holds: "Grüße"},
		"seven bits":      {content: strings.Replace(plain, "Hello", "Grüße", 1), without: sink.EightBitMIME | sink.SMTPUTF8, changes: []func(*queue.Item){eightBit}, holds: "Gr=C3=BC=C3=9Fe"},
		"dots":            {content: plain + ".\r\n..\r\n", holds: "\r\n.\r\n..\r\n"},
		"no line end":     {content: plain + "end", holds: "end"},
		"by DATA":         {content: plain, without: sink.Chunking, holds: "Hello."},
		"without a body":  {content: "From: a@sender.test\r\n\r\n", holds: "From:"},
		"header only":     {content: "From: a@sender.test\r\nSubject: x\r\n", holds: "Subject:"},
		"trailing spaces": {content: plain + " \r\n\r\n\t\r\n\r\n", holds: "Hello."},
		"large":           {content: plain + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 30_000), holds: "Hello."},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).mx("receiver.test", "127.0.1.1")
			r.signer(false)
			got := r.sink("127.0.1.1", sink.Config{Without: tt.without})
			r.run()
			it := r.item("b@receiver.test", tt.content, append(tt.changes, byA)...)
			if o := r.try(it); o.Kind != relay.EventDelivered {
				t.Fatalf("%s: %s", o.Kind, o.Reply)
			}
			m := got.Messages()[0]
			found, err := mailauth.VerifyDKIM(t.Context(), r.d.resolver.(mailauth.Resolver), strings.NewReader(string(m.Content)))
			if err != nil || len(found) != 2 || found[0].Result != mailauth.Pass || found[1].Result != mailauth.Pass {
				t.Errorf("signatures: %+v, %v", found, err)
			}
			if !strings.HasPrefix(string(m.Content), "DKIM-Signature: ") || !strings.Contains(string(m.Content), tt.holds) {
				t.Errorf("arrived:\n%.2000s", m.Content)
			}
			if want := fmt.Sprintf("SIZE=%d", len(m.Content)); name != "no line end" && name != "header only" && !strings.Contains(m.Params, want) {
				t.Errorf("said %s, sent %d bytes", m.Params, len(m.Content))
			}
		})
	}
}

// failingSigner fails as often as it is told to.
type failingSigner struct {
	mu       sync.Mutex
	sign     error
	path     error
	failures int
}

func (f *failingSigner) next(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failures == 0 || err == nil {
		return nil
	}
	f.failures--
	return err
}

func (f *failingSigner) Sign(context.Context, *relay.Message, relay.Content, string) ([]byte, error) {
	return []byte("DKIM-Signature: x\r\n"), f.next(f.sign)
}

func (f *failingSigner) ReturnPath(_ context.Context, m *relay.Message, _ relay.DeliveryID) (string, bool, error) {
	return m.Envelope.Sender, false, f.next(f.path)
}

// What can't be signed waits, and nothing of it is said to the receiver.
func TestUnsignedWaits(t *testing.T) {
	broken := errors.New("the key of sender.test is damaged")
	for name, s := range map[string]*failingSigner{"signature": {sign: broken, failures: 1}, "return path": {path: broken, failures: 1}} {
		r := newRig(t).mx("receiver.test", "127.0.1.1")
		got := r.sink("127.0.1.1", sink.Config{})
		r.config.Signer = s
		r.run()
		o := r.try(r.item("b@receiver.test", plain, byA))
		if o.Kind != relay.EventDeferred || o.Reply.Enhanced != "4.7.0" || o.Attempt.Stage != feedback.StageSign || o.Diagnosis.Category != feedback.Own ||
			strings.Contains(o.Reply.Text, "damaged") {
			t.Errorf("%s: %s %q, %+v", name, o.Kind, o.Reply, o.Diagnosis)
		}
		for _, x := range o.Attempt.Dialogue {
			if strings.HasPrefix(x.Command, "MAIL") {
				t.Errorf("%s: said %s", name, x.Command)
			}
		}
		// The connection is as good as before.
		if o := r.try(r.item("b@receiver.test", plain, byA)); o.Kind != relay.EventDelivered || !o.Attempt.Reused {
			t.Errorf("%s, the next one: %s %s", name, o.Kind, o.Reply)
		}
		if n := len(got.Messages()); n != 1 {
			t.Errorf("%s: %d messages arrived", name, n)
		}
	}
}

// With a return path that works each delivery has an address of its own.
func TestReturnPath(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	_, box := r.signer(true)
	got := r.sink("127.0.1.1", sink.Config{})
	r.run()
	success := func(it *queue.Item) {
		it.Delivery.Recipient.Notify = relay.NotifySuccess | relay.NotifyFailure
		it.Message.Envelope.Ret, it.Message.Envelope.EnvID = "FULL", "id"
	}
	items := []*queue.Item{r.item("b@receiver.test", plain, byA, success), r.item("c@receiver.test", plain, byA)}
	null := r.item("d@receiver.test", plain, byA, func(it *queue.Item) { it.Message.Envelope.Sender = "" })
	other := r.item("e@receiver.test", plain)
	outcomes := map[relay.DeliveryID]relay.Outcome{}
	for _, it := range append(items, null, other) {
		outcomes[it.Delivery.ID] = r.try(it)
	}
	paths, err := signing.NewReturnPaths(box)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]*sink.Message{}
	for _, m := range got.Messages() {
		said[m.To()[0]] = m
	}
	if len(said) != 4 {
		t.Fatalf("arrived for %v", slices.Collect(maps.Keys(said)))
	}
	for _, it := range items {
		m := said[it.Delivery.Recipient.Address]
		id, err := paths.Parse(m.From)
		if err != nil || id != it.Delivery.ID || !strings.HasSuffix(m.From, "@bounce.sender.test") {
			t.Errorf("MAIL FROM:<%s>: %v, %v", m.From, id, err)
		}
	}
	// Reports come to us, so the peer is not asked for those of success.
	m := said["b@receiver.test"]
	if strings.Contains(m.Recipients[0].Params, "NOTIFY") || !strings.Contains(m.Params, "RET=HDRS") || !strings.Contains(m.Params, "ENVID=id") {
		t.Errorf("said %q and %q", m.Params, m.Recipients[0].Params)
	}
	if o := outcomes[items[0].Delivery.ID]; o.Notice != relay.NotifySuccess {
		t.Errorf("the sender is not told of success: %v", o.Notice)
	}
	if m := said["d@receiver.test"]; m.From != "" {
		t.Errorf("the null sender became %s", m.From)
	}
	if m := said["e@receiver.test"]; m.From != "sender@sender.test" {
		t.Errorf("another's sender became %s", m.From)
	}
}
