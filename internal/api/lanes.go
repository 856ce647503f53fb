package api

import (
	"context"
	"strings"

	"github.com/ecodrix/ecod/internal/store"
)

// LaneView is a lane of the queue: what is taken in turn with the others.
type LaneView struct {
	Lane    string     `json:"lane" doc:"The client's code; what follows a slash names work that waits apart from the client's other work."`
	Client  *string    `json:"client" doc:"The client's code; null for the system's own."`
	Ready   int64      `json:"ready"`
	Running int64      `json:"running"`
	Pause   *LanePause `json:"pause" doc:"Why jobs of it are held back; null: none are."`
}

// LanePause is why jobs of a lane are held back.
type LanePause struct {
	Reason string `json:"reason" enum:"rate_limited,credential,operator,quality" doc:"credential: an account of the client's is refused; operator: somebody paused it."`
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
	return ListOf(rows, in.Page, "lanes", func(l store.Lane) store.Cursor { return store.Cursor{ID: l.Lane} }, laneView), nil
}

func laneView(l store.Lane) LaneView {
	v := LaneView{Lane: l.Lane, Client: orNull(l.Tenant), Ready: l.Ready, Running: l.Running}
	switch {
	case strings.HasSuffix(l.ParkedFor, ".credential"):
		v.Pause = &LanePause{Reason: "credential"}
	case l.ParkedFor == "campaign_paused":
		v.Pause = &LanePause{Reason: "operator"}
	}
	return v
}
