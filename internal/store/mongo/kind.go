package mongo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// layout is part of every kind's mark: raise it when the indexes below change.
const layout = 1

// The engine's own members of a document, beside those of the record's JSON.
const (
	idKey      = "_id"
	versionKey = "_version"
	seqKey     = "_seq"
	pendingKey = "_pending" // of a sequenced record that has no number yet: the mark of its insert
	fieldsKey  = "_fields"  // the searchable values by name; an absent one is not there
	namedKey   = "_named"   // the record's JSON has its id as "_id", which is the document's own: it is not kept twice
	jsonKey    = "_json"    // the record's JSON as text, where members would not bring it back as it was
	heldKey    = "_held"    // the transaction that last asked that the record stands as it is
)

// A kind is a collection of its name.
type kind struct {
	store.Schema
	mark   string
	unique []store.Field
}

var nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,62}$`)

func newKind(s store.Schema) (*kind, error) {
	if !nameForm.MatchString(s.Kind) {
		return nil, fmt.Errorf("store/mongo: kind %q is not a name", s.Kind)
	}
	k := &kind{Schema: s}
	seen := map[string]bool{}
	for _, f := range s.Fields {
		switch {
		case !nameForm.MatchString(f.Name) || f.Name == "seq" || seen[f.Name]:
			return nil, fmt.Errorf("store/mongo: %s: field name %q is taken or not a name", s.Kind, f.Name)
		case f.Multi && f.Type != store.Text:
			return nil, fmt.Errorf("store/mongo: %s.%s: multi fields are text", s.Kind, f.Name)
		case f.Unique:
			k.unique = append(k.unique, f)
		}
		seen[f.Name] = true
	}
	for _, o := range s.Orders {
		for _, name := range o {
			f, ok := s.Field(name)
			if ok = ok && !f.Multi || s.Sequenced && name == "seq"; !ok {
				return nil, fmt.Errorf("store/mongo: %s: an order of %q, which is no single field", s.Kind, name)
			}
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	h := sha256.Sum256(fmt.Appendf(b, "layout %d", layout))
	k.mark = hex.EncodeToString(h[:16])
	return k, nil
}

// place is where a field's value stands in a document.
func place(field string) string {
	switch field {
	case "":
		return idKey
	case "seq":
		return seqKey
	}
	return fieldsKey + "." + field
}

// indexes gives what the collection needs: every declared order, every unique field, and every other field that none of
// these begins with, so that no term has to scan the collection. They end with _id, so that they give the contract's order
// without sorting.
func (k *kind) indexes() []driver.IndexModel {
	var out []driver.IndexModel
	seen, led := map[string]bool{}, map[string]bool{}
	add := func(names ...string) {
		led[names[0]] = true
		name := "by_" + strings.Join(names, "_")
		if seen[name] {
			return
		}
		seen[name] = true
		var keys bson.D
		for _, n := range names {
			keys = append(keys, bson.E{Key: place(n), Value: 1})
		}
		if !slices.Contains(names, "seq") {
			keys = append(keys, bson.E{Key: idKey, Value: 1})
		}
		out = append(out, driver.IndexModel{Keys: keys, Options: options.Index().SetName(name)})
	}
	only := func(name, at string) {
		out = append(out, driver.IndexModel{Keys: bson.D{{Key: at, Value: 1}}, Options: options.Index().SetName(name).SetUnique(true).SetSparse(true)})
	}
	for _, f := range k.unique { // sparse: unique when present
		led[f.Name] = true
		only(uniquePrefix+f.Name, place(f.Name))
	}
	if k.Sequenced {
		only(uniquePrefix+"seq", seqKey)
		out = append(out, driver.IndexModel{Keys: bson.D{{Key: pendingKey, Value: 1}}, Options: options.Index().SetName("pending").SetSparse(true)})
	}
	for _, o := range k.Orders {
		if len(o) > 0 {
			add(o...)
		}
	}
	for _, f := range k.Fields {
		if !led[f.Name] {
			add(f.Name)
		}
	}
	return out
}

const uniquePrefix = "unique_"
