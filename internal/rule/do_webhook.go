package rule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// WebhookJob is the type of the job that posts a webhook.
const WebhookJob = "automation.webhook"

// WebhookAttempts is how often a webhook is posted before it counts as failed.
const WebhookAttempts = 6

// ErrRefusedAddress is what the HTTP client of Webhooks answers for an address that clients may not name.
var ErrRefusedAddress = errors.New("rule: the address is not one that clients may name")

// WebhookInput is the frozen input of webhooks. Body is what is posted.
type WebhookInput struct {
	URL  string          `json:"url"`
	Body json.RawMessage `json:"body"`
}

// postSubject is what webhooks tell of, beside the lead.
type postSubject struct {
	ev  *Event
	run *Run
}

// postBody is what a webhook tells.
func (w *walk) postBody(at string) json.RawMessage {
	p := w.post
	if p.ev == nil {
		return nil
	}
	body := map[string]any{
		"event": map[string]any{"id": p.ev.EventID, "trigger": p.ev.Trigger, "occurredAt": p.ev.OccurredAt, "variables": w.scope.variables()},
		"lead":  w.lead.View(w.lead.Version),
		"run":   map[string]any{"id": p.run.ID, "ruleId": p.run.RuleID, "step": at, "startedAt": p.run.StartedAt},
	}
	if p.ev.Appointment != nil {
		body["appointment"] = p.ev.Appointment
	}
	for root, result := range w.scope.results {
		body[root] = result
	}
	return raw(body)
}

// States of a post.
const (
	postPlanned = "planned"
	postDone    = "done"
	postFailed  = "failed"
	postSkipped = "skipped"
)

// Post is one webhook of a run. It may be posted more than once, always under its id: receivers tell repetitions by it.
type Post struct {
	store.Meta
	ID     string          `json:"id"`
	RunID  string          `json:"runId"`
	Step   string          `json:"step"`
	URL    string          `json:"url"`
	Body   json.RawMessage `json:"body,omitempty"` // until it is done
	State  string          `json:"state"`
	Status int             `json:"status,omitempty"` // of the last answer
	Error  *StepError      `json:"error,omitempty"`
	At     time.Time       `json:"at"`
}

// Posts is the kind.
var Posts = store.Kind[Post]{
	Schema: store.Schema{Kind: "automationPosts", Fields: []store.Field{{Name: "at", Type: store.Int}}, Orders: [][]string{{"at"}}},
	Key:    func(p *Post) string { return p.ID },
	Index:  func(p *Post) store.Fields { return store.Fields{"at": p.At.UnixMilli()} },
	Meta:   func(p *Post) *store.Meta { return &p.Meta },
}

// Webhooks is the Doer of webhooks; a ref is a post's id.
type Webhooks struct {
	Engine *Engine
	// Client follows no redirect, and gives ErrRefusedAddress for an address that clients may not name.
	Client *http.Client
}

// Plan implements Doer.
func (w Webhooks) Plan(_ context.Context, tn *tenant.Tenant, t Task) (string, []store.Write, error) {
	var in WebhookInput
	if err := json.Unmarshal(t.Input, &in); err != nil {
		return "", nil, err
	}
	if why := w.Engine.networks().refuse(in.URL); why != "" {
		return "", nil, &chat.Refusal{Code: "webhook.address", Detail: "The address " + why + "."}
	}
	p := &Post{ID: id.Derived("pst", tn.Code, t.Seed), RunID: t.RunID, Step: t.Step, URL: in.URL, Body: in.Body, State: postPlanned, At: t.At}
	return p.ID, []store.Write{Posts.Ensure(p)}, nil
}

// Job implements Doer.
func (w Webhooks) Job(tn *tenant.Tenant, ref string, cause store.Causation) store.NewJob {
	n := job.New(tn.Code, WebhookJob, postPayload{ref})
	n.UniqueKey, n.Causation = "post:"+ref, cause
	return n
}

type postPayload struct {
	PostID string `json:"postId"`
}

// Outcome implements Doer.
func (w Webhooks) Outcome(ctx context.Context, tn *tenant.Tenant, ref string) (Ended, error) {
	p, err := Posts.Get(ctx, tn.DB, ref)
	if err != nil {
		return Ended{}, err
	}
	end := Ended{Error: p.Error}
	if p.Status != 0 {
		end.Output = raw(map[string]int{"status": p.Status})
	}
	switch p.State {
	case postDone:
		end.State = StepDone
	case postFailed:
		end.State = StepFailed
	case postSkipped:
		end.State = StepSkipped
	}
	return end, nil
}

// Handle is the handler of WebhookJob.
func (w Webhooks) Handle(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	pp, err := job.Payload[postPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	p, err := Posts.Get(ctx, tn.DB, pp.PostID)
	if errors.Is(err, store.ErrNotFound) {
		return job.Result{}, job.Dead("post_gone", err)
	}
	if err != nil {
		return job.Result{}, err
	}
	next := w.Engine.Advance(tn, p.RunID, p.Step, p.ID)
	switch p.State {
	case postDone:
		return job.Result{Next: []store.NewJob{next}}, nil
	case postSkipped:
		return job.Result{}, job.Cancel(p.Error.Code, errors.New("the webhook was not called"), next)
	case postFailed:
		return job.Result{}, job.Dead(p.Error.Code, errors.New("the webhook was not taken"), next)
	}
	var refusal *chat.Refusal
	if err := w.Engine.MayBegin(ctx, tn, p.RunID, p.Step); errors.As(err, &refusal) {
		p.State, p.Error = postSkipped, &StepError{refusal.Code, refusal.Detail}
	} else if err != nil {
		return job.Result{}, err
	} else {
		again, err := w.post(ctx, p)
		if again && (!job.LastAttempt(j) || errors.Is(err, context.Canceled)) {
			return job.Result{}, job.Retry(0, p.Error.Code, err)
		}
		if p.State == postPlanned {
			p.State = postFailed
		}
	}
	p.Body = nil
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := tn.DB.Commit(rctx, Posts.Update(p)); err != nil {
		return job.Result{}, err
	}
	switch p.State {
	case postFailed:
		return job.Result{}, job.Dead(p.Error.Code, errors.New("the webhook was not taken"), next)
	case postSkipped:
		return job.Result{}, job.Cancel(p.Error.Code, refusal, next)
	}
	return job.Result{Next: []store.NewJob{next}, Result: map[string]int{"status": p.Status}}, nil
}

// post makes the call, and notes in p how it went. again: another try may go better.
func (w Webhooks) post(ctx context.Context, p *Post) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(p.Body))
	if err != nil {
		p.Error = &StepError{"webhook.address", "The address cannot be called."}
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "ecod")
	req.Header.Set("X-Ecod-Delivery", p.ID)
	res, err := w.Client.Do(req)
	if errors.Is(err, ErrRefusedAddress) {
		p.Error = &StepError{"webhook.address", "The address lies in a network that clients may not name."}
		return false, ErrRefusedAddress
	}
	if err != nil {
		p.Error = &StepError{"webhook.unreachable", "The address did not answer."}
		if errors.Is(ctx.Err(), context.Canceled) { // it was given no time to
			return true, ctx.Err()
		}
		return true, errors.New("the address did not answer") // the client's own error holds the address
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be kept
	p.Status = res.StatusCode
	switch {
	case res.StatusCode/100 == 2:
		p.State, p.Error = postDone, nil
		return false, nil
	case res.StatusCode == http.StatusRequestTimeout, res.StatusCode == http.StatusTooEarly, res.StatusCode == http.StatusTooManyRequests, res.StatusCode >= 500:
		again = true
	}
	p.Error = &StepError{"webhook.refused", "The address answered with status " + itoa(res.StatusCode) + "."}
	return again, errors.New("the address answered with status " + itoa(res.StatusCode))
}
