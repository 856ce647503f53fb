package mongo

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/ecodrix/ecod/internal/store"
)

// through is what comes back of a payload, and how it was stored.
func through(t *testing.T, raw []byte) (string, bson.Type) {
	t.Helper()
	b, err := bson.Marshal(bson.D{is("payload", jsonValue(raw))})
	if err != nil {
		t.Fatal(err)
	}
	return string(decodeJob(b).Payload), bson.Raw(b).Lookup("payload").Type
}

// A payload comes back as it was, byte for byte; what people can read is stored so that they can.
func TestPayloadIsStoredExactly(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 200) + `1` + strings.Repeat(`}`, 200)
	for raw, want := range map[string]bson.Type{
		`{}`: bson.TypeEmbeddedDocument,
		`{"messageId":"msg_1","n":12345678901234567,"neg":-1,"f":1.5,"yes":true,"none":null,"list":[1,[],{}],"sub":{"b":"\u003c","a":"é"}}`: bson.TypeEmbeddedDocument,
		`{"messageId": "msg_1"}`:        bson.TypeString, // a space
		`{"n":1e3}`:                     bson.TypeString,
		`{"n":-0}`:                      bson.TypeString,
		`{"n":1.0}`:                     bson.TypeString,
		`{"n":10000000000000000000001}`: bson.TypeString,
		`{"a":1,"a":2}`:                 bson.TypeString,
		`{"$set":1}`:                    bson.TypeString,
		`{"a.b":1}`:                     bson.TypeString,
		`{"":1}`:                        bson.TypeString,
		`{"a\u0000":1}`:                 bson.TypeString,
		`{"a":"<"}`:                     bson.TypeString, // our own encoder escapes it
		`{"a":"\ud800"}`:                bson.TypeString,
		`[1,2]`:                         bson.TypeString,
		`"text"`:                        bson.TypeString,
		`7`:                             bson.TypeString,
		`null`:                          bson.TypeString,
		deep:                            bson.TypeString,
		"{\"a\":\"\xff\"}":              bson.TypeBinary,
	} {
		if got, as := through(t, []byte(raw)); got != raw || as != want {
			t.Errorf("%q is stored as %v and comes back as %q", raw, as, got)
		}
	}
}

func FuzzPayloadIsStoredExactly(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":{"b":[1,2.5,"x",null,true]}}`, `{"$a":1}`, `[{}]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return
		}
		if got, _ := through(t, raw); got != string(raw) {
			t.Errorf("%q comes back as %q", raw, got)
		}
	})
}

// What an operator's hand made of a job spoils no more than it touched.
func TestJobChangedByHand(t *testing.T) {
	b, err := bson.Marshal(bson.D{
		is("_id", "job_1"), is("n", 7.0), is("tenant", "A"), is("type", 5), is("lane", "A/internal/normal"), is("state", "ready"), is("runAt", "tomorrow"),
		is("token", int32(3)), is("attempt", 2.0), is("maxAttempts", math.Inf(1)), is("errors", "none"), is("causation", bson.A{1}), is("cancelRequested", int32(1)),
		is("payload", bson.D{is("when", bson.DateTime(1000)), is("id", bson.NewObjectID()), is("n", int32(1)), is("nan", math.NaN()), is("re", bson.Regex{Pattern: "x"})}),
		is("result", "not JSON"), is("leaseUntil", bson.DateTime(5)),
	})
	if err != nil {
		t.Fatal(err)
	}
	d := decodeJob(b)
	if d.ID != "job_1" || d.Tenant != "A" || d.State != store.Ready || d.Token != 3 || d.Attempt != 2 || d.n != 7 || d.Class != store.Normal || !d.cancel || !d.LeaseUntil.Equal(time.UnixMilli(5)) {
		t.Errorf("%+v", d)
	}
	if !json.Valid(d.Payload) || !json.Valid(d.Result) || !strings.Contains(string(d.Payload), `"n":1,`) {
		t.Errorf("%s, %s", d.Payload, d.Result)
	}
	_ = decodeJob(b[:len(b)/2])
}
