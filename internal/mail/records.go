package mail

import (
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Letter is one e-mail to one person, and the ledger entry of its send.
type Letter struct {
	store.Meta
	ID          string               `json:"id"`
	ContactID   string               `json:"contactId,omitempty"`
	LeadID      string               `json:"leadId,omitempty"`
	To          string               `json:"to"`
	ToName      string               `json:"toName,omitempty"`
	Subject     string               `json:"subject"`
	HTML        string               `json:"html,omitempty"`
	Text        string               `json:"text,omitempty"`
	Unsubscribe string               `json:"unsubscribe,omitempty"` // the address of one click; of marketing
	Marketing   bool                 `json:"marketing,omitempty"`
	ExpiresAt   time.Time            `json:"expiresAt,omitzero"` // not to be sent after this
	Origin      Origin               `json:"origin,omitzero"`
	Send        Send                 `json:"send"`
	Error       *Error               `json:"error,omitempty"`
	StatusAt    map[string]time.Time `json:"statusAt"` // by state
	CreatedAt   time.Time            `json:"createdAt"`
}

// Error is why a letter was not sent.
type Error struct {
	Code  string `json:"code"`
	Title string `json:"title"`
}

// States of a send.
const (
	Planned     = "planned"     // safe to send
	InFlight    = "in_flight"   // the call may have been made
	Accepted    = "accepted"    // the server took it
	Rejected    = "rejected"    // the server refused it, or we did
	Unconfirmed = "unconfirmed" // the answer was lost
)

// Send is how far sending got.
type Send struct {
	State  string    `json:"state"`
	Job    string    `json:"job,omitempty"`   // that put it in flight,
	Token  int64     `json:"token,omitempty"` // and the fence of its execution: no other may say how the call ended
	At     time.Time `json:"at,omitzero"`     // when it was put in flight
	Tries  int       `json:"tries,omitempty"` // how often it was refused for now
	Resend bool      `json:"resend,omitempty"`
	Resent bool      `json:"resent,omitempty"`
}

// by tells whether it was this execution that put the letter in flight last.
func (s *Send) by(j store.Job) bool { return s.Job == j.ID && s.Token == j.Token }

// past tells whether a later execution of the same job put the letter in flight: this one has lost its lease.
func (s *Send) past(j store.Job) bool { return s.Job == j.ID && s.Token > j.Token }

// Origin is what asked for a letter.
type Origin struct {
	RunID    string `json:"runId,omitempty"`
	Step     string `json:"step,omitempty"`
	Campaign string `json:"campaign,omitempty"` // of a trial letter of it
}

// Letters is the kind.
var Letters = store.Kind[Letter]{
	Schema: store.Schema{
		Kind:   "letters",
		Fields: []store.Field{{Name: "leadId", Type: store.Text}, {Name: "at", Type: store.Int}},
		Orders: [][]string{{"leadId", "at"}, {"at"}},
	},
	Key: func(l *Letter) string { return l.ID },
	Index: func(l *Letter) store.Fields {
		f := store.Fields{"at": l.CreatedAt.UnixMilli()}
		if l.LeadID != "" {
			f["leadId"] = l.LeadID
		}
		return f
	},
	Meta: func(l *Letter) *store.Meta { return &l.Meta },
}
