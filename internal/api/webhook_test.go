package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/whatsapp"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

const hook = "/api/whatsapp/webhook"

// stored is how many deliveries the inbox holds.
func (w *town) stored() int {
	w.t.Helper()
	all, err := w.inbox.Deliveries(w.t.Context(), store.DeliveryFilter{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(all)
}

func TestWebhookVerification(t *testing.T) {
	w := newTown(t)
	ask := func(path, mode, token, challenge string) reply {
		return w.call("GET", path+"?"+url.Values{"hub.mode": {mode}, "hub.verify_token": {token}, "hub.challenge": {challenge}}.Encode(), "")
	}
	for _, c := range []struct{ path, token string }{{hook, verifyToken}, {hook + "/ALFA", "verify-ALFA"}, {hook + "/alfa", "verify-ALFA"}} {
		r := ask(c.path, "subscribe", c.token, "1158201444")
		if r.StatusCode != 200 || string(r.body) != "1158201444" || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Fatalf("%s: %d %s %v", c.path, r.StatusCode, r.body, r.Header)
		}
	}
	var bodies []string
	for _, c := range []struct{ path, mode, token, challenge string }{
		{hook, "subscribe", "wrong", "1"}, {hook, "subscribe", "", "1"}, {hook, "unsubscribe", verifyToken, "1"}, {hook, "", verifyToken, "1"},
		{hook, "subscribe", verifyToken, ""}, {hook, "subscribe", verifyToken, "<script>"}, {hook, "subscribe", verifyToken, strings.Repeat("1", 257)},
		{hook + "/ALFA", "subscribe", verifyToken, "1"}, {hook + "/ALFA", "subscribe", "verify-BETA", "1"}, {hook, "subscribe", "verify-ALFA", "1"},
		{hook + "/NONE", "subscribe", "verify-ALFA", "1"}, {hook + "/NONE", "subscribe", "", "1"}, {hook + "/..%2f", "subscribe", "", "1"},
	} {
		r := ask(c.path, c.mode, c.token, c.challenge)
		p := w.problem(r, 403, "whatsapp.verify")
		delete(p, "instance")
		bodies = append(bodies, text(p))
	}
	for _, b := range bodies {
		if b != bodies[0] {
			t.Errorf("refusals differ: %s, %s", b, bodies[0])
		}
	}
	// nothing configured: nobody is let in, not even with nothing
	w.ok(w.admin("PUT", "/api/clients/ALFA/secrets/whatsapp", `{"wabaId":"2","phoneNumberIds":["`+numberOfA+`"],"accessToken":"t"}`), 200)
	w.problem(ask(hook+"/ALFA", "subscribe", "", "1"), 403, "whatsapp.verify")
	w.problem(w.deliver(hook+"/ALFA", "", []byte("{}")), 401, "whatsapp.signature")
}

func TestWebhookRefusesWhatIsNotSigned(t *testing.T) {
	w := newTown(t)
	body := whatsapptest.Batch(w.meta.InboundText(numberOfA, "918143963821", "Dhanesh", "hello"))
	sign := func(secret string) string { return whatsapptest.Sign(secret, body) }
	var bodies []string
	for _, c := range []struct{ path, signature string }{
		{hook, ""}, {hook, "sha256="}, {hook, "sha256=00"}, {hook, "sha1=" + strings.TrimPrefix(sign(appSecret), "sha256=")}, {hook, strings.TrimPrefix(sign(appSecret), "sha256=")},
		{hook, sign("wrong")}, {hook, sign("own-ALFA")}, {hook, sign("")}, {hook, whatsapptest.Sign(appSecret, body[1:])},
		{hook + "/ALFA", sign(appSecret)}, {hook + "/ALFA", sign("own-BETA")}, {hook + "/ALFA", ""}, {hook + "/NONE", sign("own-ALFA")}, {hook + "/NONE", sign("")}, {hook + "/x%00y", ""},
	} {
		header := []string{}
		if c.signature != "" {
			header = []string{whatsapp.SignatureHeader, c.signature}
		}
		if strings.Contains(c.path, "%00") {
			w.problem(w.call("POST", c.path, string(body), header...), 400, "request.url")
			continue
		}
		p := w.problem(w.call("POST", c.path, string(body), header...), 401, "whatsapp.signature")
		delete(p, "instance")
		bodies = append(bodies, text(p))
	}
	for _, b := range bodies {
		if b != bodies[0] {
			t.Errorf("refusals differ: %s, %s", b, bodies[0])
		}
	}
	huge := []byte(`{"a":"` + strings.Repeat("x", 4<<20) + `"}`)
	w.problem(w.deliver(hook, appSecret, huge), 413, "body.too_large")
	if n := w.stored(); n != 0 {
		t.Fatalf("%d deliveries stored", n)
	}
	// the largest that is taken, whatever its content type says
	fits := append(huge[:4<<20-2:4<<20-2], `"}`...)
	if r := w.call("POST", hook, string(fits), whatsapp.SignatureHeader, whatsapptest.Sign(appSecret, fits), "Content-Type", "text/plain"); r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	// signed, but not JSON: ours to keep
	if r := w.deliver(hook, appSecret, []byte("{")); r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	w.until("it is kept as failed", func() reply { return w.admin("GET", "/api/admin/deliveries?state=failed", "") }, func(m map[string]any) bool { return len(items(m)) == 1 })
}

func TestWebhookIsDurableOrRefused(t *testing.T) {
	w := newTown(t)
	body := whatsapptest.Batch(w.meta.InboundText(numberOfA, "918143963821", "Dhanesh", "hello"))
	w.full.Store(true)
	r := w.deliver(hook, appSecret, body)
	w.problem(r, 503, "inbox.unavailable")
	if r.Header.Get("Retry-After") == "" || w.stored() != 0 {
		t.Fatal(r.Header)
	}
	w.full.Store(false)
	if r := w.deliver(hook, appSecret, body); r.StatusCode != 200 || len(r.body) > 32 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	all, err := w.inbox.Deliveries(t.Context(), store.DeliveryFilter{})
	if err != nil || len(all) != 1 {
		t.Fatal(err, all)
	}
	d, err := w.inbox.Delivery(t.Context(), all[0].ID)
	if err != nil || string(d.Body) != string(body) {
		t.Fatalf("%v: other bytes are stored", err)
	}
}

func TestConversations(t *testing.T) {
	w := newTown(t)
	// three people write to A, one of them three times; one writes to B
	for i, from := range []string{"918143963821", "918143963822", "918143963823", "918143963821", "918143963821"} {
		if r := w.deliver(hook, appSecret, whatsapptest.Batch(w.meta.InboundText(numberOfA, from, "N"+from, fmt.Sprint("text ", i)))); r.StatusCode != 200 {
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
		w.until("it is sorted", func() reply { return w.asA("GET", "/api/whatsapp/deliveries?state=settled", "") }, func(m map[string]any) bool { return len(items(m)) == i+1 })
	}
	if r := w.deliver(hook+"/BETA", "own-BETA", whatsapptest.Batch(w.meta.InboundText(numberOfB, "918143963829", "B", "b"))); r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	var names []string
	cursor := ""
	for {
		m := w.ok(w.asA("GET", "/api/whatsapp/conversations?limit=2&cursor="+cursor, ""), 200)
		for _, c := range items(m) {
			names = append(names, str(c, "phone"))
		}
		if cursor = str(m, "nextCursor"); cursor == "" {
			break
		}
	}
	if fmt.Sprint(names) != "[+918143963821 +918143963823 +918143963822]" {
		t.Fatal(names)
	}
	c := items(w.ok(w.asA("GET", "/api/whatsapp/conversations", ""), 200))[0]
	if c["unread"] != 3.0 || c["windowExpiresAt"] == nil || c["phoneNumberId"] != numberOfA {
		t.Fatal(text(c))
	}
	path := "/api/whatsapp/conversations/" + str(c, "id")
	if got := w.ok(w.asA("GET", path, ""), 200); text(got) != text(c) {
		t.Fatal(text(got))
	}
	var texts []string
	for cursor = ""; ; {
		m := w.ok(w.asA("GET", path+"/messages?limit=1&cursor="+cursor, ""), 200)
		for _, c := range items(m) {
			texts = append(texts, str(c, "text"))
		}
		if cursor = str(m, "nextCursor"); cursor == "" {
			break
		}
	}
	if fmt.Sprint(texts) != "[text 4 text 3 text 0]" {
		t.Fatal(texts)
	}
	w.problem(w.asA("GET", "/api/whatsapp/conversations/none/messages", ""), 404, "conversation.not_found")
}

func TestDeliveries(t *testing.T) {
	w := newTown(t)
	const nobodys = "399999999999999"
	post := func(path, secret string, changes ...whatsapptest.Change) {
		t.Helper()
		if r := w.deliver(path, secret, whatsapptest.Batch(changes...)); r.StatusCode != 200 {
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
	}
	textFor := func(number string) whatsapptest.Change { return w.meta.InboundText(number, "918143963821", "D", "x") }
	post(hook, appSecret, textFor(numberOfA), textFor(nobodys))                     // A's and nobody's
	post(hook, appSecret, textFor(numberOfA), textFor(numberOfB), textFor(nobodys)) // A's, B's and nobody's
	post(hook+"/alfa", "own-ALFA", textFor(numberOfB))                              // B's, but through A's app
	if r := w.deliver(hook, appSecret, []byte("not json")); r.StatusCode != 200 {
		t.Fatal(r.StatusCode)
	}
	admin := w.until("all are sorted", func() reply { return w.admin("GET", "/api/admin/deliveries", "") }, func(m map[string]any) bool { return len(items(m)) == 4 })
	if l := items(admin); l[0]["state"] != "failed" || text(l[2]["clients"]) != `["ALFA","BETA"]` || l[1]["client"] != "ALFA" || l[2]["client"] != nil || l[2]["error"] == nil {
		t.Fatal(text(admin))
	}
	ofA := items(w.ok(w.asA("GET", "/api/whatsapp/deliveries", ""), 200))
	ofB := items(w.ok(w.asB("GET", "/api/whatsapp/deliveries", ""), 200))
	if len(ofA) != 3 || len(ofB) != 1 || ofB[0]["id"] != ofA[1]["id"] {
		t.Fatal(text(ofA), text(ofB))
	}
	// what went wrong with others' items is theirs
	if ofA[0]["error"] == nil || ofA[1]["error"] != nil || ofA[2]["error"] == nil || ofA[1]["clients"] != nil {
		t.Fatal(text(ofA))
	}
	if l := items(w.ok(w.admin("GET", "/api/admin/deliveries?client=beta", ""), 200)); len(l) != 1 {
		t.Fatal(text(l))
	}
	w.problem(w.asA("GET", "/api/whatsapp/deliveries?state=x", ""), 422, "invalid", "query.state")

	// the number finds its client: what waited for it is sorted
	w.newClient("GAMA", nobodys)
	replay := "/api/whatsapp/deliveries/replay"
	for body, at := range map[string]string{`{}`: "/ids", `{"ids":[]}`: "/ids", `{"state":"settled"}`: "/state", `{"ids":["a"],"state":"failed"}`: "/state", `{"ids":[7]}`: "/ids/0", `{"id":"x"}`: "/id"} {
		w.problem(w.asA("POST", replay, body), 422, "invalid", at)
	}
	w.problem(w.asB("POST", replay, `{"ids":["`+str(ofB[0], "id")+`","`+str(ofA[0], "id")+`"]}`), 404, "delivery.not_found", "/ids/1")
	w.problem(w.asB("POST", replay, `{"ids":["dlv_none"]}`), 404, "delivery.not_found")
	if got := w.ok(w.asA("POST", replay, `{"ids":["`+str(ofA[2], "id")+`"]}`), 200); got["count"] != 1.0 {
		t.Fatal(text(got))
	}
	if got := w.ok(w.admin("POST", "/api/admin/deliveries/replay", `{"state":"unresolved"}`), 200); got["count"] != 2.0 || got["more"] != false {
		t.Fatal(text(got))
	}
	w.until("the replayed are settled, but for what came through another's app", func() reply { return w.admin("GET", "/api/admin/deliveries?state=settled", "") },
		func(m map[string]any) bool { return len(items(m)) == 2 })
	if l := items(w.ok(w.asA("GET", "/api/whatsapp/conversations", ""), 200)); len(l) != 1 || l[0]["unread"] != 2.0 {
		t.Fatalf("sorted twice is stored twice: %s", text(l))
	}
}

func TestSuspendedClientsWebhooksAreTaken(t *testing.T) {
	w := newTown(t)
	w.ok(w.admin("POST", "/api/clients/ALFA/suspend", ""), 200)
	body := whatsapptest.Batch(w.meta.InboundText(numberOfA, "918143963821", "D", "x"))
	if r := w.deliver(hook+"/ALFA", "own-ALFA", body); r.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	w.ok(w.admin("DELETE", "/api/clients/ALFA?confirm=ALFA", ""), 202)
	w.problem(w.deliver(hook+"/ALFA", "own-ALFA", body), 401, "whatsapp.signature")
}
