package sqlite

import "strings"

// The queue's tables. Times are Unix milliseconds, NULL where there is none.
//
// Every index but two (id, tenant) is partial, so that a finished job is in none that a claim, a beat or a
// promotion reads: five million of them cost those nothing. n is the order in which jobs were made.
// lanes and jobTypes count the jobs of every state in the transaction that changes them; nothing ever counts rows.
// jobKeys outlives jobs: state, token and keepUntil are set when the row of its job is pruned.
const queueSchema = `
CREATE TABLE IF NOT EXISTS jobs (
	n INTEGER PRIMARY KEY, _id TEXT NOT NULL, tenant TEXT NOT NULL, type TEXT NOT NULL, lane TEXT NOT NULL,
	payload TEXT NOT NULL, state TEXT NOT NULL, runAt INTEGER NOT NULL, expiresAt INTEGER,
	attempt INTEGER NOT NULL DEFAULT 0, maxAttempts INTEGER NOT NULL, starts INTEGER NOT NULL DEFAULT 0,
	crashes INTEGER NOT NULL DEFAULT 0, token INTEGER NOT NULL DEFAULT 0, owner TEXT, leaseUntil INTEGER,
	uniqueKey TEXT, payloadHash TEXT, holdsKey INTEGER NOT NULL DEFAULT 0, causation TEXT,
	cancelRequested INTEGER NOT NULL DEFAULT 0, errors TEXT, result TEXT,
	createdAt INTEGER NOT NULL, startedAt INTEGER, endedAt INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS jobsId ON jobs (_id);
CREATE INDEX IF NOT EXISTS jobsTenant ON jobs (tenant, type);
CREATE INDEX IF NOT EXISTS jobsReady ON jobs (lane, runAt) WHERE state = 'ready';
CREATE INDEX IF NOT EXISTS jobsRunning ON jobs (owner) WHERE state = 'running';
CREATE INDEX IF NOT EXISTS jobsDue ON jobs (runAt) WHERE state = 'scheduled';
CREATE INDEX IF NOT EXISTS jobsRare ON jobs (state, tenant)
	WHERE state <> 'ready' AND state <> 'running' AND state <> 'succeeded';
CREATE INDEX IF NOT EXISTS jobsExpiry ON jobs (expiresAt) WHERE expiresAt IS NOT NULL AND endedAt IS NULL;
CREATE INDEX IF NOT EXISTS jobsEnded ON jobs (state, holdsKey, endedAt) WHERE endedAt IS NOT NULL;
CREATE TABLE IF NOT EXISTS jobKeys (
	tenant TEXT NOT NULL, uniqueKey TEXT NOT NULL, jobId TEXT NOT NULL, payloadHash TEXT NOT NULL,
	state TEXT, token INTEGER, keepUntil INTEGER, PRIMARY KEY (tenant, uniqueKey)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobKeysPruned ON jobKeys (keepUntil) WHERE keepUntil IS NOT NULL;`

// jobColumnsAdded came after the first files were made: each is added where it is missing. pair is NewJob.Pair; home the
// lane that a job in quarantine came from.
var jobColumnsAdded = []struct{ name, declaration string }{
	{"pair", "TEXT"},
	{"home", "TEXT"},
}

// The lanes' tables. class is Class.Patience. A lane may be claimed from while eligibleAt, the later of pausedUntil and
// limitedUntil, is 0: what is paused or at its rate is in no index that a claim reads through, until a claim finds that
// its time has come. never: until somebody resumes it. trial is when the pause after which the lane is on trial ends; 0:
// it is not.
//
// limits holds the GCRA's theoretical arrival time of a key, in Unix nanoseconds: of TENANT/RESOURCE, what of it patient
// classes may take (TENANT/RESOURCE/bulk), and pairs (TENANT/RESOURCE#PAIR).
// pauses keeps what is over for as long as a new pause would be its continuation.
const laneSchema = `
CREATE TABLE IF NOT EXISTS lanes (
	lane TEXT NOT NULL PRIMARY KEY, tenant TEXT NOT NULL, resource TEXT NOT NULL, class INTEGER NOT NULL,
	scheduled INTEGER NOT NULL, ready INTEGER NOT NULL, running INTEGER NOT NULL, parked INTEGER NOT NULL,
	succeeded INTEGER NOT NULL, dead INTEGER NOT NULL, cancelled INTEGER NOT NULL, expired INTEGER NOT NULL,
	vtime INTEGER NOT NULL, pausedUntil INTEGER NOT NULL DEFAULT 0, limitedUntil INTEGER NOT NULL DEFAULT 0,
	eligibleAt INTEGER NOT NULL DEFAULT 0, trial INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lanesReady ON lanes (class, vtime) WHERE ready > 0 AND eligibleAt = 0;
CREATE INDEX IF NOT EXISTS lanesBlocked ON lanes (eligibleAt) WHERE ready > 0 AND eligibleAt > 0;
CREATE INDEX IF NOT EXISTS lanesTenant ON lanes (tenant);
CREATE TABLE IF NOT EXISTS limits (key TEXT NOT NULL PRIMARY KEY, tat INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS limitsPast ON limits (tat);
CREATE TABLE IF NOT EXISTS pauses (
	scope TEXT NOT NULL, reason TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL, detail TEXT NOT NULL,
	times INTEGER NOT NULL, length INTEGER NOT NULL, PRIMARY KEY (scope, reason)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pausesEnd ON pauses (until);`

// typesTable makes the numbers by type; of a file that has none yet they are counted, this once.
func typesTable(tx *wtx) error {
	has, err := columnsOf(tx, "jobTypes")
	if err != nil || len(has) > 0 {
		return err
	}
	var columns, sums []string
	for _, s := range states {
		columns = append(columns, string(s)+" INTEGER NOT NULL")
		sums = append(sums, "sum(state = '"+string(s)+"')")
	}
	err = tx.script("CREATE TABLE jobTypes (tenant TEXT NOT NULL, type TEXT NOT NULL, " + strings.Join(columns, ", ") + ", PRIMARY KEY (tenant, type)) WITHOUT ROWID")
	if err != nil {
		return err
	}
	_, err = tx.exec("INSERT INTO jobTypes SELECT tenant, type, " + strings.Join(sums, ", ") + " FROM jobs GROUP BY tenant, type")
	return err
}

// upgradeQueue makes the tables, of a file that has older ones too.
func upgradeQueue(tx *wtx) error {
	if err := tx.script(queueSchema + owedSchema); err != nil {
		return err
	}
	if err := typesTable(tx); err != nil {
		return err
	}
	has, err := columnsOf(tx, "jobs")
	if err != nil {
		return err
	}
	if err := causeTables(tx, has); err != nil {
		return err
	}
	for _, c := range jobColumnsAdded {
		if has[c.name] {
			continue
		}
		if err := tx.script(`ALTER TABLE jobs ADD COLUMN ` + c.name + ` ` + c.declaration); err != nil {
			return err
		}
	}
	if has, err = columnsOf(tx, "lanes"); err != nil {
		return err
	}
	if len(has) > 0 && !has["class"] {
		return renameLanes(tx)
	}
	return tx.script(laneSchema)
}

// renameLanes turns the lanes of a file in which they had neither resource nor class: a lane was its tenant, or
// TENANT/NAME.
func renameLanes(tx *wtx) error {
	const renamed = `CASE WHEN lane = tenant THEN lane || '/internal/normal' ELSE lane || '/normal' END`
	if _, err := tx.exec(`UPDATE jobs SET lane = ` + renamed); err != nil {
		return err
	}
	if err := tx.script(`ALTER TABLE lanes RENAME TO lanesBefore; DROP INDEX lanesReady; DROP INDEX lanesTenant; ` + laneSchema); err != nil {
		return err
	}
	_, err := tx.exec(`INSERT INTO lanes (lane, tenant, resource, class, scheduled, ready, running, parked, succeeded, dead, cancelled, expired, vtime)
		SELECT ` + renamed + `, tenant, CASE WHEN lane = tenant THEN 'internal' ELSE substr(lane, length(tenant) + 2) END, 1,
			scheduled, ready, running, parked, succeeded, dead, cancelled, expired, vtime FROM lanesBefore`)
	if err != nil {
		return err
	}
	return tx.script(`DROP TABLE lanesBefore`)
}

func columnsOf(tx *wtx, table string) (map[string]bool, error) {
	has := map[string]bool{}
	for r, err := range tx.rows(`SELECT name FROM pragma_table_info(?)`, table) {
		if err != nil {
			return nil, err
		}
		has[r.text(0)] = true
	}
	return has, nil
}
