package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// deliveries is the API of the raw inbox: what Meta delivered, and how far it was sorted. The bytes are not shown.
type deliveries struct{ inbox store.Inbox }

// DeliveryView is a delivery as a client sees it.
type DeliveryView struct {
	ID         string  `json:"id"`
	State      string  `json:"state" enum:"received,settled,unresolved,failed" doc:"received: being sorted. unresolved: some item belongs to no known client."`
	Error      *string `json:"error" doc:"Why it is unresolved or failed."`
	Attempt    int     `json:"attempt"`
	ReceivedAt Time    `json:"receivedAt"`
	SettledAt  *Time   `json:"settledAt" nullable:"true"`
}

// AdminDeliveryView is a delivery as the operator sees it.
type AdminDeliveryView struct {
	DeliveryView
	Client  *string  `json:"client" doc:"Whose own app it came through; null for the operator's."`
	Clients []string `json:"clients" doc:"Whose items it holds."`
}

// deliveryView shows a delivery to a client. What went wrong is told only where nobody else's items are in it.
func deliveryView(code string) func(store.Delivery) DeliveryView {
	return func(d store.Delivery) DeliveryView {
		alone := d.Client == code || (len(d.Clients) == 1 && d.Clients[0] == code)
		if !alone {
			d.Error = ""
		}
		return plainDelivery(d)
	}
}

func plainDelivery(d store.Delivery) DeliveryView {
	return DeliveryView{ID: d.ID, State: string(d.State), Error: orNull(d.Error), Attempt: d.Attempt, ReceivedAt: Time{d.ReceivedAt}, SettledAt: At(d.SettledAt)}
}

func adminDeliveryView(d store.Delivery) AdminDeliveryView {
	return AdminDeliveryView{DeliveryView: plainDelivery(d), Client: orNull(d.Client), Clients: append([]string{}, d.Clients...)}
}

// RegisterDeliveries adds the API of the raw inbox.
func RegisterDeliveries(a *API, inbox store.Inbox) {
	s := deliveries{inbox}
	const replayText = "They are sorted again; what is stored already stays as it is. Name ids (at most 200), or a state: then at most 10,000 a call, " +
		"and more says that there are others."
	ClientCall(a, Op{Route: "GET /api/whatsapp/deliveries", ID: "listDeliveries", Tag: "WhatsApp", Summary: "List the webhook deliveries that held something of the client's"}, s.list)
	ClientCall(a, Op{Route: "POST /api/whatsapp/deliveries/replay", ID: "replayDeliveries", Tag: "WhatsApp", Summary: "Sort deliveries again", Description: replayText,
		Doc: a.alsoAnswers(http.StatusNotFound)},
		func(ctx context.Context, c Caller, in *replayInput) (*Answer[Bulk], error) {
			return s.replay(ctx, c.Client, in)
		})
	Admin(a, Op{Route: "GET /api/admin/deliveries", ID: "adminListDeliveries", Tag: "Operation", Summary: "List webhook deliveries",
		Description: "Without state, those that need somebody: unresolved and failed ones."}, s.adminList)
	Admin(a, Op{Route: "POST /api/admin/deliveries/replay", ID: "adminReplayDeliveries", Tag: "Operation", Summary: "Sort any deliveries again", Description: replayText,
		Doc: a.alsoAnswers(http.StatusNotFound)},
		func(ctx context.Context, in *replayInput) (*Answer[Bulk], error) { return s.replay(ctx, "", in) })
}

type deliveriesInput struct {
	Page
	State string `query:"state" enum:"received,settled,unresolved,failed"`
}

func (s deliveries) list(ctx context.Context, c Caller, in *deliveriesInput) (*Answer[List[DeliveryView]], error) {
	return deliveryPage(ctx, s, store.DeliveryFilter{Client: c.Client, States: deliveryStates(in.State)}, in.Page, "deliveries", deliveryView(c.Client))
}

func deliveryStates(state string) []store.DeliveryState {
	if state == "" {
		return nil
	}
	return []store.DeliveryState{store.DeliveryState(state)}
}

type adminDeliveriesInput struct {
	Page
	State  string `query:"state" enum:"received,settled,unresolved,failed"`
	Client string `query:"client" maxLength:"64" doc:"Of one client only."`
}

func (s deliveries) adminList(ctx context.Context, in *adminDeliveriesInput) (*Answer[List[AdminDeliveryView]], error) {
	f := store.DeliveryFilter{States: deliveryStates(in.State)}
	if len(f.States) == 0 {
		f.States = needSomebody
	}
	if in.Client != "" {
		var ok bool
		if f.Client, ok = tenant.Code(in.Client); !ok {
			return nil, tenant.ErrUnknown()
		}
	}
	return deliveryPage(ctx, s, f, in.Page, "admin-deliveries", adminDeliveryView)
}

// needSomebody are the states that a delivery does not leave by itself.
var needSomebody = []store.DeliveryState{store.Unresolved, store.Failed}

func deliveryPage[V any](ctx context.Context, s deliveries, f store.DeliveryFilter, p Page, name string, view func(store.Delivery) V) (*Answer[List[V]], error) {
	at, err := p.After(name)
	if err != nil {
		return nil, err
	}
	if at != nil {
		f.After = at.ID
	}
	f.Limit = p.Limit + 1
	rows, err := s.inbox.Deliveries(ctx, f)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, p, name, func(d store.Delivery) store.Cursor { return store.Cursor{ID: d.ID} }, view), nil
}

type replayInput struct {
	Body struct {
		IDs   []string `json:"ids,omitempty" minItems:"1" maxItems:"200" maxLength:"64"`
		State string   `json:"state,omitempty" enum:"unresolved,failed"`
	}
}

// replay sends deliveries round again: a client's own, or any ("").
func (s deliveries) replay(ctx context.Context, client string, in *replayInput) (*Answer[Bulk], error) {
	b := in.Body
	switch {
	case len(b.IDs) > 0 && b.State != "":
		return nil, fault.Bad("/state", "Expected ids or a state, not both.")
	case len(b.IDs) > 0:
		return s.replayIDs(ctx, client, b.IDs)
	case b.State == "":
		return nil, fault.Bad("/ids", "Expected ids, or a state.")
	}
	f := store.DeliveryFilter{Client: client, States: deliveryStates(b.State)}
	var out Bulk
	err := inPages(&out, func(after string, limit int) ([]string, error) {
		f.After, f.Limit = after, limit
		found, err := s.inbox.Deliveries(ctx, f)
		ids := make([]string, len(found))
		for i, d := range found {
			ids[i] = d.ID
		}
		return ids, err
	}, func(ids []string) (int, error) {
		did, err := s.inbox.Replay(ctx, ids...)
		return len(did), err
	})
	if err != nil {
		return nil, err
	}
	return OK(out)
}

// replayIDs replays all of the named, or none: one that is not there, or not the client's, is refused.
func (s deliveries) replayIDs(ctx context.Context, client string, ids []string) (*Answer[Bulk], error) {
	for i, id := range ids {
		d, err := s.inbox.Delivery(ctx, id)
		if errors.Is(err, store.ErrNotFound) || (err == nil && client != "" && d.Client != client && !slices.Contains(d.Clients, client)) {
			f := fault.Missing("delivery")
			f.Fields = []fault.Field{{Pointer: "/ids/" + strconv.Itoa(i), Detail: "There is no such delivery."}}
			return nil, f
		}
		if err != nil {
			return nil, err
		}
	}
	did, err := s.inbox.Replay(ctx, ids...)
	if err != nil {
		return nil, err
	}
	return OK(Bulk{Count: len(did)})
}
