// Package tlspolicy knows what TLS a receiver asks of those who bring it mail:
// DANE (RFC 6698, 7671, 7672), MTA-STS (RFC 8461), or nothing; whether a session
// keeps to it; and how sessions are reported to receivers (TLS-RPT, RFC 8460).
package tlspolicy
