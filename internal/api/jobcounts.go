package api

import (
	"context"
	"maps"
	"slices"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// JobCounts are numbers of jobs by state.
type JobCounts struct {
	Scheduled int64 `json:"scheduled"`
	Ready     int64 `json:"ready"`
	Running   int64 `json:"running"`
	Parked    int64 `json:"parked"`
	Succeeded int64 `json:"succeeded" doc:"In the last day."`
	Dead      int64 `json:"dead" doc:"In the last 30 days."`
	Cancelled int64 `json:"cancelled" doc:"In the last week."`
	Expired   int64 `json:"expired" doc:"In the last week."`
}

func jobCounts(n store.JobCounts) JobCounts {
	return JobCounts{
		n[store.Scheduled], n[store.Ready], n[store.Running], n[store.Parked], n[store.Succeeded], n[store.Dead], n[store.Cancelled], n[store.Expired],
	}
}

// TypeCounts are the numbers of jobs of a type.
type TypeCounts struct {
	Type string `json:"type"`
	JobCounts
}

// JobTally is how many jobs there are. It is read from counters, however many there are.
type JobTally struct {
	States JobCounts    `json:"states"`
	Types  []TypeCounts `json:"types" doc:"By type, in the order of their names."`
}

// ClientTally is how many jobs a client has.
type ClientTally struct {
	JobTally
	Lanes []LaneView `json:"lanes" doc:"The lanes that hold work, in the order of their names, and why it does not run."`
}

func registerCounts(a *API, s jobs) {
	ClientCall(a, Op{Route: "GET /api/jobs/counts", ID: "countJobs", Tag: "Jobs", Summary: "Count jobs by state, type and lane"}, s.counts)
	Admin(a, Op{Route: "GET /api/admin/jobs/counts", ID: "adminCountJobs", Tag: "Operation", Summary: "Count the jobs of all clients, or of one, by state and type"}, s.adminCounts)
}

func (s jobs) tally(ctx context.Context, client string) (t JobTally, err error) {
	n, err := s.queue.JobCounts(ctx, client)
	if err != nil {
		return t, err
	}
	byType, err := s.queue.TypeCounts(ctx, client)
	if err != nil {
		return t, err
	}
	t = JobTally{States: jobCounts(n), Types: []TypeCounts{}}
	for _, name := range slices.Sorted(maps.Keys(byType)) {
		t.Types = append(t.Types, TypeCounts{name, jobCounts(byType[name])})
	}
	return t, nil
}

func (s jobs) counts(ctx context.Context, c Caller, _ *struct{}) (*Answer[ClientTally], error) {
	t, err := s.tally(ctx, c.Client)
	if err != nil {
		return nil, err
	}
	out := ClientTally{JobTally: t, Lanes: []LaneView{}}
	// a client's lanes stand together, right after its code and a slash
	lanes, err := s.queue.Lanes(ctx, c.Client+"/", maxClientLanes)
	if err != nil {
		return nil, err
	}
	for _, l := range lanes {
		if l.Tenant != c.Client {
			break
		}
		out.Lanes = append(out.Lanes, s.laneView(l))
	}
	return OK(out)
}

// maxClientLanes bounds the lanes that are told of a client: a handful for each number and mailbox.
const maxClientLanes = 500

type countsInput struct {
	Client string `query:"client" maxLength:"64" doc:"Of one client only."`
}

func (s jobs) adminCounts(ctx context.Context, in *countsInput) (*Answer[JobTally], error) {
	code := ""
	if in.Client != "" {
		var ok bool
		if code, ok = tenant.Code(in.Client); !ok {
			return nil, tenant.ErrUnknown()
		}
	}
	t, err := s.tally(ctx, code)
	if err != nil {
		return nil, err
	}
	return OK(t)
}
