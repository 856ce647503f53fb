package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// The golden bodies belong to package whatsapp, which holds them against its parser; here they go through the engine.
const webhookDir = "../whatsapp/testdata/webhooks"

type golden struct {
	AppSecret string   `json:"app_secret"`
	Known     []string `json:"known_phone_number_ids"`
	Files     []goldenFile
	bodies    map[string][]byte
}

type goldenFile struct {
	File      string
	Signature string         `json:"x_hub_signature_256"`
	Valid     bool           `json:"valid_json"`
	Counts    map[string]int `json:"counts"`
	WABAs     []string       `json:"waba_ids"`
	Items     []goldenItem
}

type goldenItem struct {
	Number string `json:"phone_number_id"`
	Kind   string
	ID     string
	Type   string
	Status string
	To     string `json:"recipient_id"`
	ToUser string `json:"recipient_user_id"`
	From   string
}

func loadGolden(t *testing.T) *golden {
	t.Helper()
	g := &golden{bodies: map[string][]byte{}}
	raw, err := os.ReadFile(filepath.Join(webhookDir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, g); err != nil {
		t.Fatal(err)
	}
	for _, f := range g.Files {
		if g.bodies[f.File], err = os.ReadFile(filepath.Join(webhookDir, f.File)); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// use opens a client's database beside the engine's own users of it.
func (e *engine) use(t *testing.T, code string) *tenant.Tenant {
	t.Helper()
	tn, release, err := e.app.Tenants.Use(context.Background(), code)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return tn
}

// deliver posts a body as Meta does and waits until it is sorted.
func (e *engine) deliver(t *testing.T, body []byte, signature string) store.Delivery {
	t.Helper()
	e.send("POST", "/api/whatsapp/webhook", body, map[string]string{"X-Hub-Signature-256": signature}).want(200)
	return e.sorted(t)
}

// sorted waits until the newest delivery is, and reads it from the inbox.
func (e *engine) sorted(t *testing.T) store.Delivery {
	t.Helper()
	ctx := context.Background()
	newest, err := e.app.Inbox.Deliveries(ctx, store.DeliveryFilter{Limit: 1})
	if err != nil || len(newest) == 0 {
		t.Fatalf("no delivery in the inbox: %v", err)
	}
	var d store.Delivery
	eventually(t, "the delivery is sorted", func() string {
		if d, err = e.app.Inbox.Delivery(ctx, newest[0].ID); err != nil || d.State == store.Received {
			return fmt.Sprint(d.State, d.Error, err)
		}
		return ""
	})
	return d
}

// addHolder registers a client with these numbers.
func (e *engine) addHolder(code, waba string, numbers ...string) *client {
	e.t.Helper()
	c := &client{e: e, Code: code, WABA: waba, Number: numbers[0], Token: "token-of-" + code}
	c.Key = e.admin("POST", "/api/clients", map[string]any{"clientCode": code, "name": code}).want(201).get("apiKey").(string)
	e.admin("PUT", "/api/clients/"+code+"/secrets/whatsapp", map[string]any{"wabaId": waba, "phoneNumberIds": numbers, "accessToken": c.Token}).want(200)
	return c
}

// seedSent stores a message that was sent and is known by its wamid.
func seedSent(t *testing.T, tn *tenant.Tenant, number, wamid string, to crm.Who) *chat.Message {
	t.Helper()
	ctx := context.Background()
	book := &crm.Book{Now: time.Now}
	c, moves, changed, err := book.Contact(ctx, tn, to, "seed"+wamid)
	if err != nil {
		t.Fatal(err)
	}
	if changed {
		moves = append(moves, crm.Contacts.Update(c))
	}
	text := "Hello"
	m := &chat.Message{
		ID: "msg_seed_" + number + wamid, WAMID: wamid, ConversationID: "cnv_seed_" + c.ID, ContactID: c.ID, PhoneNumberID: number, Direction: chat.Out,
		Type: "text", Text: &text, Status: "accepted", StatusAt: map[string]time.Time{}, CreatedAt: time.Now(), Send: &chat.Send{State: "accepted"},
	}
	if err := tn.DB.Commit(ctx, append(moves, chat.Messages.Insert(m))...); err != nil {
		t.Fatal(err)
	}
	return m
}

// rows reads a whole kind.
func rows[T any](t *testing.T, tn *tenant.Tenant, k store.Kind[T], where ...store.Term) []*T {
	t.Helper()
	out, err := k.Find(context.Background(), tn.DB, store.Query{Where: where, Limit: store.MaxLimit})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// snapshot is everything in a client's database, with versions: equal snapshots mean that nothing was written.
func snapshot(t *testing.T, tn *tenant.Tenant) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, s := range app.TenantSchemas() {
		recs, err := tn.DB.Find(context.Background(), store.Query{Kind: s.Kind, Limit: store.MaxLimit})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			out[s.Kind+" "+r.ID] = fmt.Sprintf("%d %s", r.Version, r.Doc)
		}
	}
	return out
}

// effectsOf gives the messages of a body that change another one, by wamid, with that one's.
func effectsOf(t *testing.T, body []byte) (effects map[string]string, history []string) {
	t.Helper()
	effects = map[string]string{}
	var walk func(v any)
	walk = func(v any) {
		switch x := v.(type) {
		case map[string]any:
			if id, ok := x["id"].(string); ok {
				for typ, key := range map[string]string{"reaction": "message_id", "edit": "original_message_id", "revoke": "original_message_id"} {
					if o, ok := x[typ].(map[string]any); ok {
						effects[id] = o[key].(string)
					}
				}
				if _, ok := x["history_context"]; ok {
					history = append(history, id)
				}
			}
			for _, e := range x {
				walk(e)
			}
		case []any:
			for _, e := range x {
				walk(e)
			}
		}
	}
	var v any
	_ = json.Unmarshal(body, &v) // one of them is cut short
	walk(v)
	return effects, history
}

// Every golden body, as it is and signed as it was, goes in once and then once more: the exact bytes are kept, each item
// is with its client as often as the index says, and the second time changes nothing.
func TestGoldenWebhooks(t *testing.T) {
	g := loadGolden(t)
	e := start(t, t.TempDir(), newMeta(t), func(c *app.Config) { c.MetaAppSecret = g.AppSecret })
	clients := map[string]*client{
		"GOLD":   e.addHolder("GOLD", "200000000000001", "300000000000001", "300000000000002"),
		"SILVER": e.addHolder("SILVER", "200000000000009", "300000000000009"),
	}
	ofNumber := map[string]string{"300000000000001": "GOLD", "300000000000002": "GOLD", "300000000000009": "SILVER"}
	ofWABA := map[string]string{"200000000000001": "GOLD", "200000000000009": "SILVER", "294948270000000": "SILVER"} // the last is a partner's, for an account of SILVER
	if len(g.Files) != 111 || len(g.Known) != 3 {
		t.Fatalf("%d files, %d numbers", len(g.Files), len(g.Known))
	}
	tn := map[string]*tenant.Tenant{}
	for code := range clients {
		tn[code] = e.use(t, code)
	}

	// what the statuses speak of was sent, but for one message, whose statuses come too early
	const early = "batch_statuses_three.json"
	key := func(number, wamid string) string { return number + "|" + wamid }
	seeded, known := map[string]*chat.Message{}, map[string]bool{}
	for _, f := range g.Files {
		for _, it := range f.Items {
			if it.Kind != "status" || it.Status == "captured" || f.File == early || seeded[key(it.Number, it.ID)] != nil {
				continue
			}
			to := crm.Who{WaID: it.To, UserID: it.ToUser}
			if it.To != "" && !strings.Contains(it.To, "=") && len(it.To) < 20 {
				to.Phone = "+" + it.To
			} else {
				to.WaID, to.UserID = "", "XX.group-member"
			}
			if it.ToUser != "" {
				to.UserID = it.ToUser
			}
			seeded[key(it.Number, it.ID)] = seedSent(t, tn[ofNumber[it.Number]], it.Number, it.ID, to)
			known[key(it.Number, it.ID)] = true
		}
	}
	rank := map[string]int{"accepted": 1, "sent": 2, "failed": 3, "delivered": 4, "read": 5, "played": 6}
	best := map[string]string{}

	for _, f := range g.Files {
		t.Run(strings.TrimSuffix(f.File, ".json"), func(t *testing.T) {
			body := g.bodies[f.File]
			effects, history := effectsOf(t, body)
			wantState, wantClients := store.Settled, []string{}
			wantRows, wantNotes, wantEarly := map[string]int{}, map[string]int{}, map[string]int{}
			counts := map[string]int{}
			for _, it := range f.Items {
				counts[it.Kind]++
				code := ofNumber[it.Number]
				if it.Number == "" {
					code = ofWABA[f.WABAs[0]]
				}
				if code == "" {
					wantState = store.Unresolved
					continue
				}
				if !slices.Contains(wantClients, code) {
					wantClients = append(wantClients, code)
				}
				add := func(number, id string) {
					if k := key(number, id); !known[k] {
						known[k] = true
						wantRows[code]++
					}
				}
				switch it.Kind {
				case "message", "echo":
					if target, ok := effects[it.ID]; ok && known[key(it.Number, target)] {
						continue // it changes its target
					}
					add(it.Number, it.ID)
				case "history_chunk":
					for _, id := range history {
						add(it.Number, id)
					}
					wantNotes[code]++
				case "status":
					k := key(it.Number, it.ID)
					switch {
					case it.Status == "captured":
						wantNotes[code]++
					case seeded[k] == nil:
						wantEarly[code]++
					default:
						if rank[it.Status] > rank[best[k]] {
							best[k] = it.Status
						}
					}
				default:
					wantNotes[code]++
				}
			}
			if !f.Valid {
				wantState = store.Failed
			}
			for kind, n := range f.Counts {
				if counts[kind] != n {
					t.Fatalf("the index contradicts itself: %d of %s, %d items", n, kind, counts[kind])
				}
			}
			before := map[string][3]int{}
			count := func(code string) [3]int {
				early := 0
				for _, e := range rows(t, tn[code], chat.EarlyStatuses) {
					early += len(e.Items)
				}
				return [3]int{len(rows(t, tn[code], chat.Messages)), len(rows(t, tn[code], chat.Notes)), early}
			}
			for code := range clients {
				before[code] = count(code)
			}

			d := e.deliver(t, body, f.Signature)
			if !bytes.Equal(d.Body, body) {
				t.Errorf("%d bytes came, the inbox has %d others", len(body), len(d.Body))
			}
			slices.Sort(wantClients)
			if d.State != wantState || !slices.Equal(append([]string{}, d.Clients...), wantClients) {
				t.Errorf("the delivery is %s of %v (%s), want %s of %v", d.State, d.Clients, d.Error, wantState, wantClients)
			}
			for code := range clients {
				now := count(code)
				for i, want := range []int{wantRows[code], wantNotes[code], wantEarly[code]} {
					if got := now[i] - before[code][i]; got != want {
						t.Errorf("%s: %d more %s, want %d", code, got, []string{"messages", "notes", "early statuses"}[i], want)
					}
				}
			}
			for _, it := range f.Items {
				k := key(it.Number, it.ID)
				if it.Kind != "status" || seeded[k] == nil {
					continue
				}
				m, err := chat.Messages.Get(context.Background(), tn[ofNumber[it.Number]].DB, seeded[k].ID)
				if err != nil {
					t.Fatal(err)
				}
				if m.Status != best[k] {
					t.Errorf("after %s the message is %s, want %s", it.Status, m.Status, best[k])
				}
				if _, ok := m.StatusAt[it.Status]; !ok {
					t.Errorf("the message does not know when it was %s: %v", it.Status, m.StatusAt)
				}
				if _, ok := m.StatusAt["delivered"]; it.Status == "read" && !ok {
					t.Error("read does not imply delivered")
				}
			}
		})
	}

	t.Run("again", func(t *testing.T) {
		before := map[string]map[string]string{}
		for code := range clients {
			before[code] = snapshot(t, tn[code])
		}
		for _, f := range g.Files {
			e.deliver(t, g.bodies[f.File], f.Signature)
		}
		for code := range clients {
			for id, doc := range snapshot(t, tn[code]) {
				if old := before[code][id]; old != doc {
					t.Errorf("told again, %s of %s changed:\n- %s\n+ %s", id, code, short(old), short(doc))
				}
			}
		}
	})

	t.Run("people", func(t *testing.T) {
		for code := range clients {
			holders := map[string]string{}
			for _, c := range rows(t, tn[code], crm.Contacts) {
				for _, identity := range c.Identities {
					if other, taken := holders[identity]; taken {
						t.Errorf("%s: %s belongs to %s and %s", code, identity, other, c.ID)
					}
					holders[identity] = c.ID
				}
				if c.Phone != "" && !c.Has(crm.Tel(c.Phone)) || c.UserID != "" && !c.Has(crm.BSUID(c.UserID)) {
					t.Errorf("%s: %+v shows what is not its own", code, c)
				}
			}
			for _, identity := range []string{"tel:+447700900123", "bsuid:GB.90210000000000000123"} {
				if holders[identity] == "" {
					t.Errorf("%s: nobody is %s", code, identity)
				}
			}
			if a, b := holders["tel:+447700900123"], holders["bsuid:GB.90210000000000000123"]; a != b {
				t.Errorf("%s: one person is two contacts, %s and %s", code, a, b)
			}
		}
	})
}

// fixtures plays golden bodies to fresh clients: their numbers and accounts are put in the place of those in the bodies.
type fixtures struct {
	*engine
	*golden
	t *testing.T
	n int
}

// fresh registers another client.
func (x *fixtures) fresh() *client {
	x.t.Helper()
	x.n++
	return x.addHolder(fmt.Sprintf("FRESH%d", x.n), fmt.Sprintf("2100000000000%02d", x.n), fmt.Sprintf("3100000000000%02d", x.n))
}

// body gives a golden body as one of a client's; swap changes further texts, in pairs.
func (x *fixtures) body(c *client, file string, swap ...string) []byte {
	x.t.Helper()
	b, ok := x.bodies[file+".json"]
	if !ok {
		x.t.Fatalf("no golden body %s", file)
	}
	for i := 0; i+1 < len(swap); i += 2 {
		if !bytes.Contains(b, []byte(swap[i])) {
			x.t.Fatalf("%s does not hold %s", file, swap[i])
		}
	}
	return []byte(strings.NewReplacer(append(swap, "300000000000001", c.Number, "300000000000009", c.Number, "200000000000001", c.WABA, "200000000000009", c.WABA)...).Replace(string(b)))
}

// play posts golden bodies to a client, one after the other.
func (x *fixtures) play(c *client, files ...string) {
	x.t.Helper()
	for _, f := range files {
		x.post(x.body(c, f))
	}
}

func (x *fixtures) post(body []byte) store.Delivery {
	x.t.Helper()
	return x.deliver(x.t, body, whatsapptest.Sign(x.AppSecret, body))
}

// talk is the only conversation of a client, its contact, and its messages, the oldest first.
func (x *fixtures) talk(c *client) (conversation, contact *answer, messages []map[string]any) {
	x.t.Helper()
	list := c.call("GET", "/api/whatsapp/conversations", nil).want(200)
	if list.get("items.0") == nil || list.get("items.1") != nil {
		x.t.Fatalf("not one conversation: %s", list.Body)
	}
	conversation = c.call("GET", "/api/whatsapp/conversations/"+list.get("items.0.id").(string), nil).want(200)
	contact = c.call("GET", "/api/crm/contacts/"+conversation.get("contactId").(string), nil).want(200)
	messages = c.all("/api/whatsapp/conversations/" + conversation.get("id").(string) + "/messages")
	slices.Reverse(messages)
	return conversation, contact, messages
}

// dig reads a value out of decoded JSON: "content.latitude".
func dig(v any, path string) any {
	for _, p := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

// want compares values of decoded JSON, in pairs of path and value.
func want(t *testing.T, what string, v any, pairs ...any) {
	t.Helper()
	if a, ok := v.(*answer); ok {
		var x any
		a.into(&x)
		v = x
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if got := dig(v, pairs[i].(string)); got != pairs[i+1] {
			t.Errorf("%s: %s is %v, want %v", what, pairs[i], got, pairs[i+1])
		}
	}
}

// What the golden bodies mean, beyond their counts.
func TestGoldenMeaning(t *testing.T) {
	g := loadGolden(t)
	e := start(t, t.TempDir(), newMeta(t), func(c *app.Config) { c.MetaAppSecret = g.AppSecret })
	n := 0
	play := func(name string, f func(t *testing.T, x *fixtures, c *client)) {
		t.Run(name, func(t *testing.T) {
			x := &fixtures{engine: e, golden: g, t: t, n: n}
			c := x.fresh()
			f(t, x, c)
			n = x.n
		})
	}
	const (
		ana, anaUser = "12025550143", "US.90210000000000000143"
		ben, benUser = "447700900123", "GB.90210000000000000123"
	)

	play("text is what was written", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "text_unicode_wire")
		_, _, ms := x.talk(c)
		want(t, "message", ms[0], "text", "äöå café 👍🏽 👨‍👩‍👧‍👦 שלום \u200f مرحبا https://example.com/a/b?x=1&y=<2>", "direction", "in", "status", "received", "type", "text")
	})

	play("a hidden phone", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "text_username_no_phone")
		cv, ct, _ := x.talk(c)
		want(t, "conversation", cv, "phone", nil)
		want(t, "contact", ct, "phone", nil, "waId", nil, "userId", benUser, "username", "benmadeup")
		x.play(c, "text_username_with_phone") // Meta shows it later: the same person
		cv, again, ms := x.talk(c)
		want(t, "contact", again, "id", ct.get("id"), "phone", "+"+ben, "waId", ben)
		want(t, "conversation", cv, "phone", "+"+ben, "unread", 2.0)
		if len(ms) != 2 {
			t.Errorf("%d messages", len(ms))
		}
	})

	play("a phone asked for", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "text_username_no_phone", "contacts_request_contact_info")
		cv, ct, ms := x.talk(c)
		want(t, "contact", ct, "phone", "+"+ben, "waId", ben, "userId", benUser)
		want(t, "conversation", cv, "phone", "+"+ben)
		if len(ms) != 2 {
			t.Errorf("%d messages", len(ms))
		}
	})

	play("a phone asked for belongs to a lead who said stop", func(t *testing.T, x *fixtures, c *client) {
		x.meta.AddAccount(whatsapptest.Account{WABAID: c.WABA, Token: c.Token, Numbers: []whatsapptest.Number{{ID: c.Number}}}) // its lines do not rest
		c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "Hi", "trigger": "custom.hi", "enabled": true, "reenrol": "every_event",
			"actions": []map[string]any{{"type": "whatsapp.text", "text": "Hi"}}}).want(201)
		lead := c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "custom.hi", "phone": ben, "createLeadIfMissing": true}).want(202).get("leadId").(string)
		x.post(x.body(c, "text_opt_out_stop", `"user_id": "`+anaUser+`"`, `"user_id": ""`, `"from_user_id": "`+anaUser+`",`, "", ana, ben)) // before user ids came
		x.play(c, "text_username_no_phone", "contacts_request_contact_info")
		tn := x.use(t, c.Code)
		var person *crm.Contact
		for _, p := range rows(t, tn, crm.Contacts) {
			if p.Has("bsuid:" + benUser) {
				person = p
			}
		}
		was := c.call("GET", "/api/crm/leads/"+lead, nil).want(200).get("contactId").(string)
		want(t, "the lead's contact", c.call("GET", "/api/crm/contacts/"+was, nil).want(200), "userId", benUser, "phone", "+"+ben)
		if person == nil || person.Phone != "+"+ben || person.LeadID != lead || person.OptedOutAt == nil {
			t.Errorf("merged: %+v", person)
		}
		a := c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "custom.hi", "phone": ben}).want(202)
		if a.get("leadId") != lead {
			t.Errorf("the lead is lost: %s", a.Body)
		}
		eventually(t, "the run ends", func() string {
			run := c.call("GET", "/api/crm/automations/runs/"+a.get("runs.0.runId").(string), nil).want(200)
			if run.get("state") != "failed" || run.get("error.code") != "opted_out" {
				return string(run.Body)
			}
			return ""
		})
	})

	play("a card of somebody else", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "contacts_one")
		_, ct, ms := x.talk(c)
		want(t, "contact", ct, "phone", "+"+ana)
		want(t, "message", ms[0], "type", "contacts", "text", nil)
	})

	for file, by := range map[string]string{"text_opt_out_stop": "keyword", "button_unsubscribe": "button", "user_preferences_stop": "preference"} {
		play("opt-out by "+by, func(t *testing.T, x *fixtures, c *client) {
			x.play(c, "text_basic", file)
			_, ct, _ := x.talk(c)
			want(t, "contact", ct, "optOutBy", by)
			if ct.get("optedOutAt") == nil {
				t.Error("not opted out")
			}
		})
	}

	play("opt-out by a refused message", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "text_username_with_phone", "status_failed_131050_opt_out") // of a message we do not know
		_, ct, _ := x.talk(c)
		want(t, "contact", ct, "optOutBy", "provider")
	})

	play("the last word counts", func(t *testing.T, x *fixtures, c *client) {
		tn := x.use(t, c.Code)
		out := func() bool {
			t.Helper()
			cs := rows(t, tn, crm.Contacts)
			if len(cs) != 1 {
				t.Fatalf("%d contacts", len(cs))
			}
			return cs[0].OptedOutAt != nil
		}
		x.play(c, "user_preferences_stop")
		if !out() {
			t.Error("stop did not opt out")
		}
		x.play(c, "user_preferences_resume")
		if out() {
			t.Error("resume did not opt in")
		}
		x.play(c, "user_preferences_stop") // late, and older
		if out() {
			t.Error("an older word opted out")
		}
		x.play(c, "text_opt_out_stop", "user_preferences_resume")
		if !out() {
			t.Error("an older word opted in")
		}
		x.play(c, "user_preferences_bsuid_only")
		if n := len(rows(t, tn, crm.Contacts)); n != 2 {
			t.Errorf("%d contacts after somebody without a phone said stop", n)
		}
	})

	play("reactions come and go", func(t *testing.T, x *fixtures, c *client) {
		const target = "wamid.HBgLMTIwMjU1NTAxNDMVAgARGBI4NUFCMEZDOERBRThEQ0NBM0QA"
		tn := x.use(t, c.Code)
		x.play(c, "reaction_add")
		_, _, ms := x.talk(c)
		want(t, "reaction to a message we do not know", ms[0], "type", "reaction", "content.emoji", "👍")
		m := seedSent(t, tn, c.Number, target, crm.Who{UserID: anaUser, Phone: "+" + ana, WaID: ana})
		reactions := func() map[string]string {
			t.Helper()
			m, err := chat.Messages.Get(context.Background(), tn.DB, m.ID)
			if err != nil {
				t.Fatal(err)
			}
			return m.Reactions
		}
		x.play(c, "reaction_add")
		if r := reactions(); r[anaUser] != "👍" {
			t.Errorf("reactions %v", r)
		}
		x.play(c, "reaction_remove")
		x.play(c, "reaction_add") // Meta repeats itself
		if r := reactions(); len(r) != 0 {
			t.Errorf("a reaction that was taken back is there: %v", r)
		}
	})

	play("an effect before its message", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "edit_text", "revoke")
		cv, _, ms := x.talk(c)
		want(t, "conversation", cv, "unread", 0.0, "windowExpiresAt", nil)
		if len(ms) != 2 {
			t.Fatalf("%d rows", len(ms))
		}
		x.play(c, "text_basic")
		_, _, ms = x.talk(c)
		if len(ms) != 1 {
			t.Fatalf("%d messages: the rows of the edit and the revocation stay", len(ms))
		}
		want(t, "message", ms[0], "text", "Does it come in blue?", "type", "text")
		if ms[0]["editedAt"] == nil || ms[0]["revokedAt"] == nil {
			t.Errorf("message %v", ms[0])
		}
	})

	play("an edit and a revocation", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "text_basic", "edit_text", "edit_text")
		cv, _, ms := x.talk(c)
		want(t, "conversation", cv, "unread", 1.0)
		want(t, "message", ms[0], "text", "Does it come in blue?", "replyTo", nil, "revokedAt", nil)
		x.play(c, "revoke", "edit_text")
		_, _, ms = x.talk(c)
		if len(ms) != 1 || ms[0]["revokedAt"] == nil {
			t.Errorf("messages %v", ms)
		}
	})

	play("a new number", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "text_basic")
		_, before, _ := x.talk(c)
		x.play(c, "system_user_changed_number")
		cv, ct, ms := x.talk(c)
		want(t, "contact", ct, "id", before.get("id"), "phone", "+12025550199", "waId", "12025550199", "userId", "US.90210000000000000199")
		want(t, "conversation", cv, "phone", "+12025550199", "unread", 2.0)
		want(t, "message", ms[1], "type", "system", "text", "User Ana Fictiva changed from 12025550143 to 12025550199")
		tn := x.use(t, c.Code)
		state := snapshot(t, tn)
		x.play(c, "text_basic", "system_user_changed_number") // Meta repeats itself
		for id, doc := range snapshot(t, tn) {
			if state[id] != doc {
				t.Errorf("told again, %s is %s", id, short(doc))
			}
		}
		x.post(x.body(c, "text_reply", ana, "12025550199", anaUser, "US.90210000000000000199"))
		if _, _, ms = x.talk(c); len(ms) != 3 {
			t.Errorf("%d messages", len(ms))
		}
		// whoever has the old number now is somebody else
		x.play(c, "text_forwarded")
		if n := len(c.all("/api/whatsapp/conversations")); n != 2 {
			t.Errorf("%d conversations", n)
		}
	})

	play("a new user id", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "text_username_no_phone", "system_user_changed_user_id")
		_, ct, ms := x.talk(c)
		want(t, "contact", ct, "phone", nil, "userId", "GB.90210000000000000777")
		if len(ms) != 2 {
			t.Errorf("%d messages", len(ms))
		}
	})

	play("a new number of somebody we know under both", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "text_basic")
		x.post(x.body(c, "text_reply", ana, "12025550199", anaUser, "US.90210000000000000199")) // overtakes the news
		x.play(c, "system_user_changed_number")
		tn := x.use(t, c.Code)
		var people, merged int
		for _, p := range rows(t, tn, crm.Contacts) {
			if p.MergedInto != "" {
				merged++
			} else {
				people++
				if p.Phone != "+12025550199" || len(p.Identities) != 2 {
					t.Errorf("contact %+v", p)
				}
			}
		}
		if people != 1 || merged != 1 {
			t.Errorf("%d people, %d merged", people, merged)
		}
	})

	play("a number that changed hands", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "text_basic", "text_opt_out_stop")
		x.post(x.body(c, "text_reply", anaUser, "US.90210000000000000555"))
		tn := x.use(t, c.Code)
		for _, p := range rows(t, tn, crm.Contacts) {
			switch p.UserID {
			case anaUser:
				if p.Phone != "" || p.WaID != "" || p.MergedInto != "" {
					t.Errorf("the first holder: %+v", p)
				}
			case "US.90210000000000000555":
				if p.Phone != "+"+ana || p.OptedOutAt == nil {
					t.Errorf("the holder now: %+v", p)
				}
			default:
				t.Errorf("somebody: %+v", p)
			}
		}
	})

	play("an answer from the phone app", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "smb_message_echo_text", "smb_message_echo_text")
		cv, ct, ms := x.talk(c)
		want(t, "conversation", cv, "unread", 0.0, "windowExpiresAt", nil)
		want(t, "contact", ct, "phone", "+"+ana)
		want(t, "message", ms[0], "direction", "out", "status", "sent", "text", "Here is the info you requested! https://example.com/x")
		if len(ms) != 1 || cv.get("lastMessageAt") != ms[0]["createdAt"] {
			t.Errorf("%d messages, last at %v, this one at %v", len(ms), cv.get("lastMessageAt"), ms[0]["createdAt"])
		}
	})

	play("history is silent", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "history_chunk", "history_media", "history_declined")
		tn := x.use(t, c.Code)
		for _, cv := range rows(t, tn, chat.Conversations) {
			if cv.Unread != 0 || cv.WindowExpiresAt != nil || cv.LastMessageAt.Year() != 2026 {
				t.Errorf("conversation %+v", cv)
			}
		}
		if n := len(rows(t, tn, chat.Messages)); n != 4 {
			t.Errorf("%d messages", n)
		}
		for id := range snapshot(t, tn) {
			if strings.HasPrefix(id, "news ") {
				t.Errorf("history is told as %s", id)
			}
		}
		last := map[string]time.Time{}
		for _, m := range rows(t, tn, chat.Messages) {
			if m.CreatedAt.After(last[m.ConversationID]) {
				last[m.ConversationID] = m.CreatedAt
			}
		}
		for _, cv := range rows(t, tn, chat.Conversations) {
			if !cv.LastMessageAt.Equal(last[cv.ID]) {
				t.Errorf("last message at %s, conversation says %s", last[cv.ID], cv.LastMessageAt)
			}
		}
	})

	play("each to its own client", func(t *testing.T, x *fixtures, c *client) {
		other := x.fresh()
		x.post([]byte(strings.NewReplacer("300000000000001", c.Number, "200000000000001", c.WABA, "300000000000009", other.Number, "200000000000009", other.WABA).
			Replace(string(x.bodies["batch_two_wabas.json"]))))
		_, ct, ms := x.talk(c)
		want(t, "contact", ct, "phone", "+"+ana)
		_, ct2, ms2 := x.talk(other)
		want(t, "contact", ct2, "phone", "+"+ben)
		if len(ms) != 1 || len(ms2) != 1 || ms[0]["wamid"] == ms2[0]["wamid"] {
			t.Errorf("messages %v and %v", ms, ms2)
		}
		other.call("GET", "/api/crm/contacts/"+ct.get("id").(string), nil).want(404)
	})

	play("nobody's number", func(t *testing.T, x *fixtures, c *client) {
		const stray = "399999999999999"
		d := x.post(x.body(c, "batch_unknown_number"))
		if d.State != store.Unresolved || !slices.Equal(d.Clients, []string{c.Code}) {
			t.Fatalf("delivery %s of %v", d.State, d.Clients)
		}
		if _, _, ms := x.talk(c); len(ms) != 1 {
			t.Errorf("%d messages", len(ms))
		}
		late := x.addHolder("LATE", "299999999999999", stray)
		x.admin("POST", "/api/admin/deliveries/replay", map[string]any{"ids": []string{d.ID}}).want(200)
		eventually(t, "the delivery is sorted again", func() string {
			d, err := x.app.Inbox.Delivery(context.Background(), d.ID)
			if err != nil || d.State != store.Settled {
				return fmt.Sprint(d.State, err)
			}
			return ""
		})
		if _, _, ms := x.talk(late); len(ms) != 1 {
			t.Errorf("%d messages with the new holder", len(ms))
		}
		if _, _, ms := x.talk(c); len(ms) != 1 {
			t.Errorf("%d messages with the neighbour", len(ms))
		}
	})

	play("a broken neighbour", func(t *testing.T, x *fixtures, c *client) {
		d := x.post(x.body(c, "text_basic", `"messages": [`, `"messages": [ 5, {"id": 7, "type": [], "from": {}}, {"type":"text"}, `))
		if d.State != store.Failed {
			t.Errorf("delivery %s", d.State)
		}
		if _, _, ms := x.talk(c); len(ms) != 1 || ms[0]["type"] != "text" {
			t.Errorf("messages %v", ms)
		}
	})

	play("twice in one body", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "batch_duplicate_inside")
		cv, _, ms := x.talk(c)
		want(t, "conversation", cv, "unread", 1.0)
		if len(ms) != 1 {
			t.Errorf("%d messages", len(ms))
		}
	})

	play("one wamid at two numbers", func(t *testing.T, x *fixtures, c *client) {
		other := x.fresh()
		x.play(c, "text_basic")
		x.play(other, "text_basic")
		if _, _, ms := x.talk(c); len(ms) != 1 {
			t.Errorf("%d messages", len(ms))
		}
		if _, _, ms := x.talk(other); len(ms) != 1 {
			t.Errorf("%d messages", len(ms))
		}
	})

	play("contacts are matched by who they are", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "batch_two_messages_one_value")
		names := map[any]any{}
		for _, cv := range c.all("/api/whatsapp/conversations") {
			names[cv["phone"]] = cv["name"]
		}
		if len(names) != 2 || names["+"+ana] != "Ana Fictiva" || names["+"+ben] != "Ben Madeup" {
			t.Errorf("names %v", names)
		}
	})

	play("what nobody has seen yet", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "unknown_type_future", "request_welcome", "unsupported_131051", "location_zero", "interactive_nfm_reply_flow", "text_extra_unknown_keys", "text_forwarded", "text_reply")
		all := map[any]map[string]any{}
		for _, cv := range c.all("/api/whatsapp/conversations") {
			for _, m := range c.all("/api/whatsapp/conversations/" + cv["id"].(string) + "/messages") {
				all[m["type"]] = m
				if m["type"] == "text" && m["replyTo"] != nil {
					all["reply"] = m
				}
			}
		}
		if all["hologram"] == nil || all["hologram"]["content"] == nil {
			t.Errorf("hologram: %v", all["hologram"])
		}
		if all["request_welcome"] == nil {
			t.Error("no request_welcome")
		}
		want(t, "unsupported", all["unsupported"], "error.code", "131051")
		want(t, "location", all["location"], "content.latitude", 0.0, "content.longitude", 0.0)
		if s, _ := dig(all["interactive"], "content.nfm_reply.response_json").(string); !strings.Contains(s, "{") {
			t.Errorf("flow: %v", all["interactive"])
		}
		if all["reply"] == nil || !strings.HasPrefix(fmt.Sprint(all["reply"]["replyTo"]), "wamid.") {
			t.Errorf("reply: %v", all["reply"])
		}
	})

	play("windows", func(t *testing.T, x *fixtures, c *client) {
		x.play(c, "group_text", "system_identity_changed")
		for _, cv := range c.all("/api/whatsapp/conversations") {
			if cv["windowExpiresAt"] != nil {
				t.Errorf("a group, or a note of the chat, opened a window: %v", cv)
			}
		}
		x.play(c, "text_basic")
		open := 0
		for _, cv := range c.all("/api/whatsapp/conversations") {
			if cv["windowExpiresAt"] != nil {
				open++
			}
		}
		if open != 1 {
			t.Errorf("%d windows are open after a message", open)
		}
	})

	play("statuses rise", func(t *testing.T, x *fixtures, c *client) {
		tn := x.use(t, c.Code)
		to := crm.Who{UserID: benUser, Phone: "+" + ben, WaID: ben}
		var ids []string
		for _, file := range []string{"status_out_of_order", "status_read_only"} {
			b, err := whatsapp.ParseWebhook(x.bodies[file+".json"])
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, seedSent(t, tn, c.Number, b.Items[0].Status.ID, to).ID)
			x.play(c, file)
		}
		for _, id := range ids {
			m, err := chat.Messages.Get(context.Background(), tn.DB, id)
			if err != nil {
				t.Fatal(err)
			}
			if m.Status != "read" || m.StatusAt["delivered"].IsZero() || m.StatusAt["read"].IsZero() {
				t.Errorf("%s: %v", m.Status, m.StatusAt)
			}
		}
	})
}
