package whatsapp

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

// Template is a message template of an account.
type Template struct {
	ID              string
	Name            string
	Language        string // "en_US"
	Status          string // APPROVED, PENDING, REJECTED, PAUSED, DISABLED, …
	Category        string // UTILITY, MARKETING, AUTHENTICATION
	SubCategory     string
	ParameterFormat string // POSITIONAL or NAMED
	Quality         string // GREEN, YELLOW, RED, UNKNOWN
	RejectedReason  string // "" for none
	Components      json.RawMessage
}

// TemplatePage is a part of an account's templates. After asks for the next; "" means that there is none.
type TemplatePage struct {
	Templates []Template
	After     string
}

// Templates lists an account's templates from a cursor on ("" from the start),
// at most limit (1 to 200, else 100) at a time. It goes by cursors only: Meta's
// "next" address is not followed.
func (c *Client) Templates(ctx context.Context, acc Account, after string, limit int) (TemplatePage, error) {
	var w struct {
		Data []struct {
			ID              text            `json:"id"`
			Name            text            `json:"name"`
			Language        text            `json:"language"`
			Status          text            `json:"status"`
			Category        text            `json:"category"`
			SubCategory     text            `json:"sub_category"`
			ParameterFormat text            `json:"parameter_format"`
			RejectedReason  text            `json:"rejected_reason"`
			Components      json.RawMessage `json:"components"`
			Quality         struct {
				Score text `json:"score"`
			} `json:"quality_score"`
		} `json:"data"`
		Paging paging `json:"paging"`
	}
	q := url.Values{"fields": {"id,name,language,status,category,sub_category,parameter_format,quality_score,rejected_reason,components"}}
	if limit < 1 || limit > 200 {
		limit = 100
	}
	q.Set("limit", strconv.Itoa(limit))
	if after != "" {
		q.Set("after", after)
	}
	err := c.do(ctx, acc, call{op: "templates", method: http.MethodGet, path: []string{acc.WABAID, "message_templates"}, query: q, limit: largeAnswer, reads: true, out: &w})
	if err != nil {
		return TemplatePage{}, err
	}
	page := TemplatePage{After: w.Paging.after()}
	for _, t := range w.Data {
		page.Templates = append(page.Templates, Template{string(t.ID), string(t.Name), Language(string(t.Language)), string(t.Status), string(t.Category),
			string(t.SubCategory), string(t.ParameterFormat), string(t.Quality.Score), reason(t.RejectedReason), t.Components})
	}
	return page, nil
}

type paging struct {
	Cursors struct {
		After text `json:"after"`
	} `json:"cursors"`
	Next text `json:"next"`
}

func (p paging) after() string {
	if p.Next == "" { // the last page has a cursor too
		return ""
	}
	return string(p.Cursors.After)
}

// TemplateDraft is a template to create; Components is Graph's array.
type TemplateDraft struct {
	Name            string          `json:"name"` // lower case, digits, "_"; unique with the language
	Language        string          `json:"language"`
	Category        string          `json:"category"`
	ParameterFormat string          `json:"parameter_format,omitempty"`
	Components      json.RawMessage `json:"components"`
}

// CreateTemplate hands a template in for review; the answer has ID, Status and the Category that Meta gave it.
func (c *Client) CreateTemplate(ctx context.Context, acc Account, d TemplateDraft) (Template, error) {
	var w struct {
		ID       text `json:"id"`
		Status   text `json:"status"`
		Category text `json:"category"`
	}
	if err := c.post(ctx, acc, "create template", d, &w, acc.WABAID, "message_templates"); err != nil {
		return Template{}, err
	}
	return Template{ID: string(w.ID), Name: d.Name, Language: d.Language, Status: string(w.Status), Category: first(string(w.Category), d.Category),
		ParameterFormat: d.ParameterFormat, Components: d.Components}, nil
}

// DeleteTemplate deletes a template: the one of that id, or with id "" those of all languages.
func (c *Client) DeleteTemplate(ctx context.Context, acc Account, name, id string) error {
	if name == "" {
		return incomplete("delete template", "the template's name is missing")
	}
	q := url.Values{"name": {name}}
	if id != "" {
		q.Set("hsm_id", id)
	}
	return c.do(ctx, acc, call{op: "delete template", method: http.MethodDelete, path: []string{acc.WABAID, "message_templates"}, query: q, out: &success{}})
}

// PhoneNumber is a sender of an account.
type PhoneNumber struct {
	ID                string `json:"id"`
	Display           string `json:"displayPhoneNumber"`
	VerifiedName      string `json:"verifiedName"`
	Quality           string `json:"quality"` // GREEN, YELLOW, RED, UNKNOWN
	Status            string `json:"status"`  // CONNECTED, PENDING, …
	NameStatus        string `json:"nameStatus"`
	VerificationState string `json:"verificationState"`
	Throughput        string `json:"throughput"`     // STANDARD, HIGH
	MessagingLimit    string `json:"messagingLimit"` // "TIER_2K": of the whole business
	Official          bool   `json:"official"`
}

const phoneFields = "id,display_phone_number,verified_name,quality_rating,status,name_status,code_verification_status,throughput,whatsapp_business_manager_messaging_limit,is_official_business_account"

type phoneNode struct {
	ID                text    `json:"id"`
	Display           text    `json:"display_phone_number"`
	VerifiedName      text    `json:"verified_name"`
	Quality           text    `json:"quality_rating"`
	Status            text    `json:"status"`
	NameStatus        text    `json:"name_status"`
	VerificationState text    `json:"code_verification_status"`
	Limit             text    `json:"whatsapp_business_manager_messaging_limit"`
	Official          boolean `json:"is_official_business_account"`
	Throughput        struct {
		Level text `json:"level"`
	} `json:"throughput"`
}

func (n phoneNode) number() PhoneNumber {
	return PhoneNumber{string(n.ID), string(n.Display), string(n.VerifiedName), string(n.Quality), string(n.Status), string(n.NameStatus),
		string(n.VerificationState), string(n.Throughput.Level), string(n.Limit), bool(n.Official)}
}

// PhoneNumber reads the account's sender: the cheapest proof that id and token belong together.
func (c *Client) PhoneNumber(ctx context.Context, acc Account) (PhoneNumber, error) {
	var w phoneNode
	err := c.do(ctx, acc, call{op: "phone number", method: http.MethodGet, path: []string{acc.PhoneNumberID}, query: url.Values{"fields": {phoneFields}}, reads: true, out: &w})
	return w.number(), err
}

// PhoneNumbers lists the account's senders, at most 1,000.
func (c *Client) PhoneNumbers(ctx context.Context, acc Account) ([]PhoneNumber, error) {
	var out []PhoneNumber
	q := url.Values{"fields": {phoneFields}, "limit": {"100"}}
	for range 10 {
		var w struct {
			Data   []phoneNode `json:"data"`
			Paging paging      `json:"paging"`
		}
		err := c.do(ctx, acc, call{op: "phone numbers", method: http.MethodGet, path: []string{acc.WABAID, "phone_numbers"}, query: q, limit: largeAnswer, reads: true, out: &w})
		if err != nil {
			return nil, err
		}
		for _, n := range w.Data {
			out = append(out, n.number())
		}
		if w.Paging.after() == "" {
			break
		}
		q.Set("after", w.Paging.after())
	}
	return out, nil
}

// Profile is what users see of a business.
type Profile struct {
	About       string   `json:"about"`       // at most 139 characters
	Address     string   `json:"address"`     // at most 256
	Description string   `json:"description"` // at most 512
	Email       string   `json:"email"`       // at most 128
	Websites    []string `json:"websites"`    // at most 2
	Vertical    string   `json:"vertical"`    // Meta's list: RETAIL, HEALTH, …
	PictureURL  string   `json:"profile_picture_url"`
}

// Profile reads the profile of the account's sender.
func (c *Client) Profile(ctx context.Context, acc Account) (Profile, error) {
	var w struct {
		Data []Profile `json:"data"`
	}
	q := url.Values{"fields": {"about,address,description,email,profile_picture_url,websites,vertical"}}
	err := c.do(ctx, acc, call{op: "profile", method: http.MethodGet, path: []string{acc.PhoneNumberID, "whatsapp_business_profile"}, query: q, reads: true, out: &w})
	if err != nil || len(w.Data) == 0 {
		return Profile{}, err
	}
	return w.Data[0], nil
}

// ProfileUpdate changes a profile: a nil field stays as it is, an empty one is cleared.
type ProfileUpdate struct {
	About       *string   `json:"about,omitempty"`
	Address     *string   `json:"address,omitempty"`
	Description *string   `json:"description,omitempty"`
	Email       *string   `json:"email,omitempty"`
	Websites    *[]string `json:"websites,omitempty"`
	Vertical    *string   `json:"vertical,omitempty"`
}

// SetProfile changes the profile of the account's sender.
func (c *Client) SetProfile(ctx context.Context, acc Account, u ProfileUpdate) error {
	body := struct {
		Product string `json:"messaging_product"`
		ProfileUpdate
	}{"whatsapp", u}
	return c.post(ctx, acc, "set profile", body, &success{}, acc.PhoneNumberID, "whatsapp_business_profile")
}
