package account

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	noon   = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	victim = netip.MustParseAddr("192.0.2.1")
	bot    = netip.MustParseAddr("198.51.100.7")
)

func TestThrottleGrows(t *testing.T) {
	f := newFailures(Throttle{Free: 2, Delay: time.Second, Max: 5 * time.Second, Reset: time.Hour})
	for i, want := range []time.Duration{0, 0, 0, 1, 2, 4, 5, 5, 5} {
		if got := f.delay(noon, bot, "bob"); got != want*time.Second {
			t.Errorf("after %d failures: %v; want %v", i, got, want*time.Second)
		}
		f.failed(noon, bot, "bob")
	}
	free := newFailures(Throttle{Free: 0, Delay: 0, Max: time.Second, Reset: time.Hour})
	for range 10 {
		free.failed(noon, bot, "bob")
	}
	if d := free.delay(noon, bot, "bob"); d != 0 {
		t.Errorf("delays are turned off, and it is %v", d)
	}
}

func TestThrottleWhoPays(t *testing.T) {
	for _, tt := range []struct {
		name         string
		failed       func(f *failures, n int) // one failure
		client, user string
		slowed       bool
	}{
		{"same address, other user", by("198.51.100.7", "bob"), "198.51.100.7", "eve", true},
		{"same address, a key", by("198.51.100.7", "bob"), "198.51.100.7", "", true},
		{"other address, same user", by("198.51.100.7", "bob"), "203.0.113.5", "bob", true},
		{"other address, other user", by("198.51.100.7", "bob"), "203.0.113.5", "eve", false},
		{"known address, its user", by("198.51.100.7", "bob"), victim.String(), "bob", false},
		{"known address, its user, own failures", by(victim.String(), "bob"), victim.String(), "bob", true},
		{"known address, another user", by("198.51.100.7", "eve"), victim.String(), "eve", true},
		{"neighbour in the same /64", by("2001:db8::1", "bob"), "2001:db8::ffff:1", "eve", true},
		{"many neighbours", func(f *failures, n int) {
			f.failed(noon, netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n)), fmt.Sprint(n))
		}, "2001:db8::abcd", "eve", true},
		{"another /64", by("2001:db8::1", "bob"), "2001:db8:0:1::1", "eve", false},
		{"IPv4 as IPv6", by("::ffff:198.51.100.7", "bob"), "198.51.100.7", "eve", true},
		{"other IPv4 as IPv6", by("::ffff:198.51.100.7", "bob"), "::ffff:198.51.100.8", "eve", false},
		{"link-local with a zone", by("fe80::1%eth0", "bob"), "fe80::2%eth0", "eve", true},
		{"key, then another's key", by("198.51.100.7", ""), "203.0.113.5", "", false},
		{"over-long user names", by("198.51.100.7", strings.Repeat("x", 9000)), "203.0.113.5", strings.Repeat("x", 9000), true},
	} {
		f := newFailures(testRule)
		f.succeeded(victim, "bob")
		for n := range testRule.Free + 1 {
			tt.failed(f, n)
		}
		if d := f.delay(noon, netip.MustParseAddr(tt.client), tt.user); (d > 0) != tt.slowed {
			t.Errorf("%s: delay %v; want slowed %v", tt.name, d, tt.slowed)
		}
	}
}

func by(client, user string) func(*failures, int) {
	return func(f *failures, _ int) { f.failed(noon, netip.MustParseAddr(client), user) }
}

func TestThrottleForgets(t *testing.T) {
	f := newFailures(testRule)
	for range testRule.Free + 3 {
		f.failed(noon, bot, "bob")
	}
	if f.delay(noon.Add(testRule.Reset), bot, "bob") == 0 {
		t.Error("forgotten too early")
	}
	late := noon.Add(testRule.Reset + time.Second)
	if d := f.delay(late, bot, "bob"); d != 0 {
		t.Errorf("not forgotten: %v", d)
	}
	f.failed(late, bot, "bob")
	if d := f.delay(late, bot, "bob"); d != 0 {
		t.Errorf("one failure after the reset weighs like many: %v", d)
	}

	for range testRule.Free + 3 {
		f.failed(late, bot, "bob")
	}
	f.succeeded(bot, "eve") // the address has shown that it is somebody's
	if d := f.delay(late, bot, "eve"); d != 0 {
		t.Errorf("address that logged in: %v", d)
	}
	if d := f.delay(late, bot, "bob"); d == 0 {
		t.Error("logging in as eve gives free guesses at bob")
	}
}

func TestThrottleIsBounded(t *testing.T) {
	f := newFailures(testRule)
	const bound = 1000
	f.bound = bound
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	long := strings.Repeat("x", 9000)
	for i := range 10 * bound {
		f.failed(noon, addr(i), fmt.Sprint(i, long))
		if len(f.by) > bound {
			t.Fatalf("%d failures are kept", len(f.by))
		}
	}
	for key := range f.by {
		if len(key) > maxUser+1 {
			t.Fatalf("a key of %d bytes is kept", len(key))
		}
	}
	if len(f.by) < bound/3 {
		t.Errorf("only %d are left", len(f.by))
	}
	// What is over goes first.
	late := noon.Add(testRule.Reset + time.Second)
	for len(f.by) < bound {
		f.failed(noon, addr(len(f.by)+1<<20), "")
	}
	f.failed(late, bot, "")
	if len(f.by) != 1 {
		t.Errorf("%d failures are kept after all but one were over", len(f.by))
	}
	for i := range 10 * bound {
		f.succeeded(addr(i), long)
	}
	if len(f.good) > bound {
		t.Errorf("%d good clients are kept", len(f.good))
	}
}
