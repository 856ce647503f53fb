package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// maxChange bounds what one change of a lead carries, as JSON: it keeps its job within the queue's limit on payloads.
const maxChange = 32 << 10

// leads is the API of changing leads.
type leads struct{ book *crm.Book }

func registerLeadChanges(a *API, book *crm.Book) {
	s := leads{book}
	const tag = "CRM"
	Client(a, Op{Route: "POST /api/crm/leads", ID: "createLead", Tag: tag, Summary: "Create a lead", Status: http.StatusCreated,
		Description: "Its contact is found by phone or e-mail, or made. A phone that a lead has in any spelling: 409 lead.exists with that lead's id."}, s.create)
	Client(a, Op{Route: "PATCH /api/crm/leads/{id}", ID: "updateLead", Tag: tag, Summary: "Change a lead",
		Description: "Members that are left out stay; null clears one. fields are merged, a null field is removed; tags are all that the lead is to have. " +
			"With If-Match or version, a lead that was changed meanwhile is refused: 409 version.conflict."}, s.update)
	Client(a, Op{Route: "DELETE /api/crm/leads/{id}", ID: "deleteLead", Tag: tag, Summary: "Delete a lead",
		Description: "Its notes, history and scores go with it, and its runs end. Its contact and messages stay."}, s.remove)
	Client(a, Op{Route: "POST /api/crm/leads/{id}/stage", ID: "moveLead", Tag: tag, Summary: "Move a lead to a stage",
		Description: "A stage of kind won or lost closes the lead, one of kind open opens it again. A lead that stands there already: nothing happens."}, s.move)
	Client(a, Op{Route: "POST /api/crm/leads/{id}/tags", ID: "addLeadTags", Tag: tag, Summary: "Give a lead tags"}, s.addTags)
	Client(a, Op{Route: "DELETE /api/crm/leads/{id}/tags", ID: "removeLeadTags", Tag: tag, Summary: "Take tags from a lead",
		Description: "By the body, or by tag parameters."}, s.removeTags)
	Client(a, Op{Route: "POST /api/crm/leads/{id}/notes", ID: "addLeadNote", Tag: tag, Summary: "Write a note about a lead", Status: http.StatusCreated}, s.note)
	Client(a, Op{Route: "GET /api/crm/leads/{id}/notes", ID: "listLeadNotes", Tag: tag, Summary: "List the notes about a lead, newest first"}, s.notes)
	Client(a, Op{Route: "POST /api/crm/leads/merge", ID: "mergeLeads", Tag: tag, Summary: "Make leads part of another",
		Description: "That one takes over what it lacks, all their tags, points, notes and history. From then on they answer as that one, by id, phone and e-mail."}, s.merge)
	Client(a, Op{Route: "GET /api/crm/leads/{id}/timeline", ID: "getLeadTimeline", Tag: tag, Summary: "Read all that happened with a lead, newest first",
		Description: "Changes, notes, messages, runs of automations and points, with those of leads that were merged into it."}, s.timeline)
}

// once names what this request does: the same for every try of it, if it says which by Idempotency-Key.
func once(ctx context.Context) string {
	if key := Once(ctx); key != "" {
		return key
	}
	return id.New("mut")
}

// change makes a change of a lead on behalf of the caller.
func (s leads) change(ctx context.Context, tn *tenant.Tenant, m crm.Mutation) (*taggedLead, error) {
	m.ID, m.By, m.Cause, m.At = once(ctx), CallerOf(ctx).UserID, crm.ByPerson, s.book.Now()
	l, err := s.book.Change(ctx, tn, m)
	if errors.Is(err, store.ErrTooLarge) {
		return nil, fault.Bad("/fields", "Expected less: the change is larger than can be kept.")
	}
	if err != nil || l == nil {
		return nil, err
	}
	return &taggedLead{ETag: etag(l.Version), Body: l.View(l.Version)}, nil
}

// leadBody is what a caller says of a lead.
type leadBody struct {
	Name     string         `json:"name,omitempty" maxLength:"200" example:"Dhanesh"`
	Phone    string         `json:"phone,omitempty" maxLength:"64" doc:"In any spelling. phone or email is required." example:"918143963821"`
	Email    string         `json:"email,omitempty" maxLength:"254"`
	Source   string         `json:"source,omitempty" maxLength:"100" example:"website"`
	Pipeline string         `json:"pipeline,omitempty" maxLength:"64" doc:"default if left out."`
	Stage    string         `json:"stage,omitempty" maxLength:"64" doc:"The pipeline's first if left out."`
	Tags     []string       `json:"tags,omitempty" maxItems:"100" maxLength:"100"`
	OwnerID  string         `json:"ownerId,omitempty" maxLength:"100"`
	Value    float64        `json:"value,omitempty"`
	Currency string         `json:"currency,omitempty" pattern:"^[A-Za-z]{3}$" patternDescription:"ISO 4217, three letters" example:"INR"`
	Fields   map[string]any `json:"fields,omitempty" doc:"Custom members. The body as a whole: at most 32 KiB."`
}

func (s leads) create(ctx context.Context, tn *tenant.Tenant, in *struct{ Body leadBody }) (*createdLead, error) {
	b := in.Body
	var bad fields
	n := &crm.NewLead{
		Phone: bad.phone("/phone", b.Phone, tn), Email: bad.email("/email", b.Email), Pipeline: b.Pipeline, Stage: b.Stage,
		LeadData: crm.LeadData{
			Name: strings.TrimSpace(b.Name), Source: b.Source, Currency: strings.ToUpper(b.Currency), OwnerID: b.OwnerID, Value: b.Value,
			Tags: bad.tags("/tags", b.Tags), Fields: b.Fields,
		},
	}
	bad.line("/name", strings.TrimSpace(b.Name))
	bad.line("/source", b.Source)
	bad.line("/ownerId", b.OwnerID)
	bad.names("/fields", b.Fields)
	bad.size("", b, maxChange)
	if b.Phone == "" && b.Email == "" {
		bad.add("/phone", "phone or email is required.")
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	l, err := s.change(ctx, tn, crm.Mutation{Create: n})
	if err != nil {
		return nil, err
	}
	return &createdLead{ETag: l.ETag, Location: "/api/crm/leads/" + l.Body.ID, Body: l.Body}, nil
}

type createdLead struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     crm.LeadView
}

type leadPatch struct {
	ByID
	IfMatch string `header:"If-Match" maxLength:"100" doc:"The ETag that the lead was read with."`
	Body    struct {
		Name     Optional[string]         `json:"name,omitzero" maxLength:"200"`
		Phone    Optional[string]         `json:"phone,omitzero" maxLength:"64" doc:"In any spelling."`
		Email    Optional[string]         `json:"email,omitzero" maxLength:"254"`
		Source   Optional[string]         `json:"source,omitzero" maxLength:"100"`
		Pipeline string                   `json:"pipeline,omitempty" maxLength:"64"`
		Stage    string                   `json:"stage,omitempty" maxLength:"64"`
		Tags     *[]string                `json:"tags,omitempty" maxItems:"100" maxLength:"100" doc:"All that the lead is to have."`
		OwnerID  Optional[string]         `json:"ownerId,omitzero" maxLength:"100"`
		Value    Optional[float64]        `json:"value,omitzero"`
		Currency Optional[string]         `json:"currency,omitzero" pattern:"^[A-Za-z]{3}$" patternDescription:"ISO 4217, three letters"`
		Fields   Optional[map[string]any] `json:"fields,omitzero" doc:"Merged into those that the lead has; null removes all of them."`
		Version  int64                    `json:"version,omitempty" minimum:"1" doc:"The version that was read, as If-Match."`
	}
}

func (s leads) update(ctx context.Context, tn *tenant.Tenant, in *leadPatch) (*taggedLead, error) {
	b := in.Body
	version, err := ifVersion(in.IfMatch, b.Version)
	if err != nil {
		return nil, err
	}
	var bad fields
	same := func(v string) string { return v }
	p := &crm.LeadPatch{
		Name: b.Name.cleaned(strings.TrimSpace), Source: b.Source.cleaned(same), OwnerID: b.OwnerID.cleaned(same), Currency: b.Currency.cleaned(strings.ToUpper),
		Phone:  b.Phone.cleaned(func(v string) string { return bad.phone("/phone", v, tn) }),
		Email:  b.Email.cleaned(func(v string) string { return bad.email("/email", v) }),
		Fields: b.Fields.Value, NoFields: b.Fields.Null,
	}
	if b.Value.Set {
		p.Value = &b.Value.Value
	}
	if b.Tags != nil {
		tags := bad.tags("/tags", *b.Tags)
		p.Tags = &tags
	}
	bad.line("/name", strings.TrimSpace(b.Name.Value))
	bad.line("/source", b.Source.Value)
	bad.line("/ownerId", b.OwnerID.Value)
	bad.names("/fields", b.Fields.Value)
	bad.size("", p, maxChange)
	if err := bad.fault(); err != nil {
		return nil, err
	}
	m := crm.Mutation{LeadID: in.ID, IfVersion: version, Set: p}
	if b.Stage != "" || b.Pipeline != "" {
		m.Move = &crm.Move{Pipeline: b.Pipeline, Stage: b.Stage}
	}
	return s.change(ctx, tn, m)
}

func (s leads) remove(ctx context.Context, tn *tenant.Tenant, in *Removal) (*struct{}, error) {
	version, err := ifVersion(in.IfMatch, 0)
	if err != nil {
		return nil, err
	}
	_, err = s.change(ctx, tn, crm.Mutation{LeadID: in.ID, IfVersion: version, Delete: true})
	return nil, err
}

type moveInput struct {
	ByID
	IfMatch string `header:"If-Match" maxLength:"100" doc:"The ETag that the lead was read with."`
	Body    struct {
		Stage    string `json:"stage" minLength:"1" maxLength:"64" example:"booked"`
		Pipeline string `json:"pipeline,omitempty" maxLength:"64" doc:"The lead's own if left out."`
		Reason   string `json:"reason,omitempty" maxLength:"500" example:"Price"`
		Version  int64  `json:"version,omitempty" minimum:"1" doc:"The version that was read, as If-Match."`
	}
}

func (s leads) move(ctx context.Context, tn *tenant.Tenant, in *moveInput) (*taggedLead, error) {
	version, err := ifVersion(in.IfMatch, in.Body.Version)
	if err != nil {
		return nil, err
	}
	return s.change(ctx, tn, crm.Mutation{LeadID: in.ID, IfVersion: version,
		Move: &crm.Move{Pipeline: in.Body.Pipeline, Stage: in.Body.Stage, Reason: strings.TrimSpace(in.Body.Reason)}})
}

type tagsBody struct {
	Tags []string `json:"tags" minItems:"1" maxItems:"100" maxLength:"100" example:"[\"vip\"]"`
}

type addTagsInput struct {
	ByID
	Body tagsBody
}

func (s leads) addTags(ctx context.Context, tn *tenant.Tenant, in *addTagsInput) (*taggedLead, error) {
	var bad fields
	tags := bad.tags("/tags", in.Body.Tags)
	if err := bad.fault(); err != nil {
		return nil, err
	}
	return s.change(ctx, tn, crm.Mutation{LeadID: in.ID, Add: tags})
}

type removeTagsInput struct {
	ByID
	Tag  []string `query:"tag,explode" maxItems:"100" doc:"Repeated: each of them."`
	Body *tagsBody
}

func (s leads) removeTags(ctx context.Context, tn *tenant.Tenant, in *removeTagsInput) (*taggedLead, error) {
	asked := in.Tag
	if in.Body != nil {
		asked = append(asked, in.Body.Tags...)
	}
	if len(asked) == 0 {
		return nil, fault.Bad("/tags", "Expected at least one.")
	}
	var bad fields
	tags := bad.tags("/tags", asked)
	if err := bad.fault(); err != nil {
		return nil, err
	}
	return s.change(ctx, tn, crm.Mutation{LeadID: in.ID, Remove: tags})
}

type noteInput struct {
	ByID
	Body struct {
		Text string `json:"text" minLength:"1" maxLength:"10000" example:"Wants to be called after six."`
	}
}

func (s leads) note(ctx context.Context, tn *tenant.Tenant, in *noteInput) (*Answer[crm.NoteView], error) {
	text := strings.TrimSpace(in.Body.Text)
	if text == "" {
		return nil, fault.Bad("/text", "Expected a text.")
	}
	n, err := s.book.AddNote(ctx, tn, in.ID, once(ctx), CallerOf(ctx).UserID, text)
	if err != nil {
		return nil, err
	}
	return OK(n.View())
}

type notesInput struct {
	ByID
	Page
}

func (s leads) notes(ctx context.Context, tn *tenant.Tenant, in *notesInput) (*Answer[List[crm.NoteView]], error) {
	const name = "notes:-createdAt"
	at, err := in.afterIn(name, crm.Notes.Schema, "at")
	if err != nil {
		return nil, err
	}
	rows, err := s.book.NotesOf(ctx, tn, in.ID, at, in.Limit+1)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, name, func(n *crm.Note) store.Cursor { return store.Cursor{Value: n.CreatedAt.UnixMilli(), ID: n.ID} },
		func(n *crm.Note) crm.NoteView { return n.View() }), nil
}

type mergeInput struct {
	Body struct {
		Into string   `json:"into" minLength:"1" maxLength:"256"`
		From []string `json:"from" minItems:"1" maxItems:"50" maxLength:"256"`
	}
}

func (s leads) merge(ctx context.Context, tn *tenant.Tenant, in *mergeInput) (*taggedLead, error) {
	if slices.Contains(in.Body.From, in.Body.Into) {
		return nil, fault.Bad("/from", "A lead cannot be made part of itself.")
	}
	l, err := s.book.Merge(ctx, tn, crm.Merging{ID: once(ctx), Into: in.Body.Into, From: in.Body.From, By: CallerOf(ctx).UserID, At: s.book.Now()})
	if err != nil {
		return nil, err
	}
	return &taggedLead{ETag: etag(l.Version), Body: l.View(l.Version)}, nil
}

// TimelineEntry is one thing in a lead's timeline.
type TimelineEntry struct {
	ID   string `json:"id"`
	At   Time   `json:"at"`
	Type string `json:"type" doc:"change, note, message, run, score, and others to come." example:"note"`
	Data any    `json:"data" doc:"It, as its own resource is shown."`
}

type timelineInput struct {
	ByID
	Page
}

func (s leads) timeline(ctx context.Context, tn *tenant.Tenant, in *timelineInput) (*Answer[List[TimelineEntry]], error) {
	at, err := in.After("timeline")
	if err != nil {
		return nil, err
	}
	if at != nil {
		if _, ok := at.Value.(int64); !ok {
			return nil, fault.Bad("query.cursor", "This is not a cursor of this list and order.")
		}
	}
	rows, err := s.book.Timeline(ctx, tn, in.ID, at, in.Limit+1)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "timeline", func(e crm.Entry) store.Cursor { return store.Cursor{Value: e.At.UnixMilli(), ID: e.ID} },
		func(e crm.Entry) TimelineEntry { return TimelineEntry{e.ID, Time{e.At}, e.Type, e.Data} }), nil
}

// phone gives a number as E.164; "" stays "".
func (f *fields) phone(pointer, raw string, tn *tenant.Tenant) string {
	if strings.TrimSpace(raw) == "" {
		return ""
	}
	p, ok := crm.Phone(raw, tn.Account().DefaultCountry)
	if !ok {
		f.add(pointer, "is not a phone number")
	}
	return p
}

// email gives an address in the form that it is compared in; "" stays "".
func (f *fields) email(pointer, raw string) string {
	if strings.TrimSpace(raw) == "" {
		return ""
	}
	e, ok := crm.Email(raw)
	if !ok {
		f.add(pointer, "is not an e-mail address")
	}
	return e
}

func (f *fields) tags(pointer string, tags []string) []string {
	out, ok := crm.CleanTags(tags)
	if !ok {
		f.add(pointer, "A tag has 1 to 100 visible characters.")
	}
	return out
}

// names refuses custom members that no list could show.
func (f *fields) names(pointer string, members map[string]any) {
	for name := range members {
		if strings.TrimSpace(name) == "" || len(name) > 100 || !crm.Line(name) {
			f.add(pointer, "The name of a field has 1 to 100 characters, and no control characters.")
			return
		}
	}
}
