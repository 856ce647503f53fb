package mongo

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/ecodrix/ecod/internal/store"
)

const (
	maxDepth   = 80       // of members; the server ends at 100, and an update puts a few around them
	maxMembers = 12 << 20 // bytes of a document's members; the server ends at 16 MB
)

// appendRecord appends a record's content, which is all but its id, version and number, to a document that is being built: the
// members of its JSON at top level, so that they can be read, sought and edited by hand, and its searchable values. JSON that
// members would not bring back as it was is kept as text.
func appendRecord(dst []byte, w *store.Write) []byte {
	if out, named, ok := appendMembers(dst, w.Doc, w.ID); ok {
		if dst = out; named {
			dst = bsoncore.AppendBooleanElement(dst, namedKey, true)
		}
	} else {
		dst = bsoncore.AppendStringElement(dst, jsonKey, string(w.Doc))
	}
	if len(w.Fields) == 0 {
		return dst
	}
	at, dst := bsoncore.AppendDocumentElementStart(dst, fieldsKey)
	names := make([]string, 0, len(w.Fields))
	for name := range w.Fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch v := w.Fields[name].(type) {
		case string:
			dst = bsoncore.AppendStringElement(dst, name, v)
		case int64:
			dst = bsoncore.AppendInt64Element(dst, name, v)
		case []string:
			values := slices.Clone(v)
			slices.Sort(values)
			values = slices.Compact(values)
			if len(values) == 0 { // an empty list would be a value to a unique index
				continue
			}
			var list int32
			list, dst = bsoncore.AppendArrayElementStart(dst, name)
			for i, s := range values {
				dst = bsoncore.AppendStringElement(dst, strconv.Itoa(i), s)
			}
			dst, _ = bsoncore.AppendArrayEnd(dst, list)
		}
	}
	dst, _ = bsoncore.AppendDocumentEnd(dst, at)
	return dst
}

// appendMembers appends the members of a JSON object; false if they would not come back as they are: numbers that are neither
// an int64 nor written as Go writes a float64, names that mean something to the server or to us, names twice, or too much. A
// member _id that is the record's id is left out, and told (named).
func appendMembers(dst []byte, doc []byte, id string) (out []byte, named, ok bool) {
	if doc = bytes.TrimLeft(doc, " \t\r\n"); len(doc) == 0 || doc[0] != '{' {
		return nil, false, false
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return nil, false, false
	}
	start := len(dst)
	dst, named, ok = appendObject(dst, d, 1, id)
	if !ok || len(dst)-start > maxMembers {
		return nil, false, false
	}
	if _, err := d.Token(); err != io.EOF { //nolint:errorlint // the decoder gives it as it is
		return nil, false, false
	}
	return dst, named, true
}

// appendObject appends what follows an object's opening brace, to its end. At the top, id is the record's.
func appendObject(dst []byte, d *json.Decoder, depth int, id string) (out []byte, named, ok bool) {
	if depth > maxDepth {
		return nil, false, false
	}
	var names []string
	var many map[string]bool // of names, once there are many
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, false, false
		}
		name, _ := t.(string)
		if name == idKey && depth == 1 && !named {
			if t, err = d.Token(); err != nil || t != id {
				return nil, false, false
			}
			named = true
			continue
		}
		if !plainName(name, depth == 1) || many[name] || many == nil && slices.Contains(names, name) {
			return nil, false, false
		}
		names = append(names, name)
		switch {
		case many != nil:
			many[name] = true
		case len(names) > 16:
			many = make(map[string]bool, 32)
			for _, n := range names {
				many[n] = true
			}
		}
		if dst, ok = appendValue(dst, d, name, depth); !ok {
			return nil, false, false
		}
	}
	_, err := d.Token()
	return dst, named, err == nil
}

func plainName(name string, top bool) bool {
	if strings.ContainsAny(name, ".\x00") || strings.HasPrefix(name, "$") {
		return false
	}
	return !top || name != "" && name[0] != '_'
}

func appendValue(dst []byte, d *json.Decoder, name string, depth int) ([]byte, bool) {
	t, err := d.Token()
	if err != nil {
		return nil, false
	}
	switch v := t.(type) {
	case nil:
		return bsoncore.AppendNullElement(dst, name), true
	case bool:
		return bsoncore.AppendBooleanElement(dst, name, v), true
	case string:
		return bsoncore.AppendStringElement(dst, name, v), true
	case json.Number:
		s := v.String()
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(n, 10) == s {
			return bsoncore.AppendInt64Element(dst, name, n), true
		}
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || string(appendFloat(nil, f)) != s {
			return nil, false
		}
		return bsoncore.AppendDoubleElement(dst, name, f), true
	case json.Delim:
		var at int32
		var ok bool
		if v == '{' {
			at, dst = bsoncore.AppendDocumentElementStart(dst, name)
			if dst, _, ok = appendObject(dst, d, depth+1, ""); !ok {
				return nil, false
			}
			dst, err = bsoncore.AppendDocumentEnd(dst, at)
			return dst, err == nil
		}
		if depth+1 > maxDepth {
			return nil, false
		}
		at, dst = bsoncore.AppendArrayElementStart(dst, name)
		for i := 0; d.More(); i++ {
			if dst, ok = appendValue(dst, d, strconv.Itoa(i), depth+1); !ok {
				return nil, false
			}
		}
		if _, err := d.Token(); err != nil {
			return nil, false
		}
		dst, err = bsoncore.AppendArrayEnd(dst, at)
		return dst, err == nil
	}
	return nil, false
}

// record reads a document as it is stored. It takes what a hand may have put there, too: a missing version, and the types
// that JSON does not know.
func record(raw bson.Raw) (store.Record, error) {
	r := store.Record{Version: 1}
	els, err := raw.Elements()
	if err != nil {
		return r, err
	}
	doc := append(make([]byte, 0, len(raw)), '{')
	if named, ok := raw.Lookup(namedKey).BooleanOK(); ok && named {
		doc = appendString(append(doc, `"_id":`...), idOf(raw.Lookup(idKey)))
	}
	var text []byte
	for _, e := range els {
		name, v := e.Key(), e.Value()
		if !strings.HasPrefix(name, "_") {
			if len(doc) > 1 {
				doc = append(doc, ',')
			}
			doc = appendJSON(append(appendString(doc, name), ':'), v)
			continue
		}
		switch name {
		case idKey:
			r.ID = idOf(v)
		case versionKey:
			if n, ok := v.AsInt64OK(); ok && n > 0 {
				r.Version = n
			}
		case seqKey:
			r.Seq, _ = v.AsInt64OK()
		case jsonKey:
			if s, ok := v.StringValueOK(); ok {
				text = []byte(s)
			}
		}
	}
	r.Doc = append(doc, '}')
	if text != nil {
		r.Doc = text
	}
	return r, nil
}

// idOf gives an id; one that a browser of databases made for a document is no text, and told by its digits.
func idOf(v bson.RawValue) string {
	if s, ok := v.StringValueOK(); ok {
		return s
	}
	if o, ok := v.ObjectIDOK(); ok {
		return o.Hex()
	}
	return v.String()
}

func appendJSON(dst []byte, v bson.RawValue) []byte {
	switch v.Type {
	case bson.TypeString:
		return appendString(dst, v.StringValue())
	case bson.TypeInt64:
		return strconv.AppendInt(dst, v.Int64(), 10)
	case bson.TypeInt32:
		return strconv.AppendInt(dst, int64(v.Int32()), 10)
	case bson.TypeDouble:
		return appendFloat(dst, v.Double())
	case bson.TypeBoolean:
		return strconv.AppendBool(dst, v.Boolean())
	case bson.TypeEmbeddedDocument:
		els, err := v.Document().Elements()
		if err != nil {
			return append(dst, "null"...)
		}
		dst = append(dst, '{')
		for i, e := range els {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(append(appendString(dst, e.Key()), ':'), e.Value())
		}
		return append(dst, '}')
	case bson.TypeArray:
		values, err := v.Array().Values()
		if err != nil {
			return append(dst, "null"...)
		}
		dst = append(dst, '[')
		for i, e := range values {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, e)
		}
		return append(dst, ']')
	case bson.TypeDateTime:
		return appendString(dst, time.UnixMilli(v.DateTime()).UTC().Format(time.RFC3339Nano))
	case bson.TypeObjectID:
		return appendString(dst, v.ObjectID().Hex())
	case bson.TypeDecimal128:
		if s := v.Decimal128().String(); json.Valid([]byte(s)) {
			return append(dst, s...)
		}
	case bson.TypeBinary:
		_, b := v.Binary()
		return appendString(dst, base64.StdEncoding.EncodeToString(b))
	}
	return append(dst, "null"...)
}

func appendString(dst []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x80 || c == '<' || c == '>' || c == '&' {
			plain = false
			break
		}
	}
	if plain {
		return append(append(append(dst, '"'), s...), '"')
	}
	b, _ := json.Marshal(s) // a string always marshals
	return append(dst, b...)
}

func appendFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	b, _ := json.Marshal(f) // a finite number always marshals
	return append(dst, b...)
}
