package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// work is what both sides' jobs are given: about 200 bytes of JSON.
type work struct {
	Seq    int64  `json:"seq"`
	Client string `json:"client"`
	Pad    string `json:"pad"`
}

const pad = "msg_0191f0c3aaaa70000000000000000001 cnv_0191f0c3aaaa70000000000000000001 led_0191f0c3aaaa70000000000000000001 run_0191f0c3aaaa7000000000000000000"

// Kind implements river.JobArgs.
func (work) Kind() string { return "work" }

// doer is River's worker.
type doer struct {
	river.WorkerDefaults[work]
	do func(work)
}

func (d *doer) Work(_ context.Context, j *river.Job[work]) error {
	d.do(j.Args)
	return nil
}

// rival is River on the run's PostgreSQL, with an empty table.
type rival struct {
	pg     *postgres
	client *river.Client[pgx.Tx]
}

// newRival sets River up for speed: it may fetch every millisecond instead of ten times a second. workers 0: it only
// inserts.
func (b *bench) newRival(ctx context.Context, workers int, do func(work)) (*rival, error) {
	driver := riverpgxv5.New(b.pg.pool)
	quiet := slog.New(slog.DiscardHandler)
	m, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return nil, err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	r := &rival{pg: b.pg}
	if err := r.empty(ctx); err != nil {
		return nil, err
	}
	cfg := &river.Config{Logger: quiet, FetchCooldown: time.Millisecond, FetchPollInterval: 20 * time.Millisecond}
	if workers > 0 {
		cfg.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}}
		cfg.Workers = river.NewWorkers()
		river.AddWorker(cfg.Workers, &doer{do: do})
	}
	r.client, err = river.NewClient(driver, cfg)
	return r, err
}

func (r *rival) empty(ctx context.Context) error {
	_, err := r.pg.pool.Exec(ctx, "TRUNCATE river_job")
	return err
}

func (r *rival) insert(ctx context.Context, w work) error {
	_, err := r.client.Insert(ctx, w, nil)
	return err
}

// fill inserts n jobs of a client the fast way, and lets PostgreSQL learn how many there are.
func (r *rival) fill(ctx context.Context, n int, client func(i int) string) error {
	const batch = 5000
	for from := 0; from < n; from += batch {
		all := make([]river.InsertManyParams, min(batch, n-from))
		for i := range all {
			all[i].Args = work{int64(from + i), client(from + i), pad}
		}
		if _, err := r.client.InsertManyFast(ctx, all); err != nil {
			return err
		}
	}
	_, err := r.pg.pool.Exec(ctx, "VACUUM ANALYZE river_job")
	return err
}

// settled waits until no job is left to do or under way.
func (r *rival) settled(ctx context.Context) error {
	for {
		var left bool
		err := r.pg.pool.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM river_job WHERE state IN ('available', 'running'))").Scan(&left)
		if err != nil || !left {
			return err
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

func (r *rival) completed(ctx context.Context, want int) error {
	var n int
	if err := r.pg.pool.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'").Scan(&n); err != nil {
		return err
	}
	if n != want {
		return fmt.Errorf("%d of %d jobs of River completed", n, want)
	}
	return nil
}

// halt stops the workers; what they are at is cancelled.
func (r *rival) halt() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return r.client.StopAndCancel(ctx)
}
