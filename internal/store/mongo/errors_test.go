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

// A write that the server took back is tried again, and given up after a few times; nothing else is tried twice.
func TestTakenBack(t *testing.T) {
	for code, want := range map[int]int{16908292: 4, 16777220: 4, 112: 1} {
		tries := 0
		err := again(t.Context(), func() error {
			tries++
			return fail(context.Background(), driver.WriteException{WriteErrors: driver.WriteErrors{{Code: code}}})
		})
		if tries != want || !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%d: %d tries, %v", code, tries, err)
		}
	}
	tries := 0
	err := again(t.Context(), func() error {
		if tries++; tries < 3 {
			return fail(context.Background(), driver.CommandError{Code: 16908292})
		}
		return nil
	})
	if tries != 3 || err != nil {
		t.Errorf("%d tries, %v", tries, err)
	}
}
