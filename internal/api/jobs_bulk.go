package api

import (
	"context"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
)

// bulkMost is how many records one call by filter changes; more says that there are others.
const (
	bulkMost = 10_000
	bulkPage = 500
)

// RetryFilter chooses the jobs to be tried again.
type RetryFilter struct {
	State  string `json:"state,omitempty" enum:"dead,cancelled,expired,parked" doc:"Dead ones if left out."`
	Type   string `json:"type,omitempty" maxLength:"100" doc:"Of this type only."`
	DryRun bool   `json:"dryRun,omitempty" doc:"Count them, and change nothing."`
	JobCause
}

// CancelFilter chooses the jobs to be cancelled.
type CancelFilter struct {
	State  string `json:"state,omitempty" enum:"scheduled,ready,running,parked" doc:"All of these if left out."`
	Type   string `json:"type,omitempty" maxLength:"100" doc:"Of this type only."`
	DryRun bool   `json:"dryRun,omitempty" doc:"Count them, and change nothing."`
	JobCause
}

// Bulk tells how many records a call by filter changed, or would have.
type Bulk struct {
	Count int  `json:"count"`
	More  bool `json:"more" doc:"There are others: call again."`
}

func (s jobs) retryAll(ctx context.Context, c Caller, in *struct{ Body RetryFilter }) (*Answer[Bulk], error) {
	if !in.Body.DryRun {
		if err := s.runner.HasRoom(ctx, c.Client); err != nil {
			return nil, err
		}
	}
	return s.retryBy(ctx, store.JobFilter{Tenant: c.Client}, in.Body)
}

type adminRetryInput struct {
	Body struct {
		RetryFilter
		Client string `json:"client,omitempty" maxLength:"64" doc:"Of one client only."`
	}
}

func (s jobs) adminRetryAll(ctx context.Context, in *adminRetryInput) (*Answer[Bulk], error) {
	var f store.JobFilter
	if err := ofClient(&f, in.Body.Client); err != nil {
		return nil, err
	}
	return s.retryBy(ctx, f, in.Body.RetryFilter)
}

func (s jobs) retryBy(ctx context.Context, f store.JobFilter, r RetryFilter) (*Answer[Bulk], error) {
	f.States, f.Cause = []store.State{store.State(or(r.State, string(store.Dead)))}, r.cause()
	return s.each(ctx, f, r.Type, r.DryRun, s.queue.Retry)
}

func (s jobs) cancelAll(ctx context.Context, c Caller, in *struct{ Body CancelFilter }) (*Answer[Bulk], error) {
	return s.cancelBy(ctx, store.JobFilter{Tenant: c.Client}, in.Body)
}

type adminCancelInput struct {
	Body struct {
		CancelFilter
		Client string `json:"client,omitempty" maxLength:"64" doc:"Of one client only."`
	}
}

func (s jobs) adminCancelAll(ctx context.Context, in *adminCancelInput) (*Answer[Bulk], error) {
	var f store.JobFilter
	if err := ofClient(&f, in.Body.Client); err != nil {
		return nil, err
	}
	return s.cancelBy(ctx, f, in.Body.CancelFilter)
}

func (s jobs) cancelBy(ctx context.Context, f store.JobFilter, c CancelFilter) (*Answer[Bulk], error) {
	f.Cause = c.cause()
	if c.State == "" && c.Type == "" && f.Cause == (store.Causation{}) {
		return nil, fault.Bad("/type", "Expected a state, a type, or what the jobs were made for: not all jobs at once.")
	}
	f.States = []store.State{store.Scheduled, store.Ready, store.Running, store.Parked}
	if c.State != "" {
		f.States = []store.State{store.State(c.State)}
	}
	return s.each(ctx, f, c.Type, c.DryRun, s.runner.Cancel)
}

// each does something to the jobs of a filter, at most bulkMost, or counts them.
func (s jobs) each(ctx context.Context, f store.JobFilter, typ string, dry bool, do func(context.Context, ...string) ([]string, error)) (*Answer[Bulk], error) {
	if typ != "" {
		f.Types = []string{typ}
	}
	var out Bulk
	err := inPages(&out, func(after string, limit int) ([]string, error) {
		f.After, f.Limit = after, limit
		found, err := s.queue.Jobs(ctx, f)
		ids := make([]string, len(found))
		for i, j := range found {
			ids[i] = j.ID
		}
		return ids, err
	}, func(ids []string) (int, error) {
		if dry {
			return len(ids), nil
		}
		did, err := do(ctx, ids...)
		return len(did), err
	})
	if err != nil {
		return nil, err
	}
	return OK(out)
}

// inPages goes through records from the newest on, at most bulkMost, and does something to each page. It looks at each
// record once: what a page's change sends round again does not hold it up.
func inPages(out *Bulk, find func(after string, limit int) ([]string, error), do func(ids []string) (int, error)) error {
	after := ""
	for seen := 0; ; {
		ids, err := find(after, bulkPage)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			return nil
		}
		if seen == bulkMost {
			out.More = true
			return nil
		}
		n, err := do(ids)
		if err != nil {
			return err
		}
		out.Count += n
		seen += len(ids)
		after = ids[len(ids)-1]
		if len(ids) < bulkPage {
			return nil
		}
	}
}
