package sqlite

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/store"
)

// layout is part of every kind's mark: raise it when the DDL below changes.
const layout = 1

// A kind is a table of its name:
//
//	_id TEXT PRIMARY KEY, doc TEXT, version INTEGER, [seq INTEGER], one column per single field (NULL: absent)
//
// and a table kind_field(value, _id) per multi field. Indexes end with _id, so that they give the contract's
// order without sorting. They are rowid tables: with documents of 1.5 KB, WITHOUT ROWID made look-ups three times
// and index scans seven times slower, for files of twice the size.
type table struct {
	store.Schema
	single, multi []store.Field

	mark    string // of what the file must hold for it
	columns string // of a record, in a SELECT from t

	insert, fill, update, updateIf, remove, removeIf, version string
	updateMoving                                              string            // updateIf for a record whose still fields stay as they are; "" if none is declared
	values, addValue, dropValue                               map[string]string // of multi fields, by name
}

var (
	nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,62}$`)
	ownNames = []string{"_id", "doc", "version", "seq", "rowid", "oid"}
)

func newTable(s store.Schema) (*table, error) {
	if !nameForm.MatchString(s.Kind) {
		return nil, fmt.Errorf("store/sqlite: kind %q is not a name", s.Kind)
	}
	t := &table{Schema: s}
	seen := map[string]bool{} // SQLite knows no case in names
	for _, f := range s.Fields {
		low := strings.ToLower(f.Name)
		if !nameForm.MatchString(f.Name) || slices.Contains(ownNames, low) || seen[low] {
			return nil, fmt.Errorf("store/sqlite: %s: field name %q is taken or not a name", s.Kind, f.Name)
		}
		seen[low] = true
		switch {
		case !f.Multi:
			t.single = append(t.single, f)
		case f.Type != store.Text:
			return nil, fmt.Errorf("store/sqlite: %s.%s: multi fields are text", s.Kind, f.Name)
		default:
			t.multi = append(t.multi, f)
		}
	}
	for _, o := range s.Orders {
		for _, name := range o {
			f, ok := s.Field(name)
			if ok = ok && !f.Multi || s.Sequenced && name == "seq"; !ok {
				return nil, fmt.Errorf("store/sqlite: %s: an order of %q, which is no single field", s.Kind, name)
			}
		}
	}
	t.texts()
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	h := sha256.Sum256(fmt.Appendf(b, "layout %d", layout))
	t.mark = hex.EncodeToString(h[:16])
	return t, nil
}

func quote(name string) string { return `"` + name + `"` }

func (t *table) side(field string) string   { return quote(t.Kind + "_" + field) }
func (t *table) log() string                { return quote("_changes_" + t.Kind) }
func (t *table) trigger(on string) string   { return quote(t.Kind + "_" + on) }
func (t *table) index(cols []string) string { return t.Kind + "_by_" + strings.Join(cols, "_") }

// texts makes the statements of the commit path.
func (t *table) texts() {
	k := quote(t.Kind)
	cols, marks, sets := "_id, doc, version", "?, ?, 1", "doc = ?, version = version + 1"
	t.columns = "t._id, t.version, 0, t.doc"
	if t.Sequenced {
		cols, marks = cols+", seq", marks+", ?"
		t.columns = "t._id, t.version, t.seq, t.doc"
	}
	moving, same := sets, ""
	for _, f := range t.single {
		cols += ", " + quote(f.Name)
		marks += ", ?"
		sets += ", " + quote(f.Name) + " = ?"
		if f.Still {
			same += " AND +" + quote(f.Name) + " IS ?" // the sign: no index but the id's
		} else {
			moving += ", " + quote(f.Name) + " = ?"
		}
	}
	t.insert = "INSERT INTO " + k + " (" + cols + ") VALUES (" + marks + ")"
	t.fill = "INSERT INTO " + k + " (" + cols + ") VALUES (" + strings.Replace(marks, "1", "?", 1) + ")"
	t.update = "UPDATE " + k + " SET " + sets + " WHERE _id = ?"
	t.updateIf = t.update + " AND version = ?"
	if same != "" {
		t.updateMoving = "UPDATE " + k + " SET " + moving + " WHERE _id = ? AND version = ?" + same
	}
	t.remove = "DELETE FROM " + k + " WHERE _id = ?"
	t.removeIf = t.remove + " AND version = ?"
	t.version = "SELECT version FROM " + k + " WHERE _id = ?"
	t.values, t.addValue, t.dropValue = map[string]string{}, map[string]string{}, map[string]string{}
	for _, f := range t.multi {
		s := t.side(f.Name)
		t.values[f.Name] = "SELECT value FROM " + s + " WHERE _id = ?"
		t.addValue[f.Name] = "INSERT INTO " + s + " (value, _id) VALUES (?, ?)"
		t.dropValue[f.Name] = "DELETE FROM " + s + " WHERE value = ? AND _id = ?"
	}
}

// indexes gives the indexes of the kind's table by name: every declared order, every unique field, and every
// other field that none of these begins with, so that no term has to scan the table.
func (t *table) indexes() map[string]string {
	out := map[string]string{}
	led := map[string]bool{}
	add := func(unique string, cols []string, ends string) {
		led[cols[0]] = true
		name := t.index(cols)
		if unique != "" {
			name = t.Kind + "_unique_" + cols[0]
		}
		out[name] = "CREATE " + unique + "INDEX " + quote(name) + " ON " + quote(t.Kind) + ` ("` + strings.Join(cols, `", "`) + `"` + ends + ")"
	}
	for _, o := range t.Orders {
		if len(o) > 0 {
			add("", o, ", _id")
		}
	}
	for _, f := range t.single {
		if f.Unique {
			add("UNIQUE ", []string{f.Name}, "") // SQLite counts no two NULLs as equal: unique when present
		}
	}
	if t.Sequenced {
		add("UNIQUE ", []string{"seq"}, "")
	}
	for _, f := range t.single {
		if !led[f.Name] {
			add("", []string{f.Name}, ", _id")
		}
	}
	return out
}

// meta holds the mark of every kind: what its table was last made for.
const meta = `CREATE TABLE IF NOT EXISTS _meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _seq (n INTEGER NOT NULL);
INSERT INTO _seq SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM _seq);`

// current tells whether the file is made for these tables.
func current(ctx context.Context, c *conn, tables map[string]*table) (bool, error) {
	marks := map[string]string{}
	for r, err := range c.rows(ctx, "SELECT key, value FROM _meta") {
		if code(err)&0xff == codeError { // no such table: the file is new
			return false, nil
		}
		if err != nil {
			return false, err
		}
		marks[r.text(0)] = r.text(1)
	}
	for _, t := range tables {
		if marks[t.Kind] != t.mark {
			return false, nil
		}
	}
	return true, nil
}

// apply creates or extends what a kind needs. A field that is new to a kind with records stays NULL in them
// until they are written again: queries must not rely on it before the domain has filled it. A field that
// is no longer declared keeps its column.
func (t *table) apply(tx *wtx) error {
	columns, err := t.existing(tx)
	if err != nil {
		return err
	}
	k := quote(t.Kind)
	var ddl []string
	if len(columns) == 0 {
		ddl = append(ddl, t.create())
	} else {
		if (columns["seq"] != "") != t.Sequenced {
			return fmt.Errorf("store/sqlite: %s: an existing kind cannot become sequenced, nor cease to be", t.Kind)
		}
		for _, f := range t.single {
			switch have := columns[strings.ToLower(f.Name)]; have {
			case "":
				ddl = append(ddl, "ALTER TABLE "+k+" ADD COLUMN "+quote(f.Name)+" "+sqlType(f))
			case sqlType(f):
			default:
				return fmt.Errorf("store/sqlite: %s.%s is stored as %s", t.Kind, f.Name, have)
			}
		}
	}
	for _, f := range t.multi {
		s := t.side(f.Name)
		ddl = append(ddl,
			"CREATE TABLE IF NOT EXISTS "+s+" (value TEXT NOT NULL, _id TEXT NOT NULL, PRIMARY KEY (value, _id)) WITHOUT ROWID",
			"CREATE INDEX IF NOT EXISTS "+quote(t.Kind+"_"+f.Name+"_by_id")+" ON "+s+" (_id)")
		unique := quote(t.Kind + "_" + f.Name + "_unique")
		if f.Unique {
			ddl = append(ddl, "CREATE UNIQUE INDEX IF NOT EXISTS "+unique+" ON "+s+" (value)")
		} else {
			ddl = append(ddl, "DROP INDEX IF EXISTS "+unique)
		}
	}
	wanted := t.indexes()
	for r, err := range tx.rows("SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", t.Kind) {
		if err != nil {
			return err
		}
		if _, ok := wanted[r.text(0)]; ok {
			delete(wanted, r.text(0))
		} else {
			ddl = append(ddl, "DROP INDEX "+quote(r.text(0)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		ddl = append(ddl, wanted[name])
	}
	ddl = append(ddl, t.triggers(len(columns) > 0)...)
	if err := tx.script(strings.Join(ddl, ";\n")); err != nil {
		return fmt.Errorf("store/sqlite: %s: %w", t.Kind, err)
	}
	_, err = tx.exec("INSERT INTO _meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", t.Kind, t.mark)
	return err
}

// existing gives the types of the table's columns by lower-cased name.
func (t *table) existing(tx *wtx) (map[string]string, error) {
	out := map[string]string{}
	for r, err := range tx.rows("SELECT lower(name), type FROM pragma_table_info(?)", t.Kind) {
		if err != nil {
			return nil, err
		}
		out[r.text(0)] = r.text(1)
	}
	return out, nil
}

func sqlType(f store.Field) string {
	if f.Type == store.Int {
		return "INTEGER"
	}
	return "TEXT"
}

func (t *table) create() string {
	cols := "_id TEXT PRIMARY KEY NOT NULL, doc TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 1"
	if t.Watched {
		cols = strings.Replace(cols, "doc TEXT NOT NULL", "doc TEXT NOT NULL CHECK (json_valid(doc))", 1) // a hand may slip
	}
	if t.Sequenced {
		cols += ", seq INTEGER NOT NULL"
	}
	for _, f := range t.single {
		cols += ", " + quote(f.Name) + " " + sqlType(f)
	}
	return "CREATE TABLE " + quote(t.Kind) + " (" + cols + ")"
}

// triggers keep what belongs to a record in step with it whoever writes, the engine or a hand in the sqlite3
// shell: the values of multi fields, and of watched kinds the log of changes (the newest entry per id, by a
// number that is never used twice) and the version.
func (t *table) triggers(existed bool) []string {
	k, log := quote(t.Kind), t.log()
	var onDelete, onMove []string
	for _, f := range t.multi {
		onDelete = append(onDelete, "DELETE FROM "+t.side(f.Name)+" WHERE _id = OLD._id")
		onMove = append(onMove, "UPDATE "+t.side(f.Name)+" SET _id = NEW._id WHERE _id = OLD._id")
	}
	var ddl, onInsert, onUpdate []string
	if t.Watched {
		// No OR REPLACE: in a trigger, the outer statement's conflict rule would decide instead.
		note := func(id string) []string {
			return []string{"DELETE FROM " + log + " WHERE _id = " + id, "INSERT INTO " + log + " (_id) VALUES (" + id + ")"}
		}
		ddl = append(ddl, "CREATE TABLE IF NOT EXISTS "+log+" (n INTEGER PRIMARY KEY AUTOINCREMENT, _id TEXT NOT NULL UNIQUE)")
		if existed { // a kind that is watched from now on
			ddl = append(ddl, "INSERT OR IGNORE INTO "+log+" (_id) SELECT _id FROM "+k)
		}
		onInsert = note("NEW._id")
		onUpdate = append(note("NEW._id"),
			"UPDATE "+k+" SET version = OLD.version + 1 WHERE _id = NEW._id AND NEW.version <= OLD.version")
		onDelete = append(onDelete, note("OLD._id")...)
		onMove = append(onMove, note("OLD._id")...)
	}
	for _, e := range []struct {
		name, on string
		do       []string
	}{
		{"inserted", "AFTER INSERT ON " + k, onInsert},
		{"updated", "AFTER UPDATE ON " + k, onUpdate},
		{"deleted", "AFTER DELETE ON " + k, onDelete},
		{"moved", "AFTER UPDATE OF _id ON " + k + " WHEN NEW._id <> OLD._id", onMove},
	} {
		ddl = append(ddl, "DROP TRIGGER IF EXISTS "+t.trigger(e.name))
		if len(e.do) > 0 {
			ddl = append(ddl, "CREATE TRIGGER "+t.trigger(e.name)+" "+e.on+" BEGIN "+strings.Join(e.do, "; ")+"; END")
		}
	}
	return ddl
}
