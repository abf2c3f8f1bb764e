package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/lab"
	"postrider/internal/sink"
)

// call runs a command as main does.
func call(t *testing.T, stdin string, args ...string) (out, errs string, status int) {
	t.Helper()
	return callContext(t.Context(), stdin, args...)
}

func callContext(ctx context.Context, stdin string, args ...string) (out, errs string, status int) {
	var stdout, stderr bytes.Buffer
	status = Main(ctx, &Env{Program: "postrider", Args: args, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr})
	return stdout.String(), stderr.String(), status
}

// ok runs a command that must succeed.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, status := call(t, "", args...)
	if status != 0 {
		t.Fatalf("postrider %s: status %d\n%s%s", strings.Join(args, " "), status, out, errs)
	}
	return out
}

func want(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(out, p) {
			t.Errorf("it lacks %q:\n%s", p, out)
		}
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	out := ok(t, "help")
	for _, c := range commands() {
		want(t, out, c.name)
		help := ok(t, c.name, "-h")
		want(t, help, c.short, "Example:", "postrider "+c.name)
		if same := ok(t, "help", c.name); same != help {
			t.Errorf("help %s differs from %[1]s -h:\n%s", c.name, same)
		}
	}
}

func TestBadWords(t *testing.T) {
	for _, args := range [][]string{{"nonsense"}, {"log", "-nonsense"}, {"log", "word"}, {"message"}, {"credential"},
		{"credential", "add"}, {"queue", "explode"}, {"queue", "cancel"}, {"log", "-since", "whenever"}, {"log", "-outcome", "lost"}, {"log", "-n", "-1"}, {"credential", "add", "-kind", "pass", "x"}, {"sink", "-voice", "none"},
		{"node"}, {"node", "drain"}, {"node", "list", "x"}, {"node", "list", "-undo"},
		{"domain"}, {"domain", "add"}, {"domain", "list", "x"}, {"domain", "explode", "x"}, {"sender"}, {"sender", "add"}, {"sender", "list", "x"}, {"doctor", "x"}} {
		out, errs, status := call(t, "", append(args, place0(args)...)...)
		if status != 2 || errs == "" {
			t.Errorf("%v: status %d, %q %q; want 2 and a reason", args, status, out, errs)
		}
	}
}

// place0 keeps the commands that would look for a server away from this
// machine's own.
func place0(args []string) []string {
	switch args[0] {
	case "log", "message", "credential", "queue", "node", "domain", "sender", "doctor":
		return []string{"-data", "/nonexistent"}
	}
	return nil
}

func TestNoServer(t *testing.T) {
	_, errs, status := call(t, "", "status", "-data", t.TempDir())
	if status != 1 {
		t.Errorf("status %d", status)
	}
	want(t, errs, "no server answers", "postrider serve")
}

func TestConfigPrintsWhatItReads(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.toml")
	os.WriteFile(file, []byte("hostname = \"relay.test\"\n[queue]\nexpire = \"2d\"\n"), 0o600)
	want(t, ok(t, "config", "-config", file), `hostname = "relay.test"`, `expire = "2d"`, "default: ", "# How long a delivery is tried")
	os.WriteFile(file, []byte("hostnme = \"relay.test\"\n"), 0o600)
	_, errs, status := call(t, "", "config", "-config", file)
	if status != 1 {
		t.Errorf("status %d", status)
	}
	want(t, errs, ":1:", "hostnme", `did you mean "hostname"`)
}

// A port that another program has: one line that names the setting.
func TestServeNamesThePortItCannotHave(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "p.toml")
	os.WriteFile(file, fmt.Appendf(nil, "data = %q\n[[listen]]\naddress = %q\n", dir, ln.Addr()), 0o600)
	_, errs, status := call(t, "", "serve", "-config", file)
	if status != 1 || strings.Count(errs, "\n") != 1 {
		t.Errorf("status %d, %q; want one line", status, errs)
	}
	want(t, errs, "listen[0].address", ln.Addr().String(), "another program has it")
}

// fixture is a relay whose mail goes to a sink.
type fixture struct {
	*testing.T
	*lab.Relay
	sink *sink.Server
}

func start(t *testing.T, mutate ...func(*config.Config)) *fixture {
	s, err := sink.New(sink.Config{Keep: 100})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	r := lab.StartRelay(t, func(c *config.Config) {
		c.Route = []config.Route{{Domain: "*", To: s.Addr()}}
		c.Queue.Retry = []config.Duration{config.Duration(time.Hour)}
		for _, m := range mutate {
			m(c)
		}
	})
	return &fixture{t, r, s}
}

// on adds the flag that names the relay.
func (f *fixture) on(args ...string) string {
	f.Helper()
	return ok(f.T, append(args, "-data", f.Dir)...)
}

// send submits without TLS, on the listener that is made for it.
func (f *fixture) send(user, password, from string, to ...string) error {
	host, _, _ := net.SplitHostPort(f.Addr("plain"))
	return smtp.SendMail(f.Addr("plain"), smtp.PlainAuth("", user, password, host), from, to, []byte("Subject: About "+to[0]+"\r\n\r\nHello\r\n"))
}

// until waits for a delivery to come to a state, and gives it.
func (f *fixture) until(recipient, state string) api.Delivery {
	f.Helper()
	late := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var d api.Delivery
		out := f.on("log", "-recipient", recipient, "-json", "-n", "1")
		if json.Unmarshal([]byte(out), &d) == nil && d.State == state {
			return d
		}
		select {
		case <-tick.C:
		case <-late:
			f.Fatalf("%s does not become %s: %s", recipient, state, out)
		}
	}
}

func TestCredentials(t *testing.T) {
	f := start(t)
	var made api.AddedCredential
	if err := json.Unmarshal([]byte(f.on("credential", "add", "webshop", "-json", "-sender", "shop.test")), &made); err != nil {
		t.Fatal(err)
	}
	if err := f.send(made.User, made.Secret, "a@shop.test", "ok@x.test"); err != nil {
		t.Errorf("a new credential: %v", err)
	}
	if err := f.send(made.User, made.Secret, "a@other.test", "ok@x.test"); err == nil || !strings.Contains(err.Error(), "5.7.1") {
		t.Errorf("a sender that is not allowed: %v", err)
	}
	list := f.on("credential", "list")
	want(t, list, "webshop", made.User, "live", "sends as shop.test")
	if strings.Contains(list, made.Secret) {
		t.Error("the list shows the secret")
	}
	want(t, f.on("credential", "revoke", "webshop"), "Revoked smtp \"webshop\"")
	want(t, f.on("credential", "list"), "revoked")
	if err := f.send(made.User, made.Secret, "a@shop.test", "ok@x.test"); err == nil || !strings.Contains(err.Error(), "535") {
		t.Errorf("a revoked credential: %v", err)
	}

	key := strings.Fields(f.on("credential", "add", "-kind", "key", "api"))[2]
	if err := f.send("apikey", key, "a@b.test", "ok@x.test"); err != nil {
		t.Errorf("an API key: %v", err)
	}
	_, errs, status := call(t, "correct horse battery\n", "credential", "add", "-user", "old", "-password-stdin", "legacy", "-data", f.Dir)
	if status != 0 {
		t.Fatalf("bring a password along: %s", errs)
	}
	if err := f.send("old", "correct horse battery", "a@b.test", "ok@x.test"); err != nil {
		t.Errorf("a password that was brought along: %v", err)
	}
	if _, errs, status := call(t, "", "credential", "add", "-kind", "network", "-network", "0.0.0.0/0", "all", "-data", f.Dir); status != 1 || !strings.Contains(errs, "open relay") {
		t.Errorf("a network of everybody: status %d, %s", status, errs)
	}
}

func TestLogAndMessage(t *testing.T) {
	f := start(t)
	for _, to := range []string{"ok@one.test", "user-unknown@one.test", "reply+451-4.7.1@two.test"} {
		if err := f.send(f.User, f.Password, "me@shop.test", to); err != nil {
			t.Fatal(err)
		}
	}
	f.until("ok@one.test", "delivered")
	f.until("user-unknown", "bounced")
	late := f.until("reply+451", "deferred")

	for _, tt := range []struct {
		args  []string
		lines int
	}{
		{[]string{"-recipient", "one.test"}, 2},
		{[]string{"-domain", "two.test"}, 1},
		{[]string{"-outcome", "bounced"}, 1},
		{[]string{"-outcome", "bounced,deferred"}, 2},
		{[]string{"-reply", "user unknown"}, 1},
		{[]string{"-reply", "550 5.1.1"}, 1},
		{[]string{"-sender", "<>", "-recipient", "one.test"}, 0},
		{[]string{"-subject", "about OK"}, 1},
		{[]string{"-message", late.Message}, 1},
		{[]string{"-message", late.HeaderID}, 1},
		{[]string{"-sender", "me@shop.test", "-n", "2"}, 2},
		{[]string{"-sender", "me@shop.test", "-since", "1h"}, 3},
		{[]string{"-sender", "me@shop.test", "-until", "1h"}, 0},
		{[]string{"-recipient", "nobody"}, 0},
	} {
		out := f.on(append([]string{"log"}, tt.args...)...)
		if n := strings.Count(out, "\n"); n != tt.lines {
			t.Errorf("log %v: %d lines, want %d:\n%s", tt.args, n, tt.lines, out)
		}
	}
	story := f.on("message", late.Message)
	want(t, story, "<me@shop.test>", "Credential first", "deferred", "reply+451-4.7.1@two.test", "attempt 1", "from 127.0.0.1", "TLS1.3", "RCPT TO:<reply+451-4.7.1@two.test>", "451 4.7.1")
	if same := f.on("message", late.HeaderID); same != story {
		t.Errorf("by its Message-ID it differs:\n%s", same)
	}
	if _, errs, status := call(t, "", "message", "none@shop.test", "-data", f.Dir); status != 1 || !strings.Contains(errs, "none@shop.test") {
		t.Errorf("a Message-ID that is not there: status %d, %s", status, errs)
	}
	want(t, f.on("message", "-json", late.ID), `"state": "deferred"`)

	// A failure leads to the DSN, and the DSN back.
	dsn, failed := f.until("me@shop.test", "delivered"), f.until("user-unknown", "bounced")
	want(t, f.on("message", failed.Message), "reported: the sender is told by message "+dsn.Message)
	want(t, f.on("message", dsn.Message), "About      message "+failed.Message)
	if _, errs, status := call(t, "", "message", "06bw8sf8dhkx94jkm5k3vz1m3r", "-data", f.Dir); status != 1 {
		t.Errorf("a message that is not there: status %d, %s", status, errs)
	}
}

func TestQueueOrders(t *testing.T) {
	f := start(t)
	for _, to := range []string{"reply+451+1@one.test", "reply+452@two.test", "reply+450@three.test"} {
		if err := f.send(f.User, f.Password, "me@shop.test", to); err != nil {
			t.Fatal(err)
		}
	}
	one, two := f.until("one.test", "deferred"), f.until("two.test", "deferred")
	f.until("three.test", "deferred")
	queue := f.on("queue")
	want(t, queue, one.ID, two.ID, "deferred", "451", "3 in all: 0 queued, 3 deferred, 0 held.")
	// An hour, give or take the jitter.
	if found := regexp.MustCompile(`  in (5\dm|1h0\dm)  `).FindAllString(queue, -1); len(found) != 3 {
		t.Errorf("%d of 3 are due in about an hour:\n%s", len(found), queue)
	}

	want(t, f.on("queue", "-summary"), "DOMAIN", "one.test", "two.test", "451", "3 in all: 3 waiting (3 of them deferred), 0 in hand, 0 held.")
	want(t, f.on("queue", "-summary", "-domain", "two.test", "-json"), `"domain":"two.test"`, `"deferred":1`, `"code":452`)
	if _, errs, status := call(t, "", "queue", "-summary", "-sender", "x", "-data", f.Dir); status != 2 {
		t.Errorf("-summary with a filter: status %d, %s", status, errs)
	}

	want(t, f.on("queue", "hold", two.Message), "Held 1 of 1")
	want(t, f.on("message", two.ID), "held until somebody releases")
	want(t, f.on("queue", "hold", "-domain", "nowhere.test"), "Nothing that waits")
	want(t, f.on("queue", "-domain", "two.test"), "held by an operator")
	want(t, f.on("queue", "cancel", "-domain", "three.test"), "Cancelled 1 of 1")
	f.until("three.test", "cancelled")
	want(t, f.on("queue", "retry", one.ID), "Retrying 1 of 1")
	if d := f.until("one.test", "delivered"); d.Attempts != 2 {
		t.Errorf("delivered after %d attempts, want 2", d.Attempts)
	}
	want(t, f.on("queue", "release", two.ID), "Released 1 of 1")
	f.until("two.test", "deferred")
	_, errs, status := call(t, "", "queue", "cancel", one.ID, "-data", f.Dir)
	if status != 1 {
		t.Errorf("cancel what is delivered: status %d", status)
	}
	want(t, errs, "Nothing can be done")
	want(t, f.on("queue", "cancel", "-all"), "Cancelled 1 of 1")

	var sent api.Sent
	if err := f.API.Post(t.Context(), "/v1/messages", map[string]any{"from": "me@shop.test", "to": []string{"later@one.test"}, "text": "x", "send_at": time.Now().Add(time.Hour)}, &sent); err != nil {
		t.Fatal(err)
	}
	tomorrow := time.Now().Add(24 * time.Hour).Format("2006-01-02T15:04")
	want(t, f.on("queue", "reschedule", sent.ID, "-at", tomorrow), "is not delivered before "+strings.Replace(tomorrow, "T", " ", 1)+":00: 1 of 1 that wait.")
	want(t, f.on("message", sent.ID), "rescheduled", "It is not to be delivered before")
	for _, args := range [][]string{{"reschedule", sent.ID}, {"reschedule", "-at", "90m", sent.ID}, {"reschedule", "-at", tomorrow}, {"-at", tomorrow}, {"hold", "-at", tomorrow, sent.ID}} {
		if _, errs, status := call(t, "", append(append([]string{"queue"}, args...), "-data", f.Dir)...); status != 2 {
			t.Errorf("queue %v: status %d, %s", args, status, errs)
		}
	}
	want(t, f.on("queue", "cancel", sent.ID), "Cancelled 1 of 1")
	want(t, f.on("queue"), "Nothing waits")
}

func TestFollow(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := &until{text: "delivered  <me@shop.test> → <ok@one.test>", found: cancel}
	done := make(chan int)
	go func() {
		done <- Main(ctx, &Env{Args: []string{"log", "-follow", "-data", f.Dir, "-domain", "one.test"}, Stdout: out, Stderr: out})
	}()
	late := time.After(time.Minute)
	for status := -1; status < 0; {
		// The follower sees what happens after it began: send until it has.
		for _, to := range []string{"ok@two.test", "ok@one.test"} {
			if err := f.send(f.User, f.Password, "me@shop.test", to); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case status = <-done:
			if status != 0 {
				t.Errorf("status %d: %s", status, out.String())
			}
		case <-time.After(200 * time.Millisecond):
		case <-late:
			t.Fatalf("the event does not come: %s", out.String())
		}
	}
	if strings.Contains(out.String(), "two.test") {
		t.Errorf("it shows what was not asked for:\n%s", out.String())
	}
}

// until calls found once a text has been written.
type until struct {
	bytes.Buffer
	text  string
	found func()
}

func (u *until) Write(p []byte) (int, error) {
	n, err := u.Buffer.Write(p)
	if strings.Contains(u.String(), u.text) {
		u.found()
	}
	return n, err
}
