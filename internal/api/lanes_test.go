package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Jobs are counted by state, type and lane from counters, each client its own, the operator all.
func TestJobCounts(t *testing.T) {
	w := newTown(t)
	w.enqueue("ALFA", "test.a", 3)
	w.enqueue("ALFA", "test.b", 1)
	w.enqueue("BETA", "test.a", 1)
	w.enqueue("", "test.a", 1)
	if _, err := w.queue.Enqueue(t.Context(), store.NewJob{Tenant: "ALFA", Type: "test.b", Resource: "mail", Class: store.Bulk, RunAt: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	w.kill("test.a", 5)
	got := w.ok(w.asA("GET", "/api/jobs/counts", ""), 200)
	want := `{"lanes":[{"class":"normal","client":"ALFA","lane":"ALFA/internal/normal","parked":0,"pause":null,"ready":1,"resource":"internal","running":0,"scheduled":0,"why":"busy"},` +
		`{"class":"bulk","client":"ALFA","lane":"ALFA/mail/bulk","oldestReadyAt":null,"parked":0,"pause":null,"ready":0,"resource":"mail","running":0,"scheduled":1,"why":"empty"}],` +
		`"states":{"cancelled":0,"dead":3,"expired":0,"parked":0,"ready":1,"running":0,"scheduled":1,"succeeded":0},` +
		`"types":[{"cancelled":0,"dead":3,"expired":0,"parked":0,"ready":0,"running":0,"scheduled":0,"succeeded":0,"type":"test.a"},` +
		`{"cancelled":0,"dead":0,"expired":0,"parked":0,"ready":1,"running":0,"scheduled":1,"succeeded":0,"type":"test.b"}]}`
	first := got["lanes"].([]any)[0].(map[string]any)
	if since, err := time.Parse(time.RFC3339, str(first, "oldestReadyAt")); err != nil || time.Since(since) > time.Minute {
		t.Errorf("waits since %v", first["oldestReadyAt"])
	}
	delete(first, "oldestReadyAt")
	if text(got) != want {
		t.Errorf("%s\nwant\n%s", text(got), want)
	}
	for query, want := range map[string]string{"": "7 2", "?client=beta": "1 1", "?client=NONE": "0 0"} {
		got := w.ok(w.admin("GET", "/api/admin/jobs/counts"+query, ""), 200)
		sum := 0.0
		for _, n := range got["states"].(map[string]any) {
			sum += n.(float64)
		}
		if is := fmt.Sprint(sum, len(got["types"].([]any))); is != want {
			t.Errorf("%s: %s, want %s", query, is, want)
		}
	}
	w.problem(w.admin("GET", "/api/admin/jobs/counts?client=%20", ""), 404, "client.not_found")
	w.problem(w.asA("GET", "/api/admin/jobs/counts", ""), 401, "auth.missing")
}

// The operator lets lanes rest and go on; bad scopes are refused, and those of clients that are not there.
func TestPausesOfLanes(t *testing.T) {
	w := newTown(t)
	w.enqueue("ALFA", "test.a", 2)
	pause := func(body string) map[string]any { return w.ok(w.admin("POST", "/api/admin/lanes/pause", body), 200) }
	why := func() string {
		l := items(w.ok(w.admin("GET", "/api/admin/lanes", ""), 200))[0]
		return fmt.Sprintf("%v %v", l["why"], l["pause"])
	}
	if got := pause(`{"scope":"alfa/internal","detail":"moving"}`); got["scope"] != "ALFA/internal" || got["reason"] != "operator" || got["until"] != nil || got["detail"] != "moving" || str(got, "since") == "" {
		t.Fatal(text(got))
	}
	if got := why(); got != "paused map[reason:operator until:<nil>]" {
		t.Error(got)
	}
	if got := pause(`{"scope":"ALFA","reason":"rate_limited","for":"90m"}`); str(got, "until") == "" {
		t.Error(text(got))
	}
	if l := items(w.ok(w.admin("GET", "/api/admin/lanes/pauses?client=ALFA", ""), 200)); len(l) != 2 {
		t.Errorf("%v", l)
	}
	w.ok(w.admin("GET", "/api/admin/lanes/pauses?client=NOBODY", ""), 404)
	resume := func(body string, want bool) {
		t.Helper()
		if got := w.ok(w.admin("POST", "/api/admin/lanes/resume", body), 200); got["resumed"] != want {
			t.Errorf("%s: %s", body, text(got))
		}
	}
	resume(`{"scope":"ALFA/internal","reason":"quality"}`, false)
	resume(`{"scope":"ALFA/mail"}`, false)
	resume(`{"scope":"ALFA/internal"}`, true)
	resume(`{"scope":"ALFA","reason":"rate_limited"}`, true)
	if l := items(w.ok(w.admin("GET", "/api/admin/lanes/pauses?client=ALFA", ""), 200)); len(l) != 0 {
		t.Errorf("%v", l)
	}
	if got := why(); got != "busy <nil>" {
		t.Error(got)
	}
	pause(`{"scope":"/internal/maintenance","for":"1s"}`) // the system's own
	for body, at := range map[string]string{
		`{}`: "/scope", `{"scope":""}`: "/scope", `{"scope":"/"}`: "/scope", `{"scope":"ALFA/"}`: "/scope", `{"scope":"ALFA/mail/urgent"}`: "/scope",
		`{"scope":"ALFA/a/normal/x"}`: "/scope", `{"scope":"ALFA/a b"}`: "/scope", `{"scope":"ALFA/\u0000"}`: "/scope", `{"scope":"ALFA","for":"soon"}`: "/for",
		`{"scope":"ALFA","for":"-1h"}`: "/for", `{"scope":"ALFA","for":"9999999h"}`: "/for", `{"scope":"ALFA","reason":"mood"}`: "/reason",
		`{"scope":"ALFA","detail":" "}`: "/detail", `{"scope":"ALFA","until":"x"}`: "/until",
	} {
		w.problem(w.admin("POST", "/api/admin/lanes/pause", body), 422, "invalid", at)
	}
	for _, scope := range []string{"NONE", "NONE/mail", "x/mail"} {
		w.problem(w.admin("POST", "/api/admin/lanes/pause", `{"scope":"`+scope+`"}`), 404, "client.not_found")
	}
	w.problem(w.asA("POST", "/api/admin/lanes/pause", `{"scope":"ALFA"}`), 401, "auth.missing")
}
