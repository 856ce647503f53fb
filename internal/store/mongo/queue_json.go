package mongo

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// depthMost is how deep an object may be nested that is stored as a subdocument; the server's limit is 100.
const depthMost = 32

// jsonValue is how a payload or a result is stored: as a subdocument, for people, if it is an object of which exactly
// the same bytes can be made again; else as its text.
func jsonValue(raw []byte) any {
	if d, ok := subOf(raw); ok {
		return d
	}
	if utf8.Valid(raw) {
		return string(raw)
	}
	return bson.Binary{Data: raw}
}

func subOf(raw []byte) (bson.D, bool) {
	if len(raw) == 0 || raw[0] != '{' {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	v, ok := readAny(dec, 0)
	d, isDoc := v.(bson.D)
	if !ok || !isDoc {
		return nil, false
	}
	b, err := bson.Marshal(d)
	if err != nil {
		return nil, false
	}
	again, ok := appendSub(make([]byte, 0, len(raw)), b)
	return d, ok && bytes.Equal(again, raw)
}

// readAny reads a value, of which there must be a form that BSON has too.
func readAny(dec *json.Decoder, depth int) (any, bool) {
	t, err := dec.Token()
	if err != nil || depth > depthMost {
		return nil, false
	}
	switch t := t.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(t.String(), 10, 64); err == nil {
			return n, true
		}
		f, err := t.Float64()
		return f, err == nil
	case json.Delim:
		if t == '[' {
			a := bson.A{}
			for dec.More() {
				v, ok := readAny(dec, depth+1)
				if !ok {
					return nil, false
				}
				a = append(a, v)
			}
			_, err := dec.Token()
			return a, err == nil
		}
		d, seen := bson.D{}, map[string]bool{}
		for dec.More() {
			k, err := dec.Token()
			name, isText := k.(string)
			if err != nil || !isText || name == "" || seen[name] || name[0] == '$' || strings.ContainsAny(name, ".\x00") {
				return nil, false
			}
			v, ok := readAny(dec, depth+1)
			if !ok {
				return nil, false
			}
			seen[name] = true
			d = append(d, is(name, v))
		}
		_, err := dec.Token()
		return d, err == nil
	}
	return t, true // a text, a truth value, or null
}

// jsonOf is the inverse of jsonValue. What an operator's hand made of it is JSON in any case.
func jsonOf(v bson.RawValue) json.RawMessage {
	switch v.Type {
	case bson.TypeString:
		return orText([]byte(v.StringValue()))
	case bson.TypeBinary:
		_, data := v.Binary()
		return orText(bytes.Clone(data))
	}
	b, ok := appendAny(nil, v)
	if !ok {
		return json.RawMessage("null")
	}
	return b
}

// orText is a text that is JSON; any other is a JSON text.
func orText(raw []byte) json.RawMessage {
	if json.Valid(raw) {
		return raw
	}
	b, err := json.Marshal(string(raw))
	if err != nil {
		return json.RawMessage("null")
	}
	return b
}

func appendSub(dst []byte, d bson.Raw) ([]byte, bool) {
	es, err := d.Elements()
	if err != nil {
		return nil, false
	}
	dst = append(dst, '{')
	for i, e := range es {
		if i > 0 {
			dst = append(dst, ',')
		}
		name, err := json.Marshal(e.Key())
		if err != nil {
			return nil, false
		}
		dst = append(append(dst, name...), ':')
		var ok bool
		if dst, ok = appendAny(dst, e.Value()); !ok {
			return nil, false
		}
	}
	return append(dst, '}'), true
}

func appendAny(dst []byte, v bson.RawValue) ([]byte, bool) {
	switch v.Type {
	case bson.TypeEmbeddedDocument:
		return appendSub(dst, v.Value)
	case bson.TypeArray:
		dst = append(dst, '[')
		for i, e := range membersOf(v) {
			if i > 0 {
				dst = append(dst, ',')
			}
			var ok bool
			if dst, ok = appendAny(dst, e.Value()); !ok {
				return nil, false
			}
		}
		return append(dst, ']'), true
	case bson.TypeInt64, bson.TypeInt32:
		return strconv.AppendInt(dst, intOf(v), 10), true
	case bson.TypeBoolean:
		return strconv.AppendBool(dst, v.Boolean()), true
	case bson.TypeNull:
		return append(dst, "null"...), true
	}
	var x any
	switch v.Type {
	case bson.TypeString:
		x = v.StringValue()
	case bson.TypeDouble:
		x = v.Double()
	case bson.TypeDateTime:
		x = timeOf(v)
	case bson.TypeObjectID:
		x = v.ObjectID().Hex()
	default:
		x = v.String()
	}
	b, err := json.Marshal(x)
	if err != nil { // a number that JSON has not
		b = []byte("null")
	}
	return append(dst, b...), true
}
