package config

import (
	"encoding"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for in, want := range map[string]struct {
		d    time.Duration
		text string
	}{
		"90s":                     {90 * time.Second, "1m30s"},
		"4h":                      {4 * time.Hour, "4h"},
		"5d":                      {120 * time.Hour, "5d"},
		"1d12h":                   {36 * time.Hour, "1d12h"},
		"36h":                     {36 * time.Hour, "1d12h"},
		"1.5h":                    {90 * time.Minute, "1h30m"},
		"250ms":                   {250 * time.Millisecond, "250ms"},
		"1d1.5s":                  {24*time.Hour + 1500*time.Millisecond, "1d1.5s"},
		"15m":                     {15 * time.Minute, "15m"},
		"0":                       {0, "0s"},
		"0d":                      {0, "0s"},
		"1ns":                     {1, "1ns"},
		"106751d23h47m16.854775s": {math.MaxInt64 / 1000 * 1000, "106751d23h47m16.854775s"},
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(in)); err != nil || time.Duration(d) != want.d || d.String() != want.text {
			t.Errorf("%q: got %v as %q, %v; want %v as %q", in, time.Duration(d), d, err, want.d, want.text)
		}
	}
	for _, in := range []string{"", " ", "5", "soon", "-5m", "+5m", "1d-2h", "1.5d", "d", "5 minutes", "1h1d", "1d1d",
		"106752d", "106751d24h", "99999999999999999999d", "9999999999h", "1d5", "NaNs", "1e3s"} {
		d := Duration(7)
		if err := d.UnmarshalText([]byte(in)); err == nil || d != 7 {
			t.Errorf("%q: got %v, want an error", in, d)
		}
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]struct {
		n    int64
		text string
	}{
		"0":                   {0, "0B"},
		"1":                   {1, "1B"},
		"512KB":               {512 << 10, "512KB"},
		"1024KB":              {1 << 20, "1MB"},
		"1025 kb":             {1025 << 10, "1025KB"},
		"25MB":                {25 << 20, "25MB"},
		"25m":                 {25 << 20, "25MB"},
		"25MiB":               {25 << 20, "25MB"},
		"1GB":                 {1 << 30, "1GB"},
		"2tb":                 {2 << 40, "2TB"},
		"1000B":               {1000, "1000B"},
		"1000":                {1000, "1000B"},
		"9223372036854775807": {math.MaxInt64, "9223372036854775807B"},
		"8388607TB":           {8388607 << 40, "8388607TB"},
	} {
		var s Size
		if err := s.UnmarshalText([]byte(in)); err != nil || int64(s) != want.n || s.String() != want.text {
			t.Errorf("%q: got %d as %q, %v; want %d as %q", in, int64(s), s, err, want.n, want.text)
		}
	}
	for _, in := range []string{"", "MB", "-1MB", "+1MB", "1.5GB", "1XB", "1MBB", "1 M B", "9223372036854775808",
		"8388608TB", "99999999999999999999GB", "1KB1", "0x10", "1_000"} {
		s := Size(7)
		if err := s.UnmarshalText([]byte(in)); err == nil || s != 7 {
			t.Errorf("%q: got %d, want an error", in, int64(s))
		}
	}
}

func TestPrefix(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.0/8":             "10.0.0.0/8",
		"192.0.2.1":              "192.0.2.1/32",
		"2001:db8::1":            "2001:db8::1/128",
		"fd00::/8":               "fd00::/8",
		"::ffff:192.0.2.1":       "192.0.2.1/32",
		"::ffff:192.0.2.0/120":   "192.0.2.0/24",
		"::ffff:0.0.0.0/96":      "0.0.0.0/0",
		"2001:DB8:0:0:0::0/32":   "2001:db8::/32",
		"0.0.0.0/0":              "0.0.0.0/0",
		"255.255.255.255":        "255.255.255.255/32",
		"::":                     "::/128",
		"::ffff:10.20.30.40/128": "10.20.30.40/32",
	} {
		var p Prefix
		if err := p.UnmarshalText([]byte(in)); err != nil || p.String() != want {
			t.Errorf("%q: got %q, %v; want %q", in, p, err, want)
		}
	}
	for _, in := range []string{"", "10.0.0.1/8", "10.0.0.0/33", "10.0.0/8", "fe80::1%eth0", "fe80::%eth0/64",
		"localhost", "10.0.0.0/", "10.0.0.0/-1", "::ffff:0.0.0.0/64", "10.0.0.0/08"} {
		var p Prefix
		if err := p.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q: got %q, want an error", in, p)
		}
	}
	var p Prefix
	if err := p.UnmarshalText([]byte("10.1.2.3/8")); err == nil || !strings.Contains(err.Error(), `"10.0.0.0/8"`) {
		t.Errorf("the error for bits outside the mask does not name the network: %v", err)
	}
	if p.String() != "" || Addr(netip.Addr{}).String() != "" {
		t.Error("the zero value is shown as something")
	}
}

func TestPrefixContains(t *testing.T) {
	var p Prefix
	if err := p.UnmarshalText([]byte("10.0.0.0/8")); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{"10.9.8.7": true, "::ffff:10.9.8.7": true, "11.0.0.0": false, "::1": false} {
		if got := p.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s in %s: got %v", addr, p, got)
		}
	}
}

func TestAddr(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":        "192.0.2.1",
		"::ffff:192.0.2.1": "192.0.2.1",
		"2001:DB8::1":      "2001:db8::1",
		"fe80::1%eth0":     "fe80::1%eth0",
	} {
		var a Addr
		if err := a.UnmarshalText([]byte(in)); err != nil || a.String() != want {
			t.Errorf("%q: got %q, %v; want %q", in, a, err, want)
		}
	}
	for _, in := range []string{"", "192.0.2.1/32", "192.0.2", "localhost", "[::1]"} {
		var a Addr
		if err := a.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q: got %q, want an error", in, a)
		}
	}
}

// FuzzText holds that what a type reads, it writes in a form that it reads
// back as the same.
func FuzzText(f *testing.F) {
	for _, s := range []string{"1d12h30m1.5s", "106751d23h47m16.854775807s", "25MB", "1024 kib", "10.0.0.0/8", "::ffff:10.0.0.0/104", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		roundTrip[Duration](t, s)
		roundTrip[Size](t, s)
		roundTrip[Prefix](t, s)
		roundTrip[Addr](t, s)
	})
}

func roundTrip[T comparable, P interface {
	*T
	encoding.TextUnmarshaler
	encoding.TextMarshaler
}](t *testing.T, s string) {
	var first, second T
	if P(&first).UnmarshalText([]byte(s)) != nil {
		return
	}
	text, err := P(&first).MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if err := P(&second).UnmarshalText(text); err != nil || first != second {
		t.Errorf("%T: %q is read as %v, written as %q and read back as %v, %v", first, s, first, text, second, err)
	}
}
