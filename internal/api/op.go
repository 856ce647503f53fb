package api

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/tenant"
)

// Op describes an operation. Route, ID, Tag and Summary are always set.
type Op struct {
	Route       string // "POST /api/crm/leads/{id}/notes"
	ID          string // operationId, camelCase, unique: "addLeadNote"
	Tag         string // the group in the docs: "CRM"
	Summary     string
	Description string
	Status      int    // of success; 0: 200, or 204 where the answer has no Body
	Role        string // the least role of a session; "": viewer to read, agent to write
	AnyOrigin   bool   // of a public operation: pages of every origin that some client allows may read the answer
	MaxBody     int64  // bytes; 0: 1 MiB, streamed operations 100 MiB
	// OwnIdempotency: the operation deals with Idempotency-Key itself, or repeating it does no harm.
	OwnIdempotency bool
	// Doc changes the documented operation, for what the types cannot say; huma must already know the schemas.
	Doc func(*huma.Operation)
}

// operation is a registered Op with what the shell needs at request time.
type operation struct {
	access       Access
	role         string
	maxBody      int64
	idempotent   bool
	anyOrigin    bool
	bodyRequired bool
}

const operationKey = "api"

// roleExtension tells, in the OpenAPI document, the least role of a session that may call.
const roleExtension = "x-role"

// Answer is the output of an operation whose answer is a body and no more. An operation with headers declares its own
// struct: fields with a header tag, Status int, Body.
type Answer[T any] struct{ Body T }

// OK wraps a body.
func OK[T any](body T) (*Answer[T], error) { return &Answer[T]{body}, nil }

// Client registers an operation of the client API. The handler gets the calling client's open database; it is released
// when the handler returns. I is huma's input: fields with path, query and header tags, and Body.
func Client[I, O any](a *API, op Op, h func(ctx context.Context, tn *tenant.Tenant, in *I) (*O, error)) {
	register(a, AccessClient, op, func(ctx context.Context, in *I) (*O, error) {
		tn, release, err := a.Open(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
		return h(ctx, tn, in)
	})
}

// ClientCall is Client without opening the database, for what must also answer while it cannot be reached, and for
// what lives in the services database.
func ClientCall[I, O any](a *API, op Op, h func(ctx context.Context, caller Caller, in *I) (*O, error)) {
	register(a, AccessClient, op, func(ctx context.Context, in *I) (*O, error) { return h(ctx, CallerOf(ctx), in) })
}

// SessionCall registers an operation that only dashboard users call, about themselves. The handler gets the client's open
// database.
func SessionCall[I, O any](a *API, op Op, h func(ctx context.Context, tn *tenant.Tenant, in *I) (*O, error)) {
	register(a, AccessSession, op, func(ctx context.Context, in *I) (*O, error) {
		tn, release, err := a.Open(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
		return h(ctx, tn, in)
	})
}

// Admin registers an operation of the admin API.
func Admin[I, O any](a *API, op Op, h func(ctx context.Context, in *I) (*O, error)) {
	register(a, AccessAdmin, op, h)
}

// Public registers an operation that anybody may call.
func Public[I, O any](a *API, op Op, h func(ctx context.Context, in *I) (*O, error)) {
	register(a, AccessPublic, op, h)
}

func register[I, O any](a *API, access Access, op Op, h func(context.Context, *I) (*O, error)) {
	_, hop := a.operation(access, op, MaxJSON)
	huma.Register(a.huma, hop, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, problemFor(ctx, err)
		}
		return out, nil
	})
	a.document(hop.Method, hop.Path, op.Doc)
	checkSchemas(a.huma.OpenAPI().Components.Schemas)
}

// Stream registers an operation that reads and writes bytes itself: uploads, downloads, redirects. Who may call,
// idempotency and the body's limits are as for the others; the body is not JSON-checked and arrives as it comes. The
// handler's error becomes the problem that answers, if nothing was written. Describe bodies in Op.Doc.
func Stream(a *API, access Access, op Op, h func(w http.ResponseWriter, r *http.Request) error) {
	o, hop := a.operation(access, op, 100<<20)
	for _, m := range pathParam.FindAllStringSubmatch(hop.Path, -1) {
		hop.Parameters = append(hop.Parameters, &huma.Param{
			Name: m[1], In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString},
		})
	}
	hop.Path = strings.ReplaceAll(hop.Path, "...}", "}")
	status := or(op.Status, http.StatusOK)
	hop.Responses = map[string]*huma.Response{strconv.Itoa(status): {Description: http.StatusText(status)}}
	for _, code := range hop.Errors {
		hop.Responses[strconv.Itoa(code)] = a.problemResponse(code)
	}
	a.huma.OpenAPI().AddOperation(&hop)
	a.document(hop.Method, hop.Path, op.Doc)
	a.mux.HandleFunc(op.Route, func(w http.ResponseWriter, r *http.Request) { a.serveStream(w, r, o, h) })
}

var pathParam = regexp.MustCompile(`\{([A-Za-z]+)(?:\.\.\.)?\}`)

// operation makes the shell's and huma's view of an Op.
func (a *API) operation(access Access, op Op, maxBody int64) (*operation, huma.Operation) {
	method, path, ok := strings.Cut(op.Route, " ")
	if !ok || op.ID == "" || op.Summary == "" || op.Tag == "" {
		panic("api: an Op needs Route (METHOD /path), ID, Tag and Summary: " + op.Route)
	}
	reads := method == http.MethodGet || method == http.MethodHead
	o := &operation{access: access, role: op.Role, anyOrigin: op.AnyOrigin, maxBody: or(op.MaxBody, maxBody)}
	o.idempotent = method == http.MethodPost && !op.OwnIdempotency && a.cfg.Services != nil
	if o.role == "" {
		if o.role = RoleAgent; reads {
			o.role = RoleViewer
		}
	}
	errs := []int{http.StatusBadRequest, http.StatusTooManyRequests, http.StatusServiceUnavailable}
	if access != AccessPublic {
		errs = append(errs, http.StatusUnauthorized, http.StatusForbidden)
	}
	if strings.Contains(path, "{") {
		errs = append(errs, http.StatusNotFound)
	}
	if !reads {
		errs = append(errs, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	slices.Sort(errs)
	hop := huma.Operation{
		OperationID: op.ID, Method: method, Path: path, Summary: op.Summary, Description: op.Description,
		Tags: []string{op.Tag}, DefaultStatus: op.Status, Errors: errs,
		Metadata: map[string]any{operationKey: o},
		Security: security(access),
	}
	if access == AccessClient || access == AccessSession {
		hop.Extensions = map[string]any{roleExtension: o.role}
	}
	if method == http.MethodPost && !op.OwnIdempotency {
		one, most := 1, 255
		hop.Parameters = append(hop.Parameters, &huma.Param{
			Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString, MinLength: &one, MaxLength: &most},
			Description: "The same key and body give the same answer for 24 hours.",
		})
	}
	return o, hop
}

func security(access Access) []map[string][]string {
	switch access {
	case AccessClient:
		return []map[string][]string{{"apiKey": {}, "clientCode": {}}, {"session": {}}, {"sessionCookie": {}}}
	case AccessSession:
		return []map[string][]string{{"session": {}}, {"sessionCookie": {}}}
	case AccessAdmin:
		return []map[string][]string{{"admin": {}}}
	}
	return []map[string][]string{{}} // said openly: none is needed
}

// document completes the registered operation with what huma does not know, then by the op's own hook.
func (a *API) document(method, path string, doc func(*huma.Operation)) {
	item := a.huma.OpenAPI().Paths[path]
	op := map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put,
		http.MethodPatch: item.Patch, http.MethodDelete: item.Delete, http.MethodHead: item.Head,
	}[method]
	for _, m := range pathParam.FindAllStringSubmatch(path, -1) {
		if !slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.In == "path" && p.Name == m[1] }) {
			// huma passes over embedded structs whose type is not exported, and the handler would read "".
			panic("api: " + op.OperationID + ": no input field (of an exported struct) has the tag path:\"" + m[1] + "\"")
		}
	}
	for _, res := range op.Responses {
		if res.Headers == nil {
			res.Headers = map[string]*huma.Param{}
		}
		res.Headers["x-request-id"] = &huma.Param{Schema: &huma.Schema{Type: huma.TypeString}, Description: "Names the request in the operator's log."}
	}
	if doc != nil {
		doc(op)
	}
}

// serveJSON is what stands around a JSON operation.
func (a *API) serveJSON(w http.ResponseWriter, r *http.Request, o *operation, next http.HandlerFunc) {
	ctx, cancel := context.WithTimeout(r.Context(), a.cfg.RequestTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	caller, err := a.enter(w, r, o)
	if err != nil {
		WriteError(w, r, err)
		return
	}
	var body []byte
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		if body, err = a.readJSON(w, r, o, o.bodyRequired); err != nil {
			WriteError(w, r, err)
			return
		}
	}
	r.Body = newBody(body)
	r.Header.Set("Content-Type", "application/json") // checked; huma would want its own spelling
	r.Header.Set("Accept", "application/json")       // JSON is all there is
	run := func() *capture {
		c := newCapture(w)
		c.header.Set("Cache-Control", "no-store")
		next(c, r)
		return c
	}
	key, err := idempotencyHeader(r, o)
	if err != nil {
		WriteError(w, r, err)
		return
	}
	if key == "" {
		run().send()
		return
	}
	hash := hashBody(r, body)
	err = a.once(w, r, caller, key, jsonLease(a.cfg.RequestTimeout), hash, func() (*capture, string, error) { return run(), hash, nil })
	answerError(w, r, err)
}

// serveStream is what stands around a streamed operation.
func (a *API) serveStream(w http.ResponseWriter, r *http.Request, o *operation, h func(http.ResponseWriter, *http.Request) error) {
	caller, err := a.enter(w, r, o)
	if err != nil {
		WriteError(w, r, err)
		return
	}
	if r.ContentLength > o.maxBody {
		WriteError(w, r, tooLarge(o.maxBody))
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		r.Body = newTimedBody(w, r, o.maxBody, streamIdle, streamTotal)
	}
	key, err := idempotencyHeader(r, o)
	if err != nil {
		WriteError(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store") // handlers that know better say so
	if key == "" {
		answerError(w, r, h(w, r))
		return
	}
	answerError(w, r, a.onceStream(w, r, caller, key, h))
}

// Limits of streamed bodies: between two reads, and for all of them.
const (
	streamIdle  = 30 * time.Second
	streamTotal = 15 * time.Minute
)

// enter finds out who calls and whether they may.
func (a *API) enter(w http.ResponseWriter, r *http.Request, o *operation) (Caller, error) {
	caller, err := a.authenticate(r, o)
	requestOf(r.Context()).caller = caller
	if err != nil {
		return caller, err
	}
	if !o.anyOrigin {
		a.corsFor(w, r, caller)
	}
	return caller, a.limit(r, o, caller)
}
