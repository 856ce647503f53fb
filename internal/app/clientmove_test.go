package app_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// inbound is a webhook with a customer's message.
func inbound(c *client, n int64) (wamid string, body []byte) {
	wamid = fmt.Sprintf("wamid.%s.%d", c.Code, n)
	from := fmt.Sprintf("9198%08d", n%500)
	return wamid, fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":%q,"changes":[{"field":"messages","value":{"messaging_product":"whatsapp",`+
		`"metadata":{"display_phone_number":"1","phone_number_id":%q},"contacts":[{"profile":{"name":"P"},"wa_id":%q}],`+
		`"messages":[{"from":%q,"id":%q,"timestamp":"%d","type":"text","text":{"body":"hello %d"}}]}}]}]}`, c.WABA, c.Number, from, from, wamid, time.Now().Unix(), n)
}

// postbox posts webhooks of one client, and knows which were acknowledged and what else came back.
type postbox struct {
	c      *client
	pause  time.Duration // between two while run runs
	serial atomic.Int64
	mu     sync.Mutex
	acked  map[string]bool
	odd    map[int]int // other answers, by status
	stop   chan struct{}
	all    sync.WaitGroup
}

func newPostbox(c *client) *postbox {
	return &postbox{c: c, pause: 4 * time.Millisecond, acked: map[string]bool{}, odd: map[int]int{}}
}

func (p *postbox) post() {
	wamid, body := inbound(p.c, p.serial.Add(1))
	status, _ := try("POST", p.c.e.url+"/api/whatsapp/webhook", body, map[string]string{"X-Hub-Signature-256": whatsapptest.Sign(appSecret, body)})
	p.mu.Lock()
	defer p.mu.Unlock()
	if status == 200 {
		p.acked[wamid] = true
	} else {
		p.odd[status]++
	}
}

// fill posts so many.
func (p *postbox) fill(n int) {
	var all sync.WaitGroup
	end := p.serial.Load() + int64(n)
	for range 32 {
		all.Go(func() {
			for p.serial.Load() < end {
				p.post()
			}
		})
	}
	all.Wait()
}

// run posts until end is called.
func (p *postbox) run() {
	stop := make(chan struct{})
	p.stop = stop
	p.all.Go(func() {
		tick := time.NewTicker(p.pause)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				p.post()
			}
		}
	})
}

func (p *postbox) end() int {
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
	p.all.Wait()
	return len(p.acked)
}

// holds waits until a client's database holds the messages that were acknowledged, and nothing waits any more; each is
// there once, and the conversations have counted every one.
func (p *postbox) holds(e *engine, patience time.Duration) {
	t := e.t
	t.Helper()
	e.allSorted(patience)
	tn, release, err := e.app.Tenants.Use(t.Context(), p.c.Code)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	var unread, messages int64
	q := store.Query{Limit: 1000}
	seen := map[string]int{}
	for {
		ms, err := chat.Messages.Find(t.Context(), tn.DB, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			q.After = &store.Cursor{ID: m.ID}
			seen[m.WAMID]++
			messages++
		}
		if len(ms) < q.Limit {
			break
		}
	}
	cs, err := chat.Conversations.Find(t.Context(), tn.DB, store.Query{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		unread += c.Unread
	}
	lost := 0
	for wamid := range p.acked {
		if seen[wamid] != 1 {
			lost++
		}
	}
	if lost > 0 || messages != int64(len(p.acked)) || unread != messages || len(p.odd) > 0 {
		t.Errorf("%d messages, %d unread, for %d acknowledged webhooks, of which %d are not there once; other answers %v", messages, unread, len(p.acked), lost, p.odd)
	}
}

// allSorted waits until every webhook is in its client's database.
func (e *engine) allSorted(patience time.Duration) {
	e.t.Helper()
	eventuallyIn(e.t, patience, "all webhooks are sorted", func() string {
		list := e.admin("GET", "/api/admin/deliveries?state=received&limit=1", nil).want(200)
		return unless(len(list.get("items").([]any)) == 0, "some wait")
	})
}

func (e *engine) move(code string, to any) string {
	e.t.Helper()
	return e.admin("POST", "/api/clients/"+code+"/move", map[string]any{"databaseUrl": to}).want(202).get("jobId").(string)
}

// moved waits for the end of a move.
func (e *engine) moved(code, jobID string, patience time.Duration) *answer {
	e.t.Helper()
	eventuallyIn(e.t, patience, "the client is moved", func() string {
		j := e.admin("GET", "/api/admin/jobs/"+jobID, nil).want(200)
		if j.get("state") == "dead" {
			e.t.Fatalf("the move failed: %s", j.Body)
		}
		return unless(j.get("state") == "succeeded", string(j.Body))
	})
	return e.admin("GET", "/api/clients/"+code+"/move", nil).want(200)
}

// moveWhileBusy moves a client with so many messages while webhooks and calls keep coming.
func moveWhileBusy(t *testing.T, e *engine, c *client, p *postbox, messages int, to any, patience time.Duration) {
	t.Helper()
	p.fill(messages)
	e.allSorted(patience) // what only waits in the inbox is not moved
	stopCalls := make(chan struct{})
	var calls sync.WaitGroup
	endCalls := sync.OnceFunc(func() { close(stopCalls); calls.Wait() })
	defer endCalls()
	var served, refused atomic.Int64
	calls.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stopCalls:
				return
			case <-time.After(5 * time.Millisecond):
			}
			a := c.call("GET", "/api/crm/leads?limit=1", nil)
			switch {
			case a.Status == 200:
				served.Add(1)
			case a.Status == http.StatusServiceUnavailable && a.get("code") == "client.moving" && a.Header.Get("Retry-After") != "":
				refused.Add(1)
			default:
				t.Errorf("a call of a client that is moved: %d %s", a.Status, a.Body)
			}
		}
	})
	p.run()
	defer p.end()
	began := time.Now()
	jobID := e.move(c.Code, to)
	v := e.moved(c.Code, jobID, patience)
	took := time.Since(began)
	eventually(t, "the client is served again", func() string {
		n := served.Load()
		time.Sleep(20 * time.Millisecond)
		return unless(served.Load() > n, "it is not")
	})
	endCalls()
	total := p.end()
	if refused.Load() == 0 {
		t.Error("no call met the move")
	}
	if v.get("state") != "done" || v.get("progress.done") != v.get("progress.total") || v.get("progress.done").(float64) < float64(messages) {
		t.Errorf("%s", v.Body)
	}
	p.holds(e, patience)
	t.Logf("moved %v records in %v; %d webhooks in all, %d calls refused meanwhile", v.get("progress.done"), took.Round(time.Millisecond), total, refused.Load())
}

// A client with many messages is moved while webhooks keep coming, and back: nothing is lost, nothing doubled, its callers
// are told to come again, and its work goes on in the new database.
func TestClientMove(t *testing.T) {
	t.Parallel()
	messages := 1500
	if os.Getenv("ECOD_TEST_LONG") != "" {
		messages = 100_000
	}
	dir := t.TempDir()
	meta := newMeta(t)
	e := start(t, dir, meta)
	annex := &app.Annex{Dir: filepath.Join(dir, "annex")}
	e.app.UseAnnex(annex)
	c := e.addClient("ACME", 1)
	beta := e.addClient("BETA", 2)
	c.call("POST", "/api/crm/automations/rules", scored).want(201)
	file := filepath.Join(dir, "tenants", "ecod_t_ACME.db")
	p := newPostbox(c)
	moveWhileBusy(t, e, c, p, messages, "mongodb://user:hidden-password@annex.example/x", 10*time.Minute)
	beta.call("GET", "/api/crm/leads", nil).want(200)

	v := e.admin("GET", "/api/clients/ACME/move", nil).want(200)
	if v.get("oldCopy") != file || strings.Contains(string(v.Body), "hidden-password") {
		t.Errorf("%s", v.Body)
	}
	frozen := count(t, file, "SELECT count(*) FROM messages")
	c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "form_submitted", "eventId": "after", "phone": "918100000001", "createLeadIfMissing": true}).want(202)
	eventually(t, "the rule ran in the new database", func() string {
		return unless(count(t, annex.File("ACME"), "SELECT count(*) FROM leads WHERE doc ->> '$.tags' LIKE '%told%'") == 1, "no lead is tagged")
	})
	if now := count(t, file, "SELECT count(*) FROM messages"); now != frozen || count(t, file, "SELECT count(*) FROM leads WHERE doc ->> '$.tags' LIKE '%told%'") != 0 {
		t.Error("the old copy is written to")
	}
	e.admin("POST", "/api/clients/ACME/move", map[string]any{"databaseUrl": nil}).want(409)
	e.admin("DELETE", "/api/clients/ACME/move/old-copy", nil).want(204)
	e.admin("DELETE", "/api/clients/ACME/move/old-copy", nil).want(404)
	if _, err := os.Stat(file); err == nil {
		t.Error("the old copy is still there")
	}
	moveWhileBusy(t, e, c, p, 10, nil, 10*time.Minute)
	if count(t, file, "SELECT count(*) FROM messages") == 0 {
		t.Error("it is not back")
	}
	e.admin("DELETE", "/api/clients/ACME?confirm=ACME", nil).want(202)
	eventually(t, "the client is erased, with the old copy", func() string {
		_, err := os.Stat(annex.File("ACME"))
		return unless(err != nil, "the old copy is still there")
	})
	if strings.Contains(e.log.String(), "hidden-password") {
		t.Error("the log tells the password")
	}
}

// What runs when a client is to be moved ends first, once; the move waits for it.
func TestMoveWaitsForJobs(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	called, answer := make(chan struct{}, 10), make(chan struct{})
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		called <- struct{}{}
		<-answer
	}))
	defer site.Close()
	dir := t.TempDir()
	e := start(t, dir, newMeta(t), func(c *app.Config) { c.AllowPrivate = true })
	e.app.UseAnnex(&app.Annex{Dir: filepath.Join(dir, "annex")})
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", map[string]any{"name": "Tell", "trigger": "form_submitted", "enabled": true,
		"actions": []map[string]any{{"type": "webhook.post", "url": site.URL}, {"type": "lead.tag.add", "tags": []string{"told"}}}}).want(201)
	c.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "form_submitted", "eventId": "1", "phone": "918100000001", "createLeadIfMissing": true}).want(202)
	<-called
	jobID := e.move("ACME", "mongodb://annex.example/x")
	eventually(t, "the client is out of service", func() string {
		return unless(c.call("GET", "/api/crm/leads", nil).Status == http.StatusServiceUnavailable, "it is served")
	})
	if v := e.admin("GET", "/api/clients/ACME/move", nil).want(200); v.get("state") != "preparing" {
		t.Errorf("it does not wait: %s", v.Body)
	}
	e.admin("DELETE", "/api/clients/ACME?confirm=ACME", nil).want(409)
	e.admin("POST", "/api/clients/ACME/move", map[string]any{"databaseUrl": "mongodb://other.example/x"}).want(409)
	close(answer)
	e.moved("ACME", jobID, time.Minute)
	eventually(t, "the run goes on in the new database", func() string {
		return unless(strings.Contains(string(c.call("GET", "/api/crm/leads", nil).want(200).Body), "told"), "no lead is tagged")
	})
	if n := calls.Load(); n != 1 {
		t.Errorf("called %d times", n)
	}
}

// A move that is cancelled leaves the client where it was, and lets it go on.
func TestMoveCancelled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := start(t, dir, newMeta(t))
	hang := make(chan struct{})
	annex := &app.Annex{Dir: filepath.Join(dir, "annex"), Wrap: func(c store.Copier) store.Copier { return hangingCopier{c, hang} }}
	e.app.UseAnnex(annex)
	c := e.addClient("ACME", 1)
	p := newPostbox(c)
	p.fill(20)
	p.holds(e, time.Minute)
	jobID := e.move("ACME", "mongodb://annex.example/x")
	eventually(t, "it copies", func() string {
		return unless(e.admin("GET", "/api/clients/ACME/move", nil).want(200).get("state") == "copying", "it does not")
	})
	p.fill(20)
	e.admin("POST", "/api/admin/jobs/"+jobID+"/cancel", nil).want(200)
	eventually(t, "the client is served again", func() string {
		return unless(c.call("GET", "/api/crm/leads", nil).Status == 200, "it is not")
	})
	p.holds(e, time.Minute)
	if v := e.admin("GET", "/api/clients/ACME/move", nil).want(200); v.get("state") != "failed" || v.get("reason") != "move.cancelled" {
		t.Errorf("%s", v.Body)
	}
	if _, err := os.Stat(annex.File("ACME")); err == nil {
		t.Error("half a copy is left")
	}
}

// hangingCopier fills nothing until it is told to stop.
type hangingCopier struct {
	store.Copier
	hang chan struct{}
}

func (c hangingCopier) Fill(ctx context.Context, kind string, rs ...store.Raw) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.hang:
	}
	return c.Copier.Fill(ctx, kind, rs...)
}
