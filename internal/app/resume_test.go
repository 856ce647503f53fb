package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"
)

// slowSite takes webhooks, notes when, and answers when it is let.
type slowSite struct {
	*httptest.Server
	mu    sync.Mutex
	calls map[string][]time.Time // by delivery
	gate  chan struct{}
}

func newSlowSite(t *testing.T) *slowSite {
	s := &slowSite{calls: map[string][]time.Time{}, gate: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.calls[r.Header.Get("X-Ecod-Delivery")] = append(s.calls[r.Header.Get("X-Ecod-Delivery")], time.Now())
		gate := s.gate
		s.mu.Unlock()
		select {
		case <-gate:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// open lets all webhooks be answered, those to come too.
func (s *slowSite) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
}

// called counts the deliveries that were tried n times.
func (s *slowSite) called(n int) (k int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.calls {
		if len(at) == n {
			k++
		}
	}
	return k
}

// The jobs that ran when the real engine was killed run again within two seconds after it is started again: nobody waits
// for leases of the dead.
func TestWorkGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	meta, site, dir := newMeta(t), newSlowSite(t), t.TempDir()
	p := serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	c := p.addClient("ACME", 1)
	c.rule("form_submitted", nil, obj{"type": "webhook.post", "url": site.URL})
	for i := range 3 {
		c.happen("form_submitted", fmt.Sprintf("91814396382%d", i), nil)
	}
	eventually(t, "the webhooks hang", func() string { return unless(site.called(1) == 3, "they are not called") })
	p.kill()
	site.open()
	p = serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	ready := time.Now()
	eventually(t, "they are called again", func() string { return unless(site.called(2) == 3, fmt.Sprint(site.called(2), " of 3")) })
	if d := time.Since(ready); d > 2*time.Second {
		t.Errorf("after %v", d)
	}
	c.e = p.engine
	eventually(t, "the runs end", func() string {
		runs := c.all("/api/crm/automations/runs")
		for _, r := range runs {
			if r["state"] != "done" {
				return fmt.Sprint(r)
			}
		}
		return unless(len(runs) == 3, fmt.Sprint(runs))
	})
}

// A stop of the real engine waits for jobs of seconds: all succeed, and none lost an attempt to it.
func TestStopWaitsForJobs(t *testing.T) {
	t.Parallel()
	meta, site, dir := newMeta(t), newSlowSite(t), t.TempDir()
	p := serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	var clients []*client
	for i := range 4 { // a client's webhooks have three slots
		c := p.addClient(fmt.Sprintf("ACME%d", i), i+1)
		c.rule("form_submitted", nil, obj{"type": "webhook.post", "url": site.URL})
		for k := range 3 {
			c.happen("form_submitted", fmt.Sprintf("91814396382%d", k), nil)
		}
		clients = append(clients, c)
	}
	eventually(t, "the webhooks hang", func() string { return unless(site.called(1) >= 10, "they are not called") })
	time.AfterFunc(5*time.Second, site.open)
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		p.exited <- nil
		if d := time.Since(began); err != nil || d > 25*time.Second || d < 4*time.Second {
			t.Errorf("it ended with %v after %v", err, d)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	if n := site.called(2); n > 0 {
		t.Errorf("%d were called again", n)
	}
	done := site.called(1)
	p = serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	n := 0
	for _, c := range clients {
		c.e = p.engine
		var page struct{ Items []map[string]any }
		c.call("GET", "/api/jobs?type=automation.webhook&state=succeeded&limit=200", nil).want(200).into(&page)
		for _, j := range page.Items {
			n++
			if j["attempt"] != 0.0 {
				t.Errorf("it cost an attempt: %v", j)
			}
		}
	}
	if n < done || done < 10 {
		t.Errorf("of %d that ran, %d succeeded", done, n)
	}
}

// Who asks the real engine twice to stop does not wait for its jobs, and none lost an attempt to it.
func TestStopAskedTwice(t *testing.T) {
	t.Parallel()
	meta, site, dir := newMeta(t), newSlowSite(t), t.TempDir()
	p := serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	c := p.addClient("ACME", 1)
	c.rule("form_submitted", nil, obj{"type": "webhook.post", "url": site.URL})
	c.happen("form_submitted", "918143963821", nil)
	eventually(t, "the webhook hangs", func() string { return unless(site.called(1) == 1, "it is not called") })
	began := time.Now()
	eventually(t, "it ends", func() string {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-p.exited:
			p.exited <- nil
			return unless(err == nil, fmt.Sprint(err))
		case <-time.After(200 * time.Millisecond):
			return "it waits"
		}
	})
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("after %v", d)
	}
	site.open()
	p = serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	c.e = p.engine
	eventually(t, "the job is done", func() string {
		a := c.call("GET", "/api/jobs?type=automation.webhook", nil).want(200)
		return unless(a.get("items.0.state") == "succeeded" && a.get("items.0.attempt") == 0.0, string(a.Body))
	})
}
