// Package interop tests the whole relay against mail programs that others
// wrote: clients that submit to it, and receivers that it delivers to.
package interop

import (
	"bytes"
	"crypto/tls"
	"slices"
	"strings"
	"testing"

	"postrider/internal/config"
)

// modes are the relay's listeners, named by how they speak.
var modes = []string{"starttls", "tls", "plain"}

// protocols are what a trace says of authenticated sessions (RFC 3848);
// clients that ask for SMTPUTF8 get UTF8SMTP instead of ESMTP (RFC 6531 section
// 4.3).
var protocols = map[string]string{"starttls": "ESMTPSA", "tls": "ESMTPSA", "plain": "ESMTPA"}

// TestClients submits with each client over each listener and with each
// mechanism, and compares what arrives with what was sent, byte for byte.
func TestClients(t *testing.T) {
	t.Parallel()
	var box mailbox
	r := startRelay(t, to("*", startReceiver(t, &box, nil, true)))
	for _, c := range append(clients, postfixClient(t, r)) {
		for _, mode := range modes {
			for _, mechanism := range c.mechanisms {
				if mode == "plain" && strings.HasSuffix(mechanism, "-PLUS") {
					continue // no TLS to bind to (RFC 5802 section 6)
				}
				name := c.name + "-" + mode + "-" + strings.ToLower(mechanism)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					o := newOrder(t, r, mode, mechanism)
					o.compose(hardMessage, name+"@receiver.example")
					sent := c.send(t, o)
					got := box.wait(t, o.Recipient)
					expect(t, got, sent, slices.Repeat([]string{"Received"}, 1+c.hops)...)
					if trace, with := strings.Replace(field(got, "Received"), "UTF8SMTP", "ESMTP", 1), protocols[mode]; !strings.Contains(trace, " with "+with+" ") {
						t.Errorf("the relay's trace is %q, want it to say with %s", trace, with)
					}
				})
			}
		}
	}
}

// expect fails unless got is the named header fields and then sent.
func expect(t *testing.T, got, sent []byte, added ...string) {
	t.Helper()
	names, err := prepended(got, sent)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(names, " ") != strings.Join(added, " ") {
		t.Errorf("the relay put %q before the content, want %q", names, added)
	}
}

// samples are the messages that each receiver gets, and what the relay adds to
// them beside its trace.
var samples = []struct {
	name    string
	compose func(from, to, subject string) []byte
	added   []string
}{
	{"hard", hardMessage, nil},
	{"large", largeMessage, nil},
	{"bare", bareMessage, []string{"Date", "Message-ID"}},
	{"empty", emptyMessage, []string{"Date", "Message-ID"}},
}

// TestReceivers delivers to servers that others wrote, over TLS where they offer
// it, and compares what they got with what was submitted.
func TestReceivers(t *testing.T) {
	t.Parallel()
	var box mailbox
	cert := newKeyPair(t)
	postfix, basic := postfixReceiver(t, cert, startReceiver(t, &box, nil, true))
	receivers := []struct {
		name, addr string
		hops       int // Received fields that the receiver itself adds
	}{
		{"go-smtp", startReceiver(t, &box, nil, false), 0},
		{"go-smtp-tls", startReceiver(t, &box, &tls.Config{Certificates: []tls.Certificate{cert.pair}}, true), 0},
		{"aiosmtpd", startAiosmtpd(t, &box, cert), 0},
		{"postfix", postfix, 1},
	}
	routes := []config.Route{to("postfix-7bit.example", basic)}
	for _, receiver := range receivers {
		routes = append(routes, to(receiver.name+".example", receiver.addr))
	}
	r := startRelay(t, routes...)
	for _, receiver := range receivers {
		for _, sample := range samples {
			t.Run(receiver.name+"-"+sample.name, func(t *testing.T) {
				t.Parallel()
				o := newOrder(t, r, "starttls", "PLAIN")
				o.compose(sample.compose, sample.name+"@"+receiver.name+".example")
				sendNetSMTP(t, o)
				trace := slices.Repeat([]string{"Received"}, 1+receiver.hops)
				expect(t, box.wait(t, o.Recipient), o.Content, append(trace, sample.added...)...)
			})
		}
	}
	for _, receiver := range receivers[1:] { // the first one does not offer SMTPUTF8
		t.Run(receiver.name+"-smtputf8", func(t *testing.T) {
			t.Parallel()
			o := newOrder(t, r, "starttls", "PLAIN")
			o.compose(bareMessage, "grüße@"+receiver.name+".example")
			o.Sender = "köln@client.example"
			sendNetSMTP(t, o)
			trace := slices.Repeat([]string{"Received"}, 1+receiver.hops)
			expect(t, box.wait(t, o.Recipient), o.Content, append(trace, "Date", "Message-ID")...)
		})
	}
	t.Run("postfix-7bit", func(t *testing.T) {
		t.Parallel()
		o := newOrder(t, r, "starttls", "PLAIN")
		o.compose(hardMessage, "hard@postfix-7bit.example")
		sendNetSMTP(t, o)
		expectDecoded(t, box.wait(t, o.Recipient), o.Content)
	})
}

// expectDecoded fails unless got is 7-bit and each of its parts decodes to what
// that part of sent decodes to (RFC 6152 section 3).
func expectDecoded(t *testing.T, got, sent []byte) {
	t.Helper()
	if i := slices.IndexFunc(got, func(b byte) bool { return b > 126 }); i >= 0 {
		t.Errorf("an 8-bit byte arrived: …%q…", got[max(0, i-40):min(len(got), i+40)])
	}
	gotParts, sentParts := parts(t, got), parts(t, sent)
	if len(gotParts) != len(sentParts) {
		t.Fatalf("%d parts arrived, want %d", len(gotParts), len(sentParts))
	}
	for i := range sentParts {
		if !bytes.Equal(gotParts[i], sentParts[i]) {
			t.Errorf("part %d differs: %s", i+1, difference(gotParts[i], sentParts[i]))
		}
	}
}
