package whatsapptest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// object is a JSON object whose keys are asked for one by one; the first trouble is kept.
type object struct {
	path string
	keys map[string]json.RawMessage
	err  **graphError
}

func (o object) fail(code int, format string, args ...any) {
	if *o.err == nil {
		*o.err = errInvalid(400, code, fmt.Sprintf(format, args...))
	}
}

func (o object) name(key string) string {
	if o.path == "" {
		return key
	}
	return o.path + "['" + key + "']"
}

func (o object) has(key string) bool {
	v := o.keys[key]
	return len(v) > 0 && string(v) != "null"
}

// str is a string of at most most characters; need asks for one that is not empty.
func (o object) str(key string, need bool, most int) string {
	var s string
	if o.has(key) {
		if json.Unmarshal(o.keys[key], &s) != nil {
			o.fail(100, "Param %s must be a string.", o.name(key))
			return ""
		}
	}
	if need && s == "" {
		o.fail(131008, "Required parameter is missing: %s", o.name(key))
	}
	if most > 0 && utf8.RuneCountInString(s) > most {
		o.fail(100, "Param %s must be at most %d characters long.", o.name(key), most)
	}
	return s
}

func (o object) number(key string) {
	var n float64
	if !o.has(key) {
		o.fail(131008, "Required parameter is missing: %s", o.name(key))
	} else if json.Unmarshal(o.keys[key], &n) != nil {
		o.fail(100, "Param %s must be a number.", o.name(key))
	}
}

func (o object) object(key string, need bool) object {
	in := object{o.name(key), nil, o.err}
	switch {
	case !o.has(key):
		if need {
			o.fail(131008, "Required parameter is missing: %s", o.name(key))
		}
	case json.Unmarshal(o.keys[key], &in.keys) != nil:
		o.fail(100, "Param %s must be a JSON object.", o.name(key))
	}
	return in
}

func (o object) list(key string, need bool) []object {
	var raw []json.RawMessage
	if o.has(key) && json.Unmarshal(o.keys[key], &raw) != nil {
		o.fail(100, "Param %s must be an array.", o.name(key))
		return nil
	}
	if need && len(raw) == 0 {
		o.fail(131008, "Required parameter is missing: %s", o.name(key))
	}
	out := make([]object, len(raw))
	for i, r := range raw {
		out[i] = object{fmt.Sprintf("%s[%d]", o.name(key), i), nil, o.err}
		if json.Unmarshal(r, &out[i].keys) != nil {
			o.fail(100, "Param %s must be a JSON object.", out[i].path)
		}
	}
	return out
}

func (o object) only(keys ...string) {
	for k := range o.keys {
		if !slices.Contains(keys, k) {
			o.fail(100, "Unexpected key \"%s\" on param \"%s\".", k, o.path)
		}
	}
}

func parse(body []byte) (object, *graphError) {
	var keys map[string]json.RawMessage
	if json.Unmarshal(body, &keys) != nil {
		return object{}, errInvalid(400, 100, "The request body is not a JSON object.")
	}
	return object{"", keys, new(*graphError)}, nil
}

var (
	phone = regexp.MustCompile(`^\+?[0-9]{6,15}$`)
	bsuid = regexp.MustCompile(`^[A-Z]{2}\.(ENT\.)?[0-9A-Za-z]{1,128}$`)
)

func (s *Server) message(a *Account, n Number, req *Request, f *Fault) answer {
	o, gerr := parse(req.Body)
	if gerr != nil {
		return reply(gerr)
	}
	if o.str("messaging_product", true, 0) != "whatsapp" {
		o.fail(100, "Param messaging_product must be one of {WHATSAPP}.")
	}
	if o.has("status") {
		return s.readMark(n, o)
	}
	got := s.judge(a, n, o)
	if *o.err != nil {
		return reply(*o.err)
	}
	got.At, got.Body = s.cfg.Now(), req.Body
	got.ID = "wamid." + base64.StdEncoding.EncodeToString([]byte("fake"+newID(20)))
	s.change(func(j *journal) {
		j.nAccepted++
		got.Seq = j.nAccepted
		j.accepted = append(j.accepted, got)
	})
	s.follow(got, f)

	contact := map[string]any{"input": got.To, "wa_id": got.WAID}
	if got.To == "" {
		contact = map[string]any{"input": got.Recipient, "user_id": got.UserID}
	}
	message := map[string]any{"id": got.ID}
	if got.Type == "template" {
		message["message_status"] = "accepted"
	}
	return reply(map[string]any{"messaging_product": "whatsapp", "contacts": []any{contact}, "messages": []any{message}})
}

func (s *Server) readMark(n Number, o object) answer {
	o.only("messaging_product", "status", "message_id", "typing_indicator")
	if o.str("status", true, 0) != "read" {
		o.fail(100, "Param status must be one of {READ}.")
	}
	r := Read{At: s.cfg.Now(), PhoneNumberID: n.ID, MessageID: o.str("message_id", true, 0), Typing: o.has("typing_indicator")}
	if r.Typing && o.object("typing_indicator", true).str("type", true, 0) != "text" {
		o.fail(100, "Param typing_indicator['type'] must be one of {TEXT}.")
	}
	if *o.err != nil {
		return reply(*o.err)
	}
	s.change(func(j *journal) { j.reads = append(j.reads, r) })
	return reply(map[string]any{"success": true})
}

// judge checks a message and gives what there is to note of it.
func (s *Server) judge(a *Account, n Number, o object) Accepted {
	got := Accepted{WABAID: a.WABAID, PhoneNumberID: n.ID, To: o.str("to", false, 0), Recipient: o.str("recipient", false, 0)}
	got.BizOpaque = o.str("biz_opaque_callback_data", false, 512)
	group := o.str("recipient_type", false, 0)
	switch {
	case group != "" && group != "individual" && group != "group":
		o.fail(100, "Param recipient_type must be one of {INDIVIDUAL, GROUP}.")
	case got.To != "" && group != "group": // to wins over recipient
		if !phone.MatchString(got.To) {
			o.fail(131009, "Parameter value is not valid: to")
		}
		got.WAID = strings.TrimPrefix(got.To, "+")
		got.UserID = UserID(got.WAID)
		if got.WAID == n.Display {
			o.fail(131021, "Recipient phone number cannot be sender phone number")
		}
	case got.To != "":
		got.WAID = got.To
	case got.Recipient != "":
		if got.UserID = got.Recipient; !bsuid.MatchString(got.Recipient) {
			o.fail(131009, "Parameter value is not valid: recipient")
		}
	default:
		o.fail(131008, "Required parameter is missing: to")
	}
	if got.Type = o.str("type", false, 0); got.Type == "" {
		got.Type = "text"
	}
	if o.has("context") {
		got.ReplyTo = o.object("context", true).str("message_id", true, 0)
	}
	o.only("messaging_product", "recipient_type", "to", "recipient", "type", "context", "biz_opaque_callback_data", "recipient_identity_key_hash", got.Type)
	switch got.Type {
	case "text":
		t := o.object("text", true)
		t.only("body", "preview_url")
		got.Text = t.str("body", true, 4096)
	case "image", "video", "audio", "document", "sticker":
		s.media(a, n, o.object(got.Type, true), got.Type)
	case "location":
		l := o.object("location", true)
		l.number("latitude")
		l.number("longitude")
	case "contacts":
		for _, c := range o.list("contacts", true) {
			c.object("name", true).str("formatted_name", true, 0)
		}
	case "reaction":
		r := o.object("reaction", true)
		r.str("message_id", true, 0)
		if !r.has("emoji") {
			r.fail(131008, "Required parameter is missing: reaction['emoji']")
		}
	case "interactive":
		i := o.object("interactive", true)
		if t := i.str("type", true, 0); t != "list" {
			i.object("body", t != "product" && t != "flow").str("text", false, 1024)
		} else {
			i.object("body", true).str("text", true, 4096)
		}
		i.object("action", true)
	case "template":
		got.Template, got.Text = s.template(a, n, o.object("template", true))
	default:
		o.fail(100, "Param type must be one of the message types.")
	}
	return got
}

// media checks a file: an id of this number's uploads, or a link.
func (s *Server) media(a *Account, n Number, m object, kind string) {
	id, link := m.str("id", false, 0), m.str("link", false, 0)
	switch {
	case (id == "") == (link == ""):
		m.fail(131008, "Required parameter is missing: one of %s['id'] and %s['link']", m.path, m.path)
	case id != "":
		s.mu.Lock()
		f := s.files[id]
		s.mu.Unlock()
		if f == nil || f.number != n.ID {
			m.fail(131009, "Parameter value is not valid: %s['id']", m.path)
		}
	default:
		if u, err := url.Parse(link); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			m.fail(131009, "Parameter value is not valid: %s['link']", m.path)
		}
	}
	m.str("caption", false, 1024)
	if m.has("caption") && (kind == "audio" || kind == "sticker") {
		m.fail(100, "Unexpected key \"caption\" on param \"%s\".", m.path)
	}
	if m.has("filename") && kind != "document" {
		m.fail(100, "Unexpected key \"filename\" on param \"%s\".", m.path)
	}
}

var variable = regexp.MustCompile(`\{\{\s*([a-z0-9_]+)\s*\}\}`)

func variables(s string) []string {
	var out []string
	for _, m := range variable.FindAllStringSubmatch(s, -1) {
		if !slices.Contains(out, m[1]) {
			out = append(out, m[1])
		}
	}
	return out
}

// template checks a template message and fills its body.
func (s *Server) template(a *Account, n Number, o object) (name, text string) {
	name = o.str("name", true, 512)
	o.only("name", "language", "components", "namespace")
	language := o.object("language", true).str("code", true, 0)
	var t *Template
	for i := range a.Templates {
		if a.Templates[i].Name == name && a.Templates[i].Language == language {
			t = &a.Templates[i]
		}
	}
	if *o.err != nil {
		return name, ""
	}
	switch {
	case t == nil || t.Status != "APPROVED" && t.Status != "PAUSED" && t.Status != "DISABLED":
		*o.err = &graphError{http: 404, code: 132001, message: "(#132001) Template name does not exist in the translation",
			details: fmt.Sprintf("template name (%s) does not exist in %s", name, language)}
		return name, ""
	case t.Status == "PAUSED":
		o.fail(132015, "Template is paused due to low quality")
	case t.Status == "DISABLED":
		o.fail(132016, "Template is disabled")
	}
	want := map[string][]string{"header": variables(t.Header), "body": variables(t.Body)}
	got := map[string]map[string]string{"header": {}, "body": {}}
	if t.Format != "" {
		want["header"] = []string{strings.ToLower(t.Format)}
	}
	buttons := map[string]bool{}
	for _, c := range o.list("components", false) {
		kind := strings.ToLower(c.str("type", true, 0))
		if kind == "button" {
			c.str("sub_type", true, 0)
			if !c.has("index") {
				c.fail(131008, "Required parameter is missing: %s['index']", c.path)
			}
			buttons[strings.Trim(string(c.keys["index"]), `"`)] = len(c.list("parameters", false)) > 0
			continue
		}
		if got[kind] == nil {
			c.fail(100, "Param %s['type'] must be one of {HEADER, BODY, BUTTON}.", c.path)
			continue
		}
		for i, p := range c.list("parameters", false) {
			s.parameter(a, n, p, fmt.Sprint(i+1), got[kind])
		}
	}
	for i, b := range t.Buttons {
		if b.takesParameter() && !buttons[fmt.Sprint(i)] {
			o.fail(131008, "Required parameter is missing: buttons: button at index %d of type %s requires a parameter", i, b.Type)
		}
	}
	for _, kind := range []string{"header", "body"} {
		if len(got[kind]) != len(want[kind]) {
			o.fail(132000, "%s: number of localizable_params (%d) does not match the expected number of params (%d)", kind, len(got[kind]), len(want[kind]))
		}
		for _, v := range want[kind] {
			if _, ok := got[kind][v]; !ok {
				o.fail(100, "%s: parameter %s is missing", kind, v)
			}
		}
	}
	return name, variable.ReplaceAllStringFunc(t.Body, func(v string) string { return got["body"][variable.FindStringSubmatch(v)[1]] })
}

// parameter checks one value and puts it under its name, or its place.
func (s *Server) parameter(a *Account, n Number, p object, place string, into map[string]string) {
	switch t := p.str("type", true, 0); t {
	case "text":
		text := p.str("text", true, 0)
		if strings.ContainsAny(text, "\n\r\t") || strings.Contains(text, "    ") {
			p.fail(132018, "Param text cannot have new-line/tab characters or more than 4 consecutive spaces")
		}
		if name := p.str("parameter_name", false, 0); name != "" {
			place = name
		}
		into[place] = text
	case "image", "video", "document":
		s.media(a, n, p.object(t, true), t)
		into[t] = t
	case "currency", "date_time":
		into[place] = p.object(t, true).str("fallback_value", true, 0)
	case "location":
		into[t] = t
	case "payload", "coupon_code", "limited_time_offer", "product", "action":
	default:
		p.fail(100, "Param %s['type'] is not a type of parameter.", p.path)
	}
}
