package app

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store/sqlite"
)

// A node with wrong keys is refused, and who has the right ones starts as before.
func TestWrongKeysHarmNobodyElse(t *testing.T) {
	t.Parallel()
	services, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), servicesFile), servicesSchemas)
	if err != nil {
		t.Fatal(err)
	}
	defer services.Close()
	ring := func(line string) *secret.Ring {
		r, err := secret.ParseRing(line)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	right := secret.Generate("right")
	if err := sameKeys(t.Context(), services, ring(right)); err != nil {
		t.Fatal(err)
	}
	if err := sameKeys(t.Context(), services, ring(secret.Generate("wrong"))); err == nil || !strings.Contains(err.Error(), "the key right is missing") {
		t.Errorf("without the key that others seal with: %v", err)
	}
	if err := sameKeys(t.Context(), services, ring(secret.Generate("right"))); err == nil || !strings.Contains(err.Error(), "the key right is not the one of that name") {
		t.Errorf("with another key of that name: %v", err)
	}
	next := secret.Generate("next")
	if err := keysFit(t.Context(), services, ring(next+","+right)); err != nil { // as the doctor asks
		t.Error(err)
	}
	if err := sameKeys(t.Context(), services, ring(right)); err != nil {
		t.Errorf("with the right key: %v", err)
	}
	if err := sameKeys(t.Context(), services, ring(next+","+right)); err != nil {
		t.Error(err)
	}
	if err := sameKeys(t.Context(), services, ring(right)); err == nil || !strings.Contains(err.Error(), "the key next is missing") {
		t.Errorf("without the key that a node seals with by now: %v", err)
	}
}
