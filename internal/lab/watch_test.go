package lab

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"postrider/internal/config"
	"postrider/internal/lab/postgres"
	"postrider/internal/sink"
)

const watchPatience = 2 * time.Minute

// look gets a page of the relay's outside.
func look(t *testing.T, r *Relay, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: watchPatience}
	resp, err := client.Get("http://" + r.WatchAddr() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// awaitReady waits until /readyz answers that, with a text that begins so.
func awaitReady(t *testing.T, r *Relay, status int, text string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(watchPatience); ; <-tick.C {
		got, said := look(t, r, "/readyz")
		if got == status && strings.HasPrefix(said, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("/readyz still says %d %s, want %d %s", got, said, status, text)
		}
	}
}

// scrape is what Prometheus would read.
type scrape map[string]*dto.MetricFamily

func scrapeOf(t *testing.T, r *Relay) scrape {
	t.Helper()
	status, text := look(t, r, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d %s", status, text)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	all, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sum adds all series of a metric that have these labels, "name=value" each; of
// histograms it counts the observations.
func (s scrape) sum(name string, labels ...string) (sum float64) {
	for _, m := range s[name].GetMetric() {
		has := 0
		for _, l := range m.GetLabel() {
			if slices.Contains(labels, l.GetName()+"="+l.GetValue()) {
				has++
			}
		}
		if has == len(labels) {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// journal is a log that can be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// startWatched starts a relay whose receivers are known: gmail.com has Google's
// MX, x.test another one, and ill.test has a DNS that fails.
func startWatched(t *testing.T, log io.Writer, mutate func(*config.Config)) *Relay {
	t.Helper()
	s, _ := listen(t, sink.Config{Hostname: "mx.test"})
	handler := slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})
	r, err := Start(context.WithoutCancel(t.Context()), t.TempDir(), slog.New(handler), func(c *config.Config) {
		c.HTTP.Listen = "127.0.0.1:0"
		c.Login = config.Login{Free: 0, Delay: config.Duration(100 * time.Millisecond), Max: config.Duration(time.Second), Reset: config.Duration(time.Minute)}
		c.Delivery.Port = s.Addrs()[0].(*net.TCPAddr).Port
		c.Queue.Retry = []config.Duration{config.Duration(time.Hour)}
		c.Queue.Drain = config.Duration(watchPatience)
		if mutate != nil {
			mutate(c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.DNS.Add("gmail.com. 60 IN MX 10 gmail-smtp-in.l.google.com.", "gmail-smtp-in.l.google.com. 60 IN A 127.0.0.1",
		"x.test. 60 IN MX 10 mx.x.test.", "mx.x.test. 60 IN A 127.0.0.1", "sender.test. 60 IN MX 10 mx.x.test."); err != nil {
		t.Fatal(err)
	}
	r.DNS.Fail("ill.test.", 2) // SERVFAIL
	return r
}

func (r *Relay) hand(t *testing.T, to ...string) {
	t.Helper()
	if err := smtp.SendMail(r.Addr("plain"), smtp.PlainAuth("", r.User, r.Password, "127.0.0.1"), "me@sender.test", to, []byte("Subject: x\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
}

// TestSeenFromOutside sends mail through a relay, and looks at it as Prometheus
// and Grafana do; its log tells the same, and no secret.
func TestSeenFromOutside(t *testing.T) {
	log := new(journal)
	r := startWatched(t, log, nil)
	stopped := false
	defer func() {
		if !stopped {
			r.Stop()
		}
	}()
	awaitReady(t, r, 200, "ok")
	r.hand(t, "ann@gmail.com", "bob@gmail.com")
	r.hand(t, "user-unknown@x.test")
	r.hand(t, "carl@ill.test")
	guesses := guess(t, r)
	deadline := time.Now().Add(watchPatience)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		all, err := r.Deliveries(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for _, d := range all {
			n[d.State]++
		}
		if n["delivered"] == 3 && n["bounced"] == 1 && n["deferred"] == 1 { // one is the DSN
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("states: %v", n)
		}
	}
	s := scrapeOf(t, r)
	for _, want := range []struct {
		n      float64
		name   string
		labels []string
	}{
		{3, "postrider_messages_accepted_total", []string{"stream=transactional"}},
		{4, "postrider_recipients_accepted_total", nil},
		{51, "postrider_accepted_bytes_total", nil},
		{3, "postrider_accept_duration_seconds", nil},
		{2, "postrider_attempts_total", []string{"outcome=delivered", "site=google"}},
		{1, "postrider_attempts_total", []string{"outcome=delivered", "site=other"}},
		{1, "postrider_attempts_total", []string{"outcome=bounced", "site=other"}},
		{1, "postrider_attempts_total", []string{"outcome=deferred", "site=other"}},
		{1, "postrider_failures_total", []string{"category=hard/no-such-mailbox"}},
		{1, "postrider_errors_total", []string{"class=dns_temporary"}},
		{0, "postrider_errors_total", []string{"class=store_unavailable"}},
		{5, "postrider_first_attempt_wait_seconds", nil},
		{4, "postrider_delivery_duration_seconds", nil},
		{1, "postrider_queue_deliveries", []string{"state=deferred", "stream=transactional", "site=other"}},
		{1, "postrider_queue_deliveries", nil},
		{0, "postrider_window_deliveries", nil},
		{0, "postrider_attempts_in_flight", nil},
		{4, "postrider_smtp_sessions_total", []string{"listener=plain"}},
		{3, "postrider_logins_total", []string{"mechanism=PLAIN", "result=ok"}},
		{2, "postrider_logins_total", []string{"result=failed"}},
		{1, "postrider_smtp_refused_total", []string{"stage=auth", "reason=protocol"}},
		{1, "postrider_nodes", []string{"state=alive"}},
		{1, "postrider_ready", nil},
		{1, "postrider_build_info", nil},
	} {
		if got := s.sum(want.name, want.labels...); got != want.n {
			t.Errorf("%s%v is %v, want %v", want.name, want.labels, got, want.n)
		}
	}
	for name, least := range map[string]float64{"postrider_commit_duration_seconds": 5, "postrider_data_free_bytes": 1, "postrider_attempts_in_flight_peak": 1,
		"postrider_logins_throttled_total": 1, "go_goroutines": 1, "process_open_fds": 1, "postrider_delivery_connections": 1} {
		if got := s.sum(name); got < least {
			t.Errorf("%s is %v, want %v or more", name, got, least)
		}
	}
	checkDashboard(t, s)
	if status, _ := look(t, r, "/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("/debug/pprof/ outside: %d", status)
	}

	drain(t, r)
	stopped = true
	checkLog(t, log.String(), append(guesses, r.Password)...)
}

// guess tries logins that fail, and gives what must not be in the log.
func guess(t *testing.T, r *Relay) (secrets []string) {
	t.Helper()
	c, err := textproto.Dial("tcp", r.Addr("plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, step := range []struct {
		line string
		code int
	}{
		{"", 220}, {"EHLO guesser", 250},
		{"AUTH XOAUTH2 " + b64("user="+r.User+"\x01auth=Bearer hushhush1\x01\x01"), 504},
		{"AUTH PLAIN " + b64("\x00"+r.User+"\x00hushhush2"), 535},
		{"AUTH LOGIN", 334}, {b64(r.User), 334}, {b64("hushhush3"), 535},
		{"QUIT", 221},
	} {
		if step.line != "" {
			c.PrintfLine("%s", step.line)
		}
		if _, text, err := c.ReadResponse(step.code); err != nil {
			t.Fatalf("%q: %v %s", step.line, err, text)
		}
	}
	return []string{"hushhush", b64("hushhush3"), b64("\x00" + r.User + "\x00hushhush2"), b64("\x00" + r.User + "\x00" + r.Password)}
}

// drain stops the relay while a message is on its way in: it is not ready any
// more, answers all the same, and ends when the message is in.
func drain(t *testing.T, r *Relay) {
	t.Helper()
	c, err := smtp.Dial(r.Addr("plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Auth(smtp.PlainAuth("", r.User, r.Password, "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("me@sender.test"); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("late@x.test"); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	r.cancel()
	awaitReady(t, r, 503, "draining")
	if status, _ := look(t, r, "/healthz"); status != 200 {
		t.Errorf("/healthz while draining: %d", status)
	}
	if got := scrapeOf(t, r).sum("postrider_ready"); got != 0 {
		t.Errorf("postrider_ready while draining: %v", got)
	}
	fmt.Fprint(w, "Subject: late\r\n\r\nx\r\n")
	if err := w.Close(); err != nil {
		t.Errorf("a message during the drain: %v", err)
	}
	addr := r.WatchAddr()
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("it still listens for who looks after the end")
	}
}

// checkLog wants one object of JSON a line, the ids of what happened to mail, and
// no secret.
func checkLog(t *testing.T, log string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(log, s) {
			t.Errorf("%q is in the log", s)
		}
	}
	wanted := map[string][]string{
		"accepted": {"session", "listener", "client", "message", "sender", "recipients"},
		"delivery": {"delivery", "sender", "recipient", "outcome", "host", "reply"},
	}
	seen := map[string]int{}
	for line := range strings.Lines(log) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		msg, _ := entry["msg"].(string)
		seen[msg]++
		for _, key := range wanted[msg] {
			if _, ok := entry[key]; !ok {
				t.Errorf("no %s in %s", key, line)
			}
		}
	}
	if seen["accepted"] != 4 || seen["delivery"] < 5 || seen["login failed"] != 2 {
		t.Errorf("entries: %v", seen)
	}
}

var metricName = regexp.MustCompile(`\b(postrider|go|process)_[a-z0-9_]+`)

// checkDashboard holds the dashboard to what there is.
func checkDashboard(t *testing.T, s scrape) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "grafana.json"))
	if err != nil {
		t.Fatal(err)
	}
	type panel struct {
		Title   string
		Type    string
		Targets []struct{ Expr string }
	}
	var d struct {
		Title  string
		Panels []panel
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, p := range d.Panels {
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			names := metricName.FindAllString(target.Expr, -1)
			if len(names) == 0 {
				t.Errorf("panel %q: %q has no metric", p.Title, target.Expr)
			}
			for _, name := range names {
				base := name
				for _, part := range []string{"_bucket", "_sum", "_count"} {
					if cut, ok := strings.CutSuffix(name, part); ok && s[cut].GetType() == dto.MetricType_HISTOGRAM {
						base = cut
					}
				}
				if s[base] == nil {
					t.Errorf("panel %q: there is no %s", p.Title, name)
				}
			}
		}
	}
	if want := []string{"Is mail arriving?", "Queue", "Latency", "Errors", "Node"}; !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q", rows, want)
	}
}

// TestReadyWithoutStore takes the store away and brings it back.
func TestReadyWithoutStore(t *testing.T) {
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	url, err := server.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := startWatched(t, t.Output(), func(c *config.Config) { c.Store = config.Store(url) })
	defer func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}()
	awaitReady(t, r, 200, "ok")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, r, 503, "")
	if status, _ := look(t, r, "/healthz"); status != 200 {
		t.Errorf("/healthz without a store: %d", status)
	}
	if err := smtp.SendMail(r.Addr("plain"), smtp.PlainAuth("", r.User, r.Password, "127.0.0.1"), "me@sender.test", []string{"ann@x.test"}, []byte("x\r\n")); err == nil {
		t.Error("mail was taken without a store")
	} else if e, ok := err.(*textproto.Error); !ok || e.Code/100 != 4 {
		t.Errorf("without a store: %v", err)
	}
	s := scrapeOf(t, r)
	if refused := s.sum("postrider_smtp_refused_total", "class=4xx"); refused == 0 || s.sum("postrider_ready") != 0 {
		t.Errorf("%v refused, ready %v", refused, s.sum("postrider_ready"))
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, r, 200, "ok")
	r.hand(t, "ann@x.test")
}
