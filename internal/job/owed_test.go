package job_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
)

// mute is a queue in which nobody can be told of an end.
type mute struct {
	store.Queue
	on atomic.Bool
}

func (m *mute) Told(ctx context.Context, told ...store.Told) error {
	if m.on.Load() {
		return store.ErrUnavailable
	}
	return m.Queue.Told(ctx, told...)
}

// A domain hears of each of its jobs that ended without a word of its handler, once and with how it ended, also when
// the process dies between the end and the telling.
func TestDomainsAreTold(t *testing.T) {
	bubble(t, func(y *yard) {
		typ := job.Type{Name: "a", Handle: fine, Abandoned: func(j store.Job) []store.NewJob {
			n := job.New(j.Tenant, "told", map[string]string{"job": j.ID, "state": string(j.State)})
			n.UniqueKey = "told:" + j.ID
			return []store.NewJob{n}
		}}
		told := job.Type{Name: "told", Handle: fine, MaxAttempts: 33}
		silent := job.Type{Name: "silent", Handle: fine}
		broken := job.Type{Name: "broken", Handle: fine, Abandoned: func(store.Job) []store.NewJob { return []store.NewJob{{Tenant: "ACME"}} }}
		past := time.Now().Add(-time.Second)
		late := y.add("a", func(n *store.NewJob) { n.ExpiresAt = past })
		y.add("silent", func(n *store.NewJob) { n.ExpiresAt = past })
		y.add("broken", func(n *store.NewJob) { n.ExpiresAt = past })
		poison := y.add("a")
		for range 3 {
			js, err := y.queue.Claim(y.Context(), store.ClaimRequest{Owner: "vanished", Limit: 1, Lease: job.Lease, Types: []string{"a"}, Quarantine: true})
			if err != nil || len(js) != 1 {
				t.Fatal(js, err)
			}
			time.Sleep(job.Lease)
			_, _, err = y.queue.Promote(y.Context())
			y.must(err)
		}
		q := &mute{Queue: y.queue}
		q.on.Store(true)
		w := y.start(job.Config{Queue: q}, typ, told, silent, broken)
		synctest.Wait()
		if y.count("told") != 0 {
			t.Fatal("told although it could not be")
		}
		w.stop() // as if it had died

		y.start(job.Config{}, typ, told, silent, broken)
		unstarted := y.add("a", func(n *store.NewJob) { n.RunAt, n.ExpiresAt = time.Now().Add(time.Minute), time.Now().Add(time.Minute) })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		js, err := y.queue.Jobs(y.Context(), store.JobFilter{Tenant: "ACME", Types: []string{"told"}})
		y.must(err)
		got := map[string]string{}
		for _, j := range js {
			p, err := job.Payload[struct{ Job, State string }](j)
			y.must(err)
			got[p.Job] = p.State
			if j.State != store.Succeeded || j.MaxAttempts != 33 {
				t.Errorf("%s of %d attempts", j.State, j.MaxAttempts)
			}
		}
		if len(js) != 3 || got[late] != "expired" || got[poison] != "dead" || got[unstarted] != "expired" {
			t.Errorf("told %v", got)
		}
		if owed, err := y.queue.Owed(y.Context(), []string{"a", "silent", "broken"}, 10); err != nil || len(owed) != 0 {
			t.Errorf("still owed: %v, %v", owed, err)
		}
		if j := y.job(poison); !slices.Equal(codes(j), []string{"poison"}) {
			t.Errorf("%v", codes(j))
		}
	})
}
