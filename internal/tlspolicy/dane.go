package tlspolicy

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"postrider/internal/dns"
)

// What the numbers of a TLSA record mean (RFC 7218).
const (
	usageTA = 2 // DANE-TA: an authority in the chain
	usageEE = 3 // DANE-EE: the server's own certificate or key

	selectorCert = 0 // the whole certificate
	selectorKey  = 1 // its public key

	matchFull   = 0
	matchSHA256 = 1
	matchSHA512 = 2
)

// usable gives those of the records that a sender of mail can use: of usage 2
// and 3 only (RFC 7672 section 3.1.3), well formed, and of the digests of one
// usage and selector the strongest (RFC 7671 section 9).
func usable(all []dns.TLSA) []dns.TLSA {
	var good []dns.TLSA
	type kind struct{ usage, selector uint8 }
	strongest := map[kind]uint8{}
	for _, r := range all {
		if wellFormed(r) {
			good = append(good, r)
			k := kind{r.Usage, r.Selector}
			strongest[k] = max(strongest[k], r.Matching)
		}
	}
	var out []dns.TLSA
	for _, r := range good {
		if r.Matching == matchFull || r.Matching == strongest[kind{r.Usage, r.Selector}] {
			out = append(out, r)
		}
	}
	return out
}

func wellFormed(r dns.TLSA) bool {
	if r.Usage != usageTA && r.Usage != usageEE || r.Selector > selectorKey {
		return false
	}
	switch r.Matching {
	case matchSHA256:
		return len(r.Data) == sha256.Size
	case matchSHA512:
		return len(r.Data) == sha512.Size
	case matchFull:
		_, _, err := full(r)
		return err == nil
	}
	return false
}

// full reads the certificate or the key of a record that holds all of it.
func full(r dns.TLSA) (*x509.Certificate, any, error) {
	if r.Selector == selectorCert {
		cert, err := x509.ParseCertificate([]byte(r.Data))
		return cert, nil, err
	}
	key, err := x509.ParsePKIXPublicKey([]byte(r.Data))
	switch key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		err = errors.Join(err, errors.New("a kind of key that certificates are not signed with"))
	}
	return nil, key, err
}

// matches tells whether a record is of this certificate (RFC 6698 section 2.1).
func matches(r dns.TLSA, cert *x509.Certificate) bool {
	data := cert.Raw
	if r.Selector == selectorKey {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case matchSHA256:
		sum := sha256.Sum256(data)
		return r.Data == string(sum[:])
	case matchSHA512:
		sum := sha512.Sum512(data)
		return r.Data == string(sum[:])
	}
	return r.Data == string(data)
}

// dane is how a certificate is verified by TLSA records.
type dane struct {
	records []dns.TLSA // usable ones
	names   []string   // any of which the certificate may be for, with usage 2
}

// verify judges the peer's certificates (RFC 7671 sections 5.1 and 5.2, RFC 7672
// section 3). The error is a *Failure.
func (d dane) verify(cs tls.ConnectionState, now time.Time) error {
	certs := cs.PeerCertificates
	if len(certs) == 0 {
		return failure(Invalid, "the receiver has no certificate")
	}
	anchored := failure(Invalid, "the certificate is none of those that the receiver's TLSA records (DANE) name")
	for _, r := range d.records {
		if r.Usage == usageEE {
			// Neither names nor dates count: the record says all (RFC 7672
			// section 3.1.1).
			if matches(r, certs[0]) {
				return nil
			}
			continue
		}
		err := d.verifyTA(r, certs, now)
		if err == nil {
			return nil
		}
		if err.Result != Invalid {
			anchored = err // it says more
		}
	}
	return anchored
}

// verifyTA looks for a way from the certificate to the authority that the record
// names.
func (d dane) verifyTA(r dns.TLSA, certs []*x509.Certificate, now time.Time) *Failure {
	roots, rest := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, cert := range certs {
		if matches(r, cert) {
			roots.AddCert(cert)
			found = true
		} else {
			rest.AddCert(cert)
		}
	}
	if !found && r.Matching == matchFull {
		if root := anchor(r, certs[len(certs)-1]); root != nil {
			roots.AddCert(root)
			found = true
		}
	}
	if !found {
		return failure(Invalid, "no certificate of the chain is the authority that the receiver's TLSA records (DANE) name")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: rest, CurrentTime: now}
	if _, err := certs[0].Verify(o); err != nil {
		return certFailure(err)
	}
	for _, name := range d.names {
		if certs[0].VerifyHostname(name) == nil {
			return nil
		}
	}
	return failure(HostMismatch, "the certificate is for %s, not for %s", list(certs[0].DNSNames), list(d.names))
}

// anchor is the authority of a record that holds all of its certificate or key,
// where the server leaves it out of its chain. Of a key alone a certificate is
// made up that carries it, in the name of whoever issued the last of the chain.
func anchor(r dns.TLSA, last *x509.Certificate) *x509.Certificate {
	cert, key, err := full(r)
	if err != nil || cert != nil {
		return cert
	}
	made := &x509.Certificate{Raw: []byte(r.Data), Version: 3, RawSubject: last.RawIssuer, PublicKey: key, RawSubjectPublicKeyInfo: []byte(r.Data),
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: -1, NotAfter: last.NotAfter, NotBefore: last.NotBefore}
	switch key.(type) {
	case *rsa.PublicKey:
		made.PublicKeyAlgorithm = x509.RSA
	case *ecdsa.PublicKey:
		made.PublicKeyAlgorithm = x509.ECDSA
	default:
		made.PublicKeyAlgorithm = x509.Ed25519
	}
	return made
}
