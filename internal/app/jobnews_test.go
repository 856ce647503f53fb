package app_test

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/socketio/sockettest"
	"github.com/ecodrix/ecod/internal/store"
)

// allSince asks on until everything since a number is told.
func (e *ear) allSince(seq int64) (items []said) {
	e.t.Helper()
	for more := true; more; {
		var got []said
		var reset bool
		if got, seq, more, reset = e.since(seq); reset {
			e.t.Fatal("reset")
		}
		items = append(items, got...)
	}
	return items
}

// told compares the last that was told of each job with the job as it is; "" if they are the same.
func (c *client) told(items []said) string {
	c.e.t.Helper()
	last := map[any]any{}
	for _, i := range items {
		if i.Event == "job.updated" {
			last[dig(i.Data, "job.id")] = i.Data["job"]
		}
	}
	var list struct{ Items []map[string]any }
	c.call("GET", "/api/jobs?limit=200", nil).want(200).into(&list)
	if len(list.Items) < 2 {
		return fmt.Sprintf("only %d jobs are there", len(list.Items))
	}
	for _, j := range list.Items {
		if !reflect.DeepEqual(last[j["id"]], any(j)) {
			return fmt.Sprintf("told of %v, it is %v", last[j["id"]], j)
		}
	}
	return ""
}

// Of every job its client hears how it ended, as REST shows it, live and afterwards; another client hears nothing.
func TestJobsAreTold(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	a, b := e.addClient("ACME", 1), e.addClient("BETA", 2)
	a.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	live, other := a.listen(t, sockettest.Websocket), b.listen(t, sockettest.Websocket)
	for i := range 20 {
		a.call("POST", "/api/crm/automations/events", hello(fmt.Sprintf("9181439639%02d", i))).want(202)
	}
	eventually(t, "the live socket hears how the jobs ended", func() string { return a.told(live.all()) })
	eventually(t, "and so do those who ask", func() string { return a.told(live.allSince(0)) })
	ended := live.find("job.updated", "job.state", "succeeded")
	want(t, "a job", ended.Data, "job.type", dig(ended.Data, "job.type"), "job.error", nil)
	if dig(ended.Data, "job.payload") != nil {
		t.Errorf("a payload is told: %v", ended.Data)
	}
	for _, s := range other.all() {
		t.Errorf("BETA hears %s", s.Event)
	}
	// what expires by itself, and what is cancelled by hand
	made, err := e.app.Queue.Enqueue(t.Context(),
		store.NewJob{Tenant: "ACME", Type: "test.late", ExpiresAt: time.Now().Add(time.Millisecond)},
		store.NewJob{Tenant: "ACME", Type: "test.far", RunAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	live.find("job.updated", "job.type", "test.far")
	a.call("POST", "/api/jobs/"+made[1].Job.ID+"/cancel", nil).want(200)
	for i, state := range []string{"expired", "cancelled"} {
		eventually(t, state+" is heard", func() string {
			for _, s := range live.all() {
				if dig(s.Data, "job.id") == made[i].Job.ID && dig(s.Data, "job.state") == state {
					return ""
				}
			}
			return "not yet"
		})
	}
	changes := 0
	for _, s := range live.all() {
		if s.Event == "job.updated" {
			changes++
		}
	}
	t.Logf("%d changes told", changes)
}

// What a crash left untold of jobs that had ended is told after it.
func TestJobsAreToldAfterACrash(t *testing.T) {
	t.Parallel()
	dir, meta := t.TempDir(), newMeta(t)
	p := serve(t, dir, meta)
	c := p.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	for i := range 5 {
		c.call("POST", "/api/crm/automations/events", hello(fmt.Sprintf("9181439639%02d", i))).want(202)
	}
	p.kill() // the last have ended within the time in which changes are gathered
	p = serve(t, dir, meta)
	c.e = p.engine
	socket := c.listen(t, sockettest.Websocket)
	eventuallyIn(t, takeover, "all is told", func() string { return c.told(socket.allSince(0)) })
}

// One address has so many connections and no more.
func TestSocketsOfOneAddress(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	open := func(addr string) int {
		req, err := http.NewRequest("GET", e.url+"/socket.io/?EIO=4&transport=polling", nil)
		if err != nil {
			t.Fatal(err)
		}
		if addr != "" {
			req.Header.Set("X-Forwarded-For", addr)
		}
		res, err := httpClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode == 429 && res.Header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
		return res.StatusCode
	}
	begun := time.Now()
	n := 0
	for n < 600 && open("203.0.113.7") == 200 {
		n++
	}
	if n != 500 && time.Since(begun) < 40*time.Second { // those that nobody admits to are closed after 45 s
		t.Errorf("%d connections", n)
	}
	for _, addr := range []string{"203.0.113.8", ""} {
		if status := open(addr); status != 200 {
			t.Errorf("%q: %d", addr, status)
		}
	}
}
