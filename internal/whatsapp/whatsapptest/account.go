package whatsapptest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
)

func (t *Template) fill() {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	set(&t.ID, digits(16))
	set(&t.Language, "en")
	set(&t.Status, "APPROVED")
	set(&t.Category, "UTILITY")
}

func digits(n int) string {
	s := newID(n)
	b := []byte(s)
	for i := range b {
		b[i] = '1' + b[i]%9
	}
	return string(b)
}

func (t *Template) node() map[string]any {
	format := "POSITIONAL"
	for _, v := range variables(t.Body) {
		if _, err := strconv.Atoi(v); err != nil {
			format = "NAMED"
		}
	}
	components := []any{map[string]any{"type": "BODY", "text": t.Body}}
	switch {
	case t.Format != "":
		components = append([]any{map[string]any{"type": "HEADER", "format": t.Format}}, components...)
	case t.Header != "":
		components = append([]any{map[string]any{"type": "HEADER", "format": "TEXT", "text": t.Header}}, components...)
	}
	var buttons []any
	for _, b := range t.Buttons {
		button := map[string]any{"type": b.Type, "text": b.Text}
		if b.URL != "" {
			button["url"] = b.URL
		}
		buttons = append(buttons, button)
	}
	if buttons != nil {
		components = append(components, map[string]any{"type": "BUTTONS", "buttons": buttons})
	}
	return map[string]any{"id": t.ID, "name": t.Name, "language": t.Language, "status": t.Status, "category": t.Category,
		"parameter_format": format, "components": components, "quality_score": map[string]any{"score": "GREEN"}, "rejected_reason": "NONE"}
}

func (n Number) node() map[string]any {
	return map[string]any{"id": n.ID, "display_phone_number": n.Display, "verified_name": n.VerifiedName, "quality_rating": "GREEN", "status": "CONNECTED",
		"name_status": "APPROVED", "code_verification_status": "VERIFIED", "throughput": map[string]any{"level": "STANDARD"},
		"whatsapp_business_manager_messaging_limit": "TIER_2K", "is_official_business_account": false}
}

func (s *Server) listTemplates(a *Account, r *http.Request) answer {
	q := r.URL.Query()
	var nodes []any
	for i := range a.Templates {
		t := &a.Templates[i]
		if match(q, "name", t.Name) && match(q, "status", t.Status) && match(q, "language", t.Language) && match(q, "category", t.Category) {
			nodes = append(nodes, t.node())
		}
	}
	return s.page(nodes, r)
}

func match(q url.Values, key, value string) bool { return !q.Has(key) || q.Get(key) == value }

func (s *Server) listNumbers(a *Account, r *http.Request) answer {
	var nodes []any
	for _, n := range a.Numbers {
		nodes = append(nodes, n.node())
	}
	return s.page(nodes, r)
}

// page gives the part of a list that was asked for. A page that is not the last
// carries "next", an absolute address with a token in it as Meta's does: who
// follows it shows in the journal as InQuery.
func (s *Server) page(nodes []any, r *http.Request) answer {
	q := r.URL.Query()
	limit := s.cfg.PageSize
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > 0 {
		limit = min(n, s.cfg.PageSize)
	}
	from := 0
	if after := q.Get("after"); after != "" {
		b, _ := base64.RawURLEncoding.DecodeString(after)
		n, err := strconv.Atoi(string(b))
		if err != nil || n < 0 || n > len(nodes) {
			return reply(errInvalid(400, 100, "Invalid cursor"))
		}
		from = n
	}
	to := min(from+limit, len(nodes))
	cursor := func(n int) string { return base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(n))) }
	paging := map[string]any{"cursors": map[string]any{"before": cursor(from), "after": cursor(to)}}
	if to < len(nodes) {
		paging["next"] = s.URL + r.URL.Path + "?access_token=leaked&after=" + cursor(to)
	}
	return reply(map[string]any{"data": append([]any{}, nodes[from:to]...), "paging": paging})
}

var templateName = regexp.MustCompile(`^[a-z0-9_]{1,512}$`)

func (s *Server) createTemplate(a *Account, body []byte) answer {
	o, gerr := parse(body)
	if gerr != nil {
		return reply(gerr)
	}
	t := Template{Name: o.str("name", true, 512), Language: o.str("language", true, 0), Category: o.str("category", true, 0), Status: "PENDING"}
	if !templateName.MatchString(t.Name) {
		o.fail(100, "Param name must be lower case letters, digits and underscores.")
	}
	if !slices.Contains([]string{"UTILITY", "MARKETING", "AUTHENTICATION"}, t.Category) {
		o.fail(100, "Param category must be one of {UTILITY, MARKETING, AUTHENTICATION}.")
	}
	for _, c := range o.list("components", true) {
		switch c.str("type", true, 0) {
		case "BODY":
			t.Body = c.str("text", t.Category != "AUTHENTICATION", 1024)
		case "HEADER":
			if t.Header = c.str("text", false, 60); c.str("format", true, 0) != "TEXT" {
				t.Format = c.str("format", true, 0)
			}
		case "BUTTONS":
			for _, b := range c.list("buttons", true) {
				t.Buttons = append(t.Buttons, Button{b.str("type", true, 0), b.str("text", false, 25), b.str("url", false, 2000)})
			}
		}
	}
	if t.Body == "" && t.Category != "AUTHENTICATION" {
		o.fail(100, "A template needs a BODY.")
	}
	for _, old := range a.Templates {
		if *o.err == nil && old.Name == t.Name && old.Language == t.Language {
			*o.err = &graphError{http: 400, code: 100, subcode: 2388024, message: "Invalid parameter", details: "Content in this language already exists"}
		}
	}
	if *o.err != nil {
		return reply(*o.err)
	}
	t.fill()
	s.SetTemplate(a.WABAID, t)
	return reply(map[string]any{"id": t.ID, "status": t.Status, "category": t.Category})
}

func (s *Server) deleteTemplate(a *Account, r *http.Request) answer {
	name, id := r.URL.Query().Get("name"), r.URL.Query().Get("hsm_id")
	gone := false
	s.edit(a.WABAID, func(a *Account) {
		a.Templates = slices.DeleteFunc(a.Templates, func(t Template) bool {
			hit := name != "" && t.Name == name && (id == "" || t.ID == id)
			gone = gone || hit
			return hit
		})
	})
	if !gone {
		return reply(&graphError{http: 400, code: 100, subcode: 2593002, message: "Invalid parameter", details: "Message template wasn't found"})
	}
	return reply(map[string]any{"success": true})
}

// profile reads a number's profile after changing it.
func (s *Server) profile(number string, set map[string]any) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]any{"messaging_product": "whatsapp"}
	for _, a := range s.accounts {
		a.Numbers = slices.Clone(a.Numbers)
		for i := range a.Numbers {
			n := &a.Numbers[i]
			if n.ID != number {
				continue
			}
			p := maps.Clone(n.Profile)
			if p == nil {
				p = map[string]any{}
			}
			maps.Copy(p, set)
			n.Profile = p
			maps.Copy(out, p)
		}
	}
	return map[string]any{"data": []any{out}}
}

func (s *Server) setProfile(number string, body []byte) answer {
	o, gerr := parse(body)
	if gerr != nil {
		return reply(gerr)
	}
	if o.str("messaging_product", true, 0) != "whatsapp" {
		o.fail(100, "Param messaging_product must be one of {WHATSAPP}.")
	}
	o.only("messaging_product", "about", "address", "description", "email", "websites", "vertical", "profile_picture_handle")
	set := map[string]any{}
	for key, most := range map[string]int{"about": 139, "address": 256, "description": 512, "email": 128, "vertical": 0} {
		if o.has(key) {
			set[key] = o.str(key, false, most)
		}
	}
	if o.has("websites") {
		var sites []string
		if json.Unmarshal(o.keys["websites"], &sites) != nil || len(sites) > 2 {
			o.fail(100, "Param websites must be an array of at most 2 strings.")
		}
		set["websites"] = sites
	}
	if *o.err != nil {
		return reply(*o.err)
	}
	s.profile(number, set)
	return reply(map[string]any{"success": true})
}

// TemplateStatus gives a template another status and the change that tells so;
// event is Meta's: APPROVED, REJECTED, PAUSED, DISABLED, …
func (s *Server) TemplateStatus(wabaID, name, language, event string) Change {
	id := ""
	s.edit(wabaID, func(a *Account) {
		for i := range a.Templates {
			if t := &a.Templates[i]; t.Name == name && t.Language == language {
				t.Status, id = event, t.ID
			}
		}
	})
	return Change{WABAID: wabaID, Field: "message_template_status_update", Time: s.cfg.Now(), Value: map[string]any{
		"event": event, "message_template_id": json.Number(first(id, "0")), "message_template_name": name, "message_template_language": language, "reason": "NONE"}}
}

func first(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return ""
}

// UserID is the business-scoped user id that the server gives to a phone.
func UserID(phone string) string {
	country := "US"
	for prefix, c := range map[string]string{"44": "GB", "33": "FR", "91": "IN", "49": "DE", "34": "ES", "55": "BR", "52": "MX"} {
		if len(phone) > 2 && phone[:2] == prefix {
			country = c
		}
	}
	return fmt.Sprintf("%s.9021%s", country, phone)
}
