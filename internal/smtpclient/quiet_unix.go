//go:build unix

package smtpclient

import (
	"net"
	"syscall"
	"time"
)

// quiet tells whether the peer of an idle connection has neither closed it nor
// sent anything: on an idle session both mean that it is over.
func quiet(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	conn.SetReadDeadline(time.Time{})
	still := false
	err = rc.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		still = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && still
}
