package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Config is what the shell is built from. Only the verifiers of the accesses in use are needed; zero durations and
// limits take the defaults.
type Config struct {
	PublicURL string // base of links and of the OpenAPI document's server
	Version   string
	Log       *slog.Logger

	// VerifyKey knows API keys: fault.Unauthenticated for a wrong one, fault.Forbidden for a suspended client.
	VerifyKey func(ctx context.Context, code, key string) (Caller, error)
	// VerifyAdmin compares the admin token, in constant time.
	VerifyAdmin func(token string) bool
	// VerifySession knows dashboard sessions; nil: there are none.
	VerifySession func(ctx context.Context, token string) (Caller, error)
	// Open opens a client's database (tenant.Registry.Use).
	Open func(ctx context.Context, code string) (tn *tenant.Tenant, release func(), err error)
	// OriginAllowed tells whether pages of an origin may call for a client; client "" asks for any client. nil: none may.
	OriginAllowed func(client, origin string) bool

	// Alone tells that no other process serves the same storage: what one before left running is over.
	Alone    bool
	Services store.DB     // keeps idempotency keys; it must know IdempotencyKeys.Schema. nil: keys are ignored
	Ring     *secret.Ring // seals kept answers

	Metrics *prometheus.Registry // nil: an own one
	Ready   []Check              // of /readyz
	// Degraded are what a node does without if need be: /readyz names those that fail, and stays as it is.
	Degraded []Check
	Web      http.Handler // what no route matches, outside of /api/: the dashboard. nil: 404

	Now            func() time.Time
	BodyTimeout    time.Duration // for a JSON body to arrive; 10 s
	RequestTimeout time.Duration // for a JSON operation to answer; 50 s
	DrainTimeout   time.Duration // for requests under way when stopping; 15 s
	LameDuck       time.Duration // before that, requests are still taken while /readyz says no: whoever balances looks elsewhere; 0
	// Wrong credentials that one address may send before it is answered 429, and how fast they are forgotten; 300 and 5.
	FailureBurst      int
	FailuresPerSecond float64
	// RatePerSecond is how often a caller may call, on average; twice as many may come at once. 500.
	RatePerSecond float64
	RateOf        func(client string) float64 // a client's own; 0, or nil: RatePerSecond
}

// API is the HTTP shell: routes, and all that happens around them. Register every operation before serving.
type API struct {
	cfg         Config
	mux         *http.ServeMux
	huma        huma.API
	crossOrigin *http.CrossOriginProtection
	failures    *buckets // wrong credentials, by address
	logins      *buckets // failed logins, by address
	public      *buckets // calls without credentials, by address
	callers     *buckets // calls, by caller
	metrics     *httpMetrics
	draining    atomic.Bool
	node        string // this process, for those that come after it
	onDrain     []func()
	progress    map[string]progressOf // of jobs, by their type

	// systemProgress is that of the system's own jobs.
	systemProgress map[string]func(context.Context, store.Job) (*Progress, error)
	openAPI        func() []byte
}

// New builds the shell with its standing routes (/healthz, /readyz, /metrics, /openapi.json, /docs).
func New(cfg Config) *API {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	if cfg.Services != nil && cfg.Ring == nil {
		panic("api: kept answers need a Ring to be sealed with")
	}
	cfg.BodyTimeout = or(cfg.BodyTimeout, 10*time.Second)
	cfg.RequestTimeout = or(cfg.RequestTimeout, 50*time.Second)
	cfg.DrainTimeout = or(cfg.DrainTimeout, 15*time.Second)
	cfg.FailureBurst = or(cfg.FailureBurst, 300)
	cfg.FailuresPerSecond = or(cfg.FailuresPerSecond, 5)
	cfg.RatePerSecond = or(cfg.RatePerSecond, 500)
	a := &API{
		cfg:         cfg,
		mux:         http.NewServeMux(),
		crossOrigin: http.NewCrossOriginProtection(),
		failures:    newBuckets(),
		logins:      newBuckets(),
		public:      newBuckets(),
		callers:     newBuckets(),
		metrics:     newHTTPMetrics(cfg.Metrics),
		node:        id.New("nod"),
	}
	if o := originOf(cfg.PublicURL); o != "" {
		_ = a.crossOrigin.AddTrustedOrigin(o) // a proxy may hide our own origin from us
	}
	a.huma = newHuma(a)
	a.openAPI = sync.OnceValue(a.marshalOpenAPI)
	a.standing()
	return a
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Handle registers a plain handler under a ServeMux pattern ("POST /u/{token}", "/socket.io/"). It has request id,
// log, metrics and panic recovery, and nothing else: no authentication, no limits, no place in the OpenAPI document.
func (a *API) Handle(pattern string, h http.Handler) { a.mux.Handle(pattern, h) }

// HandleFunc is Handle for a function; its error becomes the problem that answers, if nothing was written.
func (a *API) HandleFunc(pattern string, h func(w http.ResponseWriter, r *http.Request) error) {
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { answerError(w, r, h(w, r)) })
}

func answerError(w http.ResponseWriter, r *http.Request, err error) {
	if err == nil {
		return
	}
	if started(w) {
		requestOf(r.Context()).log.Warn("answer cut short", requestOf(r.Context()).attrs("error", err)...)
		panic(http.ErrAbortHandler) // the caller must see that the answer is not whole
	}
	WriteError(w, r, err)
}

// started tells whether a handler has begun to answer.
func started(w http.ResponseWriter) bool {
	switch w := w.(type) {
	case *answer:
		return w.status != 0 || w.hijacked
	case *capture:
		return false // can still be thrown away
	}
	return false
}

// OpenAPI is the document that /openapi.json serves; for tests and for what an Op cannot say.
func (a *API) OpenAPI() *huma.OpenAPI { return a.huma.OpenAPI() }

// ServeHTTP serves every request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := &request{id: requestID(r), log: a.cfg.Log, http: r}
	r = r.WithContext(context.WithValue(r.Context(), requestKey{}, q))
	aw := &answer{ResponseWriter: w}
	a.metrics.inFlight.Inc()
	defer a.metrics.inFlight.Dec()
	defer a.finish(aw, r, q, a.cfg.Now())
	a.standardHeaders(aw, q)
	a.timeBody(aw, r)
	if err := checkURL(r); err != nil {
		WriteError(aw, r, err)
		return
	}
	if a.cors(aw, r) {
		return
	}
	a.route(aw, r, q)
}

// standardHeaders are on every answer; a page widens its own Content-Security-Policy.
func (a *API) standardHeaders(w http.ResponseWriter, q *request) {
	h := w.Header()
	h.Set("X-Request-Id", q.id)
	if a.draining.Load() {
		h.Set("Connection", "close") // so that a connection is not found closed by who would use it again
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
}

// checkURL refuses addresses that no honest caller sends and that stores and logs would stumble over.
func checkURL(r *http.Request) error {
	bad := fault.New(fault.Malformed, "request.url", "The address of the request is not valid.")
	if r.RequestURI == "*" || !cleanText(r.URL.Path) {
		return bad
	}
	if r.URL.RawQuery == "" {
		return nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return bad
	}
	for name, vs := range values {
		if !cleanText(name) {
			return bad
		}
		for _, v := range vs {
			if !cleanText(v) {
				return bad
			}
		}
	}
	return nil
}

func cleanText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// route serves what a pattern matches, tells a wrong method from an unknown path, and leaves the rest to the dashboard.
func (a *API) route(w http.ResponseWriter, r *http.Request, q *request) {
	h, pattern := a.mux.Handler(r)
	if pattern != "" {
		q.route = pattern
		a.mux.ServeHTTP(w, r)
		return
	}
	refusal := newCapture(w)
	h.ServeHTTP(refusal, r) // the mux's own 404 or 405, for its Allow header
	switch {
	case refusal.status == http.StatusMethodNotAllowed:
		p := newProblem(http.StatusMethodNotAllowed, "method_not_allowed", "This path does not know the method. Allow lists those it knows.")
		p.header = http.Header{"Allow": refusal.header["Allow"]}
		WriteError(w, r, p)
	case a.cfg.Web != nil && r.URL.Path != "/api" && !strings.HasPrefix(r.URL.Path, "/api/"):
		q.route = "web"
		a.serveWeb(w, r)
	default:
		WriteError(w, r, newProblem(http.StatusNotFound, "not_found", "There is nothing at this path."))
	}
}

// serveWeb serves the dashboard's files; what is none of them is a problem as everywhere.
func (a *API) serveWeb(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		p := newProblem(http.StatusMethodNotAllowed, "method_not_allowed", "This path does not know the method. Allow lists those it knows.")
		p.header = http.Header{"Allow": {"GET, HEAD"}}
		WriteError(w, r, p)
		return
	}
	page := newCapture(w)
	a.cfg.Web.ServeHTTP(page, r)
	if page.status == http.StatusNotFound {
		WriteError(w, r, newProblem(http.StatusNotFound, "not_found", "There is nothing at this path."))
		return
	}
	page.send()
}

// capture is an answer held back until it is whole, so that a failure half way can still become a problem, and so that
// an answer can be kept.
type capture struct {
	inner  http.ResponseWriter
	header http.Header
	status int
	body   []byte
}

func newCapture(w http.ResponseWriter) *capture { return &capture{inner: w, header: http.Header{}} }

// Unwrap is for http.ResponseController: deadlines.
func (c *capture) Unwrap() http.ResponseWriter { return c.inner }

func (c *capture) Header() http.Header { return c.header }

func (c *capture) WriteHeader(status int) {
	if c.status == 0 && status >= 200 {
		c.status = status
	}
}

func (c *capture) Write(p []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	c.body = append(c.body, p...)
	return len(p), nil
}

// FlushError makes ResponseController.Flush fail rather than reach the writer beneath.
func (c *capture) FlushError() error { return http.ErrNotSupported }

// send lets the answer go.
func (c *capture) send() {
	h := c.inner.Header()
	for name, v := range c.header {
		h[name] = v
	}
	if c.status == 0 {
		c.status = http.StatusOK
	}
	if c.status != http.StatusNoContent && c.status != http.StatusNotModified {
		h.Set("Content-Length", strconv.Itoa(len(c.body)))
	}
	c.inner.WriteHeader(c.status)
	_, _ = c.inner.Write(c.body)
}
