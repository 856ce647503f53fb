package api

import (
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
)

// afterIn is Page.After for a list of records that a store orders by a field. Callers can make cursors up, and a store
// does not look for a number among texts.
func (p Page) afterIn(name string, kind store.Schema, order string) (*store.Cursor, error) {
	at, err := p.After(name)
	if err != nil || at == nil {
		return nil, err
	}
	field, _ := kind.Field(order)
	fits := true
	switch at.Value.(type) {
	case string:
		fits = field.Type == store.Text
	case int64:
		fits = field.Type == store.Int
	}
	if !fits {
		return nil, fault.Bad("query.cursor", "This is not a cursor of this list and order.")
	}
	return at, nil
}

// nullable documents that members of a schema which are objects may be null: huma knows that of scalars only.
func (a *API) nullable(schema string, members ...string) {
	for _, m := range members {
		s := a.huma.OpenAPI().Components.Schemas.Map()[schema]
		ref := s.Properties[m]
		if ref == nil || ref.Ref == "" {
			panic("api: " + schema + " has no object " + m)
		}
		s.Properties[m] = &huma.Schema{Description: ref.Description, AnyOf: []*huma.Schema{{Ref: ref.Ref}, {Type: "null"}}}
	}
}

// alsoAnswers documents a refusal that the shell does not expect of a route.
func (a *API) alsoAnswers(status int) func(*huma.Operation) {
	return func(op *huma.Operation) { op.Responses[strconv.Itoa(status)] = a.problemResponse(status) }
}
