package api

import (
	"context"
	"strings"

	"github.com/ecodrix/ecod/internal/store"
)

// LaneView is a lane of the queue: what is taken in turn with the others.
type LaneView struct {
	Lane    string     `json:"lane" doc:"CLIENT/RESOURCE/CLASS: what the work needs (internal, wa:…, mail, google, media, webhook, import, campaign …), and how patient it is (interactive, normal, bulk, maintenance; quarantine: it crashed before)."`
	Client  *string    `json:"client" doc:"The client's code; null for the system's own."`
	Ready   int64      `json:"ready"`
	Running int64      `json:"running"`
	Pause   *LanePause `json:"pause" doc:"Why jobs of it are held back; null: none are."`

	Resource      string  `json:"resource" doc:"What its jobs need."`
	Class         string  `json:"class" enum:"interactive,normal,bulk,maintenance,quarantine" doc:"How patient they are."`
	Scheduled     int64   `json:"scheduled" doc:"Due later, or to be tried again."`
	Parked        int64   `json:"parked" doc:"Held until their cause is removed."`
	OldestReadyAt *Time   `json:"oldestReadyAt" nullable:"true" doc:"Since when the first of its ready jobs waits."`
	Why           *string `json:"why" nullable:"true" enum:"empty,rate_limited,paused,concurrency,busy,parked" doc:"Why none of its jobs begins now: nothing is ready; its rate allows none; it is paused; it, or its client, has all the workers it may have; all workers are busy; what it holds is parked."`
}

// LanePause is why jobs of a lane are held back.
type LanePause struct {
	Reason string `json:"reason" enum:"rate_limited,credential,operator,quality,moving" doc:"credential: an account of the client's is refused; operator: somebody paused it."`
	Until  *Time  `json:"until" nullable:"true" doc:"Null: until its cause is removed."`
}

type lanesInput struct{ Page }

func (s jobs) lanes(ctx context.Context, in *lanesInput) (*Answer[List[LaneView]], error) {
	at, err := in.After("lanes")
	if err != nil {
		return nil, err
	}
	after := ""
	if at != nil {
		after = at.ID
	}
	rows, err := s.queue.Lanes(ctx, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "lanes", func(l store.Lane) store.Cursor { return store.Cursor{ID: l.Lane} }, s.laneView), nil
}

func (s jobs) laneView(l store.Lane) LaneView {
	v := LaneView{
		Lane: l.Lane, Client: orNull(l.Tenant), Ready: l.Ready, Running: l.Running, Resource: l.Resource, Class: string(l.Class),
		Scheduled: l.Scheduled, Parked: l.Parked, OldestReadyAt: At(l.OldestReady),
	}
	why := "busy"
	switch {
	case l.Ready == 0 && l.Parked > 0:
		why = "parked"
	case l.Ready == 0:
		why = "empty"
	case l.Pause != nil && l.Pause.Reason != store.RateLimited:
		why = "paused"
	case l.Pause != nil || !l.LimitedUntil.IsZero():
		why = "rate_limited"
	case s.runner.AtItsMost(l):
		why = "concurrency"
	}
	v.Why = &why
	switch {
	case l.Pause != nil:
		v.Pause = &LanePause{Reason: string(l.Pause.Reason), Until: At(l.Pause.Until)}
	case !l.LimitedUntil.IsZero():
		v.Pause = &LanePause{Reason: string(store.RateLimited), Until: At(l.LimitedUntil)}
	case strings.HasSuffix(l.ParkedFor, ".credential"):
		v.Pause = &LanePause{Reason: "credential"}
	case l.ParkedFor == "campaign_paused":
		v.Pause = &LanePause{Reason: "operator"}
	}
	return v
}
