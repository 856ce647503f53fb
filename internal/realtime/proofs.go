package realtime

import (
	"context"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/socketio"
)

// watch sends sockets away whose session ended or whose key was replaced since they were let in.
func (h *Hub) watch() {
	tick := time.NewTicker(proofLook)
	defer tick.Stop()
	for {
		select {
		case <-h.stop.Done():
			return
		case <-tick.C:
		}
		for code, proofs := range h.proofs() {
			h.check(code, proofs)
		}
	}
}

// proofs gives what the sockets of each client stand on.
func (h *Hub) proofs() map[string][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[string][]string, len(h.tellers))
	for code, t := range h.tellers {
		seen := map[string]bool{}
		for _, proof := range t.sockets {
			if !seen[proof] {
				seen[proof] = true
				out[code] = append(out[code], proof)
			}
		}
	}
	return out
}

func (h *Hub) check(code string, proofs []string) {
	ctx, cancel := context.WithTimeout(h.stop, proofLook)
	defer cancel()
	ended, err := h.cfg.Porter.Ended(ctx, code, proofs)
	if err != nil && h.stop.Err() == nil {
		h.cfg.Log.Warn("it cannot be looked up whether a client's sockets may stay", "client", code, "error", err)
	}
	if len(ended) == 0 {
		return
	}
	var gone []*socketio.Socket
	h.mu.Lock()
	if t := h.tellers[code]; t != nil {
		for s, proof := range t.sockets {
			if slices.Contains(ended, proof) {
				gone = append(gone, s)
			}
		}
	}
	h.mu.Unlock()
	for _, s := range gone {
		s.Disconnect(true)
	}
}
