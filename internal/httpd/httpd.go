// Package httpd is what the relay's HTTP servers have in common: they serve until
// a context ends, and tell where a request comes from.
package httpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Serve serves on ln until ctx ends; then it lets what is under way end, for up
// to drain. It closes ln.
func Serve(ctx context.Context, s *http.Server, ln net.Listener, drain time.Duration) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain) // drain: what is under way
		defer cancel()
		if s.Shutdown(closing) != nil {
			s.Close()
		}
	})
	err := s.Serve(ln)
	if stop() { // it broke by itself
		s.Close()
	} else {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", ln.Addr(), err)
}

// Client is where a request comes from: behind proxies that are trusted, what they
// say in X-Forwarded-For. It has no zone.
func Client(r *http.Request, proxies []netip.Prefix) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	client := ap.Addr().Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(client) }); i-- {
		before, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = before.Unmap().WithZone("")
	}
	return client
}
