package whatsapp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestOneBadItemHarmsNoOther puts every kind of rubbish beside a good message
// and expects the good one untouched, and the rubbish told where it stands.
func TestOneBadItemHarmsNoOther(t *testing.T) {
	const (
		good   = `{"id":"good","from":"1","timestamp":"1793035014","type":"text","text":{"body":"hi"}}`
		change = `{"field":"messages","value":{"metadata":{"phone_number_id":"300"},"messages":[` + good + `]}}`
		entry  = `{"id":"200","changes":[` + change + `]}`
	)
	for name, tc := range map[string]struct {
		body string
		at   string // where the rubbish stands; "" where it costs nothing
		raw  string
	}{
		"an entry that is a number":   {`[5,` + entry + `]`, "entry[0]", `5`},
		"an entry that is null":       {`[null,` + entry + `]`, "entry[0]", `null`},
		"an entry that is a list":     {`[[],` + entry + `]`, "entry[0]", `[]`},
		"changes that are an object":  {`[{"id":"7","changes":{"a":1}},` + entry + `]`, "entry[0]", `{"id":"7","changes":{"a":1}}`},
		"a change that is a string":   {`[{"id":"200","changes":["x",` + change + `]}]`, "entry[0].changes[0]", `"x"`},
		"a change without a value":    {`[{"id":"200","changes":[{"field":"messages"},` + change + `]}]`, "entry[0].changes[0]", `{"field":"messages"}`},
		"a value that is a list":      {`[{"id":"200","changes":[{"field":"messages","value":[1]},` + change + `]}]`, "entry[0].changes[0]", `{"field":"messages","value":[1]}`},
		"messages that are an object": {`[{"id":"200","changes":[{"field":"messages","value":{"messages":{"a":1}}},` + change + `]}]`, "entry[0].changes[0]", `{"a":1}`},
		"a message that is a string":  {`[{"id":"200","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"300"},"messages":["x",` + good + `]}}]}]`, "entry[0].changes[0]", `"x"`},
		"a message without an id":     {`[{"id":"200","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"300"},"messages":[{"from":"2","type":"text"},` + good + `]}}]}]`, "entry[0].changes[0]", `{"from":"2","type":"text"}`},
		"a status that is a number":   {`[{"id":"200","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"300"},"statuses":[1],"messages":[` + good + `]}}]}]`, "entry[0].changes[0]", `1`},
		"a preference of nobody":      {`[{"id":"200","changes":[{"field":"user_preferences","value":{"user_preferences":[{"value":"stop"}]}},` + change + `]}]`, "entry[0].changes[0]", `{"value":"stop"}`},
		"an id update of nothing":     {`[{"id":"200","changes":[{"field":"user_id_update","value":{"user_id_update":[{"user_id":"x"}]}},` + change + `]}]`, "entry[0].changes[0]", `{"user_id":"x"}`},
		"threads that are a string":   {`[{"id":"200","changes":[{"field":"history","value":{"history":[{"threads":"x"}]}},` + change + `]}]`, "entry[0].changes[0]", `{"threads":"x"}`},

		"contacts that are a string":  {`[{"id":"200","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"300"},"contacts":"x","messages":[` + good + `]}}]}]`, "", ""},
		"a contact that is a number":  {`[{"id":"200","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"300"},"contacts":[1,{"profile":7}],"messages":[` + good + `]}}]}]`, "", ""},
		"a context that is a number":  {`[{"id":"200","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"300"},"messages":[` + strings.Replace(good, "{", `{"context":5,"referral":"x","errors":{},"identity":[],`, 1) + `]}}]}]`, "", ""},
		"null lists":                  {`[{"id":"200","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"300"},"statuses":null,"errors":null,"messages":[` + good + `]}}]}]`, "", ""},
		"the number id a number":      {`[{"id":200,"changes":[{"field":"messages","value":{"metadata":{"phone_number_id":300},"messages":[` + good + `]}}]}]`, "", ""},
		"times as numbers, ids too":   {`[{"id":"200","time":1793000000,"changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"300"},"messages":[{"id":"good","from":1,"timestamp":1793035014,"type":"text","text":{"body":"hi"}}]}}]}]`, "", ""},
		"another's keys in odd types": {`[{"id":"200","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"300","display_phone_number":{"a":1}},"waba_info":5,"messages":[` + good + `]}}]}]`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := ParseWebhook([]byte(`{"object":"whatsapp_business_account","entry":` + tc.body + `}`))
			if err != nil {
				t.Fatal(err)
			}
			var bad []Item
			good := 0
			for _, it := range b.Items {
				if it.Kind == KindInvalid {
					bad = append(bad, it)
					continue
				}
				good++
				m := it.Message
				if it.Kind != KindMessage || m.ID != "good" || m.From != "1" || m.Text == nil || m.Text.Body != "hi" ||
					it.PhoneNumberID != "300" || it.WABAID != "200" || !m.Timestamp.Equal(time.Unix(1793035014, 0)) {
					t.Errorf("the good message came as %+v %+v", it, m)
				}
			}
			if good != 1 {
				t.Fatalf("%d good messages", good)
			}
			if tc.at == "" {
				if len(bad) != 0 {
					t.Errorf("told as invalid: %s %v", bad[0].Raw, bad[0].Err)
				}
				return
			}
			if len(bad) != 1 || bad[0].At != tc.at || string(bad[0].Raw) != tc.raw || bad[0].Err == nil {
				t.Fatalf("told as %+v", bad)
			}
		})
	}
}

// TestContentOfAnotherShape keeps a message whose object nobody can read: who
// wrote, when, and the bytes.
func TestContentOfAnotherShape(t *testing.T) {
	for name, content := range map[string]string{
		"a text that is a number":       `"type":"text","text":5`,
		"a text body that is a list":    `"type":"text","text":{"body":["x"]}`,
		"a text without its object":     `"type":"text"`,
		"coordinates as strings":        `"type":"location","location":{"latitude":"1","longitude":"2"}`,
		"no coordinates":                `"type":"location","location":{"name":"x"}`,
		"cards that are an object":      `"type":"contacts","contacts":{"a":1}`,
		"an interactive without":        `"type":"interactive"`,
		"an edit that is a string":      `"type":"edit","edit":"x"`,
		"system of another shape":       `"type":"system","system":[]`,
		"unsupported of another shape":  `"type":"unsupported","unsupported":[]`,
		"an image whose id is an array": `"type":"image","image":{"id":[1]}`,
	} {
		b, err := ParseWebhook(fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"messages","value":{"messages":[{"id":"m","from":"1",%s}]}}]}]}`, content))
		if err != nil || len(b.Items) != 1 || b.Items[0].Kind != KindMessage {
			t.Fatalf("%s: %+v %v", name, b.Items, err)
		}
		m := b.Items[0].Message
		if m.ContentErr == nil || m.ID != "m" || m.From != "1" || m.Text != nil || m.Location != nil || m.Cards != nil || m.Media != nil {
			t.Errorf("%s: %+v", name, m)
		}
		if m.ContentErr != nil && strings.Contains(m.ContentErr.Error(), `"x"`) {
			t.Errorf("%s: the error quotes the content: %v", name, m.ContentErr)
		}
	}
}

func TestUnknownFieldsAndParts(t *testing.T) {
	b, err := ParseWebhook([]byte(`{"object":"whatsapp_business_account","entry":[{"id":"200","changes":[
		{"field":"messages","value":{"metadata":{"phone_number_id":"300"},"holograms":[1]}},
		{"field":"brand_new_update","value":{"event":"HAPPENED"}},
		{"field":"messages","value":{"user_actions":[{"action_type":"clicked","timestamp":"1793035014","clicked_data":{"a":1}}]}},
		{"field":"user_id_update","value":{"user_id_update":[{"wa_id":"1","user_id":{"previous":"A","current":"B"},"timestamp":"1793035014"}]}},
		{"field":"message_template_status_update","value":{"new_quality_score":"RED","message_template_language":"pt-br"}},
		{"field":"calls","value":{"statuses":[{"id":"c","status":"RINGING"}]}},
		{"field":"history","value":{"history":[{"threads":[5,{"id":"1","messages":[{"id":"h","type":"text","text":{"body":"x"}},{"type":"text"},7]}]}]}}]}]}`))
	if err != nil || len(b.Items) != 7 {
		t.Fatalf("%d items, %v", len(b.Items), err)
	}
	check(t, "unknown part", [2]any{b.Items[0].Kind, b.Items[0].PhoneNumberID}, [2]any{KindUnknown, "300"})
	check(t, "unknown field", [3]any{b.Items[1].Kind, b.Items[1].Event, string(b.Items[1].Raw)}, [3]any{KindAccountEvent, "HAPPENED", `{"event":"HAPPENED"}`})
	check(t, "user action", *b.Items[2].UserAction, UserAction{"clicked", time.Unix(1793035014, 0).UTC()})
	check(t, "identity", *b.Items[3].Identity, IdentityChange{WAID: "1", PreviousUserID: "A", UserID: "B", At: time.Unix(1793035014, 0).UTC()})
	check(t, "quality under the field of status", [2]any{b.Items[4].Kind, b.Items[4].Template.Language}, [2]any{KindTemplateQuality, "pt_BR"})
	check(t, "a call's status", [2]any{b.Items[5].Kind, b.Items[5].Status.OfMessage()}, [2]any{KindStatus, false})
	h := b.Items[6].History
	check(t, "history", []any{len(h.Threads), h.Threads[0].Messages[0].Err != nil, h.Threads[1].Messages[0].Message.ID, h.Threads[1].Messages[1].Err != nil, string(h.Threads[1].Messages[2].Raw)},
		[]any{2, true, "h", true, "7"})
}

func TestOddBodies(t *testing.T) {
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	for name, tc := range map[string]struct {
		body  string
		err   error
		items int
	}{
		"nothing":                      {"", ErrNotJSON, 0},
		"cut short":                    {`{"object":"whatsapp_business_account","entry":[{`, ErrNotJSON, 0},
		"two values":                   {`{} {}`, ErrNotJSON, 0},
		"not utf-8 nor JSON":           {"\xff\xfe", ErrNotJSON, 0},
		"very deep":                    {deep, ErrNotJSON, 0},
		"a list":                       {`[]`, nil, 1},
		"null":                         {`null`, nil, 1},
		"an empty object":              {`{}`, nil, 0},
		"entry a string":               {`{"object":"whatsapp_business_account","entry":"x"}`, nil, 1},
		"entry null":                   {`{"object":"whatsapp_business_account","entry":null}`, nil, 0},
		"a hundred thousand entries":   {`{"entry":[` + strings.Repeat(`1,`, 100_000) + `1]}`, ErrTooManyItems, 0},
		"a hundred thousand messages":  {`{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"messages","value":{"messages":[` + strings.Repeat(`1,`, 100_000) + `1]}}]}]}`, ErrTooManyItems, 0},
		"a hundred thousand of a past": {`{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"history","value":{"history":[{"threads":[{"messages":[` + strings.Repeat(`1,`, 100_000) + `1]}]}]}}]}]}`, ErrTooManyItems, 0},
		"lone surrogates":              {`{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{"messages":[{"id":"a","type":"text","text":{"body":"\ud83d"}}]}}]}]}`, nil, 1},
	} {
		b, err := ParseWebhook([]byte(tc.body))
		if !errors.Is(err, tc.err) || len(b.Items) != tc.items {
			t.Errorf("%s: %d items, %v", name, len(b.Items), err)
		}
	}
}

func TestTimes(t *testing.T) {
	for in, want := range map[string]time.Time{
		`"1793035014"`: time.Unix(1793035014, 0).UTC(), `1793035014`: time.Unix(1793035014, 0).UTC(), `1793035014.5`: time.Unix(1793035014, 5e8).UTC(),
		`""`: {}, `null`: {}, `"soon"`: {}, `{}`: {}, `-5`: {}, `0`: {}, `1e400`: {}, `"NaN"`: {}, `99999999999999`: {},
	} {
		var u unix
		if err := json.Unmarshal([]byte(in), &u); err != nil || !u.Time.Equal(want) {
			t.Errorf("%s: %v %v", in, u.Time, err)
		}
	}
}

func TestLanguage(t *testing.T) {
	for in, want := range map[string]string{"en-US": "en_US", "en_US": "en_US", "pt-br": "pt_BR", "en": "en", "": "", "ES": "es"} {
		if got := Language(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestNextStatus(t *testing.T) {
	order := []string{"accepted", "sent", "failed", "delivered", "read", "played"} // failed is final only below delivered
	for i, current := range order {
		for j, incoming := range order {
			next, changed := NextStatus(current, incoming)
			want := current
			if j > i {
				want = incoming
			}
			if next != want || changed != (j > i) {
				t.Errorf("%s then %s: %s %v", current, incoming, next, changed)
			}
		}
		for _, other := range []string{"", "captured", "pending", "RINGING", "deleted", "queued"} {
			if next, changed := NextStatus(current, other); next != current || changed {
				t.Errorf("%s then %q: %s", current, other, next)
			}
			if next, changed := NextStatus(other, current); next != current || !changed {
				t.Errorf("%q then %s: %s", other, current, next)
			}
		}
	}
	for _, tc := range [][3]string{ // the pairs that matter, by name
		{"sent", "failed", "failed"}, {"delivered", "failed", "delivered"}, {"read", "failed", "read"}, {"played", "failed", "played"},
		{"failed", "sent", "failed"}, {"failed", "delivered", "delivered"}, {"failed", "read", "read"}, {"read", "delivered", "read"},
	} {
		if next, _ := NextStatus(tc[0], tc[1]); next != tc[2] {
			t.Errorf("%s then %s: %s, want %s", tc[0], tc[1], next, tc[2])
		}
	}
	b, err := ParseWebhook(body(t, "status_out_of_order.json"))
	if err != nil {
		t.Fatal(err)
	}
	state := ""
	for _, it := range b.Items {
		state, _ = NextStatus(state, it.Status.Status)
	}
	check(t, "out of order", state, "read")
}

func FuzzParseWebhook(f *testing.F) {
	for _, g := range readGolden(f).Files {
		f.Add(body(f, g.File))
	}
	f.Add([]byte(`{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"history","value":{"history":[{"threads":[{"messages":[{"id":"1"}]}]}]}}]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		b, err := ParseWebhook(raw)
		if !bytes.Equal(before, raw) {
			t.Fatal("the body was changed")
		}
		if (err == nil) != json.Valid(raw) && !errors.Is(err, ErrTooManyItems) {
			t.Fatalf("valid JSON: %v, error %v", json.Valid(raw), err)
		}
		if err != nil && len(b.Items) != 0 {
			t.Fatal("items beside an error")
		}
		statuses := false
		for _, it := range b.Ordered() {
			if it.Kind == "" || (it.Kind == KindInvalid) != (it.Err != nil) || it.Raw != nil && !json.Valid(it.Raw) {
				t.Fatalf("item %+v", it)
			}
			switch it.Kind {
			case KindStatus:
				statuses = true
				if it.Status == nil || it.Status.ID == "" {
					t.Fatal("a status without itself")
				}
			case KindMessage, KindEcho, KindHistoryMedia:
				if statuses || it.Message == nil || it.Message.ID == "" {
					t.Fatal("a message without itself, or after a status")
				}
				it.Message.Subtype()
				it.Message.ReplyTo()
			}
		}
	})
}
