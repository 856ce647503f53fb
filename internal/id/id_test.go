package id

import (
	"slices"
	"testing"
	"time"
)

func TestDerived(t *testing.T) {
	if Derived("con", "ab", "c") == Derived("con", "a", "bc") || Derived("con", "a") == Derived("lea", "a") {
		t.Error("other parts, the same id")
	}
	first := Derived("con", "a", "b")
	if again := Derived("con", "a", "b"); first != again {
		t.Errorf("the same parts give %s and %s", first, again)
	}
}

func TestDerivedAt(t *testing.T) {
	now := time.Now()
	before, after := New("job"), DerivedAt("job", now.Add(time.Hour), "x")
	ids := []string{DerivedAt("job", now.Add(-time.Hour), "z"), DerivedAt("job", now.Add(-time.Minute), "a"), before, after}
	if !slices.IsSorted(ids) {
		t.Errorf("ids do not sort by their times: %v", ids)
	}
	if after != DerivedAt("job", now.Add(time.Hour), "x") || after == DerivedAt("job", now.Add(time.Hour), "y") || len(after) != len(before) {
		t.Errorf("%s", after)
	}
}
