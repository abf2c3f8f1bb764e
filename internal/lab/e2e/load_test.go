package e2e

import (
	"bytes"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"postrider/internal/sink"
)

// traceID finds the id that the relay gave to a message, in the Received field
// that it put in front.
var traceID = regexp.MustCompile(`\sid ([0-9a-z]{26})`)

func byTrace(m *sink.Message) string {
	found := traceID.FindSubmatch(m.Content)
	if found == nil {
		return ""
	}
	return string(found[1])
}

// Ten thousand messages of 10 kB from Postfix's own load generator arrive, each
// once.
func TestLoadArrivesOnce(t *testing.T) {
	const messages = 10_000
	source, err := exec.LookPath("smtp-source")
	if err != nil {
		source = "/usr/sbin/smtp-source"
	}
	to := newReceiver(t, byTrace)
	r := newRelay(t, to.Addr(), "")
	r.start()
	r.run("credential", "add", "-kind", "network", "-network", "127.0.0.1", "load")

	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), source, "-s", "32", "-l", "10240", "-m", "10000",
		"-f", "sender@client.test", "-t", "ann@receiver.test", r.Addr)
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("smtp-source: %v\n%s", err, out.String())
	}
	accepted := time.Since(start)
	within(t, patience, "all messages have arrived", func() bool { return len(to.counts()) >= messages })
	elapsed := time.Since(start)
	r.stop()
	seen := to.counts()
	if len(seen) != messages {
		t.Fatalf("%d messages arrived, %d were sent", len(seen), messages)
	}
	for id, n := range seen {
		if n != 1 || id == "" {
			t.Errorf("message %q arrived %d times", id, n)
		}
	}
	t.Logf("%d messages accepted in %v, delivered in %v", messages, accepted, elapsed)
}
