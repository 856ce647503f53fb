package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/fault"
)

// TestDraftCheck holds the limits of every type, and that a refusal points at the place.
func TestDraftCheck(t *testing.T) {
	button := func(id, title string) string {
		return fmt.Sprintf(`{"type":"reply","reply":{"id":%q,"title":%q}}`, id, title)
	}
	interactive := func(typ, action string) string {
		return `{"type":"` + typ + `","body":{"text":"Which?"},"action":` + action + `}`
	}
	list := func(sections string) string {
		return interactive("list", `{"button":"Choose","sections":`+sections+`}`)
	}
	row := func(id string) string { return `{"id":"` + id + `","title":"T"}` }
	template := func(rest string) string { return `{"name":"hello","language":{"code":"en"}` + rest + `}` }
	body := func(text string) string {
		return template(`,"components":[{"type":"body","parameters":[{"type":"text","text":` + text + `}]}]`)
	}
	many := func(n int, one string) string { return "[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]" }
	for _, c := range []struct{ typ, object, at string }{
		{"text", `"Hello"`, ""},
		{"text", `{"body":"Hello","preview_url":true}`, ""},
		{"text", `"` + strings.Repeat("é", 4096) + `"`, ""},
		{"text", `"` + strings.Repeat("é", 4097) + `"`, "/text/body"},
		{"text", `""`, "/text/body"},
		{"text", `{"body":5}`, "/text/body"},
		{"text", `{}`, "/text/body"},
		{"text", `["Hello"]`, "/text"},
		{"text", ``, "/text"},
		{"text", `null`, "/text"},
		{"image", `{"link":"https://x.example/a.jpg","caption":"Look"}`, ""},
		{"image", `{"id":"med_1"}`, ""},
		{"image", `{"id":"med_1","link":"https://x.example/a.jpg"}`, "/image"},
		{"image", `{}`, "/image"},
		{"image", `{"link":"ftp://x.example/a.jpg"}`, "/image/link"},
		{"image", `{"link":"http://127.0.0.1:9/a.jpg"}`, "/image/link"},
		{"image", `{"link":"https://[::ffff:10.0.0.1]/a.jpg"}`, "/image/link"},
		{"image", `{"link":"https://LOCALHOST./a.jpg"}`, "/image/link"},
		{"image", `{"link":"/a.jpg"}`, "/image/link"},
		{"image", `{"link":"https://u:p@x.example/a.jpg"}`, "/image/link"},
		{"image", `{"id":"med_1","caption":"` + strings.Repeat("x", 1025) + `"}`, "/image/caption"},
		{"image", `{"id":"med_1","filename":"a.jpg"}`, "/image/filename"},
		{"document", `{"id":"med_1","filename":"a.pdf","caption":"The bill"}`, ""},
		{"audio", `{"id":"med_1"}`, ""},
		{"audio", `{"id":"med_1","caption":"x"}`, "/audio/caption"},
		{"sticker", `{"id":"med_1","caption":"x"}`, "/sticker/caption"},
		{"video", `{"id":5}`, "/video/id /video"},
		{"location", `{"latitude":0,"longitude":0}`, ""},
		{"location", `{"latitude":-90,"longitude":180,"name":"N","address":"A"}`, ""},
		{"location", `{"latitude":"0","longitude":0}`, "/location/latitude"},
		{"location", `{"latitude":90.1,"longitude":181}`, "/location/latitude /location/longitude"},
		{"location", `{}`, "/location/latitude /location/longitude"},
		{"contacts", `[{"name":{"formatted_name":"Ana F","first_name":"Ana"},"phones":[{"phone":"+1"}]}]`, ""},
		{"contacts", `[{"name":{"formatted_name":"Ana F"}}]`, "/contacts/0/name"},
		{"contacts", `[{"name":{"first_name":"Ana"}}]`, "/contacts/0/name/formatted_name"},
		{"contacts", `[]`, "/contacts"},
		{"contacts", `{"name":{}}`, "/contacts"},
		{"contacts", `[5]`, "/contacts/0"},
		{"reaction", `{"message_id":"wamid.1","emoji":"👍🏽"}`, ""},
		{"reaction", `{"message_id":"wamid.1","emoji":""}`, ""},
		{"reaction", `{"message_id":"wamid.1"}`, "/reaction/emoji"},
		{"reaction", `{"emoji":"x"}`, "/reaction/message_id"},
		{"reaction", `{"message_id":"wamid.1","emoji":"` + strings.Repeat("x", 17) + `"}`, "/reaction/emoji"},
		{"interactive", interactive("button", `{"buttons":[`+button("a", "A")+`,`+button("b", "B")+`]}`), ""},
		{"interactive", interactive("button", `{"buttons":[]}`), "/interactive/action/buttons"},
		{"interactive", interactive("button", `{"buttons":`+many(4, button("a", "A"))+`}`), "/interactive/action/buttons"},
		{"interactive", interactive("button", `{"buttons":[`+button("a", "A")+`,`+button("a", "B")+`]}`), "/interactive/action/buttons/1/reply"},
		{"interactive", interactive("button", `{"buttons":[`+button("a", strings.Repeat("x", 21))+`]}`), "/interactive/action/buttons/0/reply/title"},
		{"interactive", interactive("button", `5`), "/interactive/action"},
		{"interactive", `{"type":"button","action":{"buttons":[` + button("a", "A") + `]}}`, "/interactive/body"},
		{"interactive", `{"type":"button","body":{"text":"` + strings.Repeat("x", 1025) + `"},"action":{"buttons":[` + button("a", "A") + `]}}`, "/interactive/body/text"},
		{"interactive", list(`[{"rows":[` + row("1") + `,` + row("2") + `]}]`), ""},
		{"interactive", list(`[{"rows":[` + row("1") + `,` + row("1") + `]}]`), "/interactive/action/sections/0/rows/1/id"},
		{"interactive", list(`[{"rows":[` + row("1") + `]},{"rows":[` + row("2") + `]}]`), "/interactive/action/sections/0/title /interactive/action/sections/1/title"},
		{"interactive", list(`[{"rows":` + many(11, row("1")) + `}]`), "/interactive/action/sections/0/rows"},
		{"interactive", interactive("cta_url", `{"name":"cta_url","parameters":{"display_text":"Open","url":"https://x.example"}}`), ""},
		{"interactive", interactive("cta_url", `{"name":"open","parameters":{"display_text":"Open","url":"https://x.example"}}`), "/interactive/action/name"},
		{"interactive", interactive("location_request_message", `{"name":"send_location"}`), ""},
		{"interactive", interactive("flow", `{"name":"flow","parameters":{"flow_message_version":"3","flow_cta":"Book","flow_id":"1"}}`), ""},
		{"interactive", interactive("address_message", `{"name":"address_message"}`), ""}, // not ours to know
		{"template", template(""), ""},
		{"template", body(`"Ana"`), ""},
		{"template", body(`"Ana\nMaria"`), "/template/components/0/parameters/0/text"},
		{"template", body(`""`), "/template/components/0/parameters/0/text"},
		{"template", `{"name":"Hello!","language":{"code":"en"}}`, "/template/name"},
		{"template", `{"name":"hello"}`, "/template/language"},
		{"template", template(`,"components":{}`), "/template/components"},
		{"template", template(`,"components":[{"type":"header","parameters":[{"type":"image","image":{}}]}]`), "/template/components/0/parameters/0/image"},
		{"hologram", `{}`, "/type"},
		{"contacts", `[` + strings.Repeat(" ", maxObject) + `]`, "/contacts"},
	} {
		dr := Draft{To: "+12025550143", Type: c.typ, Object: json.RawMessage(c.object)}
		if got := places(dr.Check()); got != c.at {
			t.Errorf("%s %.200s: refused at %q, want %q", c.typ, c.object, got, c.at)
		}
	}
}

func TestDraftSaysToWhom(t *testing.T) {
	for want, dr := range map[string]Draft{
		"":             {Recipient: "US.13491208655302741918"},
		"|":            {},
		"| ":           {To: "+12025550143", ConversationID: "cnv_1"},
		"|/recipient":  {Recipient: "12025550143"},
		"|/replyTo":    {To: "+12025550143", ReplyTo: "wamid.1", Type: "reaction", Object: json.RawMessage(`{"message_id":"wamid.1","emoji":"x"}`)},
		"|/type":       {To: "+12025550143", Type: "x"},
		"| /recipient": {To: "+12025550143", Recipient: "x"},
	} {
		if dr.Type == "" {
			dr.Type, dr.Object = "text", json.RawMessage(`"Hello"`)
		}
		err := dr.Check()
		if (err == nil) != (want == "") || strings.TrimSpace(places(err)) != strings.TrimSpace(strings.TrimPrefix(want, "|")) {
			t.Errorf("%+v: %v at %q, want %q", dr, err, places(err), want)
		}
	}
}

func places(err error) string {
	var f *fault.Error
	if !errors.As(err, &f) {
		return ""
	}
	var at []string
	for _, p := range f.Fields {
		at = append(at, p.Pointer)
	}
	return strings.Join(at, " ")
}
