package app_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// asks sends a template by the API and gives the message's id.
func (c *client) asks(to, name string) any {
	c.e.t.Helper()
	return c.call("POST", "/api/whatsapp/messages", map[string]any{"to": to, "type": "template", "template": map[string]any{
		"name": "appointment_confirmed", "language": map[string]any{"code": "en"},
		"components": []any{map[string]any{"type": "body", "parameters": []any{
			map[string]any{"type": "text", "text": name}, map[string]any{"type": "text", "text": "Dr. Arjun"}, map[string]any{"type": "text", "text": "Monday"}}}},
	}}).want(202).get("id")
}

// lane gives why a lane of the client's is paused; nil: it is not, or holds nothing.
func (c *client) lane(name string) map[string]any {
	c.e.t.Helper()
	for _, l := range c.e.admin("GET", "/api/admin/lanes", nil).want(200).get("items").([]any) {
		if m := l.(map[string]any); m["lane"] == c.Code+"/"+name {
			p, _ := m["pause"].(map[string]any)
			return p
		}
	}
	return nil
}

// sendCalls are the calls that would send something.
func sendCalls(meta *whatsapptest.Server) (out []whatsapptest.Request) {
	for _, r := range meta.Requests() {
		if r.Kind == "send" {
			out = append(out, r)
		}
	}
	return out
}

// sendJobs are the client's jobs that send a message, those of a state if it is named.
func (c *client) sendJobs(state string) (out []map[string]any) {
	c.e.t.Helper()
	for _, j := range c.all("/api/jobs") {
		if j["type"] == "whatsapp.send" && (state == "" || j["state"] == state) {
			out = append(out, j)
		}
	}
	return out
}

// sendsEnd waits until so many jobs have sent their messages, none of which cost an attempt.
func (c *client) sendsEnd(n int) {
	c.e.t.Helper()
	eventually(c.e.t, "all jobs end", func() string {
		jobs := c.sendJobs("")
		for _, j := range jobs {
			if j["attempt"] != 0.0 || j["state"] != "succeeded" {
				return fmt.Sprint(j)
			}
		}
		return unless(len(jobs) == n, fmt.Sprint(len(jobs), " jobs"))
	})
}

// busiest is the most that lie in any window of a second, whenever it begins.
func busiest(at []time.Time) (most int) {
	slices.SortFunc(at, time.Time.Compare)
	from := 0
	for i := range at {
		for at[i].Sub(at[from]) >= time.Second {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// Campaigns of a number run at its cap, and those who answer customers from the same number do not notice: within half a
// second their messages are with Meta. The number's cap holds in every window of a second, wherever it begins.
func TestPeopleGoBeforeCampaigns(t *testing.T) {
	each, replies, share, least := 300, 8, 75, 20.0 // beside other tests, some answers are late for the machine's sake
	if os.Getenv("ECOD_TEST_LONG") != "" {
		each, replies, share, least = 3000, 80, 99, 50
	}
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	var cvs []string // a recipient each for a few answers: more at once would be too much for one
	for i := range (replies + 7) / 8 {
		cv, _ := c.writes(fmt.Sprintf("1202555%04d", 143+i), "Hello?")
		cvs = append(cvs, cv)
	}
	var paths []string
	for i := range 2 {
		body := templated(each, map[string]any{"ratePerSecond": 70})
		for j, p := range body["audience"].(map[string]any)["list"].([]any) {
			p.(map[string]any)["phone"] = fmt.Sprintf("+9181%d3%06d", i, j)
		}
		paths = append(paths, c.campaign(body))
	}
	for _, p := range paths {
		c.call("POST", p+"/start", nil).want(200)
	}
	if err := meta.Wait(within(30*time.Second), func() bool { return len(meta.Accepted()) > 40 }); err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for i := range replies {
		began := time.Now()
		id := c.call("POST", "/api/whatsapp/messages", map[string]any{"conversationId": cvs[i%len(cvs)], "type": "text", "text": fmt.Sprint("Answer ", i)}).want(202).get("id")
		took = append(took, c.reaches(id).At.Sub(began))
		time.Sleep(time.Until(began.Add(time.Second))) // one a second, as people answer
	}
	under := 0
	for _, p := range paths {
		k := c.counts(p)
		under += k["planned"] // still at work while people answered
		eventuallyIn(t, 5*time.Minute, "the campaign is done", func() string {
			k := c.counts(p)
			return unless(k["planned"] == 0 && k["sent"] == each, fmt.Sprint(k))
		})
	}
	slices.Sort(took)
	if most := took[(len(took)-1)*share/100]; most > 500*time.Millisecond && !raced || under == 0 {
		t.Errorf("answers took %v; %d recipients were left", took, under)
	}
	var at []time.Time
	for _, r := range sendCalls(meta) {
		at = append(at, r.At)
	}
	if n := busiest(at); n > 80 {
		t.Errorf("%d calls within a second", n)
	}
	span := at[len(at)-1].Sub(at[0]).Seconds()
	if mean := float64(len(at)) / span; mean < least && !raced {
		t.Errorf("%.0f calls a second in the mean", mean)
	}
	if d := meta.Duplicates(); len(d) > 0 || len(meta.Accepted()) != 2*each+replies {
		t.Errorf("%d accepted, twice: %v", len(meta.Accepted()), d)
	}
	t.Logf("%d calls in %.1f s, at most %d in a second; answers took %v", len(at), span, busiest(at), took)
}

// One recipient who gets too much holds up nobody else, and is tried again after 1 and 4 seconds.
func TestOnePairRests(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	const n, tired = 60, "918143900030"
	to := func(r whatsapptest.Request) bool { return r.Kind == "send" && bytes.Contains(r.Body, []byte(tired)) }
	meta.When(2, to, whatsapptest.GraphError(400, 131056, "pair rate limit"))
	var slow any
	asked := map[any]time.Time{}
	for i := range n {
		id := c.asks(fmt.Sprintf("9181439%05d", i), "Ana")
		if asked[id] = time.Now(); i == 30 {
			slow = id
		}
	}
	last := c.reaches(slow)
	var calls []time.Time
	for _, r := range sendCalls(meta) {
		if to(r) {
			calls = append(calls, r.At)
		}
	}
	if len(calls) != 3 || calls[1].Sub(calls[0]) < time.Second || calls[2].Sub(calls[1]) < 4*time.Second {
		t.Errorf("called at %v", calls)
	}
	for _, a := range meta.Accepted() {
		if took := a.At.Sub(asked[a.BizOpaque]); a.BizOpaque != slow && took >= last.At.Sub(asked[slow]) {
			t.Errorf("another was held up for %v", took)
		}
	}
	if got := len(meta.Accepted()); got != n || len(sendCalls(meta)) != n+2 {
		t.Errorf("%d messages in %d calls", got, len(sendCalls(meta)))
	}
	c.sendsEnd(n)
}

// A token that Meta refuses rests all lines of its client at once: few calls find out, nobody's attempt is lost, the client
// and the operator are told, and a new token lets everything go on.
func TestADeadTokenRestsItsLines(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	for i := range 5 { // the token works, and is trusted
		c.reaches(c.asks(fmt.Sprintf("9181438%05d", i), "Ana"))
	}
	meta.SetToken(c.WABA, "another-token")
	before, taken := len(sendCalls(meta)), len(meta.Accepted())
	const n = 60
	for i := range n {
		c.asks(fmt.Sprintf("9181439%05d", i), "Ana")
	}
	lane := "wa:" + c.Number + "/interactive"
	eventually(t, "the lane rests", func() string {
		if p := c.lane(lane); p == nil || p["reason"] != "credential" || p["until"] != nil {
			return fmt.Sprint(p)
		}
		return ""
	})
	eventually(t, "the client is told", func() string {
		for _, s := range e.admin("GET", "/api/clients/ACME/secrets", nil).want(200).get("items").([]any) {
			if m := s.(map[string]any); m["name"] == "whatsapp" {
				if a, _ := m["attention"].(map[string]any); a == nil || a["reason"] != "190" {
					return fmt.Sprint(m)
				}
			}
		}
		return ""
	})
	if calls := len(sendCalls(meta)) - before; calls < 1 || calls > 3 {
		t.Errorf("%d calls with the dead token", calls)
	}
	if told := strings.Count(e.log.String(), `"msg":"work rests"`); told != 1 {
		t.Errorf("told %d times", told)
	}
	e.admin("PUT", "/api/clients/ACME/secrets/whatsapp", map[string]any{"wabaId": c.WABA, "phoneNumberIds": []string{c.Number}, "accessToken": "another-token"}).want(200)
	anew := time.Now()
	if _, err := meta.WaitAccepted(within(20*time.Second), taken+n); err != nil {
		t.Fatalf("%d of %d messages, %v: %v", len(meta.Accepted())-taken, n, err, c.lane(lane))
	}
	if first := meta.Accepted()[taken].At.Sub(anew); first > 2*time.Second {
		t.Errorf("it went on after %v", first)
	}
	c.sendsEnd(5 + n)
	if d := meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
}

// A template that Meta refuses stops the rule that sends it, soon and with the reason: what is planned by then waits, other
// rules go on, and it all goes out when the rule is resumed.
func TestARuleWithABadTemplatePauses(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	bad := c.call("POST", "/api/crm/automations/rules", confirmRule(nil)).want(201).get("id").(string)
	other := helloRule()
	c.call("POST", "/api/crm/automations/rules", other).want(201)
	template := func(r whatsapptest.Request) bool {
		return r.Kind == "send" && bytes.Contains(r.Body, []byte("appointment_confirmed"))
	}
	meta.When(-1, template, whatsapptest.GraphError(404, 132001, "Template name does not exist in the translation"))
	var told sync.WaitGroup
	var made atomic.Int64
	for i := range 60 {
		told.Go(func() {
			ev := c.call("POST", "/api/crm/automations/events", confirmEvent(map[string]any{"phone": fmt.Sprintf("9181437%05d", i)}))
			if ev.Status == 202 && ev.get("runs.0") != nil {
				made.Add(1)
			}
		})
	}
	told.Wait()
	n := int(made.Load())
	eventually(t, "the rule pauses", func() string {
		if r := c.call("GET", "/api/crm/automations/rules/"+bad, nil).want(200); r.get("status") != "paused" || r.get("pausedFor") != "whatsapp.132001" {
			return string(r.Body)
		}
		return ""
	})
	eventually(t, "the operator is told", func() string {
		return unless(strings.Contains(e.log.String(), "a rule was paused"), "nothing was logged")
	})
	skipped := c.call("POST", "/api/crm/automations/events", confirmEvent(nil)).want(202)
	if skipped.get("runs.0") != nil {
		t.Errorf("a paused rule is entered: %s", skipped.Body)
	}
	c.run(c.tell("918143963822"), "done")
	var held int
	eventually(t, "the others wait", func() string { // of one look: a job between two would be counted in neither
		open := 0
		held = 0
		for _, j := range c.sendJobs("") {
			switch j["state"] {
			case "parked":
				held++
			case "ready", "scheduled", "running":
				open++
			}
		}
		return unless(open == 0, fmt.Sprintf("%d do not yet", open))
	})
	calls := 0
	for _, r := range sendCalls(meta) {
		if template(r) {
			calls++
		}
	}
	if dead := len(c.sendJobs("dead")); calls != dead || calls+held != n || calls < 5 || calls > 20 || held == 0 {
		t.Errorf("%d runs, %d calls, %d dead, %d wait", n, calls, dead, held)
	}
	meta.Behave()
	before := len(meta.Accepted())
	c.call("POST", "/api/crm/automations/rules/"+bad+"/resume", nil).want(200)
	if _, err := meta.WaitAccepted(within(20*time.Second), before+held); err != nil {
		t.Errorf("%d of %d go on: %v", len(meta.Accepted())-before, held, err)
	}
	t.Logf("%d calls, %d waited", calls, held)
}

// A Meta that takes messages of a client and answers none holds up neither others nor the client's other work, and once it
// answers again all goes out.
func TestASilentMetaHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	meta, box := newMeta(t), newMailServer(t)
	e := start(t, t.TempDir(), meta, private)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	c.mailAccount(box, nil)
	c.call("POST", "/api/crm/automations/rules", mailRule(nil)).want(201)
	mine := func(r whatsapptest.Request) bool { return r.Kind == "send" && strings.Contains(r.Path, c.Number) }
	meta.When(1, mine, whatsapptest.Hang())
	const n = 60
	for i := range n {
		c.asks(fmt.Sprintf("9181439%05d", i), "Ana")
	}
	if err := meta.Wait(within(10*time.Second), func() bool { return len(sendCalls(meta)) > 0 }); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		began := time.Now()
		c.runEnded(c.call("POST", "/api/crm/automations/events", mailEvent(i, nil)).want(202))
		other.reaches(other.asks(fmt.Sprintf("9181449%05d", i), "Ana"))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("others waited for %v", took)
		}
	}
	if calls := len(sendCalls(meta)); calls != 1+5 {
		t.Errorf("%d calls", calls)
	}
	if _, err := meta.WaitAccepted(within(60*time.Second), 5+n-1); err != nil { // what became of the one is not known
		t.Errorf("%d messages: %v", len(meta.Accepted()), err)
	}
	if d := meta.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
}
