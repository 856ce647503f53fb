// Package news is the numbered record of what changed at a client, as live
// dashboards hear it. A domain adds an item to the same commit as the change, so
// nothing is told before it is durable and nothing durable goes untold; package
// realtime reads the items in order and tells them.
package news

import (
	"encoding/json"
	"time"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
)

// Kept is how long items can be caught up with.
const Kept = 24 * time.Hour

// The events (contract: Realtime).
const (
	MessageCreated      = "message.created"
	MessageStatus       = "message.status"
	ConversationUpdated = "conversation.updated"
	LeadCreated         = "lead.created"
	LeadUpdated         = "lead.updated"
	LeadDeleted         = "lead.deleted"
	AppointmentUpdated  = "appointment.updated"
	CampaignProgress    = "campaign.progress"
	JobUpdated          = "job.updated"
	TemplateUpdated     = "template.updated"
	MediaReady          = "media.ready"
	AutomationRun       = "automation.run"
)

// Item is one event. Data holds the resource, as REST gives it, under its name.
type Item struct {
	store.Meta
	ID    string                     `json:"id"`
	Event string                     `json:"event"`
	At    time.Time                  `json:"at"`
	Data  map[string]json.RawMessage `json:"data"`
}

// Items is the kind; the number is the record's Seq.
var Items = store.Kind[Item]{
	Schema: store.Schema{
		Kind:      "news",
		Fields:    []store.Field{{Name: "at", Type: store.Int}},
		Orders:    [][]string{{"at"}},
		Sequenced: true,
	},
	Key:   func(i *Item) string { return i.ID },
	Index: func(i *Item) store.Fields { return store.Fields{"at": i.At.UnixMilli()} },
	Meta:  func(i *Item) *store.Meta { return &i.Meta },
}

// Write is the write that tells of a resource. key names the change: the same change, written again after a crash,
// is told once. It stands before the write of the change itself: where a commit can be cut, the change must not be there
// without its news.
func Write(at time.Time, event, key, name string, resource any) store.Write {
	b, err := json.Marshal(resource)
	if err != nil {
		panic("news: resource does not marshal: " + err.Error())
	}
	return Items.Ensure(&Item{
		ID: id.Derived("nws", event, key), Event: event, At: at.UTC(), Data: map[string]json.RawMessage{name: b},
	})
}

// Stamp is a time as the API writes it: RFC 3339, UTC, milliseconds; null when zero.
func Stamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format("2006-01-02T15:04:05.000Z")
	return &s
}
