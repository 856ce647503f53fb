package app_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
)

// people are n addresses as an audience names them.
func people(n int) []any {
	var out []any
	for i := range n {
		out = append(out, map[string]any{"email": fmt.Sprintf("p%04d@example.com", i), "name": fmt.Sprintf("Person %d", i)})
	}
	return out
}

// mailing is a campaign as its author writes it.
func mailing(audience map[string]any, extra map[string]any) map[string]any {
	m := map[string]any{"name": "News", "channel": "email", "audience": audience,
		"content": map[string]any{"subject": "News for {{name}}", "html": "<html><body><p>Hi {{name}}</p></body></html>", "text": "Hi {{name}}"}}
	for k, v := range extra {
		m[k] = v
	}
	return m
}

// campaign creates a campaign and gives its path.
func (c *client) campaign(body map[string]any) string {
	c.e.t.Helper()
	return "/api/campaigns/" + c.call("POST", "/api/campaigns", body).want(201).get("id").(string)
}

// counts are a campaign's.
func (c *client) counts(path string) map[string]int {
	c.e.t.Helper()
	var out struct{ Counts map[string]int }
	c.call("GET", path+"/stats", nil).want(200).into(&out)
	return out.Counts
}

// ended waits until a campaign is over and gives its counts.
func (c *client) ended(path string) map[string]int {
	c.e.t.Helper()
	eventuallyIn(c.e.t, takeover, "the campaign is done", func() string {
		a := c.call("GET", path, nil).want(200)
		if a.get("state") != "done" {
			return fmt.Sprint(string(a.Body), c.counts(path))
		}
		return ""
	})
	return c.counts(path)
}

// once checks that a server took every address once and no other.
func once(t *testing.T, box *smtptest.Server, want int, but map[string]bool) {
	t.Helper()
	got := map[string]int{}
	for _, a := range box.Accepted() {
		got[strings.Join(a.To, ",")]++
	}
	for i := range want {
		address := fmt.Sprintf("p%04d@example.com", i)
		if n := got[address]; n != 1 && !but[address] {
			t.Errorf("%s got %d mails", address, n)
		}
		if n := got[address]; n > 1 {
			t.Errorf("%s got %d mails", address, n)
		}
		delete(got, address)
	}
	if len(got) > 0 {
		t.Errorf("others got mails: %v", got)
	}
}

// A campaign goes to everybody in its audience once: filled in, with a link to unsubscribe, whatever stands there twice.
func TestEmailCampaign(t *testing.T) {
	t.Parallel()
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	c.call("POST", "/api/suppressions", map[string]any{"email": "P0001@Example.com", "reason": "asked by phone"}).want(201)
	audience := append(people(40), map[string]any{"email": "P0002@example.com", "name": "Again"}, "p0003@example.com", map[string]any{"email": "nameless@example.com"})
	path := c.campaign(mailing(map[string]any{"list": audience}, nil))

	pre := c.call("POST", path+"/preflight", nil).want(200)
	if pre.get("audience") != 41.0 || len(pre.get("blockers").([]any)) != 0 || pre.get("warnings.0.code") != "suppressed" || pre.get("warnings.1.code") != "missing_variable" {
		t.Errorf("preflight %s", pre.Body)
	}
	c.call("POST", path+"/test", map[string]any{"to": "me@acme.example"}).want(202)
	if _, err := box.WaitAccepted(within(10*time.Second), 1); err != nil {
		t.Fatal(err)
	}
	if subject, _ := mailText(t, box.Accepted()[0]); subject != "News for Person 0" {
		t.Errorf("the trial's subject is %q", subject)
	}
	if a := c.call("POST", path+"/start", nil).want(200); a.get("state") != "running" {
		t.Errorf("started: %s", a.Body)
	}
	n := c.ended(path)
	if n["sent"] != 39 || n["suppressed"] != 1 || n["failed"] != 1 || n["planned"] != 0 {
		t.Errorf("counts %v", n)
	}
	c.call("POST", path+"/start", nil).want(409)
	c.call("DELETE", path, nil).want(409)
	rs := c.all(path + "/recipients")
	if len(rs) != 41 {
		t.Errorf("%d recipients", len(rs))
	}
	if r := c.call("GET", path+"/recipients?state=suppressed", nil).want(200); r.get("items.0.address") != "p0001@example.com" || r.get("items.0.reason") != "suppressed" || r.get("items.1") != nil {
		t.Errorf("suppressed %s", r.Body)
	}
	if r := c.call("GET", path+"/recipients?state=failed", nil).want(200); r.get("items.0.reason") != "missing_variable" {
		t.Errorf("failed %s", r.Body)
	}
	seen := map[string]bool{}
	for _, a := range box.Accepted()[1:] {
		m, err := a.Message()
		if err != nil {
			t.Fatal(err)
		}
		link := strings.Trim(m.Header.Get("List-Unsubscribe"), "<>")
		if !strings.HasPrefix(link, e.url+"/u/") || m.Header.Get("List-Unsubscribe-Post") != "List-Unsubscribe=One-Click" || seen[link] {
			t.Fatalf("headers %v", m.Header)
		}
		seen[link] = true
		_, parts := mailText(t, a)
		if !strings.Contains(parts["text/html"], `href="`+link+`"`) || !strings.Contains(parts["text/plain"], link) || !strings.HasSuffix(parts["text/html"], "</body></html>") {
			t.Errorf("no link in %q", parts)
		}
		if strings.Contains(link, strings.Split(a.To[0], "@")[0]) {
			t.Errorf("the link shows the address: %s", link)
		}
	}
	if d := box.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	if strings.Contains(e.log.String(), "@example.com") {
		t.Error("the log holds an address")
	}
}

// Leads by filter: frozen at the start, by their own fields.
func TestCampaignByFilter(t *testing.T) {
	t.Parallel()
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	lead := func(i int, source string, extra map[string]any) string {
		body := map[string]any{"name": fmt.Sprint("Lead ", i), "email": fmt.Sprintf("p%04d@example.com", i), "source": source}
		for k, v := range extra {
			body[k] = v
		}
		return c.call("POST", "/api/crm/leads", body).want(201).get("id").(string)
	}
	for i := range 5 {
		lead(i, "web", map[string]any{"fields": map[string]any{"city": fmt.Sprint("City ", i)}})
	}
	lead(90, "shop", nil)
	c.call("POST", "/api/crm/leads", map[string]any{"name": "No mail", "phone": "918143963821", "source": "web"}).want(201)
	body := mailing(map[string]any{"filter": map[string]any{"source": "web"}}, map[string]any{
		"content": map[string]any{"subject": "{{city}}", "text": "Hi {{lead.name}} of {{city}}: {{unsubscribeUrl}}"}})
	path := c.campaign(body)
	if pre := c.call("POST", path+"/preflight", nil).want(200); pre.get("audience") != 5.0 || pre.get("warnings.0.code") != "no_address" {
		t.Errorf("preflight %s", pre.Body)
	}
	c.call("POST", path+"/start", nil).want(200)
	lead(91, "web", map[string]any{"fields": map[string]any{"city": "Late"}})
	if n := c.ended(path); n["sent"] != 5 || n["failed"]+n["suppressed"] != 0 {
		t.Errorf("counts %v", n)
	}
	once(t, box, 5, nil)
	_, parts := mailText(t, box.Accepted()[0])
	if !strings.Contains(parts["text/plain"], " of City ") || strings.Count(parts["text/plain"], "/u/") != 1 {
		t.Errorf("text %q", parts["text/plain"])
	}
	if r := c.call("GET", path+"/recipients", nil).want(200); r.get("items.0.leadId") == nil {
		t.Errorf("recipients %s", r.Body)
	}
}

// The link unsubscribes by one click and by the button, once or again; looking at it changes nothing; and nobody who used
// it gets more marketing, though what they ask for themselves still comes.
func TestUnsubscribe(t *testing.T) {
	t.Parallel()
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	c.mailAccount(box, nil)
	path := c.campaign(mailing(map[string]any{"list": people(3)}, nil))
	c.call("POST", path+"/start", nil).want(200)
	c.ended(path)
	links := map[string]string{}
	for _, a := range box.Accepted() {
		m, _ := a.Message()
		links[a.To[0]] = strings.TrimPrefix(strings.Trim(m.Header.Get("List-Unsubscribe"), "<>"), e.url)
	}
	list := func() *answer { return c.call("GET", "/api/suppressions", nil).want(200) }
	get := e.send("GET", links["p0000@example.com"], nil, nil).want(200)
	if !strings.Contains(string(get.Body), "<form method=\"post\">") || !strings.Contains(string(get.Body), "Acme") || get.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("page %s %v", get.Body, get.Header)
	}
	e.send("HEAD", links["p0000@example.com"], nil, nil).want(200)
	if l := list(); l.get("items.0") != nil {
		t.Fatalf("looking unsubscribed: %s", l.Body)
	}
	oneClick := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	for range 2 {
		e.send("POST", links["p0000@example.com"], "List-Unsubscribe=One-Click", oneClick).want(200)
	}
	e.send("POST", links["p0001@example.com"], nil, map[string]string{"Origin": "https://mail.example"}).want(200)
	if l := list(); l.get("items.0.reason") != "unsubscribed" || l.get("items.0.channel") != "email" || l.get("items.2") != nil || l.get("items.1") == nil {
		t.Errorf("suppressions %s", l.Body)
	}
	if n := c.counts(path); n["opted_out"] != 2 || n["sent"] != 3 {
		t.Errorf("counts %v", n)
	}
	if l := other.call("GET", "/api/suppressions", nil).want(200); l.get("items.0") != nil {
		t.Errorf("the other client's: %s", l.Body)
	}
	// what is none of ours
	token := strings.TrimPrefix(links["p0002@example.com"], "/u/")
	for _, bad := range []string{"x", token[:len(token)-2], token + "A", strings.ToUpper(token), url.PathEscape("../" + token), "AQRBQ01F"} {
		e.send("GET", "/u/"+bad, nil, nil).want(404)
		e.send("POST", "/u/"+bad, nil, nil).want(404)
	}
	// the next campaign passes them over; a rule's mail does not
	next := c.campaign(mailing(map[string]any{"list": people(3)}, nil))
	c.call("POST", next+"/start", nil).want(200)
	if n := c.ended(next); n["sent"] != 1 || n["suppressed"] != 2 {
		t.Errorf("counts %v", n)
	}
	c.call("POST", "/api/crm/automations/rules", mailRule(nil)).want(201)
	if run := c.runEnded(c.call("POST", "/api/crm/automations/events", mailEvent(1, map[string]any{"email": "p0000@example.com"})).want(202)); run.get("state") != "done" {
		t.Errorf("run %s", run.Body)
	}
	// suspended clients' mails can be unsubscribed from; and a deleted suppression lets write again
	e.admin("POST", "/api/clients/ACME/suspend", nil).want(200)
	e.send("POST", links["p0002@example.com"], nil, nil).want(200)
	e.admin("POST", "/api/clients/ACME/resume", nil).want(200)
	id := list().get("items.0.id").(string)
	other.call("DELETE", "/api/suppressions/"+id, nil).want(404)
	c.call("DELETE", "/api/suppressions/"+id, nil).want(204)
	if l := list(); l.get("items.2") != nil {
		t.Errorf("suppressions %s", l.Body)
	}
}

// A campaign whose server closes its connections again and again, bounces some, refuses some for now and loses an answer:
// each recipient ends as what became of it.
func TestCampaignMeetsTrouble(t *testing.T) {
	t.Parallel()
	const n = 150
	box := newMailServer(t, func(c *smtptest.Config) { c.MaxPerConnection = 20 })
	e := start(t, t.TempDir(), newMeta(t), private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	box.Recipient("p0003@example.com", smtptest.Reply(550, "5.1.1", "no such user"))
	box.Recipient("p0004@example.com", smtptest.Reply(552, "5.2.2", "full"))
	box.Recipient("p0005@example.com", smtptest.Reply(550, "5.7.1", "spam"))
	box.Recipient("p0006@example.com", smtptest.Reply(451, "4.7.1", "greylisted"))
	box.When(1, func(k smtptest.Command) bool { return k.Verb == "." && k.To == "p0007@example.com" }, smtptest.Accepting(smtptest.Reset()))
	box.When(1, func(k smtptest.Command) bool { return k.Verb == "." && k.To == "p0008@example.com" }, smtptest.Drop())
	path := c.campaign(mailing(map[string]any{"list": people(n)}, nil))
	c.call("POST", path+"/start", nil).want(200)
	eventuallyIn(t, 60*time.Second, "all but the greylisted are done", func() string {
		if k := c.counts(path); k["planned"] != 1 || k["sent"] != n-6 {
			return fmt.Sprint(k)
		}
		return ""
	})
	k := c.counts(path)
	if k["bounced"] != 2 || k["failed"] != 1 || k["unconfirmed"] != 2 {
		t.Errorf("counts %v", k)
	}
	once(t, box, n, map[string]bool{"p0003@example.com": true, "p0004@example.com": true, "p0005@example.com": true, "p0006@example.com": true, "p0008@example.com": true})
	for state, reason := range map[string]string{"failed": "5.7.1", "unconfirmed": "network", "planned": "4.7.1"} {
		if r := c.call("GET", path+"/recipients?state="+state, nil).want(200); r.get("items.0.reason") != reason {
			t.Errorf("%s: %s", state, r.Body)
		}
	}
	l := c.call("GET", "/api/suppressions", nil).want(200)
	if l.get("items.0.email") != "p0003@example.com" || l.get("items.0.reason") != "hard_bounce" || l.get("items.1") != nil {
		t.Errorf("suppressions %s", l.Body)
	}
	if d := box.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
}

// Mail that an operator let rest, and let go on again, goes on soon in campaigns, too.
func TestCampaignRestsWithTheMail(t *testing.T) {
	t.Parallel()
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	path := c.campaign(mailing(map[string]any{"list": people(200)}, map[string]any{"ratePerSecond": 40}))
	c.call("POST", path+"/start", nil).want(200)
	if _, err := box.WaitAccepted(within(20*time.Second), 10); err != nil {
		t.Fatal(err)
	}
	e.admin("POST", "/api/admin/lanes/pause", map[string]any{"scope": "ACME/mail"}).want(200)
	quiet(t, box, 2*time.Second)
	had := len(box.Accepted())
	if had >= 200 {
		t.Fatal("nothing was left to rest")
	}
	e.admin("POST", "/api/admin/lanes/resume", map[string]any{"scope": "ACME/mail"}).want(200)
	if _, err := box.WaitAccepted(within(10*time.Second), had+1); err != nil {
		t.Fatalf("it does not go on: %v", c.counts(path))
	}
	if k := c.ended(path); k["sent"] != 200 {
		t.Errorf("%v", k)
	}
	once(t, box, 200, nil)
}

// A pause and a cancellation take effect within a second; a resumption goes on where it was.
func TestCampaignPauseAndCancel(t *testing.T) {
	t.Parallel()
	const n = 400
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, map[string]any{"ratePerSecond": 100})
	path := c.campaign(mailing(map[string]any{"list": people(n)}, nil))
	c.call("POST", path+"/start", nil).want(200)
	if _, err := box.WaitAccepted(within(10*time.Second), 50); err != nil {
		t.Fatal(err)
	}
	if a := c.call("POST", path+"/pause", nil).want(200); a.get("state") != "paused" {
		t.Errorf("paused: %s", a.Body)
	}
	c.call("POST", path+"/pause", nil).want(200)
	paused := time.Now()
	last := quiet(t, box, time.Second)
	if late := last.Sub(paused); late > time.Second {
		t.Errorf("a mail went out %v after the pause", late)
	}
	at := len(box.Accepted())
	if at >= n || c.counts(path)["sent"] != at {
		t.Errorf("%d mails, counts %v", at, c.counts(path))
	}
	c.call("POST", path+"/resume", nil).want(200)
	if _, err := box.WaitAccepted(within(10*time.Second), at+50); err != nil {
		t.Fatal(err)
	}
	c.call("POST", path+"/cancel", nil).want(200)
	cancelled := time.Now()
	last = quiet(t, box, time.Second)
	if late := last.Sub(cancelled); late > time.Second {
		t.Errorf("a mail went out %v after the cancellation", late)
	}
	c.call("POST", path+"/resume", nil).want(409)
	if r := c.call("GET", path+"/recipients?state=cancelled", nil).want(200); r.get("items.0.state") != "cancelled" {
		t.Errorf("recipients %s", r.Body)
	}
	// evenly apart: never more in a second than the rate, and a little for where a second begins
	times := []time.Time{}
	for _, a := range box.Accepted() {
		times = append(times, a.At)
	}
	for i := range times {
		in := 0
		for _, u := range times[i:] {
			if u.Sub(times[i]) < time.Second {
				in++
			}
		}
		if in > 115 {
			t.Fatalf("%d mails in one second at a rate of 100", in)
		}
	}
	if d := box.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
}

// quiet waits until a server took nothing for a while, and gives when it took the last.
func quiet(t *testing.T, box *smtptest.Server, d time.Duration) time.Time {
	t.Helper()
	for {
		n := len(box.Accepted())
		ctx, cancel := context.WithTimeout(t.Context(), d)
		_, err := box.WaitAccepted(ctx, n+1)
		cancel()
		if err != nil {
			all := box.Accepted()
			return all[len(all)-1].At
		}
	}
}

// The process is killed in the middle, again and again: nobody is left out, nobody gets a mail twice, and whose answer was
// lost is told.
func TestCampaignCrash(t *testing.T) {
	t.Parallel()
	const n = 600
	box, meta, dir := newMailServer(t), newMeta(t), t.TempDir()
	p := serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	c := p.addClient("ACME", 1)
	c.mailAccount(box, map[string]any{"ratePerSecond": 300})
	path := c.campaign(mailing(map[string]any{"list": people(n)}, nil))
	c.call("POST", path+"/start", nil).want(200)
	for _, at := range []int{100, 300} {
		if _, err := box.WaitAccepted(within(60*time.Second), at); err != nil {
			t.Fatal(err)
		}
		p.kill()
		p = serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
		c.e = p.engine
	}
	k := c.ended(path)
	unknown := map[string]bool{}
	for _, r := range c.all(path + "/recipients") {
		switch r["state"] {
		case "sent":
		case "unconfirmed":
			unknown[r["address"].(string)] = true
		default:
			t.Errorf("recipient %v", r)
		}
	}
	if k["sent"]+k["unconfirmed"] != n || len(unknown) > 2*16 { // of each kill, what one commit had marked

		t.Errorf("counts %v", k)
	}
	once(t, box, n, unknown)
	if d := box.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	t.Logf("%v", k)
}

// The same as fast as it goes, where several are marked and settled in one commit: a crash leaves no more in doubt than
// are in flight at once.
func TestCampaignCrashAtFullSpeed(t *testing.T) {
	t.Parallel()
	const n, inFlight = 3000, 16
	box, meta, dir := newMailServer(t), newMeta(t), t.TempDir()
	p := serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	c := p.addClient("ACME", 1)
	c.mailAccount(box, nil)
	path := c.campaign(mailing(map[string]any{"list": people(n)}, nil))
	c.call("POST", path+"/start", nil).want(200)
	crashes := 0
	for _, at := range []int{300, 1500} {
		if _, err := box.WaitAccepted(within(60*time.Second), at); err != nil {
			t.Fatal(err)
		}
		p.kill()
		crashes++
		p = serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
		c.e = p.engine
	}
	k := c.ended(path)
	unknown := map[string]bool{}
	for _, r := range c.all(path + "/recipients") {
		if r["state"] == "unconfirmed" {
			unknown[r["address"].(string)] = true
		}
	}
	if k["sent"]+k["unconfirmed"] != n || len(unknown) != k["unconfirmed"] || len(unknown) > crashes*inFlight {
		t.Errorf("%d unconfirmed after %d crashes, counts %v", len(unknown), crashes, k)
	}
	once(t, box, n, unknown)
	if d := box.Duplicates(); len(d) > 0 {
		t.Errorf("sent twice: %v", d)
	}
	t.Logf("%v", k)
}

// What keeps a campaign from starting is told, and a scheduled one starts by itself.
func TestCampaignStart(t *testing.T) {
	t.Parallel()
	box := newMailServer(t)
	e := start(t, t.TempDir(), newMeta(t), private)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	path := c.campaign(mailing(map[string]any{"list": people(2)}, nil))
	if a := c.call("POST", path+"/start", nil).want(409); a.get("code") != "campaign.blocked" || a.get("blockers.0.code") != "smtp.not_configured" {
		t.Errorf("start %s", a.Body)
	}
	c.mailAccount(box, map[string]any{"host": "mail.example.com", "port": 587})
	if a := c.call("POST", path+"/start", nil).want(409); a.get("blockers.0.code") != "public_url.not_https" {
		t.Errorf("start %s", a.Body)
	}
	c.mailAccount(box, nil)
	for _, call := range []struct{ method, path string }{
		{"GET", path}, {"PATCH", path}, {"DELETE", path}, {"POST", path + "/start"}, {"POST", path + "/pause"}, {"POST", path + "/preflight"},
		{"POST", path + "/test"}, {"GET", path + "/stats"}, {"GET", path + "/recipients"},
	} {
		body := map[string]any{}
		if strings.HasSuffix(call.path, "/test") {
			body["to"] = "x@example.com"
		}
		if call.method == "GET" || call.method == "DELETE" || strings.HasSuffix(call.path, "/start") || strings.HasSuffix(call.path, "/pause") || strings.HasSuffix(call.path, "/preflight") {
			other.call(call.method, call.path, nil).want(404)
			continue
		}
		other.call(call.method, call.path, body).want(404)
	}
	when := time.Now().Add(1500 * time.Millisecond)
	a := c.call("PATCH", path, map[string]any{"schedule": when.UTC().Format(time.RFC3339Nano), "name": "Later"}).want(200)
	if a.get("state") != "scheduled" || a.get("name") != "Later" {
		t.Errorf("scheduled %s", a.Body)
	}
	if n := c.ended(path); n["sent"] != 2 || box.Accepted()[0].At.Before(when.Add(-50*time.Millisecond)) {
		t.Errorf("counts %v, first at %v of %v", n, box.Accepted()[0].At, when)
	}
	// one that is put off does not start at the first time
	put := c.campaign(mailing(map[string]any{"list": people(2)}, map[string]any{"schedule": time.Now().Add(700 * time.Millisecond).UTC().Format(time.RFC3339Nano)}))
	c.call("PATCH", put, map[string]any{"schedule": nil}).want(200)
	c.call("DELETE", put, nil).want(204)
	c.call("GET", put, nil).want(404)
	for _, bad := range []map[string]any{
		{"audience": map[string]any{}}, {"audience": map[string]any{"list": people(1), "leadIds": []string{"x"}}}, {"audience": map[string]any{"list": []any{"nobody"}}},
		{"content": map[string]any{"subject": "x"}}, {"content": map[string]any{"subject": "x", "text": "{{ bad-name }}"}}, {"content": map[string]any{"template": "x", "language": "en"}},
		{"channel": "fax"}, {"ratePerSecond": -1}, {"audience": map[string]any{"filter": map[string]any{"colour": "red"}}}, {"name": " "},
		{"schedule": "2020-01-01T00:00:00Z"}, {"audience": map[string]any{"list": []any{map[string]any{"mail": "x@example.com"}}}},
	} {
		if a := c.call("POST", "/api/campaigns", mailing(map[string]any{"list": people(1)}, bad)); a.Status != 422 || a.get("errors.0.pointer") == nil {
			t.Errorf("%v: %d %s", bad, a.Status, a.Body)
		}
	}
	if l := c.call("GET", "/api/campaigns", nil).want(200); l.get("items.0.name") != "Later" || l.get("items.1") != nil || l.get("items.0.audience.size") != 2.0 {
		t.Errorf("list %s", l.Body)
	}
}

// A link lasts when the operator's keys are rotated, and when the engine starts anew.
func TestLinksOutliveKeys(t *testing.T) {
	t.Parallel()
	box, meta, dir := newMailServer(t), newMeta(t), t.TempDir()
	old, fresh := secret.Generate("k1"), secret.Generate("k2")
	keys := func(ring string) func(*app.Config) {
		return func(c *app.Config) { c.SecretKeys, c.AllowPrivate = ring, true }
	}
	e := start(t, dir, meta, keys(old))
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	path := c.campaign(mailing(map[string]any{"list": people(1)}, nil))
	c.call("POST", path+"/start", nil).want(200)
	c.ended(path)
	m, err := box.Accepted()[0].Message()
	if err != nil {
		t.Fatal(err)
	}
	link := strings.TrimPrefix(strings.Trim(m.Header.Get("List-Unsubscribe"), "<>"), e.url)
	e.stop()
	e = start(t, dir, meta, keys(fresh+","+old))
	c.e = e
	e.send("POST", link, nil, nil).want(200)
	if n := c.counts(path); n["opted_out"] != 1 {
		t.Errorf("counts %v", n)
	}
}
