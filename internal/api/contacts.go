package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// contacts is the API of contacts.
type contacts struct{ book *crm.Book }

// RegisterContacts adds the API of contacts.
func RegisterContacts(a *API, book *crm.Book) {
	s := contacts{book}
	const tag = "CRM"
	Client(a, Op{Route: "GET /api/crm/contacts", ID: "listContacts", Tag: tag, Summary: "List and search contacts"}, s.list)
	Client(a, Op{Route: "POST /api/crm/contacts", ID: "createContact", Tag: tag, Summary: "Create a contact", Status: http.StatusCreated,
		Description: "A phone that a contact has, or without a phone an e-mail: 409 contact.exists with that contact's id."}, s.create)
	Client(a, Op{Route: "GET /api/crm/contacts/{id}", ID: "getContact", Tag: tag, Summary: "Read a contact",
		Description: "A contact that turned out to be another is answered as that one."},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*taggedContact, error) {
			return answerContact(book.ContactByID(ctx, tn, in.ID))
		})
	Client(a, Op{Route: "PATCH /api/crm/contacts/{id}", ID: "updateContact", Tag: tag, Summary: "Change a contact",
		Description: "Members that are left out stay; null clears one. With If-Match or version, a contact that was changed meanwhile is refused: 409 version.conflict."}, s.update)
	Client(a, Op{Route: "DELETE /api/crm/contacts/{id}", ID: "deleteContact", Tag: tag, Summary: "Delete a contact",
		Description: "One that a lead has is refused: 409 contact.has_lead. Of one who wrote on WhatsApp or asked for no messages, the ids are kept, and nothing else."}, s.remove)
}

type contactsInput struct {
	Page
	Q     string `query:"q" maxLength:"200" doc:"Words of name, e-mail, phone or user name, each from its beginning; any case."`
	Phone string `query:"phone" maxLength:"64" doc:"In any spelling."`
	Email string `query:"email" maxLength:"254"`
	Sort  string `query:"sort" maxLength:"32" doc:"createdAt, updatedAt or name, with - before it for descending; -createdAt if left out."`
}

func (s contacts) list(ctx context.Context, tn *tenant.Tenant, in *contactsInput) (*Answer[List[ContactView]], error) {
	q, err := crm.ContactQuery(crm.ContactFilter{Q: in.Q, Phone: in.Phone, Email: in.Email, Sort: in.Sort}, tn.Account().DefaultCountry)
	if err != nil {
		return nil, inQuery(err)
	}
	name := "contacts:" + or(in.Sort, "-createdAt")
	if q.After, err = in.afterIn(name, crm.Contacts.Schema, q.Order); err != nil {
		return nil, err
	}
	q.Limit = in.Limit + 1
	rows, err := crm.Contacts.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, name, func(c *crm.Contact) store.Cursor {
		return store.Cursor{Value: crm.Contacts.Index(c)[q.Order], ID: c.ID}
	}, contactView), nil
}

type contactInput struct {
	Body struct {
		Name  string `json:"name,omitempty" maxLength:"200" example:"Dhanesh"`
		Phone string `json:"phone,omitempty" maxLength:"64" doc:"In any spelling. phone or email is required." example:"918143963821"`
		Email string `json:"email,omitempty" maxLength:"254"`
	}
}

type createdContact struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     ContactView
}

func (s contacts) create(ctx context.Context, tn *tenant.Tenant, in *contactInput) (*createdContact, error) {
	var bad fields
	w := crm.Who{Name: strings.TrimSpace(in.Body.Name), Phone: bad.phone("/phone", in.Body.Phone, tn), Email: bad.email("/email", in.Body.Email)}
	bad.line("/name", w.Name)
	if strings.TrimSpace(in.Body.Phone) == "" && strings.TrimSpace(in.Body.Email) == "" {
		bad.add("/phone", "phone or email is required.")
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	c, err := s.book.AddContact(ctx, tn, once(ctx), w)
	if err != nil {
		return nil, err
	}
	return &createdContact{ETag: etag(c.Version), Location: "/api/crm/contacts/" + c.ID, Body: contactView(c)}, nil
}

type contactPatch struct {
	ByID
	IfMatch string `header:"If-Match" maxLength:"100" doc:"The ETag that the contact was read with."`
	Body    struct {
		Name    Optional[string] `json:"name,omitzero" maxLength:"200"`
		Phone   Optional[string] `json:"phone,omitzero" maxLength:"64" doc:"In any spelling."`
		Email   Optional[string] `json:"email,omitzero" maxLength:"254"`
		Version int64            `json:"version,omitempty" minimum:"1" doc:"The version that was read, as If-Match."`
	}
}

func (s contacts) update(ctx context.Context, tn *tenant.Tenant, in *contactPatch) (*taggedContact, error) {
	b := in.Body
	version, err := ifVersion(in.IfMatch, b.Version)
	if err != nil {
		return nil, err
	}
	var bad fields
	p := crm.ContactPatch{
		IfVersion: version, Name: b.Name.cleaned(strings.TrimSpace),
		Phone: b.Phone.cleaned(func(v string) string { return bad.phone("/phone", v, tn) }),
		Email: b.Email.cleaned(func(v string) string { return bad.email("/email", v) }),
	}
	bad.line("/name", strings.TrimSpace(b.Name.Value))
	if err := bad.fault(); err != nil {
		return nil, err
	}
	return answerContact(s.book.EditContact(ctx, tn, in.ID, p))
}

// cleaned gives the member's value in its clean form, the zero value for null; nil where the member is not there.
func (o Optional[T]) cleaned(clean func(T) T) *T {
	if !o.Set {
		return nil
	}
	v := clean(o.Value)
	return &v
}

func (s contacts) remove(ctx context.Context, tn *tenant.Tenant, in *Removal) (*struct{}, error) {
	version, err := ifVersion(in.IfMatch, 0)
	if err != nil {
		return nil, err
	}
	return nil, s.book.DeleteContact(ctx, tn, in.ID, version)
}

// Removal is the input of a deletion.
type Removal struct {
	ByID
	IfMatch string `header:"If-Match" maxLength:"100" doc:"The ETag that it was read with."`
}

func answerContact(c *crm.Contact, err error) (*taggedContact, error) {
	if err != nil {
		return nil, err
	}
	return &taggedContact{ETag: etag(c.Version), Body: contactView(c)}, nil
}

// ContactView is a contact as the API shows it.
type ContactView struct {
	ID         string  `json:"id"`
	Name       string  `json:"name"`
	Phone      *string `json:"phone" doc:"E.164; null where only a WhatsApp user id is known."`
	Email      *string `json:"email"`
	WaID       *string `json:"waId" doc:"The phone number as WhatsApp spells it."`
	UserID     *string `json:"userId" doc:"WhatsApp's business-scoped user id."`
	Username   *string `json:"username"`
	LeadID     *string `json:"leadId"`
	OptedOutAt *Time   `json:"optedOutAt" nullable:"true"`
	OptOutBy   *string `json:"optOutBy" doc:"keyword, button, preference or provider."`
	Version    int64   `json:"version"`
	CreatedAt  Time    `json:"createdAt"`
	UpdatedAt  Time    `json:"updatedAt"`
}

func contactView(c *crm.Contact) ContactView {
	v := ContactView{
		ID: c.ID, Name: c.Name, Phone: orNull(c.Phone), Email: orNull(c.Email), WaID: orNull(c.WaID), UserID: orNull(c.UserID),
		Username: orNull(c.Username), LeadID: orNull(c.LeadID), OptOutBy: orNull(c.OptOutBy), Version: c.Version,
		CreatedAt: Time{c.CreatedAt}, UpdatedAt: Time{c.UpdatedAt},
	}
	if c.OptedOutAt != nil {
		v.OptedOutAt = At(*c.OptedOutAt)
	}
	return v
}

type taggedContact struct {
	ETag string `header:"ETag"`
	Body ContactView
}
