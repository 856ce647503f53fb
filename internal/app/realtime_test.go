package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/socketio/sockettest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// said is one event as a socket heard it.
type said struct {
	Event string         `json:"event"`
	Data  map[string]any `json:"data"`
}

func (s said) seq() int64 { return int64(s.Data["seq"].(float64)) }

// ear is a socket that notes what it hears.
type ear struct {
	t      *testing.T
	socket *sockettest.Client
	mu     sync.Mutex
	heard  []said
	gone   chan struct{}
}

func (c *client) listen(t *testing.T, transport string) *ear {
	t.Helper()
	s, err := sockettest.Dial(within(10*time.Second), c.e.url, sockettest.Options{
		Auth: map[string]string{"clientCode": c.Code, "apiKey": c.Key}, Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	return hear(t, s)
}

// hear notes what a socket hears until the test ends.
func hear(t *testing.T, s *sockettest.Client) *ear {
	e := &ear{t: t, socket: s, gone: make(chan struct{})}
	go func() {
		defer close(e.gone)
		for {
			ev, err := s.Next(context.Background())
			if err != nil {
				return
			}
			x := said{Event: ev.Name}
			if err := ev.Decode(0, &x.Data); err != nil {
				t.Errorf("%s: %v", ev.Name, err)
				return
			}
			e.mu.Lock()
			e.heard = append(e.heard, x)
			e.mu.Unlock()
		}
	}()
	t.Cleanup(func() { s.Drop(); <-e.gone })
	return e
}

func (e *ear) all() []said {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard)
}

// find waits for an event whose data has this value at a path.
func (e *ear) find(event, path string, value any) said {
	e.t.Helper()
	var found said
	eventually(e.t, fmt.Sprintf("%s with %s %v is heard", event, path, value), func() string {
		for _, s := range e.all() {
			if s.Event == event && dig(s.Data, path) == value {
				found = s
				return ""
			}
		}
		return fmt.Sprint(len(e.all()), " others")
	})
	return found
}

func (e *ear) since(seq int64) (items []said, next int64, more, reset bool) {
	e.t.Helper()
	args, err := e.socket.EmitAck(within(10*time.Second), "since", seq)
	if err != nil {
		e.t.Fatal(err)
	}
	var a struct {
		Items       []said
		Seq         int64
		More, Reset bool
		Error       string
	}
	if err := json.Unmarshal(args[0], &a); err != nil || a.Error != "" {
		e.t.Fatalf("since: %v %s", err, args[0])
	}
	return a.Items, a.Seq, a.More, a.Reset
}

func helloRule() map[string]any {
	return map[string]any{"name": "Hello", "trigger": "custom.hello", "enabled": true, "reenrol": "every_event", "actions": []map[string]any{
		{"type": "whatsapp.text", "text": "Hello {{name}}"}, {"type": "lead.score", "points": 5},
	}}
}

func hello(phone string) map[string]any {
	return map[string]any{"trigger": "custom.hello", "phone": phone, "createLeadIfMissing": true, "variables": map[string]any{"name": "Ana"}}
}

// Sockets of two clients, over both transports, hear all that is theirs as REST shows it, in order, and nothing else.
func TestRealtime(t *testing.T) {
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	clients := []*client{e.addClient("ACME", 1), e.addClient("BETA", 2)}
	ears := map[*client][]*ear{}
	for _, c := range clients {
		c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
		for _, transport := range []string{sockettest.Websocket, sockettest.Polling, sockettest.Upgrade} {
			ears[c] = append(ears[c], c.listen(t, transport))
		}
	}
	owned := map[*client][]string{}
	for i, c := range clients {
		phone := fmt.Sprintf("1202555014%d", i)
		a := c.call("POST", "/api/crm/automations/events", hello("+"+phone)).want(202)
		lead, run := a.get("leadId").(string), a.get("runs.0.runId").(string)
		e.webhook(whatsapptest.Batch(meta.InboundText(c.Number, phone, "Ana", "Hello "+c.Code))).want(200)
		owned[c] = []string{lead, run, c.Number}
		for _, ear := range ears[c] {
			created := ear.find("lead.created", "lead.id", lead)
			want(t, "lead.created", created.Data, "lead.phone", "+"+phone, "lead.score", 5.0, "lead.status", "open")
			ear.find("message.created", "message.runId", run)
			ear.find("message.created", "message.text", "Hello "+c.Code)
			read := ear.find("message.status", "message.status", "read")
			want(t, "message.status", read.Data, "message.runId", run)
			ear.find("automation.run", "run.state", "done")
			ear.find("conversation.updated", "conversation.leadId", lead)
			ear.find("conversation.updated", "conversation.unread", 1.0)
		}
		a = c.call("POST", "/api/crm/automations/events", hello("+"+phone)).want(202)
		for _, ear := range ears[c] {
			updated := ear.find("lead.updated", "lead.score", 10.0)
			var now map[string]any
			c.call("GET", "/api/crm/leads/"+lead, nil).want(200).into(&now)
			if !reflect.DeepEqual(updated.Data["lead"], any(now)) {
				t.Errorf("lead.updated says %v, REST %v", updated.Data["lead"], now)
			}
			ear.find("automation.run", "run.id", a.get("runs.0.runId"))
		}
	}
	for c, list := range ears {
		for _, ear := range list {
			var last int64
			ids := map[any]bool{}
			for _, s := range ear.all() {
				if s.seq() <= last || ids[s.Data["id"]] || s.Data["at"] == nil {
					t.Errorf("%s hears %s with seq %d after %d", c.Code, s.Event, s.seq(), last)
				}
				last, ids[s.Data["id"]] = s.seq(), true
				b, _ := json.Marshal(s.Data)
				for other, things := range owned {
					for _, thing := range things {
						if other != c && strings.Contains(string(b), thing) {
							t.Errorf("%s hears of %s's %s: %s", c.Code, other.Code, thing, b)
						}
					}
				}
			}
		}
	}
}

// A socket that was away is told what it missed: exactly that, in pieces, and then hears on.
func TestRealtimeCatchUp(t *testing.T) {
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	witness, socket := c.listen(t, sockettest.Websocket), c.listen(t, sockettest.Websocket)
	tell := func(phones ...string) {
		t.Helper()
		waiting := map[any]bool{}
		for _, phone := range phones {
			waiting[c.call("POST", "/api/crm/automations/events", hello(phone)).want(202).get("runs.0.runId")] = true
		}
		eventually(t, "the witness hears that all were read", func() string {
			for _, s := range witness.all() {
				if s.Event == "message.status" && dig(s.Data, "message.status") == "read" {
					delete(waiting, dig(s.Data, "message.runId"))
				}
			}
			return fmt.Sprint(waiting)[len("map[]"):]
		})
	}
	tell("918143963821")
	socket.find("message.status", "message.status", "read")
	last := socket.all()[len(socket.all())-1].seq()
	socket.socket.Drop()
	var others []string
	for i := range 80 { // more than one answer holds
		others = append(others, fmt.Sprintf("9181439639%02d", i))
	}
	tell(others...)
	back := c.listen(t, sockettest.Upgrade)
	var got []said
	pieces, seq := 0, last
	for more := true; more; pieces++ {
		var items []said
		var reset bool
		items, seq, more, reset = back.since(seq)
		if reset || (more && len(items) == 0) || pieces > 100 {
			t.Fatalf("after %d: reset %v, %d items, more %v", seq, reset, len(items), more)
		}
		got = append(got, items...)
	}
	var missed []said // of what the witness hears, up to the number that the answers reached
	eventually(t, "the witness hears as much", func() string {
		missed = nil
		heard := witness.all()
		for _, s := range heard {
			if s.seq() > last && s.seq() <= seq {
				missed = append(missed, s)
			}
		}
		if end := heard[len(heard)-1].seq(); end < seq {
			return fmt.Sprintf("it is at %v, the answers at %v", end, seq)
		}
		return ""
	})
	if !reflect.DeepEqual(got, missed) {
		t.Errorf("missed %d events, told of %d", len(missed), len(got))
	}
	if pieces < 2 {
		t.Errorf("%d events came in one piece", len(got))
	}
	t.Logf("%d events missed, told in %d pieces", len(missed), pieces)
	tell("918143963821")
	back.find("message.status", "message.status", "read")

	if items, seq, more, reset := back.since(1 << 40); !reset || more || len(items) > 0 || seq < last {
		t.Errorf("a number from the future: reset %v, %d items, seq %d", reset, len(items), seq)
	}
	for _, bad := range []any{-1, "x", nil, 1.5, map[string]any{}} {
		if _, err := back.socket.EmitAck(within(5*time.Second), "since", bad); err != nil {
			t.Errorf("since(%v): %v", bad, err)
		}
	}
}

// Who has no key is told so; who is suspended, or erased, is sent away.
func TestRealtimeRefuses(t *testing.T) {
	e := start(t, t.TempDir(), newMeta(t))
	a, b := e.addClient("ACME", 1), e.addClient("BETA", 2)
	code := func(auth any, header ...string) string {
		t.Helper()
		opt := sockettest.Options{Auth: auth}
		if len(header) == 2 {
			opt.Header = map[string][]string{header[0]: {header[1]}}
		}
		s, err := sockettest.Dial(within(5*time.Second), e.url, opt)
		if err == nil {
			s.Drop()
			return ""
		}
		var refused *sockettest.ConnectError
		if !errors.As(err, &refused) {
			t.Fatalf("%v", err)
		}
		var data struct{ Code string }
		_ = json.Unmarshal(refused.Data, &data)
		return data.Code
	}
	for _, auth := range []any{nil, map[string]string{}, map[string]string{"clientCode": "ACME"}, map[string]string{"clientCode": "ACME", "apiKey": a.Key + "x"},
		map[string]string{"clientCode": "ACME", "apiKey": b.Key}, map[string]string{"token": e.token}, map[string]any{"clientCode": 5, "apiKey": []string{a.Key}}} {
		if got := code(auth); got != "unauthenticated" {
			t.Errorf("%v: %q", auth, got)
		}
	}
	mine := map[string]string{"clientCode": "acme", "apiKey": a.Key}
	if got := code(mine); got != "" {
		t.Errorf("the right key: %q", got)
	}
	ear := a.listen(t, sockettest.Websocket)
	e.admin("POST", "/api/clients/ACME/suspend", nil).want(200)
	select {
	case <-ear.gone:
	case <-time.After(5 * time.Second):
		t.Error("a suspended client's socket stays")
	}
	if got := code(mine); got != "client.suspended" {
		t.Errorf("suspended: %q", got)
	}
	e.admin("POST", "/api/clients/ACME/resume", nil).want(200)
	if got := code(mine); got != "" {
		t.Errorf("resumed: %q", got)
	}
}

// The official client for browsers and Node. It needs node, and `npm ci` in internal/socketio/testdata/node.
func TestRealtimeOfficialClient(t *testing.T) {
	missing := func(what string) {
		t.Helper()
		if os.Getenv("ECOD_TEST_ALL") == "1" {
			t.Fatal(what)
		}
		t.Skip(what)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		missing("node is not installed")
	}
	dir, err := filepath.Abs("../socketio/testdata/node")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "socket.io-client")); err != nil {
		missing("socket.io-client is not installed: run `npm ci` in internal/socketio/testdata/node")
	}
	e := start(t, t.TempDir(), newMeta(t))
	a, b := e.addClient("ACME", 1), e.addClient("BETA", 2)
	for _, c := range []*client{a, b} {
		c.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
	}
	e.admin("POST", "/api/clients/"+a.Code+"/users", map[string]any{"email": "ana@example.com", "password": goodPassword, "role": "agent", "name": "Ana"}).want(201)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "--test", "--test-reporter=spec", filepath.Join("testdata", "realtime.test.mjs"))
	cmd.Env = append(os.Environ(), "SERVER_URL="+e.url, "CLIENT_MODULE="+filepath.Join(dir, "package.json"),
		"CLIENT_CODE="+a.Code, "CLIENT_KEY="+a.Key, "OTHER_CODE="+b.Code, "OTHER_KEY="+b.Key,
		"USER_EMAIL=ana@example.com", "USER_PASSWORD="+goodPassword)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "fail 0") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
