package realtime

import (
	"context"
	"encoding/json"

	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// current is the number of a client's newest item.
func current(ctx context.Context, tn *tenant.Tenant) (int64, error) {
	items, err := news.Items.Find(ctx, tn.DB, store.Query{Order: "seq", Desc: true, Limit: 1})
	if err != nil || len(items) == 0 {
		return 0, err
	}
	return items[0].Seq, nil
}

func after(ctx context.Context, tn *tenant.Tenant, seq int64, limit int) ([]*news.Item, error) {
	return news.Items.Find(ctx, tn.DB, store.Query{Order: "seq", After: &store.Cursor{Value: seq, ID: "\xff"}, Limit: limit})
}

// sinceAnswer is what "since" is acknowledged with.
type sinceAnswer struct {
	Items []saidEvent `json:"items"`
	Seq   int64       `json:"seq"`  // ask on from here
	More  bool        `json:"more"` // at once
	// Reset: the items since then are no longer kept; read all anew, and ask on from Seq.
	Reset bool   `json:"reset"`
	Error string `json:"error,omitempty"`
}

type saidEvent struct {
	Event string `json:"event"`
	Data  Said   `json:"data"`
}

// since answers what a client has missed after a number.
func (h *Hub) since(ctx context.Context, code string, args []json.RawMessage, ack func(...any)) {
	answer := sinceAnswer{Items: []saidEvent{}}
	var seq int64
	if len(args) == 0 || string(args[0]) == "null" || json.Unmarshal(args[0], &seq) != nil || seq < 0 {
		answer.Error = "seq must be a number, 0 or more"
		ack(answer)
		return
	}
	tn, release, err := h.cfg.Tenants.Use(ctx, code)
	if err != nil {
		answer.Error, answer.Seq, answer.More = "unavailable", seq, true
		ack(answer)
		return
	}
	defer release()
	if err := h.fillSince(ctx, tn, seq, &answer); err != nil {
		h.cfg.Log.Warn("a client's news cannot be read", "client", code, "error", err)
		answer = sinceAnswer{Items: []saidEvent{}, Seq: seq, More: true, Error: "unavailable"}
	}
	ack(answer)
}

func (h *Hub) fillSince(ctx context.Context, tn *tenant.Tenant, seq int64, answer *sinceAnswer) error {
	items, more, err := some(ctx, tn, seq)
	if err != nil {
		return err
	}
	// Read after the items: what was deleted before they were read shows here.
	oldest, err := news.Items.Find(ctx, tn.DB, store.Query{Order: "seq", Limit: 1})
	if err != nil {
		return err
	}
	now, err := current(ctx, tn)
	if err != nil {
		return err
	}
	if seq > now || (len(oldest) > 0 && seq+1 < oldest[0].Seq) {
		answer.Seq, answer.Reset = now, true
		return nil
	}
	answer.Seq, answer.More = seq, more
	for _, i := range items {
		answer.Items = append(answer.Items, saidEvent{i.Event, say(i)})
		answer.Seq = i.Seq
	}
	return nil
}

// some reads what comes after a number, as much as one answer holds, and whether there may be more. It reads few items
// first: they may be large.
func some(ctx context.Context, tn *tenant.Tenant, seq int64) (items []*news.Item, more bool, err error) {
	size := 0
	for page := 8; len(items) < sinceMost; page *= 2 {
		page = min(page, sinceMost-len(items))
		next, err := after(ctx, tn, seq, page)
		if err != nil {
			return nil, false, err
		}
		for _, i := range next {
			for _, resource := range i.Data {
				size += len(resource)
			}
			if size > sinceBytes && len(items) > 0 {
				return items, true, nil
			}
			items = append(items, i)
			seq = i.Seq
		}
		if len(next) < page {
			return items, false, nil
		}
	}
	return items, true, nil
}
