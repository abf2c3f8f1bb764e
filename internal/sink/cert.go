package sink

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// CertKind says what is right or wrong with a certificate.
type CertKind string

const (
	SelfSigned CertKind = "self-signed" // for the right names, signed by itself
	Good       CertKind = "good"        // for the right names, signed by the Authority
	Expired    CertKind = "expired"     // signed by the Authority, a day over its time
	WrongName  CertKind = "wrong-name"  // signed by the Authority, for wrong.example.invalid
)

// ParseCertKind reads a kind's name; the empty one is SelfSigned.
func ParseCertKind(s string) (CertKind, error) {
	switch k := CertKind(s); k {
	case "":
		return SelfSigned, nil
	case SelfSigned, Good, Expired, WrongName:
		return k, nil
	}
	return "", fmt.Errorf("%q is not a kind of certificate: self-signed, good, expired or wrong-name", s)
}

// Authority is a certificate authority that nobody trusts until told so.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority, valid for a year.
func NewAuthority() (*Authority, error) {
	t := template("Postrider sink test authority")
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	t.ExtKeyUsage = nil
	der, key, err := sign(t, t, nil)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return &Authority{cert, key}, nil
}

// Pool is a pool that trusts the authority, and nothing else.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Issue makes a certificate of the kind for hosts: names or IP addresses.
func (a *Authority) Issue(kind CertKind, hosts ...string) (tls.Certificate, error) {
	if kind == WrongName {
		hosts = []string{"wrong.example.invalid"}
	}
	if len(hosts) == 0 {
		hosts = []string{"localhost"}
	}
	t := template(hosts[0])
	for _, h := range hosts {
		if ip := net.ParseIP(strings.Trim(h, "[]")); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	if kind == Expired {
		t.NotBefore, t.NotAfter = t.NotBefore.AddDate(0, 0, -30), time.Now().AddDate(0, 0, -1)
	}
	parent, parentKey := a.cert, a.key
	if kind == SelfSigned {
		parent, parentKey = t, nil
	}
	der, key, err := sign(t, parent, parentKey)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make %s certificate: %w", kind, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{"Postrider sink"}},
		NotBefore:   time.Now().Add(-time.Hour),
		NotAfter:    time.Now().AddDate(1, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// sign makes a key and a certificate for it; without a parent's key it signs
// itself.
func sign(t, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return nil, nil, err
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, parentKey)
	return der, key, err
}
