package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// suppressions is the API of addresses that are not to be written to.
type suppressions struct{ book *crm.Book }

// RegisterSuppressions adds the API of suppressions.
func RegisterSuppressions(a *API, book *crm.Book) {
	s := suppressions{book}
	const tag, at = "Campaigns", "/api/suppressions"
	Client(a, Op{Route: "GET " + at, ID: "listSuppressions", Tag: tag, Summary: "List suppressed addresses, newest first"}, s.list)
	Client(a, Op{Route: "POST " + at, ID: "createSuppression", Tag: tag, Summary: "Suppress an address", Status: http.StatusCreated,
		Description: "No campaign writes to it from now on. On channel all, or where the reason is hard_bounce, nothing else does either. An address that is suppressed already stays as it is."}, s.create)
	Client(a, Op{Route: "DELETE " + at + "/{id}", ID: "deleteSuppression", Tag: tag, Summary: "Let an address be written to again"}, s.remove)
}

// SuppressionView is a suppression as the API shows it.
type SuppressionView struct {
	ID        string  `json:"id"`
	Channel   string  `json:"channel" enum:"email,whatsapp,all"`
	Email     *string `json:"email"`
	Phone     *string `json:"phone"`
	Reason    string  `json:"reason" doc:"unsubscribed and hard_bounce are the engine's own."`
	CreatedAt Time    `json:"createdAt"`
}

func suppressionView(s *crm.Suppression) SuppressionView {
	v := SuppressionView{ID: s.ID, Channel: s.Channel, Reason: s.Reason, CreatedAt: Time{s.CreatedAt}}
	if strings.HasPrefix(s.Address, "+") {
		v.Phone = &s.Address
	} else {
		v.Email = &s.Address
	}
	return v
}

type suppressionsInput struct {
	Page
	Email   string `query:"email" maxLength:"254"`
	Phone   string `query:"phone" maxLength:"64" doc:"In any spelling."`
	Channel string `query:"channel" enum:"email,whatsapp,all"`
}

func (s suppressions) list(ctx context.Context, tn *tenant.Tenant, in *suppressionsInput) (*Answer[List[SuppressionView]], error) {
	name := "suppressions"
	at, err := in.afterIn(name, crm.Suppressions.Schema, "createdAt")
	if err != nil {
		return nil, err
	}
	q := store.Query{Order: "createdAt", Desc: true, After: at, Limit: in.Limit + 1}
	if in.Email != "" {
		email, ok := crm.Email(in.Email)
		if !ok {
			return nil, fault.Bad("query.email", "Expected an e-mail address.")
		}
		q.Where = append(q.Where, store.Where("address", store.Eq, email))
	}
	if in.Phone != "" {
		phone, ok := crm.Phone(in.Phone, tn.Account().DefaultCountry)
		if !ok {
			return nil, fault.Bad("query.phone", "Expected a phone number.")
		}
		q.Where = append(q.Where, store.Where("address", store.Eq, crm.PhoneKey(phone)))
	}
	if in.Channel != "" {
		q.Where = append(q.Where, store.Where("channel", store.Eq, in.Channel))
	}
	rows, err := crm.Suppressions.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, name, func(s *crm.Suppression) store.Cursor {
		return store.Cursor{Value: s.CreatedAt.UnixMilli(), ID: s.ID}
	}, suppressionView), nil
}

type suppressionInput struct {
	Body struct {
		Email   string `json:"email,omitempty" maxLength:"254" doc:"email or phone is required."`
		Phone   string `json:"phone,omitempty" maxLength:"64"`
		Channel string `json:"channel,omitempty" enum:"email,whatsapp,all" doc:"That of the address if left out."`
		Reason  string `json:"reason" minLength:"1" maxLength:"200" example:"asked by phone"`
	}
}

func (s suppressions) create(ctx context.Context, tn *tenant.Tenant, in *suppressionInput) (*Answer[SuppressionView], error) {
	b := in.Body
	var bad fields
	bad.text("/reason", b.Reason)
	sup := crm.Suppression{Channel: b.Channel, Reason: strings.TrimSpace(b.Reason), Dead: b.Reason == crm.HardBounce}
	var ok bool
	switch {
	case (b.Email == "") == (b.Phone == ""):
		bad.add("/email", "Expected email or phone, and not both.")
	case b.Email != "":
		sup.Channel = or(b.Channel, crm.ChannelEmail)
		if sup.Address, ok = crm.Email(b.Email); !ok {
			bad.add("/email", "Expected an e-mail address.")
		}
		if b.Channel == crm.ChannelWhatsApp {
			bad.add("/channel", "An e-mail address is not one of WhatsApp.")
		}
	default:
		sup.Channel = or(b.Channel, crm.ChannelWhatsApp)
		if sup.Address, ok = crm.Phone(b.Phone, tn.Account().DefaultCountry); !ok {
			bad.add("/phone", "Expected a phone number.")
		}
		if b.Channel == crm.ChannelEmail {
			bad.add("/channel", "A phone number is not one of e-mail.")
		}
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	for range 5 {
		made, writes, err := s.book.Suppress(ctx, tn, sup)
		if err == nil && len(writes) > 0 {
			err = tn.DB.Commit(ctx, writes...)
		}
		switch {
		case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrDuplicate):
			continue
		case err != nil:
			return nil, err
		}
		return OK(suppressionView(made))
	}
	return nil, &fault.Error{Kind: fault.Unavailable, Code: "busy", Detail: "The address is being changed by others. Try again.", RetryAfter: time.Second}
}

func (s suppressions) remove(ctx context.Context, tn *tenant.Tenant, in *ByID) (*struct{}, error) {
	sup, err := crm.Suppressions.Get(ctx, tn.DB, in.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("suppression")
	}
	if err != nil {
		return nil, err
	}
	err = tn.DB.Commit(ctx, store.Write{Action: store.Delete, Kind: crm.Suppressions.Schema.Kind, ID: sup.ID})
	return nil, err
}
