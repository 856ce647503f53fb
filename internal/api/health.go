package api

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
)

// Check is one thing that must work before this node takes traffic. Its error is logged; callers see only the name.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// checkTimeout bounds each check of /readyz.
const checkTimeout = 2 * time.Second

// standing registers the routes that every node has.
func (a *API) standing() {
	a.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) error {
		return writeJSON(w, map[string]string{"status": "ok"})
	})
	a.HandleFunc("GET /readyz", a.readyz)
	a.HandleFunc("GET /metrics", a.serveMetrics)
	a.docs()
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return marshalJSON(w, v)
}

func (a *API) readyz(w http.ResponseWriter, r *http.Request) error {
	failing := a.failing(r.Context())
	if len(failing) == 0 {
		status := struct {
			Status   string   `json:"status"`
			Degraded []string `json:"degraded,omitempty"`
		}{Status: "ready"}
		for _, c := range a.cfg.Degraded { // whoever is degraded says so in the log itself
			if c.Run(r.Context()) != nil {
				status.Degraded = append(status.Degraded, c.Name)
			}
		}
		return writeJSON(w, status)
	}
	f := fault.New(fault.Unavailable, "not_ready", "This node takes no traffic now.")
	f.Extra = map[string]any{"failing": failing}
	return f
}

// failing runs the checks side by side and gives the names of those that failed.
func (a *API) failing(ctx context.Context) []string {
	if a.draining.Load() {
		return []string{"draining"}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	errs := make([]error, len(a.cfg.Ready))
	var wg sync.WaitGroup
	for i, c := range a.cfg.Ready {
		wg.Go(func() { errs[i] = c.Run(ctx) })
	}
	wg.Wait()
	var names []string
	for i, err := range errs {
		if err != nil {
			names = append(names, a.cfg.Ready[i].Name)
			a.cfg.Log.Warn("not ready", "check", a.cfg.Ready[i].Name, "error", err)
		}
	}
	slices.Sort(names)
	return names
}

// serveMetrics is open to the machine itself; others, and whoever comes through a proxy, need the admin token.
func (a *API) serveMetrics(w http.ResponseWriter, r *http.Request) error {
	if !direct(r) {
		if _, err := a.admin(r); err != nil {
			return err
		}
	}
	a.metrics.handler.ServeHTTP(w, r)
	return nil
}

// direct tells whether a request comes from this machine without a proxy.
func direct(r *http.Request) bool {
	for _, h := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "Via"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
