package socketio

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// errPacked: bytes that are no MessagePack, or none that JSON can say.
var errPacked = errors.New("socketio: malformed message of another server")

// unpack turns MessagePack, as notepack.io writes it, into JSON: dates become texts, undefined becomes null, as the JavaScript
// server says them to its clients. What nests deeper than most, and binary, is refused.
func unpack(b []byte, most int) (json.RawMessage, error) {
	in := bytes.NewReader(b)
	u := &unpacker{dec: msgpack.NewDecoder(in)}
	u.out.Grow(len(b) + len(b)/4)
	if err := u.value(most); err != nil {
		return nil, err
	}
	if in.Len() > 0 {
		return nil, errPacked
	}
	return u.out.Bytes(), nil
}

type unpacker struct {
	dec *msgpack.Decoder
	out bytes.Buffer
}

func (u *unpacker) value(depth int) error {
	c, err := u.dec.PeekCode()
	if err != nil {
		return errPacked
	}
	switch {
	case msgpcode.IsFixedMap(c), c == msgpcode.Map16, c == msgpcode.Map32:
		return u.object(depth)
	case msgpcode.IsFixedArray(c), c == msgpcode.Array16, c == msgpcode.Array32:
		return u.array(depth)
	case msgpcode.IsString(c):
		return u.text()
	case msgpcode.IsBin(c):
		return errBinary
	case msgpcode.IsExt(c):
		return u.ext()
	case c == msgpcode.Nil:
		u.out.WriteString("null")
		err = u.dec.DecodeNil()
	case c == msgpcode.True, c == msgpcode.False:
		var v bool
		v, err = u.dec.DecodeBool()
		u.out.WriteString(strconv.FormatBool(v))
	case c == msgpcode.Float, c == msgpcode.Double:
		var v float64
		if v, err = u.dec.DecodeFloat64(); err == nil {
			return u.number(v)
		}
	case c == msgpcode.Uint64:
		var v uint64
		v, err = u.dec.DecodeUint64()
		u.out.WriteString(strconv.FormatUint(v, 10))
	default:
		var v int64
		v, err = u.dec.DecodeInt64()
		u.out.WriteString(strconv.FormatInt(v, 10))
	}
	if err != nil {
		return errPacked
	}
	return nil
}

func (u *unpacker) number(v float64) error {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		u.out.WriteString("null") // as JSON.stringify says them
		return nil
	}
	return appendJSON(&u.out, v)
}

func (u *unpacker) text() error {
	s, err := u.dec.DecodeString()
	if err != nil {
		return errPacked
	}
	return appendJSON(&u.out, s)
}

// array and object read on until what is missing is missed: a length may promise anything.
func (u *unpacker) array(depth int) error {
	n, err := u.dec.DecodeArrayLen()
	if err != nil || depth == 0 {
		return errPacked
	}
	u.out.WriteByte('[')
	for i := range n {
		if i > 0 {
			u.out.WriteByte(',')
		}
		if err := u.value(depth - 1); err != nil {
			return err
		}
	}
	u.out.WriteByte(']')
	return nil
}

func (u *unpacker) object(depth int) error {
	n, err := u.dec.DecodeMapLen()
	if err != nil || depth == 0 {
		return errPacked
	}
	u.out.WriteByte('{')
	for i := range n {
		if i > 0 {
			u.out.WriteByte(',')
		}
		if c, err := u.dec.PeekCode(); err != nil || !msgpcode.IsString(c) {
			return errPacked
		}
		if err := u.text(); err != nil {
			return err
		}
		u.out.WriteByte(':')
		if err := u.value(depth - 1); err != nil {
			return err
		}
	}
	u.out.WriteByte('}')
	return nil
}

// ext reads what notepack.io has beside the plain types.
func (u *unpacker) ext() error {
	id, n, err := u.dec.DecodeExtHeader()
	if err != nil || n > 16 {
		return errPacked
	}
	b := make([]byte, n)
	if err := u.dec.ReadFull(b); err != nil {
		return errPacked
	}
	switch {
	case id == 0 && n == 1: // undefined
		u.out.WriteString("null")
		return nil
	case id == 0 && n == 8: // a date of notepack.io 2: milliseconds, in two halves
		ms := int64(int32(binary.BigEndian.Uint32(b)))<<32 + int64(binary.BigEndian.Uint32(b[4:]))
		return u.date(time.UnixMilli(ms))
	case id == -1 && n == 4:
		return u.date(time.Unix(int64(binary.BigEndian.Uint32(b)), 0))
	case id == -1 && n == 8:
		v := binary.BigEndian.Uint64(b)
		return u.date(time.Unix(int64(v&(1<<34-1)), int64(v>>34)))
	case id == -1 && n == 12:
		return u.date(time.Unix(int64(binary.BigEndian.Uint64(b[4:])), int64(binary.BigEndian.Uint32(b))))
	}
	return errPacked
}

func (u *unpacker) date(t time.Time) error {
	return appendJSON(&u.out, t.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// pack turns JSON into MessagePack. Numbers are written as JavaScript would: whole ones as integers.
func pack(j []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(j))
	dec.UseNumber()
	var out bytes.Buffer
	out.Grow(len(j))
	p := &packer{in: dec, enc: msgpack.NewEncoder(&out)}
	v, err := p.value()
	if err == nil {
		err = p.write(v)
	}
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errMalformed
	}
	return out.Bytes(), nil
}

type packer struct {
	in  *json.Decoder
	enc *msgpack.Encoder
}

// member keeps the order of an object.
type member struct {
	name  string
	value any
}

type object []member

// value reads the next value: lengths come first in MessagePack, so it is read whole.
func (p *packer) value() (any, error) {
	t, err := p.in.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('['):
		list := []any{}
		for p.in.More() {
			v, err := p.value()
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = p.in.Token()
		return list, err
	case json.Delim('{'):
		o := object{}
		for p.in.More() {
			k, err := p.in.Token()
			if err != nil {
				return nil, err
			}
			v, err := p.value()
			if err != nil {
				return nil, err
			}
			o = append(o, member{k.(string), v})
		}
		_, err = p.in.Token()
		return o, err
	}
	return t, nil
}

func (p *packer) write(v any) error {
	switch v := v.(type) {
	case object:
		if err := p.enc.EncodeMapLen(len(v)); err != nil {
			return err
		}
		for _, m := range v {
			if err := p.enc.EncodeString(m.name); err != nil {
				return err
			}
			if err := p.write(m.value); err != nil {
				return err
			}
		}
		return nil
	case []any:
		if err := p.enc.EncodeArrayLen(len(v)); err != nil {
			return err
		}
		for _, x := range v {
			if err := p.write(x); err != nil {
				return err
			}
		}
		return nil
	case string:
		return p.enc.EncodeString(v)
	case bool:
		return p.enc.EncodeBool(v)
	case json.Number:
		return p.number(v.String())
	}
	return p.enc.EncodeNil()
}

func (p *packer) number(s string) error {
	if !strings.ContainsAny(s, ".eE") {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return p.enc.EncodeInt(n)
		}
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return p.enc.EncodeUint(n)
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return err
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return p.enc.EncodeInt(int64(f))
	}
	return p.enc.EncodeFloat64(f)
}
