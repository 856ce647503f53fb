package media

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// RemoveJob is the type of the job that removes a file.
const RemoveJob = "media.remove"

type removePayload struct {
	MediaID string `json:"mediaId"`
}

// RemoveOf is the job that removes a file.
func RemoveOf(tn *tenant.Tenant, fileID string) store.NewJob {
	n := job.New(tn.Code, RemoveJob, removePayload{fileID})
	n.UniqueKey = "media.remove:" + fileID
	return n
}

// HandleRemove is the handler of RemoveJob. The record goes last: while it stands, its blob can be found.
func (a *Archive) HandleRemove(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[removePayload](j)
	if err != nil {
		return job.Result{}, err
	}
	f, err := Files.Get(ctx, tn.DB, p.MediaID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, nil
	}
	if err != nil {
		return job.Result{}, err
	}
	if !f.going() { // from now on nobody shares its blob, and who brings the same waits until it is gone
		f.Status, f.Error = Failed, removedError
		if err := tn.DB.Commit(ctx, Files.Update(f)); err != nil {
			return job.Result{}, err
		}
		f.Version++
	}
	if err := a.drop(ctx, tn, f); err != nil {
		return job.Result{}, err
	}
	return job.Result{}, tn.DB.Commit(ctx, Files.Remove(f))
}

// removedError is the error of a file that is being removed.
const removedError = "media.removed"

// going tells whether a file is being removed.
func (f *File) going() bool { return f.Status == Failed && f.Error == removedError }

// Leftovers gives the jobs that remove uploads which ended before they were stored, at most some at a time.
func (a *Archive) Leftovers(ctx context.Context, tn *tenant.Tenant) ([]store.NewJob, error) {
	old, err := Files.Find(ctx, tn.DB, store.Query{
		Where: []store.Term{store.Where("begunAt", store.Lt, a.cfg.Now().Add(-time.Hour).UnixMilli())}, Order: "begunAt", Limit: 50,
	})
	if err != nil {
		return nil, err
	}
	var out []store.NewJob
	for _, f := range old {
		out = append(out, RemoveOf(tn, f.ID))
	}
	return out, nil
}

// Sweep removes what crashes left half written.
func (a *Archive) Sweep() error {
	var errs []error
	for _, s := range a.cfg.Shelves {
		if f, ok := s.(*Folder); ok {
			errs = append(errs, f.Sweep(a.cfg.Now()))
		}
	}
	return errors.Join(errs...)
}

// Erase removes all of a client's blobs, from the operator's shelves and from its own bucket. A bucket of its own that
// refuses for good is the client's to keep, and holds up nothing.
func (a *Archive) Erase(ctx context.Context, code string, own *tenant.Storage, k secret.Text) error {
	for _, s := range a.cfg.Shelves {
		if err := s.Clear(ctx, code+"/"); err != nil {
			return fmt.Errorf("clear %s: %w", s.Place(), err)
		}
	}
	if own == nil {
		return nil
	}
	s, err := a.cfg.Bucket(own.URL, own.AccessKeyID, k)
	if err == nil {
		if err = s.Clear(ctx, code+"/"); err != nil && s.Passing(err) && ctx.Err() == nil {
			return fmt.Errorf("clear the client's own bucket: %w", err)
		}
	}
	if err != nil {
		a.cfg.Log.Warn("an erased client's own bucket is left as it is", "client", code, "error", err)
	}
	a.mu.Lock()
	delete(a.buckets, code)
	a.mu.Unlock()
	return nil
}
