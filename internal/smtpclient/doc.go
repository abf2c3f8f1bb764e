// Package smtpclient is the sending half of SMTP (RFC 5321): it opens a session
// over a connection that the caller made, and sends messages over it. It knows no
// DNS, no queue and no configuration.
//
// What it speaks: EHLO with HELO as fallback, STARTTLS (RFC 3207) and implicit
// TLS, AUTH (RFC 4954), PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME (RFC
// 6152), SMTPUTF8 (RFC 6531), CHUNKING (RFC 3030), DSN (RFC 3461), REQUIRETLS
// (RFC 8689), MT-PRIORITY (RFC 6710) and LIMITS (RFC 9422).
package smtpclient
