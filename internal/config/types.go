package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// What people are asked for when a value is none.
const (
	wantDuration = `a duration such as "90s", "4h" or "1d12h"`
	wantSize     = `a size such as "512KB", "25MB" or "1GB"`
	wantPrefix   = `a network such as "10.0.0.0/8", or an address`
	wantPercent  = `a share such as "5%" or "0.1%"`
	wantAddr     = `an IP address such as "192.0.2.25"`
)

// Duration is a time.Duration written as "90s", "4h", "5d" or "1d12h". A day
// is 24 hours. No duration is negative.
type Duration time.Duration

// String writes d in the largest units that say it exactly.
func (d Duration) String() string {
	rest := time.Duration(d)
	if rest <= 0 {
		return rest.String()
	}
	var b strings.Builder
	for _, u := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if n := rest / u.size; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10))
			b.WriteString(u.name)
			rest %= u.size
		}
	}
	if rest > 0 {
		b.WriteString(rest.String())
	}
	return b.String()
}

// MarshalText writes what String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads whole days followed by whatever time.ParseDuration
// takes. Its errors are for people.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	bad := fmt.Errorf("%s is not %s", quote(s), wantDuration)
	if s == "" {
		return bad
	}
	if strings.ContainsAny(s, "+-") {
		return bad
	}
	var days, rest time.Duration
	if whole, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(whole, 10, 63)
		if err != nil {
			return bad
		}
		const most = uint64(math.MaxInt64 / (24 * time.Hour))
		if n > most {
			return fmt.Errorf("%s is too long; the most is %dd", quote(s), most)
		}
		days, s = time.Duration(n)*24*time.Hour, after
	}
	if s != "" {
		var err error
		if rest, err = time.ParseDuration(s); err != nil {
			return bad
		}
	}
	if days > math.MaxInt64-rest {
		return bad
	}
	*d = Duration(days + rest)
	return nil
}

// setInt takes the one number that needs no unit.
func (d *Duration) setInt(n int64) error {
	if n != 0 {
		return fmt.Errorf("%d has no unit; want %s", n, wantDuration)
	}
	*d = 0
	return nil
}

// Size is a number of bytes written as "512KB", "25MB", "1GB" or plainly;
// K is 1024. No size is negative.
type Size int64

const (
	kb Size = 1 << 10
	mb Size = 1 << 20
	gb Size = 1 << 30
	tb Size = 1 << 40
)

// String writes s in the largest unit that says it exactly.
func (s Size) String() string {
	unit, name := Size(1), "B"
	for _, u := range []struct {
		size Size
		name string
	}{{tb, "TB"}, {gb, "GB"}, {mb, "MB"}, {kb, "KB"}} {
		if s >= u.size && s%u.size == 0 {
			unit, name = u.size, u.name
			break
		}
	}
	return strconv.FormatInt(int64(s/unit), 10) + name
}

// MarshalText writes what String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a whole number and a unit: none or B, K, KB, KiB and so
// on to T, in either case. Its errors are for people.
func (s *Size) UnmarshalText(text []byte) error {
	in := string(text)
	digits := strings.TrimRight(in, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%s is not %s", quote(in), wantSize)
	}
	var unit Size
	switch strings.ToUpper(strings.TrimSpace(in[len(digits):])) {
	case "", "B":
		unit = 1
	case "K", "KB", "KIB":
		unit = kb
	case "M", "MB", "MIB":
		unit = mb
	case "G", "GB", "GIB":
		unit = gb
	case "T", "TB", "TIB":
		unit = tb
	default:
		return fmt.Errorf("%s is not %s", quote(in), wantSize)
	}
	if err != nil || n > uint64(math.MaxInt64/unit) {
		return fmt.Errorf("%s is too large", quote(in))
	}
	*s = Size(n) * unit
	return nil
}

func (s *Size) setInt(n int64) error {
	if n < 0 {
		return fmt.Errorf("%d is not %s", n, wantSize)
	}
	*s = Size(n)
	return nil
}

// Percent is a share written as "5%" or "0.1%".
type Percent float64

// String writes p as it is read.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// MarshalText writes what String does.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a number from 0 to 100 and a percent sign. Its errors are
// for people.
func (p *Percent) UnmarshalText(text []byte) error {
	digits, ok := strings.CutSuffix(strings.TrimSpace(string(text)), "%")
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(n >= 0 && n <= 100) {
		return fmt.Errorf("%s is not %s", quote(string(text)), wantPercent)
	}
	*p = Percent(n)
	return nil
}

// Prefix is a network, "10.0.0.0/8"; a single address stands for itself.
type Prefix netip.Prefix

// Contains reports whether a is in the network. An IPv4 address written as
// IPv6 counts as IPv4.
func (p Prefix) Contains(a netip.Addr) bool {
	return netip.Prefix(p).Contains(a.Unmap().WithZone(""))
}

// String writes the network in CIDR form, "" for none.
func (p Prefix) String() string {
	if !netip.Prefix(p).IsValid() {
		return ""
	}
	return netip.Prefix(p).String()
}

// MarshalText writes what String does.
func (p Prefix) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a network or an address. IPv4 written as IPv6 becomes
// IPv4. Bits outside the mask are refused: they are mostly a slip.
func (p *Prefix) UnmarshalText(text []byte) error {
	s := string(text)
	bad := fmt.Errorf("%s is not %s", quote(s), wantPrefix)
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return bad
		}
		a = a.Unmap()
		*p = Prefix(netip.PrefixFrom(a, a.BitLen()))
		return nil
	}
	n, err := netip.ParsePrefix(s)
	if err != nil {
		return bad
	}
	if n.Addr().Is4In6() {
		if n.Bits() < 96 {
			return bad
		}
		n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	if m := n.Masked(); m != n {
		return fmt.Errorf("%s is an address inside a network; write %q or %q",
			quote(s), m, n.Addr())
	}
	*p = Prefix(n)
	return nil
}

// Addr is an IP address.
type Addr netip.Addr

// String writes the address, "" for none.
func (a Addr) String() string {
	if !netip.Addr(a).IsValid() {
		return ""
	}
	return netip.Addr(a).String()
}

// MarshalText writes what String does.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads an address. IPv4 written as IPv6 becomes IPv4.
func (a *Addr) UnmarshalText(text []byte) error {
	n, err := netip.ParseAddr(string(text))
	if err != nil {
		return fmt.Errorf("%s is not %s", quote(string(text)), wantAddr)
	}
	*a = Addr(n.Unmap())
	return nil
}

// quote shows what was written, cut where it is endless.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
