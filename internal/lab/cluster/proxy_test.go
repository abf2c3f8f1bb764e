package cluster

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy is a TCP proxy in front of a database that can be made to swallow what
// it gets: its clients see neither an answer nor an end.
type proxy struct {
	ln net.Listener
	to string

	mu    sync.Mutex
	open  chan struct{} // closed while bytes go through
	conns map[net.Conn]struct{}
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, to: to, open: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(p.open)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(ctx, c) })
		}
	})
	t.Cleanup(func() {
		cancel()
		ln.Close()
		p.drop()
		serving.Wait()
	})
	return p
}

// before gives the DSN with the proxy in place of the server.
func (p *proxy) before(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.ln.Addr().String()
	return u.String()
}

// cut swallows everything from now on.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

// heal lets new connections through; those that were cut break, as they do when
// a network comes back after a while.
func (p *proxy) heal() {
	p.drop()
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.open)
}

func (p *proxy) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) gate() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

func (p *proxy) keep(c net.Conn) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	return func() {
		c.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	}
}

func (p *proxy) serve(ctx context.Context, c net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer p.keep(c)()
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", p.to)
	if err != nil {
		return
	}
	defer p.keep(server)()
	var both sync.WaitGroup
	both.Go(func() { defer cancel(); p.copy(ctx, server, c) })
	both.Go(func() { defer cancel(); p.copy(ctx, c, server) })
	<-ctx.Done()
	c.Close()
	server.Close()
	both.Wait()
}

func (p *proxy) copy(ctx context.Context, to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-p.gate():
		case <-ctx.Done():
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
