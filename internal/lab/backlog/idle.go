package backlog

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Idle is what sessions cost that do nothing.
type Idle struct {
	Sessions   int     `json:"sessions"`
	OpenTook   float64 `json:"open_s"`   // seconds until all were there
	Empty      float64 `json:"empty_mb"` // memory of the relay before, in MB of a million bytes
	MaxRSS     float64 `json:"max_rss_mb"`
	PerSession float64 `json:"per_session_kb"` // of MaxRSS, less Empty
	Sent       int     `json:"sent"`           // messages meanwhile
	Arrived    int     `json:"arrived"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
}

const mb = 1e6

func (h *harness) idle(ctx context.Context) (err error) {
	h.result.Idle, err = h.idleSessions(ctx, "idle", false)
	return err
}

func (h *harness) idleTLS(ctx context.Context) (err error) {
	h.result.IdleTLS, err = h.idleSessions(ctx, "idle-tls", true)
	return err
}

// idleSessions opens them after EHLO, or inside TLS and logged in, and then
// sends mail over others.
func (h *harness) idleSessions(ctx context.Context, name string, login bool) (*Idle, error) {
	r, err := h.newRig(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	res := &Idle{Sessions: h.o.Idle, Empty: float64(r.rss()) / mb}
	password := ""
	if login {
		password = r.Password()
	}
	began := time.Now()
	open, err := openMany(ctx, r.Addr, h.o.Idle, password)
	defer func() {
		for _, s := range open {
			s.conn.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	res.OpenTook = time.Since(began).Seconds()
	h.say("%d sessions are open after %.1f s: %.0f MB", len(open), res.OpenTook, float64(r.rss())/mb)
	f := &flow{rig: r, by: r.senders[firstShop:], name: name, to: func(int) string { return "good.test" }}
	if res.Sent, err = f.steady(ctx, h.o.Rate, h.o.Load); err != nil {
		return nil, err
	}
	p := h.probe(name)
	if err := p.waitFor(ctx, res.Sent, h.o.Patience); err != nil {
		return nil, err
	}
	res.Arrived, res.P50, res.P99 = p.count(), ms(p.percentile(0.5, res.Sent, h.o.Patience)), ms(p.percentile(0.99, res.Sent, h.o.Patience))
	res.MaxRSS = float64(r.maxRSS()) / mb
	res.PerSession = (res.MaxRSS - res.Empty) * 1000 / float64(res.Sessions)
	h.profile(ctx, r, name)
	h.say("%d sessions: %.0f MB at most (%.1f kB each), now %.0f MB; mail: p50 %.0f ms, p99 %.0f ms, %d of %d arrived",
		res.Sessions, res.MaxRSS, res.PerSession, float64(r.rss())/mb, res.P50, res.P99, res.Arrived, res.Sent)
	// They must have been alive all the while.
	for _, s := range open {
		if err := s.ask("NOOP\r\n", "250"); err != nil {
			return nil, fmt.Errorf("an idle session is gone: %w", err)
		}
	}
	return res, r.Stop()
}

// openMany opens sessions, some at a time.
func openMany(ctx context.Context, addr string, n int, password string) ([]*session, error) {
	var mu sync.Mutex
	var open []*session
	var failed error
	var wg sync.WaitGroup
	for k := range 32 {
		wg.Go(func() {
			for i := k; i < n; i += 32 {
				s, err := dial(ctx, addr, net.IPv4(127, 0, 3, 1), password)
				mu.Lock()
				if err != nil {
					failed = fmt.Errorf("open session %d: %w", len(open), err)
				} else {
					open = append(open, s)
				}
				stop := failed != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	return open, failed
}
