package crm

import (
	"hash/fnv"
	"sync"
)

// locks let the changes of one lead wait for each other instead of conflicting; across processes the versions do.
type locks [256]sync.Mutex

func (l *locks) lock(parts ...string) (unlock func()) {
	h := fnv.New32a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
	}
	m := &l[h.Sum32()%uint32(len(l))]
	m.Lock()
	return m.Unlock
}
