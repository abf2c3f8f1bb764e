package mailauth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"

	"postrider/internal/mailauth"
)

// testKeys are made once: RSA takes its time.
var testKeys = sync.OnceValues(func() (map[string]*mailauth.Key, error) {
	keys := map[string]*mailauth.Key{}
	for _, algorithm := range []string{mailauth.RSA, mailauth.Ed25519} {
		k, err := mailauth.NewKey(algorithm)
		if err != nil {
			return nil, err
		}
		keys[algorithm] = k
	}
	return keys, nil
})

func key(t testing.TB, algorithm string) *mailauth.Key {
	t.Helper()
	keys, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	return keys[algorithm]
}

func TestKey(t *testing.T) {
	for algorithm, bits := range map[string]int{mailauth.RSA: 2048, mailauth.Ed25519: 256} {
		k := key(t, algorithm)
		der, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		for form, b := range map[string][]byte{"der": der, "pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
			again, err := mailauth.ParseKey(b)
			if err != nil || again.Algorithm() != algorithm || again.Record() != k.Record() {
				t.Errorf("%s as %s: %v", algorithm, form, err)
			}
		}
		r, err := mailauth.ParseRecord(k.Record())
		if err != nil || r.Algorithm != algorithm || r.Bits != bits || r.Testing || r.Strict {
			t.Errorf("%s: record %+v, %v", algorithm, r, err)
		}
		spaced, err := mailauth.ParseRecord(strings.NewReplacer("; ", " ;\t", "p=", "p = ", "A", " A").Replace(k.Record()) + ";")
		if err != nil || !r.Same(spaced) {
			t.Errorf("%s with white space: %v", algorithm, err)
		}
		if !strings.HasPrefix(k.Record(), "v=DKIM1; k="+algorithm+"; p=") {
			t.Errorf("record %s", k.Record())
		}
	}
	if _, err := mailauth.NewKey("dsa"); err == nil {
		t.Error("a key of an unknown algorithm was made")
	}
}

func TestParseKeyRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	der, err := key(t, mailauth.RSA).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"nothing":     {nil, "no private key"},
		"text":        {[]byte("v=DKIM1; p=abc"), "no private key"},
		"cut":         {der[:len(der)/2], "no private key"},
		"cut pem":     {block("PRIVATE KEY", der[:50]), "no private key"},
		"ecdsa":       {ecDER, "RSA or Ed25519"},
		"certificate": {block("CERTIFICATE", der), "not a private key"},
		"public":      {block("PUBLIC KEY", der), "not a private key"},
		"encrypted":   {block("ENCRYPTED PRIVATE KEY", der), "encrypted"},
	} {
		if _, err := mailauth.ParseKey(tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tt.want)
		}
	}
}

func TestParseRecord(t *testing.T) {
	rsaDER := func(bits int) string {
		// A modulus of its own making: keys so short can't be generated.
		b, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: numberOfBits(bits), E: 65537})
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	good := strings.TrimPrefix(key(t, mailauth.RSA).Record(), "v=DKIM1; k=rsa; ")
	ed := strings.TrimPrefix(key(t, mailauth.Ed25519).Record(), "v=DKIM1; k=ed25519; ")
	for txt, want := range map[string]string{
		good:                             "",
		"v=DKIM1; " + good:               "",
		"v=DKIM1; t=y:s; " + good:        "",
		"v=DKIM1; h=sha1:sha256;" + good: "",
		"v=DKIM1; s=email;" + good:       "",
		"v=DKIM1; x=unknown; " + good:    "",
		"v=DKIM1; p=":                    "",
		"":                               "nothing",
		"v=DKIM1":                        "p= is missing",
		"v=DKIM2; " + good:               "v=DKIM2",
		good + "; v=DKIM1":               "begins with v=DKIM1",
		"v=DKIM1; k=rsa; p=!!!":          "no base64",
		"v=DKIM1; k=rsa; " + good[:60]:   "",
		"v=DKIM1; k=dsa; " + good:        "dsa",
		"v=DKIM1; k=ed25519; " + good:    "bytes instead of 32",
		"v=DKIM1; k=rsa; " + ed:          "can't be read",
		"v=DKIM1; h=sha1; " + good:       "not sha256",
		"v=DKIM1; s=tlsrpt; " + good:     "not for mail",
		"v=DKIM1; p=a; p=b":              "twice",
		"google-site-verification":       "name=value",
		"v=DKIM1; p=" + rsaDER(512):      "512 bits",
	} {
		_, err := mailauth.ParseRecord(txt)
		if strings.HasSuffix(txt, good[:60]) { // cut anywhere: an error of one kind or the other
			if err == nil {
				t.Errorf("a record that is cut off was taken")
			}
			continue
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", txt, err, want)
		}
	}
	revoked, err := mailauth.ParseRecord("v=DKIM1; p=")
	if err != nil || revoked.Public != nil || revoked.Same(revoked) {
		t.Errorf("revoked: %+v, %v", revoked, err)
	}
	flags, err := mailauth.ParseRecord("v=DKIM1; t=y:s; " + good)
	if err != nil || !flags.Testing || !flags.Strict {
		t.Errorf("flags: %+v, %v", flags, err)
	}
}

// numberOfBits is an odd number of so many bits.
func numberOfBits(n int) *big.Int {
	x := new(big.Int).Lsh(big.NewInt(1), uint(n-1))
	return x.SetBit(x, 0, 1)
}
