package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver that fills the file

	"github.com/ecodrix/ecod/internal/store"
)

// history measures what five million finished jobs cost a claim, which must not see them, and a count of jobs by state.
// A queue without them is claimed from in turn with the one that has them.
func (b *bench) history(ctx context.Context) error {
	finished, claims := b.scaled(5_000_000), b.scaled(20_000)
	var sides [2]*ours
	for i, n := range []int{0, finished} {
		dir := filepath.Join(b.dir, fmt.Sprintf("history%d", i))
		if err := finish(ctx, dir, n); err != nil {
			return err
		}
		o, err := openOurs(ctx, dir)
		if err != nil {
			return err
		}
		defer o.discard()
		sides[i] = o
		if err := o.fill(ctx, claims+claims/10, func(i int) string { return client(i % drainClients) }); err != nil {
			return err
		}
	}
	if err := sides[1].succeeded(ctx, int64(finished+drainClients)); err != nil {
		return err
	}
	syscall.Sync() // the disk is done with the history before anything is measured
	var took [2][]time.Duration
	for i := range claims + claims/10 {
		for k := range sides {
			side := (i + k) % 2 // none is always the first
			d, err := sides[side].claimOne(ctx)
			if err != nil {
				return err
			}
			if i >= claims/10 {
				took[side] = append(took[side], d)
			}
		}
	}
	empty, full := quantile(took[0], 0.99), quantile(took[1], 0.99)
	b.note(figure{
		what: fmt.Sprintf("claim, %d finished jobs beside none", finished), ours: fmt.Sprintf("%s beside %s: %.2f ×", spread(took[1]), spread(took[0]), float64(full)/float64(empty)),
		bar: "p99 ≤ 1.2 × empty", ok: float64(full) <= 1.2*float64(empty),
	})
	var counts []time.Duration
	for range 20 {
		began := time.Now()
		if _, err := sides[1].queue.JobCounts(ctx, ""); err != nil {
			return err
		}
		counts = append(counts, time.Since(began))
	}
	slowest := slices.Max(counts)
	b.note(figure{what: "  jobs counted by state", ours: "at most " + ms(slowest), bar: "< 100 ms", ok: slowest < 100*time.Millisecond})
	return nil
}

func (o *ours) claimOne(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	jobs, err := o.queue.Claim(ctx, store.ClaimRequest{Owner: "bench", Limit: 1, Lease: time.Hour, Types: []string{work{}.Kind()}})
	took := time.Since(began)
	if err == nil && len(jobs) != 1 {
		err = errors.New("nothing to claim")
	}
	return took, err
}

// finish makes a queue with finished jobs: one of each client goes through the queue, and then each is copied, with its
// key, as often as it takes. The copies differ in nothing but their ids and keys, whatever columns there are.
func finish(ctx context.Context, dir string, n int) error {
	o, err := openOurs(ctx, dir)
	if err != nil {
		return err
	}
	made := make([]store.NewJob, drainClients)
	for i := range made {
		made[i] = wanted(work{int64(i), client(i), pad})
		made[i].UniqueKey = fmt.Sprintf("send:msg_%032d", i)
	}
	all, err := o.queue.Enqueue(ctx, made...)
	if err != nil {
		return err
	}
	jobs, err := o.queue.Claim(ctx, store.ClaimRequest{Owner: "bench", Limit: len(all), Lease: time.Hour, Types: []string{work{}.Kind()}})
	if err != nil {
		return err
	}
	outcomes := make([]store.Outcome, len(jobs))
	for i, j := range jobs {
		outcomes[i] = store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded}
	}
	if _, err := o.queue.Finish(ctx, outcomes...); err != nil {
		return err
	}
	if err := errors.Join(o.clients.Close(ctx), o.db.Close()); err != nil || n == 0 {
		return err
	}

	db, err := sql.Open("sqlite", filepath.Join(dir, servicesFile)+"?_pragma=synchronous(OFF)&_pragma=cache_size(-262144)")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	const batch = 50_000
	jobCopy, err := copying(ctx, db, "jobs", "SELECT * FROM jobs ORDER BY n", map[string]string{
		"n": "NULL", "_id": "printf('job_0190%028x', s.i * 50 + t.rowid)", "uniqueKey": "printf('send:msg_%032x', s.i * 50 + t.rowid)",
	})
	if err != nil {
		return err
	}
	keyCopy, err := copying(ctx, db, "jobKeys", "SELECT k.* FROM jobKeys k JOIN jobs j ON j._id = k.jobId ORDER BY j.n", map[string]string{
		"jobId": "printf('job_0190%028x', s.i * 50 + t.rowid)", "uniqueKey": "printf('send:msg_%032x', s.i * 50 + t.rowid)",
	})
	if err != nil {
		return err
	}
	for from := 0; from < n; from += batch {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		for _, q := range []string{jobCopy, keyCopy} {
			if _, err := tx.ExecContext(ctx, q, from/drainClients+1, min(from+batch, n)/drainClients); err != nil {
				return errors.Join(err, tx.Rollback())
			}
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	_, err = db.ExecContext(ctx, "UPDATE lanes SET succeeded = succeeded + ?", n/drainClients)
	return errors.Join(err, db.Close())
}

// copying is the statement that copies the rows a table has now once for every number from the first argument to the second.
func copying(ctx context.Context, db *sql.DB, table, models string, replaced map[string]string) (string, error) {
	if _, err := db.ExecContext(ctx, "CREATE TEMP TABLE "+table+"Model AS "+models); err != nil {
		return "", err
	}
	rows, err := db.QueryContext(ctx, "SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var columns, values []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return "", err
		}
		value, ok := replaced[name]
		if !ok {
			value = "t." + name
		}
		columns, values = append(columns, name), append(values, value)
	}
	return fmt.Sprintf("WITH RECURSIVE s(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM s WHERE i < ?2) INSERT INTO %[1]s (%[2]s) SELECT %[3]s FROM s CROSS JOIN temp.%[1]sModel t",
		table, strings.Join(columns, ", "), strings.Join(values, ", ")), rows.Err()
}
