package app_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// A disk that is full is told as 503, and is nobody's loss: a limit on the size of files (of the real binary, set by the
// shell that starts it) stands for it. What was acknowledged before is all there when there is room again, and what was
// refused can be told again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	meta, dir := newMeta(t), t.TempDir()
	p := serve(t, dir, meta)
	c := p.addClient("ACME", 1)
	meta.SetWebhook(c.WABA, "http://127.0.0.1:1/nowhere")
	c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "Score", "trigger": "form_submitted", "enabled": true, "reenrol": "every_event",
		"actions": []map[string]any{{"type": "lead.score", "points": 1}, {"type": "lead.tag.add", "tags": []string{"told"}}}}).want(201)
	p.kill()

	largest := int64(0)
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			largest = max(largest, info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	limit := fmt.Sprint((largest + 500<<10) / 512) // POSIX: in blocks of 512 bytes
	p = serveBy(t, exec.Command("sh", "-c", `ulimit -f "$1" && exec "$2" serve`, "sh", limit, bin), dir, meta)
	c.e = p.engine
	post := func(what, path string, body []byte, header map[string]string, ok int) bool {
		t.Helper()
		a := p.send("POST", path, body, header)
		switch a.Status {
		case ok:
			return true
		case 503:
			a.problem(503, "")
			if a.Header.Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After", what)
			}
		default:
			t.Fatalf("%s: %d %s", what, a.Status, a.Body)
		}
		return false
	}
	event := func(n int) ([]byte, string) {
		id := fmt.Sprintf("ev-%d", n)
		b, _ := json.Marshal(map[string]any{"trigger": "form_submitted", "phone": fmt.Sprintf("9181439%05d", n), "eventId": id, "createLeadIfMissing": true,
			"variables": map[string]any{"long": strings.Repeat("long ", 4000)}})
		return b, id
	}
	inbound := func(n int) ([]byte, string) {
		wamid := fmt.Sprintf("wamid.full.%d", n)
		return whatsapptest.Batch(meta.InboundMessage(whatsapptest.Inbound{PhoneNumberID: c.Number, From: "12025550143", Name: "Ana", Type: "text",
			Object: map[string]string{"body": strings.Repeat("Hello ", 600)}, ID: wamid})), wamid
	}
	messages, events := map[string]bool{}, map[string]bool{}
	var refusedMessage, refusedEvent int
	deadline := time.Now().Add(40 * time.Second)
	for n := 0; (refusedMessage < 5 || refusedEvent < 5) && time.Now().Before(deadline); n++ {
		body, wamid := inbound(n)
		if post("webhook", "/api/whatsapp/webhook", body, map[string]string{"X-Hub-Signature-256": whatsapptest.Sign(appSecret, body)}, 200) {
			messages[wamid] = true
		} else {
			refusedMessage++
		}
		body, id := event(n)
		if post("event", "/api/crm/automations/events", body, c.headers(), 202) {
			events[id] = true
		} else {
			refusedEvent++
		}
	}
	if refusedMessage == 0 || refusedEvent == 0 || len(messages) == 0 || len(events) == 0 {
		t.Fatalf("%d messages and %d events stored, %d and %d refused: the disk was not full", len(messages), len(events), refusedMessage, refusedEvent)
	}
	p.send("GET", "/healthz", nil, nil).want(200)
	p.send("GET", "/readyz", nil, nil).problem(503, "not_ready")
	t.Logf("%d messages and %d events acknowledged, then %d and %d refused", len(messages), len(events), refusedMessage, refusedEvent)
	p.kill()

	p = serve(t, dir, meta)
	c.e = p.engine
	for n := range len(messages) + refusedMessage { // Meta tells again what was refused, and what was not
		body, wamid := inbound(n)
		p.webhook(body).want(200)
		messages[wamid] = true
	}
	fresh := 0
	for n := range len(events) + refusedEvent {
		body, id := event(n)
		a := p.send("POST", "/api/crm/automations/events", body, c.headers()).want(202)
		if a.get("duplicate") == false {
			fresh++
			if events[id] {
				t.Errorf("acknowledged event %s is forgotten: %s", id, a.Body)
			}
		}
	}
	eventuallyIn(t, takeover, "all is done", func() string {
		for _, state := range unended {
			if l := p.admin("GET", "/api/admin/jobs?state="+state, nil).want(200); l.get("items.0") != nil {
				return short(string(l.Body))
			}
		}
		if l := p.admin("GET", "/api/admin/deliveries?state=received", nil).want(200); l.get("items.0") != nil {
			return short(string(l.Body))
		}
		return ""
	})
	have := map[string]int{}
	for _, cv := range c.all("/api/whatsapp/conversations") {
		for _, m := range c.all("/api/whatsapp/conversations/" + cv["id"].(string) + "/messages") {
			have[m["wamid"].(string)]++
		}
	}
	for wamid := range messages {
		if have[wamid] != 1 {
			t.Errorf("message %s is there %d times", wamid, have[wamid])
		}
	}
	for _, l := range c.all("/api/crm/leads") {
		if l["score"] != 1.0 || fmt.Sprint(l["tags"]) != "[told]" {
			t.Errorf("lead %v: score %v, tags %v: half an event", l["phone"], l["score"], l["tags"])
		}
	}
	if n := len(c.all("/api/crm/leads")); n != len(events)+refusedEvent {
		t.Errorf("%d leads of %d events", n, len(events)+refusedEvent)
	}
	if _, err := os.Stat(filepath.Join(dir, "ecod_services.db")); err != nil {
		t.Error(err)
	}
	t.Logf("%d events told anew", fresh)
}
