package clock

import (
	"testing"
	"time"
)

func TestZone(t *testing.T) {
	for _, name := range []string{"", "Local", "Mars/Olympus", "../etc/passwd"} {
		if z, err := Zone(name); err == nil {
			t.Errorf("%q is %v", name, z)
		}
	}
	for range 2 {
		z, err := Zone("Asia/Kolkata")
		if err != nil {
			t.Fatal(err)
		}
		if _, offset := time.Unix(0, 0).In(z).Zone(); offset != 19800 {
			t.Errorf("offset %d", offset)
		}
	}
}
