package sqlite

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

// picked is a job that a claim takes, as its transaction knows it.
type picked struct {
	n, token, runAt int64 // the token is the new one
	typ             string
}

// rowList gives the rows' numbers as a list that json_each takes apart.
func rowList(all []picked) (string, error) {
	ns := make([]int64, len(all))
	for i, p := range all {
		ns[i] = p.n
	}
	list, err := json.Marshal(ns)
	return text(list), err
}

// work tells whether a claim may find something.
func work(r row, err error) (bool, error) { return err == nil && r.int(0) != 0, err }

const workQuery = `SELECT EXISTS (SELECT 1 FROM lanes INDEXED BY lanesReady WHERE ready > 0 AND eligibleAt = 0 AND class <= ?)
	OR EXISTS (SELECT 1 FROM lanes INDEXED BY lanesBlocked WHERE ready > 0 AND eligibleAt > 0 AND eligibleAt <= ?)`

// idle tells that a claim would find nothing: an idle poll does not write. Where the last one found something, the next
// does not ask first.
func (q *Queue) idle(ctx context.Context, r store.ClaimRequest) (idle bool, err error) {
	if q.busy.Load() {
		return false, nil
	}
	err = q.f.read(ctx, func(c *conn) error {
		found, err := work(c.first(ctx, workQuery, patientest(r), q.now().UnixMilli()))
		idle = !found
		return err
	})
	return idle, err
}

// patientest is the last class that a claim looks at.
func patientest(r store.ClaimRequest) int {
	if r.Quarantine {
		return turn.Quarantine
	}
	return turn.Maintenance
}

// leased reads the jobs that a claim took, as it left them. It is most of what a claim takes long for, and nobody who
// writes waits for it. What was taken away again meanwhile, as its client was, is not among them.
func (q *Queue) leased(ctx context.Context, owner string, all []picked) ([]store.Job, error) {
	if len(all) == 0 {
		return nil, nil
	}
	list, err := rowList(all)
	if err != nil {
		return nil, err
	}
	place := make(map[int64]int, len(all))
	for i, p := range all {
		place[p.n] = i
	}
	jobs := make([]store.Job, len(all))
	ctx = context.WithoutCancel(ctx) // they are leased to a caller who may not come back for them
	err = q.f.read(ctx, func(c *conn) error {
		for r, err := range c.rows(ctx, `SELECT `+jobColumns+`, n FROM jobs WHERE n IN (SELECT value FROM json_each(?)) AND state = 'running' AND owner = ?`,
			list, owner) {
			if err != nil {
				return err
			}
			i := place[r.int(jobColumnCount)]
			if j := scanJob(r); j.Token == all[i].token {
				jobs[i] = j
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	jobs = slices.DeleteFunc(jobs, func(j store.Job) bool { return j.ID == "" })
	q.runs.put(jobs)
	return jobs, nil
}
