package chat

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// TestTemplateParameters holds messages against templates of every make.
func TestTemplateParameters(t *testing.T) {
	const (
		plain  = `[{"type":"BODY","text":"Hi {{1}}, {{2}} sees you. Bye {{1}}"},{"type":"FOOTER","text":"{{9}} is no variable here"}]`
		named  = `[{"type":"BODY","text":"Hi {{name}} on {{day}}"}]`
		header = `[{"type":"HEADER","format":"TEXT","text":"Order {{1}}"},{"type":"BODY","text":"Thanks"}]`
		image  = `[{"type":"HEADER","format":"IMAGE"},{"type":"BODY","text":"Thanks {{1}}"}]`
		links  = `[{"type":"BODY","text":"Thanks"},{"type":"BUTTONS","buttons":[{"type":"QUICK_REPLY"},{"type":"URL","url":"https://x.example/{{1}}"},{"type":"URL","url":"https://x.example"}]}]`
		code   = `[{"type":"BODY","text":"Thanks"},{"type":"BUTTONS","buttons":[{"type":"COPY_CODE"}]}]`
	)
	text := func(vs ...string) string {
		out := ""
		for i, v := range vs {
			if i > 0 {
				out += ","
			}
			out += `{"type":"text","text":"` + v + `"}`
		}
		return out
	}
	part := func(typ, parameters string) string {
		return `{"type":"` + typ + `","parameters":[` + parameters + `]}`
	}
	button := func(sub, index, parameters string) string {
		return `{"type":"button","sub_type":"` + sub + `","index":` + index + `,"parameters":[` + parameters + `]}`
	}
	const picture = `{"type":"image","image":{"id":"1"}}`
	for _, c := range []struct{ components, use, text string }{ // text "!": refused
		{plain, part("body", text("Ana", "Dr. Rao")), "Hi Ana, Dr. Rao sees you. Bye Ana"},
		{plain, part("BODY", text("Ana", "Dr. Rao")), "Hi Ana, Dr. Rao sees you. Bye Ana"},
		{plain, part("body", text("Ana")), "!"},
		{plain, part("body", text("Ana", "b", "c")), "!"},
		{plain, "", "!"},
		{plain, part("body", text("Ana", "b")) + "," + part("header", text("x")), "!"},
		{named, part("body", `{"type":"text","parameter_name":"day","text":"Monday"},{"type":"text","parameter_name":"name","text":"Ana"}`), "Hi Ana on Monday"},
		{named, part("body", text("Ana", "Monday")), "!"},
		{header, part("header", text("42")), "Thanks"},
		{header, "", "!"},
		{header, part("header", picture), "!"},
		{image, part("header", picture) + "," + part("body", text("Ana")), "Thanks Ana"},
		{image, part("body", text("Ana")), "!"},
		{image, part("header", text("x")) + "," + part("body", text("Ana")), "!"},
		{links, button("url", `"1"`, text("order/1")), "Thanks"},
		{links, button("url", "1", text("order/1")) + "," + button("quick_reply", `"0"`, `{"type":"payload","payload":"stop"}`), "Thanks"},
		{links, "", "!"},
		{links, button("quick_reply", `"1"`, text("x")), "!"},
		{links, button("url", `"1"`, text("a")) + "," + button("url", `"2"`, text("b")), "!"}, // that one has no variable
		{links, button("url", `"1"`, text("a")) + "," + button("url", `"7"`, text("b")), "!"},
		{links, button("url", `"x"`, text("a")), "!"},
		{code, button("copy_code", `"0"`, `{"type":"coupon_code","coupon_code":"X"}`), "Thanks"},
		{code, "", "!"},
		{`null`, "", ""}, // listed without them
		{`"odd"`, part("body", text("x")), ""},
	} {
		var use templateUse
		if err := json.Unmarshal([]byte(`{"name":"x","language":{"code":"en"},"components":[`+c.use+`]}`), &use); err != nil {
			t.Fatal(err)
		}
		got, err := (&Template{Components: json.RawMessage(c.components)}).fill(&use)
		if err != nil {
			var r *Refusal
			if !errors.As(err, &r) || r.Code != "whatsapp.template_parameters" {
				t.Errorf("%s with %s: %v", c.components, c.use, err)
			}
			got = "!"
		}
		if got != c.text {
			t.Errorf("%s with %s: %q (%v), want %q", c.components, c.use, got, err, c.text)
		}
	}
}

// TestTemplateHears: webhooks of any order leave what is newest, and a list does not undo what was told after it was asked
// for.
func TestTemplateHears(t *testing.T) {
	at := func(s int) time.Time { return time.Date(2026, 3, 4, 5, 6, s, 0, time.UTC) }
	status := func(event string) *whatsapp.TemplateEvent { return &whatsapp.TemplateEvent{Event: event, Reason: ""} }
	tp := &Template{Meta: store.Meta{Version: 1}, Status: "APPROVED", Category: "UTILITY", Quality: "GREEN"}
	hear := func(kind whatsapp.Kind, e *whatsapp.TemplateEvent, s int, changed bool) {
		t.Helper()
		if got := tp.hear(kind, e, at(s)); got != changed {
			t.Errorf("%+v at %d: changed %v", e, s, got)
		}
	}
	hear(whatsapp.KindTemplateStatus, &whatsapp.TemplateEvent{Event: "PAUSED", Info: "FIRST_PAUSE"}, 10, true)
	hear(whatsapp.KindTemplateStatus, status("APPROVED"), 9, false) // older
	if tp.Status != "PAUSED" || tp.Reason != "FIRST_PAUSE" {
		t.Errorf("%+v", tp)
	}
	hear(whatsapp.KindTemplateStatus, status("FLAGGED"), 11, true)
	if tp.Status != "PAUSED" {
		t.Error("a warning is no status")
	}
	hear(whatsapp.KindTemplateStatus, status("REINSTATED"), 12, true)
	hear(whatsapp.KindTemplateStatus, status("REINSTATED"), 12, false)
	hear(whatsapp.KindTemplateQuality, &whatsapp.TemplateEvent{Quality: "RED"}, 12, true)
	hear(whatsapp.KindTemplateCategory, &whatsapp.TemplateEvent{Category: "UTILITY", NextCategory: "MARKETING"}, 12, true)
	if tp.Status != "APPROVED" || tp.Quality != "RED" || tp.NextCategory != "MARKETING" {
		t.Errorf("%+v", tp)
	}
	list := whatsapp.Template{Status: "DISABLED", Quality: "GREEN", Category: "MARKETING"}
	if tp.follow(list, at(5)) { // asked for before all that
		t.Errorf("an old list changed %+v", tp)
	}
	if !tp.follow(list, at(30)) || tp.Status != "DISABLED" || tp.Quality != "GREEN" || tp.Category != "MARKETING" || tp.NextCategory != "" {
		t.Errorf("a new list left %+v", tp)
	}
}

func TestNormalTemplate(t *testing.T) {
	for in, want := range map[string]string{
		`{"name":"a","language":{"code":"en-us","policy":"deterministic"}}`: `{"language":{"code":"en_US","policy":"deterministic"},"name":"a"}`,
		`{"name":"a","language":{"code":"en_US"}}`:                          `{"name":"a","language":{"code":"en_US"}}`,
		`5`: `5`,
	} {
		if got := string(normalTemplate(json.RawMessage(in))); got != want {
			t.Errorf("%s became %s", in, got)
		}
	}
}
