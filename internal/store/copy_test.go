package store_test

import (
	"testing"

	"github.com/ecodrix/ecod/internal/store"
)

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1,"a":{"d":[1.0, 2e3,-0.5],"c":null}}`: `{"a":{"c":null,"d":[1,2000,-0.5]},"b":1}`,
		`9007199254740993`:                           `9007199254740993`,
		`{"x":123456789012345678901234567890}`:       `{"x":123456789012345678901234567890}`,
		`"é\u00e9\/"`:                                `"éé/"`,
		`[1.50, 1.5, 15e-1, 1e300]`:                  `[1.5,1.5,1.5,1e+300]`,
	} {
		if got, err := store.Canonical([]byte(in)); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	if _, err := store.Canonical([]byte(`{`)); err == nil {
		t.Error("half a document has a canonical form")
	}
}

// Whatever differs between two records shows in their digests.
func TestDigest(t *testing.T) {
	sum := func(rs ...store.Raw) string {
		d := store.NewDigest()
		for _, r := range rs {
			if err := d.Add(r); err != nil {
				t.Fatal(err)
			}
		}
		return d.Sum()
	}
	raw := func(id string, version, seq int64, doc string, f store.Fields) store.Raw {
		return store.Raw{Record: store.Record{ID: id, Version: version, Seq: seq, Doc: []byte(doc)}, Fields: f}
	}
	base := raw("a", 1, 2, `{"x":1,"y":2}`, store.Fields{"f": "v", "m": []string{"1", "2"}})
	if sum(base) != sum(raw("a", 1, 2, `{ "y": 2.0, "x":1}`, store.Fields{"m": []string{"2", "1", "1"}, "f": "v"})) {
		t.Error("equal records differ")
	}
	for name, other := range map[string]store.Raw{
		"id":      raw("b", 1, 2, `{"x":1,"y":2}`, base.Fields),
		"version": raw("a", 2, 2, `{"x":1,"y":2}`, base.Fields),
		"number":  raw("a", 1, 3, `{"x":1,"y":2}`, base.Fields),
		"value":   raw("a", 1, 2, `{"x":1,"y":"2"}`, base.Fields),
		"field":   raw("a", 1, 2, `{"x":1,"y":2}`, store.Fields{"f": "w", "m": []string{"1", "2"}}),
		"absent":  raw("a", 1, 2, `{"x":1,"y":2}`, store.Fields{"m": []string{"1", "2"}}),
	} {
		if sum(base) == sum(other) {
			t.Errorf("another %s is not seen", name)
		}
	}
	if sum(base, base) == sum(base) {
		t.Error("a doubled record is not seen")
	}
}
