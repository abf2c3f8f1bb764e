package domain

import (
	"slices"
	"time"

	"postrider/internal/relay"
)

// News are what a check changed, as the relay's log has it. The audit log has the
// domain before and after.
const (
	NewsVerified   = "domain.verified"
	NewsUnverified = "domain.unverified" // after the grace period, as its settings say
	NewsFailing    = "domain.failing"    // a record that was there is missing
	NewsRestored   = "domain.restored"
	NewsAligned    = "domain.aligned" // mail leaves with its return path
	NewsUnaligned  = "domain.unaligned"
	NewsSigning    = "domain.key.signing"
	NewsGone       = "domain.key.gone" // a retired key need not be published any more
)

// Rhythm is how often domains are looked at, and how long a record may be gone.
type Rhythm struct {
	Every time.Duration // between checks of a domain that is in order
	Grace time.Duration
}

// Advance is what becomes of a domain by what was found at now. d stays as it
// is. What could not be learned changes nothing.
func Advance(d *relay.Domain, findings []relay.Finding, now time.Time, r Rhythm) (next *relay.Domain, news []string) {
	n := *d
	n.Keys = slices.Clone(d.Keys)
	n.Findings, n.Checked = findings, now
	tell := func(what string) { news = append(news, what) }
	proof := status(findings, Ownership, "")

	// Mail that leaves with a return path that does not exist is refused, so
	// there is no grace here; it goes on without.
	switch path := status(findings, ReturnPath, ""); {
	case path == relay.Good && n.Aligned.IsZero():
		n.Aligned = now
		tell(NewsAligned)
	case (path == relay.Bad || path == relay.Warning || path == "") && !n.Aligned.IsZero():
		n.Aligned = time.Time{}
		tell(NewsUnaligned)
	}
	for _, what := range turnKeys(&n, findings, now) {
		tell(what)
	}

	was := !n.Verified.IsZero() || !n.Failing.IsZero() // else there is nothing to lose yet
	lost, unsure := was && proof == relay.Bad, proof == relay.Unknown
	for _, k := range n.Keys {
		if was && k.State == relay.KeySigning {
			s := status(findings, DKIM, keyName(k.Selector, d.Name))
			lost, unsure = lost || s == relay.Bad, unsure || s == relay.Unknown
		}
	}
	switch {
	case lost && n.Failing.IsZero():
		n.Failing = now
		tell(NewsFailing)
	case !lost && !unsure && !n.Failing.IsZero():
		n.Failing = time.Time{}
		tell(NewsRestored)
	}
	over := lost && !n.Failing.IsZero() && now.Sub(n.Failing) >= r.Grace && n.Broken == relay.BrokenSandbox
	switch {
	case over && !n.Verified.IsZero():
		n.Verified = time.Time{}
		tell(NewsUnverified)
	case proof == relay.Good && n.Verified.IsZero() && !over:
		n.Verified = now
		tell(NewsVerified)
	}
	n.Due = now.Add(wait(&n, findings, now, r))
	return &n, news
}

// status is that of the finding of a check; name is empty where there is one
// only. Empty: there is none.
func status(findings []relay.Finding, check, name string) relay.Verdict {
	for _, f := range findings {
		if f.Check == check && (name == "" || f.Name == name) {
			return f.Status
		}
	}
	return ""
}

// turnKeys lets keys sign that are seen, retires those before them, and drops
// those that have been retired for long enough.
func turnKeys(n *relay.Domain, findings []relay.Finding, now time.Time) (news []string) {
	for i, k := range n.Keys {
		if k.State != relay.KeyWaiting || status(findings, DKIM, keyName(k.Selector, n.Name)) != relay.Good {
			continue
		}
		for o := range n.Keys {
			if old := &n.Keys[o]; old.State == relay.KeySigning && old.Algorithm == k.Algorithm {
				old.State, old.Since = relay.KeyRetired, now
			}
		}
		n.Keys[i].State, n.Keys[i].Since = relay.KeySigning, now
		news = append(news, NewsSigning)
	}
	before := len(n.Keys)
	n.Keys = slices.DeleteFunc(n.Keys, func(k relay.DKIMKey) bool {
		return k.State == relay.KeyRetired && now.Sub(k.Since) >= RetiredFor
	})
	if len(n.Keys) < before {
		news = append(news, NewsGone)
	}
	return slices.Compact(news)
}

// wait is how long until the next check: short while its owner is likely to be
// busy with it.
func wait(n *relay.Domain, findings []relay.Finding, now time.Time, r Rhythm) time.Duration {
	since := time.Time{}
	if n.Verified.IsZero() {
		since = n.Created
	}
	for _, k := range n.Keys {
		if k.State == relay.KeyWaiting && k.Since.After(since) {
			since = k.Since
		}
	}
	unsure := slices.ContainsFunc(findings, func(f relay.Finding) bool { return f.Status == relay.Unknown })
	const hour = time.Hour
	switch age := now.Sub(since); {
	case since.IsZero() || age >= 14*24*hour:
		if unsure || !n.Failing.IsZero() {
			return min(hour, r.Every)
		}
		return r.Every
	case age < hour:
		return min(time.Minute, r.Every)
	case age < 24*hour:
		return min(10*time.Minute, r.Every)
	default:
		return min(hour, r.Every)
	}
}
