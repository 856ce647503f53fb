package store

import (
	"context"
	"encoding/json"
	"fmt"
)

// Meta is what the store knows of a record beside its document. Documents embed it; it is not part of the JSON.
type Meta struct {
	Version int64 `json:"-"`
	Seq     int64 `json:"-"`
}

// Kind is a Schema with its Go type, declared once by the domain that owns it.
type Kind[T any] struct {
	Schema
	Key   func(*T) string // the record's id
	Index func(*T) Fields // its searchable values
	Meta  func(*T) *Meta  // where the version goes
}

// Decode makes a value of a record.
func (k Kind[T]) Decode(r Record) (*T, error) {
	t := new(T)
	if err := json.Unmarshal(r.Doc, t); err != nil {
		return nil, fmt.Errorf("store: %s %s: %w", k.Schema.Kind, r.ID, err)
	}
	*k.Meta(t) = Meta{Version: r.Version, Seq: r.Seq}
	return t, nil
}

// Get reads one record; ErrNotFound if it is not there.
func (k Kind[T]) Get(ctx context.Context, db DB, id string) (*T, error) {
	if id == "" || len(id) > MaxID {
		return nil, ErrNotFound
	}
	rs, err := db.Get(ctx, k.Schema.Kind, id)
	if err != nil {
		return nil, err
	}
	if len(rs) == 0 {
		return nil, ErrNotFound
	}
	return k.Decode(rs[0])
}

// GetAll reads several records, in the order asked; absent ones are left out.
func (k Kind[T]) GetAll(ctx context.Context, db DB, ids ...string) ([]*T, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	rs, err := db.Get(ctx, k.Schema.Kind, ids...)
	if err != nil {
		return nil, err
	}
	return k.decodeAll(rs)
}

// Find reads the records of a query; its Kind is filled in.
func (k Kind[T]) Find(ctx context.Context, db DB, q Query) ([]*T, error) {
	q.Kind = k.Schema.Kind
	rs, err := db.Find(ctx, q)
	if err != nil {
		return nil, err
	}
	return k.decodeAll(rs)
}

// First reads the first record of a query; ErrNotFound if there is none.
func (k Kind[T]) First(ctx context.Context, db DB, q Query) (*T, error) {
	q.Limit = 1
	ts, err := k.Find(ctx, db, q)
	if err != nil {
		return nil, err
	}
	if len(ts) == 0 {
		return nil, ErrNotFound
	}
	return ts[0], nil
}

func (k Kind[T]) decodeAll(rs []Record) ([]*T, error) {
	out := make([]*T, 0, len(rs))
	for _, r := range rs {
		t, err := k.Decode(r)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func (k Kind[T]) write(a Action, t *T, ifVersion int64) Write {
	doc, err := json.Marshal(t)
	if err != nil { // only channels, funcs and cycles do not marshal: a fault of the declaration
		panic(fmt.Sprintf("store: %s does not marshal: %v", k.Schema.Kind, err))
	}
	return Write{Action: a, Kind: k.Schema.Kind, ID: k.Key(t), IfVersion: ifVersion, Doc: doc, Fields: k.Index(t)}
}

// Insert is the write that creates t; ErrDuplicate if it is there.
func (k Kind[T]) Insert(t *T) Write { return k.write(Insert, t, 0) }

// Ensure is the write that creates t unless its id is there.
func (k Kind[T]) Ensure(t *T) Write { return k.write(Ensure, t, 0) }

// Update is the write that replaces the version that t was read at (an insert if t is new: version 0 means absent).
func (k Kind[T]) Update(t *T) Write {
	if v := k.Meta(t).Version; v > 0 {
		return k.write(Put, t, v)
	}
	return k.write(Insert, t, 0)
}

// Set is the write that puts t whatever stands there.
func (k Kind[T]) Set(t *T) Write { return k.write(Put, t, 0) }

// Remove is the write that deletes the version that t was read at.
func (k Kind[T]) Remove(t *T) Write {
	return Write{Action: Delete, Kind: k.Schema.Kind, ID: k.Key(t), IfVersion: k.Meta(t).Version}
}

// Unchanged is the write that asserts that t stands as it was read.
func (k Kind[T]) Unchanged(t *T) Write {
	return Write{Action: Check, Kind: k.Schema.Kind, ID: k.Key(t), IfVersion: k.Meta(t).Version}
}
