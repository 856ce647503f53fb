package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// fleet is several nodes, real binaries, on one MongoDB; each has a data folder of its own.
type fleet struct {
	t     *testing.T
	meta  *whatsapptest.Server
	url   string // of the services database
	keys  string
	extra []string // settings of every node
}

const fleetToken = "the-admin-token-of-the-fleet-for-tests"

// newFleet has no node yet.
func newFleet(t *testing.T, extra ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, url: servertest.Mongo(t), keys: secret.Generate("k1"), extra: extra}
	meta, err := whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret, StatusDelay: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meta.Close)
	f.meta = meta
	return f
}

// node starts a node that reaches the database at an address: the fleet's, or a link that leads there.
func (f *fleet) node(database string) *process {
	f.t.Helper()
	bin, err := build()
	if err != nil {
		f.t.Fatal(err)
	}
	return f.nodeBy(exec.Command(bin, "serve"), database)
}

func (f *fleet) nodeBy(cmd *exec.Cmd, database string, more ...string) *process {
	f.t.Helper()
	return serveBy(f.t, cmd, f.t.TempDir(), f.meta, append(append([]string{
		"ECOD_DATABASE_URL=" + database, "ECOD_ADMIN_TOKEN=" + fleetToken, "ECOD_SECRET_KEYS=" + f.keys, "ECOD_LOG_LEVEL=info",
	}, f.extra...), more...)...)
}

// at is the same client, spoken to through a node.
func (c *client) at(p *process) *client {
	there := *c
	there.e = p.engine
	return &there
}

// known waits until a node serves a client that was made at another.
func (c *client) known(p *process) *client {
	p.t.Helper()
	there := c.at(p)
	eventuallyIn(p.t, 20*time.Second, "a node serves a client that another one made", func() string {
		if a := there.call("GET", "/api/crm/leads?limit=1", nil); a.Status != 200 {
			return short(string(a.Body))
		}
		return ""
	})
	return there
}

// patient is how long work may take on the test server, which is slow, while nodes are lost and taken over from.
const patient = 4 * time.Minute

// sendsTo posts a template message; the answer may be any.
func sendsTo(phone string) []byte {
	body, _ := json.Marshal(map[string]any{"to": phone, "type": "template", "template": map[string]any{
		"name": "appointment_confirmed", "language": map[string]any{"code": "en"}, "components": []any{
			map[string]any{"type": "body", "parameters": []any{text("Ana"), text("Dr. Rao"), text("Monday")}}}}})
	return body
}

// callers post to whichever node answers, again under the same Idempotency-Key until one of them acknowledged it: what
// every caller does that means it.
type callers struct {
	c     *client
	nodes []*atomic.Pointer[string] // their addresses
	mu    sync.Mutex
	ids   map[string]string // phone → id of the acknowledged message
	wrong []string          // answers that no caller can live with
}

func (w *callers) send(n int) {
	phone := fmt.Sprintf("+1202%07d", 5550000+n)
	headers := w.c.headers()
	headers["Idempotency-Key"] = fmt.Sprint("send-", n)
	for turn, end := 0, time.Now().Add(patient); ; turn++ {
		url := *w.nodes[(n+turn)%len(w.nodes)].Load()
		status, body := try("POST", url+"/api/whatsapp/messages", sendsTo(phone), headers)
		var a struct{ ID, Code string }
		_ = json.Unmarshal(body, &a)
		switch {
		case status == http.StatusAccepted && a.ID != "":
			w.mu.Lock()
			w.ids[phone] = a.ID
			w.mu.Unlock()
			return
		case status == 0 || status >= 500 || status == http.StatusTooManyRequests || a.Code == "idempotency.in_progress":
			time.Sleep(200 * time.Millisecond) // as callers wait before they ask again
			if time.Now().Before(end) {
				continue
			}
		}
		w.mu.Lock()
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %d %s", phone, status, short(string(body))))
		w.mu.Unlock()
		return
	}
}

// TestNodesAreKilled: a thousand messages (on a mongod 20,000) are asked for at two nodes, of which one is killed with -9 at
// least every 20 s, in turn, and comes back. Each is acknowledged in the end, Meta accepts none twice and nobody hears two,
// and each is either sent, as Meta says, or told to be unconfirmed, of which there are no more than were at work in the kills.
func TestNodesAreKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	sends := 1000
	if servertest.IsMongod(t) {
		sends = 20_000
	}
	const every, atLeastEvery = 12 * time.Second, 20 * time.Second
	nodes := []*process{f.node(f.url), f.node(f.url)}
	c := nodes[0].addClient("ACME", 1)
	c.known(nodes[1])
	w := &callers{c: c, ids: map[string]string{}}
	for _, p := range nodes {
		at := &atomic.Pointer[string]{}
		at.Store(&p.url)
		w.nodes = append(w.nodes, at)
	}
	var all sync.WaitGroup
	var next atomic.Int64
	for range 12 {
		all.Go(func() {
			for n := int(next.Add(1)); n <= sends; n = int(next.Add(1)) {
				w.send(n)
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	kills, inWork := 0, 0
	tick := time.NewTicker(every) // a node's start, which the loop waits for, is in it
	defer tick.Stop()
	last := time.Now()
	for working := true; working || kills < 4; {
		select {
		case <-done:
			working, done = false, nil
		case <-tick.C:
			if since := time.Since(last); since > atLeastEvery {
				t.Errorf("%v without a kill", since)
			}
			last = time.Now()
			if working {
				inWork++
			}
			dead := kills % 2
			nodes[dead].kill()
			kills++
			nodes[dead] = f.node(f.url)
			w.nodes[dead].Store(&nodes[dead].url)
			f.meta.SetWebhook(c.WABA, nodes[dead].url+"/api/whatsapp/webhook")
		}
	}
	for _, s := range w.wrong {
		t.Errorf("not acknowledged: %s", s)
	}
	if len(w.ids) != sends {
		t.Fatalf("%d of %d were acknowledged", len(w.ids), sends)
	}
	there := c.at(nodes[1])
	nodes[0].idle(patient)
	sent, unconfirmed := f.accounted(there, w.ids)
	t.Logf("%d kills, %d of them while messages were asked for; %d sent, %d unconfirmed", kills, inWork, sent, unconfirmed)
	if inWork < 2 {
		t.Errorf("%d kills met the work", inWork)
	}
	if most := kills * 16; unconfirmed > most {
		t.Errorf("%d messages are unconfirmed after %d kills of nodes with 16 at work", unconfirmed, kills)
	}
}

// accounted checks acknowledged messages against what the fake Meta accepted.
func (f *fleet) accounted(c *client, ids map[string]string) (sent, unconfirmed int) {
	f.t.Helper()
	accepted, people := map[string]string{}, map[string]int{}
	for _, a := range f.meta.Accepted() {
		accepted[a.BizOpaque] = a.ID
		if people["+"+strings.TrimPrefix(a.To, "+")]++; people["+"+strings.TrimPrefix(a.To, "+")] > 1 {
			f.t.Errorf("%s was sent to twice", a.To)
		}
	}
	if d := f.meta.Duplicates(); len(d) > 0 {
		f.t.Errorf("sent twice: %v", d)
	}
	for phone, id := range ids {
		m := c.call("GET", "/api/whatsapp/messages/"+id, nil).want(200)
		wamid, known := accepted[id]
		switch status := m.get("status"); status {
		case "sent", "delivered", "read":
			sent++
			if !known || m.get("wamid") != wamid {
				f.t.Errorf("message %s to %s is %s under %v, Meta knows %q", id, phone, status, m.get("wamid"), wamid)
			}
		case "unconfirmed":
			unconfirmed++
		default:
			f.t.Errorf("message %s to %s is left %v (at Meta: %t)", id, phone, status, known)
		}
		delete(accepted, id)
	}
	for id := range accepted {
		f.t.Errorf("Meta accepted %s, which nobody asked for", id)
	}
	return sent, unconfirmed
}

// TestNodesOnce: what is asked of two nodes at once is done once: a message under one Idempotency-Key, an event under one
// id, and each occurrence of a schedule, of which every node knows.
func TestNodesOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nodes := []*process{f.node(f.url), f.node(f.url)}
	c := nodes[0].addClient("ACME", 1)
	c.known(nodes[1])
	c.call("POST", "/api/crm/automations/rules", scored).want(201)
	c.call("POST", "/api/crm/automations/rules", tickRule()).want(201)
	const schedules = 5
	var leads []string
	for i := range schedules {
		lead := c.lead(obj{"phone": fmt.Sprint("91814396383", i)})
		leads = append(leads, lead)
		c.call("POST", schedulesPath, obj{"name": fmt.Sprint("each minute ", i), "expr": "* * * * *", "timeZone": "UTC", "trigger": "custom.tick", "leadId": lead}).want(201)
	}

	const asked = 15
	ids := map[string]string{}
	for n := range asked {
		phone := fmt.Sprintf("+1202777%04d", n)
		headers := c.headers()
		headers["Idempotency-Key"] = fmt.Sprint("both-", n)
		eventID, event := eventOf(int64(n))
		var bodies [2]string
		var both sync.WaitGroup
		for i, p := range nodes {
			both.Go(func() {
				for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
					status, body := try("POST", p.url+"/api/whatsapp/messages", sendsTo(phone), headers)
					if status == http.StatusAccepted {
						bodies[i] = string(body)
						break
					}
					if status != http.StatusConflict || !strings.Contains(string(body), "idempotency.in_progress") {
						bodies[i] = fmt.Sprintf("node %d: %d %s", i, status, body)
						break
					}
				}
			})
			both.Go(func() {
				if status, body := try("POST", p.url+"/api/crm/automations/events", event, c.headers()); status != http.StatusAccepted {
					t.Errorf("event %s at node %d: %d %s", eventID, i, status, body)
				}
			})
		}
		both.Wait()
		var a struct{ ID string }
		if err := json.Unmarshal([]byte(bodies[0]), &a); err != nil || bodies[0] != bodies[1] || a.ID == "" {
			t.Fatalf("one key was answered with two bodies:\n%s\n%s", bodies[0], bodies[1])
		}
		ids[phone] = a.ID
	}
	nodes[0].idle(patient)
	if sent, _ := f.accounted(c, ids); sent != asked {
		t.Errorf("%d of %d were sent", sent, asked)
	}
	for n := range asked {
		found := c.call("GET", leadsPath+"?q="+phoneOf(int64(n)), nil).want(200)
		if found.get("items.0.score") != 1.0 || found.get("items.1") != nil {
			t.Errorf("event %d, told at both nodes: %s", n, short(string(found.Body)))
		}
	}
	eventuallyIn(t, 3*time.Minute, "the minutes come", func() string {
		for _, lead := range leads {
			if score, _ := c.call("GET", leadsPath+"/"+lead, nil).want(200).get("score").(float64); score < 2 {
				return fmt.Sprint("score ", score)
			}
		}
		return ""
	})
	for _, v := range c.all(schedulesPath) {
		c.call("PATCH", schedulesPath+"/"+v["id"].(string), obj{"enabled": false}).want(200)
	}
	nodes[0].idle(patient)
	runs := map[string]int{}
	for _, v := range c.all(schedulesPath) {
		made, err := time.Parse(time.RFC3339, v["createdAt"].(string))
		last, err2 := time.Parse(time.RFC3339, v["lastFiredFor"].(string))
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		lead := v["leadId"].(string)
		runs[lead] = int(last.Sub(made.Truncate(time.Minute)) / time.Minute)
		if score := c.call("GET", leadsPath+"/"+lead, nil).want(200).get("score"); score != float64(runs[lead]) {
			t.Errorf("a schedule that came up %d times was acted on %v times: %v", runs[lead], score, v)
		}
	}
	if n := len(nodes[1].jobsMade("ACME", "automation.scheduled")); n != sum(runs) {
		t.Errorf("%d jobs of %d occurrences", n, sum(runs))
	}
}

func sum(of map[string]int) (n int) {
	for _, v := range of {
		n += v
	}
	return n
}
