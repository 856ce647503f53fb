package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/campaign"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// campaigns is the API of campaigns.
type campaigns struct {
	bureau *campaign.Bureau
	runner *job.Runner
}

// RegisterCampaigns adds the API of campaigns. runner takes their turns at once.
func RegisterCampaigns(a *API, bureau *campaign.Bureau, runner *job.Runner) {
	s := campaigns{bureau, runner}
	const tag, at = "Campaigns", "/api/campaigns"
	Client(a, Op{Route: "POST " + at, ID: "createCampaign", Tag: tag, Summary: "Create a campaign", Status: http.StatusCreated,
		Description: "A draft; with schedule, it starts by itself at that time."}, s.create)
	Client(a, Op{Route: "GET " + at, ID: "listCampaigns", Tag: tag, Summary: "List campaigns, newest first"}, s.list)
	Client(a, Op{Route: "GET " + at + "/{id}", ID: "getCampaign", Tag: tag, Summary: "Read a campaign"}, s.get)
	Client(a, Op{Route: "PATCH " + at + "/{id}", ID: "updateCampaign", Tag: tag, Summary: "Change a campaign that has not started",
		Description: "With If-Match or version, one that was changed meanwhile is refused: 409 version.conflict."}, s.update)
	Client(a, Op{Route: "DELETE " + at + "/{id}", ID: "deleteCampaign", Tag: tag, Summary: "Delete a campaign that has not started"},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*struct{}, error) {
			return nil, bureau.Delete(ctx, tn, in.ID)
		})
	Client(a, Op{Route: "POST " + at + "/{id}/preflight", ID: "preflightCampaign", Tag: tag, Summary: "See what a start would meet",
		Role: RoleViewer, OwnIdempotency: true, Description: "Writes nothing."},
		func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[campaign.Preflight], error) {
			p, err := bureau.Preflight(ctx, tn, in.ID)
			if err != nil {
				return nil, err
			}
			return OK(*p)
		})
	Client(a, Op{Route: "POST " + at + "/{id}/test", ID: "testCampaign", Tag: tag, Summary: "Send a campaign's message to one address",
		Status: http.StatusAccepted, Description: "With the values of the first in its audience; a value that is missing shows as its name in brackets."}, s.trial)
	for _, t := range []struct{ op, summary, more string }{
		{campaign.Start, "Start a campaign", "The audience is frozen now: who comes later is not in it. What keeps it from starting: 409 campaign.blocked."},
		{campaign.Pause, "Pause a campaign", "Takes effect within a second; what is on its way then still arrives."},
		{campaign.Resume, "Let a paused campaign go on", ""},
		{campaign.Cancel, "End a campaign for good", "Takes effect within a second."},
	} {
		Client(a, Op{Route: "POST " + at + "/{id}/" + t.op, ID: t.op + "Campaign", Tag: tag, Summary: t.summary, Description: t.more},
			func(ctx context.Context, tn *tenant.Tenant, in *ByID) (*taggedCampaign, error) {
				return s.turn(ctx, tn, in.ID, t.op)
			})
	}
	Client(a, Op{Route: "GET " + at + "/{id}/stats", ID: "getCampaignStats", Tag: tag, Summary: "Count a campaign's recipients"}, s.stats)
	Client(a, Op{Route: "GET " + at + "/{id}/recipients", ID: "listCampaignRecipients", Tag: tag, Summary: "List a campaign's recipients"}, s.recipients)
	a.nullable("CampaignView", "trouble")
}

type taggedCampaign struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     campaign.CampaignView
}

func (s campaigns) tagged(ctx context.Context, tn *tenant.Tenant, c *campaign.Campaign, err error) (*taggedCampaign, error) {
	if err != nil {
		return nil, err
	}
	v := c.View()
	if v.Audience, err = s.bureau.Whom(ctx, tn, c); err != nil {
		return nil, err
	}
	return &taggedCampaign{ETag: etag(c.Version), Body: v}, nil
}

// tagFilter is one tag or several.
type tagFilter []string

// UnmarshalJSON reads both forms.
func (t *tagFilter) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = tagFilter{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// Schema documents both forms.
func (tagFilter) Schema(huma.Registry) *huma.Schema {
	text := &huma.Schema{Type: huma.TypeString}
	return &huma.Schema{Description: "One tag, or several that all are wanted.", OneOf: []*huma.Schema{text, {Type: huma.TypeArray, Items: text, MaxItems: new(crm.MaxTagsAsked)}}}
}

// audienceFilter are the filters of the list of leads.
type audienceFilter struct {
	Q             string    `json:"q,omitempty" maxLength:"200"`
	Phone         string    `json:"phone,omitempty" maxLength:"64"`
	Email         string    `json:"email,omitempty" maxLength:"254"`
	Tag           tagFilter `json:"tag,omitzero"`
	Stage         string    `json:"stage,omitempty" maxLength:"100"`
	Status        string    `json:"status,omitempty" enum:"open,won,lost"`
	Source        string    `json:"source,omitempty" maxLength:"100"`
	OwnerID       string    `json:"ownerId,omitempty" maxLength:"100"`
	ScoreMin      *float64  `json:"scoreMin,omitempty" minimum:"-1000000000" maximum:"1000000000"`
	ScoreMax      *float64  `json:"scoreMax,omitempty" minimum:"-1000000000" maximum:"1000000000"`
	CreatedAfter  Time      `json:"createdAfter,omitzero"`
	CreatedBefore Time      `json:"createdBefore,omitzero"`
}

func (f *audienceFilter) filter() *campaign.Filter {
	if f == nil {
		return nil
	}
	return &campaign.Filter{
		Q: f.Q, Phone: f.Phone, Email: f.Email, Tag: f.Tag, Stage: f.Stage, Status: f.Status, Source: f.Source, OwnerID: f.OwnerID,
		ScoreMin: f.ScoreMin, ScoreMax: f.ScoreMax, CreatedAfter: f.CreatedAfter.String(), CreatedBefore: f.CreatedBefore.String(),
	}
}

// audienceEntry is an address, or an object that says more.
type audienceEntry struct{ campaign.Entry }

// UnmarshalJSON reads both forms.
func (e *audienceEntry) UnmarshalJSON(b []byte) error {
	var address string
	if json.Unmarshal(b, &address) == nil {
		if strings.Contains(address, "@") {
			e.Email = address
		} else {
			e.Phone = address
		}
		return nil
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e.Entry); err != nil {
		return fault.Bad("", "Expected an address, or an object of email or phone, name and variables.")
	}
	return nil
}

// Schema documents both forms.
func (audienceEntry) Schema(huma.Registry) *huma.Schema {
	text := &huma.Schema{Type: huma.TypeString}
	return &huma.Schema{Description: "An address, or an object that says more.", OneOf: []*huma.Schema{text, {
		Type:       huma.TypeObject,
		Properties: map[string]*huma.Schema{"email": text, "phone": text, "name": text, "variables": {Type: huma.TypeObject, AdditionalProperties: true}},
	}}}
}

type audienceInput struct {
	Filter  *audienceFilter `json:"filter,omitempty" doc:"Leads, by the filters of their list."`
	LeadIDs []string        `json:"leadIds,omitempty" maxItems:"10000"`
	List    []audienceEntry `json:"list,omitempty" maxItems:"10000" doc:"People who need not be leads."`
}

func (in *audienceInput) audience() *campaign.Audience {
	if in == nil {
		return nil
	}
	a := &campaign.Audience{Filter: in.Filter.filter(), LeadIDs: in.LeadIDs}
	if in.List != nil {
		a.List = []campaign.Entry{}
	}
	for _, e := range in.List {
		a.List = append(a.List, e.Entry)
	}
	return a
}

type contentInput struct {
	Subject    string   `json:"subject,omitempty" maxLength:"900" example:"News for {{name}}"`
	HTML       string   `json:"html,omitempty" doc:"Values are escaped. {{unsubscribeUrl}} is the link to unsubscribe; it is added where it is missing."`
	Text       string   `json:"text,omitempty"`
	Template   string   `json:"template,omitempty" maxLength:"512" doc:"WhatsApp: an approved template."`
	Language   string   `json:"language,omitempty" maxLength:"20"`
	Parameters []string `json:"parameters,omitempty" maxItems:"100"`
	From       string   `json:"from,omitempty" maxLength:"64" doc:"A phone number id; the client's first if left out."`
}

func (in *contentInput) content() *campaign.Content {
	if in == nil {
		return nil
	}
	c := campaign.Content(*in)
	return &c
}

type campaignInput struct {
	Body struct {
		Name          string        `json:"name" minLength:"1" maxLength:"200" example:"Spring news"`
		Channel       string        `json:"channel" enum:"email,whatsapp"`
		Audience      audienceInput `json:"audience" doc:"One of filter, leadIds and list. It is frozen at the start."`
		Content       contentInput  `json:"content" doc:"By e-mail: subject, html, text. By WhatsApp: template, language, parameters."`
		Schedule      *Time         `json:"schedule,omitempty" doc:"When it starts by itself."`
		RatePerSecond float64       `json:"ratePerSecond,omitempty" minimum:"0" maximum:"1000" doc:"Messages a second at most, evenly apart; 0: as the server takes them, or 50 by WhatsApp."`
	}
}

// start gives when a campaign is to start. The zero time, which means never to a plan, is past as any other.
func (f *fields) start(at Time) *time.Time {
	if at.IsZero() {
		f.add("/schedule", "is past")
	}
	return &at.Time
}

func (s campaigns) create(ctx context.Context, tn *tenant.Tenant, in *campaignInput) (*taggedCampaign, error) {
	b := in.Body
	p := campaign.Plan{Name: &b.Name, Channel: &b.Channel, Audience: b.Audience.audience(), Content: b.Content.content(), RatePerSecond: &b.RatePerSecond}
	var bad fields
	if b.Schedule != nil {
		p.Schedule = bad.start(*b.Schedule)
	}
	bad.text("/name", b.Name)
	if err := bad.fault(); err != nil {
		return nil, err
	}
	c, err := s.bureau.Create(ctx, tn, p, s.runner.Offer)
	out, err := s.tagged(ctx, tn, c, err)
	if err == nil {
		out.Location = "/api/campaigns/" + c.ID
	}
	return out, err
}

func (s campaigns) list(ctx context.Context, tn *tenant.Tenant, in *struct {
	Page
	State string `query:"state" enum:"draft,scheduled,running,paused,done,cancelled"`
}) (*Answer[List[campaign.CampaignView]], error) {
	at, err := in.afterIn("campaigns", campaign.Campaigns.Schema, "createdAt")
	if err != nil {
		return nil, err
	}
	q := store.Query{Order: "createdAt", Desc: true, After: at, Limit: in.Limit + 1}
	if in.State != "" {
		q.Where = []store.Term{store.Where("state", store.Eq, in.State)}
	}
	rows, err := campaign.Campaigns.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "campaigns", func(c *campaign.Campaign) store.Cursor {
		return store.Cursor{Value: c.CreatedAt.UnixMilli(), ID: c.ID}
	}, (*campaign.Campaign).View), nil
}

func (s campaigns) get(ctx context.Context, tn *tenant.Tenant, in *ByID) (*taggedCampaign, error) {
	c, err := s.bureau.Campaign(ctx, tn, in.ID)
	return s.tagged(ctx, tn, c, err)
}

type campaignPatch struct {
	ByID
	IfMatch string `header:"If-Match" maxLength:"100" doc:"The ETag that the campaign was read with."`
	Body    struct {
		Name          *string           `json:"name,omitempty" minLength:"1" maxLength:"200"`
		Audience      *audienceInput    `json:"audience,omitempty"`
		Content       *contentInput     `json:"content,omitempty"`
		Schedule      Optional[Time]    `json:"schedule,omitzero" doc:"null: it starts when it is told to."`
		RatePerSecond Optional[float64] `json:"ratePerSecond,omitzero" minimum:"0" maximum:"1000"`
		Version       int64             `json:"version,omitempty" minimum:"1" doc:"The version that was read, as If-Match."`
	}
}

func (s campaigns) update(ctx context.Context, tn *tenant.Tenant, in *campaignPatch) (*taggedCampaign, error) {
	b := in.Body
	p := campaign.Plan{Name: b.Name, Audience: b.Audience.audience(), Content: b.Content.content()}
	var err error
	if p.IfVersion, err = ifVersion(in.IfMatch, b.Version); err != nil {
		return nil, err
	}
	var bad fields
	if b.Name != nil {
		bad.text("/name", *b.Name)
	}
	if b.Schedule.Null {
		p.Schedule = &time.Time{}
	} else if b.Schedule.Set {
		p.Schedule = bad.start(b.Schedule.Value)
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	if b.RatePerSecond.Set {
		p.RatePerSecond = &b.RatePerSecond.Value
	}
	c, err := s.bureau.Edit(ctx, tn, in.ID, p, s.runner.Offer)
	return s.tagged(ctx, tn, c, err)
}

// turn starts, pauses, resumes or cancels: in a job, claimed by the call itself, so that what the turn owes is not lost.
func (s campaigns) turn(ctx context.Context, tn *tenant.Tenant, id, op string) (*taggedCampaign, error) {
	next, err := s.bureau.Ask(ctx, tn, id, op)
	if err != nil {
		return nil, err
	}
	if next != nil {
		do := s.runner.Do
		if op == campaign.Pause || op == campaign.Cancel {
			do = s.runner.DoAnyway
		}
		made, _, err := do(ctx, *next)
		var refused *fault.Error
		if err != nil && (made.Job.ID == "" || (errors.As(err, &refused) && refused.Kind == fault.Conflict)) {
			return nil, err
		}
	}
	c, err := s.bureau.Campaign(ctx, tn, id) // where the job's first try failed, it is taken later
	return s.tagged(ctx, tn, c, err)
}

type trialInput struct {
	ByID
	Body struct {
		To string `json:"to" minLength:"1" maxLength:"254" doc:"An e-mail address, or a phone number by WhatsApp."`
	}
}

type trialAnswer struct {
	ID    string `json:"id" doc:"Of the letter, or of the WhatsApp message."`
	JobID string `json:"jobId" doc:"The job that sends it."`
}

func (s campaigns) trial(ctx context.Context, tn *tenant.Tenant, in *trialInput) (*Answer[trialAnswer], error) {
	id, next, err := s.bureau.Trial(ctx, tn, in.ID, in.Body.To)
	if err != nil {
		return nil, err
	}
	made, err := s.runner.Offer(ctx, next)
	if err != nil {
		return nil, err
	}
	return OK(trialAnswer{id, made[0].Job.ID})
}

type campaignStats struct {
	State  string          `json:"state"`
	Counts campaign.Counts `json:"counts"`
}

func (s campaigns) stats(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[campaignStats], error) {
	c, err := s.bureau.Campaign(ctx, tn, in.ID)
	if err != nil {
		return nil, err
	}
	n, err := s.bureau.Counts(ctx, tn, c)
	if err != nil {
		return nil, err
	}
	return OK(campaignStats{c.State, n})
}

type recipientsInput struct {
	ByID
	Page
	State string `query:"state" enum:"planned,sending,sent,delivered,read,failed,bounced,suppressed,unconfirmed,cancelled"`
}

func (s campaigns) recipients(ctx context.Context, tn *tenant.Tenant, in *recipientsInput) (*Answer[List[campaign.RecipientView]], error) {
	c, err := s.bureau.Campaign(ctx, tn, in.ID)
	if err != nil {
		return nil, err
	}
	name := "recipients:" + in.State
	at, err := in.After(name)
	if err != nil {
		return nil, err
	}
	q := campaign.RecipientQuery(c, in.State)
	q.Limit = in.Limit + 1
	if at != nil {
		q.After = &store.Cursor{ID: at.ID}
	}
	rows, err := campaign.Recipients.Find(ctx, tn.DB, q)
	if err != nil {
		return nil, err
	}
	if in.State == campaign.Cancelled && c.State != campaign.Cancelled {
		rows = slices.Delete(rows, 0, len(rows))
	}
	return ListOf(rows, in.Page, name, func(r *campaign.Recipient) store.Cursor { return store.Cursor{ID: r.ID} },
		func(r *campaign.Recipient) campaign.RecipientView { return r.View(c) }), nil
}
