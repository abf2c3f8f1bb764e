// Package track serves the links of mail that was sent: it shows the pixel, leads
// on to what was clicked, hands other links to those whose they are, and records
// what was done. It makes the copies with such links, too.
package track

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"postrider/internal/httpd"
	"postrider/internal/link"
	"postrider/internal/relay"
)

// Pages answers links that are neither pixels nor clicks.
type Pages interface {
	// ServeLink answers a request with a good link of kind Unsubscribe or
	// Preferences, on a host where it works.
	ServeLink(w http.ResponseWriter, r *http.Request, l link.Link)
}

// Recorder takes what was done. It does not wait.
type Recorder interface{ Record(d Deed) }

// Deed is one request for a pixel or a click.
type Deed struct {
	Link      link.Link
	At        time.Time
	Client    netip.Addr
	UserAgent string // at most 400 characters
	Head      bool   // asked for the header only
	Ahead     bool   // says of itself that it fetches ahead of a person
	Anonymous bool   // client and program are not to be kept
}

// Rules for requests that say DNT: 1 or Sec-GPC: 1.
const (
	DoNotTrackAnonymous = "anonymous"
	DoNotTrackIgnore    = "ignore"
	DoNotTrackRecord    = "record"
)

// Config is how links are served.
type Config struct {
	Proxies    []netip.Prefix // whose X-Forwarded-For is believed
	Life       time.Duration  // of a link, after its message: later ones are not recorded
	DoNotTrack string
	Pages      Pages // nil: there are none
	// Front answers requests that are for others on the same port, and hands on the
	// rest; nil: there are none.
	Front func(next http.Handler) http.Handler
}

// Server answers requests for links.
type Server struct {
	config   Config
	links    *link.Links
	hosts    *Hosts
	recorder Recorder
	log      *slog.Logger
	now      func() time.Time
}

// New makes a server.
func New(c Config, l *link.Links, h *Hosts, r Recorder, log *slog.Logger) *Server {
	return &Server{config: c, links: l, hosts: h, recorder: r, log: log, now: time.Now}
}

const (
	exchangeTime = 30 * time.Second
	maxHeader    = 16 << 10
	maxBody      = 64 << 10 // of what is sent to Pages
	maxAgent     = 400
)

// Serve serves a port until ctx ends; what is under way then has that time.
func (s *Server) Serve(ctx context.Context, ln net.Listener, drain time.Duration) error {
	handler := http.Handler(s)
	if s.config.Front != nil {
		handler = s.config.Front(s)
	}
	web := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: exchangeTime, WriteTimeout: exchangeTime, IdleTimeout: time.Minute,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	return httpd.Serve(ctx, web, ln, drain)
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Referrer-Policy", "no-referrer") // the link, and with it the recipient, is nobody's business
	h.Set("X-Robots-Tag", "noindex, nofollow")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store, private, max-age=0")
	if r.URL.Path == "/robots.txt" {
		plain(w, http.StatusOK, "User-agent: *\nDisallow: /\n")
		return
	}
	l, err := s.links.Parse(r.URL.EscapedPath())
	if err != nil || !s.hosts.serves(r.Context(), r.Host, func(account relay.ID) bool { return s.links.Of(account, l) }) {
		nothing(w)
		return
	}
	switch l.Kind {
	case link.Open:
		s.open(w, r, l)
	case link.Click:
		s.click(w, r, l)
	default:
		if s.config.Pages == nil {
			nothing(w)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		s.config.Pages.ServeLink(w, r, l)
	}
}

func nothing(w http.ResponseWriter) {
	plain(w, http.StatusNotFound, "There is nothing here. If you followed a link in a mail, it was changed on the way, or is cut off.\n")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // whoever has gone wants no answer
}

// reads tells whether a request only looks, and answers others.
func reads(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	plain(w, http.StatusMethodNotAllowed, "Only GET and HEAD are allowed here.\n")
	return false
}

// pixel is a transparent GIF of 1 by 1.
const pixel = "GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"

func (s *Server) open(w http.ResponseWriter, r *http.Request, l link.Link) {
	if !reads(w, r) {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "image/gif")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "0")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin") // web mail shows it
	_, _ = io.WriteString(w, pixel)
	s.record(r, l)
}

// click leads on. The target was looked at when the link was made; it is looked at
// again, since a mistake there must not become a hole here.
func (s *Server) click(w http.ResponseWriter, r *http.Request, l link.Link) {
	if !reads(w, r) {
		return
	}
	if !leadable(l.Target) {
		nothing(w)
		return
	}
	w.Header().Set("Location", l.Target)
	plain(w, http.StatusFound, "")
	s.record(r, l)
}

// leadable tells whether a link may lead to a target: an address of the web in
// visible ASCII.
func leadable(target string) bool {
	for i := range len(target) {
		if target[i] <= ' ' || target[i] >= 0x7f {
			return false
		}
	}
	scheme, rest, _ := strings.Cut(target, "://")
	return (strings.EqualFold(scheme, "https") || strings.EqualFold(scheme, "http")) && rest != "" && rest[0] != '/'
}

// record hands on what was done, when it counts.
func (s *Server) record(r *http.Request, l link.Link) {
	now := s.now()
	if age := now.Sub(l.Delivery.Message.Time()); age > s.config.Life {
		return
	}
	d := Deed{Link: l, At: now, Client: httpd.Client(r, s.config.Proxies), UserAgent: cut(r.UserAgent()), Head: r.Method == http.MethodHead, Ahead: ahead(r.Header)}
	if r.Header.Get("DNT") == "1" || r.Header.Get("Sec-GPC") == "1" {
		switch s.config.DoNotTrack {
		case DoNotTrackIgnore:
			return
		case DoNotTrackRecord:
		default:
			d.Anonymous = true
		}
	}
	s.recorder.Record(d)
}

// ahead tells whether a program says that it fetches before anybody asked.
func ahead(h http.Header) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		v := strings.ToLower(h.Get(name))
		if strings.Contains(v, "prefetch") || strings.Contains(v, "preview") || strings.Contains(v, "prerender") {
			return true
		}
	}
	return false
}

// cut makes of a header what may be kept: visible, valid and short.
func cut(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	n := 0
	for i := range s {
		if n == maxAgent {
			return s[:i]
		}
		n++
	}
	return s
}
