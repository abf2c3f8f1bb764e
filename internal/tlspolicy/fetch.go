package tlspolicy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// Results of a session or of a policy that failed, as reports name them (RFC
// 8460 section 4.3).
const (
	NoSTARTTLS      = "starttls-not-supported"
	HostMismatch    = "certificate-host-mismatch"
	CertExpired     = "certificate-expired"
	CertUntrusted   = "certificate-not-trusted"
	Invalid         = "validation-failure"
	TLSAInvalid     = "tlsa-invalid"
	DNSSECInvalid   = "dnssec-invalid"
	DANERequired    = "dane-required"
	STSFetchError   = "sts-policy-fetch-error"
	STSInvalid      = "sts-policy-invalid"
	STSWebUntrusted = "sts-webpki-invalid"
)

// Failure is why a session or a policy is not as it should be.
type Failure struct {
	Result string // one of the constants
	Text   string // a sentence for people, without the full stop
}

func (f *Failure) Error() string { return f.Text }

func failure(result, format string, args ...any) *Failure {
	return &Failure{Result: result, Text: printable(fmt.Sprintf(format, args...))}
}

// Fetcher gets policies from the web servers of domains (RFC 8461 section 3.3).
type Fetcher struct {
	Addrs   func(ctx context.Context, host string) ([]netip.Addr, error)
	Allowed func(netip.Addr) bool // which addresses may be connected to
	Roots   *x509.CertPool        // nil: those of the system
	Port    int                   // 0: 443
	Timeout time.Duration         // of all of it; 0: 30 seconds
}

// Fetch gets the policy of a domain. The error is a *Failure.
func (f *Fetcher) Fetch(ctx context.Context, domain string) (*STS, error) {
	timeout := f.Timeout
	if timeout <= 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	host := "mta-sts." + domain
	text, err := f.get(ctx, "https://"+host+"/.well-known/mta-sts.txt")
	if err != nil {
		return nil, fetchFailure(host, err)
	}
	p, err := ParseSTS(text)
	if err != nil {
		return nil, failure(STSInvalid, "the MTA-STS policy of %s is invalid: %v", domain, err)
	}
	p.Fetched = time.Now()
	return p, nil
}

func (f *Fetcher) get(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "Postrider")
	resp, err := f.client(f.Port).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %s, and only 200 gives a policy", resp.Status)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "text/plain" {
		return nil, fmt.Errorf("its type is %.80q, not text/plain", resp.Header.Get("Content-Type"))
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxPolicy+1))
}

// Client is an HTTP client for what else goes to web servers that others name: it
// connects to allowed addresses only, and follows no redirects.
func (f *Fetcher) Client() *http.Client { return f.client(0) }

func (f *Fetcher) client(port int) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, hostport string) (net.Conn, error) {
			return f.dial(ctx, network, hostport, port)
		},
		TLSClientConfig:     &tls.Config{RootCAs: f.Roots},
		TLSHandshakeTimeout: 10 * time.Second,
		// One request each. No proxy, whatever the environment says: it would see
		// which domains get mail.
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 16 << 10,
	}
	// RFC 8461 section 3.3: redirects must not be followed.
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// dial connects to the first address of the host that answers, and never to one
// that mail may not go to either: anybody can publish any address.
func (f *Fetcher) dial(ctx context.Context, network, hostport string, instead int) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	if instead != 0 {
		port = strconv.Itoa(instead)
	}
	addrs, err := f.Addrs(ctx, host)
	if err != nil {
		return nil, err
	}
	const tries = 4
	dialer := net.Dialer{Timeout: 10 * time.Second}
	failed := errors.New("it has no address")
	for _, a := range addrs[:min(len(addrs), tries)] {
		if f.Allowed != nil && !f.Allowed(a) {
			failed = fmt.Errorf("its address %s is a private one", a)
			continue
		}
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		failed = err
	}
	return nil, failed
}

func fetchFailure(host string, err error) *Failure {
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return failure(STSWebUntrusted, "the certificate of %s does not verify: %v", host, cert.Err)
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // the rest of it is known
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("no answer in time")
	}
	return failure(STSFetchError, "the MTA-STS policy can't be fetched from %s: %v", host, err)
}
