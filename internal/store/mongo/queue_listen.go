package mongo

import "github.com/ecodrix/ecod/internal/store"

// Listen implements store.Queue. Its members are called by who changed something, before its own caller is answered.
func (q *Queue) Listen(l store.Listener) { q.listeners.Add(l) }
