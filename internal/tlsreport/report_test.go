package tlsreport

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
	"postrider/internal/lab/fakedns"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
	"postrider/internal/tlspolicy"
)

// post is a letter that was handed in.
type letter struct{ to, text string }

// fixture is counters and senders with a real store and a DNS server.
type fixture struct {
	*testing.T
	db  *store.DB
	dns *fakedns.Server
	now time.Time

	mu      sync.Mutex
	letters []letter
	refuse  error
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	server, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return &fixture{T: t, db: db, dns: server, now: time.Date(2030, 3, 1, 23, 59, 0, 0, time.UTC)}
}

// fresh is a DNS without a memory.
func (f *fixture) TXT(ctx context.Context, name string) ([]string, error) {
	r, err := dns.New([]string{f.dns.Addr()}, 0)
	if err != nil {
		return nil, err
	}
	return r.TXT(ctx, name)
}

func (f *fixture) TLSReport(_ context.Context, _ relay.ID, to string, content relay.Content) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return f.refuse
	}
	r, err := content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	f.letters = append(f.letters, letter{to, string(b)})
	return err
}

func (f *fixture) record(domain, text string) {
	f.Helper()
	f.dns.Remove("_smtp._tls." + domain)
	if err := f.dns.Add(fmt.Sprintf("_smtp._tls.%s. 5 IN TXT %q", domain, text)); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) counter() *Counter {
	c := NewCounter(f.db, f, slog.New(slog.DiscardHandler))
	c.now = func() time.Time { return f.now }
	return c
}

func (f *fixture) sender(node string, client *http.Client) *Sender {
	s := NewSender(Config{Domain: "relay.test", Organization: "The Relay", Contact: "help@relay.test", From: "postmaster@relay.test", Node: node, Client: client},
		f.db, f, f, slog.New(slog.DiscardHandler))
	s.now = func() time.Time { return f.now }
	return s
}

func (f *fixture) round(s *Sender) {
	f.Helper()
	if err := s.Round(f.Context()); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) left(day time.Time) []string {
	f.Helper()
	domains, err := f.db.TLSDomains(f.Context(), day)
	if err != nil {
		f.Fatal(err)
	}
	return domains
}

var stsPolicy = tlspolicy.Applied{Kind: tlspolicy.KindSTS, Domain: "d.test", Lines: []string{"version: STSv1", "mode: testing", "mx: *.d.test", "max_age: 86400"}, MX: []string{"*.d.test"}}

func sessions(domain string) []tlspolicy.Session {
	p := stsPolicy
	p.Domain = domain
	source, addr := netip.MustParseAddr("192.0.2.25"), netip.MustParseAddr("2001:db8::1")
	expired := &tlspolicy.Failure{Result: tlspolicy.CertExpired, Text: "the certificate has expired"}
	return []tlspolicy.Session{
		{Domain: domain, Policy: p, Host: "a." + domain, Addr: addr, Source: source},
		{Domain: domain, Policy: p, Host: "b." + domain, Addr: addr, Source: source},
		{Domain: domain, Policy: p, Host: "b." + domain, Addr: addr, Source: source, Failure: expired},
		{Domain: domain, Policy: p, Host: "b." + domain, Addr: addr, Source: source, Failure: expired},
		{Domain: domain, Policy: p, Failure: &tlspolicy.Failure{Result: tlspolicy.STSFetchError, Text: "no answer"}},
		{Domain: domain, Policy: tlspolicy.Applied{Kind: tlspolicy.KindTLSA, Domain: domain, Lines: []string{"3 1 1 abcd"}}, Host: "c." + domain, Addr: addr, Source: source},
	}
}

// TestReport goes the whole way: sessions on two nodes, one report by mail, read
// by programs that are not ours and held to the schema of RFC 8460.
func TestReport(t *testing.T) {
	f := newFixture(t)
	f.record("d.test", "v=TLSRPTv1; rua=mailto:tls%2Breports@d.test")
	for range 2 {
		c := f.counter()
		for _, s := range sessions("d.test") {
			c.Session(s)
		}
		for _, s := range sessions("silent.test") { // asks for no reports
			c.Session(s)
		}
		c.flush(t.Context())
	}
	day := relay.PerDay.Start(f.now)
	if got := f.left(day); !slices.Equal(got, []string{"d.test"}) {
		t.Errorf("counted for %v", got)
	}
	one, two := f.sender("one", nil), f.sender("two", nil)
	f.round(one)
	if len(f.letters) != 0 {
		t.Error("reported before the day was over")
	}
	f.now = day.Add(24 * time.Hour).Add(delay(day, "d.test") - time.Second)
	f.round(one)
	if len(f.letters) != 0 {
		t.Error("reported before its time")
	}
	f.now = f.now.Add(time.Second)
	f.round(one)
	f.round(two)
	f.round(one)
	if len(f.letters) != 1 || f.letters[0].to != "tls+reports@d.test" {
		t.Fatalf("%d letters: %+v", len(f.letters), f.letters)
	}
	if got := f.left(day); len(got) != 0 {
		t.Errorf("not dropped: %v", got)
	}
	report := open(t, f.letters[0].text, day)
	schema(t, report)
	want := `[{"failure-details":[` +
		`{"failed-session-count":4,"failure-reason-code":"the certificate has expired","receiving-ip":"2001:db8::1","receiving-mx-hostname":"b.d.test","result-type":"certificate-expired","sending-mta-ip":"192.0.2.25"},` +
		`{"failed-session-count":2,"failure-reason-code":"no answer","result-type":"sts-policy-fetch-error"}],` +
		`"policy":{"mx-host":["*.d.test"],"policy-domain":"d.test","policy-string":["version: STSv1","mode: testing","mx: *.d.test","max_age: 86400"],"policy-type":"sts"},` +
		`"summary":{"total-failure-session-count":6,"total-successful-session-count":4}},` +
		`{"policy":{"policy-domain":"d.test","policy-string":["3 1 1 abcd"],"policy-type":"tlsa"},"summary":{"total-failure-session-count":0,"total-successful-session-count":2}}]`
	policies := report["policies"].([]any)
	slices.SortFunc(policies, func(a, b any) int {
		return strings.Compare(fmt.Sprint(a.(map[string]any)["policy"].(map[string]any)["policy-type"]), fmt.Sprint(b.(map[string]any)["policy"].(map[string]any)["policy-type"]))
	})
	got, _ := json.Marshal(policies)
	if string(got) != want {
		t.Errorf("policies\n%s, want\n%s", got, want)
	}
}

// open reads the letter with the standard library.
func open(t *testing.T, text string, day time.Time) map[string]any {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("TLS-Report-Domain") != "d.test" || m.Header.Get("TLS-Report-Submitter") != "relay.test" || m.Header.Get("TLS-Required") != "No" ||
		!strings.HasPrefix(m.Header.Get("Subject"), "Report Domain: d.test Submitter: relay.test Report-ID: <") {
		t.Errorf("header %v", m.Header)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Fatalf("type %s %v, %v", kind, params, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	if p, err := parts.NextPart(); err != nil || !strings.HasPrefix(p.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("first part: %v", err)
	}
	p, err := parts.NextPart()
	if err != nil || p.Header.Get("Content-Type") != "application/tlsrpt+gzip" || p.Header.Get("Content-Transfer-Encoding") != "base64" {
		t.Fatalf("second part: %v", err)
	}
	name := regexp.MustCompile(fmt.Sprintf(`^relay\.test!d\.test!%d!%d![0-9a-f]+\.json\.gz$`, day.Unix(), day.Unix()+86399))
	if !name.MatchString(p.FileName()) {
		t.Errorf("file %q", p.FileName())
	}
	b, err := io.ReadAll(p)
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, decode(t, b))
}

func decode(t *testing.T, b []byte) []byte {
	t.Helper()
	out, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(b)))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unpack(t *testing.T, packed []byte) map[string]any {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.NewDecoder(z).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// schema holds a report to RFC 8460 section 4.4: the members, their types, and
// which must be there.
func schema(t *testing.T, report map[string]any) {
	t.Helper()
	type rule struct {
		kind string // of fmt's %T
		must bool
	}
	check := func(at string, v any, rules map[string]rule) map[string]any {
		t.Helper()
		object, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%s is a %T", at, v)
		}
		for name, x := range object {
			if r, known := rules[name]; !known || fmt.Sprintf("%T", x) != r.kind {
				t.Errorf("%s.%s: a %T, want %v", at, name, x, r)
			}
		}
		for name, r := range rules {
			if _, there := object[name]; r.must && !there {
				t.Errorf("%s.%s is missing", at, name)
			}
		}
		return object
	}
	const list, text, number, object = "[]interface {}", "string", "float64", "map[string]interface {}"
	top := check("report", report, map[string]rule{"organization-name": {text, true}, "date-range": {object, true}, "contact-info": {text, true}, "report-id": {text, true}, "policies": {list, true}})
	span := check("date-range", top["date-range"], map[string]rule{"start-datetime": {text, true}, "end-datetime": {text, true}})
	for _, v := range span {
		if _, err := time.Parse(time.RFC3339, v.(string)); err != nil || !strings.HasSuffix(v.(string), "Z") {
			t.Errorf("time %v: %v", v, err)
		}
	}
	results := []string{"starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted", "validation-failure",
		"tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"}
	for _, p := range top["policies"].([]any) {
		one := check("policies", p, map[string]rule{"policy": {object, true}, "summary": {object, true}, "failure-details": {list, false}})
		policy := check("policy", one["policy"], map[string]rule{"policy-type": {text, true}, "policy-string": {list, false}, "policy-domain": {text, true}, "mx-host": {list, false}})
		if !slices.Contains([]string{"tlsa", "sts", "no-policy-found"}, policy["policy-type"].(string)) {
			t.Errorf("policy-type %v", policy["policy-type"])
		}
		summary := check("summary", one["summary"], map[string]rule{"total-successful-session-count": {number, true}, "total-failure-session-count": {number, true}})
		sum := 0.0
		details, _ := one["failure-details"].([]any)
		for _, d := range details {
			detail := check("failure-details", d, map[string]rule{"result-type": {text, true}, "sending-mta-ip": {text, false}, "receiving-mx-hostname": {text, false},
				"receiving-ip": {text, false}, "failed-session-count": {number, true}, "failure-reason-code": {text, false}})
			sum += detail["failed-session-count"].(float64)
			if !slices.Contains(results, detail["result-type"].(string)) {
				t.Errorf("result-type %v", detail["result-type"])
			}
		}
		if sum != summary["total-failure-session-count"] {
			t.Errorf("%v failures in detail, %v in sum", sum, summary["total-failure-session-count"])
		}
	}
}

// TestPost sends by HTTPS, and to each of several targets; what none of them
// takes is tried for three days.
func TestPost(t *testing.T) {
	f := newFixture(t)
	status := http.StatusServiceUnavailable
	var got [][]byte
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.Header.Get("Content-Type") != "application/tlsrpt+gzip" || r.Method != http.MethodPost || r.URL.Path != "/in" {
			t.Errorf("%s %s as %s", r.Method, r.URL, r.Header.Get("Content-Type"))
		}
		got = append(got, b)
		w.WriteHeader(status)
	}))
	defer web.Close()
	f.record("d.test", "v=TLSRPTv1;rua=https://"+web.Listener.Addr().String()+"/in,mailto:bad address,ftp://x/y")
	c := f.counter()
	for _, s := range sessions("d.test") {
		c.Session(s)
	}
	c.flush(t.Context())
	day := relay.PerDay.Start(f.now)
	s := f.sender("one", web.Client())
	f.now = day.Add(30 * time.Hour)
	f.round(s)
	if len(got) != 1 || len(f.left(day)) != 1 {
		t.Fatalf("%d posts, left %v; want one, to be tried again", len(got), f.left(day))
	}
	status = http.StatusCreated
	f.round(s)
	if len(got) != 2 || len(f.left(day)) != 0 {
		t.Fatalf("%d posts, left %v", len(got), f.left(day))
	}
	schema(t, unpack(t, got[1]))

	status = http.StatusInternalServerError
	f.now = day
	c.Session(sessions("d.test")[0])
	c.flush(t.Context())
	f.now = day.Add((maxDays + 1) * 24 * time.Hour).Add(-time.Hour)
	f.round(s)
	if len(f.left(day)) != 0 {
		t.Error("tried for ever")
	}
}

// TestTrouble: what can't be known or stored for a moment is not lost.
func TestTrouble(t *testing.T) {
	f := newFixture(t)
	f.record("d.test", "v=TLSRPTv1; rua=mailto:a@d.test")
	day := relay.PerDay.Start(f.now)
	c := f.counter()
	c.Session(sessions("d.test")[0])
	c.store = broken{}
	c.flush(t.Context())
	c.store = f.db
	f.dns.Fail("_smtp._tls.d.test", mdns.RcodeServerFailure)
	c.flush(t.Context())
	if len(f.left(day)) != 1 {
		t.Fatal("lost while the store or the DNS was away")
	}
	s := f.sender("one", nil)
	f.now = day.Add(30 * time.Hour)
	f.round(s)
	if len(f.left(day)) != 1 || len(f.letters) != 0 {
		t.Error("lost while the DNS was away")
	}
	f.dns.Restore("_smtp._tls.d.test")
	f.refuse = errors.New("full")
	f.round(s)
	if len(f.left(day)) != 1 {
		t.Error("lost while the queue was full")
	}
	f.refuse = nil
	f.round(s)
	if len(f.left(day)) != 0 || len(f.letters) != 1 {
		t.Errorf("left %v, %d letters", f.left(day), len(f.letters))
	}
}

type broken struct{}

func (broken) CountTLS(context.Context, []relay.TLSCount) error { return errors.New("away") }

// TestBounds: whoever makes every session look different fills no memory.
func TestBounds(t *testing.T) {
	f := newFixture(t)
	c := f.counter()
	s := sessions("d.test")[0]
	for i := range maxCounts + 10 {
		s.Failure = &tlspolicy.Failure{Result: tlspolicy.Invalid, Text: fmt.Sprint(i)}
		c.Session(s)
	}
	if len(c.counts) != maxCounts || c.lost != 10 {
		t.Errorf("%d kinds, %d lost", len(c.counts), c.lost)
	}
	s.Policy.Lines = slices.Repeat([]string{strings.Repeat("x", 10_000)}, 1000)
	if n := len(s.Detail()); n > 30_000 {
		t.Errorf("%d bytes for a session", n)
	}
}

// TestRun stores what is left at the end.
func TestRun(t *testing.T) {
	f := newFixture(t)
	f.record("d.test", "v=TLSRPTv1; rua=mailto:a@d.test")
	c := f.counter()
	c.Session(sessions("d.test")[0])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(f.left(relay.PerDay.Start(f.now))) != 1 {
		t.Error("the last minute is lost")
	}
}
