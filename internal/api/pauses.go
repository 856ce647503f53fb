package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// maxPause is how long a pause may be that ends by itself.
const maxPause = 366 * 24 * time.Hour

// PauseView is a pause of lanes.
type PauseView struct {
	Scope  string  `json:"scope" doc:"CLIENT, CLIENT/KIND, CLIENT/KIND:ID or either with /CLASS: it covers every lane at or below it, those to come too."`
	Reason string  `json:"reason" enum:"rate_limited,credential,operator,quality,moving"`
	Until  *Time   `json:"until" nullable:"true" doc:"Null: until it is resumed."`
	Since  Time    `json:"since"`
	Detail *string `json:"detail" nullable:"true"`
}

func pauseView(p store.Pause) PauseView {
	return PauseView{p.Scope, string(p.Reason), At(p.Until), Time{p.Since}, orNull(p.Detail)}
}

func registerPauses(a *API, s jobs) {
	const admin = "Operation"
	Admin(a, Op{Route: "GET /api/admin/lanes/pauses", ID: "adminListPauses", Tag: admin, Summary: "List a client's pauses"}, s.pauses)
	Admin(a, Op{Route: "POST /api/admin/lanes/pause", ID: "adminPauseLanes", Tag: admin, Summary: "Let lanes rest",
		Description: "Nothing of them begins any more, what runs goes on, and no attempt is counted. A pause that is there is prolonged, never cut short."}, s.pause)
	Admin(a, Op{Route: "POST /api/admin/lanes/resume", ID: "adminResumeLanes", Tag: admin, Summary: "Let lanes go on",
		Description: "It ends the pauses of exactly this scope; those of wider and narrower ones stay."}, s.resume)
}

type pausesInput struct {
	Client string `query:"client" maxLength:"64" doc:"The client's code; the system's own pauses if left out."`
}

func (s jobs) pauses(ctx context.Context, in *pausesInput) (*Answer[List[PauseView]], error) {
	code, ok := tenant.Code(in.Client)
	if in.Client != "" && (!ok || !s.runner.Serves(code)) {
		return nil, tenant.ErrUnknown()
	}
	found, err := s.queue.Pauses(ctx, code)
	if err != nil {
		return nil, err
	}
	out := List[PauseView]{Items: []PauseView{}}
	for _, p := range found {
		out.Items = append(out.Items, pauseView(p))
	}
	return OK(out)
}

type pauseInput struct {
	Body struct {
		Scope  string `json:"scope" minLength:"1" maxLength:"200" example:"ACME/mail" doc:"CLIENT, CLIENT/KIND, CLIENT/KIND:ID or either with /CLASS."`
		Reason string `json:"reason,omitempty" enum:"operator,quality,credential,rate_limited" doc:"operator if left out."`
		For    string `json:"for,omitempty" maxLength:"20" example:"90m" doc:"30s, 90m, 12h; until it is resumed if left out."`
		Detail string `json:"detail,omitempty" maxLength:"200" doc:"For other operators."`
	}
}

func (s jobs) pause(ctx context.Context, in *pauseInput) (*Answer[PauseView], error) {
	b := in.Body
	scope, err := s.scope(b.Scope)
	if err != nil {
		return nil, err
	}
	if b.Detail != "" {
		var bad fields
		bad.text("/detail", b.Detail)
		if err := bad.fault(); err != nil {
			return nil, err
		}
	}
	r := store.PauseRequest{Scope: scope, Reason: store.PauseReason(or(b.Reason, string(store.Operator))), Detail: b.Detail}
	if b.For != "" {
		if r.For, err = time.ParseDuration(b.For); err != nil || r.For < time.Second || r.For > maxPause {
			return nil, fault.Bad("/for", "Expected a duration such as 30s, 90m or 12h, from a second to a year.")
		}
	}
	if _, err := s.queue.Pause(ctx, r); err != nil {
		return nil, err
	}
	tn, _, _ := strings.Cut(scope, "/")
	found, err := s.queue.Pauses(ctx, tn)
	if err != nil {
		return nil, err
	}
	for _, p := range found {
		if p.Scope == scope && p.Reason == r.Reason {
			return OK(pauseView(p))
		}
	}
	return OK(PauseView{Scope: scope, Reason: string(r.Reason)}) // it is over already
}

type resumeInput struct {
	Body struct {
		Scope  string `json:"scope" minLength:"1" maxLength:"200" doc:"As it was paused."`
		Reason string `json:"reason,omitempty" enum:"operator,quality,credential,rate_limited" doc:"All reasons if left out."`
	}
}

type resumeAnswer struct {
	Scope   string `json:"scope"`
	Resumed bool   `json:"resumed" doc:"false: it was not paused."`
}

func (s jobs) resume(ctx context.Context, in *resumeInput) (*Answer[resumeAnswer], error) {
	scope, err := s.scope(in.Body.Scope)
	if err != nil {
		return nil, err
	}
	did, err := s.queue.Resume(ctx, scope, store.PauseReason(in.Body.Reason))
	if err != nil {
		return nil, err
	}
	return OK(resumeAnswer{scope, did})
}

// scope checks the scope of a pause: its client must be there.
func (s jobs) scope(scope string) (string, error) {
	parts := strings.Split(scope, "/")
	bad := fault.Bad("/scope", "Expected CLIENT, CLIENT/KIND, CLIENT/KIND:ID, or either with /CLASS (interactive, normal, bulk, maintenance, quarantine).")
	if len(parts) > 3 || strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' }) || slices.Contains(parts[1:], "") {
		return "", bad
	}
	if len(parts) == 3 && !slices.Contains(store.Classes[:], store.Class(parts[2])) {
		return "", bad
	}
	if parts[0] == "" { // the system's own
		if len(parts) == 1 {
			return "", bad
		}
		return scope, nil
	}
	code, ok := tenant.Code(parts[0])
	if !ok {
		return "", tenant.ErrUnknown()
	}
	if !s.runner.Serves(code) {
		return "", tenant.ErrUnknown()
	}
	parts[0] = code
	return strings.Join(parts, "/"), nil
}
