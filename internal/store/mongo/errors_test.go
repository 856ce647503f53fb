package mongo

import (
	"context"
	"errors"
	"strings"
	"testing"

	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/store"
)

// A code of PostgreSQL's behind a MongoDB-compatible server is told in words, and nothing of what the server wrote beside it.
func TestCodesAreTold(t *testing.T) {
	for code, want := range map[int]string{
		16908292: "deadlock",
		16777220: "in each other's way",
		50463045: "a lock was not had in time",
		67391682: "code 67391682 (PostgreSQL's 23514)",
		112:      "code 112",
		7157800:  "code 7157800",
	} {
		err := fail(context.Background(), driver.WriteException{WriteErrors: driver.WriteErrors{{Code: code, Message: "of hunter2"}}})
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%d is told as %v", code, err)
		}
		if strings.Contains(err.Error(), "PostgreSQL") != (code >= 1<<24) {
			t.Errorf("%d is told as %v", code, err)
		}
	}
}
