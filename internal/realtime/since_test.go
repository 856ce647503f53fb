package realtime_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
)

// prune deletes a client's items up to a number.
func (h *hall) prune(code string, upTo int64) {
	items, err := news.Items.Find(h.ctx, h.db(code).DB, store.Query{Order: "seq", Limit: int(upTo)})
	if err != nil {
		h.Error(err)
		return
	}
	var writes []store.Write
	for _, i := range items {
		if i.Seq <= upTo {
			writes = append(writes, news.Items.Remove(i))
		}
	}
	if err := h.db(code).Commit(h.ctx, writes...); err != nil {
		h.Error(err)
	}
}

func numbers(m missed) (seqs []int64) {
	for _, i := range m.Items {
		seqs = append(seqs, i.Data.Seq)
	}
	return seqs
}

func row(from, to int64) (seqs []int64) {
	for i := from; i <= to; i++ {
		seqs = append(seqs, i)
	}
	return seqs
}

func TestSince(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	e := h.dial("ACME")
	if m := e.since(0); len(m.Items) != 0 || *m.Seq != 0 || m.More || m.Reset || m.Error != "" {
		t.Errorf("with no news: %+v", m)
	}
	h.write("ACME", 1200, "")
	h.tell("BETA", 3)

	var got []int64
	seq := int64(0)
	for _, want := range []struct {
		n    int
		more bool
	}{{500, true}, {500, true}, {200, false}} {
		m := e.since(seq)
		if len(m.Items) != want.n || m.More != want.more || m.Reset {
			t.Errorf("after %d: %d items, more %v, reset %v", seq, len(m.Items), m.More, m.Reset)
		}
		got, seq = append(got, numbers(m)...), *m.Seq
	}
	if !slices.Equal(got, row(1, 1200)) || seq != 1200 {
		t.Errorf("%d items up to %d", len(got), seq)
	}
	if m := e.since(1200); len(m.Items) != 0 || *m.Seq != 1200 || m.More || m.Reset {
		t.Errorf("with nothing missed: %+v", m)
	}
	if m := e.since(1195); !slices.Equal(numbers(m), row(1196, 1200)) {
		t.Errorf("after 1195: %v", numbers(m))
	}

	// A number that was never given: the database is another one than the client knew.
	if m := e.since(1201); !m.Reset || *m.Seq != 1200 || len(m.Items) != 0 {
		t.Errorf("a number of the future: %+v", m)
	}

	h.prune("ACME", 700)
	if m := e.since(699); !m.Reset || *m.Seq != 1200 || len(m.Items) != 0 || m.More {
		t.Errorf("what it missed is pruned: reset %v, seq %d, %d items", m.Reset, *m.Seq, len(m.Items))
	}
	if m := e.since(700); m.Reset || !slices.Equal(numbers(m), row(701, 1200)) {
		t.Errorf("nothing it missed is pruned: reset %v, %d items", m.Reset, len(m.Items))
	}
	if m := e.since(0); !m.Reset {
		t.Errorf("from the beginning, which is pruned: %+v", m)
	}
}

func TestSinceBadArgument(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	e := h.dial("ACME")
	h.tell("ACME", 2)
	e.hears(1, 2)
	for _, args := range [][]any{{}, {nil}, {"1"}, {-1}, {1.5}, {1e300}, {true}, {[]int{1}}, {map[string]int{"seq": 1}}} {
		if m := e.since(args...); m.Error == "" || len(m.Items) != 0 || m.More || m.Reset {
			t.Errorf("%v: %+v", args, m)
		}
	}
	must(t, e.Emit("since", 0)) // who wants no answer gets none
	must(t, e.Emit("since"))
	must(t, e.Emit("unheard of", 1))
	if m := e.since(1, "more", "arguments"); !slices.Equal(numbers(m), row(2, 2)) {
		t.Errorf("%+v", m)
	}
}

// What was missed is told as it was told live.
func TestSinceSaysTheSame(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	e := h.dial("ACME")
	h.tell("ACME", 3)
	for i := range 3 {
		live := e.hear()
		m := e.since(live.Seq - 1)
		if m.Items[0].Data != live || len(m.Items) != 3-i {
			t.Errorf("live %+v, later %+v", live, m.Items)
		}
	}
}

// Large items are answered in parts that a connection can carry.
func TestSinceLarge(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	for range 6 {
		h.write("ACME", 1, strings.Repeat("x", 300<<10))
	}
	h.write("ACME", 20, "")
	e := h.dial("ACME")
	var got []int64
	parts := 0
	for seq, more := int64(0), true; more; parts++ {
		m := e.since(seq)
		got, seq, more = append(got, numbers(m)...), *m.Seq, m.More
	}
	if !slices.Equal(got, row(1, 26)) || parts != 2 {
		t.Errorf("%d items in %d parts", len(got), parts)
	}
}

// Items deleted while the answer is being put together are never left out without a word.
func TestSinceWhilePruning(t *testing.T) {
	t.Parallel()
	for at := range 4 { // before which of the answer's reads
		h := newHall(t)
		e := h.dial("ACME")
		h.tell("ACME", 10)
		e.hears(1, 10)
		var reads atomic.Int64
		hook := func(q store.Query, _ []store.Record) {
			if q.Limit == 200 { // the room's own look
				return
			}
			if reads.Add(1) == int64(at) {
				h.prune("ACME", 5)
			}
		}
		if at == 0 {
			h.prune("ACME", 5)
		}
		h.db("ACME").after.Store(&hook)
		m := e.since(2)
		if !m.Reset && !slices.Equal(numbers(m), row(3, 10)) {
			t.Errorf("pruned after read %d: answered %v without reset", at, numbers(m))
		}
		h.db("ACME").after.Store(nil)
	}
}
