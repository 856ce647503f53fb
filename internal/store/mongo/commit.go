package mongo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/ecodrix/ecod/internal/store"
)

// maxRaces is how often a step is tried that lost a race which a second look decides.
const maxRaces = 50

// Commit is store.DB's. Where the deployment has transactions, a commit of several writes is one. Elsewhere its conditions
// are looked at before anything is written, so that a commit that is refused seldom leaves a prefix; then each condition is
// held again by the write itself.
func (db *DB) Commit(ctx context.Context, writes ...store.Write) error {
	if len(writes) > store.MaxWrites {
		return fmt.Errorf("%w: %d writes in a commit", store.ErrTooLarge, len(writes))
	}
	c := &commit{db: db, steps: make([]writeStep, len(writes)), mark: strconv.FormatUint(rand.Uint64(), 36)}
	for i := range writes {
		w := &writes[i]
		if err := w.Check(db.schemas); err != nil {
			return err
		}
		if w.Action < store.Insert || w.Action > store.Check {
			return fmt.Errorf("store: unknown action %d", w.Action)
		}
		c.steps[i] = writeStep{Write: w, kind: db.kinds[w.Kind]}
	}
	if len(writes) == 0 {
		return ctx.Err()
	}
	began := time.Now()
	err := db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		defer c.tell()
		if len(c.steps) > 1 {
			if can, err := db.cl.transactions(ctx, d); err != nil {
				return err
			} else if can {
				return c.atOnce(ctx, d)
			}
		}
		if err := c.foresee(ctx, d); err != nil {
			return err
		}
		err := c.apply(ctx, d)
		if sureErr := c.sure(ctx, d); sureErr == nil {
			db.numbers.assign(ctx, db, d, c.numbered())
		}
		return err
	})
	if f := db.observe.Load(); f != nil && err == nil {
		(*f)(1, time.Since(began))
	}
	return err
}

// commit is one Commit under way.
type commit struct {
	db    *DB
	steps []writeStep
	mark  string       // of its inserts of sequenced kinds
	seen  bool         // the conditions of leading checks hold
	fill  []*store.Raw // of Fill: the records with their versions and numbers; nil: a commit
}

// writeStep is a write of a commit.
type writeStep struct {
	*store.Write
	kind     *kind
	inserted bool // of a sequenced kind: there is a new record, which has no number yet
	tried    bool // of a watched kind: it may have been done
	done     bool
}

// lone tells whether a step is a command of its own: whether it was done must be known before the next one is.
func (s *writeStep) lone() bool {
	return s.Action == store.Check || s.IfVersion != 0 && (s.Action == store.Put || s.Action == store.Delete)
}

// makes tells whether a step that was done made a record that is to get a number.
func (s *writeStep) makes(upserted bool) bool {
	return s.kind.Sequenced && (s.Action == store.Insert || s.Action == store.Ensure || s.Action == store.Put && upserted)
}

// pending marks the insert of step i.
func (c *commit) pending(i int) string { return c.mark + "." + strconv.Itoa(i) }

// foresee looks at the conditions of a commit of several writes before the first is made.
func (c *commit) foresee(ctx context.Context, d *driver.Database) error {
	conditional := false
	for i := range c.steps {
		conditional = conditional || c.steps[i].lone()
	}
	if !conditional || len(c.steps) == 1 {
		return nil
	}
	versions := map[string]map[string]int64{}
	ids := map[string][]string{}
	for i := range c.steps {
		s := &c.steps[i]
		if versions[s.Kind] == nil {
			versions[s.Kind] = map[string]int64{}
		}
		if _, ok := versions[s.Kind][s.ID]; !ok {
			versions[s.Kind][s.ID] = 0
			ids[s.Kind] = append(ids[s.Kind], s.ID)
		}
	}
	for kind, list := range ids {
		if err := versionsOf(ctx, d.Collection(kind), list, versions[kind]); err != nil {
			return err
		}
	}
	for i := range c.steps {
		s := &c.steps[i]
		at := versions[s.Kind]
		v := at[s.ID]
		switch s.Action {
		case store.Insert:
			if v > 0 {
				return s.duplicate(idKey)
			}
			at[s.ID] = 1
		case store.Ensure:
			at[s.ID] = max(v, 1)
		case store.Put:
			if s.IfVersion != 0 && s.IfVersion != v {
				return s.conflict()
			}
			at[s.ID] = v + 1
		case store.Delete:
			if s.IfVersion != 0 && s.IfVersion != v {
				return s.conflict()
			}
			at[s.ID] = 0
		case store.Check:
			if s.IfVersion != v {
				return s.conflict()
			}
		}
	}
	c.seen = true
	return nil
}

func versionsOf(ctx context.Context, coll *driver.Collection, ids []string, into map[string]int64) error {
	filter := bson.D{{Key: idKey, Value: bson.D{{Key: "$in", Value: ids}}}}
	opts := options.Find().SetProjection(bson.D{{Key: versionKey, Value: 1}}).SetBatchSize(int32(len(ids)))
	return each(ctx, coll, filter, opts, func(raw bson.Raw) error {
		r, err := record(raw)
		into[r.ID] = r.Version
		return err
	})
}

func (s *writeStep) conflict() error { return fmt.Errorf("%w: %s", store.ErrConflict, s.Kind) }

func (s *writeStep) duplicate(field string) error {
	return fmt.Errorf("%w: %s.%s", store.ErrDuplicate, s.Kind, field)
}

// apply makes the writes in order: those that follow each other in a collection, and need no look at what each did, together.
func (c *commit) apply(ctx context.Context, d *driver.Database) error {
	wrote := false
	for at := 0; at < len(c.steps); {
		s := &c.steps[at]
		end := at + 1
		switch {
		case s.Action == store.Check:
			if !c.seen || wrote {
				if err := s.check(ctx, d); err != nil {
					return err
				}
			}
		case s.lone():
			wrote = true
			if err := c.one(ctx, d, at); err != nil {
				return err
			}
		default:
			for end < len(c.steps) && c.steps[end].Kind == s.Kind && !c.steps[end].lone() {
				end++
			}
			wrote = true
			if err := c.run(ctx, d, at, end); err != nil {
				return err
			}
		}
		at = end
	}
	return nil
}

// check holds a Check at its place.
func (s *writeStep) check(ctx context.Context, d *driver.Database) error {
	at := map[string]int64{}
	if err := versionsOf(ctx, d.Collection(s.Kind), []string{s.ID}, at); err != nil {
		return err
	}
	if at[s.ID] != s.IfVersion {
		return s.conflict()
	}
	return nil
}

// one makes a write that holds for one version only.
func (c *commit) one(ctx context.Context, d *driver.Database, i int) error {
	s := &c.steps[i]
	s.tried = true
	coll := d.Collection(s.Kind)
	filter := bson.D{{Key: idKey, Value: s.ID}, {Key: versionKey, Value: atVersion(s.IfVersion)}}
	var changed int64
	switch {
	case s.Action == store.Delete:
		r, err := coll.DeleteOne(ctx, filter)
		if err != nil {
			return err
		}
		changed = r.DeletedCount
	case s.kind.Sequenced: // its number stays
		r, err := coll.UpdateOne(ctx, filter, s.replacing(s.IfVersion+1))
		if err != nil {
			return c.refused(ctx, d, s, err)
		}
		changed = r.MatchedCount
	default:
		r, err := coll.ReplaceOne(ctx, filter, s.whole(s.IfVersion+1, ""))
		if err != nil {
			return c.refused(ctx, d, s, err)
		}
		changed = r.MatchedCount
	}
	if changed == 0 {
		return s.conflict()
	}
	s.done = true
	return nil
}

// atVersion finds a version; the first one also where a hand made the document, and named none.
func atVersion(version int64) any {
	if version == 1 {
		return bson.D{{Key: "$in", Value: bson.A{int64(1), nil}}}
	}
	return version
}

// refused finds out which unique value a write by version ran into.
func (c *commit) refused(ctx context.Context, d *driver.Database, s *writeStep, err error) error {
	if !isDuplicate(err) {
		return err
	}
	if err := s.taken(ctx, d); err != nil {
		return err
	}
	return s.duplicate("unique") // and given up again at once
}

// run makes unconditional writes in one collection, from step at to before end.
func (c *commit) run(ctx context.Context, d *driver.Database, at, end int) error {
	coll := d.Collection(c.steps[at].Kind)
	for races := 0; at < end; {
		models := make([]driver.WriteModel, 0, end-at)
		for i := at; i < end; i++ {
			c.steps[i].tried = true
			models = append(models, c.model(i))
		}
		r, err := coll.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(true))
		failed := end - at
		if err != nil {
			var bulk driver.BulkWriteException
			if !errors.As(err, &bulk) || len(bulk.WriteErrors) == 0 {
				return err
			}
			failed = bulk.WriteErrors[0].Index
		}
		for i := range failed {
			s := &c.steps[at+i]
			s.done = true
			upserted := false
			if r != nil {
				_, upserted = r.UpsertedIDs[int64(i)]
			}
			s.inserted = s.makes(upserted)
		}
		at += failed
		if err == nil {
			return nil
		}
		s := &c.steps[at]
		if !isDuplicate(err) {
			return err
		}
		there, lookErr := s.there(ctx, d)
		switch {
		case lookErr != nil:
			return lookErr
		case there && s.Action == store.Insert:
			return s.duplicate(idKey)
		case there && s.Action == store.Ensure:
			s.done = true
			at++
			continue
		}
		if err := s.taken(ctx, d); err != nil {
			return err
		}
		if races++; races > maxRaces {
			return s.duplicate("unique")
		}
	}
	return nil
}

// there tells whether the step's id is.
func (s *writeStep) there(ctx context.Context, d *driver.Database) (bool, error) {
	at := map[string]int64{}
	err := versionsOf(ctx, d.Collection(s.Kind), []string{s.ID}, at)
	return at[s.ID] > 0, err
}

// taken finds the unique value of a write that another record has. The server's words would name its index, and are not read.
func (s *writeStep) taken(ctx context.Context, d *driver.Database) error {
	for _, f := range s.kind.unique {
		v, ok := s.Fields[f.Name]
		if !ok {
			continue
		}
		var is any = bson.D{{Key: "$eq", Value: v}}
		if f.Multi {
			is = bson.D{{Key: "$in", Value: v}}
		}
		filter := bson.D{{Key: place(f.Name), Value: is}, {Key: idKey, Value: bson.D{{Key: "$ne", Value: s.ID}}}}
		err := d.Collection(s.Kind).FindOne(ctx, filter, options.FindOne().SetProjection(bson.D{{Key: idKey, Value: 1}})).Err()
		if err == nil {
			return s.duplicate(f.Name)
		}
		if !errors.Is(err, driver.ErrNoDocuments) {
			return err
		}
	}
	return nil
}

// model is a step as a part of a bulk of writes.
func (c *commit) model(i int) driver.WriteModel {
	s := &c.steps[i]
	pending := ""
	if s.kind.Sequenced {
		pending = c.pending(i)
	}
	id := bson.D{{Key: idKey, Value: s.ID}}
	switch s.Action {
	case store.Insert:
		return driver.NewInsertOneModel().SetDocument(s.whole(1, pending))
	case store.Ensure:
		if pending != "" && c.fill == nil { // whether it inserts must be known
			return driver.NewInsertOneModel().SetDocument(s.whole(1, pending))
		}
		doc := s.content(1, pending)
		if c.fill != nil {
			doc = s.copied(c.fill[i])
		}
		return driver.NewUpdateOneModel().SetFilter(id).SetUpdate(bson.D{{Key: "$setOnInsert", Value: doc}}).SetUpsert(true)
	case store.Put:
		return driver.NewUpdateOneModel().SetFilter(id).SetUpdate(s.putting(pending)).SetUpsert(true)
	}
	return driver.NewDeleteOneModel().SetFilter(id)
}

// whole is the document of a step.
func (s *writeStep) whole(version int64, pending string) bson.Raw {
	at, dst := bsoncore.AppendDocumentStart(make([]byte, 0, len(s.Doc)*2+256))
	dst = bsoncore.AppendStringElement(dst, idKey, s.ID)
	return s.end(dst, at, version, pending)
}

// content is the document without its id.
func (s *writeStep) content(version int64, pending string) bson.Raw {
	at, dst := bsoncore.AppendDocumentStart(make([]byte, 0, len(s.Doc)*2+256))
	return s.end(dst, at, version, pending)
}

// copied is the content of a record that keeps its version and number.
func (s *writeStep) copied(r *store.Raw) bson.Raw {
	at, dst := bsoncore.AppendDocumentStart(make([]byte, 0, len(s.Doc)*2+256))
	if r.Seq > 0 {
		dst = bsoncore.AppendInt64Element(dst, seqKey, r.Seq)
	}
	return s.end(dst, at, r.Version, "")
}

func (s *writeStep) end(dst []byte, at int32, version int64, pending string) bson.Raw {
	dst = appendRecord(dst, s.Write)
	if version > 0 {
		dst = bsoncore.AppendInt64Element(dst, versionKey, version)
	}
	if pending != "" {
		dst = bsoncore.AppendStringElement(dst, pendingKey, pending)
	}
	dst, _ = bsoncore.AppendDocumentEnd(dst, at)
	return dst
}

// putting is the update that makes a document the step's, whatever stood there, one version on. It names no id: the server keeps
// the one there is.
func (s *writeStep) putting(pending string) bson.A {
	own := bson.D{{Key: versionKey, Value: bson.D{{Key: "$add", Value: bson.A{bson.D{{Key: "$ifNull", Value: bson.A{"$" + versionKey, int64(0)}}}, int64(1)}}}}}
	if pending != "" {
		own = append(own, bson.E{Key: seqKey, Value: "$" + seqKey}, bson.E{Key: pendingKey, Value: bson.D{{Key: "$cond", Value: bson.A{
			bson.D{{Key: "$eq", Value: bson.A{bson.D{{Key: "$type", Value: "$" + versionKey}}, "missing"}}}, pending, "$" + pendingKey}}}})
	}
	return bson.A{bson.D{{Key: "$replaceWith", Value: bson.D{{Key: "$mergeObjects", Value: bson.A{
		bson.D{{Key: "$literal", Value: s.content(0, "")}}, own}}}}}}
}

// replacing is the update that makes a document the step's at a version, and leaves it its number.
func (s *writeStep) replacing(version int64) bson.A {
	return bson.A{bson.D{{Key: "$replaceWith", Value: bson.D{{Key: "$mergeObjects", Value: bson.A{
		bson.D{{Key: "$literal", Value: s.content(version, "")}},
		bson.D{{Key: seqKey, Value: "$" + seqKey}, {Key: pendingKey, Value: "$" + pendingKey}}}}}}}}
}

// sure looks whether puts that are said to have made a record did: of several at the same moment some servers say it to all.
func (c *commit) sure(ctx context.Context, d *driver.Database) error {
	for i := range c.steps {
		s := &c.steps[i]
		if !s.inserted || s.Action != store.Put {
			continue
		}
		n, err := d.Collection(s.Kind).CountDocuments(ctx, bson.D{{Key: idKey, Value: s.ID}, {Key: pendingKey, Value: c.pending(i)}})
		if err != nil {
			return err
		}
		s.inserted = n > 0
	}
	return nil
}

// numbered gives the records that this commit made and that have no number yet, in its order.
func (c *commit) numbered() (out []unnumbered) {
	for i := range c.steps {
		if s := &c.steps[i]; s.inserted {
			out = append(out, unnumbered{Kind: s.Kind, ID: s.ID, Mark: c.pending(i)})
		}
	}
	return out
}

// tell notes what was written of watched kinds, or may have been.
func (c *commit) tell() {
	for i := range c.steps {
		s := &c.steps[i]
		if w := c.db.watched[s.Kind]; w != nil && s.tried && s.Action != store.Check {
			w.note(s.ID, s.done)
		}
	}
}
