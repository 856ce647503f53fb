package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/store"
)

func placeOf(i int) store.Cursor { return store.Cursor{Value: int64(i), ID: "thg_9"} }

func viewOf(i int) int { return i }

func TestTime(t *testing.T) {
	zone := time.FixedZone("", -5*3600)
	for _, c := range []struct {
		in   time.Time
		want string
	}{
		{time.Time{}, `null`},
		{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), `"2026-01-02T03:04:05.000Z"`},
		{time.Date(2026, 1, 2, 23, 4, 5, 999_999_999, zone), `"2026-01-03T04:04:05.999Z"`},
	} {
		b, err := json.Marshal(api.Time{Time: c.in})
		if err != nil || string(b) != c.want {
			t.Errorf("%v: %s %v", c.in, b, err)
		}
		var back api.Time
		if err := json.Unmarshal(b, &back); err != nil || !back.Equal(c.in.Truncate(time.Millisecond)) {
			t.Errorf("%s: %v %v", b, back, err)
		}
	}
	var v api.Time
	for _, bad := range []string{`""`, `"2026-01-02"`, `"2026-01-02T03:04:05"`, `1`, `"0000-12-31T23:59:59Z"`, `{}`} {
		if err := json.Unmarshal([]byte(bad), &v); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
	if api.At(time.Time{}) != nil || !(*api.Time)(nil).Or().IsZero() || !api.At(madeAt).Or().Equal(madeAt) {
		t.Error("At and Or")
	}
}

func TestCursorsKeepTheirValues(t *testing.T) {
	for _, v := range []any{nil, "näme \x00", "", int64(-1), int64(1<<62 + 1)} {
		l := api.ListOf([]int{1, 2, 3}, api.Page{Limit: 2}, "l:o", func(int) store.Cursor { return store.Cursor{Value: v, ID: "x"} }, viewOf)
		if len(l.Body.Items) != 2 || l.Body.NextCursor == nil {
			t.Fatalf("%+v", l.Body)
		}
		at, err := api.Page{Cursor: *l.Body.NextCursor}.After("l:o")
		if err != nil || at.Value != v || at.ID != "x" {
			t.Errorf("%v became %+v, %v", v, at, err)
		}
	}
	if at, err := (api.Page{}).After("l:o"); at != nil || err != nil {
		t.Errorf("%v %v", at, err)
	}
}
