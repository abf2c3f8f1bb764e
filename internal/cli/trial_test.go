package cli

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"postrider/internal/relay"
)

// A test shows each step, ends as the message does, and says how to go on where
// that takes longer.
func TestTestCommand(t *testing.T) {
	f := start(t)
	if _, errs, status := call(t, "", "test", "-data", f.Dir, "ok@one.test"); status != 1 || !strings.Contains(errs, "postrider domain add") {
		t.Errorf("nobody to send it from: %d %q", status, errs)
	}
	out := ok(t, "test", "-data", f.Dir, "-from", "me@shop.test", "ok@one.test")
	want(t, out, "accepted   + Accepted as", "from <me@shop.test> to <ok@one.test>", "check      ! shop.test is no domain", "What to do: Add it", "dns        + A route", "connect    + 127.0.0.1",
		" from 127.0.0.1: The connection is there.", "< 220 ", "> EHLO ", "> STARTTLS", "TLS1.3 ", "The certificate does not verify", "signature  ! Nobody signs", "> MAIL FROM:<me@shop.test>",
		"> RCPT TO:<ok@one.test>", "> (content, about ", "outcome    + DELIVERED")
	out, errs, status := call(t, "", "test", "-data", f.Dir, "-from", "me@shop.test", "user-unknown@one.test")
	want(t, out, "< 550 ", "outcome    x BOUNCED: ", "What to do: ")
	want(t, errs, "the message was not delivered: it is bounced", "postrider message ")
	if status != 1 {
		t.Errorf("status %d", status)
	}
	out, errs, status = call(t, "", "test", "-data", f.Dir, "-from", "me@shop.test", "-wait", "3s", "reply+451-4.7.1@two.test")
	want(t, out, "< 451 4.7.1", "outcome    ! DEFERRED", "wait       It is tried again at ")
	again := regexp.MustCompile(`postrider test -watch (\w+)"`).FindStringSubmatch(errs)
	if status != 1 || again == nil {
		t.Fatalf("status %d, %q", status, errs)
	}
	ok(t, "queue", "cancel", "-data", f.Dir, again[1])
	out, _, status = call(t, "", "test", "-data", f.Dir, "-json", "-watch", again[1])
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var last relay.Step
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || status != 1 || last.State != "cancelled" || len(lines) < 10 {
		t.Errorf("status %d, %v, last step %+v", status, err, last)
	}
	if _, errs, status := call(t, "", "test", "-data", f.Dir, "nonsense"); status != 1 || !strings.Contains(errs, "nonsense") {
		t.Errorf("no address: %d %q", status, errs)
	}
	for _, args := range [][]string{{}, {"a@b.test", "c@d.test"}, {"-watch", "x", "a@b.test"}, {"-wait", "0s", "a@b.test"}} {
		if _, errs, status := call(t, "", append([]string{"test", "-data", f.Dir}, args...)...); status != 2 || errs == "" {
			t.Errorf("%v: status %d %q", args, status, errs)
		}
	}
}
