package daemon

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/internal/config"
	"postrider/internal/dns"
	"postrider/internal/relay"
	"postrider/internal/store/sqlite"
)

// TestShelf keeps policies in the store: none that was not put there, and those
// of an earlier start.
func TestShelf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mail.db")
	for start := range 2 {
		db, err := sqlite.Open(t.Context(), file, quiet(t))
		if err != nil {
			t.Fatal(err)
		}
		s := shelf{db}
		if b, err := s.Load(t.Context(), "mta-sts/none.test"); b != nil || err != nil {
			t.Errorf("what is not there: %q, %v", b, err)
		}
		if start == 0 {
			if err := s.Save(t.Context(), "mta-sts/a.test", []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := s.Load(t.Context(), "mta-sts/a.test"); string(b) != "{}" || err != nil {
			t.Errorf("start %d: %q, %v", start, b, err)
		}
		db.Close()
		if b, err := s.Load(t.Context(), "mta-sts/a.test"); err == nil || relay.CodeOf(err) == relay.NotFound {
			t.Errorf("a store that is away: %q, %v", b, err)
		}
	}
}

// TestOutward: what the settings turn on and off.
func TestOutward(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*config.Config)
		want   string
	}{
		{"defaults", func(*config.Config) {}, "sts reports"},
		{"trusted", func(c *config.Config) { c.DNS.Trusted = true }, "dane sts reports"},
		{"trusted, no DANE", func(c *config.Config) { c.DNS.Trusted, c.Asked.DANE = true, false }, "sts reports"},
		{"no MTA-STS", func(c *config.Config) { c.Asked.STS = false }, "reports"},
		{"no reports", func(c *config.Config) { c.Reports.Send = false }, "sts"},
		{"no name", func(c *config.Config) { c.Service.Domain = "" }, "sts"},
	} {
		c := testConfig(t, t.TempDir())
		tt.change(&c)
		resolver, err := dns.New(c.DNS.Servers, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		o, err := (&Daemon{Config: c, log: quiet(t)}).newOutward(resolver)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		if o.policies.TLSA != nil {
			got = append(got, "dane")
		}
		if o.policies.STS != nil {
			got = append(got, "sts")
		}
		if o.counter != nil {
			got = append(got, "reports")
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
}
