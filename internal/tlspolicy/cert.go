package tlspolicy

import (
	"crypto/x509"
	"errors"
	"strings"
)

// Classify gives the result of a session whose TLS failed with err, as reports
// name it (RFC 8460 section 4.3).
func Classify(err error) string { return certFailure(err).Result }

// certFailure translates an error of package x509.
func certFailure(err error) *Failure {
	var (
		known    *Failure
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		unknown  x509.UnknownAuthorityError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return failure(CertExpired, "the certificate has expired, or is not valid yet")
	case errors.As(err, &hostname):
		return failure(HostMismatch, "the certificate is for another host")
	case errors.As(err, &unknown), errors.As(err, &invalid):
		return failure(CertUntrusted, "the certificate can't be trusted: %s", strings.TrimPrefix(err.Error(), "x509: "))
	}
	return failure(Invalid, "%v", err)
}

// list names names for people: in print, and not endlessly many.
func list(names []string) string {
	const most = 5
	n := len(names)
	s := strings.Join(names[:min(n, most)], ", ")
	switch {
	case n == 0:
		return "no name"
	case n > most:
		s += " and others"
	}
	return printable(s)
}

// printable keeps what others wrote in bounds.
func printable(s string) string {
	const most = 400
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
