package account

import (
	"net/netip"
	"sync"
	"time"
)

// Throttle says how failed logins are slowed.
type Throttle struct {
	Free  int           // failures before answers are delayed
	Delay time.Duration // first delay; doubles with each further failure
	Max   time.Duration
	Reset time.Duration // without a failure, after which they are forgotten
}

// maxTracked bounds the table of failures and that of known clients.
const maxTracked = 100_000

// maxUser is the longest user name, in bytes; names that clients make up are
// cut to it before they are kept.
const maxUser = 128

// failures counts failed logins by address and by user. A user's own address,
// one that logged in before, is not made to pay for what others try with the
// user's name.
type failures struct {
	rule  Throttle
	bound int // of each table

	mu   sync.Mutex
	by   map[string]*failure
	good map[string]struct{} // addresses and users that have logged in
}

type failure struct {
	count int
	last  time.Time
}

func newFailures(rule Throttle) *failures {
	return &failures{rule: rule, bound: maxTracked, by: map[string]*failure{}, good: map[string]struct{}{}}
}

// delay is how long an answer to this client and user must wait. Without a user
// only the client counts; so it does in the other methods.
func (f *failures) delay(now time.Time, client netip.Addr, user string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.count(now, addrKey(client))
	if _, known := f.good[goodKey(client, user)]; user != "" && !known {
		n = max(n, f.count(now, userKey(user)))
	}
	if n <= f.rule.Free {
		return 0
	}
	d := f.rule.Delay
	for i := f.rule.Free + 1; i < n && d > 0 && d < f.rule.Max; i++ {
		d *= 2
	}
	return min(d, f.rule.Max)
}

// known tells whether the user has logged in from this address before.
func (f *failures) known(client netip.Addr, user string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.good[goodKey(client, user)]
	return ok && user != ""
}

// line is the name of those whose logins wait for each other: all of an
// address, but for users that it has logged in as before.
func (f *failures) line(client netip.Addr, user string) string {
	if f.known(client, user) {
		return goodKey(client, user)
	}
	return addrKey(client)
}

// atOnce is how many logins of an address may be under way: as many as it has
// failures free, and one in the end.
func (f *failures) atOnce(now time.Time, client netip.Addr) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(1, f.rule.Free+1-f.count(now, addrKey(client)))
}

func (f *failures) count(now time.Time, key string) int {
	e := f.by[key]
	if e == nil || now.Sub(e.last) > f.rule.Reset {
		return 0
	}
	return e.count
}

func (f *failures) failed(now time.Time, client netip.Addr, user string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range []string{addrKey(client), userKey(user)} {
		if key == userKey("") {
			continue
		}
		e := f.by[key]
		if e == nil || now.Sub(e.last) > f.rule.Reset {
			if len(f.by) >= f.bound {
				f.forget(now)
			}
			e = &failure{}
			f.by[key] = e
		}
		e.count++
		e.last = now
	}
}

func (f *failures) succeeded(client netip.Addr, user string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.by, addrKey(client))
	if user == "" {
		return
	}
	if len(f.good) >= f.bound {
		clear(f.good) // costs known clients one delay at worst
	}
	f.good[goodKey(client, user)] = struct{}{}
}

// forget makes room: all that is over, and where that is not enough, half.
func (f *failures) forget(now time.Time) {
	for key, e := range f.by {
		if now.Sub(e.last) > f.rule.Reset {
			delete(f.by, key)
		}
	}
	for key := range f.by {
		if len(f.by) < f.bound/2 {
			return
		}
		delete(f.by, key)
	}
}

// addrKey counts an IPv6 site, a /64, as one client.
func addrKey(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return "a" + p.String()
		}
	}
	return "a" + a.String()
}

func userKey(user string) string { return "u" + user[:min(len(user), maxUser)] }

func goodKey(client netip.Addr, user string) string { return addrKey(client) + " " + userKey(user) }
