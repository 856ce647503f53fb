package app_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/socketio/sockettest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// Reading, typing, assigning, and finding conversations.
func TestConversationsAtWork(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	ear := c.listen(t, sockettest.Websocket)
	conversation, _ := c.writes(ana, "Hello?")
	_, second := c.writes(ana, "Anybody?")
	quiet, _ := c.writes("12025550144", "Bye")
	at := "/api/whatsapp/conversations/" + conversation
	list := func(query string, ids ...string) {
		t.Helper()
		var got []string
		var page struct{ Items []struct{ ID string } }
		c.call("GET", "/api/whatsapp/conversations?"+query, nil).want(200).into(&page)
		for _, i := range page.Items {
			got = append(got, i.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(ids) {
			t.Errorf("?%s lists %v, want %v", query, got, ids)
		}
	}
	list("", quiet, conversation)
	list("q=an", quiet, conversation)
	list("q=1202555014", quiet, conversation)
	list("q=ana+12025550144", quiet)
	list("q=nobody")
	want(t, "unread", c.call("GET", at, nil).want(200), "unread", 2.0)
	want(t, "read", c.call("POST", at+"/read", nil).want(200), "unread", 0.0)
	list("unread=true", quiet)
	wamid := c.call("GET", "/api/whatsapp/messages/"+second, nil).want(200).get("wamid")
	if err := meta.Wait(within(10*time.Second), func() bool { return len(meta.Reads()) == 1 }); err != nil {
		t.Fatal("Meta was not told that it was read")
	}
	if r := meta.Reads()[0]; r.MessageID != wamid || r.PhoneNumberID != c.Number || r.Typing {
		t.Errorf("told %+v", r)
	}
	want(t, "read again", c.call("POST", at+"/read", nil).want(200), "unread", 0.0)
	c.call("POST", at+"/typing", nil).want(202)
	if err := meta.Wait(within(10*time.Second), func() bool { return len(meta.Reads()) == 2 }); err != nil {
		t.Fatal("Meta was not told of the typing")
	}
	if r := meta.Reads()[1]; r.MessageID != wamid || !r.Typing {
		t.Errorf("told %+v", r)
	}
	user, stranger := c.addUser("agent@example.com", "agent"), e.addClient("BETA", 2).addUser("agent@example.com", "agent")
	for _, id := range []string{"usr_1", stranger, "a\x00b", strings.ToUpper(user), user + "x", strings.Repeat("x", 101)} {
		shows(t, id, c.call("POST", at+"/assign", map[string]any{"userId": id}).problem(422, ""), "errors.0.pointer", "/userId")
	}
	want(t, "assigned", c.call("POST", at+"/assign", map[string]any{"userId": user}).want(200), "assigneeId", user)
	list("assigneeId="+user, conversation)
	list("assigneeId=" + user + "&unread=true")
	want(t, "given back", c.call("POST", at+"/assign", map[string]any{"userId": nil}).want(200), "assigneeId", nil)
	list("assigneeId=" + user)
	c.call("POST", at+"/assign", map[string]any{}).problem(422, "")
	// a third message is unread again
	c.writes(ana, "Third")
	want(t, "unread again", c.call("GET", at, nil).want(200), "unread", 1.0)
	ear.find("conversation.updated", "conversation.unread", 0.0)
	ear.find("conversation.updated", "conversation.assigneeId", user)
}

// Meta out of reach, or refusing the token, is told for what it is, and never a 500.
func TestAccountAtMeta(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	numbers := c.call("GET", "/api/whatsapp/numbers", nil).want(200)
	if numbers.get("items.0.id") != c.Number || numbers.get("items.0.status") != "CONNECTED" || numbers.get("items.0.configured") != true {
		t.Errorf("numbers %s", numbers.Body)
	}
	want(t, "profile", c.call("PUT", "/api/whatsapp/profile", map[string]any{"about": "We mend teeth", "websites": []string{"https://x.example"}}).want(200),
		"about", "We mend teeth")
	if p := c.call("GET", "/api/whatsapp/profile", nil).want(200); p.get("about") != "We mend teeth" || p.get("websites.0") != "https://x.example" {
		t.Errorf("profile %s", p.Body)
	}
	c.call("PUT", "/api/whatsapp/profile", map[string]any{"about": strings.Repeat("x", 140)}).problem(422, "")
	c.call("PUT", "/api/whatsapp/profile", map[string]any{}).problem(422, "")
	c.call("GET", "/api/whatsapp/profile?phoneNumberId=123", nil).problem(404, "number.not_found")

	all := func(whatsapptest.Request) bool { return true }
	for _, f := range []struct {
		fault  whatsapptest.Fault
		status int
		code   string
	}{
		{whatsapptest.GatewayHTML(502), 503, "whatsapp.unavailable"},
		{whatsapptest.ResetBeforeReading(), 503, "whatsapp.unavailable"},
		{whatsapptest.GraphError(400, 4, "Application request limit reached"), 503, "whatsapp.limited"},
		{whatsapptest.EchoToken(c.Token), 409, "whatsapp.credential"},
	} {
		meta.When(-1, all, f.fault)
		for _, path := range []string{"/api/whatsapp/numbers", "/api/whatsapp/profile"} {
			a := c.call("GET", path, nil).problem(f.status, "")
			want(t, path+" with "+f.fault.Name, a, "code", f.code)
			if strings.Contains(string(a.Body), c.Token) {
				t.Errorf("the answer holds the token: %s", a.Body)
			}
		}
		meta.Behave()
	}
	key := e.admin("POST", "/api/clients", map[string]any{"clientCode": "BARE", "name": "Bare"}).want(201).get("apiKey").(string)
	bare := &client{e: e, Code: "BARE", Key: key}
	for _, path := range []string{"/api/whatsapp/numbers", "/api/whatsapp/profile"} {
		bare.call("GET", path, nil).problem(409, "whatsapp.not_configured")
	}
	bare.call("POST", "/api/whatsapp/templates/sync", nil).problem(409, "whatsapp.not_configured")
	bare.call("POST", "/api/whatsapp/messages", to("+12025550143", map[string]any{"type": "text", "text": "x"})).problem(409, "whatsapp.not_configured")
	if strings.Contains(e.log.String(), c.Token) {
		t.Error("the log holds the token")
	}
}

// A client's own words opt out and in; the product's do not then.
func TestOwnOptOutWords(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	e.admin("PATCH", "/api/clients/ACME", map[string]any{"settings": map[string]any{"optOutWords": []string{"Parar"}, "optInWords": []string{"volver"}}}).want(200)
	optedOut := func() any {
		cv := c.call("GET", "/api/whatsapp/conversations", nil).want(200).get("items.0.contactId")
		return c.call("GET", fmt.Sprintf("/api/crm/contacts/%v", cv), nil).want(200).get("optedOutAt")
	}
	for _, word := range []struct {
		text string
		out  bool
	}{{"STOP", false}, {"parar ya", false}, {" PARAR ", true}, {"START", true}} {
		e.webhook(whatsapptest.Batch(e.meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: c.Number, From: ana, Name: "Ana", Type: "text",
			Object: map[string]string{"body": word.text}, At: time.Now()}))).want(200)
		e.sorted(t)
		if got := optedOut() != nil; got != word.out {
			t.Errorf("%q: opted out %v", word.text, got)
		}
	}
	e.webhook(whatsapptest.Batch(e.meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: c.Number, From: ana, Name: "Ana", Type: "text",
		Object: map[string]string{"body": "Volver"}, At: time.Now().Add(2 * time.Second)}))).want(200)
	e.sorted(t)
	if optedOut() != nil {
		t.Error("the client's own word does not opt in")
	}
}
