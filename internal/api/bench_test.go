package api_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/api"
)

// BenchmarkPost is the shell's own cost of a small POST: no network, a handler that does nothing.
func BenchmarkPost(b *testing.B) {
	h := newBench(b)
	body := `{"name":"x","actions":[{"type":"wait","points":3}],"labels":{"a":"b"}}`
	b.ReportAllocs()
	for b.Loop() {
		req := httptest.NewRequest("POST", "/api/things", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Api-Key", goodKey)
		req.Header.Set("X-Client-Code", "ACME")
		w := httptest.NewRecorder()
		if h.api.ServeHTTP(w, req); w.Code != 201 {
			b.Fatal(w.Code, w.Body)
		}
	}
}

func newBench(testing.TB) *house {
	h := &house{log: &journal{}}
	h.api = api.New(api.Config{
		Log:       slog.New(slog.DiscardHandler),
		VerifyKey: verifyKey, Open: h.openTenant,
	})
	h.sample()
	return h
}
