//go:build !unix

package smtpclient

import "net"

// quiet cannot be told here without reading: the next Send finds out.
func quiet(net.Conn) bool { return true }
