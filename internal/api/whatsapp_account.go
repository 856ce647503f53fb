package api

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

func (s whatsApp) account(a *API) {
	Client(a, Op{Route: "GET /api/whatsapp/numbers", ID: "listNumbers", Tag: whatsAppTag, Summary: "List the phone numbers of the client's account, as Meta has them now",
		Description: "configured tells which of them the client sends from and receives by. Meta out of reach: 503 whatsapp.unavailable."}, s.numbers)
	Client(a, Op{Route: "GET /api/whatsapp/profile", ID: "getProfile", Tag: whatsAppTag, Summary: "Read what users see of a number's business"},
		func(ctx context.Context, tn *tenant.Tenant, in *numberInput) (*Answer[whatsapp.Profile], error) {
			return profileAnswer(s.desk.Profile(ctx, tn, in.PhoneNumberID))
		})
	Client(a, Op{Route: "PUT /api/whatsapp/profile", ID: "setProfile", Tag: whatsAppTag, Summary: "Change what users see of a number's business",
		Description: "What is left out stays as it is; what is empty is cleared. The answer is the profile as Meta has it then."}, s.setProfile)
}

type numberInput struct {
	PhoneNumberID string `query:"phoneNumberId" maxLength:"64" doc:"The client's first number if left out."`
}

// NumberView is a phone number of a client's account.
type NumberView struct {
	whatsapp.PhoneNumber
	Configured bool `json:"configured"`
}

func (s whatsApp) numbers(ctx context.Context, tn *tenant.Tenant, _ *struct{}) (*Answer[List[NumberView]], error) {
	all, err := s.desk.Numbers(ctx, tn)
	if err != nil {
		return nil, err
	}
	out := List[NumberView]{Items: []NumberView{}}
	own := map[string]bool{}
	if w := tn.Account().WhatsApp; w != nil {
		for _, n := range w.PhoneNumberIDs {
			own[n] = true
		}
	}
	for _, n := range all {
		out.Items = append(out.Items, NumberView{n, own[n.ID]})
	}
	return OK(out)
}

func profileAnswer(p whatsapp.Profile, err error) (*Answer[whatsapp.Profile], error) {
	if err != nil {
		return nil, err
	}
	if p.Websites == nil {
		p.Websites = []string{}
	}
	return OK(p)
}

type profileInput struct {
	PhoneNumberID string `query:"phoneNumberId" maxLength:"64" doc:"The client's first number if left out."`
	Body          struct {
		About       *string   `json:"about,omitempty" maxLength:"139"`
		Address     *string   `json:"address,omitempty" maxLength:"256"`
		Description *string   `json:"description,omitempty" maxLength:"512"`
		Email       *string   `json:"email,omitempty" maxLength:"128"`
		Websites    *[]string `json:"websites,omitempty" maxItems:"2"`
		Vertical    *string   `json:"vertical,omitempty" maxLength:"50" example:"HEALTH"`
	}
}

func (s whatsApp) setProfile(ctx context.Context, tn *tenant.Tenant, in *profileInput) (*Answer[whatsapp.Profile], error) {
	b := in.Body
	if b.About == nil && b.Address == nil && b.Description == nil && b.Email == nil && b.Websites == nil && b.Vertical == nil {
		var bad fields
		bad.add("", "Expected at least one member.")
		return nil, bad.fault()
	}
	var bad fields
	for pointer, v := range map[string]*string{"/email": b.Email, "/vertical": b.Vertical, "/about": b.About} {
		if v != nil {
			bad.line(pointer, *v)
		}
	}
	for pointer, v := range map[string]*string{"/address": b.Address, "/description": b.Description} { // these have lines
		if v != nil {
			bad.line(pointer, strings.NewReplacer("\r\n", " ", "\n", " ").Replace(*v))
		}
	}
	if b.Websites != nil {
		for i, site := range *b.Websites {
			if site == "" { // clears
				continue
			}
			u, err := url.Parse(site)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || len(site) > 256 {
				bad.add("/websites/"+strconv.Itoa(i), "Expected an http or https address of at most 256 bytes.")
			}
		}
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	return profileAnswer(s.desk.SetProfile(ctx, tn, in.PhoneNumberID, whatsapp.ProfileUpdate{
		About: b.About, Address: b.Address, Description: b.Description, Email: b.Email, Websites: b.Websites, Vertical: b.Vertical,
	}))
}
