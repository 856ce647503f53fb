package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// partitions are the ways in which a node loses its database, and gets it back. In each but the last it goes on to reach Meta.
var partitions = map[string]func(t *testing.T, f *fleet) (p *process, cut, heal func()){
	"nothing passes": func(t *testing.T, f *fleet) (*process, func(), func()) {
		l := servertest.NewLink(t, servertest.HostOf(t, f.url))
		return f.node(l.Through(f.url)), l.Cut, l.Heal
	},
	"answers are lost": func(t *testing.T, f *fleet) (*process, func(), func()) {
		l := servertest.NewLink(t, servertest.HostOf(t, f.url))
		return f.node(l.Through(f.url)), l.CutAnswers, l.Heal
	},
	"packets are lost": func(t *testing.T, f *fleet) (*process, func(), func()) {
		bin, err := build()
		if err != nil {
			t.Fatal(err)
		}
		n := servertest.NewNamespace(t)
		database, _ := n.Link(servertest.HostOf(t, f.url))
		meta, inside := n.Link(servertest.HostOf(t, f.meta.URL)) // the node is reached by the cable that is not cut
		p := f.nodeBy(n.Command(bin, "serve"), database.Through(f.url),
			"ECOD_ADDR="+net.JoinHostPort(inside, "8080"), "ECOD_META_URL=http://"+n.Loopback(meta))
		return p, database.Cut, database.Heal
	},
	"it is frozen": func(t *testing.T, f *fleet) (*process, func(), func()) {
		p := f.node(f.url)
		signal := func(s os.Signal) func() {
			return func() { must(t, p.cmd.Process.Signal(s)) }
		}
		t.Cleanup(func() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }) // else it does not end
		return p, signal(syscall.SIGSTOP), signal(syscall.SIGCONT)
	},
}

// TestNodeWithoutDatabase: a node has sent a message when it loses its database. Another takes the job over, which it
// leaves as unconfirmed; what the first finds out then changes nothing, and Meta's own word on the message decides.
func TestNodeWithoutDatabase(t *testing.T) {
	for name, partition := range partitions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			one, cut, heal := partition(t, f)
			c := one.addClient("ACME", 1)
			f.meta.SetWebhook(c.WABA, "") // nobody hears statuses yet
			f.meta.Next(1, whatsapptest.HangAfterAccepting())
			status, body := try("POST", one.url+"/api/whatsapp/messages", sendsTo("+12025550143"), c.headers())
			var m struct{ ID string }
			if err := json.Unmarshal(body, &m); err != nil || status != http.StatusAccepted {
				t.Fatalf("%d %s %v", status, body, err)
			}
			if _, err := f.meta.WaitAccepted(within(time.Minute), 1); err != nil {
				t.Fatal(err)
			}
			cut()

			two := f.node(f.url)
			there := c.known(two)
			message, jobs := "/api/whatsapp/messages/"+m.ID, "/api/admin/jobs?limit=50&type=whatsapp.send"
			eventuallyIn(t, 3*takeover, "the other node takes the job over", func() string {
				if s := there.call("GET", message, nil).want(200).get("status"); s != "unconfirmed" {
					return fmt.Sprint(s)
				}
				if s := two.admin("GET", jobs, nil).want(200).get("items.0.state"); s == "running" || s == "ready" {
					return fmt.Sprint("its job is ", s)
				}
				return ""
			})
			left := func() string {
				return string(there.call("GET", message, nil).want(200).Body) + "\n" + string(two.admin("GET", jobs, nil).want(200).Body)
			}
			before := left()
			heal()
			eventuallyIn(t, 3*takeover, "the node has its database again", func() string {
				status, body := try("GET", one.url+message, nil, c.headers())
				return unless(status == 200, fmt.Sprint(status, " ", short(string(body))))
			})
			// Its call to Meta ends within half a minute of its begin, which is longer ago than the takeover took.
			for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
				if after := left(); after != before {
					t.Fatalf("the node that was away changed what another had decided:\n%s\n%s", before, after)
				}
			}
			if n := one.lost(); n != 1 {
				t.Errorf("the node that was away gave up %d jobs, not the one that it had", n)
			}
			t.Logf("refused by their fences: %d ends", one.metric("ecod_job_fence_rejected_total"))
			accepted := f.meta.Accepted()
			if len(accepted) != 1 {
				t.Fatalf("Meta accepted %d messages", len(accepted))
			}
			two.webhook(whatsapptest.Batch(f.meta.StatusFor(accepted[0], "delivered"))).want(200)
			eventuallyIn(t, time.Minute, "Meta's word decides", func() string {
				a := there.call("GET", message, nil).want(200)
				return unless(a.get("status") == "delivered" && a.get("wamid") == accepted[0].ID, short(string(a.Body)))
			})
		})
	}
}

// TestPartitionUnderLoad: events are told at two nodes while one of them loses its database for longer than its jobs'
// leases, in the one way and the other. What it had at work is begun by the other in time, and what it makes of that itself,
// then or when it has its database again, counts for nothing. Each acknowledged event is done once, and no message is sent
// twice.
func TestPartitionUnderLoad(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	link := servertest.NewLink(t, servertest.HostOf(t, f.url))
	away := f.node(link.Through(f.url))
	awayName := ownerOf(away.addClient("AWAY", 2))
	stays := f.node(f.url)
	c := stays.addClient("ACME", 1)
	c.known(away)
	for _, rule := range []map[string]any{scored, confirmRule(map[string]any{"trigger": "form_submitted"})} {
		c.call("POST", "/api/crm/automations/rules", rule).want(201)
	}
	var told atomic.Int64
	var mu sync.Mutex
	acked := map[int64]bool{}
	var all sync.WaitGroup
	stop := make(chan struct{})
	patience := &http.Client{Timeout: 3 * time.Second} // of callers, who then ask the other node
	for range 4 {
		all.Go(func() {
			for {
				n := told.Add(1)
				id, _ := eventOf(n)
				body, _ := json.Marshal(confirmEvent(map[string]any{"trigger": "form_submitted", "eventId": id, "phone": phoneOf(n)}))
				for turn := n; ; turn++ {
					select {
					case <-stop:
						return
					default:
					}
					p := []*process{away, stays}[turn%2]
					if status := postWith(patience, p.url+"/api/crm/automations/events", body, c.headers()); status == http.StatusAccepted {
						mu.Lock()
						acked[n] = true
						mu.Unlock()
						break
					} else if status >= 400 && status < 500 && status != http.StatusConflict && status != http.StatusTooManyRequests {
						t.Errorf("event %s: %d", id, status)
						return
					}
					time.Sleep(100 * time.Millisecond) // as callers wait
				}
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
	more := func(n int) {
		t.Helper()
		from := count()
		eventuallyIn(t, time.Minute, "events are acknowledged", func() string {
			got := count() - from
			return unless(got >= n, fmt.Sprintf("%d of %d", got, n))
		})
	}
	more(20)
	for _, cut := range []func(){link.CutAnswers, link.Cut} {
		f.hangs(stays, awayName)
		lost, crashes := away.lost(), stays.metric("ecod_job_crashes_total")
		cut()
		ends := time.After(takeover)
		held := stays.takesOver(awayName, time.Now())
		if n := stays.metric("ecod_job_crashes_total") - crashes; n < len(held) {
			t.Errorf("%d leases ended, of %d jobs", n, len(held))
		}
		more(20) // the other node goes on alone
		ended := stays.ends(held)
		<-ends
		link.Heal()
		eventuallyIn(t, takeover, "the node has its database again", func() string {
			return unless(away.send("GET", "/readyz", nil, nil).Status == 200, "not ready")
		})
		eventuallyIn(t, takeover, "the node that was away gives up what it held", func() string {
			n := away.lost() - lost
			return unless(n >= len(held), fmt.Sprintf("%d of %d", n, len(held)))
		})
		more(10)
		if after := stays.ends(held); !slices.Equal(after, ended) {
			t.Errorf("the node that was away changed what another had decided:\n%s\n%s", ended, after)
		}
		t.Logf("%d jobs taken over; of the node that was away, %d ends were refused", len(held), away.metric("ecod_job_fence_rejected_total"))
	}
	close(stop)
	all.Wait()
	stays.idle(patient)
	away.idle(patient)
	leads := map[string]int{}
	for _, l := range c.all("/api/crm/leads") {
		leads[l["phone"].(string)]++
		if l["score"] != 21.0 { // one point by the one rule, twenty by the other
			t.Errorf("lead %v has a score of %v: its event was done half, or twice", l["phone"], l["score"])
		}
	}
	for n := range acked {
		if leads["+"+phoneOf(n)] != 1 {
			t.Errorf("acknowledged event %d has %d leads", n, leads["+"+phoneOf(n)])
		}
	}
	people := map[string]int{}
	for _, a := range f.meta.Accepted() {
		if people[a.To]++; people[a.To] == 2 {
			t.Errorf("%s was sent to twice", a.To)
		}
	}
	again := 0
	for _, state := range []string{"succeeded", "dead", "parked"} {
		for _, j := range stays.jobsIn(state) {
			if starts, _ := j["starts"].(float64); starts > 1 {
				again++
			}
		}
	}
	t.Logf("%d events acknowledged, %d people sent to, %d jobs begun more than once", len(acked), len(people), again)
}

// postWith posts and gives the status, 0 without an answer.
func postWith(hc *http.Client, url string, body []byte, headers map[string]string) int {
	req, err := http.NewRequest("POST", url, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	res, err := hc.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0
	}
	return res.StatusCode
}

// jobsIn gives all jobs in a state.
func (e *engine) jobsIn(state string) (out []map[string]any) {
	e.t.Helper()
	for cursor := ""; ; {
		var page struct {
			Items      []map[string]any
			NextCursor *string
		}
		e.admin("GET", "/api/admin/jobs?limit=200&state="+state+cursor, nil).want(200).into(&page)
		out = append(out, page.Items...)
		if page.NextCursor == nil {
			return out
		}
		cursor = "&cursor=" + *page.NextCursor
	}
}
