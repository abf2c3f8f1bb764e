package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
	"postrider/internal/lab/fakedns"
	"postrider/internal/relay"
)

// patient is a healthy relay; each test breaks something.
type patient struct {
	zone   *fakedns.Server
	config Config
	store  Store
	owns   Domains
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	zone, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zone.Close)
	p := &patient{zone: zone, config: Config{Hostname: "relay.example.test", Data: t.TempDir(), StoreName: "sqlite"}}
	p.add(t, "relay.example.test. 60 IN A 203.0.113.25", "25.113.0.203.in-addr.arpa. 60 IN PTR relay.example.test.")
	return p
}

func (p *patient) add(t *testing.T, lines ...string) {
	t.Helper()
	if err := p.zone.Add(lines...); err != nil {
		t.Fatal(err)
	}
}

func (p *patient) doctor(t *testing.T) *Doctor {
	t.Helper()
	r, err := dns.New([]string{p.zone.Addr()}, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return New(p.config, r, p.store, p.owns)
}

// expect looks for the first finding of a check.
func expect(t *testing.T, what string, found []relay.Finding, check string, status relay.Verdict, words ...string) {
	t.Helper()
	for _, f := range found {
		if f.Check != check {
			continue
		}
		text := f.Text + " " + f.Advice + " " + strings.Join(f.Found, " ")
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %q lacks %q", what, text, w)
			}
		}
		if f.Status != status {
			t.Errorf("%s: %s, want %s: %+v", what, f.Status, status, f)
		}
		if (f.Status == relay.Bad) && f.Advice == "" {
			t.Errorf("%s: no advice: %+v", what, f)
		}
		return
	}
	t.Errorf("%s: no finding of %s in %+v", what, check, found)
}

func TestNames(t *testing.T) {
	ctx := t.Context()
	p := newPatient(t)
	d := p.doctor(t)
	expect(t, "healthy", d.hostname(ctx), "helo", relay.Good, "203.0.113.25")
	expect(t, "healthy", d.reverse(ctx), "ptr", relay.Good)

	ptr := "25.113.0.203.in-addr.arpa"
	for what, c := range map[string]struct {
		lines  []string
		status relay.Verdict
		word   string
	}{
		"no reverse":     {nil, relay.Bad, "no reverse name"},
		"leads nowhere":  {[]string{ptr + ". 60 IN PTR gone.test."}, relay.Bad, "does not lead back"},
		"leads away":     {[]string{ptr + ". 60 IN PTR a.test.", "a.test. 60 IN A 203.0.113.1"}, relay.Bad, "does not lead back"},
		"another name":   {[]string{ptr + ". 60 IN PTR b.test.", "b.test. 60 IN A 203.0.113.25"}, relay.Warning, "not the one"},
		"a dial-up name": {[]string{ptr + ". 60 IN PTR c203-0-113-25.isp.test.", "c203-0-113-25.isp.test. 60 IN A 203.0.113.25"}, relay.Bad, "dial-up"},
		"two":            {[]string{ptr + ". 60 IN PTR relay.example.test.", ptr + ". 60 IN PTR b.test."}, relay.Warning, "2 reverse names"},
	} {
		p.zone.Remove(ptr)
		p.add(t, c.lines...)
		expect(t, what, p.doctor(t).reverse(ctx), "ptr", c.status, c.word)
	}
	p.zone.Fail(ptr, mdns.RcodeServerFailure)
	expect(t, "SERVFAIL", p.doctor(t).reverse(ctx), "ptr", relay.Unknown)

	p.config.Addrs = []netip.Addr{netip.MustParseAddr("203.0.113.26")}
	expect(t, "another address", p.doctor(t).hostname(ctx), "helo", relay.Warning, "203.0.113.26")
	p.config.Addrs = nil
	p.zone.Remove("relay.example.test")
	expect(t, "no address", p.doctor(t).hostname(ctx), "helo", relay.Bad, "leads nowhere")
	expect(t, "no address", p.doctor(t).reverse(ctx), "ptr", relay.Unknown)
	p.add(t, "relay.example.test. 60 IN A 10.0.0.5")
	expect(t, "private", p.doctor(t).hostname(ctx), "helo", relay.Warning, "private")
	p.zone.Silence("relay.example.test")
	expect(t, "silence", p.doctor(t).hostname(ctx), "helo", relay.Unknown)
	p.config.Hostname = "localhost"
	expect(t, "no name", p.doctor(t).hostname(ctx), "helo", relay.Bad, "EHLO")
}

func TestBlocklists(t *testing.T) {
	ctx := t.Context()
	p := newPatient(t)
	p.config.Blocklists = []string{"bl.test"}
	us := "25.113.0.203.bl.test"
	p.add(t, "2.0.0.127.bl.test. 60 IN A 127.0.0.2")
	expect(t, "not listed", p.doctor(t).blocklists(ctx), "blocklist", relay.Good, "203.0.113.25")
	p.add(t, us+". 60 IN A 127.0.0.4", us+`. 60 IN TXT "https://bl.test/why"`)
	expect(t, "listed", p.doctor(t).blocklists(ctx), "blocklist", relay.Bad, "127.0.0.4", "https://bl.test/why")
	p.zone.Remove(us)
	p.add(t, us+". 60 IN A 127.255.255.254")
	expect(t, "refused for us", p.doctor(t).blocklists(ctx), "blocklist", relay.Unknown, "refuses")
	p.zone.Remove(us)
	p.add(t, us+". 60 IN A 198.51.100.7")
	expect(t, "a parked domain", p.doctor(t).blocklists(ctx), "blocklist", relay.Unknown, "in its place")
	p.zone.Remove(us)
	p.zone.Fail(us, mdns.RcodeServerFailure)
	expect(t, "SERVFAIL", p.doctor(t).blocklists(ctx), "blocklist", relay.Unknown)

	p.zone.Remove("2.0.0.127.bl.test")
	expect(t, "no test entry", p.doctor(t).blocklists(ctx), "blocklist", relay.Unknown, "test entry")
	p.add(t, "2.0.0.127.bl.test. 60 IN A 127.255.255.254")
	expect(t, "refused", p.doctor(t).blocklists(ctx), "blocklist", relay.Unknown, "refuses")
	p.add(t, "*.bl.test. 60 IN A 127.0.0.2")
	expect(t, "lists everybody", p.doctor(t).blocklists(ctx), "blocklist", relay.Unknown, "everybody")

	if got, want := question(netip.MustParseAddr("2001:db8::25"), "bl.test"), "5.2.0.0."+strings.Repeat("0.", 20)+"8.b.d.0.1.0.0.2.bl.test"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// server answers each connection with f.
func server(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); f(c) })
		}
	})
	return ln.Addr().String()
}

func says(line string) func(net.Conn) {
	return func(c net.Conn) { fmt.Fprint(c, line) }
}

// closedPort is one that refuses connections.
func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestPort25(t *testing.T) {
	ctx := t.Context()
	p := newPatient(t)
	expect(t, "none named", p.doctor(t).port25(ctx), "outbound", relay.Unknown, "not tried", "[doctor] probe")
	good := Probe{Address: server(t, says("220-hello\r\n220 mx.test ESMTP\r\n"))}
	_, port, _ := net.SplitHostPort(good.Address)
	p.add(t, "mx.test. 60 IN A 127.0.0.1")
	p.config.Probes = []Probe{{Address: "mx.test:" + port}}
	expect(t, "open", p.doctor(t).port25(ctx), "outbound", relay.Good, "220 mx.test")
	closed := Probe{Address: closedPort(t)}
	p.config.Probes = []Probe{closed, good}
	expect(t, "one is away", p.doctor(t).port25(ctx), "outbound", relay.Warning, "Others can be reached")
	p.config.Probes = []Probe{closed}
	expect(t, "blocked", p.doctor(t).port25(ctx), "outbound", relay.Bad, "provider")
	p.config.Probes = []Probe{{Address: server(t, says("554 5.7.1 go away\r\n"))}}
	expect(t, "not wanted", p.doctor(t).port25(ctx), "outbound", relay.Warning, "go away")
	p.config.Probes = []Probe{{Address: server(t, says("HTTP/1.0 400\r\n"))}}
	expect(t, "intercepted", p.doctor(t).port25(ctx), "outbound", relay.Warning, "no mail server")
	p.config.Probes = []Probe{{Address: server(t, says(strings.Repeat("220-", 1<<16)))}}
	expect(t, "endless", p.doctor(t).port25(ctx), "outbound", relay.Warning)
}

// cert makes a certificate, and a listener's TLS with it.
func cert(t *testing.T, name string, from, to time.Time) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestListeners(t *testing.T) {
	ctx := t.Context()
	p := newPatient(t)
	now := time.Now()
	year := 365 * 24 * time.Hour
	implicit := func(c *tls.Config) func(net.Conn) {
		return func(conn net.Conn) { _ = tls.Server(conn, c).Handshake() }
	}
	for what, c := range map[string]struct {
		tls    *tls.Config
		status relay.Verdict
		word   string
	}{
		"own":         {cert(t, "relay.example.test", now.Add(-time.Hour), now.Add(year)), relay.Warning, "authority"},
		"expired":     {cert(t, "relay.example.test", now.Add(-year), now.Add(-time.Hour)), relay.Bad, "expired"},
		"soon":        {cert(t, "relay.example.test", now.Add(-year), now.Add(3*24*time.Hour)), relay.Warning, "2 more days"},
		"not yet":     {cert(t, "relay.example.test", now.Add(time.Hour), now.Add(year)), relay.Bad, "not valid before"},
		"other names": {cert(t, "other.test", now.Add(-time.Hour), now.Add(year)), relay.Bad, "not for the name"},
	} {
		p.config.Listeners = []Listener{{Name: "in", Address: server(t, implicit(c.tls)), TLS: true}}
		found := p.doctor(t).listeners(ctx)
		expect(t, what, found, "listener", relay.Good)
		expect(t, what, found, "certificate", c.status, c.word)
	}
	config := cert(t, "relay.example.test", now.Add(-time.Hour), now.Add(year))
	starttls := func(c net.Conn) {
		buf := make([]byte, 100)
		fmt.Fprint(c, "220 relay.example.test\r\n")
		c.Read(buf)
		fmt.Fprint(c, "250-relay.example.test\r\n250 STARTTLS\r\n")
		c.Read(buf)
		fmt.Fprint(c, "220 go\r\n")
		_ = tls.Server(c, config).Handshake()
	}
	p.config.Listeners = []Listener{{Name: "in", Address: server(t, starttls)}}
	found := p.doctor(t).listeners(ctx)
	expect(t, "STARTTLS", found, "listener", relay.Good)
	expect(t, "STARTTLS", found, "certificate", relay.Warning, "authority")
	p.config.Listeners = []Listener{{Name: "in", Address: closedPort(t)}}
	expect(t, "closed", p.doctor(t).listeners(ctx), "listener", relay.Bad, "does not answer")
	p.config.Listeners = []Listener{{Name: "in", Address: server(t, says("421 draining\r\n"))}}
	expect(t, "draining", p.doctor(t).listeners(ctx), "listener", relay.Warning, "421")
	p.config.Listeners = []Listener{{Name: "in", Address: server(t, says("")), TLS: true}}
	expect(t, "no TLS", p.doctor(t).listeners(ctx), "listener", relay.Bad, "TLS does not work")
}

// aheadBy is a Store whose clock is behind by that much.
type aheadBy struct {
	by  time.Duration
	err error
}

func (a aheadBy) Ahead(context.Context) (time.Duration, error) { return a.by, a.err }

// timeServer answers as NTP does; forge changes the answer.
func timeServer(t *testing.T, behind time.Duration, forge func([]byte)) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { pc.Close(); wg.Wait() })
	wg.Go(func() {
		q := make([]byte, 100)
		for {
			n, from, err := pc.ReadFrom(q)
			if err != nil {
				return
			}
			if n != 48 || q[0] != 0x23 {
				t.Errorf("a question of %d bytes, %x", n, q[0])
			}
			a := make([]byte, 48)
			a[0], a[1] = 4<<3|4, 2
			copy(a[24:], q[40:48])
			for _, at := range []int{32, 40} {
				now := time.Now().Add(-behind)
				binary.BigEndian.PutUint32(a[at:], uint32(now.Unix()-ntpEpoch.Unix()))
				binary.BigEndian.PutUint32(a[at+4:], uint32(uint64(now.Nanosecond())<<32/1e9))
			}
			forge(a)
			if _, err := pc.WriteTo(a, from); err != nil {
				return
			}
		}
	})
	return pc.LocalAddr().String()
}

func TestClock(t *testing.T) {
	ctx := t.Context()
	p := newPatient(t)
	for ahead, want := range map[time.Duration]relay.Verdict{0: relay.Good, time.Second: relay.Good, -3 * time.Second: relay.Warning, time.Hour: relay.Bad, -24 * time.Hour: relay.Bad} {
		p.store, p.config.TimeServer = aheadBy{by: ahead}, ""
		expect(t, "store "+ahead.String(), p.doctor(t).clock(ctx), "clock", want)
		p.store, p.config.TimeServer = nil, timeServer(t, ahead, func([]byte) {})
		expect(t, "NTP "+ahead.String(), p.doctor(t).clock(ctx), "clock", want)
	}
	p.config.TimeServer = timeServer(t, 0, func(a []byte) { a[1] = 0 })
	expect(t, "kiss of death", p.doctor(t).clock(ctx), "clock", relay.Unknown)
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	p.config.TimeServer = timeServer(t, time.Hour, func(a []byte) { a[24]++ })
	expect(t, "a forged answer", p.doctor(t).clock(short), "clock", relay.Unknown)
	p.config.TimeServer = timeServer(t, time.Hour, func([]byte) {})
	expect(t, "an hour ahead", p.doctor(t).clock(ctx), "clock", relay.Bad, "s ahead")
	p.config.TimeServer = timeServer(t, -time.Hour, func([]byte) {})
	expect(t, "an hour behind", p.doctor(t).clock(ctx), "clock", relay.Bad, "s behind")
	p.config.TimeServer = "gone.test:123"
	expect(t, "no such server", p.doctor(t).clock(short), "clock", relay.Unknown)

	// Seconds wrap in 2036; the nearest era counts.
	after := time.Date(2036, 2, 8, 0, 0, 0, 0, time.UTC)
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], uint32(after.Unix()-ntpEpoch.Unix()))
	if got := ntpStamp(b[:], after.Add(-72*time.Hour)); !got.Equal(after) {
		t.Errorf("%v, want %v", got, after)
	}
}

func TestMachine(t *testing.T) {
	ctx := t.Context()
	p := newPatient(t)
	if f := p.doctor(t).disk(ctx)[0]; f.Status == relay.Unknown || len(f.Found) != 1 {
		t.Errorf("%+v", f)
	}
	left, err := os.ReadDir(p.config.Data)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for free, want := range map[uint64]relay.Verdict{100 << 20: relay.Bad, 1 << 30: relay.Warning, 50 << 30: relay.Good} {
		if f := judgeDisk(relay.Finding{}, free, 100<<30); f.Status != want {
			t.Errorf("%d free: %s, want %s", free, f.Status, want)
		}
	}
	p.config.Data = filepath.Join(p.config.Data, "nowhere")
	expect(t, "no folder", p.doctor(t).disk(ctx), "disk", relay.Bad, "can't be written")

	expect(t, "no server", p.doctor(t).storage(ctx), "store", relay.Unknown, "postrider serve")
	p.store = aheadBy{}
	expect(t, "store", p.doctor(t).storage(ctx), "store", relay.Good)
	p.store = aheadBy{err: errors.New("connection refused")}
	expect(t, "store away", p.doctor(t).storage(ctx), "store", relay.Bad, "connection refused")
}

// owned are domains with what is found of each.
type owned map[string][]relay.Finding

func (o owned) List(_ context.Context, _, after relay.ID, _ int) (out []*relay.Domain, _ error) {
	for name := range o {
		d := &relay.Domain{Name: name}
		if name != "new.test" {
			d.Verified = time.Now()
		}
		out = append(out, d)
	}
	return out, nil
}
func (o owned) Look(_ context.Context, d *relay.Domain) []relay.Finding { return o[d.Name] }
func (o owned) Service(context.Context) []relay.Finding {
	return []relay.Finding{{Check: "service", Status: relay.Good}}
}

func TestDomains(t *testing.T) {
	p := newPatient(t)
	bad := relay.Finding{Check: "dkim", Name: "x", Status: relay.Bad, Advice: "a"}
	p.owns = owned{"a.test": {{Check: "spf", Status: relay.Good}, bad}}
	expect(t, "broken", p.doctor(t).sending(t.Context()), "dkim", relay.Bad)
	p.owns = owned{"new.test": {bad}}
	expect(t, "being set up", p.doctor(t).sending(t.Context()), "domain", relay.Warning, "domain check new.test")
	p.owns = owned{"a.test": {{Check: "spf", Status: relay.Good}}}
	expect(t, "in order", p.doctor(t).sending(t.Context()), "domain", relay.Good)
}

// The whole of it: a relay that is well has nothing bad, and all is looked at.
func TestExamine(t *testing.T) {
	p := newPatient(t)
	now := time.Now()
	config := cert(t, "relay.example.test", now.Add(-time.Hour), now.Add(365*24*time.Hour))
	p.add(t, "2.0.0.127.bl.test. 60 IN A 127.0.0.2")
	p.config.Blocklists = []string{"bl.test"}
	p.config.Probes = []Probe{{Address: server(t, says("220 mx.test\r\n"))}}
	p.config.Listeners = []Listener{{Address: server(t, func(c net.Conn) { _ = tls.Server(c, config).Handshake() }), TLS: true}}
	p.config.TimeServer = timeServer(t, 0, func([]byte) {})
	p.store, p.owns = aheadBy{}, owned{"a.test": {{Check: "spf", Status: relay.Good}}}
	found := p.doctor(t).Examine(t.Context())
	if w := Worst(found); w == relay.Bad {
		t.Errorf("%+v", found)
	}
	var order []string
	for _, f := range found {
		order = append(order, f.Check)
	}
	if got, want := strings.Join(order, " "), "helo ptr outbound listener certificate clock clock disk store blocklist service domain"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWorst(t *testing.T) {
	f := func(vs ...relay.Verdict) (out []relay.Finding) {
		for _, v := range vs {
			out = append(out, relay.Finding{Status: v})
		}
		return out
	}
	for want, found := range map[relay.Verdict][]relay.Finding{relay.Good: f(relay.Good, relay.Unknown), relay.Warning: f(relay.Warning, relay.Good), relay.Bad: f(relay.Warning, relay.Bad, relay.Good)} {
		if got := Worst(found); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
