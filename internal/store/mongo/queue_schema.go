package mongo

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// The queue's collections: jobs, jobCounts (see tally), lanes, limits and pauses.
//
// Members of a job are named as in store.Job; times are dates, and what there is none of is absent. Besides:
//
//	n                the order in which jobs were made
//	home             the lane that a job in quarantine came from
//	payloadHash      what a second job of the key must equal
//	cancelRequested  its owner is asked to stop
//	owed             it ended by itself, and its domain was not told yet
//	_key             TENANT/KEY while the job holds its unique key
//	_ending          an outcome that is being written
//	_asked           the id under which the job was asked for that took this one's place last
//	_step            the update that changed the job last, where many were made at once
//	_claim           the claim that took a running job
//	_trial           its lane, while the job is the one that runs of a lane on trial
//
// A stub has the state "pruned", and of a job only what its key needs: ended, its last state, and keepUntil.
const (
	orderField = "n"
	pruned     = store.State("pruned")
)

// leaveRunning is what a job loses when it stops running.
var leaveRunning = bson.D{is("owner", ""), is("leaseUntil", ""), is("_claim", ""), is("_trial", ""), is("_ending", "")}

// indexRevision is raised with every change of the indexes.
const indexRevision = "1"

func index(name string, keys bson.D, partial bson.D) driver.IndexModel {
	return driver.IndexModel{Keys: keys, Options: options.Index().SetName(name).SetPartialFilterExpression(partial)}
}

// held are the states in which a job waits.
var held = []store.State{store.Scheduled, store.Ready, store.Parked}

// rare are the states whose jobs are listed through an index of their own: no claim and no ordinary end touches it.
var rare = []store.State{store.Scheduled, store.Parked, store.Dead, store.Cancelled, store.Expired}

// makeIndexes makes the indexes of the jobs. But for three (id, tenant, order) they are partial, so
// that a job that succeeded is in none that a claim, a beat or a promotion reads.
func (q *Queue) makeIndexes(ctx context.Context) error {
	state := func(s store.State) bson.D { return bson.D{is("state", s)} }
	up := func(names ...string) (keys bson.D) {
		for _, n := range names {
			keys = append(keys, is(n, 1))
		}
		return keys
	}
	models := []driver.IndexModel{
		{Keys: bson.D{is(orderField, -1)}, Options: options.Index().SetName("made")},
		{Keys: bson.D{is("tenant", 1), is("type", 1), is(orderField, -1)}, Options: options.Index().SetName("tenant")},
		{Keys: up("_key"), Options: options.Index().SetName("key").SetUnique(true).SetSparse(true)},
		{Keys: up("_trial"), Options: options.Index().SetName("trial").SetUnique(true).SetSparse(true)},
		{Keys: up("_claim"), Options: options.Index().SetName("claim").SetSparse(true)},
		{Keys: up("keepUntil"), Options: options.Index().SetName("stubs").SetSparse(true)},
		index("ready", up("state", "lane", "runAt", orderField), state(store.Ready)),
		index("owner", up("owner"), state(store.Running)),
		index("running", up("lane"), state(store.Running)),
		index("lease", up("leaseUntil"), state(store.Running)),
		index("due", up("runAt", orderField), state(store.Scheduled)),
		index("expiry", up("expiresAt"), bson.D{is("state", in(held)), is("expiresAt", there)}),
		index("rare", bson.D{is("state", 1), is("tenant", 1), is(orderField, -1)}, bson.D{is("state", in(rare))}),
		index("ended", up("state", "endedAt"), bson.D{is("endedAt", there)}),
		index("keyed", up("endedAt"), bson.D{is("state", in([]store.State{store.Dead, store.Cancelled, store.Expired})), is("_key", there)}),
		index("owed", up(orderField), bson.D{is("owed", true)}),
	}
	for _, c := range causes {
		name := "causation." + c.name
		models = append(models, index(c.name, bson.D{is(name, 1), is(orderField, -1)}, bson.D{is(name, there)}))
	}
	return q.db.ensure(ctx, "queue", indexRevision, map[string][]driver.IndexModel{
		jobs:      models,
		jobCounts: {{Keys: up("tenant"), Options: options.Index().SetName("tenant")}},
	})
}

// causes are what the jobs of one thing are found by, the one that most narrows a search first.
var causes = []struct {
	name string
	of   func(store.Causation) string
}{
	{"runId", func(c store.Causation) string { return c.RunID }},
	{"appointmentId", func(c store.Causation) string { return c.AppointmentID }},
	{"eventId", func(c store.Causation) string { return c.EventID }},
	{"leadId", func(c store.Causation) string { return c.LeadID }},
	{"campaignId", func(c store.Causation) string { return c.CampaignID }},
}
