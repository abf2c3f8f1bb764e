package dns

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// FuzzMail answers every question with the records of one packet, whatever
// they are, as a hostile server may.
func FuzzMail(f *testing.F) {
	for _, lines := range [][]string{
		{"d.test. 60 IN MX 10 mx.test.", "d.test. 60 IN MX 20 192.0.2.1.", "mx.test. 60 IN A 192.0.2.1", "mx.test. 60 IN AAAA ::ffff:192.0.2.1"},
		{"d.test. 60 IN MX 0 ."},
		{"d.test. 60 IN CNAME e.test.", "e.test. 60 IN CNAME d.test."},
		{"d.test. 60 IN CNAME e.test.", "e.test. 4294967295 IN A 192.0.2.1"},
		{"d.test. 60 IN MX 10 a\\000\\010b.test.", "d.test. 60 CH MX 10 mx.test."},
	} {
		m := new(mdns.Msg).SetQuestion("d.test.", mdns.TypeMX)
		for _, line := range lines {
			rr, err := mdns.NewRR(line)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := new(mdns.Msg)
		if err := m.Unpack(packet); err != nil {
			return
		}
		r, err := New([]string{"127.0.0.1"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		r.send = func(_ context.Context, _ string, req *mdns.Msg) (*mdns.Msg, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			asked++
			return m, nil
		}
		before := time.Now()
		hosts, err := r.Mail(t.Context(), "d.test")
		if bound := 2 * (1 + 2*maxMX) * (maxLinks + 1); asked > bound {
			t.Errorf("%d questions", asked)
		}
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Text == "" || strings.ContainsAny(e.Text, "\r\n\x00") {
				t.Errorf("error %q", err)
			}
			return
		}
		check(t, hosts, before)
	})
}

func check(t *testing.T, m *MailHosts, before time.Time) {
	if len(m.Hosts) == 0 || len(m.Hosts)+len(m.Skipped) > maxMX || m.Site == "" {
		t.Errorf("%d hosts, %d skipped, site %q", len(m.Hosts), len(m.Skipped), m.Site)
	}
	if m.Expires.Before(before.Add(minTTL)) || m.Expires.After(time.Now().Add(maxTTL)) {
		t.Errorf("expires %v", m.Expires)
	}
	last := uint16(0)
	for _, h := range m.Hosts {
		if _, ok := canonical(h.Name); !ok {
			t.Errorf("host %q", h.Name)
		}
		if h.Pref < last {
			t.Errorf("preference %d after %d", h.Pref, last)
		}
		last = h.Pref
		if len(h.Addrs) == 0 || len(h.Addrs) > 2*maxAddrs {
			t.Errorf("host %s: %d addresses", h.Name, len(h.Addrs))
		}
		for _, a := range h.Addrs {
			if !a.IsValid() || a.Is4In6() {
				t.Errorf("host %s: address %v", h.Name, a)
			}
		}
	}
}
