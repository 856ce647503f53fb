package chat

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// Draft is a message as a caller asks for it. Exactly one of To, Recipient and ConversationID says to whom.
type Draft struct {
	To             string `json:"to,omitempty"`        // a phone number in any spelling
	Recipient      string `json:"recipient,omitempty"` // a business-scoped user id
	ConversationID string `json:"conversationId,omitempty"`

	Type         string          `json:"type"`
	PrivateLinks bool            `json:"-"`                 // links may lead into private networks
	Object       json.RawMessage `json:"object"`            // Graph's object of that type; files are ours, by id, or links
	ReplyTo      string          `json:"replyTo,omitempty"` // a wamid, or our id of a message
	From         string          `json:"from,omitempty"`    // a phone number id
}

// maxObject bounds an object, which travels sealed in a job's payload.
const maxObject = 40 << 10

// DraftTypes are the types of message that can be asked for.
var DraftTypes = []string{"text", "template", "image", "video", "audio", "document", "sticker", "location", "contacts", "interactive", "reaction"}

var userID = regexp.MustCompile(`^[A-Z]{2}\.(ENT\.)?[0-9A-Za-z]{1,128}$`)

// Check finds what Meta would refuse, place by place, without looking anything up. The pointers are those of a body that
// holds the object under its type. A text that is a plain string is made the object it stands for.
func (dr *Draft) Check() error {
	var bad []fault.Field
	to := 0
	for _, s := range []string{dr.To, dr.Recipient, dr.ConversationID} {
		if s != "" {
			to++
		}
	}
	if to != 1 {
		bad = append(bad, fault.Field{Pointer: "", Detail: "Expected exactly one of to, recipient and conversationId."})
	}
	if dr.Recipient != "" && !userID.MatchString(dr.Recipient) {
		bad = append(bad, fault.Field{Pointer: "/recipient", Detail: "Expected a business-scoped user id such as US.13491208655302741918."})
	}
	at := "/" + dr.Type
	switch {
	case !slices.Contains(DraftTypes, dr.Type):
		bad = append(bad, fault.Field{Pointer: "/type", Detail: "Expected one of " + strings.Join(DraftTypes, ", ") + "."})
		return fault.BadFields(bad)
	case len(dr.Object) == 0 || string(dr.Object) == "null":
		bad = append(bad, fault.Field{Pointer: at, Detail: "This member is required for the type."})
		return fault.BadFields(bad)
	case len(dr.Object) > maxObject:
		bad = append(bad, fault.Field{Pointer: at, Detail: "Expected at most " + strconv.Itoa(maxObject) + " bytes."})
		return fault.BadFields(bad)
	}
	if dr.Type == "text" && dr.Object[0] == '"' {
		dr.Object = json.RawMessage(`{"preview_url":false,"body":` + string(dr.Object) + `}`)
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(dr.Object))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		bad = append(bad, fault.Field{Pointer: at, Detail: "Expected JSON."})
		return fault.BadFields(bad)
	}
	checkObject(dr.Type, look{at, v, &bad})
	if !dr.PrivateLinks {
		refusePrivate(at, v, &bad)
	}
	if dr.Type == "reaction" && dr.ReplyTo != "" {
		bad = append(bad, fault.Field{Pointer: "/replyTo", Detail: "A reaction names its message itself."})
	}
	return fault.BadFields(bad)
}

// look is a place in an object, with the value that stands there; nil where nothing does.
type look struct {
	at  string
	v   any
	bad *[]fault.Field
}

func (l look) fail(detail string) {
	*l.bad = append(*l.bad, fault.Field{Pointer: l.at, Detail: detail})
}

func (l look) key(name string) look {
	m, _ := l.v.(map[string]any)
	return look{l.at + "/" + name, m[name], l.bad}
}

// object tells whether an object stands here.
func (l look) object() bool {
	_, ok := l.v.(map[string]any)
	if !ok {
		l.fail("Expected an object.")
	}
	return ok
}

// text gives the text that stands here, of least to most characters; least 0: it may be left out.
func (l look) text(least, most int) string {
	s, ok := l.v.(string)
	switch n := utf8.RuneCountInString(s); {
	case l.v == nil && least == 0:
	case !ok:
		l.fail("Expected a text.")
	case n < least || most > 0 && n > most:
		l.fail("Expected " + strconv.Itoa(least) + " to " + strconv.Itoa(most) + " characters.")
	}
	return s
}

func (l look) number(low, high float64) {
	n, ok := l.v.(json.Number)
	f, err := n.Float64()
	if !ok || err != nil || f < low || f > high {
		l.fail("Expected a number from " + strconv.Itoa(int(low)) + " to " + strconv.Itoa(int(high)) + ".")
	}
}

// list gives the items of the list that stands here, least to most of them; least 0: it may be left out.
func (l look) list(least, most int) []look {
	vs, ok := l.v.([]any)
	if !ok && (l.v != nil || least > 0) {
		l.fail("Expected a list.")
		return nil
	}
	if len(vs) < least || len(vs) > most {
		l.fail("Expected " + strconv.Itoa(least) + " to " + strconv.Itoa(most) + " items.")
		return nil
	}
	out := make([]look, len(vs))
	for i, v := range vs {
		out[i] = look{l.at + "/" + strconv.Itoa(i), v, l.bad}
	}
	return out
}

func checkObject(typ string, l look) {
	if typ == "contacts" {
		for _, c := range l.list(1, 257) {
			checkCard(c)
		}
		return
	}
	if !l.object() {
		return
	}
	switch typ {
	case "text":
		l.key("body").text(1, whatsapp.MaxText)
	case "image", "video", "audio", "document", "sticker":
		checkFile(typ, l)
	case "location":
		l.key("latitude").number(-90, 90)
		l.key("longitude").number(-180, 180)
		l.key("name").text(0, 1000)
		l.key("address").text(0, 1000)
	case "reaction":
		l.key("message_id").text(1, 256)
		if e := l.key("emoji"); e.v == nil {
			e.fail("Expected an emoji, or an empty text to take it back.")
		} else if len(e.text(0, 16)) > 64 {
			e.fail("Expected one emoji.")
		}
	case "interactive":
		checkInteractive(l)
	case "template":
		checkTemplateObject(l)
	}
}

// refusePrivate finds links into networks of nobody else's: Meta, who fetches them, could not, and they are no business of
// a client's.
func refusePrivate(at string, v any, bad *[]fault.Field) {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			if s, ok := e.(string); ok && k == "link" && privateHost(s) {
				*bad = append(*bad, fault.Field{Pointer: at + "/link", Detail: "Expected an address on the public internet."})
			}
			refusePrivate(at+"/"+k, e, bad)
		}
	case []any:
		for i, e := range x {
			refusePrivate(at+"/"+strconv.Itoa(i), e, bad)
		}
	}
}

func privateHost(link string) bool {
	u, err := url.Parse(link)
	if err != nil {
		return false
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost" || strings.HasSuffix(host, ".localhost") || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".internal")
	}
	ip = ip.Unmap()
	return !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback()
}

// checkFile: an id of ours or a public link, and what may stand beside it.
func checkFile(typ string, l look) {
	id, link := l.key("id").text(0, 256), l.key("link").text(0, 2000)
	switch {
	case (id == "") == (link == ""):
		l.fail("Expected exactly one of id and link.")
	case link != "":
		if u, err := url.Parse(link); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
			l.key("link").fail("Expected an http or https address.")
		}
	}
	caption, name := l.key("caption"), l.key("filename")
	caption.text(0, whatsapp.MaxCaption)
	name.text(0, 240)
	if caption.v != nil && (typ == "audio" || typ == "sticker") {
		caption.fail("This type has no caption.")
	}
	if name.v != nil && typ != "document" {
		name.fail("This type has no file name.")
	}
}

func checkCard(c look) {
	if !c.object() || !c.key("name").object() {
		return
	}
	name, parts := c.key("name"), 0
	name.key("formatted_name").text(1, 1000)
	for _, part := range []string{"first_name", "last_name", "middle_name", "suffix", "prefix"} {
		if name.key(part).text(0, 1000) != "" {
			parts++
		}
	}
	if parts == 0 {
		name.fail("Expected one more part of the name beside formatted_name.")
	}
}

var templateName = regexp.MustCompile(`^[a-z0-9_]{1,512}$`)

func checkTemplateObject(l look) {
	if name := l.key("name"); !templateName.MatchString(name.text(1, 512)) {
		name.fail("Expected lower-case letters, digits and _.")
	}
	if l.key("language").object() {
		l.key("language").key("code").text(2, 20)
	}
	for _, c := range l.key("components").list(0, 30) {
		if !c.object() {
			continue
		}
		c.key("type").text(1, 50)
		for _, p := range c.key("parameters").list(0, 100) {
			if !p.object() {
				continue
			}
			switch typ := p.key("type").text(1, 50); typ {
			case "text":
				if s := p.key("text"); whatsapp.CleanParameter(s.text(1, whatsapp.MaxText)) != s.v {
					s.fail("Expected no line break, no tab, no four spaces in a row, and none at its ends.")
				}
			case "image", "video", "document":
				if p.key(typ).object() {
					checkFile("document", p.key(typ))
				}
			}
		}
	}
}

func checkInteractive(l look) {
	typ, body, most := l.key("type").text(1, 50), 1, 1024
	switch typ {
	case "list":
		most = 4096
	case "product", "catalog_message", "flow", "voice_call", "call_permission_request":
		body = 0 // optional there
	}
	if b := l.key("body"); b.v != nil || body > 0 {
		if b.object() {
			b.key("text").text(1, most)
		}
	}
	if h := l.key("header"); h.v != nil && h.object() {
		switch kind := h.key("type").text(1, 20); kind {
		case "text":
			h.key("text").text(1, 60)
		case "image", "video", "document":
			if h.key(kind).object() {
				checkFile("document", h.key(kind))
			}
		}
	}
	if f := l.key("footer"); f.v != nil && f.object() {
		f.key("text").text(1, 60)
	}
	action := l.key("action")
	if !action.object() {
		return
	}
	switch typ {
	case "button":
		checkButtons(action.key("buttons"))
	case "list":
		checkRows(action)
	case "cta_url":
		named(action, "cta_url")
		if p := action.key("parameters"); p.object() {
			p.key("display_text").text(1, 20)
			p.key("url").text(1, 2000)
		}
	case "location_request_message":
		named(action, "send_location")
	case "flow":
		named(action, "flow")
		if p := action.key("parameters"); p.object() {
			p.key("flow_message_version").text(1, 10)
			p.key("flow_cta").text(1, 30)
		}
	}
}

func named(action look, name string) {
	if n := action.key("name"); n.v != name {
		n.fail("Expected " + name + ".")
	}
}

func checkButtons(buttons look) {
	seen := map[string]bool{}
	for _, b := range buttons.list(1, 3) {
		if !b.object() || !b.key("reply").object() {
			continue
		}
		if b.key("type").v != "reply" {
			b.key("type").fail("Expected reply.")
		}
		r := b.key("reply")
		key, title := r.key("id").text(1, 256), r.key("title").text(1, 20)
		if seen["id "+key] || seen["title "+title] {
			r.fail("Expected an id and a title that no other button has.")
		}
		seen["id "+key], seen["title "+title] = true, true
	}
}

func checkRows(action look) {
	action.key("button").text(1, 20)
	sections, rows := action.key("sections").list(1, 10), 0
	seen := map[string]bool{}
	for _, s := range sections {
		if !s.object() {
			continue
		}
		least := 0
		if len(sections) > 1 {
			least = 1
		}
		s.key("title").text(least, 24)
		for _, r := range s.key("rows").list(1, 10) {
			rows++
			if !r.object() {
				continue
			}
			key := r.key("id").text(1, 200)
			r.key("title").text(1, 24)
			r.key("description").text(0, 72)
			if seen[key] {
				r.key("id").fail("Expected an id that no other row has.")
			}
			seen[key] = true
		}
	}
	if rows > 10 {
		action.key("sections").fail("Expected at most 10 rows in all.")
	}
}
