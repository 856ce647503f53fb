package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime/multipart"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
)

func TestIdempotentRepeat(t *testing.T) {
	h := newHouse(t)
	first := h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k1")
	if first.StatusCode != 201 || first.Header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("%d %v", first.StatusCode, first.Header)
	}
	again := h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k1", "X-Request-Id", "again-123")
	if again.StatusCode != 201 || !bytes.Equal(first.body, again.body) || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("%d %s %v", again.StatusCode, again.body, again.Header)
	}
	for _, name := range []string{"Content-Type", "Location", "Content-Length"} {
		if first.Header.Get(name) != again.Header.Get(name) {
			t.Errorf("%s: %q, then %q", name, first.Header.Get(name), again.Header.Get(name))
		}
	}
	h.log.line(t, "again-123", "replayOf="+first.Header.Get("X-Request-Id"))
	h.problem(h.do("POST", "/api/things", `{"name":"y"}`, "Idempotency-Key", "k1"), 409, "idempotency.mismatch")
	h.problem(h.do("POST", "/api/things?dry=1", `{"name":"x"}`, "Idempotency-Key", "k1"), 409, "idempotency.mismatch")
	for what, header := range map[string][]string{
		"another key":    {"Idempotency-Key", "k2"},
		"another client": {"Idempotency-Key", "k1", "X-Client-Code", "BETA"},
		"another caller": {"Idempotency-Key", "k1", "Authorization", "Bearer session-agent", "X-Api-Key", "", "X-Client-Code", ""},
	} {
		if r := h.do("POST", "/api/things", `{"name":"x"}`, header...); r.StatusCode != 201 || r.Header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: %d %v", what, r.StatusCode, r.Header)
		}
	}
	for range 2 {
		a := h.do("POST", "/api/things/a/publish", "", "Idempotency-Key", "k1").json(t)
		b := h.do("POST", "/api/things/b/publish", "", "Idempotency-Key", "k1").json(t)
		if a["once"] == "" || a["once"] == b["once"] {
			t.Errorf("once: %v %v", a, b)
		}
	}
	if n := h.calls.Load(); n != 6 {
		t.Errorf("%d handlers ran, want 6", n)
	}
}

func TestIdempotencyIsForPOSTOnly(t *testing.T) {
	h := newHouse(t)
	for range 2 {
		if r := h.do("PATCH", "/api/things/x", `{}`, "Idempotency-Key", "k"); r.Header.Get("Idempotency-Replayed") != "" {
			t.Error("a PATCH was replayed")
		}
	}
}

func TestBadIdempotencyKeys(t *testing.T) {
	h := newHouse(t)
	for _, key := range []string{" ", "a b", strings.Repeat("k", 256), "ключ", "a\tb"} {
		r := h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", key)
		h.problem(r, 400, "idempotency.bad_key")
	}
	if r := h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", strings.Repeat("~", 255)); r.StatusCode != 201 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if h.calls.Load() != 1 {
		t.Error("a handler ran for a bad key")
	}
}

func TestRefusalsAreKeptAndFailuresAreNot(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct {
		body   string
		status int
		code   string
		kept   bool
	}{
		{`{"name":"taken"}`, 409, "thing.exists", true},
		{`{"name":7}`, 422, "invalid", true},
		{`{"name":"broken"}`, 500, "internal", false},
		{`{"name":"panics"}`, 500, "internal", false},
		{`{"name":"busy"}`, 429, "thing.busy", false},
		{`{`, 400, "json.malformed", false},
	} {
		one := h.do("POST", "/api/things", c.body, "Idempotency-Key", "k-"+c.code)
		h.problem(one, c.status, c.code)
		two := h.do("POST", "/api/things", c.body, "Idempotency-Key", "k-"+c.code)
		h.problem(two, c.status, c.code)
		if got := two.Header.Get("Idempotency-Replayed") == "true"; got != c.kept || (c.kept && !bytes.Equal(one.body, two.body)) {
			t.Errorf("%s: replayed %v: %s %s", c.code, got, one.body, two.body)
		}
	}
}

func TestRunningAtOnce(t *testing.T) {
	h := newHouse(t)
	done := make(chan reply, 1)
	go func() { done <- h.do("POST", "/api/things", `{"name":"slow"}`, "Idempotency-Key", "k") }()
	<-h.entered
	r := h.do("POST", "/api/things", `{"name":"slow"}`, "Idempotency-Key", "k")
	if h.problem(r, 409, "idempotency.in_progress"); r.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
	}
	h.problem(h.do("POST", "/api/things", `{"name":"other"}`, "Idempotency-Key", "k"), 409, "idempotency.mismatch")
	close(h.leave)
	if first := <-done; first.StatusCode != 201 {
		t.Fatalf("%d %s", first.StatusCode, first.body)
	}
	if r := h.do("POST", "/api/things", `{"name":"slow"}`, "Idempotency-Key", "k"); r.StatusCode != 201 || r.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	if h.calls.Load() != 1 {
		t.Errorf("ran %d times", h.calls.Load())
	}
}

func TestManyAtOnceRunOnce(t *testing.T) {
	h := newHouse(t)
	var wg sync.WaitGroup
	var made, refused atomic.Int64
	for range 30 {
		wg.Go(func() {
			switch r := h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k"); r.StatusCode {
			case 201:
				made.Add(1)
			case 409:
				refused.Add(1)
			default:
				t.Errorf("%d %s", r.StatusCode, r.body)
			}
		})
	}
	wg.Wait()
	if h.calls.Load() != 1 || made.Load() < 1 || made.Load()+refused.Load() != 30 {
		t.Fatalf("ran %d times, %d made, %d refused", h.calls.Load(), made.Load(), refused.Load())
	}
}

// A record whose process died is taken over when its lease is over, and not before.
func TestAfterACrash(t *testing.T) {
	h := newHouse(t)
	now := time.Now().UTC()
	rec := &api.IdempotencyKey{
		ID: id.Derived("idk", "client:ACME", "POST", "/api/things", "k"), Scope: "client:ACME", State: "running",
		LeaseUntil: now.Add(time.Minute), CreatedAt: now, ExpiresAt: now.Add(24 * time.Hour),
	}
	if err := h.services.Commit(t.Context(), api.IdempotencyKeys.Insert(rec)); err != nil {
		t.Fatal(err)
	}
	h.problem(h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k"), 409, "idempotency.in_progress")
	h.now.Store(int64(2 * time.Minute))
	r := h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k")
	if r.StatusCode != 201 || r.Header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	if r := h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k"); r.Header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("%d %v", r.StatusCode, r.Header)
	}
}

func TestKeptForADay(t *testing.T) {
	h := newHouse(t)
	send := func() string {
		return h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k").Header.Get("Idempotency-Replayed")
	}
	send()
	h.now.Store(int64(24*time.Hour - time.Minute))
	if send() != "true" {
		t.Error("not kept for a day")
	}
	prune := func() int {
		n, err := api.PruneIdempotencyKeys(t.Context(), h.services, time.Now().Add(time.Duration(h.now.Load())), 10)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := prune(); n != 0 {
		t.Errorf("pruned %d too early", n)
	}
	h.now.Store(int64(24*time.Hour + time.Minute))
	if send() != "" {
		t.Error("kept for more than a day")
	}
	h.now.Store(int64(49 * time.Hour))
	if n := prune(); n != 1 {
		t.Errorf("pruned %d, want 1", n)
	}
}

func TestKeptSecretsAreSealed(t *testing.T) {
	h := newHouse(t)
	send := func() reply {
		return h.do("POST", "/api/clients/X/keys", "", "Authorization", "Bearer "+adminToken, "Idempotency-Key", "k")
	}
	one, two := send(), send()
	if !strings.Contains(string(one.body), "ek_topsecret_1") || !bytes.Equal(one.body, two.body) {
		t.Fatalf("%s %s", one.body, two.body)
	}
	recs, err := h.services.Find(t.Context(), store.Query{Kind: "idempotencyKeys"})
	if err != nil || len(recs) != 1 {
		t.Fatal(recs, err)
	}
	if doc := string(recs[0].Doc); strings.Contains(doc, "topsecret") || !strings.Contains(doc, "sealed:v1:k1:") {
		t.Fatalf("%s", doc)
	}
}

func TestStreamedBodies(t *testing.T) {
	h := newHouse(t)
	form := func(content string) (string, string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b) // a new boundary each time
		f, _ := w.CreateFormFile("file", "a.png")
		_, _ = f.Write([]byte(content))
		_ = w.WriteField("after", "read by nobody")
		_ = w.Close()
		return b.String(), w.FormDataContentType()
	}
	large := strings.Repeat("0123456789", 100_000)
	send := func(content, key string) reply {
		body, ct := form(content)
		return h.do("POST", "/api/uploads", body, "Content-Type", ct, "Idempotency-Key", key)
	}
	one := send(large, "k")
	if one.StatusCode != 201 {
		t.Fatalf("%d %s", one.StatusCode, one.body)
	}
	two := send(large, "k")
	if !bytes.Equal(one.body, two.body) || two.Header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("%d %s, %d %s", one.StatusCode, one.body, two.StatusCode, two.body)
	}
	h.problem(send(large+"x", "k"), 409, "idempotency.mismatch")

	plain := func(body string) reply {
		return h.do("POST", "/api/uploads", body, "Content-Type", "text/csv", "Idempotency-Key", "csv")
	}
	if one, two := plain("a,b"), plain("a,b"); one.StatusCode != 201 || !bytes.Equal(one.body, two.body) {
		t.Fatalf("%s %s", one.body, two.body)
	}
	h.problem(plain("a,c"), 409, "idempotency.mismatch")
	broken := func() reply {
		return h.do("POST", "/api/uploads", "x", "Content-Type", "multipart/form-data; boundary=b", "Idempotency-Key", "broken")
	}
	h.problem(broken(), 400, "multipart.malformed")
	if r := broken(); r.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	h.problem(h.do("POST", "/api/uploads", strings.Repeat("x", 3<<20+1), "Content-Type", "text/csv", "Idempotency-Key", "large"), 413, "body.too_large")
}

// failing is a store that can be taken away.
type failing struct {
	store.DB
	commits atomic.Int64 // commits to go before failing; negative: none fails
	down    atomic.Bool
}

func (f *failing) Commit(ctx context.Context, w ...store.Write) error {
	if f.down.Load() && f.commits.Add(-1) < 0 {
		return fmt.Errorf("disk: %w", store.ErrUnavailable)
	}
	return f.DB.Commit(ctx, w...)
}

func TestStoreAway(t *testing.T) {
	var db *failing
	h := newHouse(t, func(c *api.Config) { db = &failing{DB: c.Services}; c.Services = db })
	db.down.Store(true)
	h.problem(h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k"), 503, "store.unavailable")
	if h.calls.Load() != 0 {
		t.Error("a handler ran though its key could not be noted")
	}
	db.commits.Store(1) // the record can be made, the answer cannot be kept
	if r := h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k"); r.StatusCode != 201 {
		t.Errorf("what was done is not told: %d %s", r.StatusCode, r.body)
	}
	h.log.line(t, "could not be kept", "level=ERROR")
	db.down.Store(false)
	h.problem(h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k"), 409, "idempotency.in_progress")
	if h.calls.Load() != 1 {
		t.Errorf("ran %d times", h.calls.Load())
	}
}

func TestPruneStopsAtErrors(t *testing.T) {
	h := newHouse(t)
	db := &failing{DB: h.services}
	h.do("POST", "/api/things", `{"name":"x"}`, "Idempotency-Key", "k")
	db.down.Store(true)
	if _, err := api.PruneIdempotencyKeys(t.Context(), db, time.Now().Add(48*time.Hour), 10); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
}
