package deliver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"postrider/internal/mailauth"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/sink"
)

// renderFunc is a Renderer.
type renderFunc func(d *relay.Delivery, content relay.Content, buf *message.Buffer) (Rendering, error)

func (f renderFunc) Render(_ context.Context, _ *relay.Message, d *relay.Delivery, content relay.Content, buf *message.Buffer) (Rendering, error) {
	return f(d, content, buf)
}

// countingSigner tells what it is asked to sign.
type countingSigner struct {
	Signer
	mu         sync.Mutex
	renderings []string
}

func (c *countingSigner) Sign(ctx context.Context, m *relay.Message, content relay.Content, rendering string) ([]byte, error) {
	c.mu.Lock()
	c.renderings = append(c.renderings, rendering)
	c.mu.Unlock()
	return c.Signer.Sign(ctx, m, content, rendering)
}

// Each recipient gets a copy of its own, which is converted and signed as such.
func TestRendered(t *testing.T) {
	const field = "List-Unsubscribe: <https://track.test/u/%s>\r\n"
	fields := func(d *relay.Delivery) []byte { return fmt.Appendf(nil, field, d.ID) }
	body := func(d *relay.Delivery, content relay.Content, buf *message.Buffer) relay.Content {
		fmt.Fprintf(buf, "From: a@sender.test\r\nTo: %s\r\n\r\nGr\u00fc\u00dfe\r\n", d.Recipient.Address)
		return buf.Content()
	}
	for name, tt := range map[string]struct {
		render    renderFunc
		without   sink.Extension
		holds     []string
		rendering string
	}{
		"as it is": {render: func(*relay.Delivery, relay.Content, *message.Buffer) (Rendering, error) { return Rendering{}, nil },
			holds: []string{"\r\n" + eightBits}, rendering: "as accepted"},
		"fields": {render: func(d *relay.Delivery, _ relay.Content, _ *message.Buffer) (Rendering, error) {
			return Rendering{Fields: fields(d)}, nil
		}, holds: []string{"\r\nList-Unsubscribe: <https://track.test/u/%s>\r\n" + eightBits}},
		"body": {render: func(d *relay.Delivery, c relay.Content, b *message.Buffer) (Rendering, error) {
			return Rendering{Content: body(d, c, b)}, nil
		}, holds: []string{"\r\nTo: b@receiver.test\r\n", "Gr\u00fc\u00dfe\r\n"}},
		"both, to 7 bits": {render: func(d *relay.Delivery, c relay.Content, b *message.Buffer) (Rendering, error) {
			return Rendering{Fields: fields(d), Content: body(d, c, b)}, nil
		}, without: sink.EightBitMIME | sink.SMTPUTF8, holds: []string{"\r\n" + field + "From:", "Gr=C3=BC=C3=9Fe\r\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).mx("receiver.test", "127.0.1.1")
			signer, _ := r.signer(false)
			counting := &countingSigner{Signer: signer}
			r.config.Signer, r.config.Renderer = counting, tt.render
			got := r.sink("127.0.1.1", sink.Config{Without: tt.without})
			r.run()
			it := r.item("b@receiver.test", eightBits, eightBit, byA)
			if o := r.try(it); o.Kind != relay.EventDelivered {
				t.Fatalf("%s: %s", o.Kind, o.Reply)
			}
			m := got.Messages()[0]
			found, err := mailauth.VerifyDKIM(t.Context(), r.d.resolver.(mailauth.Resolver), strings.NewReader(string(m.Content)))
			if err != nil || len(found) != 2 || found[0].Result != mailauth.Pass || found[1].Result != mailauth.Pass {
				t.Errorf("signatures: %+v, %v", found, err)
			}
			for _, want := range tt.holds {
				if want = strings.ReplaceAll(want, "%s", it.Delivery.ID.String()); !strings.Contains(string(m.Content), want) {
					t.Errorf("lacks %q:\n%s", want, m.Content)
				}
			}
			if strings.Contains(tt.holds[0], "List-Unsub") &&
				!strings.Contains(strings.ReplaceAll(string(m.Content), "\r\n ", ""), "List-Unsubscribe:List-Unsubscribe") {
				t.Errorf("the field is not signed:\n%s", m.Content)
			}
			if len(counting.renderings) != 1 || counting.renderings[0] != tt.rendering {
				t.Errorf("signed as %q", counting.renderings)
			}
		})
	}
}

const eightBits = "From: a@sender.test\r\nTo: someone@receiver.test\r\nSubject: x\r\n\r\nGr\u00fc\u00dfe\r\n"

// What can't be rendered waits.
func TestUnrenderedWaits(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	fails := true
	r.config.Renderer = renderFunc(func(*relay.Delivery, relay.Content, *message.Buffer) (Rendering, error) {
		if fails {
			return Rendering{}, errors.New("the directory is away")
		}
		return Rendering{}, nil
	})
	got := r.sink("127.0.1.1", sink.Config{})
	r.run()
	if o := r.try(r.item("b@receiver.test", plain)); o.Kind != relay.EventDeferred || strings.Contains(o.Reply.Text, "away") {
		t.Errorf("%s %q", o.Kind, o.Reply)
	}
	fails = false
	if o := r.try(r.item("b@receiver.test", plain)); o.Kind != relay.EventDelivered || len(got.Messages()) != 1 {
		t.Errorf("the next one: %s %s", o.Kind, o.Reply)
	}
}
