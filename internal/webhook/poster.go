package webhook

import (
	"context"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Poster posts what other parts of the relay have to say to addresses that
// strangers chose, as events are posted: signed, to public addresses or those that
// the operator allows, and never for long.
type Poster struct{ poster *poster }

// NewPoster makes a poster. Of the configuration, it needs what sending needs.
func NewPoster(c Config) *Poster { return &Poster{newPoster(c)} }

// Post sends a body of JSON. Without secrets it is not signed.
func (p *Poster) Post(ctx context.Context, address string, secrets []string, id string, body []byte) Answer {
	return p.poster.post(ctx, address, secrets, request{id: id, body: body})
}

// Check refuses an address that nothing could be sent to, with a relay.Error.
func (p *Poster) Check(address string) error { return p.poster.check(address) }

// NewSecret makes a secret that requests are signed with.
func NewSecret() string { return newSecret() }

// Backoff is when to try again after that many failures, or when the receiver
// asked for it, if that is later.
func Backoff(failures int, now, asked time.Time) time.Time {
	return backoff(waits(), failures, now, asked)
}

// check refuses what no event could be sent to. What the name of the host leads
// to is judged each time that it is connected to.
func (p *poster) check(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || len(address) > mostURL || u.Scheme != "https" && u.Scheme != "http" {
		return invalid("Use one such as https://example.com/hooks/mail, without a user name or a #.", "%.100q is not an address that events can be posted to.", address)
	}
	if u.Scheme == "http" && len(p.config.Private) == 0 {
		return invalid("Use https. The operator can allow private networks with webhooks.allow_private; http is for those.", "Events are not sent without TLS.")
	}
	if a, err := netip.ParseAddr(strings.Trim(u.Hostname(), "[]")); err == nil && !p.allowed(a, u.Scheme) {
		return invalid("Use a public address. The operator can allow networks with webhooks.allow_private.", "%s is not an address that this relay sends events to.", a)
	}
	return nil
}

// CheckSecret refuses what is no secret that requests are signed with.
func CheckSecret(secret string) error {
	_, err := sign([]string{secret}, "", time.Time{}, nil)
	return err
}
