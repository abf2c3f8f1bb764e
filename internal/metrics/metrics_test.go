package metrics

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"postrider/internal/deliver"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/smtpd"
	"postrider/internal/webhook"
)

func watched(t testing.TB) (*Metrics, *prometheus.Registry, *Health) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m := New(reg, "1.2.3")
	m.Listeners("in")
	h := &Health{Waits: func() string { return "" }, Store: func(context.Context) error { return nil }}
	m.Watch(t.Context(), reg, Sources{Queue: func() queue.Stats { return queue.Stats{InHand: 3, InFlight: 2, Peak: 5, Bytes: 100} },
		Window: 10, WindowBytes: 1000, Connections: func() deliver.Stats { return deliver.Stats{Connections: 4, Idle: 1} },
		Site: func(string) string { return "" }, Throttled: func() uint64 { return 9 }, CertExpires: time.Now, Health: h, Data: os.TempDir(), Store: &counts{}, Node: "me",
		TrackingHosts:  func() map[string]int { return map[string]int{"failing": 4} },
		Suppressed:     func() map[string]int64 { return map[string]int64{relay.ReasonComplaint: 7} },
		OldestFeedback: func(context.Context) (time.Time, error) { return time.Now().Add(-time.Hour), nil },
		Webhooks: func() webhook.Stats {
			return webhook.Stats{Taken: 8, Refused: 2, Events: 30, Served: 5, Failing: 1, Aside: 4, Lag: 3 * time.Second}
		},
		WebhookStates: func(context.Context) (map[relay.WebhookStatus]int, error) {
			return map[relay.WebhookStatus]int{relay.WebhookPaused: 6}, nil
		}})
	return m, reg, h
}

// item is a delivery and what became of it.
func item(kind relay.Kind) (*queue.Item, *relay.Outcome) {
	now := time.Now()
	it := &queue.Item{Message: &relay.Message{Received: now.Add(-time.Second)}, Delivery: &relay.Delivery{Stream: relay.Transactional}}
	return it, &relay.Outcome{Kind: kind, At: now, Attempt: &relay.Attempt{Started: now.Add(-500 * time.Millisecond), Ended: now}}
}

// serve serves the metrics on loopback, and gives how to get a page of it.
func serve(t *testing.T, reg *prometheus.Registry, h *Health) (get func(path string) (int, string), stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, Handler(reg, h, log), log) }()
	get = func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + ln.Addr().String() + path)
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
	return get, func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
			c.Close()
			t.Error("the port is still open")
		}
	}
}

func TestHTTP(t *testing.T) {
	_, reg, h := watched(t)
	get, stop := serve(t, reg, h)
	defer stop()
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/": 404, "/debug/pprof/": 404, "/debug/pprof/profile": 404, "/v1/status": 404} {
		if status, text := get(path); status != want {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	h.Waits = func() string { return "draining" }
	if status, text := get("/readyz"); status != 503 || text != "draining\n" {
		t.Errorf("/readyz: %d %q", status, text)
	}
	if status, text := get("/healthz"); status != 200 || text != "ok\n" {
		t.Errorf("/healthz: %d %q", status, text)
	}
}

// TestObserved counts what is told, and what is pulled.
func TestObserved(t *testing.T) {
	m, reg, h := watched(t)
	m.Session("in", true)
	m.Session("in", true)
	m.Session("in", false)
	m.TurnedAway("in", smtpd.AwayFull)
	m.Login("PLAIN", 535)
	m.Accepted(smtpd.Accepted{Stream: relay.Broadcast, Recipients: 3, Size: 1000, Took: 3 * time.Millisecond})
	m.Refused(smtpd.StageData, smtp.Reply{Code: 452, Enhanced: "4.3.1"})
	it, o := item(relay.EventDelivered)
	m.Settled(it, "google.com", o)
	it, o = item(relay.EventDeferred)
	it.Delivery.Attempts, o.Attempt.Stage, o.Reply.Enhanced = 1, "route", "4.4.3"
	o.Diagnosis.Category = "soft/dns"
	m.Settled(it, "", o)
	m.TLSFailed("example.net")
	full := &relay.Error{Code: relay.Full}
	m.Committed("put", 20*time.Millisecond, []error{nil, full, full})
	m.TookOver(12)
	get, stop := serve(t, reg, h)
	defer stop()
	_, text := get("/metrics")
	for _, want := range []string{
		`postrider_build_info{`, `version="1.2.3"`,
		`postrider_smtp_sessions{listener="in"} 1`, `postrider_smtp_sessions_total{listener="in"} 2`,
		`postrider_smtp_turned_away_total{listener="in",reason="full"} 1`,
		`postrider_logins_total{mechanism="PLAIN",result="failed"} 1`, `postrider_logins_throttled_total 9`,
		`postrider_messages_accepted_total{stream="broadcast"} 1`, `postrider_messages_accepted_total{stream="transactional"} 0`,
		`postrider_recipients_accepted_total{stream="broadcast"} 3`, `postrider_accepted_bytes_total{stream="broadcast"} 1000`,
		`postrider_accept_duration_seconds_bucket{le="0.0025"} 0`, `postrider_accept_duration_seconds_bucket{le="0.005"} 1`,
		`postrider_smtp_refused_total{class="4xx",reason="disk_full",stage="data"} 1`,
		`postrider_attempts_total{outcome="delivered",site="google",stream="transactional"} 1`,
		`postrider_attempts_total{outcome="deferred",site="other",stream="transactional"} 1`,
		`postrider_failures_total{category="soft/dns",site="other"} 1`,
		`postrider_first_attempt_wait_seconds_bucket{stream="transactional",le="0.25"} 0`,
		`postrider_first_attempt_wait_seconds_count{stream="transactional"} 1`,
		`postrider_delivery_duration_seconds_bucket{outcome="delivered",stream="transactional",le="0.5"} 0`,
		`postrider_delivery_duration_seconds_count{outcome="delivered",stream="transactional"} 1`,
		`postrider_attempt_duration_seconds_count{site="google"} 1`,
		`postrider_errors_total{class="dns_temporary"} 1`, `postrider_errors_total{class="tls"} 1`, `postrider_errors_total{class="connect"} 0`,
		`postrider_commit_duration_seconds_bucket{kind="put",le="0.01"} 0`, `postrider_commit_duration_seconds_count{kind="put"} 1`,
		`postrider_commit_batch_size_bucket{kind="put",le="2"} 0`, `postrider_commit_batch_size_bucket{kind="put",le="4"} 1`,
		`postrider_commit_batch_size_count{kind="settle"} 0`, `postrider_errors_total{class="store_full"} 1`,
		`postrider_takeovers_total 1`, `postrider_taken_over_deliveries_total 12`,
		`postrider_window_deliveries 3`, `postrider_window_limit_deliveries 10`, `postrider_window_bytes 100`, `postrider_window_limit_bytes 1000`,
		`postrider_attempts_in_flight 2`, `postrider_attempts_in_flight_peak 5`,
		`postrider_delivery_connections{state="active"} 3`, `postrider_delivery_connections{state="idle"} 1`,
		`postrider_webhook_requests_total{result="taken"} 8`, `postrider_webhook_requests_total{result="refused"} 2`, `postrider_webhook_events_total 30`,
		`postrider_webhook_served{state="ok"} 4`, `postrider_webhook_served{state="failing"} 1`, `postrider_webhook_aside_messages 4`, `postrider_webhook_lag_seconds 3`,
		`postrider_suppressions_added_total{reason="complaint"} 7`, `postrider_feedback_oldest_seconds 3600.`,
		`postrider_webhooks{status="paused"} 6`,
		`postrider_ready 1`, `postrider_data_free_bytes `,
		`postrider_queue_deliveries{site="google",state="queued",stream="transactional"} 3`,
		`postrider_nodes{state="dead"} 1`, `postrider_leased_deliveries{holder="this"} 7`,
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the scrape", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestNames holds the names to Prometheus' conventions, and the document to the
// names: each is explained, and none that is not there.
func TestNames(t *testing.T) {
	_, reg, h := watched(t)
	get, stop := serve(t, reg, h)
	defer stop()
	_, text := get("/metrics")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "postrider_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	for line := range strings.Lines(string(doc)) {
		if rest, ok := strings.CutPrefix(line, "| `postrider_"); ok {
			name, _, _ := strings.Cut(rest, "`")
			explained["postrider_"+name] = true
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if name := f.GetName(); strings.HasPrefix(name, "postrider_") && !explained[name] {
			t.Errorf("docs/metrics.md has no line for %s", name)
		}
		delete(explained, f.GetName())
	}
	for name := range explained {
		t.Errorf("docs/metrics.md explains %s, which is not there", name)
	}
}

// BenchmarkMessage is what counting costs one message of one recipient.
func BenchmarkMessage(b *testing.B) {
	m, _, _ := watched(b)
	it, o := item(relay.EventDelivered)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			m.Accepted(smtpd.Accepted{Stream: relay.Transactional, Recipients: 1, Size: 10_000, Took: time.Millisecond})
			m.Settled(it, "google.com", o)
		}
	})
}
