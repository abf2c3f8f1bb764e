// Package lab holds a DNS server, receivers and a started daemon on loopback:
// the demo and the end-to-end tests live in it.
package lab
