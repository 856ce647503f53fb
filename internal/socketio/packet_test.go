package socketio

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

var testLimits = packetLimits{namespace: 32, depth: 8}

func TestParsePacket(t *testing.T) {
	raw := func(parts ...string) (args []json.RawMessage) {
		for _, p := range parts {
			args = append(args, json.RawMessage(p))
		}
		return args
	}
	for in, want := range map[string]packet{
		`0`:                        {typ: '0', namespace: "/"},
		`0{"a":1}`:                 {typ: '0', namespace: "/", auth: json.RawMessage(`{"a":1}`)},
		`0/x,`:                     {typ: '0', namespace: "/x"},
		`0/x`:                      {typ: '0', namespace: "/x"},
		`0/x,{}`:                   {typ: '0', namespace: "/x", auth: json.RawMessage(`{}`)},
		`1`:                        {typ: '1', namespace: "/"},
		`1/admin,`:                 {typ: '1', namespace: "/admin"},
		`2["foo"]`:                 {typ: '2', namespace: "/", event: "foo"},
		`2["fo\u006f",1,null,[2]]`: {typ: '2', namespace: "/", event: "foo", args: raw("1", "null", "[2]")},
		`212["foo"]`:               {typ: '2', namespace: "/", event: "foo", id: 12, hasID: true},
		`2/a,0["foo",{"b":"]["}]`:  {typ: '2', namespace: "/a", event: "foo", hasID: true, args: raw(`{"b":"]["}`)},
		`3/a,13["bar"]`:            {typ: '3', namespace: "/a", id: 13, hasID: true, args: raw(`"bar"`)},
		`31[]`:                     {typ: '3', namespace: "/", id: 1, hasID: true},
		`2["n",1e999999,-0.00000000000000000000000001]`: {typ: '2', namespace: "/", event: "n", args: raw("1e999999", "-0.00000000000000000000000001")},
	} {
		got, err := parsePacket([]byte(in), testLimits)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if g, w := printPacket(got), printPacket(want); g != w {
			t.Errorf("%s: got %s, want %s", in, g, w)
		}
	}
}

func printPacket(p packet) string {
	return mustJSON([]any{string(p.typ), p.namespace, p.id, p.hasID, p.event, append([]json.RawMessage{}, p.args...), p.auth})
}

func TestParseMalformedPacket(t *testing.T) {
	for _, in := range []string{
		``, `abc`, `7`, `9["x"]`, `2`, `2{}`, `2[]`, `2[1]`, `2["foo"`, `2["foo"]]`, `2["foo"]x`, `2abc["foo"]`, `2 ["foo"]`,
		`2[null]`, `2["connect"]`, `2["disconnect"]`, `2["connect_error"]`, `2["newListener"]`, `2"foo"`, `2null`, `2-1["foo"]`,
		`21.5["foo"]`, `21234567890123456["foo"]`, `3[]`, `31`, `31{}`, `31null`, `01{}`, `0[]`, `0"x"`, `0null`, `0{`, `0/x,[]`,
		`1[]`, `11`, `4{"message":"x"}`, `2/` + strings.Repeat("x", 32) + `,["foo"]`, "2[\"\xff\"]",
		`2["deep",` + strings.Repeat("[", 8) + strings.Repeat("]", 8) + `]`,
		`2["deep",` + strings.Repeat("[", 100_000), `2["deep",` + strings.Repeat(`{"a":`, 100_000),
		`5["foo"]`, `5-["foo"]`, `511-["foo"]`, `599999999999999999999-["foo"]`, `51-{}`, `51-[]`, `61-["no id"]`, `5`, `5-`, `51-`,
	} {
		if _, err := parsePacket([]byte(in), testLimits); !errors.Is(err, errMalformed) {
			t.Errorf("%.60q: %v", in, err)
		}
	}
	if _, err := parsePacket([]byte(`2["deep",`+strings.Repeat("[", 7)+strings.Repeat("]", 7)+`]`), testLimits); err != nil {
		t.Errorf("as deep as allowed: %v", err)
	}
	for _, in := range []string{`51-["foo",{"_placeholder":true,"num":0}]`, `52-/a,7["foo"]`, `61-3[{"_placeholder":true,"num":0}]`, `50-["foo"]`} {
		if _, err := parsePacket([]byte(in), testLimits); !errors.Is(err, errBinary) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestEncode(t *testing.T) {
	type pair struct {
		got  func() (*frame, error)
		want string
	}
	for _, p := range []pair{
		{func() (*frame, error) { return encodeEvent("/", -1, "foo", nil) }, `42["foo"]`},
		{func() (*frame, error) { return encodeEvent("/a", 7, "foo", []any{"<b>&", 1, nil}) }, `42/a,7["foo","<b>&",1,null]`},
		{func() (*frame, error) {
			return encodeEvent("/", 0, "f\x1eo", []any{json.RawMessage(`{"a": [1]}`)})
		}, `420["f\u001eo",{"a":[1]}]`},
		{func() (*frame, error) { return encodePacket(sioAck, "/", 3, []any{}) }, `433[]`},
		{func() (*frame, error) { return encodePacket(sioConnectError, "/", -1, &ConnectError{Message: "no"}) }, `44{"message":"no"}`},
		{func() (*frame, error) { return encodePacket(sioConnectError, "/", -1, &ConnectError{"no", 1}) }, `44{"message":"no","data":1}`},
		{func() (*frame, error) { return encodeRaw("/a", []byte(`["x", 1]`)) }, `42/a,["x", 1]`},
		{func() (*frame, error) { return disconnectFrame("/a"), nil }, `41/a,`},
		{func() (*frame, error) { return disconnectFrame("/"), nil }, `41`},
	} {
		f, err := p.got()
		if err != nil || string(f.data) != p.want {
			t.Errorf("got %v %v, want %s", f, err, p.want)
		}
	}
	for name, f := range map[string]func() (*frame, error){
		"reserved":     func() (*frame, error) { return encodeEvent("/", -1, "disconnect", nil) },
		"channel":      func() (*frame, error) { return encodeEvent("/", -1, "x", []any{make(chan int)}) },
		"bad raw arg":  func() (*frame, error) { return encodeEvent("/", -1, "x", []any{json.RawMessage(`{`)}) },
		"raw not JSON": func() (*frame, error) { return encodeRaw("/", []byte(`["x"`)) },
		"raw object":   func() (*frame, error) { return encodeRaw("/", []byte(`{}`)) },
		"raw reserved": func() (*frame, error) { return encodeRaw("/", []byte(`["connect"]`)) },
		"raw no name":  func() (*frame, error) { return encodeRaw("/", []byte(`[1]`)) },
		"raw UTF-8":    func() (*frame, error) { return encodeRaw("/", []byte("[\"x\",\"\xff\"]")) },
	} {
		if f, err := f(); err == nil {
			t.Errorf("%s: encoded as %s", name, f.data)
		}
	}
}

// What is accepted has to mean the same once written again.
func FuzzParsePacket(f *testing.F) {
	for _, s := range []string{
		`0`, `0/x,{"a":1}`, `1/admin,`, `2["foo",{"a":[1,"\u20ac"]}]`, `2/a,12["foo"]`, `3/a,13["bar"]`, `51-["baz",{"_placeholder":true,"num":0}]`,
		`2["deep",[[[[[[]]]]]]]`, `2["n",1e999999]`, `61-15["bar",{"_placeholder":true,"num":1}]`, `4{"message":"x"}`, `2["a\\\"[",1]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := parsePacket(bytes.Clone(in), testLimits)
		if err != nil {
			return
		}
		id := int64(-1)
		if p.hasID {
			id = int64(p.id)
		}
		var out *frame
		switch p.typ {
		case sioEvent:
			args := []any{}
			for _, a := range p.args {
				args = append(args, a)
			}
			out, err = encodeEvent(p.namespace, id, p.event, args)
		case sioAck:
			out, err = encodePacket(sioAck, p.namespace, id, append([]json.RawMessage{}, p.args...))
		case sioConnect:
			out, err = encodePacket(sioConnect, p.namespace, id, p.auth)
			if p.auth == nil {
				return
			}
		default:
			return
		}
		if err != nil {
			t.Fatalf("%q: cannot be written again: %v", in, err)
		}
		again, err := parsePacket(out.data[1:], testLimits)
		if err != nil {
			t.Fatalf("%q: written as %q: %v", in, out.data, err)
		}
		if g, w := printPacket(again), printPacket(p); g != w {
			t.Fatalf("%q: %s became %s", in, w, g)
		}
	})
}

func FuzzSplitPayload(f *testing.F) {
	for _, s := range []string{"4hello\x1e2\x1e4world", "4hello\x1ebAQIDBA==", "\x1e", "", "b", "b=", "4\x1e"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var frames []*frame
		err := splitPayload(bytes.Clone(in), func(data []byte, binary bool) bool {
			frames = append(frames, &frame{data: data, binary: binary})
			return true
		})
		if err != nil {
			return
		}
		var out []byte
		for i, fr := range frames {
			if i > 0 {
				out = append(out, recordSeparator)
			}
			if fr.pollLen() != len(fr.pollBytes()) {
				t.Fatalf("%q: packet %d: length %d", in, i, fr.pollLen())
			}
			out = append(out, fr.pollBytes()...)
		}
		if !bytes.Contains(in, []byte("b")) && !bytes.Equal(in, out) { // base64 has more than one spelling
			t.Fatalf("%q became %q", in, out)
		}
	})
}
