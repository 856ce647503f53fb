package whatsapp

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/secret"
)

const webhooks = "testdata/webhooks"

// golden is testdata/webhooks/index.json: what each body holds, told independently of this package.
type golden struct {
	AppSecret string       `json:"app_secret"`
	FileCount int          `json:"file_count"`
	Files     []goldenFile `json:"files"`
}

type goldenFile struct {
	File      string         `json:"file"`
	Bytes     int            `json:"bytes"`
	ValidJSON bool           `json:"valid_json"`
	Signature string         `json:"x_hub_signature_256"`
	Counts    map[string]int `json:"counts"`
	Messages  int            `json:"messages"`
	Statuses  int            `json:"statuses"`
	Distinct  int            `json:"distinct_message_ids"`
	Types     []string       `json:"message_types"`
	States    []string       `json:"status_values"`
	Numbers   []string       `json:"phone_number_ids"`
	Entries   []string       `json:"waba_ids"`
	Fields    []string       `json:"fields"`
	WAIDs     []string       `json:"wa_ids"`
	UserIDs   []string       `json:"user_ids"`
	Items     []map[string]any
	Expect    map[string]any
}

func readGolden(t testing.TB) golden {
	t.Helper()
	var g golden
	if err := json.Unmarshal(body(t, "index.json"), &g); err != nil {
		t.Fatal(err)
	}
	if g.FileCount != len(g.Files) || g.FileCount == 0 {
		t.Fatalf("the index names %d files and lists %d", g.FileCount, len(g.Files))
	}
	return g
}

func body(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(webhooks, name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// indexKind is the index's coarser name of a kind.
func indexKind(k Kind) string {
	switch k {
	case KindTemplateStatus, KindTemplateQuality, KindTemplateCategory, KindTemplateComponents,
		KindPhoneQuality, KindPhoneName, KindCapability, KindFlow, KindAccountUpdate:
		return "account_event"
	}
	return string(k)
}

func TestGoldenBodies(t *testing.T) {
	g := readGolden(t)
	for _, f := range g.Files {
		t.Run(strings.TrimSuffix(f.File, ".json"), func(t *testing.T) {
			raw := body(t, f.File)
			if len(raw) != f.Bytes {
				t.Fatalf("%d bytes, the index says %d", len(raw), f.Bytes)
			}
			if !VerifySignature(secret.Text(g.AppSecret), f.Signature, raw) {
				t.Error("the signature does not verify")
			}
			b, err := ParseWebhook(raw)
			if !f.ValidJSON {
				if !errors.Is(err, ErrNotJSON) || len(b.Items) != 0 {
					t.Fatalf("a broken body gave %d items, %v", len(b.Items), err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkGolden(t, f, b)
		})
	}
}

func checkGolden(t *testing.T, f goldenFile, b Batch) {
	counts, ids := map[string]int{}, map[string]bool{}
	var types, states []string
	numbers, fields := set{}, set{}
	messages, statuses := 0, 0
	for _, it := range b.Items {
		counts[indexKind(it.Kind)]++
		fields.add(it.Field)
		numbers.add(it.PhoneNumberID)
		switch it.Kind {
		case KindMessage:
			messages++
			ids[it.Message.ID] = true
			types = append(types, it.Message.Type)
			if it.Message.ContentErr != nil {
				t.Errorf("%s: %v", it.At, it.Message.ContentErr)
			}
		case KindStatus:
			statuses++
			states = append(states, it.Status.Status)
		}
	}
	check(t, "counts", counts, f.Counts)
	check(t, "messages", messages, f.Messages)
	check(t, "statuses", statuses, f.Statuses)
	check(t, "distinct ids", len(ids), f.Distinct)
	check(t, "types", sorted(types), sorted(f.Types))
	check(t, "states", sorted(states), sorted(f.States))
	check(t, "numbers", numbers.sorted(), sorted(f.Numbers))
	check(t, "fields", fields.sorted(), sorted(f.Fields))
	entries := set{}
	entries.add(b.Entry...)
	check(t, "entries", entries.sorted(), sorted(f.Entries))
	wa, users := identities(b)
	check(t, "wa ids", wa, sorted(f.WAIDs))
	check(t, "user ids", users, sorted(f.UserIDs))

	if len(b.Items) != len(f.Items) {
		t.Fatalf("%d items, the index has %d", len(b.Items), len(f.Items))
	}
	for i, want := range f.Items {
		got := facts(b.Items[i])
		for k, v := range want {
			if !reflect.DeepEqual(got[k], v) {
				t.Errorf("item %d: %s is %v, the index says %v", i, k, got[k], v)
			}
		}
		for k, v := range got {
			if _, ok := want[k]; !ok {
				t.Errorf("item %d: %s is %v, the index has none", i, k, v)
			}
		}
	}
}

// facts is an item as the index tells it, empty values left out.
func facts(it Item) map[string]any {
	m := map[string]any{"at": it.At, "field": it.Field, "kind": indexKind(it.Kind), "i": float64(it.Index)}
	put := func(k, v string) {
		if v != "" {
			m[k] = v
		}
	}
	codes := func(errs []ProviderError) {
		var out []any
		for _, e := range errs {
			out = append(out, float64(e.Code))
		}
		if out != nil {
			m["error_codes"] = out
		}
	}
	put("phone_number_id", it.PhoneNumberID)
	switch {
	case it.Message != nil:
		put("id", it.Message.ID)
		put("type", it.Message.Type)
		put("subtype", it.Message.Subtype())
		if it.Kind == KindEcho { // from is the business itself
			put("to", it.Message.To)
			put("to_user_id", it.Message.ToUserID)
		} else {
			put("from", it.Message.From)
			put("from_user_id", it.Message.FromUserID)
		}
	case it.Status != nil:
		put("id", it.Status.ID)
		put("status", it.Status.Status)
		put("recipient_id", it.Status.RecipientID)
		put("recipient_user_id", it.Status.RecipientUserID)
		codes(it.Status.Errors)
	case it.Preference != nil:
		put("value", it.Preference.Value)
	case it.History != nil:
		m["messages"] = float64(it.History.Len())
		codes(it.History.Errors)
	case it.Error != nil:
		m["code"] = float64(it.Error.Code)
	default:
		put("event", it.Event)
	}
	return m
}

// identities are the people of a body: contacts, and who a message is from or to.
func identities(b Batch) (wa, users []string) {
	w, u := set{}, set{}
	for _, it := range b.Items {
		if c := it.Contact; c != nil {
			w.add(c.WAID)
			u.add(c.UserID)
		}
		switch {
		case it.Kind == KindEcho:
			w.add(it.Message.To)
			u.add(it.Message.ToUserID)
		case it.Message != nil:
			w.add(it.Message.From)
			u.add(it.Message.FromUserID)
		case it.Preference != nil:
			w.add(it.Preference.WAID)
			u.add(it.Preference.UserID)
		}
	}
	return w.sorted(), u.sorted()
}

type set map[string]bool

func (s set) add(values ...string) {
	for _, v := range values {
		if v != "" {
			s[v] = true
		}
	}
}
func (s set) sorted() []string { return sorted(slices.Collect(maps.Keys(s))) }

func sorted(s []string) []string {
	out := append([]string{}, s...)
	slices.Sort(out)
	return out
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// one parses a golden body that holds one item.
func one(t *testing.T, name string) Item {
	t.Helper()
	b, err := ParseWebhook(body(t, name+".json"))
	if err != nil || len(b.Items) != 1 {
		t.Fatalf("%s: %d items, %v", name, len(b.Items), err)
	}
	return b.Items[0]
}

// TestGoldenExpectations holds what the index's "expect" says of parsing.
func TestGoldenExpectations(t *testing.T) {
	m := func(name string) *Message { return one(t, name).Message }
	for _, tc := range []struct {
		what      string
		got, want any
	}{
		{"unicode text", m("text_unicode_wire").Text.Body, "äöå café 👍🏽 👨‍👩‍👧‍👦 שלום \u200f مرحبا https://example.com/a/b?x=1&y=<2>"},
		{"username: no phone", m("text_username_no_phone").From, ""},
		{"username: contact", *one(t, "text_username_no_phone").Contact, Contact{UserID: "GB.90210000000000000123", Name: "Ben Madeup", Username: "benmadeup"}},
		{"parent id", m("text_parent_bsuid").ParentUserID, "US.ENT.77700000000000000143"},
		{"identity hash", one(t, "text_identity_key_hash").Contact.IdentityKeyHash, "DF2lS5v2W6x="},
		{"empty profile", one(t, "text_profile_name_missing").Contact.Name, ""},
		{"no contacts", one(t, "text_no_contacts").Contact == nil, true},
		{"opt-out text", m("text_opt_out_stop").Text.Body, "STOP"},
		{"opt-out button", *m("button_unsubscribe").Button, Button{"Stop promotions", "Stop promotions"}},
		{"reply", m("text_reply").ReplyTo(), "wamid.HBgLMTIwMjU1NTAxNDMVAgARGBI4NUFCMEZDOERBRThEQ0NBM0QA"},
		{"forwarded is no reply", [2]any{m("text_forwarded").ReplyTo(), m("text_forwarded").Context.Forwarded}, [2]any{"", true}},
		{"forwarded often", [2]any{m("text_frequently_forwarded").ReplyTo(), m("text_frequently_forwarded").Context.FrequentlyForwarded}, [2]any{"", true}},
		{"forwarded video", m("video_caption").Context.Forwarded, true},
		{"caption", m("video_caption").Media.Caption, "regarde"},
		{"voice", [2]any{m("audio_voice").Media.Voice, m("audio_voice").Media.MIME}, [2]any{true, "audio/ogg; codecs=opus"}},
		{"audio file", m("audio_file").Media.Voice, false},
		{"document", [2]string{m("document_pdf").Media.Filename, m("document_pdf").Media.ID}, [2]string{"invoice 2026-11.pdf", "910000000000006"}},
		{"image without url", m("image_plain_no_url").Media.URL, ""},
		{"location zero", *m("location_zero").Location, Location{}},
		{"location", *m("location_place").Location, Location{37.44221496582, -122.16165924072, "Example Coffee", "101 Forest Ave, Palo Alto, CA 94301", "https://example.com/coffee"}},
		{"card", [3]string{m("contacts_one").Cards[0].Name.Formatted, m("contacts_one").Cards[0].Phones[0].WAID, m("contacts_one").Cards[0].Org.Company}, [3]string{"Lucía Gómez", "12025550188", "Example SL"}},
		{"card links a phone", [2]string{m("contacts_request_contact_info").Cards[0].Origin, m("contacts_request_contact_info").Cards[0].Phones[0].WAID}, [2]string{"contact_request", "447700900123"}},
		{"reaction", [2]any{m("reaction_add").Reaction.Emoji, m("reaction_add").Reaction.Removed()}, [2]any{"👍", false}},
		{"reaction removed", m("reaction_remove").Reaction.Removed(), true},
		{"reaction emptied", m("reaction_empty_string").Reaction.Removed(), true},
		{"button reply", *m("interactive_button_reply").Interactive.Button, Reply{ID: "cancel-button", Title: "Cancel"}},
		{"list reply", *m("interactive_list_reply").Interactive.List, Reply{"priority_express", "Priority Mail Express", "Next Day to 2 Days"}},
		{"flow reply", *m("interactive_nfm_reply_flow").Interactive.Flow, FlowReply{"flow", "Sent", `{"flow_token":"FLOWTOKEN-1","rating":"4","comment":"très bien"}`}},
		{"call permission", *m("call_permission_accept").Interactive.CallPermission, CallPermission{"accept", false, time.Unix(1793604800, 0).UTC(), "user_action"}},
		{"order", m("order_basic").Order.Items, []OrderItem{{"sku-1", 2, 30, "USD"}, {"sku-2", 1, 25, "USD"}}},
		{"referral", [3]string{m("referral_ctwa_ad_image").Referral.SourceType, m("referral_ctwa_ad_image").Referral.ClickID, m("referral_ctwa_ad_image").Text.Body}, [3]string{"ad", "Aff-FAKEclid_000000000000000000", "Hello! Can I get more info on this?"}},
		{"product question", [2]string{m("product_inquiry").Context.ProductID, m("product_inquiry").Context.CatalogID}, [2]string{"sku-9", "194836987000000"}},
		{"changed number", [2]string{m("system_user_changed_number").From, m("system_user_changed_number").System.WAID}, [2]string{"12025550143", "12025550199"}},
		{"changed number: ids", [2]string{m("system_user_changed_number").System.PreviousUserID, m("system_user_changed_number").System.UserID}, [2]string{"US.90210000000000000143", "US.90210000000000000199"}},
		{"changed user id", [2]string{m("system_user_changed_user_id").System.PreviousUserID, m("system_user_changed_user_id").System.UserID}, [2]string{"GB.90210000000000000123", "GB.90210000000000000777"}},
		{"identity changed", *m("system_identity_changed").Identity, Identity{true, time.Unix(1793035532, 0).UTC(), "xyzxyz"}},
		{"edit", [2]string{m("edit_text").Edit.OriginalID, m("edit_text").Edit.New.Text.Body}, [2]string{m("text_basic").ID, "Does it come in blue?"}},
		{"revoke", m("revoke").Revoke.OriginalID, m("text_basic").ID},
		{"unsupported", [2]any{m("unsupported_subtype").Unsupported.Type, m("unsupported_subtype").Errors[0].Code}, [2]any{"poll", 131051}},
		{"too big", m("media_too_big_131052").Errors[0].Code, 131052},
		{"unknown type keeps its object", [2]string{m("unknown_type_future").Type, strings.Join(strings.Fields(string(m("unknown_type_future").Content)), "")}, [2]string{"hologram", `{"id":"holo-1","frames":3}`}},
		{"group", m("group_text").GroupID, "Y2FwaV9ncm91cDoxMjAyNTU1MDE3MDoxMjAzNjMwMDAwMDAwMDAwMDAZD"},
		{"timestamp", m("text_basic").Timestamp, time.Unix(1793035014, 0).UTC()},
		{"biz opaque", one(t, "status_biz_opaque").Status.BizOpaque, "tenantA:campaign7:row42"},
		{"status details", one(t, "status_failed_131047").Status.Errors[0].Details, "Message failed to send because more than 24 hours have passed since the customer last replied to this number."},
		{"status opt-out", Classify(0, one(t, "status_failed_131050_opt_out").Status.Errors[0].Code, 0).OptOut, true},
		{"status without a contact", one(t, "status_failed_131026").Contact == nil, true},
		{"pricing", *one(t, "status_delivered_pricing").Status.Pricing, Pricing{true, "PMP", "regular", "utility"}},
		{"free entry point", one(t, "status_free_entry_point").Status.ConversationOrigin, "referral_conversion"},
		{"group status", [2]string{one(t, "status_group_read").Status.ParticipantID, one(t, "status_group_read").Contact.Name}, [2]string{"447700900123", "Ben Madeup"}},
		{"payment is no message status", [2]any{one(t, "status_payment_captured").Status.OfMessage(), one(t, "status_read").Status.OfMessage()}, [2]any{false, true}},
		{"preference: time a number", [2]any{one(t, "user_preferences_stop").Preference.OptOut(), one(t, "user_preferences_stop").Preference.At}, [2]any{true, time.Unix(1793000005, 0).UTC()}},
		{"preference: time a string", one(t, "user_preferences_bsuid_only").Preference.At, time.Unix(1793000000, 0).UTC()},
		{"preference: resume", one(t, "user_preferences_resume").Preference.OptOut(), false},
		{"echo is outbound", [3]any{one(t, "smb_message_echo_text").Kind, m("smb_message_echo_text").From, one(t, "smb_message_echo_text").Contact.Name}, [3]any{KindEcho, "12025550170", "Ana Fictiva"}},
		{"history media is not inbound", one(t, "history_media").Kind, KindHistoryMedia},
		{"history", [4]any{one(t, "history_chunk").History.Progress, one(t, "history_chunk").History.Threads[0].ID, one(t, "history_chunk").History.Threads[0].Messages[1].Message.HistoryStatus, one(t, "history_chunk").History.Threads[1].Messages[0].Message.Text.Body}, [4]any{55, "12025550143", "PLAYED", "code THANKS30"}},
		{"history declined", one(t, "history_declined").History.Errors[0].Code, 2593109},
		{"contact sync", *one(t, "smb_app_state_sync").ContactSync, ContactSync{"contact", "add", "Ana Fictiva", "Ana", "12025550143", time.Unix(1793000000, 0).UTC()}},
		{"call", [3]string{one(t, "calls_connect_user_initiated").Call.Event, one(t, "calls_connect_user_initiated").Call.Direction, one(t, "calls_connect_user_initiated").Contact.Name}, [3]string{"connect", "USER_INITIATED", "Ana Fictiva"}},
		{"template status", *one(t, "template_status_rejected").Template, TemplateEvent{ID: "1689556900000001", Name: "order_confirmation", Language: "en_US", Event: "REJECTED", Reason: "INVALID_FORMAT", Category: "MARKETING",
			InfoText: "Your template has parameters placed next to each other (like {{1}}{{2}}) without text or punctuation between them.", Recommendation: "Separate parameters with descriptive text and ensure each parameter is clearly contextualized."}},
		{"template status kinds", [2]Kind{one(t, "template_status_approved").Kind, one(t, "template_pending_deletion_null_reason").Kind}, [2]Kind{KindTemplateStatus, KindTemplateStatus}},
		{"template reason null", one(t, "template_pending_deletion_null_reason").Template.Reason, ""},
		{"template reason NONE", one(t, "template_status_paused").Template.Reason, ""},
		{"template pause", one(t, "template_status_paused").Template.Info, "FIRST_PAUSE"},
		{"template quality: hyphen", [4]any{one(t, "template_quality_update").Kind, one(t, "template_quality_update").Template.Language, one(t, "template_quality_update").Template.PreviousQuality, one(t, "template_quality_update").Template.Quality}, [4]any{KindTemplateQuality, "en_US", "GREEN", "YELLOW"}},
		{"template category announced", [3]any{one(t, "template_category_pending").Template.Category, one(t, "template_category_pending").Template.NextCategory, one(t, "template_category_pending").Template.NextCategoryAt}, [3]any{"UTILITY", "MARKETING", time.Unix(1793086400, 0).UTC()}},
		{"template category done", [3]any{one(t, "template_category_updated").Template.PreviousCategory, one(t, "template_category_updated").Template.Category, one(t, "template_category_updated").Template.NextCategory}, [3]any{"UTILITY", "MARKETING", ""}},
		{"template components", one(t, "template_components_update").Kind, KindTemplateComponents},
		{"partner event's account", [2]string{one(t, "account_update_partner_removed").WABAID, one(t, "account_update_partner_removed").EntryID}, [2]string{"200000000000009", "294948270000000"}},
		{"restriction", one(t, "account_update_restriction").Account.Restrictions, []Restriction{{"RESTRICTED_BIZ_INITIATED_MESSAGING", time.Unix(1793086400, 0).UTC()}, {"RESTRICTED_ADD_PHONE_NUMBER_ACTION", time.Unix(1793086400, 0).UTC()}}},
		{"ban", [2]any{one(t, "account_update_disabled").Account.BanState, one(t, "account_update_disabled").EntryTime}, [2]any{"DISABLE", time.Unix(1793000000, 0).UTC()}},
		{"alert nested", one(t, "account_alerts").Account.Severity, "WARNING"},
		{"number upgrade", *one(t, "phone_number_quality_upgrade").Number, NumberEvent{Event: "THROUGHPUT_UPGRADE", Limit: "TIER_UNLIMITED"}},
		{"number name", [2]any{*one(t, "phone_number_name_update").Number, one(t, "phone_number_name_update").DisplayPhone}, [2]any{NumberEvent{Decision: "APPROVED", RequestedName: "Example Shop"}, "12025550170"}},
		{"capability: a number", *one(t, "business_capability_update").Capability, Capability{ConversationsPerBusiness: "2000", PhonesPerWABA: "25"}},
		{"capability: a tier", *one(t, "business_capability_tier_string").Capability, Capability{ConversationsPerBusiness: "TIER_UNLIMITED", ConversationsPerPhone: "-1", PhonesPerWABA: "25"}},
		{"flow", *one(t, "flows_status_change").Flow, FlowEvent{"6627390910000001", "FLOW_STATUS_CHANGE", "Flow Webhook 1 has been published", "DRAFT", "PUBLISHED"}},
		{"pin reset", [2]string{one(t, "security_pin_reset").Event, one(t, "security_pin_reset").DisplayPhone}, [2]string{"PIN_RESET_REQUEST", "12025550170"}},
		{"group event", *one(t, "group_participants_update").Group, GroupEvent{"Y2FwaV9ncm91cDo0NDc3MDA5MDA5MDA6MTIwMzYzMDAwMDAwMDAwMDAwMDEZD", "group_participants_remove", "784D93D0", time.Unix(1793000000, 0).UTC()}},
		{"another object", one(t, "object_other").Kind, KindAccountEvent},
	} {
		check(t, tc.what, tc.got, tc.want)
	}
}

func TestContactsAreMatchedByIdentity(t *testing.T) {
	b, err := ParseWebhook(body(t, "batch_two_messages_one_value.json"))
	if err != nil {
		t.Fatal(err)
	}
	check(t, "names", []string{b.Items[0].Contact.Name, b.Items[1].Contact.Name}, []string{"Ana Fictiva", "Ben Madeup"})
	for name, tc := range map[string]struct{ people, message, want string }{
		"by user id":           {`[{"user_id":"U2","profile":{"name":"B"}},{"user_id":"U1","profile":{"name":"A"}}]`, `"from_user_id":"U1"`, "A"},
		"user id before phone": {`[{"wa_id":"1","user_id":"U2","profile":{"name":"B"}},{"user_id":"U1","profile":{"name":"A"}}]`, `"from":"1","from_user_id":"U1"`, "A"},
		"phone of another id":  {`[{"wa_id":"1","user_id":"U2","profile":{"name":"B"}}]`, `"from":"1","from_user_id":"U1"`, ""},
		"phone, id unknown":    {`[{"wa_id":"1","profile":{"name":"A"}}]`, `"from":"1","from_user_id":"U1"`, "A"},
		"nobody":               {`[{"wa_id":"2","profile":{"name":"B"}}]`, `"from":"1"`, ""},
		"nameless never match": {`[{"profile":{"name":"B"}}]`, `"x":"1"`, ""},
	} {
		b, err := ParseWebhook([]byte(`{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{"contacts":` + tc.people +
			`,"messages":[{"id":"m","type":"text","text":{"body":"x"},` + tc.message + `}]}}]}]}`))
		if err != nil || len(b.Items) != 1 {
			t.Fatalf("%s: %v %v", name, b.Items, err)
		}
		got := ""
		if c := b.Items[0].Contact; c != nil {
			got = c.Name
		}
		if got != tc.want {
			t.Errorf("%s: matched %q, want %q", name, got, tc.want)
		}
	}
}

func TestOrderedPutsMessagesFirst(t *testing.T) {
	b, err := ParseWebhook([]byte(`{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[
		{"field":"messages","value":{"statuses":[{"id":"s1","status":"sent"},{"id":"s2","status":"sent"}]}},
		{"field":"messages","value":{"messages":[{"id":"m1","type":"text"}]}}]},
		{"id":"2","changes":[{"field":"smb_message_echoes","value":{"message_echoes":[{"id":"e1","type":"text"}]}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, it := range b.Ordered() {
		if it.Status != nil {
			got = append(got, it.Status.ID)
		} else {
			got = append(got, it.Message.ID)
		}
	}
	check(t, "order", got, []string{"m1", "e1", "s1", "s2"})
	check(t, "the batch itself", b.Items[0].Status.ID, "s1")
}
