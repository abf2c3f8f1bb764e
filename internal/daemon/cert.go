package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"postrider/internal/config"
)

// Files of the certificate that the relay makes for itself, in the data folder.
const (
	CertName = "tls-cert.pem"
	keyName  = "tls-key.pem"
)

// certLife is how long a self-signed certificate lasts; one that has less than
// certSpare left is made anew at the start.
const (
	certLife  = 10 * 365 * 24 * time.Hour
	certSpare = 90 * 24 * time.Hour
)

// certificate loads the configured certificate, or the relay's own, which is
// made where it is missing.
func certificate(c config.Config) (tls.Certificate, error) {
	if c.TLS.Cert != "" {
		cert, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
		if err != nil {
			return cert, fmt.Errorf("load certificate (tls.cert, tls.key): %w", err)
		}
		return cert, nil
	}
	certFile, keyFile := filepath.Join(c.Data, CertName), filepath.Join(c.Data, keyName)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil && time.Until(cert.Leaf.NotAfter) > certSpare && cert.Leaf.VerifyHostname(c.Hostname) == nil {
		return cert, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cert, fmt.Errorf("load certificate: %w; remove %s and %s to have new ones made", err, certFile, keyFile)
	}
	if err := makeCertificate(c.Hostname, certFile, keyFile); err != nil {
		return cert, fmt.Errorf("make certificate: %w", err)
	}
	return tls.LoadX509KeyPair(certFile, keyFile)
}

func makeCertificate(host, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certLife),
		DNSNames: []string{host, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, // so that clients can name it as the authority to trust
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// Without a certificate both are made anew, with one that is not the key's
	// nothing can be done: so the old one goes first and the new one comes last.
	if err := os.Remove(certFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeWhole(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return writeWhole(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// writeWhole makes a file that a crash leaves whole or away.
func writeWhole(file string, b []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(file+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
