package storetest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// OpenQueue opens a new, empty queue whose only clock is now, and closes it when the test ends.
type OpenQueue func(t *testing.T, now func() time.Time) store.Queue

// RunQueue holds a queue to the contract of store.Queue.
func RunQueue(t *testing.T, open OpenQueue) {
	for _, c := range []struct {
		name string
		test func(*queueTest)
	}{
		{"Enqueue", (*queueTest).enqueue},
		{"EnqueueRefuses", (*queueTest).enqueueRefuses},
		{"UniqueKey", (*queueTest).uniqueKey},
		{"KeyReuse", (*queueTest).keyReuse},
		{"KeyOutlivesItsJob", (*queueTest).keyOutlives},
		{"OnTaken", (*queueTest).onTaken},
		{"Room", (*queueTest).room},
		{"Causes", (*queueTest).causes},
		{"Standing", (*queueTest).standing},
		{"ClaimFor", (*queueTest).claimFor},
		{"ClaimOrder", (*queueTest).claimOrder},
		{"ClaimTypes", (*queueTest).claimTypes},
		{"LanesInTurn", (*queueTest).lanesInTurn},
		{"TenantsShare", (*queueTest).tenantsShare},
		{"SlowLanes", (*queueTest).slowLanes},
		{"IdleLaneEarnsNoCredit", (*queueTest).noCredit},
		{"Classes", (*queueTest).classes},
		{"ClassesOfFewSlots", (*queueTest).classesFewSlots},
		{"ClassQuanta", (*queueTest).classQuanta},
		{"PauseScopes", (*queueTest).pauseScopes},
		{"PauseEnds", (*queueTest).pauseEnds},
		{"PauseGrows", (*queueTest).pauseGrows},
		{"PauseOutcome", (*queueTest).pauseOutcome},
		{"PauseMany", (*queueTest).pauseMany},
		{"Rate", (*queueTest).rate},
		{"RateShared", (*queueTest).rateShared},
		{"RatePairs", (*queueTest).ratePairs},
		{"Take", (*queueTest).take},
		{"Fence", (*queueTest).fence},
		{"FinishStates", (*queueTest).finishStates},
		{"FinishMany", (*queueTest).finishMany},
		{"FinishNext", (*queueTest).finishNext},
		{"ErrorsAreTheLastTen", (*queueTest).lastErrors},
		{"Beat", (*queueTest).beat},
		{"LeaseRunsOut", (*queueTest).leaseRunsOut},
		{"Quarantine", (*queueTest).quarantine},
		{"Poison", (*queueTest).poison},
		{"Promote", (*queueTest).promote},
		{"Expire", (*queueTest).expire},
		{"Release", (*queueTest).release},
		{"Retry", (*queueTest).retry},
		{"Cancel", (*queueTest).cancel},
		{"Parked", (*queueTest).parked},
		{"Lanes", (*queueTest).lanes},
		{"Prune", (*queueTest).prune},
		{"Jobs", (*queueTest).list},
		{"JobsOfManyTypes", (*queueTest).listTypes},
		{"ConcurrentKey", (*queueTest).concurrentKey},
		{"ConcurrentWorkers", (*queueTest).concurrentWorkers},
		{"Listen", (*queueTest).listen},
		{"Asked", (*queueTest).asked},
		{"Owed", (*queueTest).owed},
		{"PromotedAtLeaseEnd", (*queueTest).promotedAtLeaseEnd},
		{"PayloadsAndForget", (*queueTest).payloadsAndForget},
		{"Invariants", (*queueTest).invariants},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := &queueTest{T: t, clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, ctx: t.Context()}
			q.Queue = open(t, q.clock.Now)
			c.test(q)
		})
	}
}

// clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type queueTest struct {
	*testing.T
	store.Queue
	clock *clock
	ctx   context.Context
}

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var allTypes = []string{"a", "b"}

// The contract's methods, for calls that must not fail.

func (q *queueTest) doPrune(limit int) int {
	q.Helper()
	n, err := q.Prune(q.ctx, limit)
	return must(q.T, n, err)
}

func (q *queueTest) doRetry(ids ...string) []string {
	q.Helper()
	did, err := q.Retry(q.ctx, ids...)
	return must(q.T, did, err)
}

func (q *queueTest) doCancel(ids ...string) []string {
	q.Helper()
	did, err := q.Cancel(q.ctx, ids...)
	return must(q.T, did, err)
}

func (q *queueTest) doBeat(owner string, lease time.Duration) []store.Held {
	q.Helper()
	held, err := q.Beat(q.ctx, owner, lease)
	return must(q.T, held, err)
}

func (q *queueTest) doRelease(owner string) int {
	q.Helper()
	n, err := q.Release(q.ctx, owner)
	return must(q.T, n, err)
}

func (q *queueTest) doReleaseParked(tenant string) int {
	q.Helper()
	n, err := q.ReleaseParked(q.ctx, tenant)
	return must(q.T, n, err)
}

func (q *queueTest) doClaim(r store.ClaimRequest) []store.Job {
	q.Helper()
	jobs, err := q.Claim(q.ctx, r)
	return must(q.T, jobs, err)
}

func (q *queueTest) doJobs(f store.JobFilter) []store.Job {
	q.Helper()
	jobs, err := q.Jobs(q.ctx, f)
	return must(q.T, jobs, err)
}

func (q *queueTest) doPromote() (ready int, next time.Time) {
	q.Helper()
	ready, next, err := q.Promote(q.ctx)
	must(q.T, ready, err)
	return ready, next
}

func (q *queueTest) make(jobs ...store.NewJob) []store.Enqueued {
	q.Helper()
	made, err := q.Enqueue(q.ctx, jobs...)
	return must(q.T, made, err)
}

// one makes a ready job of type a and gives its id.
func (q *queueTest) one(tenant string) string {
	q.Helper()
	return q.make(store.NewJob{Tenant: tenant, Type: "a"})[0].Job.ID
}

func (q *queueTest) claim(limit int) []store.Job {
	q.Helper()
	return q.claimAs("w1", limit)
}

func (q *queueTest) claimAs(owner string, limit int) []store.Job {
	q.Helper()
	return q.doClaim(store.ClaimRequest{Owner: owner, Limit: limit, Lease: 15 * time.Second, Types: allTypes, Quarantine: true})
}

// claimOne claims the only ready job.
func (q *queueTest) claimOne() store.Job {
	q.Helper()
	jobs := q.claim(10)
	if len(jobs) != 1 {
		q.Fatalf("claimed %d jobs, want 1", len(jobs))
	}
	return jobs[0]
}

func (q *queueTest) finish(o ...store.Outcome) []bool {
	q.Helper()
	held, err := q.Finish(q.ctx, o...)
	if err == nil && len(held) != len(o) {
		q.Fatalf("%d answers for %d outcomes", len(held), len(o))
	}
	return must(q.T, held, err)
}

// end finishes a claimed job and insists that it held.
func (q *queueTest) end(j store.Job, s store.State) {
	q.Helper()
	o := store.Outcome{ID: j.ID, Token: j.Token, State: s}
	if s == store.Scheduled {
		o.RunAt = q.clock.Now().Add(time.Hour)
	}
	if !q.finish(o)[0] {
		q.Fatalf("outcome %s of %s was refused", s, j.ID)
	}
}

func (q *queueTest) job(id string) store.Job {
	q.Helper()
	j, err := q.Job(q.ctx, id)
	return must(q.T, j, err)
}

func (q *queueTest) state(id string, want store.State) store.Job {
	q.Helper()
	j := q.job(id)
	if j.State != want {
		q.Errorf("job is %s, want %s", j.State, want)
	}
	if j.State.Terminal() == j.EndedAt.IsZero() {
		q.Errorf("%s job ended at %v", j.State, j.EndedAt)
	}
	if (j.State == store.Running) == (j.Owner == "" || j.LeaseUntil.IsZero()) {
		q.Errorf("%s job has owner %q and lease %v", j.State, j.Owner, j.LeaseUntil)
	}
	return j
}

// counts compares all states' numbers of a tenant; "" is all tenants.
func (q *queueTest) counts(tenant string, want store.JobCounts) {
	q.Helper()
	got, err := q.JobCounts(q.ctx, tenant)
	must(q.T, got, err)
	for _, s := range []store.State{store.Scheduled, store.Ready, store.Running, store.Parked, store.Succeeded, store.Dead, store.Cancelled, store.Expired} {
		if got[s] != want[s] {
			q.Errorf("%d %s jobs of %q, want %d", got[s], s, tenant, want[s])
		}
	}
	byType, err := q.TypeCounts(q.ctx, tenant)
	must(q.T, byType, err)
	sum := store.JobCounts{}
	for _, n := range byType {
		for s, m := range n {
			sum[s] += m
		}
	}
	for s := range got {
		if got[s] != sum[s] {
			q.Errorf("%d %s jobs of %q, by type %d", got[s], s, tenant, sum[s])
		}
	}
}

func (q *queueTest) promoted(wantReady int) time.Time {
	q.Helper()
	n, next := q.doPromote()
	if n != wantReady {
		q.Errorf("%d became ready, want %d", n, wantReady)
	}
	return next
}

func ids(jobs []store.Job) []string {
	out := make([]string, len(jobs))
	for i, j := range jobs {
		out[i] = j.ID
	}
	return out
}

func (q *queueTest) same(what string, got, want []string) {
	q.Helper()
	if !slices.Equal(got, want) {
		q.Errorf("%s: %v, want %v", what, got, want)
	}
}
