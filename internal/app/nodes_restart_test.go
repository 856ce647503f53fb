package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// balancer stands before nodes as a load balancer does: it asks each for its readiness, and hands requests in turn to
// those that are ready. It repeats nothing: what a node does not answer has failed.
type balancer struct {
	t    *testing.T
	http *http.Client

	mu    sync.Mutex
	nodes []*process
	ready map[*process]bool
	turn  int

	failed []string
	counts map[int]int
}

// newBalancer looks at its nodes until the test ends.
func newBalancer(t *testing.T, nodes ...*process) *balancer {
	tr := &http.Transport{MaxIdleConnsPerHost: 20}
	b := &balancer{t: t, http: &http.Client{Timeout: time.Minute, Transport: tr}, nodes: slices.Clone(nodes), ready: map[*process]bool{}, counts: map[int]int{}}
	done := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			b.look()
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		looking.Wait()
		tr.CloseIdleConnections()
	})
	return b
}

func (b *balancer) look() {
	b.mu.Lock()
	nodes := slices.Clone(b.nodes)
	b.mu.Unlock()
	for _, p := range nodes {
		res, err := b.http.Get(p.url + "/readyz")
		if err == nil {
			_ = res.Body.Close()
		}
		b.mu.Lock()
		b.ready[p] = err == nil && res.StatusCode == http.StatusOK
		b.mu.Unlock()
	}
}

func (b *balancer) isReady(p *process) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready[p]
}

// replace has another node stand in a node's place.
func (b *balancer) replace(old, by *process) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes[slices.Index(b.nodes, old)] = by
}

func (b *balancer) post(path string, body []byte, headers map[string]string) int {
	b.mu.Lock()
	var to *process
	for range b.nodes {
		if b.turn++; b.ready[b.nodes[b.turn%len(b.nodes)]] {
			to = b.nodes[b.turn%len(b.nodes)]
			break
		}
	}
	b.mu.Unlock()
	status := 0
	if to != nil {
		status = postWith(b.http, to.url+path, body, headers)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.counts[status]++; status/100 != 2 {
		b.failed = append(b.failed, fmt.Sprintf("%s: %d (a node was ready: %t)", path, status, to != nil))
	}
	return status
}

// TestRollingRestart: each node of two is stopped and another put in its place, twice, behind a balancer that works all
// the time. No request fails, no job is lost or done twice.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := []*process{f.node(f.url), f.node(f.url)}
	c := nodes[0].addClient("ACME", 1)
	c.known(nodes[1])
	c.call("POST", "/api/crm/automations/rules", confirmRule(map[string]any{"trigger": "form_submitted"})).want(201)
	b := newBalancer(t, nodes...)
	for _, p := range nodes {
		eventually(t, "a node is ready", func() string { return unless(b.isReady(p), p.url) })
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	var told atomic.Int64
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				n := told.Add(1)
				id, _ := eventOf(n)
				body, _ := json.Marshal(confirmEvent(map[string]any{"trigger": "form_submitted", "eventId": id, "phone": phoneOf(n)}))
				b.post("/api/crm/automations/events", body, c.headers())
			}
		})
	}
	for range 2 {
		for i, p := range nodes {
			from := told.Load()
			eventuallyIn(t, time.Minute, "the balancer works", func() string { return unless(told.Load() >= from+10, "few requests") })
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-p.exited:
				p.exited <- nil
				if err != nil {
					t.Errorf("a node ended with %v", err)
				}
			case <-time.After(25 * time.Second):
				t.Fatal("a node does not stop in 25 s")
			}
			nodes[i] = f.node(f.url)
			b.replace(p, nodes[i])
			eventually(t, "the node in its place is ready", func() string { return unless(b.isReady(nodes[i]), nodes[i].url) })
		}
	}
	close(stop)
	all.Wait()
	for _, s := range b.failed {
		t.Error(s)
	}
	f.meta.SetWebhook(c.WABA, nodes[0].url+"/api/whatsapp/webhook")
	nodes[0].idle(patient)
	there := c.at(nodes[0])
	done := 0
	for _, l := range there.all("/api/crm/leads") {
		if done++; l["score"] != 20.0 {
			t.Errorf("lead %v has a score of %v: its event was done half, or twice", l["phone"], l["score"])
		}
	}
	people := map[string]int{}
	for _, a := range f.meta.Accepted() {
		if people[a.To]++; people[a.To] == 2 {
			t.Errorf("%s was sent to twice", a.To)
		}
	}
	if n := int(told.Load()); done != n || len(people) != n {
		t.Errorf("of %d events %d leads are there and %d people were sent to", n, done, len(people))
	}
	t.Logf("%d requests, answered %v", told.Load(), b.counts)
}
