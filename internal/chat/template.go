package chat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// Template is a message template as Meta told of it last: by the list (template_sync.go) or by a webhook since.
type Template struct {
	store.Meta
	ID              string          `json:"id"`
	MetaID          string          `json:"metaId,omitempty"`
	WABAID          string          `json:"wabaId"`
	Name            string          `json:"name"`
	Language        string          `json:"language"` // "en_US"
	Status          string          `json:"status"`
	Category        string          `json:"category,omitempty"`
	NextCategory    string          `json:"nextCategory,omitempty"` // announced
	SubCategory     string          `json:"subCategory,omitempty"`
	ParameterFormat string          `json:"parameterFormat,omitempty"`
	Quality         string          `json:"quality,omitempty"`
	Reason          string          `json:"reason,omitempty"` // of a rejection or a pause
	Components      json.RawMessage `json:"components,omitempty"`
	UpdatedAt       time.Time       `json:"updatedAt"`
	// When webhooks told last of each: an older one changes nothing, nor does a list that was asked for before.
	StatusAt   time.Time `json:"statusAt,omitzero"`
	QualityAt  time.Time `json:"qualityAt,omitzero"`
	CategoryAt time.Time `json:"categoryAt,omitzero"`
}

// Templates is the kind.
var Templates = store.Kind[Template]{
	Schema: store.Schema{
		Kind: "templates",
		Fields: []store.Field{
			{Name: "key", Type: store.Text}, // name|language
			{Name: "name", Type: store.Text}, {Name: "language", Type: store.Text}, {Name: "status", Type: store.Text},
		},
		Orders: [][]string{{"key"}, {"name", "key"}, {"status", "key"}, {"language", "key"}},
	},
	Key: func(t *Template) string { return t.ID },
	Index: func(t *Template) store.Fields {
		return store.Fields{"key": t.Name + "|" + t.Language, "name": t.Name, "language": t.Language, "status": t.Status}
	},
	Meta: func(t *Template) *store.Meta { return &t.Meta },
}

func templateID(code, wabaID, name, language string) string {
	return id.Derived("tpl", code, wabaID, name, language)
}

// TemplateList says when an account's templates were listed. An account that was never listed is not judged by us.
type TemplateList struct {
	store.Meta
	WABAID    string    `json:"wabaId"`
	Templates int       `json:"templates"`
	SyncedAt  time.Time `json:"syncedAt"`
}

// TemplateLists is the kind; the id is the account's.
var TemplateLists = store.Kind[TemplateList]{
	Schema: store.Schema{Kind: "templateLists"},
	Key:    func(l *TemplateList) string { return l.WABAID },
	Index:  func(*TemplateList) store.Fields { return nil },
	Meta:   func(l *TemplateList) *store.Meta { return &l.Meta },
}

// listed tells whether the templates of an account are known. A list with nothing on it proves nothing.
func listed(ctx context.Context, tn *tenant.Tenant, wabaID string) (bool, error) {
	l, err := TemplateLists.Get(ctx, tn.DB, wabaID)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && l.Templates > 0, err
}

// approved is the only status in which Meta sends a template.
const approved = "APPROVED"

// templateUse is what a template message says of its template; whatever else it holds is Meta's to judge.
type templateUse struct {
	Name     string `json:"name"`
	Language struct {
		Code string `json:"code"`
	} `json:"language"`
	Components []struct {
		Type       string          `json:"type"`
		SubType    string          `json:"sub_type"`
		Index      json.RawMessage `json:"index"` // "0", or 0
		Parameters []struct {
			Type string `json:"type"`
			Name string `json:"parameter_name"`
			Text string `json:"text"`
		} `json:"parameters"`
	} `json:"components"`
}

func useOf(object json.RawMessage) (*templateUse, bool) {
	use := &templateUse{}
	err := json.Unmarshal(object, use)
	return use, err == nil && use.Name != "" && use.Language.Code != ""
}

// checkTemplate holds a template message against the template as it was synced: a *Refusal where Meta is known to refuse
// it. It gives the template, nil where that is not known, and its body with the parameters filled in.
func (d *Desk) checkTemplate(ctx context.Context, tn *tenant.Tenant, object json.RawMessage) (t *Template, text string, err error) {
	w := tn.Account().WhatsApp
	if w == nil {
		return nil, "", nil
	}
	use, ok := useOf(object)
	if !ok {
		return nil, "", nil // of a shape that Meta refuses, or that is newer than we are
	}
	if known, err := listed(ctx, tn, w.WABAID); err != nil || !known {
		return nil, "", err
	}
	t, err = Templates.Get(ctx, tn.DB, templateID(tn.Code, w.WABAID, use.Name, use.Language.Code))
	if errors.Is(err, store.ErrNotFound) {
		return nil, "", d.unknownTemplate(ctx, tn, w.WABAID, use.Name)
	}
	if err != nil {
		return nil, "", err
	}
	if t.Status != approved {
		return nil, "", &Refusal{"whatsapp.template_not_approved", "The template's status at Meta is " + t.Status + "."}
	}
	text, err = t.fill(use)
	return t, text, err
}

func (d *Desk) unknownTemplate(ctx context.Context, tn *tenant.Tenant, wabaID, name string) error {
	same, err := Templates.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("name", store.Eq, name)}, Order: "key", Limit: 20})
	if err != nil {
		return err
	}
	var languages []string
	for _, t := range same {
		if t.WABAID == wabaID {
			languages = append(languages, t.Language)
		}
	}
	detail := "Meta has no template of this name."
	if len(languages) > 0 {
		detail = "Meta has this template in other languages only: " + strings.Join(languages, ", ") + "."
	}
	return &Refusal{"whatsapp.template_unknown", detail}
}

// normalTemplate writes the language of a template message as the API does: "en-us" is "en_US".
func normalTemplate(object json.RawMessage) json.RawMessage {
	use, ok := useOf(object)
	if !ok || whatsapp.Language(use.Language.Code) == use.Language.Code {
		return object
	}
	var whole, language map[string]json.RawMessage
	if json.Unmarshal(object, &whole) != nil || json.Unmarshal(whole["language"], &language) != nil {
		return object
	}
	language["code"] = quoted(whatsapp.Language(use.Language.Code))
	var err error
	if whole["language"], err = json.Marshal(language); err != nil {
		return object
	}
	if out, err := json.Marshal(whole); err == nil {
		return out
	}
	return object
}

func quoted(s string) json.RawMessage {
	b, _ := json.Marshal(s) // strings marshal
	return b
}

// part is a component of a template as Meta lists it.
type part struct {
	Type    string `json:"type"`   // HEADER, BODY, BUTTONS …
	Format  string `json:"format"` // of a header: TEXT, IMAGE …
	Text    string `json:"text"`
	Buttons []struct {
		Type string `json:"type"` // URL, QUICK_REPLY, COPY_CODE …
		URL  string `json:"url"`
	} `json:"buttons"`
}

var placeholder = regexp.MustCompile(`\{\{\s*([A-Za-z0-9_]+)\s*\}\}`)

// placeholders gives the variables of a text, each once, in the order they are first named.
func placeholders(text string) []string {
	var out []string
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(out, m[1]) {
			out = append(out, m[1])
		}
	}
	return out
}

func (t *Template) parts() (parts []part, ok bool) {
	err := json.Unmarshal(t.Components, &parts)
	return parts, err == nil && len(parts) > 0
}

// fill checks the parameters of a message against the template's, and gives its body with them.
func (t *Template) fill(use *templateUse) (string, error) {
	parts, ok := t.parts()
	if !ok {
		return "", nil // not listed with them, or of a shape we do not know
	}
	known := map[string]*part{}
	for i := range parts {
		known[strings.ToUpper(parts[i].Type)] = &parts[i]
	}
	given := map[string][]string{} // header and body: the names of parameters, or their places
	values := map[string]string{}
	buttons := map[int]string{} // sub_type of those that have parameters
	media := 0
	for _, c := range use.Components {
		kind := strings.ToUpper(c.Type)
		if kind == "BUTTON" {
			n, err := strconv.Atoi(string(bytes.Trim(c.Index, `"`)))
			if err != nil {
				return "", wrongParameters("A button's parameters need its index.")
			}
			if len(c.Parameters) > 0 {
				buttons[n] = strings.ToUpper(c.SubType)
			}
			continue
		}
		for i, p := range c.Parameters {
			name := p.Name
			if name == "" {
				name = strconv.Itoa(i + 1)
			}
			if kind == "HEADER" && slices.Contains([]string{"image", "video", "document", "location"}, p.Type) {
				media++
				continue
			}
			given[kind] = append(given[kind], name)
			if kind == "BODY" {
				values[name] = p.Text
			}
		}
	}
	text := ""
	for _, kind := range []string{"HEADER", "BODY"} {
		var want []string
		p, needsMedia := known[kind], 0
		switch {
		case p == nil:
		case kind == "HEADER" && p.Format != "" && p.Format != "TEXT":
			needsMedia = 1
		default:
			want = placeholders(p.Text)
		}
		if kind == "HEADER" && media != needsMedia {
			return "", wrongParameters("The header takes %d files or places, %d were given.", needsMedia, media)
		}
		if len(given[kind]) != len(want) {
			return "", wrongParameters("The %s takes %d parameters, %d were given.", strings.ToLower(kind), len(want), len(given[kind]))
		}
		for _, name := range want {
			if !slices.Contains(given[kind], name) {
				return "", wrongParameters("The %s takes the parameters %s.", strings.ToLower(kind), strings.Join(want, ", "))
			}
		}
		if kind == "BODY" && p != nil {
			text = placeholder.ReplaceAllStringFunc(p.Text, func(v string) string { return values[placeholder.FindStringSubmatch(v)[1]] })
		}
	}
	return text, known["BUTTONS"].check(buttons)
}

// check holds the parameters of buttons against those there are: an address with a variable and a code to copy need one.
func (p *part) check(given map[int]string) error {
	left := len(given)
	if p != nil {
		for i, b := range p.Buttons {
			sub, ok := given[i]
			kind := strings.ToUpper(b.Type)
			needs := kind == "COPY_CODE" || kind == "OTP" || kind == "URL" && placeholder.MatchString(b.URL)
			switch {
			case needs && !ok:
				return wrongParameters("Button %d takes a parameter, none was given.", i)
			case ok && kind == "URL" && (!needs || sub != "URL"):
				return wrongParameters("Button %d takes no such parameter.", i)
			}
			if ok {
				left--
			}
		}
	}
	if left > 0 {
		return wrongParameters("Parameters were given for a button that the template has not.")
	}
	return nil
}

func wrongParameters(format string, args ...any) error {
	return &Refusal{"whatsapp.template_parameters", fmt.Sprintf(format, args...)}
}
