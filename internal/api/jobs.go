package api

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// jobs is the API of the queue: a client's own jobs, and the operator's view over all.
type jobs struct {
	api    *API
	queue  store.Queue
	runner *job.Runner
}

// Progress is how far a long job got.
type Progress struct {
	Done   int64 `json:"done"`
	Total  int64 `json:"total"`
	Failed int64 `json:"failed" doc:"Left out."`
}

// progressOf tells how far a job got; fault.NotFound where nothing is known of it.
type progressOf func(ctx context.Context, tn *tenant.Tenant, j store.Job) (*Progress, error)

// showProgress lets jobs of a type be shown with how far they got.
func (a *API) showProgress(jobType string, f progressOf) {
	if a.progress == nil {
		a.progress = map[string]progressOf{}
	}
	a.progress[jobType] = f
}

// showSystemProgress is showProgress for the system's own jobs.
func (a *API) showSystemProgress(jobType string, f func(context.Context, store.Job) (*Progress, error)) {
	if a.systemProgress == nil {
		a.systemProgress = map[string]func(context.Context, store.Job) (*Progress, error){}
	}
	a.systemProgress[jobType] = f
}

// shown is a job as its client sees it, with how far it got if its type tells.
func (s jobs) shown(ctx context.Context, j store.Job) JobView {
	v := jobView(j)
	f := s.api.progress[j.Type]
	if f == nil {
		return v
	}
	tn, release, err := s.api.cfg.Open(ctx, j.Tenant)
	if err != nil {
		return v // the job can be read while its client's database cannot
	}
	defer release()
	if p, err := f(ctx, tn, j); err == nil {
		v.Progress = p
	} else if fault.Of(err) == fault.NotFound {
		v.Progress = &Progress{}
	}
	return v
}

// ByID is the input of what is about one record; embed it.
type ByID struct {
	ID string `path:"id" maxLength:"256"`
}

// JobView is a job as its client sees it. Its payload is not shown.
type JobView struct {
	ID          string          `json:"id"`
	Type        string          `json:"type" example:"whatsapp.send"`
	State       string          `json:"state" enum:"scheduled,ready,running,succeeded,dead,cancelled,expired,parked"`
	Attempt     int             `json:"attempt" doc:"Failed executions so far."`
	MaxAttempts int             `json:"maxAttempts"`
	RunAt       *Time           `json:"runAt" nullable:"true" doc:"When it is due, or was."`
	ExpiresAt   *Time           `json:"expiresAt" nullable:"true" doc:"If it has not begun by then, it never will."`
	Error       *JobErrorView   `json:"error" doc:"Of the last execution that failed; null: none did."`
	Causation   store.Causation `json:"causation" doc:"What it was made for."`
	Result      json.RawMessage `json:"result" doc:"Null until there is one."`
	Progress    *Progress       `json:"progress,omitempty" doc:"Of long jobs."`
	CreatedAt   Time            `json:"createdAt"`
	StartedAt   *Time           `json:"startedAt" nullable:"true"`
	EndedAt     *Time           `json:"endedAt" nullable:"true"`
}

// JobErrorView is one failed execution.
type JobErrorView struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	At      Time   `json:"at"`
}

// AdminJobView is a job as the operator sees it.
type AdminJobView struct {
	JobView
	Client  *string        `json:"client" doc:"The client's code; null for the system's own."`
	Starts  int            `json:"starts" doc:"All executions."`
	Crashes int            `json:"crashes" doc:"Executions that ended with their process."`
	Owner   *string        `json:"owner" doc:"The process that runs it."`
	Errors  []JobErrorView `json:"errors" doc:"The last ten, oldest first."`
}

// ViewJob is a job as its client sees it, for live views.
func ViewJob(j store.Job) JobView { return jobView(j) }

func jobView(j store.Job) JobView {
	v := JobView{
		ID: j.ID, Type: j.Type, State: string(j.State), Attempt: j.Attempt, MaxAttempts: j.MaxAttempts, RunAt: At(j.RunAt),
		ExpiresAt: At(j.ExpiresAt), Causation: j.Causation, Result: j.Result, CreatedAt: Time{j.CreatedAt}, StartedAt: At(j.StartedAt), EndedAt: At(j.EndedAt),
	}
	if n := len(j.Errors); n > 0 {
		e := jobError(j.Errors[n-1])
		v.Error = &e
	}
	if len(v.Result) == 0 {
		v.Result = json.RawMessage("null")
	}
	return v
}

func jobError(e store.JobError) JobErrorView { return JobErrorView{e.Code, e.Message, Time{e.At}} }

func adminJobView(j store.Job) AdminJobView {
	v := AdminJobView{JobView: jobView(j), Client: orNull(j.Tenant), Starts: j.Starts, Crashes: j.Crashes, Owner: orNull(j.Owner), Errors: []JobErrorView{}}
	for _, e := range j.Errors {
		v.Errors = append(v.Errors, jobError(e))
	}
	return v
}

// RegisterJobs adds the API of the queue. runner is told of cancellations, so that a job that runs here stops at once.
func RegisterJobs(a *API, queue store.Queue, runner *job.Runner) {
	s := jobs{a, queue, runner}
	const tag, admin = "Jobs", "Operation"
	const retryText = "A dead, cancelled, expired or parked job becomes ready again, its attempts forgotten."
	const cancelText = "A waiting job ends; a running one is asked to stop, and its state tells when it has."
	const bulkText = "At most 10,000 jobs a call; more says that there are others."

	ClientCall(a, Op{Route: "GET /api/jobs", ID: "listJobs", Tag: tag, Summary: "List jobs, newest first"}, s.list)
	ClientCall(a, Op{Route: "GET /api/jobs/{id}", ID: "getJob", Tag: tag, Summary: "Read a job"}, s.get)
	ClientCall(a, Op{Route: "POST /api/jobs/{id}/retry", ID: "retryJob", Tag: tag, Summary: "Try a job again", Description: retryText}, s.retry)
	ClientCall(a, Op{Route: "POST /api/jobs/{id}/cancel", ID: "cancelJob", Tag: tag, Summary: "Cancel a job", Description: cancelText}, s.cancel)
	ClientCall(a, Op{Route: "POST /api/jobs/retry", ID: "retryJobs", Tag: tag, Summary: "Try all jobs of a filter again", Description: bulkText}, s.retryAll)
	ClientCall(a, Op{Route: "POST /api/jobs/cancel", ID: "cancelJobs", Tag: tag, Summary: "Cancel all jobs of a filter", Description: bulkText}, s.cancelAll)

	Admin(a, Op{Route: "GET /api/admin/jobs", ID: "adminListJobs", Tag: admin, Summary: "List the jobs of all clients, newest first"}, s.adminList)
	Admin(a, Op{Route: "GET /api/admin/jobs/{id}", ID: "adminGetJob", Tag: admin, Summary: "Read any job"}, s.adminGet)
	Admin(a, Op{Route: "POST /api/admin/jobs/{id}/retry", ID: "adminRetryJob", Tag: admin, Summary: "Try any job again", Description: retryText}, s.adminRetry)
	Admin(a, Op{Route: "POST /api/admin/jobs/{id}/cancel", ID: "adminCancelJob", Tag: admin, Summary: "Cancel any job", Description: cancelText}, s.adminCancel)
	Admin(a, Op{Route: "POST /api/admin/jobs/retry", ID: "adminRetryJobs", Tag: admin, Summary: "Try all jobs of a filter again", Description: bulkText}, s.adminRetryAll)
	Admin(a, Op{Route: "POST /api/admin/jobs/cancel", ID: "adminCancelJobs", Tag: admin, Summary: "Cancel all jobs of a filter", Description: bulkText}, s.adminCancelAll)
	Admin(a, Op{Route: "GET /api/admin/lanes", ID: "adminListLanes", Tag: admin, Summary: "List the lanes that hold work",
		Description: "Lanes are served in turn: no client waits behind another's backlog."}, s.lanes)
	registerPauses(a, s)
	registerCounts(a, s)
	a.nullable("LaneView", "pause")
	a.nullable("JobView", "error")
	a.nullable("AdminJobView", "error")
}

// JobFilterQuery is the part of a list's input that chooses jobs; embed it.
type JobFilterQuery struct {
	State         []string `query:"state,explode" maxItems:"8" doc:"One or several of the states."`
	Type          []string `query:"type,explode" maxItems:"20" doc:"One or several types."`
	EventID       string   `query:"eventId" maxLength:"256" doc:"Made for this event."`
	RunID         string   `query:"runId" maxLength:"256" doc:"For this run."`
	LeadID        string   `query:"leadId" maxLength:"256" doc:"For this lead."`
	CampaignID    string   `query:"campaignId" maxLength:"256" doc:"For this campaign."`
	AppointmentID string   `query:"appointmentId" maxLength:"256" doc:"For this appointment."`
}

// JobCause chooses the jobs made for something; embed it into a body. All that is said must hold.
type JobCause struct {
	EventID       string `json:"eventId,omitempty" maxLength:"256" doc:"Made for this event."`
	RunID         string `json:"runId,omitempty" maxLength:"256" doc:"For this run."`
	LeadID        string `json:"leadId,omitempty" maxLength:"256" doc:"For this lead."`
	CampaignID    string `json:"campaignId,omitempty" maxLength:"256" doc:"For this campaign."`
	AppointmentID string `json:"appointmentId,omitempty" maxLength:"256" doc:"For this appointment."`
}

func (c JobCause) cause() store.Causation {
	return store.Causation{EventID: c.EventID, RunID: c.RunID, LeadID: c.LeadID, CampaignID: c.CampaignID, AppointmentID: c.AppointmentID}
}

var jobStates = []store.State{
	store.Scheduled, store.Ready, store.Running, store.Succeeded, store.Dead, store.Cancelled, store.Expired, store.Parked,
}

// filter gives the filter of a list; an empty value is no filter.
func (q JobFilterQuery) filter() (f store.JobFilter, err error) {
	for _, s := range q.State {
		switch state := store.State(s); {
		case s == "":
		case !slices.Contains(jobStates, state):
			return f, fault.Bad("query.state", "Expected scheduled, ready, running, succeeded, dead, cancelled, expired or parked.")
		default:
			f.States = append(f.States, state)
		}
	}
	for _, t := range q.Type {
		if t != "" {
			f.Types = append(f.Types, t)
		}
	}
	f.Cause = JobCause{q.EventID, q.RunID, q.LeadID, q.CampaignID, q.AppointmentID}.cause()
	return f, nil
}

func page[V any](ctx context.Context, s jobs, f store.JobFilter, p Page, name string, view func(store.Job) V) (*Answer[List[V]], error) {
	at, err := p.After(name)
	if err != nil {
		return nil, err
	}
	if at != nil {
		f.After = at.ID
	}
	f.Limit = p.Limit + 1
	rows, err := s.queue.Jobs(ctx, f)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, p, name, func(j store.Job) store.Cursor { return store.Cursor{ID: j.ID} }, view), nil
}

type jobsInput struct {
	Page
	JobFilterQuery
}

func (s jobs) list(ctx context.Context, c Caller, in *jobsInput) (*Answer[List[JobView]], error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	f.Tenant = c.Client
	return page(ctx, s, f, in.Page, "jobs", func(j store.Job) JobView { return s.shown(ctx, j) })
}

type adminJobsInput struct {
	Page
	JobFilterQuery
	Client string `query:"client" maxLength:"64" doc:"Of one client only."`
}

func (s jobs) adminList(ctx context.Context, in *adminJobsInput) (*Answer[List[AdminJobView]], error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	if err := ofClient(&f, in.Client); err != nil {
		return nil, err
	}
	return page(ctx, s, f, in.Page, "admin-jobs", adminJobView)
}

// ofClient narrows an operator's filter to a client, or opens it to all.
func ofClient(f *store.JobFilter, code string) error {
	if code == "" {
		f.AllTenants = true
		return nil
	}
	var ok bool
	if f.Tenant, ok = tenant.Code(code); !ok {
		return tenant.ErrUnknown()
	}
	return nil
}

// find reads a job; of a client ("" is the operator) only its own are there.
func (s jobs) find(ctx context.Context, client, jobID string) (store.Job, error) {
	j, err := s.queue.Job(ctx, jobID)
	if errors.Is(err, store.ErrNotFound) || (err == nil && client != "" && j.Tenant != client) {
		return store.Job{}, fault.Missing("job")
	}
	return j, err
}

func (s jobs) get(ctx context.Context, c Caller, in *ByID) (*Answer[JobView], error) {
	return answerJob(func(j store.Job) JobView { return s.shown(ctx, j) })(s.find(ctx, c.Client, in.ID))
}

func (s jobs) adminGet(ctx context.Context, in *ByID) (*Answer[AdminJobView], error) {
	return answerJob(func(j store.Job) AdminJobView {
		v := adminJobView(j)
		if f := s.api.systemProgress[j.Type]; f != nil {
			if p, err := f(ctx, j); err == nil {
				v.Progress = p
			}
		}
		return v
	})(s.find(ctx, "", in.ID))
}

func answerJob[V any](view func(store.Job) V) func(store.Job, error) (*Answer[V], error) {
	return func(j store.Job, err error) (*Answer[V], error) {
		if err != nil {
			return nil, err
		}
		return OK(view(j))
	}
}

func (s jobs) retryOne(ctx context.Context, client, jobID string) (store.Job, error) {
	j, err := s.find(ctx, client, jobID)
	if err != nil {
		return j, err
	}
	if client != "" { // the operator knows
		if err := s.runner.HasRoom(ctx, client); err != nil {
			return j, err
		}
	}
	did, err := s.queue.Retry(ctx, jobID)
	if err != nil {
		return j, err
	}
	if len(did) == 0 {
		return j, jobState("job.not_retryable", "Only dead, cancelled, expired and parked jobs can be tried again.", j)
	}
	return s.find(ctx, client, jobID)
}

func (s jobs) cancelOne(ctx context.Context, client, jobID string) (store.Job, error) {
	j, err := s.find(ctx, client, jobID)
	if err != nil {
		return j, err
	}
	did, err := s.runner.Cancel(ctx, jobID)
	if err != nil {
		return j, err
	}
	if len(did) == 0 {
		return j, jobState("job.ended", "The job has ended.", j)
	}
	return s.find(ctx, client, jobID)
}

func jobState(code, detail string, j store.Job) error {
	f := fault.New(fault.Conflict, code, "%s", detail)
	f.Extra = map[string]any{"state": string(j.State)}
	return f
}

func (s jobs) retry(ctx context.Context, c Caller, in *ByID) (*Answer[JobView], error) {
	return answerJob(func(j store.Job) JobView { return s.shown(ctx, j) })(s.retryOne(ctx, c.Client, in.ID))
}

func (s jobs) cancel(ctx context.Context, c Caller, in *ByID) (*Answer[JobView], error) {
	return answerJob(func(j store.Job) JobView { return s.shown(ctx, j) })(s.cancelOne(ctx, c.Client, in.ID))
}

func (s jobs) adminRetry(ctx context.Context, in *ByID) (*Answer[AdminJobView], error) {
	return answerJob(adminJobView)(s.retryOne(ctx, "", in.ID))
}

func (s jobs) adminCancel(ctx context.Context, in *ByID) (*Answer[AdminJobView], error) {
	return answerJob(adminJobView)(s.cancelOne(ctx, "", in.ID))
}
