package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// enqueue makes jobs of a type that nobody works on.
func (w *town) enqueue(client, typ string, n int) []string {
	w.t.Helper()
	ids := make([]string, n)
	for i := range ids {
		made, err := w.queue.Enqueue(w.t.Context(), store.NewJob{Tenant: client, Type: typ, Payload: json.RawMessage(`{"secret":"hunter2"}`)})
		if err != nil {
			w.t.Fatal(err)
		}
		ids[i] = made[0].Job.ID
	}
	return ids
}

// kill ends jobs as dead.
func (w *town) kill(typ string, n int) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	js, err := w.queue.Claim(ctx, store.ClaimRequest{Owner: "test", Limit: n, Lease: 1e10, Types: []string{typ}})
	if err != nil || len(js) != n {
		w.t.Fatal(err, len(js))
	}
	for _, j := range js {
		if _, err := w.queue.Finish(ctx, store.Outcome{ID: j.ID, Token: j.Token, State: store.Dead, CountFailed: true,
			Error: &store.JobError{At: j.CreatedAt, Attempt: 1, Code: "broken", Message: "It broke."}}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestJobs(t *testing.T) {
	w := newTown(t)
	ids := w.enqueue("ALFA", "test.a", 3)
	other := w.enqueue("ALFA", "test.b", 1)[0]
	foreign := w.enqueue("BETA", "test.a", 1)[0]
	system := w.enqueue("", "test.a", 1)[0]

	got := w.ok(w.asA("GET", "/api/jobs/"+ids[0], ""), 200)
	created := got["createdAt"]
	delete(got, "createdAt")
	delete(got, "runAt")
	if want := `{"attempt":0,"causation":{},"endedAt":null,"error":null,"expiresAt":null,"id":"` + ids[0] + `","maxAttempts":8,"result":null,"startedAt":null,"state":"ready","type":"test.a"}`; text(got) != want || created == "" {
		t.Fatalf("%s\n%s", text(got), want)
	}
	var listed []string
	for cursor := ""; ; {
		m := w.ok(w.asA("GET", "/api/jobs?limit=3&cursor="+cursor, ""), 200)
		for _, j := range items(m) {
			listed = append(listed, str(j, "id"))
		}
		if cursor = str(m, "nextCursor"); cursor == "" {
			break
		}
	}
	if fmt.Sprint(listed) != fmt.Sprint([]string{other, ids[2], ids[1], ids[0]}) {
		t.Fatal(listed)
	}
	for query, want := range map[string]int{"?type=test.a": 3, "?type=test.a&type=test.b": 4, "?state=ready": 4, "?state=ready&state=dead&type=test.b": 1, "?state=dead": 0, "?state=&type=": 4, "?type=none": 0} {
		if l := items(w.ok(w.asA("GET", "/api/jobs"+query, ""), 200)); len(l) != want {
			t.Errorf("%s: %d, want %d", query, len(l), want)
		}
	}
	w.problem(w.asA("GET", "/api/jobs?state=x", ""), 422, "invalid", "query.state")
	for _, id := range []string{foreign, system, "job_none"} {
		w.problem(w.asA("GET", "/api/jobs/"+id, ""), 404, "job.not_found")
		w.problem(w.asA("POST", "/api/jobs/"+id+"/cancel", ""), 404, "job.not_found")
		w.problem(w.asA("POST", "/api/jobs/"+id+"/retry", ""), 404, "job.not_found")
	}

	p := w.problem(w.asA("POST", "/api/jobs/"+ids[0]+"/retry", ""), 409, "job.not_retryable")
	if p["state"] != "ready" {
		t.Fatal(text(p))
	}
	if got := w.ok(w.asA("POST", "/api/jobs/"+ids[0]+"/cancel", ""), 200); got["state"] != "cancelled" || got["endedAt"] == nil {
		t.Fatal(text(got))
	}
	w.problem(w.asA("POST", "/api/jobs/"+ids[0]+"/cancel", ""), 409, "job.ended")
	if got := w.ok(w.asA("POST", "/api/jobs/"+ids[0]+"/retry", ""), 200); got["state"] != "ready" || got["endedAt"] != nil {
		t.Fatal(text(got))
	}

	w.kill("test.a", 5)
	if got := w.ok(w.asA("GET", "/api/jobs/"+ids[1], ""), 200); got["state"] != "dead" || str(got, "error", "code") != "broken" || str(got, "error", "message") != "It broke." || str(got, "error", "at") == "" || got["attempt"] != 1.0 {
		t.Fatal(text(got))
	}
	for body, at := range map[string]string{`{"state":"running"}`: "/state", `{"type":7}`: "/type", `{"client":"BETA"}`: "/client"} {
		w.problem(w.asA("POST", "/api/jobs/retry", body), 422, "invalid", at)
	}
	w.problem(w.asA("POST", "/api/jobs/retry", ""), 400, "json.missing")
	for _, c := range []struct {
		body string
		want float64
	}{{`{"dryRun":true}`, 3}, {`{"state":"parked"}`, 0}, {`{"type":"test.b"}`, 0}, {`{"state":"dead","type":"test.a"}`, 3}, {`{}`, 0}} {
		if got := w.ok(w.asA("POST", "/api/jobs/retry", c.body), 200); got["count"] != c.want || got["more"] != false {
			t.Errorf("%s: %s", c.body, text(got))
		}
	}
	if got := w.ok(w.asB("GET", "/api/jobs/"+foreign, ""), 200); got["state"] != "dead" {
		t.Fatal("another client's job was tried again: " + text(got))
	}

	// the operator sees and moves all
	for query, want := range map[string]int{"": 6, "?client=beta": 1, "?client=ALFA&type=test.b": 1, "?state=dead": 2, "?client=NONE": 0} {
		if l := items(w.ok(w.admin("GET", "/api/admin/jobs"+query, ""), 200)); len(l) != want {
			t.Errorf("%s: %d, want %d", query, len(l), want)
		}
	}
	if got := w.ok(w.admin("GET", "/api/admin/jobs/"+foreign, ""), 200); got["client"] != "BETA" || len(got["errors"].([]any)) != 1 || got["starts"] != 1.0 {
		t.Fatal(text(got))
	}
	if got := w.ok(w.admin("POST", "/api/admin/jobs/retry", `{"client":"BETA","dryRun":true}`), 200); got["count"] != 1.0 {
		t.Fatal(text(got))
	}
	if got := w.ok(w.admin("POST", "/api/admin/jobs/retry", `{}`), 200); got["count"] != 2.0 {
		t.Fatal(text(got))
	}
	if got := w.ok(w.admin("POST", "/api/admin/jobs/"+system+"/cancel", ""), 200); got["state"] != "cancelled" {
		t.Fatal(text(got))
	}
	w.problem(w.admin("GET", "/api/admin/jobs/none", ""), 404, "job.not_found")
}

func TestManyJobsAreTriedAgainInPages(t *testing.T) {
	w := newTown(t)
	const n = 1201 // more than two pages of a call by filter
	news := make([]store.NewJob, n)
	for i := range news {
		news[i] = store.NewJob{Tenant: "ALFA", Type: "test.many"}
	}
	if _, err := w.queue.Enqueue(t.Context(), news...); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for after := ""; ; {
		js, err := w.queue.Jobs(t.Context(), store.JobFilter{Tenant: "ALFA", After: after, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if len(js) == 0 {
			break
		}
		for _, j := range js {
			ids = append(ids, j.ID)
		}
		after = ids[len(ids)-1]
	}
	if did, err := w.queue.Cancel(t.Context(), ids...); err != nil || len(did) != n {
		t.Fatal(err, len(did))
	}
	for _, c := range []struct {
		body string
		want float64
	}{{`{"state":"cancelled","dryRun":true}`, n}, {`{"state":"cancelled"}`, n}, {`{"state":"cancelled"}`, 0}} {
		if got := w.ok(w.asA("POST", "/api/jobs/retry", c.body), 200); got["count"] != c.want {
			t.Fatalf("%s: %s", c.body, text(got))
		}
	}
}

// Jobs are listed, tried again and cancelled by what they were made for; of other clients nobody sees or ends any.
func TestJobsByCause(t *testing.T) {
	w := newTown(t)
	caused := func(client, typ string, c store.Causation, in time.Duration) {
		t.Helper()
		if _, err := w.queue.Enqueue(t.Context(), store.NewJob{Tenant: client, Type: typ, Causation: c, RunAt: time.Now().Add(in)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, client := range []string{"ALFA", "BETA"} {
		caused(client, "test.a", store.Causation{RunID: "run_1", LeadID: "lea_1", EventID: "bk-1"}, 0)
		caused(client, "test.b", store.Causation{RunID: "run_1", AppointmentID: "apt_1"}, time.Hour)
		caused(client, "test.a", store.Causation{CampaignID: "cmp_1", LeadID: "lea_1"}, time.Hour)
		caused(client, "test.a", store.Causation{}, time.Hour)
	}
	for query, want := range map[string]int{
		"?runId=run_1": 2, "?leadId=lea_1": 2, "?eventId=bk-1": 1, "?campaignId=cmp_1": 1, "?appointmentId=apt_1": 1, "?runId=run_1&leadId=lea_1": 1,
		"?runId=run_1&state=scheduled": 1, "?runId=run_1&type=test.a": 1, "?runId=none": 0, "?runId=": 4, "?runId=" + strings.Repeat("x", 256): 0, "?runId=%27%22": 0,
	} {
		if l := items(w.ok(w.asA("GET", "/api/jobs"+query, ""), 200)); len(l) != want {
			t.Errorf("%s: %d, want %d", query, len(l), want)
		}
	}
	w.problem(w.asA("GET", "/api/jobs?leadId="+strings.Repeat("x", 257), ""), 422, "invalid", "query.leadId")
	for query, want := range map[string]int{"?runId=run_1": 4, "?runId=run_1&client=BETA": 2} {
		if l := items(w.ok(w.admin("GET", "/api/admin/jobs"+query, ""), 200)); len(l) != want {
			t.Errorf("%s: %d, want %d", query, len(l), want)
		}
	}

	for body, at := range map[string]string{`{}`: "/type", `{"dryRun":true}`: "/type", `{"state":"dead"}`: "/state", `{"runId":7}`: "/runId", `{"tenant":"BETA"}`: "/tenant"} {
		w.problem(w.asA("POST", "/api/jobs/cancel", body), 422, "invalid", at)
	}
	w.problem(w.asA("POST", "/api/jobs/cancel", ""), 400, "json.missing")
	for _, c := range []struct {
		path, body string
		want       float64
	}{
		{"cancel", `{"runId":"run_1","dryRun":true}`, 2}, {"cancel", `{"runId":"run_1","state":"ready","dryRun":true}`, 1}, {"cancel", `{"runId":"run_1"}`, 2},
		{"cancel", `{"runId":"run_1"}`, 0}, {"retry", `{"state":"cancelled","appointmentId":"apt_1","dryRun":true}`, 1}, {"retry", `{"state":"cancelled","appointmentId":"apt_1"}`, 1},
		{"cancel", `{"state":"scheduled"}`, 2}, {"cancel", `{"type":"test.b"}`, 1}, {"cancel", `{"type":"test.a"}`, 0},
	} {
		if got := w.ok(w.asA("POST", "/api/jobs/"+c.path, c.body), 200); got["count"] != c.want || got["more"] != false {
			t.Errorf("%s: %s", c.body, text(got))
		}
	}
	if l := items(w.ok(w.asB("GET", "/api/jobs?state=cancelled", ""), 200)); len(l) != 0 {
		t.Errorf("another client's jobs were cancelled: %v", l)
	}
	if got := w.ok(w.admin("POST", "/api/admin/jobs/cancel", `{"leadId":"lea_1","client":"beta"}`), 200); got["count"] != 2.0 {
		t.Error(text(got))
	}
	w.problem(w.admin("POST", "/api/admin/jobs/cancel", `{"client":"BETA"}`), 422, "invalid", "/type")
}
