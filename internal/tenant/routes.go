package tenant

import (
	"slices"
)

// RatePerSecond is how many calls of its API a client may make, as its settings say; 0: they say nothing.
func (r *Registry) RatePerSecond(code string) float64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.clients[code]; e != nil {
		return e.rate
	}
	return 0
}

// ByPhone gives the client that a phone number id belongs to.
func (r *Registry) ByPhone(phoneNumberID string) (string, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	c, ok := r.byPhone[phoneNumberID]
	return c, ok
}

// ByWABA gives the clients that hold a WhatsApp business account.
func (r *Registry) ByWABA(waba string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.byWABA[waba])
}

// Status gives a client's status; "" if it is not registered.
func (r *Registry) Status(code string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.clients[code]; e != nil {
		return e.status
	}
	return ""
}

// Version is a number that changes whenever a client's account does; 0 if it is not registered.
func (r *Registry) Version(code string) int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.clients[code]; e != nil {
		return e.version
	}
	return 0
}

// Codes lists the clients of a status, in no order.
func (r *Registry) Codes(status string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var codes []string
	for code, e := range r.clients {
		if e.status == status {
			codes = append(codes, code)
		}
	}
	return codes
}

// AllowsOrigin tells whether a client's dashboards may call from this origin.
func (r *Registry) AllowsOrigin(code, origin string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.clients[code]
	return e != nil && slices.Contains(e.origins, origin)
}

// AnyAllowsOrigin tells whether some client's dashboards may call from this origin.
func (r *Registry) AnyAllowsOrigin(origin string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.origins[origin] > 0
}
