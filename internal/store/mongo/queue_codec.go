package mongo

import (
	"math"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/ecodrix/ecod/internal/store"
)

// jobDoc is a job as its document has it.
type jobDoc struct {
	store.Job
	n         int64
	home      string // "" outside quarantine
	hash      string // of what a second job of its key must equal
	holds     bool   // its unique key
	asked     string // _asked
	cancel    bool   // it is asked to stop
	owed      bool
	pruned    bool // a stub: ID, Tenant, UniqueKey, State and Token are all that is known
	keepUntil time.Time
	ending    *ending
}

// keyOf is what a job has in _key.
func keyOf(tenant, uniqueKey string) string { return tenant + "/" + uniqueKey }

// newDoc is the document of a job that is made.
func (q *Queue) newDoc(w store.Wanted, now int64) (store.Job, bson.D) {
	j := w.Made(msTime(now))
	d := bson.D{
		is("_id", j.ID), is(orderField, q.nextNumber(now)), is("tenant", j.Tenant), is("type", j.Type), is("lane", j.Lane), is("state", string(j.State)),
		is("runAt", date(j.RunAt)), is("payload", jsonValue(j.Payload)), is("attempt", int32(0)), is("maxAttempts", int64(j.MaxAttempts)),
		is("starts", int64(j.Starts)), is("crashes", int32(0)), is("token", j.Token), is("createdAt", date(j.CreatedAt)),
	}
	d = withTexts(d, "pair", j.Pair, "owner", j.Owner, "uniqueKey", j.UniqueKey, "payloadHash", w.Hash)
	d = withDates(d, "expiresAt", j.ExpiresAt, "leaseUntil", j.LeaseUntil, "startedAt", j.StartedAt)
	if j.UniqueKey != "" {
		d = append(d, is("_key", keyOf(j.Tenant, j.UniqueKey)))
	}
	if c := causationDoc(j.Causation); len(c) > 0 {
		d = append(d, is("causation", c))
	}
	return j, d
}

func date(t time.Time) bson.DateTime { return bson.DateTime(t.UnixMilli()) }

// withTexts adds members that are not "".
func withTexts(d bson.D, named ...string) bson.D {
	for ; len(named) > 1; named = named[2:] {
		if named[1] != "" {
			d = append(d, is(named[0], named[1]))
		}
	}
	return d
}

// withDates adds members that are a time.
func withDates(d bson.D, named ...any) bson.D {
	for ; len(named) > 1; named = named[2:] {
		if t, _ := named[1].(time.Time); !t.IsZero() {
			name, _ := named[0].(string)
			d = append(d, is(name, date(t)))
		}
	}
	return d
}

func causationDoc(c store.Causation) bson.D {
	return withTexts(nil, "eventId", c.EventID, "runId", c.RunID, "step", c.Step, "jobId", c.JobID, "leadId", c.LeadID,
		"messageId", c.Message, "campaignId", c.CampaignID, "appointmentId", c.AppointmentID)
}

// decodeJob reads a job. What an operator's hand broke in one member leaves the others as they are: one such document
// must not keep the others from running.
func decodeJob(raw bson.Raw) (d jobDoc) {
	elements, _ := raw.Elements()
	var ended string
	for _, e := range elements {
		v := e.Value()
		switch e.Key() {
		case "_id":
			d.ID = textOf(v)
		case orderField:
			d.n = intOf(v)
		case "tenant":
			d.Tenant = textOf(v)
		case "type":
			d.Type = textOf(v)
		case "lane":
			d.Lane = textOf(v)
		case "home":
			d.home = textOf(v)
		case "pair":
			d.Pair = textOf(v)
		case "payload":
			d.Payload = jsonOf(v)
		case "state":
			d.State = store.State(textOf(v))
		case "runAt":
			d.RunAt = timeOf(v)
		case "expiresAt":
			d.ExpiresAt = timeOf(v)
		case "attempt":
			d.Attempt = int(intOf(v))
		case "maxAttempts":
			d.MaxAttempts = int(intOf(v))
		case "starts":
			d.Starts = int(intOf(v))
		case "crashes":
			d.Crashes = int(intOf(v))
		case "token":
			d.Token = intOf(v)
		case "owner":
			d.Owner = textOf(v)
		case "leaseUntil":
			d.LeaseUntil = timeOf(v)
		case "uniqueKey":
			d.UniqueKey = textOf(v)
		case "payloadHash":
			d.hash = textOf(v)
		case "causation":
			d.Causation = causationOf(v)
		case "errors":
			d.Errors = errorsOf(v)
		case "result":
			d.Result = jsonOf(v)
		case "createdAt":
			d.CreatedAt = timeOf(v)
		case "startedAt":
			d.StartedAt = timeOf(v)
		case "endedAt":
			d.EndedAt = timeOf(v)
		case "cancelRequested":
			d.cancel = boolOf(v)
		case "owed":
			d.owed = boolOf(v)
		case "_key":
			d.holds = true
		case "_asked":
			d.asked = textOf(v)
		case "_ending":
			d.ending = endingOf(v)
		case "ended":
			ended = textOf(v)
		case "keepUntil":
			d.keepUntil = timeOf(v)
		}
	}
	if d.State == pruned {
		d.pruned, d.State = true, store.State(ended)
		return d
	}
	_, _, d.Class = store.SplitLane(d.homeLane())
	return d
}

// homeLane is the lane that a job is in when it is not in quarantine.
func (d *jobDoc) homeLane() string {
	if d.home != "" {
		return d.home
	}
	return d.Lane
}

func textOf(v bson.RawValue) string {
	s, _ := v.StringValueOK()
	return s
}

func boolOf(v bson.RawValue) bool {
	b, ok := v.BooleanOK()
	return b || !ok && intOf(v) != 0
}

func intOf(v bson.RawValue) int64 {
	switch v.Type {
	case bson.TypeInt64:
		return v.Int64()
	case bson.TypeInt32:
		return int64(v.Int32())
	case bson.TypeDouble:
		if f := v.Double(); f >= math.MinInt64 && f < math.MaxInt64 {
			return int64(f)
		}
	}
	return 0
}

func timeOf(v bson.RawValue) time.Time {
	if ms, ok := v.DateTimeOK(); ok {
		return msTime(ms)
	}
	return time.Time{}
}

// membersOf gives the members of a subdocument, or of an array; none of what is neither.
func membersOf(v bson.RawValue) []bson.RawElement {
	if v.Type != bson.TypeEmbeddedDocument && v.Type != bson.TypeArray {
		return nil
	}
	es, _ := bson.Raw(v.Value).Elements()
	return es
}

func causationOf(v bson.RawValue) (c store.Causation) {
	for _, e := range membersOf(v) {
		s := textOf(e.Value())
		switch e.Key() {
		case "eventId":
			c.EventID = s
		case "runId":
			c.RunID = s
		case "step":
			c.Step = s
		case "jobId":
			c.JobID = s
		case "leadId":
			c.LeadID = s
		case "messageId":
			c.Message = s
		case "campaignId":
			c.CampaignID = s
		case "appointmentId":
			c.AppointmentID = s
		}
	}
	return c
}

// errorsDoc is the member errors with one more, the last ten.
func errorsDoc(es []store.JobError, more *store.JobError) bson.A {
	if more != nil {
		es = append(es[:len(es):len(es)], *more)
	}
	a := bson.A{}
	for _, e := range es[max(0, len(es)-store.MaxErrors):] {
		a = append(a, bson.D{is("at", date(e.At)), is("attempt", int64(e.Attempt)), is("code", e.Code), is("message", e.Message)})
	}
	return a
}

func errorsOf(v bson.RawValue) (es []store.JobError) {
	for _, e := range membersOf(v) {
		var x store.JobError
		for _, m := range membersOf(e.Value()) {
			switch m.Key() {
			case "at":
				x.At = timeOf(m.Value())
			case "attempt":
				x.Attempt = int(intOf(m.Value()))
			case "code":
				x.Code = textOf(m.Value())
			case "message":
				x.Message = textOf(m.Value())
			}
		}
		es = append(es, x)
	}
	return es
}
