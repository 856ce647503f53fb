package app_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// takenOver is how long after a node lost its database another works on the jobs that it held: a lease, and a look or two.
const takenOver = 20 * time.Second

// heldJob is a job as the operator sees it.
type heldJob struct {
	ID, State, Owner string
	Starts           int
	StartedAt        time.Time
}

func (e *engine) heldJob(id string) (j heldJob) {
	e.t.Helper()
	e.admin("GET", "/api/admin/jobs/"+id, nil).want(200).into(&j)
	return j
}

// sendsAtWork are the sends that a process has had at work for longer than Meta takes to answer.
func (e *engine) sendsAtWork(owner string) (held []heldJob) {
	e.t.Helper()
	var page struct{ Items []heldJob }
	e.admin("GET", "/api/admin/jobs?limit=200&type=whatsapp.send&state=running", nil).want(200).into(&page)
	for _, j := range page.Items {
		if (owner == "" || j.Owner == owner) && time.Since(j.StartedAt) > 2*time.Second {
			held = append(held, j)
		}
	}
	return held
}

// ownerOf tells under which name the only node there is holds jobs.
func ownerOf(c *client) string {
	t := c.e.t
	t.Helper()
	c.e.meta.Next(1, whatsapptest.Delay(5*time.Second))
	if status, body := try("POST", c.e.url+"/api/whatsapp/messages", sendsTo("+12025550143"), c.headers()); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, body)
	}
	owner := ""
	eventuallyIn(t, time.Minute, "the node has a send at work", func() string {
		for _, j := range c.e.sendsAtWork("") {
			owner = j.Owner
		}
		return unless(owner != "", "none")
	})
	return owner
}

// slow is how long Meta takes to answer: longer than it takes to cut a node off, and shorter than a lease, so that the node
// that stays has places when it takes over.
const slow = 11 * time.Second

// hangs has Meta accept messages and answer late, until a node has a few of them at work; whichever takes them first is
// full of them soon.
func (f *fleet) hangs(seenBy *process, owner string) {
	f.t.Helper()
	f.meta.Next(-1, whatsapptest.Delay(slow))
	eventuallyIn(f.t, time.Minute, "the node has sends at work that hang", func() string {
		n := len(seenBy.sendsAtWork(owner))
		return unless(n >= 2, fmt.Sprint(n))
	})
	f.meta.Behave()
}

// takesOver waits until another node has what the owner held when it was cut off, which must be in time.
func (p *process) takesOver(owner string, cut time.Time) (held []heldJob) {
	p.t.Helper()
	held = p.sendsAtWork(owner)
	if len(held) < 2 {
		p.t.Fatalf("the node that is cut off holds %d jobs", len(held))
	}
	for _, was := range held {
		var is heldJob
		eventuallyIn(p.t, takeover, "a job of the node that is cut off is begun elsewhere", func() string {
			is = p.heldJob(was.ID)
			return unless(is.Starts == was.Starts+1 && is.Owner != owner, fmt.Sprintf("%+v", is))
		})
		if took := is.StartedAt.Sub(cut); took > takenOver {
			p.t.Errorf("job %s was begun elsewhere %v after its node was cut off", was.ID, took)
		} else {
			p.t.Logf("taken over after %v", took)
		}
	}
	return held
}

// ends waits until jobs have ended, and gives how.
func (p *process) ends(held []heldJob) (bodies []string) {
	p.t.Helper()
	for _, j := range held {
		var a *answer
		eventuallyIn(p.t, time.Minute, "what was taken over ends", func() string {
			a = p.admin("GET", "/api/admin/jobs/"+j.ID, nil).want(200)
			return unless(a.get("endedAt") != nil, short(string(a.Body)))
		})
		bodies = append(bodies, string(a.Body))
	}
	return bodies
}

// metric reads a counter without labels.
func (e *engine) metric(name string) int {
	e.t.Helper()
	for line := range strings.Lines(string(e.admin("GET", "/metrics", nil).want(200).Body)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			must(e.t, err)
			return n
		}
	}
	e.t.Fatalf("no metric %s", name)
	return 0
}

// lost is how many executions of a node ended without a say in what becomes of their jobs.
func (e *engine) lost() int {
	return e.metric("ecod_job_lease_lost_total") + e.metric("ecod_job_fence_rejected_total")
}
