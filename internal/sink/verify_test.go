package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	netsmtp "net/smtp"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/dns"
	"postrider/internal/lab/fakedns"
	"postrider/internal/mailauth"
)

// The sink says of each message what a receiver finds.
func TestVerify(t *testing.T) {
	key, err := mailauth.NewKey(mailauth.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	zone, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zone.Close)
	if err := zone.Add(fmt.Sprintf("s._domainkey.example.com. 60 IN TXT %q", key.Record()), `example.com. 60 IN TXT "v=spf1 -all"`,
		`bounce.example.com. 60 IN TXT "v=spf1 ip4:127.0.0.1 -all"`, `_dmarc.example.com. 60 IN TXT "v=DMARC1; p=reject"`); err != nil {
		t.Fatal(err)
	}
	resolver, err := dns.New([]string{zone.Addr()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(text string) string {
		fields, err := mailauth.Sign(strings.NewReader(text), time.Now(), mailauth.Signer{Domain: "example.com", Selector: "s", Key: key})
		if err != nil {
			t.Fatal(err)
		}
		return string(fields) + text
	}
	const text = "From: Ann <ann@example.com>\r\nSubject: hello\r\n\r\nHello.\r\n"
	folder := t.TempDir()
	s := start(t, Config{Without: StartTLS, Resolver: resolver, Keep: 100, Capture: 20, Store: folder})
	for i, tt := range []struct{ from, content, want string }{
		{"b@bounce.example.com", signed(text), "dkim=pass (example.com s ed25519-sha256); spf=pass (bounce.example.com); dmarc=pass (example.com, aligned: dkim and spf)"},
		{"a@example.com", signed(text), "dkim=pass (example.com s ed25519-sha256); spf=fail (example.com); dmarc=pass (example.com, aligned: dkim)"},
		{"b@bounce.example.com", text, "dkim=none; spf=pass (bounce.example.com); dmarc=pass (example.com, aligned: spf)"},
		{"a@other.test", signed(text) + "more\r\n", "dkim=fail (example.com s ed25519-sha256); spf=none (other.test); dmarc=fail (example.com, nothing aligned)"},
		{"a@example.com", strings.Replace(text, "Ann <ann@example.com>", "ann@example.com, bob@example.com", 1), "dkim=none; spf=fail (example.com); dmarc=none"},
		{"a@other.test", "no header at all\r\n", "dkim=none; spf=none (other.test); dmarc=none"},
	} {
		if err := netsmtp.SendMail(s.Addr(), nil, tt.from, []string{"x@example.net"}, []byte(tt.content)); err != nil {
			t.Fatal(err)
		}
		m := s.Messages()[i]
		if m.Proof == nil || m.Proof.String() != tt.want {
			t.Errorf("%d: %s, want %s", i, m.Proof, tt.want)
		}
		if len(m.Content) > 20 {
			t.Errorf("%d: captured %d bytes", i, len(m.Content))
		}
	}
	if got := s.Stats(); fmt.Sprint(got.DMARC) != "map[fail:1 none:2 pass:3]" || !strings.Contains(got.String(), "dmarc=pass 3") {
		t.Errorf("counts: %s", got)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(files) != 6 {
		t.Fatalf("stored %v, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var kept struct {
		Proof struct {
			DKIM  []struct{ Domain, Result string }
			DMARC struct {
				Result string
				DKIM   bool `json:"dkim_aligned"`
				SPF    bool `json:"spf_aligned"`
			}
		}
	}
	if err := json.Unmarshal(b, &kept); err != nil || kept.Proof.DMARC.Result != "pass" || !kept.Proof.DMARC.DKIM || !kept.Proof.DMARC.SPF || kept.Proof.DKIM[0].Result != "pass" {
		t.Errorf("stored %s (%v)", b, err)
	}
}

// Run prints what is proved.
func TestRunVerifies(t *testing.T) {
	zone, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zone.Close)
	resolver, err := dns.New([]string{zone.Addr()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	addr := make(chan string, 1)
	var out lineBuffer
	out.line = func(line string) {
		if at, ok := strings.CutPrefix(line, "listening on "); ok {
			addr <- strings.TrimSpace(at)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := Run(ctx, Config{Without: StartTLS, Resolver: resolver}, &out); err != nil {
			t.Error(err)
		}
	})
	if err := netsmtp.SendMail(<-addr, nil, "a@example.com", []string{"x@example.net"}, []byte("From: a@example.com\r\n\r\nx\r\n")); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
	if want := "from <a@example.com> for <x@example.net>: dkim=none; spf=none (example.com); dmarc=none (example.com, nothing aligned)"; !strings.Contains(out.String(), want) {
		t.Errorf("printed %s", out.String())
	}
}

// lineBuffer is a buffer for many that shows each write to a function.
type lineBuffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	line func(string)
}

func (l *lineBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line(string(p))
	return l.b.Write(p)
}

func (l *lineBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
