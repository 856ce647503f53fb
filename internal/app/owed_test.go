package app_test

import (
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/rule"
)

// A job that expired in the queue, where no handler sees it, tells its domain: here the run that waits for it ends.
func TestExpiredJobIsTold(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	c.rule("form_submitted", nil, rest("24h"), say("Hello"))
	run := runOf(c.happen("form_submitted", "918143963821", nil))
	nj := job.New("ACME", rule.WakeJob, map[string]any{"runId": run, "step": c.call("GET", "/api/crm/automations/runs/"+run, nil).want(200).get("steps.0.id")})
	nj.RunAt = time.Now().Add(100 * time.Millisecond)
	nj.ExpiresAt = nj.RunAt
	made, err := e.app.Runner.Enqueue(t.Context(), nj)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the run ends", func() string {
		a := c.call("GET", "/api/crm/automations/runs/"+run, nil).want(200)
		return unless(a.get("state") == "cancelled", string(a.Body))
	})
	shows(t, "its job", c.call("GET", "/api/jobs/"+made[0].Job.ID, nil).want(200), "state", "expired")
}
