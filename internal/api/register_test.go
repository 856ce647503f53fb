package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/api"
)

// refuses tells what a registration panics with.
func refuses(register func(*api.API)) (msg string) {
	defer func() {
		if v := recover(); v != nil {
			msg = fmt.Sprint(v)
		}
	}()
	register(api.New(api.Config{}))
	return ""
}

type hiddenID struct {
	ID string `path:"id"`
}

func TestMistakesShowAtStart(t *testing.T) {
	op := api.Op{Route: "POST /api/x/{id}", ID: "x", Tag: "X", Summary: "X"}
	for want, register := range map[string]func(*api.API){
		"needs Route": func(a *api.API) {
			api.Public(a, api.Op{Route: "/api/x", ID: "x", Tag: "X", Summary: "X"}, func(context.Context, *struct{}) (*struct{}, error) { return nil, nil })
		},
		`tag path:"id"`: func(a *api.API) {
			type in struct{ hiddenID }
			api.Public(a, op, func(context.Context, *in) (*struct{}, error) { return nil, nil })
		},
		"uniqueItems": func(a *api.API) {
			type in struct {
				ID   string `path:"id"`
				Body struct {
					Deep []struct {
						Tags []string `json:"tags" uniqueItems:"true"`
					} `json:"deep"`
				}
			}
			api.Public(a, op, func(context.Context, *in) (*struct{}, error) { return nil, nil })
		},
		"duplicate operation ID": func(a *api.API) {
			type in struct {
				ID string `path:"id"`
			}
			for range 2 {
				api.Public(a, op, func(context.Context, *in) (*struct{}, error) { return nil, nil })
			}
		},
	} {
		if msg := refuses(register); !strings.Contains(msg, want) {
			t.Errorf("want a panic with %q, got %q", want, msg)
		}
	}
}

// Two packages may have types of one name.
func TestSchemasOfOneName(t *testing.T) {
	a := api.New(api.Config{})
	api.Public(a, api.Op{Route: "GET /api/a", ID: "a", Tag: "X", Summary: "A"}, func(context.Context, *struct{}) (*api.Answer[api.Problem], error) { return nil, nil })
	{
		type Problem struct {
			Mine string `json:"mine"`
		}
		api.Public(a, api.Op{Route: "GET /api/b", ID: "b", Tag: "X", Summary: "B"}, func(context.Context, *struct{}) (*api.Answer[Problem], error) { return nil, nil })
		api.Public(a, api.Op{Route: "GET /api/c", ID: "c", Tag: "X", Summary: "C"}, func(context.Context, *struct{}) (*api.Answer[api.List[Problem]], error) { return nil, nil })
		api.Public(a, api.Op{Route: "GET /api/d", ID: "d", Tag: "X", Summary: "D"}, func(context.Context, *struct{}) (*api.Answer[api.List[api.Problem]], error) { return nil, nil })
	}
	var names []string
	for name := range a.OpenAPI().Components.Schemas.Map() {
		names = append(names, name)
	}
	if len(names) != 5 { // and ProblemError
		t.Error(names)
	}
}

func TestDocHook(t *testing.T) {
	a := api.New(api.Config{})
	api.Public(a, api.Op{Route: "GET /api/a", ID: "a", Tag: "X", Summary: "A", Doc: func(op *huma.Operation) { op.Deprecated = true }},
		func(context.Context, *struct{}) (*struct{}, error) { return nil, nil })
	b, err := json.Marshal(a.OpenAPI())
	if err != nil || !strings.Contains(string(b), `"deprecated":true`) {
		t.Errorf("%s %v", b, err)
	}
}
