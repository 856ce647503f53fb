package rule

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// A template that Meta refuses is refused whoever it goes to. A rule whose sends fare alike so often, within so long, pauses
// by itself, and those that are planned wait until somebody has looked at it.
const (
	spoiltMost = 5
	spoiltSpan = time.Minute

	spoiltPause = time.Second // of sends that come while their rule is being paused
)

// spoilt remembers, by client and rule, the last refusals of what all of a rule's sends have in common. It is this process's
// memory only: forgotten, a few more sends find out anew.
type spoilt struct {
	mu sync.Mutex
	by map[string][]spoil
	of map[string]string // the rules of runs whose sends are under way
}

type spoil struct {
	run, code string
	at        time.Time
}

// spoiltKept bounds what is remembered.
const spoiltKept = 10_000

// sends notes whose a run is that is about to send, and tells whether so many were refused that it had better wait.
func (s *spoilt) sends(run, key string, now time.Time) (wait bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || len(s.of) > spoiltKept {
		s.of = map[string]string{}
	}
	s.of[run] = key
	return s.many(key, now)
}

// refused notes a refusal, once for a run; key "" where it is known whose the run is.
func (s *spoilt) refused(key string, one spoil) (many bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key == "" {
		if key = s.of[one.run]; key == "" {
			return false
		}
	}
	if s.by == nil || len(s.by) > spoiltKept {
		s.by = map[string][]spoil{}
	}
	same := []spoil{one}
	for _, o := range s.by[key] {
		if o.code == one.code && o.run != one.run && len(same) < spoiltMost {
			same = append(same, o)
		}
	}
	s.by[key] = same
	return s.many(key, one.at)
}

// many tells whether the last refusals were too many in too short a time.
func (s *spoilt) many(key string, now time.Time) bool {
	n := 0
	for _, o := range s.by[key] {
		if now.Sub(o.at) < spoiltSpan {
			n++
		}
	}
	return n >= spoiltMost
}

func (s *spoilt) forget(key string) {
	s.mu.Lock()
	delete(s.by, key)
	s.mu.Unlock()
}

func (e *Engine) spoiltKey(tn *tenant.Tenant, run *Run) string { return tn.Code + "|" + run.RuleID }

// shared tells whether a code of Meta's is about the template or its parameters, and lasts.
func shared(code string) bool {
	n, err := strconv.Atoi(code)
	if err != nil {
		return false
	}
	c := whatsapp.Classify(400, n, 0)
	return c.Known && c.Scope == whatsapp.ScopeTemplate && !c.Temporary
}

// spoils is told how a run's step ended, and pauses its rule when one too many ended alike.
func (e *Engine) spoils(ctx context.Context, tn *tenant.Tenant, runID, step string) error {
	run, err := Runs.Get(ctx, tn.DB, runID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	i := run.at(step)
	if i < 0 || run.Steps[i].Type != SendTemplate || run.Steps[i].State != StepFailed || run.Steps[i].Error == nil || !shared(run.Steps[i].Error.Code) {
		return nil
	}
	now, code, key := e.Now().UTC(), run.Steps[i].Error.Code, e.spoiltKey(tn, run)
	if !e.spoilt.refused(key, spoil{run.ID, code, now}) {
		return nil
	}
	r, err := Rules.Get(ctx, tn.DB, run.RuleID)
	if errors.Is(err, store.ErrNotFound) || err == nil && (r.Status != Live || r.LiveVersion != run.RuleVersion) {
		e.spoilt.forget(key) // gone, paused, or mended since
		return nil
	}
	if err != nil {
		return err
	}
	r.Status, r.PausedFor, r.UpdatedAt = Paused, spoiltFor+code, now
	if err := tn.DB.Commit(ctx, Rules.Update(r)); err != nil {
		return err
	}
	e.spoilt.forget(key)
	e.Log.Warn("a rule was paused: Meta refuses its template again and again", "client", tn.Code, "rule", r.ID, "code", code)
	return nil
}

// spoiltFor begins Rule.PausedFor of a rule whose template Meta refuses; Meta's code follows.
const spoiltFor = "whatsapp."

// unspoilt holds the job of a template whose rule was paused for that.
func (e *Engine) unspoilt(ctx context.Context, tn *tenant.Tenant, run *Run, step string) error {
	if i := run.at(step); i < 0 || run.Steps[i].Type != SendTemplate {
		return nil
	}
	r, err := Rules.Get(ctx, tn.DB, run.RuleID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case r.Status == Live && e.spoilt.sends(run.ID, e.spoiltKey(tn, run), e.Now()):
		return job.Snooze(spoiltPause, "rule_stopping", nil)
	case r.Status == Paused && strings.HasPrefix(r.PausedFor, spoiltFor):
		return job.Park("rule_paused", errors.New("Meta refuses the template of the rule ("+r.PausedFor+"); it goes on when the rule does"))
	}
	return nil
}

// letOn lets the sends go on that waited for a rule.
func (e *Engine) letOn(ctx context.Context, tn *tenant.Tenant) {
	if e.Release == nil {
		return
	}
	if _, err := e.Release(ctx, tn.Code); err != nil {
		e.Log.Warn("what waited for a rule is not let go yet", "client", tn.Code, "error", err)
	}
}
