package sqlite

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// TestQueuePlans: whatever jobs are asked for by, an index finds them, in the order they are told in.
func TestQueuePlans(t *testing.T) {
	ctx := context.Background()
	q := testQueue(t, filepath.Join(t.TempDir(), "services.db"), time.Now)
	for _, c := range []struct {
		f    store.JobFilter
		uses string
	}{
		{store.JobFilter{Tenant: "A", Cause: store.Causation{RunID: "r"}}, "jobsOfRun (runId=? AND rowid<?)"},
		{store.JobFilter{Tenant: "A", Cause: store.Causation{LeadID: "l"}, States: []store.State{store.Ready, store.Scheduled}}, "jobsOfLead (leadId=? AND rowid<?)"},
		{store.JobFilter{Tenant: "A", Cause: store.Causation{CampaignID: "c"}, Types: []string{"a", "b"}}, "jobsOfCampaign (campaignId=? AND rowid<?)"},
		{store.JobFilter{AllTenants: true, Cause: store.Causation{AppointmentID: "a", LeadID: "l"}}, "jobsOfAppointment (appointmentId=? AND rowid<?)"},
		{store.JobFilter{Tenant: "A", Cause: store.Causation{EventID: "e", CampaignID: "c"}}, "jobsOfEvent (eventId=? AND rowid<?)"},
	} {
		var plan []string
		err := q.f.read(ctx, func(conn *conn) error {
			l := list{below: never, limit: 10}
			if err := l.build(ctx, conn, c.f); err != nil {
				return err
			}
			for r, err := range conn.rows(ctx, "EXPLAIN QUERY PLAN "+l.query(), append(l.args, 10)...) {
				if err != nil {
					return err
				}
				plan = append(plan, r.text(3))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if p := strings.Join(plan, "\n"); !strings.Contains(p, c.uses) || strings.Contains(p, "SCAN jobs") {
			t.Errorf("%+v:\n%s\nwant %s", c.f, p, c.uses)
		}
	}
}

// TestStandingPlans: how the queue stands is told from its lanes and pauses, and one look into each lane that can run.
func TestStandingPlans(t *testing.T) {
	ctx := context.Background()
	q := testQueue(t, filepath.Join(t.TempDir(), "services.db"), time.Now)
	for sql, uses := range map[string][]string{
		oldestReady:  {"SCAN l USING INDEX lanesReady", "SEARCH jobs USING", "jobsReady (lane=?)"},
		pausedScopes: {"SEARCH pauses USING COVERING INDEX pausesEnd (until>?)"},
	} {
		var plan []string
		err := q.f.read(ctx, func(conn *conn) error {
			var args []any
			if strings.Contains(sql, "?") {
				args = append(args, 0)
			}
			for r, err := range conn.rows(ctx, "EXPLAIN QUERY PLAN "+sql, args...) {
				if err != nil {
					return err
				}
				plan = append(plan, r.text(3))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range uses {
			if p := strings.Join(plan, "\n"); !strings.Contains(p, u) {
				t.Errorf("%s:\n%s\nwant %s", sql, p, u)
			}
		}
	}
}

// TestQueueOfAnEarlierLayout: a file from before jobs had columns of their causes gets them, with what the jobs say.
func TestQueueOfAnEarlierLayout(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "services.db")
	q := testQueue(t, path, time.Now)
	made, err := q.Enqueue(ctx, store.NewJob{Tenant: "A", Type: "a", Causation: store.Causation{RunID: "r", LeadID: "l"}}, store.NewJob{Tenant: "A", Type: "a"},
		store.NewJob{Tenant: "A", Type: "a", Causation: store.Causation{RunID: "r"}})
	if err != nil {
		t.Fatal(err)
	}
	err = q.f.write(ctx, func(tx *wtx) error {
		for _, c := range causes {
			if err := tx.script("DROP INDEX " + c.index + "; ALTER TABLE jobs DROP COLUMN " + c.column); err != nil {
				return err
			}
		}
		_, err := tx.exec(`UPDATE jobs SET causation = '{' WHERE _id = ?`, made[2].Job.ID) // a hand slipped
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if q, err = openQueue(ctx, q.f, time.Now); err != nil {
		t.Fatal(err)
	}
	for _, cause := range []store.Causation{{RunID: "r"}, {LeadID: "l"}} {
		found, err := q.Jobs(ctx, store.JobFilter{Tenant: "A", Cause: cause})
		if err != nil || len(found) != 1 || found[0].ID != made[0].Job.ID {
			t.Errorf("%+v: %v, %v", cause, fmt.Sprint(found), err)
		}
	}
}

var placeholder = regexp.MustCompile(`\?(\d*)`)

// parameters counts the arguments of a statement.
func parameters(sql string) (n int) {
	for _, m := range placeholder.FindAllStringSubmatch(sql, -1) {
		if m[1] == "" {
			n++
		} else if i, _ := strconv.Atoi(m[1]); i > n {
			n = i
		}
	}
	return n
}

// TestQueueStatements: no statement of the queue's daily work reads a table through, nor sorts but what one job or one
// tenant has.
func TestQueueStatements(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	q := testQueue(t, filepath.Join(t.TempDir(), "services.db"), func() time.Time { return now })
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r := store.ClaimRequest{Owner: "w", Limit: 8, Slots: 16, Lease: time.Second, Types: []string{"a"}, Quarantine: true, MaxPerTenant: 8,
		Bounds: func(string, string) store.Bounds {
			return store.Bounds{Running: 3, Rate: store.Rate{Every: time.Second, Burst: 2}, Pair: store.Rate{Every: time.Second}}
		}}
	made := map[string]bool{} // by the start of the queue, which may read all of it once
	for sql := range q.f.w.stmts {
		made[sql] = true
	}
	var reader *conn // the one that all reads get
	for round := range 3 {
		var jobs []store.NewJob
		for i := range 40 {
			jobs = append(jobs, store.NewJob{Tenant: fmt.Sprint("T", i%3), Type: "a", Class: store.Classes[i%4], Resource: fmt.Sprint("wa:", i%2), Pair: fmt.Sprint(i % 5),
				UniqueKey: fmt.Sprint(round, "-", i), ExpiresAt: now.Add(time.Hour)})
		}
		must(q.Enqueue(ctx, jobs...))
		got, err := q.Claim(ctx, r)
		must(got, err)
		for i, j := range got {
			o := store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded}
			switch i {
			case 0:
				o.State, o.Pause = store.Ready, &store.PauseRequest{Reason: store.RateLimited, For: time.Second}
			case 1:
				o.State, o.RunAt = store.Scheduled, now.Add(time.Second)
			case 2, 3:
				continue // its worker dies
			}
			must(q.Finish(ctx, o))
		}
		must(q.Pause(ctx, store.PauseRequest{Scope: "T1/wa", Reason: store.Operator}))
		must(q.Resume(ctx, "T1/wa", ""))
		must(q.Pauses(ctx, "T1"))
		must(q.Paused(ctx, "T1/wa:1/bulk"))
		_, _, err = q.Take(ctx, "T1/mail", store.Rate{Every: time.Second, Burst: 3}, 2)
		must(nil, err)
		must(q.Beat(ctx, "x", time.Second))
		now = now.Add(2 * time.Second)
		_, _, err = q.Promote(ctx)
		must(nil, err)
		must(q.Release(ctx, "x"))
		must(q.Prune(ctx, 100))
		must(nil, q.f.read(ctx, func(c *conn) error { reader = c; return nil }))
	}
	must(nil, q.f.write(ctx, func(tx *wtx) error {
		texts := slices.Concat(slices.Collect(maps.Keys(tx.c.stmts)), slices.Collect(maps.Keys(reader.stmts)))
		checked := 0
		for _, sql := range texts {
			word, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
			if made[sql] || !slices.Contains([]string{"SELECT", "INSERT", "UPDATE", "DELETE"}, word) {
				continue
			}
			checked++
			for row, err := range tx.c.rows(ctx, "EXPLAIN QUERY PLAN "+sql, make([]any, parameters(sql))...) {
				if err != nil {
					return fmt.Errorf("%s: %w", sql, err)
				}
				step := row.text(3)
				if strings.HasPrefix(step, "SCAN") && !strings.Contains(step, "INDEX") && !strings.Contains(step, "CONSTANT") && !strings.Contains(step, "VIRTUAL") &&
					!strings.Contains(step, "json_each") || strings.Contains(step, "TEMP B-TREE") {
					t.Errorf("%s\n\t%s", sql, step)
				}
			}
		}
		if checked < 25 {
			t.Errorf("only %d statements", checked)
		}
		return nil
	}))
}
