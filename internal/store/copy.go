package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Raw is a record with all that an engine keeps of it, so that another can take it over as it is.
type Raw struct {
	Record
	Fields Fields // multi fields in ascending order, each value once; one without values is left out
}

// Copier is what an engine's DB offers, beside DB, to copies of whole databases. Who fills a database is alone with it.
type Copier interface {
	DB
	// Dump gives the records of a kind by id, those after an id, at most limit of them, and fewer if they are large;
	// none: there are no more.
	Dump(ctx context.Context, kind, after string, limit int) ([]Raw, error)
	// Fill inserts records as they are, with version, number and fields, and returns when they are durable. A record
	// whose id is there is left alone: who fills again after a crash doubles nothing, and who fills too late overwrites
	// nothing. A unique value of another record is ErrDuplicate. At most MaxWrites at a time.
	Fill(ctx context.Context, kind string, rs ...Raw) error
	// LastSeq is the last number that was given to a record of the database.
	LastSeq(ctx context.Context) (int64, error)
	// SkipSeq has the next record numbered after n, if it would not be anyhow.
	SkipSeq(ctx context.Context, n int64) error
}

// Pages of copies.
const (
	CopyPage  = 500
	CopyBytes = 4 << 20 // of documents in one page, but for its first
)

// Check tells whether a record can be filled into a kind.
func (r Raw) Check(schemas map[string]Schema, kind string) error {
	if err := (Write{Kind: kind, ID: r.ID, Doc: r.Doc, Fields: r.Fields}).Check(schemas); err != nil {
		return err
	}
	if r.Version < 1 || r.Seq < 0 || (r.Seq > 0) != schemas[kind].Sequenced {
		return fmt.Errorf("store: %s %s cannot have version %d and number %d", kind, r.ID, r.Version, r.Seq)
	}
	return nil
}

// Empty tells whether a database holds nothing of some kinds, and never did give a number.
func Empty(ctx context.Context, db Copier, schemas []Schema) (bool, error) {
	if n, err := db.LastSeq(ctx); err != nil || n > 0 {
		return false, err
	}
	for _, s := range schemas {
		if rs, err := db.Dump(ctx, s.Kind, "", 1); err != nil || len(rs) > 0 {
			return false, err
		}
	}
	return true, nil
}

// CopyKind copies the records of a kind after an id, page by page. Done is called with each page that is durable.
func CopyKind(ctx context.Context, from, to Copier, kind, after string, done func(page []Raw) error) error {
	for {
		page, err := from.Dump(ctx, kind, after, CopyPage)
		if err != nil || len(page) == 0 {
			return err
		}
		if err := to.Fill(ctx, kind, page...); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		after = page[len(page)-1].ID
		if err := done(page); err != nil {
			return err
		}
	}
}

// Digest sums up records so that two engines' copies of the same ones, added in the same order, are told from others:
// documents count as values, since an engine may keep them in a form of its own.
type Digest struct {
	Records int64
	sum     hash.Hash
}

// NewDigest begins a digest.
func NewDigest() *Digest { return &Digest{sum: sha256.New()} }

// Add adds a record.
func (d *Digest) Add(r Raw) error {
	doc, err := Canonical(r.Doc)
	if err != nil {
		return fmt.Errorf("%s: %w", r.ID, err)
	}
	fields := make(Fields, len(r.Fields))
	for name, v := range r.Fields {
		if l, ok := v.([]string); ok {
			l = slices.Clone(l)
			slices.Sort(l)
			v = slices.Compact(l)
		}
		fields[name] = v
	}
	b, err := json.Marshal([]any{r.ID, r.Version, r.Seq, fields})
	if err != nil {
		return err
	}
	for _, part := range [][]byte{b, doc} {
		fmt.Fprintf(d.sum, "%d:", len(part))
		d.sum.Write(part)
	}
	d.Records++
	return nil
}

// Sum is the digest of what was added.
func (d *Digest) Sum() string { return hex.EncodeToString(d.sum.Sum(nil)) }

// DigestKind reads a whole kind.
func DigestKind(ctx context.Context, db Copier, kind string) (*Digest, error) {
	d := NewDigest()
	for after := ""; ; {
		page, err := db.Dump(ctx, kind, after, CopyPage)
		if err != nil || len(page) == 0 {
			return d, err
		}
		for _, r := range page {
			if err := d.Add(r); err != nil {
				return d, fmt.Errorf("%s: %w", kind, err)
			}
		}
		after = page[len(page)-1].ID
	}
}

// Canonical writes a document so that equal values are equal bytes: members by name, numbers in one form.
func Canonical(doc []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("store: a document that is no JSON: %w", err)
	}
	var out bytes.Buffer
	if err := canonical(&out, v); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func canonical(out *bytes.Buffer, v any) error {
	switch x := v.(type) {
	case map[string]any:
		out.WriteByte('{')
		for i, name := range slices.Sorted(maps.Keys(x)) {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := canonical(out, name); err != nil {
				return err
			}
			out.WriteByte(':')
			if err := canonical(out, x[name]); err != nil {
				return err
			}
		}
		out.WriteByte('}')
		return nil
	case []any:
		out.WriteByte('[')
		for i, e := range x {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := canonical(out, e); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	case json.Number:
		out.WriteString(number(x.String()))
		return nil
	}
	b, err := json.Marshal(v)
	out.Write(b)
	return err
}

// number is a JSON number in the one form of its value: whole ones to their last digit, others as the double they are.
func number(s string) string {
	if !strings.ContainsAny(s, ".eE") {
		return s
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}
