package mailauth

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Algorithms of keys, as records name them.
const (
	RSA     = "rsa"
	Ed25519 = "ed25519" // RFC 8463
)

const (
	rsaBits    = 2048 // of the keys that we make (RFC 8301 section 3.2)
	minRSABits = 1024 // of those that count (RFC 8301 section 3.2)
	maxRSABits = 4096 // beyond it few verify (RFC 8301 section 3.2), and all pay
)

// Key is a private key that signs. It may be used by many goroutines.
type Key struct {
	signer crypto.Signer
	record Record
}

// NewKey makes a key: RSA with 2048 bits, which takes some hundred
// milliseconds, or Ed25519.
func NewKey(algorithm string) (*Key, error) {
	var signer crypto.Signer
	var err error
	switch algorithm {
	case RSA:
		signer, err = rsa.GenerateKey(rand.Reader, rsaBits)
	case Ed25519:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("make DKIM key: there is no algorithm %q; take %s or %s", algorithm, RSA, Ed25519)
	}
	if err != nil {
		return nil, fmt.Errorf("make DKIM key: %w", err)
	}
	return newKey(signer)
}

// ParseKey reads a private key as Marshal writes it (PKCS #8, DER), or as files
// have it: PKCS #8, or PKCS #1 of RSA, in PEM. The error is for people and holds
// nothing of the key.
func ParseKey(b []byte) (*Key, error) {
	if block, _ := pem.Decode(b); block != nil {
		if strings.Contains(block.Type, "ENCRYPTED") || block.Headers["Proc-Type"] != "" {
			return nil, errors.New("the DKIM key is encrypted with a password; decrypt it first")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, fmt.Errorf("this is a %s and not a private key", strings.ToLower(block.Type))
		}
		b = block.Bytes
	}
	if k, err := x509.ParsePKCS1PrivateKey(b); err == nil {
		return newKey(k)
	}
	k, err := x509.ParsePKCS8PrivateKey(b)
	if err != nil {
		return nil, errors.New("the DKIM key can't be read: it is no private key in PKCS #8")
	}
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of the kind %T makes no signatures; DKIM knows RSA and Ed25519", k)
	}
	return newKey(signer)
}

func newKey(signer crypto.Signer) (*Key, error) {
	k := &Key{signer: signer, record: Record{Public: signer.Public()}}
	switch pub := k.record.Public.(type) {
	case *rsa.PublicKey:
		k.record.Algorithm, k.record.Bits = RSA, pub.N.BitLen()
		if k.record.Bits < minRSABits || k.record.Bits > maxRSABits {
			return nil, fmt.Errorf("the RSA key has %d bits; DKIM takes %d to %d", k.record.Bits, minRSABits, maxRSABits)
		}
	case ed25519.PublicKey:
		k.record.Algorithm, k.record.Bits = Ed25519, 8*len(pub)
	default:
		return nil, fmt.Errorf("a key of the kind %T makes no DKIM signatures; take RSA or Ed25519", pub)
	}
	return k, nil
}

// Algorithm is RSA or Ed25519.
func (k *Key) Algorithm() string { return k.record.Algorithm }

// Record is the value of the TXT record that publishes the key (RFC 6376 section
// 3.6.1): "v=DKIM1; k=…; p=…". It has more than the 255 bytes of one string of a
// TXT record where the key is RSA.
func (k *Key) Record() string {
	pub, ok := k.record.Public.(ed25519.PublicKey)
	if !ok {
		// A public key that was taken or made can be written.
		pub, _ = x509.MarshalPKIXPublicKey(k.record.Public)
	}
	return "v=DKIM1; k=" + k.record.Algorithm + "; p=" + base64.StdEncoding.EncodeToString(pub)
}

// Marshal writes the private key as PKCS #8, DER.
func (k *Key) Marshal() ([]byte, error) {
	b, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("write DKIM key: %w", err)
	}
	return b, nil
}

// Record is a published key.
type Record struct {
	Algorithm string
	Public    crypto.PublicKey // *rsa.PublicKey or ed25519.PublicKey; nil: the key is revoked
	Bits      int
	Testing   bool // t=y: a signature counts for nothing if it fails
	Strict    bool // t=s: the signature is not for subdomains
}

// Same tells whether both publish one key. A revoked key is nobody's.
func (r Record) Same(o Record) bool {
	pub, ok := r.Public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(o.Public)
}

// ParseRecord reads the value of a TXT record that publishes a key (RFC 6376
// section 3.6.1). The error is a sentence for people.
func ParseRecord(txt string) (Record, error) {
	tags, err := parseTags(txt)
	if err != nil {
		return Record{}, err
	}
	if v, ok := tags.get("v"); ok && (v != "DKIM1" || tags[0].name != "v") {
		return Record{}, fmt.Errorf("a DKIM record begins with v=DKIM1, and this one has v=%s", v)
	}
	p, ok := tags.get("p")
	if !ok {
		return Record{}, errors.New("the DKIM record has no key: p= is missing")
	}
	if h, ok := tags.get("h"); ok && !inList(h, "sha256") {
		return Record{}, fmt.Errorf("the DKIM record allows the hash algorithms %s only, and not sha256", h)
	}
	if s, ok := tags.get("s"); ok && !inList(s, "email") && !inList(s, "*") {
		return Record{}, fmt.Errorf("the DKIM record is for the service %s, and not for mail", s)
	}
	r := Record{Algorithm: RSA}
	if k, ok := tags.get("k"); ok {
		r.Algorithm = strings.ToLower(k)
	}
	flags, _ := tags.get("t")
	r.Testing, r.Strict = inList(flags, "y"), inList(flags, "s")
	if r.Algorithm != RSA && r.Algorithm != Ed25519 {
		return Record{}, fmt.Errorf("the DKIM record has a key of the kind %q; known are %s and %s", r.Algorithm, RSA, Ed25519)
	}
	if p == "" {
		return r, nil
	}
	der, err := base64.StdEncoding.DecodeString(p)
	if err != nil {
		return Record{}, errors.New("the key in the DKIM record is no base64: it is cut off, or characters were lost or added")
	}
	return r, r.parsePublic(der)
}

func (r *Record) parsePublic(der []byte) error {
	if r.Algorithm == Ed25519 {
		if len(der) != ed25519.PublicKeySize {
			return fmt.Errorf("the Ed25519 key in the DKIM record has %d bytes instead of %d", len(der), ed25519.PublicKeySize)
		}
		r.Public, r.Bits = ed25519.PublicKey(der), 8*len(der)
		return nil
	}
	// RFC 6376 names both forms, one in its text and one in its ABNF (erratum 3017).
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		pub, err = x509.ParsePKCS1PublicKey(der)
	}
	if err != nil {
		return errors.New("the key in the DKIM record can't be read as an RSA key: it is cut off or damaged")
	}
	key, ok := pub.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("the DKIM record says k=rsa, but its key is of the kind %T", pub)
	}
	if key.N.BitLen() < minRSABits {
		return fmt.Errorf("the RSA key in the DKIM record has %d bits; below %d it proves nothing", key.N.BitLen(), minRSABits)
	}
	r.Public, r.Bits = key, key.N.BitLen()
	return nil
}
