// Package api is the HTTP API: what the command line, the dashboard and other
// programs see and do. It serves operators on the control socket, whose file
// permissions say who is one, and holders of API keys over TCP.
package api

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"postrider/internal/account"
	"postrider/internal/alert"
	"postrider/internal/domain"
	"postrider/internal/httpd"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/report"
	"postrider/internal/tail"
	"postrider/internal/trace"
	"postrider/internal/webhook"
)

// Config is what the API must know, and whom it asks.
type Config struct {
	Info    Info
	URL     string         // where the API is reached from outside; empty: only by the control socket
	Proxies []netip.Prefix // whose X-Forwarded-For is believed
	Home    relay.ID       // account that operators add things to who name none
	NewID   func() (relay.ID, error)
	Log     *slog.Logger

	Keys         Keys
	Tenants      Tenants
	Mail         Log
	Queue        Queue
	Nodes        Nodes
	Condition    func() relay.Condition // of this node
	Backup       Backer
	Entrance     Entrance
	MessageSize  int64 // bytes: the largest message
	Bodies       int64 // bytes: of all request bodies at once; 0: 128 MiB, or twice the largest
	Credentials  *account.Manager
	Accounts     *account.Tenants
	People       *account.People
	Suppressions *account.Suppressions
	Groups       *account.Groups
	Untracked    *account.Untracked
	Audit        Audit
	Limits       Limits
	Book         Book
	Domains      *domain.Manager
	Certificates Certificates // nil: nothing is known of them
	Senders      *domain.Senders
	Webhooks     *webhook.Manager
	Alerts       *alert.Manager
	Doctor       Doctor
	Reports      *report.Reports
	Scores       Scores
	Loops        Loops
	Live         *tail.Live
	Traces       *trace.Book
}

// Log is what is known of deliveries.
type Log interface {
	Deliveries(ctx context.Context, account relay.ID, f relay.DeliveryFilter) ([]relay.Logged, error)
	// Find is the same, but gives what it has when it has taken that long.
	Find(ctx context.Context, account relay.ID, f relay.DeliveryFilter, within time.Duration) (*relay.LogPage, error)
	EventPage(ctx context.Context, account, after relay.ID, limit int, within time.Duration) (found []*relay.Event, next relay.ID, err error)
	Story(ctx context.Context, account, message relay.ID) (*relay.Story, error)
	StoryPart(ctx context.Context, account, message relay.ID, p relay.StoryPart) (*relay.Story, error)
	// Backlog counts what waits, by class.
	Backlog(ctx context.Context, account relay.ID, f relay.BacklogFilter) ([]relay.Backlog, error)
}

// Queue takes orders.
type Queue interface {
	Order(ctx context.Context, account relay.ID, id relay.DeliveryID, kind relay.Kind) error
	// Reschedule gives what is not due yet another time; one error for each.
	Reschedule(ctx context.Context, deliveries []*relay.Delivery, due time.Time) []error
	Stats() queue.Stats
}

// Nodes are those that share the store.
type Nodes interface {
	Nodes(ctx context.Context) ([]relay.Node, error)
	// Drain orders a node to drain, or to work again.
	Drain(ctx context.Context, node string, drain bool) error
}

// Certificates knows those of tracking hosts.
type Certificates interface {
	// TrackingCertificate gives nil where the domain has no such host.
	TrackingCertificate(ctx context.Context, d *relay.Domain) (*relay.HostCertificate, error)
}

// Info is what the server says of itself.
type Info struct {
	Version   string            `json:"version"`
	Hostname  string            `json:"hostname"`
	Node      string            `json:"node"`
	Started   time.Time         `json:"started"`
	Listeners map[string]string `json:"listeners" doc:"Address of each listener, by its name"`
}

// Server answers requests.
type Server struct {
	config        Config
	mux           *http.ServeMux
	huma          huma.API
	problemSchema *huma.Schema
	counting      chan struct{} // holds one while what waits is counted
	bodies        bodies
	pace          streamPace
}

// New makes a server with its own routes; others are added with Register.
func New(c Config) *Server {
	s := &Server{config: c, mux: http.NewServeMux(), counting: make(chan struct{}, 1), pace: usualPace}
	h := huma.DefaultConfig("Postrider", c.Info.Version)
	h.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	h.DocsPath = "" // the page would load a script from elsewhere
	h.SchemasPath = ""
	h.OpenAPIPath = "" // written by document, when all routes are there
	h.CreateHooks = nil
	h.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat, "message/rfc822": wholeMessage(), "text/csv": tables()}
	h.Transformers = append(h.Transformers, s.finish)
	s.huma = humago.New(s.mux, h)
	schemas := s.huma.OpenAPI().Components.Schemas
	s.problemSchema = schemas.Schema(typeOf[Problem](), true, "Problem")
	s.bodies.most = c.Bodies
	if s.bodies.most == 0 {
		s.bodies.most = max(128<<20, 2*s.largestBody())
	}
	s.mux.HandleFunc("/", s.nowhere)
	s.routes()
	return s
}

// schemaName names a type in the document: those of other packages with the
// package before, because names may be the same.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if p := path.Base(t.PkgPath()); strings.HasPrefix(t.PkgPath(), "postrider/") && p != "api" && p != "relay" {
		return strings.ToUpper(p[:1]) + p[1:] + name
	}
	return name
}

// routes adds what the server itself knows to do.
func (s *Server) routes() {
	s.statusRoutes()
	s.mailRoutes()
	s.liveRoutes()
	s.trialRoutes()
	s.queueRoutes()
	s.sendRoutes()
	s.credentialRoutes()
	s.accountRoutes()
	s.peopleRoutes()
	s.suppressionRoutes()
	s.groupRoutes()
	s.untrackedRoutes()
	s.auditRoutes()
	s.limitRoutes()
	s.domainRoutes()
	s.senderRoutes()
	s.webhookRoutes()
	s.alertRoutes()
	s.reportRoutes()
	s.scoreRoutes()
	s.doctorRoutes()
	s.feedbackRoutes()
	s.nodeRoutes()
	s.backupRoutes()
	s.documentRoutes()
}

// Control serves the control socket: all that comes there is an operator's.
func (s *Server) Control() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.mux)
	// For "go tool pprof"; who may open the socket may see the program at work.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	return s.entrance(true, mux)
}

// Public serves TCP: who comes there needs an API key.
func (s *Server) Public() http.Handler { return s.entrance(false, s.mux) }

// exchangeTime is how long a request and its answer may take: the longest time for
// a body, and some for the answer. Who reads nothing does not keep a connection.
const exchangeTime = 15 * time.Minute

// Serve serves a listener until ctx ends; then it lets what is under way end,
// for up to drain.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, drain time.Duration, log *slog.Logger) error {
	s := newServer(h, log, exchangeTime)
	s.BaseContext = func(net.Listener) context.Context {
		return context.WithValue(context.WithoutCancel(ctx), stoppingKey{}, ctx.Done())
	}
	return httpd.Serve(ctx, s, ln, drain)
}

type stoppingKey struct{}

// stopping is closed when the server that a request came to is to end; nil where
// nobody says so.
func stopping(ctx context.Context) <-chan struct{} {
	done, _ := ctx.Value(stoppingKey{}).(<-chan struct{})
	return done
}

// newServer makes a server that gives no client more than that time for a request
// and its answer.
func newServer(h http.Handler, log *slog.Logger, most time.Duration) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: most, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
}

// methods are those that routes have.
var methods = [...]string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// nowhere answers for paths that no route has, or not with this method.
func (s *Server) nowhere(w http.ResponseWriter, r *http.Request) {
	p := &Problem{Status: http.StatusNotFound, Code: string(relay.NotFound), Detail: fmt.Sprintf("There is nothing at %s.", cut(r.URL.Path)), Advice: "See /docs."}
	var allowed []string
	for _, m := range methods {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := s.mux.Handler(other); pattern != "/" && pattern != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) > 0 && !slices.Contains(allowed, r.Method) {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		p.Status, p.Detail = http.StatusMethodNotAllowed, fmt.Sprintf("%s is not for this address.", cut(r.Method))
		p.Advice = "It takes " + strings.Join(allowed, ", ") + "; see /docs."
	}
	p.Title = http.StatusText(p.Status)
	s.writeProblem(w, r, p)
}

// writeProblem answers with a problem where the framework does not.
func (s *Server) writeProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	op := &huma.Operation{Method: r.Method, Path: r.URL.Path}
	ctx := humago.NewContext(op, r, w)
	_, _ = s.finish(ctx, "", p) // gives no error
	ctx.SetHeader("Content-Type", p.ContentType(""))
	ctx.SetStatus(p.Status)
	_ = json.NewEncoder(w).Encode(p) // who has gone needs no answer
}
