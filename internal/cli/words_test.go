package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/relay"
)

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.Local)
	for s, want := range map[string]time.Time{
		"2026-01-31":           time.Date(2026, 1, 31, 0, 0, 0, 0, time.Local),
		"2026-01-31T15:04":     time.Date(2026, 1, 31, 15, 4, 0, 0, time.Local),
		"2026-01-31 15:04:05":  time.Date(2026, 1, 31, 15, 4, 5, 0, time.Local),
		"2026-01-31T15:04:05Z": time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC),
		"09:30":                time.Date(2026, 3, 14, 9, 30, 0, 0, time.Local),
		"90m":                  now.Add(-90 * time.Minute),
		"2d":                   now.Add(-48 * time.Hour),
		"1.5w":                 now.Add(-252 * time.Hour),
	} {
		if got, err := parseTime(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"whenever", "-5m", "-2d", "25:00", "d", "5"} {
		if got, err := parseTime(s, now); err == nil {
			t.Errorf("%q: %v; want an error", s, got)
		}
	}
}

// What is copied from the log, or written as people write, is understood.
func TestSearchWords(t *testing.T) {
	s := search{recipient: "<ann@example.com>", sender: "<>", message: "06BW8SF8DHKX94JKM5K3VZ1M3R-2", outcome: "Bounced, expired", domain: "@example.com"}
	q, err := s.query(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"recipient": "ann@example.com", "sender": "<>", "message": "06bw8sf8dhkx94jkm5k3vz1m3r",
		"state": "bounced,expired", "domain": "example.com"} {
		if got := q.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	s = search{limit: -1}
	if _, err := s.query(time.Now()); err == nil {
		t.Error("-n -1 is taken")
	}
}

func TestPrintReply(t *testing.T) {
	var b bytes.Buffer
	printReply(&b, relay.Reply{Code: 250, Text: "mx.test\nSIZE\x1b 100"})
	printReply(&b, relay.Reply{Code: 354})
	printReply(&b, relay.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such user"})
	const want = "      < 250-mx.test\n      < 250 SIZE? 100\n      < 354\n      < 550 5.1.1 No such user\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestWhy(t *testing.T) {
	past, later := time.Now().Add(-time.Second), time.Now().Add(time.Hour)
	greylisted := relay.Reply{Code: 451, Text: "Greylisted"}
	for want, d := range map[string]api.Delivery{
		"held by an operator":                   {State: "held", Reply: greylisted},
		"451 Greylisted":                        {State: "deferred", Due: &later, Reply: greylisted},
		"Come back later. (451 Greylisted)":     {State: "deferred", Due: &later, Reply: greylisted, Diagnosis: relay.Diagnosis{Text: "Come back later."}},
		"not to be sent before then":            {State: "queued", Due: &later},
		"waits for its turn, or is being tried": {State: "queued", Due: &past},
	} {
		if got := why(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// An operator's order ends the waiting: nobody is told to wait on.
func TestStoryOfWhatWasStopped(t *testing.T) {
	d := api.Delivery{ID: "x-1", State: "cancelled", Diagnosis: relay.Diagnosis{Text: "Greylisted.", Advice: "Nothing: it is tried again."}}
	for state, advice := range map[string]bool{"deferred": true, "held": false, "cancelled": false, "bounced": true} {
		d.State = state
		var b bytes.Buffer
		printStory(&b, &api.Story{Deliveries: []api.Delivery{d}})
		if strings.Contains(b.String(), "What to do") != advice {
			t.Errorf("%s: advice wanted: %v\n%s", state, advice, b.String())
		}
	}
}

// A story tells what its message was sent with, and what its recipient did.
func TestStoryTellsWhatIsKnown(t *testing.T) {
	var b bytes.Buffer
	printStory(&b, &api.Story{Client: "192.0.2.7", Protocol: "HTTP", Listener: "api", Stream: "broadcast", Script: "cart.php", Tags: []string{"order", "first"},
		Metadata: map[string]string{"order": "1001", "by": "web"}, Deliveries: []api.Delivery{{ID: "x-1", State: "delivered"}}, Events: []api.Event{
			{Delivery: "x-1", Kind: "clicked", Engagement: &relay.Engagement{URL: "https://shop.test/?a", Client: netip.MustParseAddr("192.0.2.9"), UserAgent: "Mozilla\x1b", Machine: "link check"}},
			{Delivery: "x-1", Kind: "unsubscribed", Engagement: &relay.Engagement{Method: "one-click", Group: "news"}}}})
	for _, want := range []string{"Client     192.0.2.7, by HTTP on api\n", "Stream     broadcast\n", "Script     cart.php\n", "Tags       order, first\n", "Metadata   by:web\nMetadata   order:1001\n",
		"clicked: https://shop.test/?a, by a machine: link check, from 192.0.2.9, with Mozilla?\n", "unsubscribed: by one-click, group news\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// A line says what the receiver said, or why none was asked.
func TestLogLineSaysWhy(t *testing.T) {
	why := relay.Diagnosis{Text: "It is on the list."}
	for want, d := range map[string]api.Delivery{"  It is on the list.": {State: "cancelled", Diagnosis: why}, "  550 No": {State: "bounced", Diagnosis: why, Reply: relay.Reply{Code: 550, Text: "No"}}} {
		if line := logLine(d); !strings.HasSuffix(line, want) {
			t.Errorf("%q does not end with %q", line, want)
		}
	}
}

// What the recipient did stands with the state.
func TestLogLineTellsWhatHappened(t *testing.T) {
	for want, d := range map[string]api.Delivery{"  delivered, opened, complained  <": {State: "delivered", Happened: []string{"opened", "complained"}}, "  delivered  <": {State: "delivered"}, "  expired    <": {State: "expired"}} {
		if line := logLine(d); !strings.Contains(line, want) {
			t.Errorf("no %q in %q", want, line)
		}
	}
}

// What recipients did is asked for like a state, also of events as they come.
func TestLogByWhatHappened(t *testing.T) {
	s := search{outcome: "Complained, bounced,opened"}
	q, err := s.query(time.Now())
	if err != nil || q.Get("state") != "complained,bounced,opened" {
		t.Fatalf("it asks for %v, %v", q, err)
	}
	if q, err = live(q, ""); err != nil || q.Get("kind") != "complained,bounced,opened" {
		t.Errorf("it follows %v, %v", q, err)
	}
}

// Who asks for another event as if it were an outcome is told where it is.
func TestLogOfEvents(t *testing.T) {
	for _, args := range [][]string{{"-outcome", "feedback"}, {"-event", "complained"}} {
		if _, errs, status := call(t, "", append([]string{"log"}, args...)...); status != 2 || !strings.Contains(errs, "-since 7d") {
			t.Errorf("%v: status %d, %q", args, status, errs)
		}
	}
}

// Nobody takes a part of the log for the whole.
func TestLogSaysThatThereIsMore(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, api.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		json.NewEncoder(w).Encode(api.List[api.Delivery]{Data: make([]api.Delivery, n), Next: "more"})
	})}
	go s.Serve(ln)
	defer s.Close()
	out, errs, status := call(t, "", "log", "-data", dir)
	if n := strings.Count(out, "\n"); status != 0 || n != usual || !strings.Contains(errs, "there are more") {
		t.Errorf("status %d, %d lines, %q", status, n, errs)
	}
	if out, errs, _ := call(t, "", "log", "-data", dir, "-n", "7"); strings.Count(out, "\n") != 7 || errs != "" {
		t.Errorf("-n 7: %q", errs)
	}
}

// Whoever follows the log goes on when the server comes back.
func TestFollowOutlivesTheServer(t *testing.T) {
	dir := t.TempDir()
	asked := make(chan string, 100) // Last-Event-ID
	events := "retry: 2000\n\nid: 06bw8sf8dhkx94jkm5k3vz1m00\ndata: {\"kind\":\"accepted\",\"recipient\":\"before@one.test\"}\n\n"
	serve := func(events string) *http.Server {
		ln, err := net.Listen("unix", filepath.Join(dir, api.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Write([]byte(events))
			w.(http.Flusher).Flush()
			asked <- r.Header.Get("Last-Event-ID")
			<-r.Context().Done()
		})}
		go s.Serve(ln)
		return s
	}
	s := serve(events)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := &until{text: "<ok@one.test>", found: cancel}
	waiting := make(chan bool, 1)
	errs := &until{text: "Waiting for the server", found: func() { waiting <- true }}
	done := make(chan int)
	go func() {
		done <- Main(ctx, &Env{Args: []string{"log", "-follow", "-data", dir}, Stdout: out, Stderr: errs})
	}()
	came := []string{<-asked}
	s.Close()
	<-waiting
	events = "id: 06bw8sf8dhkx94jkm5k3vz1m3r\ndata: {\"kind\":\"delivered\",\"recipient\":\"ok@one.test\"}\n\n"
	s = serve(events)
	defer s.Close()
	came = append(came, <-asked)
	if status := <-done; status != 0 || out.String() == "" {
		t.Errorf("status %d, %q, %q", status, out.String(), errs.String())
	}
	if want := []string{"", "06bw8sf8dhkx94jkm5k3vz1m00"}; !slices.Equal(came, want) {
		t.Errorf("it came with %q, want %q", came, want)
	}
}
