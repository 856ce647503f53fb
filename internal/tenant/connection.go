package tenant

import (
	"context"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Connection is what was found when a client's account with another party ("google") was last used.
type Connection struct {
	store.Meta
	Name   string    `json:"name"`
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"` // the other party's word: invalid_grant
	At     time.Time `json:"at"`               // when that was found; of one that works, to the hour
}

// States of a connection.
const (
	Connected = "ok"
	Attention = "attention" // it is of no use until somebody mends it
)

// Connections is the kind, in the client's database.
var Connections = store.Kind[Connection]{
	Schema: store.Schema{Kind: "connections"},
	Key:    func(c *Connection) string { return c.Name },
	Index:  func(*Connection) store.Fields { return store.Fields{} },
	Meta:   func(c *Connection) *store.Meta { return &c.Meta },
}

// Connection tells what is known of a connection since its account was last set; nil: nothing.
func (t *Tenant) Connection(ctx context.Context, name string) (*Connection, error) {
	c, err := Connections.Get(ctx, t.DB, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, s := range t.Account().Secrets() {
		if s.Name == name && s.UpdatedAt.After(c.At) {
			return nil, nil
		}
	}
	return c, nil
}

// NeedsAttention records that a connection is of no use until somebody mends it.
func (t *Tenant) NeedsAttention(ctx context.Context, name, reason string, at time.Time) error {
	return t.found(ctx, Connection{Name: name, State: Attention, Reason: reason, At: at.UTC()})
}

// Connected records that a connection works.
func (t *Tenant) Connected(ctx context.Context, name string, at time.Time) error {
	return t.found(ctx, Connection{Name: name, State: Connected, At: at.UTC()})
}

// freshFor is how long a connection that works need not be noted again.
const freshFor = time.Hour

// found writes what was found, unless it is what was known.
func (t *Tenant) found(ctx context.Context, now Connection) error {
	was, err := t.Connection(ctx, now.Name)
	if err != nil {
		return err
	}
	if was != nil && was.State == now.State && was.Reason == now.Reason && (now.State == Attention || now.At.Sub(was.At) < freshFor) {
		return nil
	}
	return t.DB.Commit(ctx, Connections.Set(&now))
}
