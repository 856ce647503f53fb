package app

import (
	"fmt"
	"testing"
)

// Labels do not grow: neither with the clients, of whom the busiest are told, nor with what goes wrong.
func TestLabelsAreFew(t *testing.T) {
	b := busiest{shown: 3, kept: 10}
	for i := range 5000 {
		b.add(fmt.Sprint("idle", i))
		if i%10 == 0 {
			b.add("A")
		}
		if i%20 == 0 {
			b.add("B")
		}
	}
	b.add("")
	most := b.most()
	if len(most) != 3 || most[0] != (clientCount{"A", 500}) || most[1] != (clientCount{"B", 250}) || len(b.n) > 10 {
		t.Errorf("%v of %d", most, len(b.n))
	}
	c := bounded{most: 2}
	if got := fmt.Sprint(c.of("x"), c.of(""), c.of("y"), c.of("x"), c.of("")); got != "xotherx" {
		t.Errorf("%q", got)
	}
}
