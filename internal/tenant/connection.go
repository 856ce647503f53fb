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
	Check  *Check    `json:"check,omitempty"`  // the last that somebody asked for
}

// Check is what a live call with a client's account, made to look whether it works, came to.
type Check struct {
	At     time.Time `json:"at"`
	OK     bool      `json:"ok"`
	Detail string    `json:"detail,omitempty"` // what is wrong; no secret, no address
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
		if s.Name == name {
			return since(c, s.UpdatedAt), nil
		}
	}
	return nil, nil
}

// since is what was found of a connection after a time; nil: nothing.
func since(c *Connection, set time.Time) *Connection {
	if c.Check != nil && set.After(c.Check.At) {
		c.Check = nil
	}
	if set.After(c.At) {
		c.State, c.Reason, c.At = "", "", time.Time{}
	}
	if c.State == "" && c.Check == nil {
		return nil
	}
	return c
}

// Checked records what a live call found. attention: the account is of no use until somebody mends it, for this reason;
// an account that works needs none any more. A call that failed for a passing reason says nothing of the account.
func (t *Tenant) Checked(ctx context.Context, name string, c Check, attention string) error {
	c.At = c.At.UTC()
	now := Connection{Name: name}
	was, err := t.Connection(ctx, name)
	if err != nil {
		return err
	}
	if was != nil {
		now = *was
	}
	now.Check = &c
	switch {
	case c.OK:
		now.State, now.Reason, now.At = Connected, "", c.At
	case attention != "" && (now.State != Attention || now.Reason != attention):
		now.State, now.Reason, now.At = Attention, attention, c.At
	}
	return t.DB.Commit(ctx, Connections.Set(&now))
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
	if was != nil {
		now.Check = was.Check
	}
	return t.DB.Commit(ctx, Connections.Set(&now))
}
