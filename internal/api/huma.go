package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/validation"
)

// huma is set up by package variables; these are the only ones we touch, once, before any schema is made.
func init() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(status, msg, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return problemFor(ctx.Context(), humaProblem(status, msg, errs))
	}
	huma.ValidateStrictCasing = true  // "Phone" is not "phone"
	huma.DefaultArrayNullable = false // null is not an empty list
	validation.MsgExpectedRequiredProperty = requiredMark + "%s"
	// Messages are made from constants of the schema, and from errors, which repeat the value: those are left out.
	huma.ErrorFormatter = func(format string, args ...any) string {
		for _, a := range args {
			if _, ok := a.(error); ok {
				return strings.TrimSuffix(format, ": %v")
			}
		}
		return fmt.Sprintf(format, args...)
	}
}

// humaProblem turns what huma has to say into a fault or a Problem. Values that it echoes are dropped.
func humaProblem(status int, msg string, errs []error) *Problem {
	switch {
	case status == http.StatusUnprocessableEntity, status == http.StatusBadRequest && len(errs) > 0:
		// The guard has seen that the JSON is well formed; what huma calls a bad request is a value out of range.
		return invalidInput(errs)
	case status == http.StatusBadRequest:
		return newProblem(status, "json.missing", "This call needs a body.")
	case status == http.StatusUnsupportedMediaType:
		return newProblem(status, "body.content_type", "The content type is not one that this call takes.")
	case status < 500 && status >= 400:
		return newProblem(status, "request.refused", http.StatusText(status)+".")
	}
	return toProblem(errors.Join(append(errs, errors.New(msg))...))
}

// newHuma makes the huma API on our own adapter. No docs, schemas or $schema links: those would name other hosts.
func newHuma(a *API) huma.API {
	format := huma.Format{Marshal: marshalJSON, Unmarshal: unmarshalJSON}
	cfg := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:       "ecod",
				Version:     a.cfg.Version,
				Description: apiDescription,
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", newNamer()),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"apiKey":        {Type: "apiKey", In: "header", Name: "x-api-key", Description: "A client's API key; always with clientCode."},
					"clientCode":    {Type: "apiKey", In: "header", Name: "x-client-code", Description: "The client's code."},
					"session":       {Type: "http", Scheme: "bearer", Description: "A dashboard user's session token."},
					"sessionCookie": {Type: "apiKey", In: "cookie", Name: SessionCookie, Description: "The same token, as the dashboard holds it."},
					"admin":         {Type: "http", Scheme: "bearer", Description: "The operator's admin token."},
				},
			},
		},
		Formats:       map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat: "application/json",
	}
	if a.cfg.PublicURL != "" {
		cfg.Servers = []*huma.Server{{URL: strings.TrimSuffix(a.cfg.PublicURL, "/")}}
	}
	return huma.NewAPI(cfg, adapter{a})
}

const apiDescription = `Every error is application/problem+json; compare its "code". Lists take limit and cursor. ` +
	`Times are RFC 3339 in UTC with milliseconds. A POST may carry an Idempotency-Key: the same key and body give the same answer for 24 hours.`

// adapter puts huma's operations behind the shell: who may call, the body's checks, idempotency.
type adapter struct{ a *API }

func (ad adapter) Handle(op *huma.Operation, next func(huma.Context)) {
	o, _ := op.Metadata[operationKey].(*operation)
	o.bodyRequired = op.RequestBody != nil && op.RequestBody.Required
	op.BodyReadTimeout = -1 // the guard has read the body; huma's own deadline would outlive the reading and end long handlers
	op.MaxBodyBytes = -1
	ad.a.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) {
		ad.a.serveJSON(w, r, o, func(w http.ResponseWriter, r *http.Request) {
			next(humago.NewContext(op, r, w))
		})
	})
}

func (ad adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { ad.a.ServeHTTP(w, r) }

func marshalJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// unmarshalJSON decodes a body that the guard has checked: once into an any, for validation, once into the handler's type.
func unmarshalJSON(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return decodeError(data, err)
	}
	if p, ok := v.(*any); ok {
		hideSeparators(*p)
	}
	return nil
}

// newNamer names schemas after their types; of two types of one name, the second is named after its package too.
func newNamer() func(reflect.Type, string) string {
	names := map[reflect.Type]string{}
	taken := map[string]reflect.Type{}
	return func(t reflect.Type, hint string) string {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if name, ok := names[t]; ok {
			return name
		}
		name := huma.DefaultSchemaNamer(t, hint)
		if t.Kind() != reflect.Struct {
			return name
		}
		if taken[name] != nil {
			if pkg := path.Base(t.PkgPath()); pkg != "." {
				name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
			}
		}
		for base, i := name, 2; taken[name] != nil; i++ {
			name = base + strconv.Itoa(i)
		}
		names[t], taken[name] = name, t
		return name
	}
}

// checkSchemas refuses at start what huma cannot validate without a panic on hostile input.
func checkSchemas(r huma.Registry) {
	for name, s := range r.Map() {
		checkSchema(name, s)
	}
}

func checkSchema(name string, s *huma.Schema) {
	if s == nil {
		return
	}
	if s.UniqueItems {
		panic("api: " + name + `: uniqueItems panics on items that are not scalars; check in the handler`)
	}
	checkSchema(name, s.Items)
	for _, p := range s.Properties {
		checkSchema(name, p)
	}
	if add, ok := s.AdditionalProperties.(*huma.Schema); ok {
		checkSchema(name, add)
	}
}
