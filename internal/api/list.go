package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
)

// Page is the part of a list's input that every list has; embed it.
type Page struct {
	Limit  int    `query:"limit" default:"50" minimum:"1" maximum:"200" doc:"How many items."`
	Cursor string `query:"cursor" maxLength:"2000" doc:"nextCursor of the page before."`
}

// List is the body of every list.
type List[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"nextCursor" nullable:"true" doc:"For the next page; null on the last."`
}

// cursorText is what a cursor holds. It is bound to its list and order, since a value of another order means nothing here.
type cursorText struct {
	List  string `json:"l"`
	Value any    `json:"v"`
	ID    string `json:"i"`
}

// After gives the place to go on from, nil for the first page. name says list and order ("leads:-createdAt"); a cursor
// of another name, or a broken one, is a fault.
func (p Page) After(name string) (*store.Cursor, error) {
	if p.Cursor == "" {
		return nil, nil
	}
	var c cursorText
	raw, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		err = dec.Decode(&c)
	}
	if err != nil || c.List != name || c.ID == "" {
		return nil, fault.Bad("query.cursor", "This is not a cursor of this list and order.")
	}
	switch v := c.Value.(type) {
	case nil, string:
	case json.Number:
		if c.Value, err = v.Int64(); err != nil {
			return nil, fault.Bad("query.cursor", "This is not a cursor of this list and order.")
		}
	default:
		return nil, fault.Bad("query.cursor", "This is not a cursor of this list and order.")
	}
	return &store.Cursor{Value: c.Value, ID: c.ID}, nil
}

// ListOf makes a list's answer of at most p.Limit+1 rows: ask the store for one more than the page, and it is known
// whether there is another. place gives a row's place in the order, view what the caller sees of it.
func ListOf[R, V any](rows []R, p Page, name string, place func(R) store.Cursor, view func(R) V) *Answer[List[V]] {
	out := &Answer[List[V]]{List[V]{Items: make([]V, 0, len(rows))}}
	more := len(rows) > p.Limit
	if more {
		rows = rows[:p.Limit]
	}
	for _, r := range rows {
		out.Body.Items = append(out.Body.Items, view(r))
	}
	if more && len(rows) > 0 {
		at := place(rows[len(rows)-1])
		b, _ := json.Marshal(cursorText{List: name, Value: at.Value, ID: at.ID}) // strings and integers marshal
		s := base64.RawURLEncoding.EncodeToString(b)
		out.Body.NextCursor = &s
	}
	return out
}
