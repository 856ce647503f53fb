package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

const ana = "12025550143"

// writes lets a customer write, which opens their window, and gives the conversation and the message.
func (c *client) writes(from, text string) (conversation, message string) {
	c.e.t.Helper()
	c.e.webhook(whatsapptest.Batch(c.e.meta.InboundText(c.Number, from, "Ana", text))).want(200)
	eventually(c.e.t, "the message is stored", func() string {
		list := c.call("GET", "/api/whatsapp/conversations?q="+from, nil).want(200)
		conversation, _ = list.get("items.0.id").(string)
		if conversation == "" {
			return string(list.Body)
		}
		msgs := c.call("GET", "/api/whatsapp/conversations/"+conversation+"/messages", nil).want(200)
		if msgs.get("items.0.text") != text {
			return string(msgs.Body)
		}
		message = msgs.get("items.0.id").(string)
		return ""
	})
	return conversation, message
}

// reaches waits for a message, by its id, at Meta.
func (c *client) reaches(id any) whatsapptest.Accepted {
	c.e.t.Helper()
	var got whatsapptest.Accepted
	err := c.e.meta.Wait(within(15*time.Second), func() bool {
		for _, a := range c.e.meta.Accepted() {
			if a.BizOpaque == id {
				got = a
				return true
			}
		}
		return false
	})
	if err != nil {
		c.e.t.Fatalf("%v never reached Meta: %s", id, c.call("GET", fmt.Sprintf("/api/whatsapp/messages/%v", id), nil).Body)
	}
	return got
}

// has waits until a message shows a status.
func (c *client) has(id any, status string) *answer {
	c.e.t.Helper()
	var a *answer
	eventually(c.e.t, "the message is "+status, func() string {
		if a = c.call("GET", fmt.Sprintf("/api/whatsapp/messages/%v", id), nil); a.Status != 200 || a.get("status") != status {
			return string(a.Body)
		}
		return ""
	})
	return a
}

func to(who string, m map[string]any) map[string]any {
	m["to"] = who
	return m
}

// Every type of message reaches Meta in Graph's shape, and its receipts raise its status.
func TestSendEveryType(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	conversation, first := c.writes(ana, "Hello?")
	wamid := c.call("GET", "/api/whatsapp/messages/"+first, nil).want(200).get("wamid")
	const link = "https://files.example/a"
	for _, m := range []struct {
		typ          string
		object, sent any // sent nil: the object
		text         any
	}{
		{"text", "See you on Monday", map[string]any{"preview_url": false, "body": "See you on Monday"}, "See you on Monday"},
		{"text", map[string]any{"body": "https://x.example", "preview_url": true}, nil, "https://x.example"},
		{"image", map[string]any{"link": link, "caption": "Our door"}, nil, "Our door"},
		{"video", map[string]any{"link": link}, nil, nil},
		{"audio", map[string]any{"link": link}, nil, nil},
		{"document", map[string]any{"link": link, "filename": "bill.pdf", "caption": "The bill"}, nil, "The bill"},
		{"sticker", map[string]any{"link": link}, nil, nil},
		{"location", map[string]any{"latitude": 12.5, "longitude": -70.25, "name": "Clinic"}, nil, nil},
		{"contacts", []any{map[string]any{"name": map[string]any{"formatted_name": "Dr. Rao", "first_name": "Rao"}}}, nil, nil},
		{"interactive", map[string]any{"type": "button", "body": map[string]any{"text": "Monday?"}, "action": map[string]any{"buttons": []any{
			map[string]any{"type": "reply", "reply": map[string]any{"id": "y", "title": "Yes"}}}}}, nil, "Monday?"},
		{"template", map[string]any{"name": "appointment_confirmed", "language": map[string]any{"code": "en"}, "components": []any{
			map[string]any{"type": "body", "parameters": []any{text("Ana"), text("Dr. Rao"), text("Monday")}}}}, nil, nil},
	} {
		body := map[string]any{"conversationId": conversation, "type": m.typ, m.typ: m.object, "replyTo": first}
		a := c.call("POST", "/api/whatsapp/messages", body).want(202)
		want(t, m.typ, a, "status", "queued", "conversationId", conversation)
		got := c.reaches(a.get("id"))
		var sent map[string]any
		if err := json.Unmarshal(got.Body, &sent); err != nil {
			t.Fatal(err)
		}
		if m.sent == nil {
			m.sent = m.object
		}
		if got.To != ana || got.Type != m.typ || got.PhoneNumberID != c.Number || got.ReplyTo != wamid || asText(sent[m.typ]) != asText(m.sent) {
			t.Errorf("%s reached Meta as %s", m.typ, got.Body)
		}
		read := c.has(a.get("id"), "read")
		want(t, m.typ, read, "text", m.text, "direction", "out", "wamid", got.ID, "replyTo", wamid, "error", nil)
		for _, s := range []string{"queued", "sent", "delivered", "read"} {
			if read.get("statusAt."+s) == nil {
				t.Errorf("%s: no time of %s: %s", m.typ, s, read.Body)
			}
		}
	}
	// by phone number in another spelling it is the same conversation
	a := c.call("POST", "/api/whatsapp/messages", to("+1 (202) 555-0143", map[string]any{"type": "text", "text": "x"})).want(202)
	want(t, "by phone", a, "conversationId", conversation)
	c.reaches(a.get("id"))
	if d := meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	for _, secret := range []string{"See you on Monday", ana, "Our door"} {
		if strings.Contains(e.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func text(s string) map[string]any { return map[string]any{"type": "text", "text": s} }

func asText(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// A reaction stands on its message once Meta has it, and is no message of its own; taking it back takes it away.
func TestSendReaction(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	conversation, first := c.writes(ana, "Hello?")
	before := c.call("GET", "/api/whatsapp/conversations/"+conversation, nil).want(200)
	react := func(emoji string) {
		t.Helper()
		a := c.call("POST", "/api/whatsapp/messages", map[string]any{"conversationId": conversation, "type": "reaction",
			"reaction": map[string]any{"message_id": first, "emoji": emoji}}).want(202)
		got := c.reaches(a.get("id"))
		var sent struct {
			Reaction struct {
				MessageID string `json:"message_id"`
				Emoji     string
			}
		}
		_ = json.Unmarshal(got.Body, &sent)
		if !strings.HasPrefix(sent.Reaction.MessageID, "wamid.") || sent.Reaction.Emoji != emoji {
			t.Errorf("the reaction reached Meta as %s", got.Body)
		}
		eventually(t, "the reaction stands on its message", func() string {
			m := c.call("GET", "/api/whatsapp/messages/"+first, nil).want(200)
			if got, _ := m.get("reactions." + c.Number).(string); got != emoji {
				return string(m.Body)
			}
			return ""
		})
		c.has(a.get("id"), "read")
	}
	react("👍")
	react("")
	if n := len(c.all("/api/whatsapp/conversations/" + conversation + "/messages")); n != 1 {
		t.Errorf("the conversation lists %d messages", n)
	}
	after := c.call("GET", "/api/whatsapp/conversations/"+conversation, nil).want(200)
	want(t, "conversation", after, "lastMessageAt", before.get("lastMessageAt"))
}

// What the engine does not let out: free-form outside of the window, templates to those who want none, and what is not
// the caller's. Nothing of it leaves a job or reaches Meta.
func TestSendRefused(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	free := func() map[string]any { return map[string]any{"type": "text", "text": "Hello"} }
	template := func() map[string]any {
		return map[string]any{"type": "template", "template": map[string]any{"name": "appointment_confirmed", "language": map[string]any{"code": "en"}, "components": []any{
			map[string]any{"type": "body", "parameters": []any{text("Ana"), text("Dr. Rao"), text("Monday")}}}}}
	}
	send := func(c *client, m map[string]any) *answer { return c.call("POST", "/api/whatsapp/messages", m) }
	want(t, "no window yet", send(c, to("+12025550143", free())).problem(409, ""), "code", "whatsapp.window_closed")
	// an old message opens nothing
	e.webhook(whatsapptest.Batch(meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: c.Number, From: ana, Type: "text",
		Object: map[string]string{"body": "Long ago"}, At: time.Now().Add(-25 * time.Hour)}))).want(200)
	e.sorted(t)
	want(t, "old window", send(c, to("+12025550143", free())).problem(409, ""), "code", "whatsapp.window_closed")
	for _, j := range c.all("/api/jobs") {
		if typ := j["type"].(string); typ != "whatsapp.templates.sync" { // that one comes by itself
			t.Errorf("refused messages left a job %s", typ)
		}
	}
	conversation, first := c.writes(ana, "STOP")
	want(t, "a template to who said stop", send(c, to("+12025550143", template())).problem(409, ""), "code", "contact.opted_out")
	answer := send(c, to("+12025550143", free())).want(202) // a person may answer
	c.reaches(answer.get("id"))

	for _, m := range []map[string]any{free(), template()} {
		m["conversationId"] = conversation
		send(other, m).problem(404, "conversation.not_found")
	}
	other.call("GET", "/api/whatsapp/messages/"+first, nil).problem(404, "message.not_found")
	for _, what := range []string{"read", "typing", "assign"} {
		var body any
		if what == "assign" {
			body = map[string]any{"userId": nil}
		}
		other.call("POST", "/api/whatsapp/conversations/"+conversation+"/"+what, body).problem(404, "conversation.not_found")
	}
	strange := other.call("POST", "/api/whatsapp/messages", to("+12025550143", template())).want(202)
	c.reaches(strange.get("id"))
	ownConversation, _ := other.writes(ana, "Hi shop")
	for _, m := range []map[string]any{
		{"conversationId": ownConversation, "type": "text", "text": "x", "replyTo": first},
		{"conversationId": ownConversation, "type": "reaction", "reaction": map[string]any{"message_id": first, "emoji": "x"}},
		{"conversationId": ownConversation, "type": "text", "text": "x", "from": c.Number},
		{"to": "+12025550143", "type": "text", "text": "x", "from": c.Number},
		{"to": "+12025550143", "type": "image", "image": map[string]any{"id": "med_nobodys"}},
		{"to": "12", "type": "text", "text": "x"},
		{"to": "+12025550143", "type": "text", "text": "x", "image": map[string]any{"link": "https://x.example"}},
	} {
		if a := other.call("POST", "/api/whatsapp/messages", m); a.Status != 422 {
			t.Errorf("%v: %d %s", m, a.Status, a.Body)
		}
	}
	nobodys := other.call("POST", "/api/whatsapp/messages", map[string]any{"conversationId": ownConversation, "type": "image",
		"image": map[string]any{"id": "med_nobodys"}}).problem(422, "media.not_found")
	if nobodys.get("errors.0.pointer") != "/image/id" {
		t.Errorf("a file that is nobody's: %s", nobodys.Body)
	}
	if n := len(meta.Accepted()); n != 2 {
		t.Errorf("%d messages reached Meta", n)
	}
	e.admin("POST", "/api/clients", map[string]any{"clientCode": "BARE", "name": "Bare"}).want(201)
}

// The same Idempotency-Key is the same message, also for callers at once.
func TestSendOnce(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	conversation, _ := c.writes(ana, "Hello?")
	send := func(key, text string) *answer {
		return e.send("POST", "/api/whatsapp/messages", map[string]any{"conversationId": conversation, "type": "text", "text": text},
			map[string]string{"x-api-key": c.Key, "x-client-code": c.Code, "Idempotency-Key": key})
	}
	id := send("k1", "One").want(202).get("id")
	if again := send("k1", "One").want(202); again.get("id") != id || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("again: %s", again.Body)
	}
	send("k1", "Two").problem(409, "idempotency.mismatch")
	if other := send("k2", "One").want(202); other.get("id") == id {
		t.Error("another key is another message")
	}
	if _, err := e.meta.WaitAccepted(within(10*time.Second), 2); err != nil {
		t.Fatal(err)
	}
	if d := e.meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
}

// A file of ours is handed over to Meta before the call, under the number that sends it.
func TestSendOurFile(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	var handed []string
	var mu sync.Mutex
	e.app.Desk.MediaKnown = func(_ context.Context, _ *tenant.Tenant, id string) (*chat.Media, error) {
		switch id {
		case "med_1":
			return &chat.Media{MIME: "image/jpeg", SHA256: "ab", Size: 3, Filename: "a.jpg", Status: "stored"}, nil
		case "med_big":
			return &chat.Media{MIME: "image/jpeg", Size: 6 << 20}, nil
		}
		return nil, nil
	}
	e.app.Desk.MediaHandle = func(_ context.Context, tn *tenant.Tenant, id, number string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		handed = append(handed, tn.Code+" "+id+" "+number)
		if len(handed) == 1 {
			return "", errors.New("the bucket is away for a moment")
		}
		return meta.AddMedia(number, "image/jpeg", []byte("abc")), nil
	}
	conversation, _ := c.writes(ana, "Hello?")
	send := func(typ string, object map[string]any) *answer {
		return c.call("POST", "/api/whatsapp/messages", map[string]any{"conversationId": conversation, "type": typ, typ: object})
	}
	a := send("image", map[string]any{"id": "med_1", "caption": "Look"}).want(202)
	got := c.reaches(a.get("id"))
	if strings.Contains(string(got.Body), "med_1") {
		t.Errorf("Meta was sent our id: %s", got.Body)
	}
	read := c.has(a.get("id"), "read")
	want(t, "message", read, "media.id", "med_1", "media.mime", "image/jpeg", "media.filename", "a.jpg", "text", "Look")
	mu.Lock()
	if fmt.Sprint(handed) != fmt.Sprintf("[ACME med_1 %[1]s ACME med_1 %[1]s]", c.Number) {
		t.Errorf("handed over: %v", handed)
	}
	mu.Unlock()
	send("image", map[string]any{"id": "med_big"}).problem(422, "")
	send("audio", map[string]any{"id": "med_1"}).problem(422, "")
	// a header's file too
	a = send("interactive", map[string]any{"type": "button", "header": map[string]any{"type": "image", "image": map[string]any{"id": "med_1"}},
		"body": map[string]any{"text": "?"}, "action": map[string]any{"buttons": []any{map[string]any{"type": "reply", "reply": map[string]any{"id": "y", "title": "Yes"}}}}}).want(202)
	if got = c.reaches(a.get("id")); strings.Contains(string(got.Body), "med_1") {
		t.Errorf("Meta was sent our id: %s", got.Body)
	}
}

// A message acknowledged just before the process dies is sent once; the caller's repetition after it makes no second.
func TestCrashBetweenAnswerAndSend(t *testing.T) {
	if testing.Short() {
		t.Skip("kills the real binary")
	}
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	p := serve(t, dir, meta)
	c := p.addClient("ACME", 1)
	conversations := make([]string, 6) // of ten messages each: more to one person at once would wait for the pace of that pair
	for i := range conversations {
		conversations[i], _ = c.writes(fmt.Sprintf("1202555%04d", 143+i), "Hello?")
	}
	head := func(key string) map[string]string {
		return map[string]string{"x-api-key": c.Key, "x-client-code": c.Code, "Idempotency-Key": key}
	}
	body := func(n int) []byte {
		b, _ := json.Marshal(map[string]any{"conversationId": conversations[n%len(conversations)], "type": "text", "text": fmt.Sprintf("Message %d", n)})
		return b
	}
	const tries = 60
	ids := make([]string, tries)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for n := worker; n < tries; n += 4 {
				status, answer := try("POST", p.url+"/api/whatsapp/messages", body(n), head(fmt.Sprintf("k%d", n)))
				var a struct{ ID string }
				if status == http.StatusAccepted && json.Unmarshal(answer, &a) == nil {
					ids[n] = a.ID
				}
			}
		})
	}
	if _, err := meta.WaitAccepted(within(20*time.Second), 8); err != nil { // it is in the middle of them
		t.Fatal(err)
	}
	p.kill()
	wg.Wait()
	p = serve(t, dir, meta)
	c.e = p.engine
	meta.SetWebhook(c.WABA, p.url+"/api/whatsapp/webhook")
	acknowledged := 0
	for n := range tries {
		a := p.send("POST", "/api/whatsapp/messages", body(n), head(fmt.Sprintf("k%d", n)))
		a.want(202)
		if ids[n] != "" {
			acknowledged++
			if a.get("id") != ids[n] {
				t.Errorf("message %d was %s, repeated it is %v", n, ids[n], a.get("id"))
			}
		}
		ids[n] = a.get("id").(string)
	}
	if acknowledged == 0 || acknowledged == tries {
		t.Errorf("%d of %d were acknowledged before the kill: it was not in the middle", acknowledged, tries)
	}
	t.Logf("%d of %d acknowledged before the kill", acknowledged, tries)
	for n, id := range ids {
		if id == "" {
			continue
		}
		eventuallyIn(t, takeover, fmt.Sprintf("message %d ends", n), func() string {
			m := c.call("GET", "/api/whatsapp/messages/"+id, nil)
			if m.Status != 200 || m.get("status") == "queued" || m.get("status") == "sending" {
				return string(m.Body)
			}
			return ""
		})
	}
	if d := meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	sent := map[string]bool{}
	for _, a := range meta.Accepted() {
		sent[a.BizOpaque] = true
	}
	lost := 0
	for _, id := range ids {
		if id != "" && !sent[id] { // its call was under way when the process died
			lost++
			want(t, "a message that did not reach Meta", c.call("GET", "/api/whatsapp/messages/"+id, nil).want(200), "status", "unconfirmed")
		}
	}
	if lost > 16 {
		t.Errorf("%d messages neither sent nor under way", lost)
	}
}
