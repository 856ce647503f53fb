package api_test

import (
	"context"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/tenant"
)

// A resource file declares its shapes and registers its operations.
func Example() {
	type tag struct {
		Name string `json:"name" minLength:"1" maxLength:"60"`
	}
	type addTag struct {
		ID   string `path:"id"`
		Body tag
	}
	a := api.New(api.Config{})
	api.Client(a, api.Op{Route: "POST /api/crm/leads/{id}/tags", ID: "addTag", Tag: "CRM", Summary: "Tag a lead", Status: 201},
		func(_ context.Context, tn *tenant.Tenant, in *addTag) (*api.Answer[tag], error) {
			if in.Body.Name == "vip" {
				return nil, fault.New(fault.Conflict, "tag.exists", "The lead has this tag.")
			}
			return api.OK(in.Body) // book.AddTag(ctx, tn, in.ID, in.Body.Name)
		})
	// Output:
}
