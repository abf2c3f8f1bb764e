package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postrider/internal/deliver"
)

// poster sends requests to addresses that strangers chose: to public ones, and to
// those that the operator allows.
type poster struct {
	config Config
	secure *http.Client // for https
	plain  *http.Client // for http, to allowed networks only
	now    func() time.Time
}

func newPoster(c Config) *poster {
	p := &poster{config: c, now: time.Now}
	p.secure, p.plain = p.client("https"), p.client("http")
	return p
}

// allowed tells whether an address may be sent to.
func (p *poster) allowed(a netip.Addr, scheme string) bool {
	private := slices.ContainsFunc(p.config.Private, func(n netip.Prefix) bool { return n.Contains(a.Unmap().WithZone("")) })
	return private || scheme == "https" && deliver.Public(a)
}

func (p *poster) client(scheme string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return p.dial(ctx, network, address, scheme)
			},
			TLSClientConfig:     &tls.Config{RootCAs: p.config.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: p.config.Timeout,
			// No proxy, whatever the environment says: it would dial for us.
			MaxIdleConnsPerHost: 2, MaxIdleConns: 500, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
		},
		// Whoever answers with another address is not the one that was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// errPrivate says that an address is none that events are sent to.
type errPrivate struct{ addr netip.Addr }

func (e errPrivate) Error() string {
	return fmt.Sprintf("its address %s is not one that this relay sends events to", e.addr)
}

// dial connects to an address that was judged itself: what the name means a
// moment later does not matter.
func (p *poster) dial(ctx context.Context, network, address, scheme string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := p.config.Addrs(ctx, host)
	if err != nil {
		return nil, err
	}
	const tries = 4
	failed := errors.New("it has no address")
	for _, a := range addrs[:min(len(addrs), tries)] {
		if !p.allowed(a, scheme) {
			failed = errPrivate{a}
			continue
		}
		dialer := net.Dialer{Timeout: p.config.Timeout / 2}
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		failed = err
	}
	return nil, failed
}

// Answer is what became of a request.
type Answer struct {
	Status int           // HTTP; 0: none came
	Text   string        // the beginning of the body
	Error  string        // why the request counts as failed; empty: it was taken
	Took   time.Duration // until the status was there, or none came
	// Retry is when the receiver wants the next one; zero: it does not say.
	Retry time.Time
}

const (
	mostAnswer = 1 << 10         // bytes of a body that are kept
	mostRead   = 16 << 10        // bytes that are read so that a connection can be used again
	linger     = 2 * time.Second // for the body, once the status is there
)

// post sends a signed request. It takes no longer than the timeout and linger,
// whatever the receiver does.
func (p *poster) post(ctx context.Context, address string, secrets []string, r request) Answer {
	began := p.now()
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	a, err := p.exchange(ctx, cancel, address, secrets, r)
	if a.Took == 0 {
		a.Took = p.now().Sub(began)
	}
	if err != nil {
		a.Error = p.describe(err)
	}
	return a
}

func (p *poster) exchange(ctx context.Context, cancel context.CancelFunc, address string, secrets []string, r request) (a Answer, err error) {
	began := p.now()
	signature, err := sign(secrets, r.id, began, r.body)
	if err != nil {
		return a, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(r.body))
	if err != nil {
		return a, err
	}
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "Postrider")
	if signature != "" {
		h.Set("Webhook-Id", r.id)
		h.Set("Webhook-Timestamp", strconv.FormatInt(began.Unix(), 10))
		h.Set("Webhook-Signature", signature)
	}
	// It is not sent: net/http takes it as leave to send once more where a kept
	// connection turns out to be dead.
	h["Idempotency-Key"] = nil
	client := p.secure
	if req.URL.Scheme == "http" {
		client = p.plain
	}
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a.Status, a.Took = resp.StatusCode, p.now().Sub(began)
	defer time.AfterFunc(linger, cancel).Stop()
	text := make([]byte, mostAnswer)
	n, _ := io.ReadFull(resp.Body, text) // as much as comes in time
	a.Text = printable(string(text[:n]))
	if n == len(text) {
		_, _ = io.CopyN(io.Discard, resp.Body, mostRead) // then the connection is closed
	}
	a.Retry = retryAfter(resp.Header.Get("Retry-After"), p.now())
	switch {
	case a.Status >= 300 && a.Status < 400:
		a.Error = fmt.Sprintf("The receiver answers %d, with another address. Redirects are not followed: give the webhook its final address.", a.Status)
	case a.Status < 200 || a.Status >= 300:
		a.Error = fmt.Sprintf("The receiver answers %d; 200 to 299 says that it has the events.", a.Status)
	}
	return a, nil
}

// retryAfter reads when to come back, in either form (RFC 9110 section 10.2.3).
func retryAfter(value string, now time.Time) time.Time {
	if n, err := strconv.Atoi(value); err == nil && n >= 0 {
		return now.Add(time.Duration(min(n, int(longestWait/time.Second))) * time.Second)
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return at
	}
	return time.Time{}
}

// describe says for people why no answer came.
func (p *poster) describe(err error) string {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // the rest of it is known
	}
	var cert *tls.CertificateVerificationError
	var private errPrivate
	switch {
	case errors.As(err, &private):
		return fmt.Sprintf("The receiver was not asked: %v. The operator can allow networks with webhooks.allow_private.", private)
	case errors.As(err, &cert):
		return printable("The receiver's certificate does not verify: " + cert.Err.Error() + ".")
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("No answer came within %v.", p.config.Timeout)
	case errors.Is(err, context.Canceled):
		return "The relay stopped before an answer came."
	}
	return printable("The receiver can't be asked: " + err.Error() + ".")
}

// printable is a text on one line, without what would disturb a terminal.
func printable(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "")))
}
