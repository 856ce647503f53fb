package crm

import (
	"time"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Limits of tags.
const (
	MaxTag  = 100 // characters of one
	MaxTags = 100 // of one lead, by hand; automations may go up to what the store finds
)

// Tag is a tag that the client knows: made by hand, or by being given to a lead.
type Tag struct {
	store.Meta
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"createdAt"`
}

// Tags is the kind. The id is derived from the name, so that many may make the same tag at once.
var Tags = store.Kind[Tag]{
	Schema: store.Schema{
		Kind:   "tags",
		Fields: []store.Field{{Name: "name", Type: store.Text}},
		Orders: [][]string{{"name"}},
	},
	Key:   func(t *Tag) string { return t.ID },
	Index: func(t *Tag) store.Fields { return store.Fields{"name": cut(t.Name)} },
	Meta:  func(t *Tag) *store.Meta { return &t.Meta },
}

// TagID is the id of a tag.
func TagID(code, name string) string { return id.Derived("tag", code, name) }

// KnowTags gives the writes that make tags known to the client; they change nothing of those that are.
func KnowTags(tn *tenant.Tenant, at time.Time, names ...string) []store.Write {
	var writes []store.Write
	for _, n := range names {
		writes = append(writes, Tags.Ensure(&Tag{ID: TagID(tn.Code, n), Name: n, CreatedAt: at}))
	}
	return writes
}
