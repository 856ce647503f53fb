package sqlite

import (
	"errors"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
)

// A query that SQLite will never run is not taken for a database that is away, and harms no other.
func TestImpossibleQueriesAreNoOutage(t *testing.T) {
	db := openFresh(t, crashing)
	q := store.Query{Kind: "things"}
	for range 2000 {
		q.Where = append(q.Where, store.Where("tags", store.Eq, strings.Repeat("x", 8)))
	}
	_, err := db.Find(t.Context(), q)
	if _, countErr := db.Count(t.Context(), q); !errors.Is(countErr, store.ErrQuery) {
		t.Errorf("count: %v", countErr)
	}
	if !errors.Is(err, store.ErrQuery) || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("find: %v", err)
	}
	q.Where = q.Where[:1]
	if _, err := db.Find(t.Context(), q); err != nil {
		t.Error(err)
	}
}
