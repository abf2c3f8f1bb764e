package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"postrider/internal/httpd"
	"postrider/internal/relay"
)

// exchange is one request and its answer, as far as others must know of it.
type exchange struct {
	id      string
	control bool       // it came over the control socket
	client  netip.Addr // invalid: over the control socket
	caller  *Caller    // nil: not known yet, or nobody need be
	failure error      // for the log
}

type exchangeKey struct{}

// exchangeOf is the exchange that a request's context belongs to.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	if x == nil {
		return &exchange{}
	}
	return x
}

// RequestID is the id of the request that a context belongs to; empty outside
// of one.
func RequestID(ctx context.Context) string { return exchangeOf(ctx).id }

// entrance serves requests that come over the control socket, or over TCP: it
// gives each its id, notes it in the log, and outlives a panic.
func (s *Server) entrance(control bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{id: s.requestID(r.Header.Get("X-Request-Id")), control: control}
		if !control {
			x.client = httpd.Client(r, s.config.Proxies)
		}
		began := time.Now()
		a := &answered{ResponseWriter: w}
		h := w.Header()
		h.Set("X-Request-Id", x.id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				x.failure = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				if a.status == 0 {
					s.writeProblem(a, r, problem(x.failure).(*Problem))
				}
			}
			s.note(r, x, a, time.Since(began))
		}()
		next.ServeHTTP(a, r)
	})
}

// note writes a line of the access log. Queries are left out: they hold
// addresses of people; so are paths of links that are secrets.
func (s *Server) note(r *http.Request, x *exchange, a *answered, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case x.failure != nil:
		level = slog.LevelError
	case x.control || a.status < 400 && r.Method == http.MethodGet:
		level = slog.LevelDebug
	}
	who := ""
	if x.caller != nil {
		who = x.caller.Name
	}
	path := r.URL.Path
	if strings.Contains(r.Pattern, "{token}") {
		_, path, _ = strings.Cut(r.Pattern, " ")
	}
	args := []any{"request", x.id, "method", r.Method, "path", path, "status", a.status, "bytes", a.bytes, "took", took.Round(time.Microsecond), "client", x.client, "by", who}
	if x.failure != nil {
		args = append(args, "err", x.failure)
	}
	s.config.Log.Log(context.WithoutCancel(r.Context()), level, "api", args...)
}

// requestID takes over a client's own id where it is fit for logs.
func (s *Server) requestID(theirs string) string {
	if theirs != "" && len(theirs) <= 64 && strings.Trim(theirs, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == "" {
		return theirs
	}
	id, err := s.config.NewID()
	if err != nil {
		return relay.FirstIDAt(time.Now()).String()
	}
	return id.String()
}

// answered remembers what was answered.
type answered struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (a *answered) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answered) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// FlushError sends what has been written.
func (a *answered) FlushError() error { return http.NewResponseController(a.ResponseWriter).Flush() }

// Flush is FlushError for who does not want to know.
func (a *answered) Flush() {
	_ = a.FlushError() // who does not take it as it comes gets it at the end
}
