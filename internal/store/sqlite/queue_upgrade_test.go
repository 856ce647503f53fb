package sqlite

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/turn"
)

// lanesBefore is how a file had its lanes before they had resources and classes.
const lanesBefore = `
DROP TABLE lanes;
CREATE TABLE lanes (
	lane TEXT NOT NULL PRIMARY KEY, tenant TEXT NOT NULL,
	scheduled INTEGER NOT NULL, ready INTEGER NOT NULL, running INTEGER NOT NULL, parked INTEGER NOT NULL,
	succeeded INTEGER NOT NULL, dead INTEGER NOT NULL, cancelled INTEGER NOT NULL, expired INTEGER NOT NULL,
	vtime INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX lanesReady ON lanes (vtime) WHERE ready > 0;
CREATE INDEX lanesTenant ON lanes (tenant);
DROP TABLE limits; DROP TABLE pauses;
ALTER TABLE jobs DROP COLUMN pair; ALTER TABLE jobs DROP COLUMN home;
UPDATE jobs SET lane = CASE type WHEN 'slow' THEN tenant || '/hook' ELSE tenant END;
INSERT INTO lanes SELECT lane, tenant, sum(state = 'scheduled'), sum(state = 'ready'), sum(state = 'running'), sum(state = 'parked'), 0, 0, 0, 0, 7000 FROM jobs GROUP BY lane;`

// A file made before lanes had resources and classes, as a backup may be, goes on where it stopped.
func TestQueueUpgrade(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "services.db")
	db, err := Open(ctx, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	q, err := OpenQueue(ctx, db, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	jobs := []store.NewJob{
		{Tenant: "A", Type: "main"}, {Tenant: "A", Type: "slow"}, {Type: "main"}, {Type: "slow"},
		{Tenant: "B", Type: "main", ClaimFor: "w"}, {Tenant: "B", Type: "main", RunAt: time.Now().Add(time.Hour)},
	}
	made, err := q.Enqueue(ctx, jobs...)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.f.write(ctx, func(tx *wtx) error { return tx.script(lanesBefore) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	q = testQueue(t, path, time.Now)
	q.sound(t)
	want := []string{"A/internal/normal", "A/hook/normal", "/internal/normal", "/hook/normal", "B/internal/normal", "B/internal/normal"}
	for i, e := range made {
		if j, err := q.Job(ctx, e.Job.ID); err != nil || j.Lane != want[i] || j.Class != store.Normal {
			t.Errorf("%+v, %v, want in %s", j, err, want[i])
		}
	}
	lanes, err := q.Lanes(ctx, "", 10)
	if err != nil || len(lanes) != 5 || lanes[2].Resource != "hook" || lanes[2].Class != store.Normal || lanes[2].Tenant != "A" {
		t.Errorf("%+v, %v", lanes, err)
	}
	if q.mem.Floor[turn.Normal] != 7000 {
		t.Errorf("the floor is %v", q.mem.Floor)
	}
	got, err := q.Claim(ctx, store.ClaimRequest{Owner: "w2", Limit: 10, Lease: time.Minute, Types: []string{"main", "slow"}})
	if err != nil || len(got) != 4 {
		t.Errorf("claimed %+v, %v", got, err)
	}
	if held, err := q.Finish(ctx, store.Outcome{ID: made[4].Job.ID, Token: 1, State: store.Succeeded}); err != nil || !held[0] {
		t.Error(held, err)
	}
	q.sound(t)
	if _, err := OpenQueue(ctx, &DB{f: q.f}, time.Now); err != nil { // once is enough
		t.Error(err)
	}
}
