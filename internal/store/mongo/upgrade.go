package mongo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// ownColl holds what the engine keeps of a database beside its records: whose it is, what it was made for, and the numbers given.
const ownColl = "_ecod"

// buildTime is how long indexes of a large collection may take.
const buildTime = 10 * time.Minute

// made is what a collection was last made for.
type made struct {
	Mark      string            `bson:"mark"`
	Fields    map[string]string `bson:"fields,omitempty"`
	Sequenced bool              `bson:"sequenced,omitempty"`
}

type madeAll struct {
	Kinds map[string]made `bson:"kinds"`
}

func typeName(f store.Field) string {
	switch {
	case f.Multi:
		return "texts"
	case f.Type == store.Int:
		return "int"
	}
	return "text"
}

// upgrade makes the database hold what the kinds need; one that already does costs one read.
func (db *DB) upgrade(ctx context.Context) error {
	return db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		have, err := readMade(ctx, d, "schema")
		if err != nil {
			return err
		}
		for _, k := range db.kinds {
			was, known := have[k.Kind]
			if known && was.Mark == k.mark {
				continue
			}
			if known && was.Sequenced != k.Sequenced {
				return fmt.Errorf("%w: %s: an existing kind cannot become sequenced, nor cease to be", errSchema, k.Kind)
			}
			now := made{Mark: k.mark, Fields: was.Fields, Sequenced: k.Sequenced}
			if now.Fields == nil {
				now.Fields = map[string]string{}
			}
			for _, f := range k.Fields {
				if t, ok := now.Fields[f.Name]; ok && t != typeName(f) {
					return fmt.Errorf("%w: %s.%s is stored as %s", errSchema, k.Kind, f.Name, t)
				}
				now.Fields[f.Name] = typeName(f)
			}
			if err := build(ctx, d.Collection(k.Kind), known, k.indexes()); err != nil {
				return err
			}
			if err := writeMade(ctx, d, "schema", k.Kind, now); err != nil {
				return err
			}
		}
		return nil
	})
}

// errSchema: the database holds what the kinds, as they are declared, cannot be kept in.
var errSchema = errors.New("store/mongo: schema")

// ensure makes indexes of collections that are no kinds (of the queue, of the inbox). It costs one read when the part of the
// database that they belong to was made for the same revision.
func (db *DB) ensure(ctx context.Context, part, revision string, indexes map[string][]driver.IndexModel) error {
	return db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		have, err := readMade(ctx, d, "parts")
		if err != nil || have[part].Mark == revision {
			return err
		}
		_, known := have[part]
		for name, want := range indexes {
			if err := build(ctx, d.Collection(name), known, want); err != nil {
				return err
			}
		}
		return writeMade(ctx, d, "parts", part, made{Mark: revision})
	})
}

func readMade(ctx context.Context, d *driver.Database, id string) (map[string]made, error) {
	var all madeAll
	err := d.Collection(ownColl).FindOne(ctx, bson.D{{Key: idKey, Value: id}}).Decode(&all)
	if errors.Is(err, driver.ErrNoDocuments) {
		err = nil
	}
	return all.Kinds, err
}

// placeID is the document of ownColl that tells a database from every other.
const placeID = "place"

// Place gives what tells this database from every other, whatever name or address it is reached by.
func (db *DB) Place(ctx context.Context) (place string, err error) {
	err = db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		own := d.Collection(ownColl)
		_, err := own.UpdateOne(ctx, bson.D{{Key: idKey, Value: placeID}},
			bson.D{{Key: "$setOnInsert", Value: bson.D{{Key: "place", Value: rand.Text()}}}}, options.UpdateOne().SetUpsert(true))
		if err != nil && !isDuplicate(err) {
			return err
		}
		var p struct{ Place string }
		err = own.FindOne(ctx, bson.D{{Key: idKey, Value: placeID}}).Decode(&p)
		place = p.Place
		return err
	})
	return place, err
}

func writeMade(ctx context.Context, d *driver.Database, id, name string, m made) error {
	_, err := d.Collection(ownColl).UpdateOne(ctx, bson.D{{Key: idKey, Value: id}},
		bson.D{{Key: "$set", Value: bson.D{{Key: "kinds." + name, Value: m}}}}, options.UpdateOne().SetUpsert(true))
	if isDuplicate(err) { // another node made the document at the same moment
		_, err = d.Collection(ownColl).UpdateOne(ctx, bson.D{{Key: idKey, Value: id}}, bson.D{{Key: "$set", Value: bson.D{{Key: "kinds." + name, Value: m}}}})
	}
	return err
}

// build makes the indexes that are not there. Of those that are there and not wanted any more only the unique ones go,
// since they would refuse records: the others may be another version's, which runs beside this one while nodes are updated.
func build(ctx context.Context, c *driver.Collection, existed bool, want []driver.IndexModel) error {
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	if existed {
		if err := dropUnique(ctx, c, want); err != nil {
			return err
		}
	}
	if len(want) == 0 {
		return nil
	}
	_, err := c.Indexes().CreateMany(ctx, want)
	if isDuplicate(err) {
		return fmt.Errorf("%w: %s holds values twice that must be unique: code %d", errSchema, c.Name(), codeDuplicate)
	}
	return err
}

func dropUnique(ctx context.Context, c *driver.Collection, want []driver.IndexModel) error {
	specs, err := c.Indexes().ListSpecifications(ctx)
	if err != nil {
		var se driver.ServerError
		if errors.As(err, &se) && se.HasErrorCode(codeNoNamespace) {
			return nil
		}
		return err
	}
	var names []string
	for _, m := range want {
		var o options.IndexOptions
		for _, set := range m.Options.List() {
			if err := set(&o); err != nil {
				return err
			}
		}
		names = append(names, *o.Name)
	}
	for _, s := range specs {
		if strings.HasPrefix(s.Name, uniquePrefix) && !slices.Contains(names, s.Name) {
			if err := c.Indexes().DropOne(ctx, s.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
