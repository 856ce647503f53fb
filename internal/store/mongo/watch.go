package mongo

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	maxChanges = 1000                    // ids that Changes gives at a time
	lookEvery  = time.Second             // how often a kind is compared where the server does not tell of changes
	lookAtMost = 1500 * time.Millisecond // however long it takes: who asks every 2 s, as for what hands write, is told each time
	lookRarely = 5 * time.Minute         // where it does
	lookShare  = 20                      // a comparison may take a twentieth of the time
)

// watch keeps the order in which this handle learned that records of a watched kind were written: by itself, at once; by other
// processes and by hands, from the server's stream of changes, or where it has none by comparing all records with what they
// were. The cursor of Changes counts in this order. It begins at the server's time, so that a cursor of an earlier handle is
// behind all of it.
type watch struct {
	db   *DB
	kind *kind

	noted sync.Mutex // of fields that commits write
	ours  []noted

	mu     sync.Mutex
	known  map[string]state
	log    []lastChange // the newest of each id is its change
	n      int64
	looked time.Time // when the last comparison began
	took   time.Duration
	stream stream
}

type noted struct {
	id   string
	sure bool // it was written; else it may have been
}

// state is how a record was last seen.
type state struct {
	there   bool
	version int64
	print   [sha256.Size]byte // of all but the version and what the engine alone writes
	n       int64             // its newest change
}

type lastChange struct {
	n  int64
	id string
}

// note tells of a write of ours.
func (w *watch) note(id string, sure bool) {
	w.noted.Lock()
	defer w.noted.Unlock()
	w.ours = append(w.ours, noted{id, sure})
}

// Changes is store.DB's.
func (db *DB) Changes(ctx context.Context, kind string, since int64) (ids []string, next int64, err error) {
	k, err := db.kind(kind)
	if err != nil {
		return nil, since, err
	}
	w := db.watched[kind]
	if w == nil {
		return nil, since, fmt.Errorf("store: kind %s is not watched", k.Kind)
	}
	err = db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err := w.learn(ctx, d); err != nil {
			return err
		}
		ids, next = w.after(since)
		return nil
	})
	if err != nil {
		return nil, since, err
	}
	return ids, next, nil
}

// after gives the changes beyond a cursor.
func (w *watch) after(since int64) (ids []string, next int64) {
	next = since
	at, _ := slices.BinarySearchFunc(w.log, since+1, func(c lastChange, n int64) int { return int(min(max(c.n-n, -1), 1)) })
	for _, c := range w.log[at:] {
		if w.known[c.id].n != c.n { // it changed again
			continue
		}
		if len(ids) == maxChanges {
			break
		}
		ids, next = append(ids, c.id), c.n
	}
	return ids, next
}

// learn brings the order up to date.
func (w *watch) learn(ctx context.Context, d *driver.Database) error {
	if w.known == nil {
		if err := w.db.clock.askIn(ctx, d); err != nil {
			return err
		}
		w.known = map[string]state{}
		w.n = w.db.clock.now().UnixMicro()
	}
	w.noted.Lock()
	ours := w.ours
	w.ours = nil
	w.noted.Unlock()
	err := w.resolve(ctx, d, ours)
	if err == nil {
		err = w.look(ctx, d)
	}
	if err != nil { // nothing is forgotten
		w.noted.Lock()
		w.ours = append(ours, w.ours...)
		w.noted.Unlock()
	}
	return err
}

// resolve reads what was noted, and puts it into the order.
func (w *watch) resolve(ctx context.Context, d *driver.Database, list []noted) error {
	list = append(slices.Clone(list), w.stream.take()...)
	for at := 0; at < len(list); at += getBatch {
		part := list[at:min(at+getBatch, len(list))]
		ids := make([]string, len(part))
		for i, c := range part {
			ids[i] = c.id
		}
		found := map[string]state{}
		err := each(ctx, d.Collection(w.kind.Kind), bson.D{{Key: idKey, Value: bson.D{{Key: "$in", Value: ids}}}}, options.Find(), func(raw bson.Raw) error {
			id, s := seen(raw)
			found[id] = s
			return nil
		})
		if err != nil {
			return err
		}
		for _, c := range part {
			if err := w.take(ctx, d, c.id, found[c.id], c.sure); err != nil {
				return err
			}
		}
	}
	return nil
}

// take puts a record, as it is now, into the order if it is another than it was, or if it is sure that it was written. What
// changed without becoming another version is a hand's edit, and is made one, so that who read the record before will not write
// over it.
func (w *watch) take(ctx context.Context, d *driver.Database, id string, now state, sure bool) error {
	was, ever := w.known[id]
	if !sure && (!ever && !now.there || was.there == now.there && was.version == now.version && was.print == now.print) {
		return nil
	}
	if now.there && (now.version == 0 || !sure && was.there && was.version == now.version) {
		filter := bson.D{{Key: idKey, Value: id}, {Key: versionKey, Value: now.version}}
		if now.version == 0 {
			filter[1].Value = nil
		}
		now.version++
		update := bson.D{{Key: "$set", Value: bson.D{{Key: versionKey, Value: now.version}}}}
		if _, err := d.Collection(w.kind.Kind).UpdateOne(ctx, filter, update); err != nil {
			return err
		}
	}
	w.n++
	now.n = w.n
	w.known[id] = now
	w.log = append(w.log, lastChange{w.n, id})
	if len(w.log) > 1000 && len(w.log) > 4*len(w.known) {
		w.log = slices.DeleteFunc(w.log, func(c lastChange) bool { return w.known[c.id].n != c.n })
	}
	return nil
}

// look compares all records with what they were, when it is time to.
func (w *watch) look(ctx context.Context, d *driver.Database) error {
	every := min(max(lookEvery, lookShare*w.took), lookAtMost)
	told := w.stream.open(d)
	if w.stream.compared(told) {
		every = lookRarely
	}
	if !w.looked.IsZero() && time.Since(w.looked) < every {
		return nil
	}
	began := time.Now()
	var ids []string
	now := map[string]state{}
	err := each(ctx, d.Collection(w.kind.Kind), bson.D{}, options.Find().SetSort(bson.D{{Key: idKey, Value: 1}}), func(raw bson.Raw) error {
		id, s := seen(raw)
		ids, now[id] = append(ids, id), s
		return nil
	})
	if err != nil {
		return err
	}
	for id, s := range w.known {
		if _, there := now[id]; s.there && !there {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		if err := w.take(ctx, d, id, now[id], false); err != nil {
			return err
		}
	}
	w.looked, w.took = began, time.Since(began)
	w.stream.rely(told)
	return nil
}

// seen reads how a record stands.
func seen(raw bson.Raw) (id string, s state) {
	s.there = true
	h := sha256.New()
	els, _ := raw.Elements() // the driver checked it
	for _, e := range els {
		switch e.Key() {
		case idKey:
			id = idOf(e.Value())
		case versionKey:
			s.version, _ = e.Value().AsInt64OK()
		case heldKey, seqKey, pendingKey:
		default:
			h.Write(e)
		}
	}
	h.Sum(s.print[:0])
	return id, s
}

// stop ends what runs beside.
func (w *watch) stop() { w.stream.stop() }
