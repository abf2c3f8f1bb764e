package tlspolicy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"time"

	"postrider/internal/dns"
)

// chain is a certificate with those above it: leaf, intermediate, root.
type chain struct{ leaf, middle, root *x509.Certificate }

type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certify makes a certificate for names; without a parent it signs itself.
func certify(t *testing.T, name string, parent *pair, kind string, change func(*x509.Certificate), names ...string) *pair {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: len(names) == 0}
	if template.IsCA {
		template.KeyUsage = x509.KeyUsageCertSign
	}
	if change != nil {
		change(template)
	}
	key := newKey(t, kind)
	by := &pair{template, key}
	if parent != nil {
		by = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{cert, key}
}

func newChain(t *testing.T, kind string, change func(*x509.Certificate), names ...string) chain {
	root := certify(t, "root", nil, kind, nil)
	middle := certify(t, "middle", root, kind, nil)
	return chain{certify(t, "leaf", middle, kind, change, names...).cert, middle.cert, root.cert}
}

func tlsa(usage, selector, matching uint8, c *x509.Certificate) dns.TLSA {
	data := c.Raw
	if selector == 1 {
		data = c.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return dns.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: string(data)}
}

// judge verifies a chain, as sent by the server, by records.
func judge(records []dns.TLSA, names []string, sent ...*x509.Certificate) string {
	err := dane{usable(records), names}.verify(tls.ConnectionState{PeerCertificates: sent}, time.Now())
	var f *Failure
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &f):
		return f.Result
	}
	return "unknown: " + err.Error()
}

// TestEverySelector: each of the twelve kinds of usable records lets its own
// certificate pass and no other.
func TestEverySelector(t *testing.T) {
	for _, kind := range []string{"ecdsa", "rsa", "ed25519"} {
		mine, other := newChain(t, kind, nil, "mx.test"), newChain(t, kind, nil, "mx.test")
		for usage := uint8(2); usage <= 3; usage++ {
			for selector := range uint8(2) {
				for matching := range uint8(3) {
					pin := mine.leaf
					if usage == 2 {
						pin = mine.root
					}
					name := fmt.Sprintf("%s %d %d %d", kind, usage, selector, matching)
					record := []dns.TLSA{tlsa(usage, selector, matching, pin)}
					if got := judge(record, []string{"mx.test"}, mine.leaf, mine.middle, mine.root); got != "ok" {
						t.Errorf("%s: %s", name, got)
					}
					if got := judge(record, []string{"mx.test"}, other.leaf, other.middle, other.root); got == "ok" {
						t.Errorf("%s: a foreign chain passes", name)
					}
				}
			}
		}
	}
}

// TestDANE has the rules of RFC 7671 section 5 and RFC 7672 section 3.
func TestDANE(t *testing.T) {
	c := newChain(t, "ecdsa", nil, "mx.test")
	foreign := newChain(t, "ecdsa", nil, "mx.test")
	wild := newChain(t, "ecdsa", nil, "*.test")
	expired := newChain(t, "ecdsa", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "mx.test")
	early := newChain(t, "ecdsa", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, "mx.test")
	alone := certify(t, "alone", nil, "ecdsa", nil, "mx.test").cert
	mx := []string{"mx.test"}
	broken := dns.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: "short"}
	for _, tt := range []struct {
		name    string
		records []dns.TLSA
		names   []string
		sent    []*x509.Certificate
		want    string
	}{
		{"EE: the leaf alone counts", []dns.TLSA{tlsa(3, 1, 1, c.leaf)}, mx, []*x509.Certificate{c.leaf}, "ok"},
		{"EE: no name", []dns.TLSA{tlsa(3, 1, 1, c.leaf)}, []string{"other.test"}, []*x509.Certificate{c.leaf}, "ok"},
		{"EE: expired", []dns.TLSA{tlsa(3, 0, 1, expired.leaf)}, mx, []*x509.Certificate{expired.leaf}, "ok"},
		{"EE: of an authority in the chain", []dns.TLSA{tlsa(3, 1, 1, c.root)}, mx, []*x509.Certificate{c.leaf, c.middle, c.root}, Invalid},
		{"EE: the right one at the wrong place", []dns.TLSA{tlsa(3, 1, 1, c.leaf)}, mx, []*x509.Certificate{foreign.leaf, c.leaf}, Invalid},
		{"EE: one of several", []dns.TLSA{tlsa(3, 1, 1, foreign.leaf), tlsa(3, 1, 1, c.leaf)}, mx, []*x509.Certificate{c.leaf}, "ok"},
		{"EE: key rolled over", []dns.TLSA{tlsa(3, 1, 1, foreign.leaf)}, mx, []*x509.Certificate{c.leaf}, Invalid},

		{"TA: root", []dns.TLSA{tlsa(2, 0, 1, c.root)}, mx, []*x509.Certificate{c.leaf, c.middle, c.root}, "ok"},
		{"TA: intermediate", []dns.TLSA{tlsa(2, 1, 2, c.middle)}, mx, []*x509.Certificate{c.leaf, c.middle}, "ok"},
		{"TA: root not sent, digest", []dns.TLSA{tlsa(2, 0, 1, c.root)}, mx, []*x509.Certificate{c.leaf, c.middle}, Invalid},
		{"TA: root not sent, whole certificate", []dns.TLSA{tlsa(2, 0, 0, c.root)}, mx, []*x509.Certificate{c.leaf, c.middle}, "ok"},
		{"TA: root not sent, whole key", []dns.TLSA{tlsa(2, 1, 0, c.root)}, mx, []*x509.Certificate{c.leaf, c.middle}, "ok"},
		{"TA: whole key of another", []dns.TLSA{tlsa(2, 1, 0, foreign.root)}, mx, []*x509.Certificate{c.leaf, c.middle}, CertUntrusted},
		{"TA: whole certificate of another", []dns.TLSA{tlsa(2, 0, 0, foreign.root)}, mx, []*x509.Certificate{c.leaf, c.middle}, CertUntrusted},
		{"TA: sent, but did not sign", []dns.TLSA{tlsa(2, 0, 1, foreign.root)}, mx, []*x509.Certificate{c.leaf, c.middle, foreign.root}, CertUntrusted},
		{"TA: wrong name", []dns.TLSA{tlsa(2, 0, 1, c.root)}, []string{"other.test"}, []*x509.Certificate{c.leaf, c.middle, c.root}, HostMismatch},
		{"TA: name of the recipients' domain", []dns.TLSA{tlsa(2, 0, 1, c.root)}, []string{"other.test", "mx.test"}, []*x509.Certificate{c.leaf, c.middle, c.root}, "ok"},
		{"TA: wildcard", []dns.TLSA{tlsa(2, 0, 1, wild.root)}, mx, []*x509.Certificate{wild.leaf, wild.middle, wild.root}, "ok"},
		{"TA: expired", []dns.TLSA{tlsa(2, 0, 1, expired.root)}, mx, []*x509.Certificate{expired.leaf, expired.middle, expired.root}, CertExpired},
		{"TA: not valid yet", []dns.TLSA{tlsa(2, 0, 1, early.root)}, mx, []*x509.Certificate{early.leaf, early.middle, early.root}, CertExpired},
		{"TA: a leaf that signs itself", []dns.TLSA{tlsa(2, 0, 1, alone)}, mx, []*x509.Certificate{alone}, "ok"},

		{"a record that can't be one is passed over", []dns.TLSA{broken, tlsa(3, 1, 1, c.leaf)}, mx, []*x509.Certificate{c.leaf}, "ok"},
		{"TA or EE", []dns.TLSA{tlsa(2, 0, 1, foreign.root), tlsa(3, 1, 1, c.leaf)}, mx, []*x509.Certificate{c.leaf}, "ok"},
		{"a weaker digest does not help", []dns.TLSA{tlsa(3, 1, 1, c.leaf), tlsa(3, 1, 2, foreign.leaf)}, mx, []*x509.Certificate{c.leaf}, Invalid},
		{"another selector's stronger digest does not matter", []dns.TLSA{tlsa(3, 1, 1, c.leaf), tlsa(3, 0, 2, foreign.leaf)}, mx, []*x509.Certificate{c.leaf}, "ok"},
		{"full beside a digest", []dns.TLSA{tlsa(3, 1, 0, c.leaf), tlsa(3, 1, 2, foreign.leaf)}, mx, []*x509.Certificate{c.leaf}, "ok"},
		{"no certificate", []dns.TLSA{tlsa(3, 1, 1, c.leaf)}, mx, nil, Invalid},
	} {
		if got := judge(tt.records, tt.names, tt.sent...); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestUsable(t *testing.T) {
	c := newChain(t, "ecdsa", nil, "mx.test").leaf
	for name, r := range map[string]dns.TLSA{
		"usage 0": tlsa(0, 1, 1, c), "usage 1": tlsa(1, 1, 1, c), "usage 4": tlsa(4, 1, 1, c), "usage 255": tlsa(255, 1, 1, c),
		"selector 2": tlsa(3, 2, 1, c), "matching 3": tlsa(3, 1, 3, c),
		"short digest": {Usage: 3, Selector: 1, Matching: 1, Data: "x"}, "no data": {Usage: 3, Selector: 1, Matching: 1},
		"SHA-256 named SHA-512": {Usage: 3, Selector: 1, Matching: 2, Data: tlsa(3, 1, 1, c).Data},
		"no certificate":        {Usage: 3, Selector: 0, Matching: 0, Data: "hello"},
		"no key":                {Usage: 2, Selector: 1, Matching: 0, Data: "hello"},
		"a key, not a certificate": {Usage: 2, Selector: 0, Matching: 0,
			Data: string(c.RawSubjectPublicKeyInfo)},
	} {
		if got := usable([]dns.TLSA{r}); len(got) != 0 {
			t.Errorf("%s is taken for usable", name)
		}
	}
}

// FuzzDANE: no record makes a certificate pass that it is not of, and none makes
// us fail.
func FuzzDANE(f *testing.F) {
	f.Add(uint8(2), uint8(1), uint8(0), []byte{0x30, 0x59})
	f.Add(uint8(3), uint8(0), uint8(1), []byte("0123456789abcdef0123456789abcdef"))
	var c chain
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		if c.leaf == nil {
			c = newChain(t, "ecdsa", nil, "mx.test")
		}
		if got := judge([]dns.TLSA{{Usage: usage, Selector: selector, Matching: matching, Data: string(data)}}, []string{"mx.test"}, c.leaf, c.middle, c.root); got == "ok" {
			t.Errorf("%d %d %d %x passes", usage, selector, matching, data)
		}
	})
}
