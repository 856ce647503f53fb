package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

func benchQueue(b *testing.B) *Queue {
	b.Helper()
	db, err := Open(context.Background(), filepath.Join(b.TempDir(), "services.db"), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	q, err := OpenQueue(context.Background(), db, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	return q
}

func benchJob(i int64) store.NewJob {
	return store.NewJob{
		Tenant: fmt.Sprintf("T%02d", i%50), Type: "whatsapp.send", UniqueKey: fmt.Sprintf("send:msg_%032x", uint64(i)*0x9e3779b97f4a7c15),
		Payload: json.RawMessage(`{"messageId":"msg_0191f0c3aaaa70000000000000000001","conversationId":"cnv_0191f0c3aaaa70000000000000000001"}`),
	}
}

// BenchmarkEnqueue64: single durable jobs with a unique key, from 64 callers.
func BenchmarkEnqueue64(b *testing.B) {
	q := benchQueue(b)
	parallel(b, 64, func(i int64) {
		if _, err := q.Enqueue(context.Background(), benchJob(i)); err != nil {
			b.Error(err)
		}
	})
}

func (q *Queue) fill(b *testing.B, n int) {
	b.Helper()
	for i := 0; i < n; i += 1000 {
		jobs := make([]store.NewJob, min(1000, n-i))
		for k := range jobs {
			jobs[k] = benchJob(int64(i + k))
		}
		if _, err := q.Enqueue(context.Background(), jobs...); err != nil {
			b.Fatal(err)
		}
	}
}

func (q *Queue) claim(b *testing.B, n int) []store.Job {
	b.Helper()
	jobs, err := q.Claim(context.Background(), store.ClaimRequest{Owner: "w", Limit: n, Lease: 15 * time.Second, Types: []string{"whatsapp.send", "other"}})
	if err != nil {
		b.Fatal(err)
	}
	return jobs
}

func (q *Queue) drainBatch(b *testing.B, n int) int {
	b.Helper()
	jobs := q.claim(b, n)
	outcomes := make([]store.Outcome, len(jobs))
	for i, j := range jobs {
		outcomes[i] = store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded}
	}
	if _, err := q.Finish(context.Background(), outcomes...); err != nil {
		b.Fatal(err)
	}
	return len(jobs)
}

// BenchmarkDrain: one worker claims 64 jobs at a time and finishes them together, both durable.
func BenchmarkDrain(b *testing.B) {
	q := benchQueue(b)
	q.fill(b, b.N)
	b.ResetTimer()
	for done := 0; done < b.N; {
		n := q.drainBatch(b, 64)
		if n == 0 {
			b.Fatal("nothing left")
		}
		done += n
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// BenchmarkFinish16: 16 workers that finish single jobs, as the runner does.
func BenchmarkFinish16(b *testing.B) {
	q := benchQueue(b)
	q.fill(b, b.N)
	jobs, err := q.Claim(context.Background(), store.ClaimRequest{Owner: "w", Limit: b.N, Lease: time.Hour, Types: []string{"whatsapp.send"}})
	if err != nil || len(jobs) != b.N {
		b.Fatal(len(jobs), err)
	}
	parallel(b, 16, func(i int64) {
		j := jobs[i-1]
		held, err := q.Finish(context.Background(), store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded})
		if err != nil || !held[0] {
			b.Error(held, err)
		}
	})
}

// BenchmarkHistory compares an empty history with a million finished jobs, without syncs: it must make no difference.
func BenchmarkHistory(b *testing.B) {
	for _, finished := range []int{0, 1_000_000} {
		b.Run(fmt.Sprint(finished), func(b *testing.B) {
			q := benchQueue(b)
			if finished > 0 {
				q.history(b, finished)
			}
			q.fill(b, 50) // as many lanes in both
			// The disk is still busy with the history: compare the work, not its syncs.
			if err := q.f.w.script("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA synchronous = OFF"); err != nil {
				b.Fatal(err)
			}
			q.drainBatch(b, 100)
			ctx := context.Background()
			b.Run("Claim", func(b *testing.B) {
				jobs := make([]store.NewJob, b.N)
				for i := range jobs {
					jobs[i] = store.NewJob{Tenant: fmt.Sprintf("T%02d", i%50), Type: "other"}
				}
				if _, err := q.Enqueue(ctx, jobs...); err != nil {
					b.Fatal(err)
				}
				b.ResetTimer()
				for range b.N {
					if len(q.claim(b, 1)) != 1 {
						b.Fatal("nothing claimed")
					}
				}
			})
			b.Run("EnqueueClaimFinish", func(b *testing.B) {
				for i := range b.N {
					if _, err := q.Enqueue(ctx, store.NewJob{Tenant: "T01", Type: "other", UniqueKey: fmt.Sprint(b.N, i, time.Now().UnixNano())}); err != nil {
						b.Fatal(err)
					}
					if q.drainBatch(b, 1) != 1 {
						b.Fatal("nothing claimed")
					}
				}
			})
			b.Run("Promote", func(b *testing.B) {
				for range b.N {
					if _, _, err := q.Promote(ctx); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("JobCounts", func(b *testing.B) {
				for range b.N {
					if _, err := q.JobCounts(ctx, ""); err != nil {
						b.Fatal(err)
					}
				}
			})
			for name, f := range map[string]store.JobFilter{
				"JobsNewest":   {Tenant: "T01", Limit: 50},
				"JobsDead":     {Tenant: "T01", States: []store.State{store.Dead}, Limit: 50},
				"JobsRareType": {Tenant: "T01", Types: []string{"other"}, Limit: 50},
				"JobsAllDead":  {AllTenants: true, States: []store.State{store.Dead, store.Ready}, Limit: 50},
			} {
				b.Run(name, func(b *testing.B) {
					for range b.N {
						if _, err := q.Jobs(ctx, f); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			b.Run("Prune", func(b *testing.B) {
				for range b.N {
					if n, err := q.Prune(ctx, 1000); err != nil || n != 0 {
						b.Fatal(n, err)
					}
				}
			})
		})
	}
}

// history writes finished jobs straight into the tables, as they would be a minute after their end.
func (q *Queue) history(b *testing.B, n int) {
	b.Helper()
	const batch = 20_000
	now := time.Now().UnixMilli()
	for from := 0; from < n; from += batch {
		err := q.f.write(context.Background(), func(tx *wtx) error {
			series := fmt.Sprintf(`WITH RECURSIVE s(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM s WHERE i < %d)`, from, min(from+batch, n)-1)
			for _, sql := range []string{
				series + ` INSERT INTO jobs (_id, tenant, type, lane, payload, state, runAt, maxAttempts, uniqueKey, payloadHash, holdsKey, createdAt, token, starts, startedAt, endedAt)
					SELECT printf('job_%032x', i), printf('T%02d', i % 50), 'whatsapp.send', printf('T%02d', i % 50), '{"messageId":"msg_0191f0c3aaaa70000000000000000001"}',
						'succeeded', ?, 8, printf('old:%032x', i), 'h', 1, ?, 1, 1, ?, ? FROM s`,
				series + ` INSERT INTO jobKeys (tenant, uniqueKey, jobId, payloadHash) SELECT printf('T%02d', i % 50), printf('old:%032x', i), printf('job_%032x', i), 'h' FROM s`,
			} {
				args := []any{now, now, now, now}
				if _, err := tx.exec(sql, args[:min(4, strings.Count(sql, "?"))]...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
