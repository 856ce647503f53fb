package api

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/ecodrix/ecod/internal/fault"
)

const (
	corsMethods = "GET, POST, PUT, PATCH, DELETE"
	corsHeaders = "authorization, content-type, idempotency-key, if-match, x-api-key, x-client-code, x-request-id"
	corsExpose  = "etag, idempotency-replayed, location, retry-after, x-request-id"
)

// cors lets pages of allowed origins read answers, and answers preflights: true if it did. A preflight names no
// client, so it asks whether any client allows the origin; corsFor asks again for the one that calls.
func (a *API) cors(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || !strings.HasPrefix(r.URL.Path, "/api/") {
		return false
	}
	w.Header().Add("Vary", "Origin")
	preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
	if a.cfg.OriginAllowed == nil || !a.cfg.OriginAllowed("", origin) {
		if preflight {
			WriteError(w, r, fault.New(fault.Forbidden, "origin.refused", "No client allows this origin."))
		}
		return preflight
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", corsExpose)
	if !preflight {
		return false
	}
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Allow-Headers", corsHeaders)
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// corsFor takes the permission back where the calling client does not allow the origin.
func (a *API) corsFor(w http.ResponseWriter, r *http.Request, c Caller) {
	origin := r.Header.Get("Origin")
	if origin == "" || a.cfg.OriginAllowed == nil || (c.Client != "" && a.cfg.OriginAllowed(c.Client, origin)) {
		return
	}
	w.Header().Del("Access-Control-Allow-Origin")
}

// originOf gives the origin of a URL, "" if it has none.
func originOf(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
