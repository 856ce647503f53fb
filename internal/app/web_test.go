package app_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

const evil = `<img src=x onerror="document.title='taken over'">`

// quoted is a text as a literal of JavaScript.
func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// onPage is true in a page where an element shows a text.
func onPage(selector, text string) string {
	return fmt.Sprintf(`Array.from(document.querySelectorAll(%s)).some((e) => e.checkVisibility() && e.innerText.includes(%s))`, quoted(selector), quoted(text))
}

// signIn fills the form and sends it by the Enter key.
func (b *browser) signIn(code, email, password string) {
	b.t.Helper()
	b.fill("[name=clientCode]", code)
	b.fill("[name=email]", email)
	b.fill("[name=password]", password+"\n")
}

// chat opens the conversation of somebody.
func (b *browser) chat(name string) {
	b.t.Helper()
	b.until("the conversation of "+name, onPage("#conversations button", name))
	b.do("open it", chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`Array.from(document.querySelectorAll('#conversations button')).find((e) => e.innerText.includes(%s)).click()`, quoted(name))))
	b.until("the thread of "+name, fmt.Sprintf(`document.getElementById('thread-name').innerText.includes(%s) && document.querySelectorAll('#messages li').length > 0`, quoted(name)))
}

func (d *demo) receive(changes ...whatsapptest.Change) {
	d.t.Helper()
	if err := d.meta.Receive(within(10*time.Second), changes...); err != nil {
		d.t.Fatal(err)
	}
}

// TestDashboard goes through the page at / as its users do, in Chromium, against the demo's world.
func TestDashboard(t *testing.T) {
	t.Parallel()
	chromium(t)
	d := startDemo(t, 0)
	clinic, cast := d.of("CLINIC")
	const stranger = "918143970001"
	clinic.call("POST", "/api/crm/leads", map[string]any{"name": evil, "phone": stranger, "tags": []string{evil[:40]}}).want(201)
	d.receive(d.meta.InboundText(clinic.Number, stranger, evil, evil+"<script>document.title='taken over'</script>"))

	b := open(t, d.url)
	b.until("the form", onPage("#enter", "Sign in"))
	b.shot("sign-in")
	b.signIn("CLINIC", cast.User.Email, "not the password")
	b.until("the refusal", onPage("#why", "is not right"))
	b.signIn("clinic", cast.User.Email, cast.User.Password)
	b.until("live", `document.getElementById('state').className === 'live'`)
	b.do("mark the page", chromedp.Evaluate[chromedp.Void](`window.same = true`))

	// what is there already
	b.until("leads", `document.querySelectorAll('#leads tr').length >= 24`)
	b.until("a lead", onPage("#leads tr", "Priya Nair"))
	b.until("its tags", onPage("#leads .chip", "newsletter"))
	b.until("an appointment's link", `Array.from(document.querySelectorAll('#appointments a')).some((a) => a.href.startsWith('https://meet.google.com/') && a.rel.includes('noopener'))`)
	b.until("runs", onPage("#runs li", "Points for new leads"))
	b.until("jobs", `document.querySelectorAll('#jobs li').length > 5`)
	b.until("campaigns", onPage("#campaigns li", "Spring check-up by WhatsApp"))

	// what a customer wrote stays a text
	b.chat("<img src=x")
	b.until("markup as text", onPage("#messages li", evil+"<script>"))
	b.until("a lead's name as text", onPage("#leads strong", evil))
	if n := eval[int](b, `document.querySelectorAll('img[src=x], #board script').length`); n != 0 || eval[string](b, `document.title`) != "ecod: CLINIC" {
		t.Errorf("%d elements came of a customer's text; the title is %q", n, eval[string](b, `document.title`))
	}

	// a message comes in, an answer goes out, its ticks come
	b.chat("Ana Rao")
	d.receive(d.meta.InboundText(clinic.Number, "918143961001", "Ana Rao", "Are you there?"))
	b.until("a message that comes in", onPage("#messages li.in", "Are you there?"))
	b.until("it is read", `!Array.from(document.querySelectorAll('#conversations button')).some((e) => e.innerText.includes('Ana Rao') && e.innerText.includes('new'))`)
	b.do("watch the ticks", chromedp.Evaluate[chromedp.Void](`window.ticks = new Set();
		new MutationObserver(() => { for (const li of document.querySelectorAll('#messages li.out')) if (li.innerText.includes('From the page')) window.ticks.add(li.querySelector('[class^=status]').innerText.trim().split(' ').pop()); })
			.observe(document.getElementById('messages'), { childList: true, subtree: true, characterData: true })`))
	b.fill("#reply-text", "From the page\n")
	b.until("sent, delivered and read", `['sent', 'delivered', 'read'].every((s) => window.ticks.has(s)) && `+onPage("#messages li.out", "✓✓ read"))
	b.until("the box is empty", `document.getElementById('reply-text').value === ''`)
	var sent []string
	for _, a := range d.meta.Accepted() {
		if a.Type == "text" && a.WAID == "918143961001" {
			sent = append(sent, a.Text)
		}
	}
	if got := strings.Join(sent, "|"); got != "From the page" {
		t.Errorf("Meta got %q", got)
	}

	// pictures
	b.chat("Dhanesh Kumar")
	b.until("the picture", `Array.from(document.querySelectorAll('#messages img')).some((i) => i.naturalWidth > 50 && i.alt.includes('Like this one'))`)
	b.shot("desktop")

	// a customer who never wrote can be sent templates only
	clinic.call("POST", "/api/crm/automations/events", map[string]any{"trigger": "form_submitted", "phone": "918143970002", "createLeadIfMissing": true,
		"variables": map[string]any{}, "leadData": map[string]any{"name": "Silent Sue"}}).want(202)
	b.chat("Silent Sue")
	b.until("the closed window", onPage("#window", "24-hour window is closed")+` && document.getElementById('reply-text').disabled`)
	b.until("a run that waits", onPage("#runs li", "waiting"))
	b.until("the new lead", onPage("#leads strong", "Silent Sue"))

	// a campaign gets on
	const done = `Number(/(\d+) of/.exec(Array.from(document.querySelectorAll('#campaigns li')).find((e) => e.innerText.includes('by e-mail')).innerText)[1])`
	now := eval[int](b, done)
	b.until("the campaign gets on", fmt.Sprintf(`%s > %d`, done, now))

	// after a break the page catches up
	b.chat("Ana Rao")
	b.do("watch the state", chromedp.Evaluate[chromedp.Void](`window.states = []; new MutationObserver(() => window.states.push(document.getElementById('state').innerText)).observe(document.getElementById('state'), { childList: true })`))
	d.app.Hub.Drop("CLINIC")
	b.until("the break", `window.states.some((s) => s.includes('connection lost'))`)
	d.receive(d.meta.InboundText(clinic.Number, "918143961001", "Ana Rao", "In the gap"))
	b.until("back", `document.getElementById('state').className === 'live'`)
	b.until("what came in the gap", onPage("#messages li.in", "In the gap"))
	if !eval[bool](b, `window.same === true`) {
		t.Error("the page was loaded anew")
	}

	// for everybody: names, contrast, a phone's width, the keyboard
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		if bad := eval[[]string](b, unreadable); len(bad) > 0 {
			t.Errorf("hard to read in the %s scheme: %q", scheme, bad)
		}
	}
	b.shot("desktop-dark")
	b.scheme("light")
	if bad := eval[[]string](b, nameless); len(bad) > 0 {
		t.Errorf("without a name: %q", bad)
	}
	b.do("a phone", chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
	if wide := eval[int](b, `document.documentElement.scrollWidth`); wide > 390 {
		t.Errorf("on a phone the page is %d wide", wide)
	}
	b.shot("phone")
	b.do("a desktop", chromedp.EmulateViewport(1280, 1000))
	b.do("to a conversation by keyboard", chromedp.Focus(chromedp.CSS("#conversations button")), chromedp.KeyEvent("\r"))
	b.until("opened", `document.querySelector('#conversations button[aria-current=true]') !== null`)

	// the session is ended elsewhere
	users := d.admin("GET", "/api/clients/CLINIC/users", nil).want(200)
	user := users.get("items.0.id").(string)
	d.admin("PATCH", "/api/clients/CLINIC/users/"+user, map[string]any{"password": "another password of hers"}).want(200)
	b.until("back to the form", onPage("#why", "Your session has ended")+` && !document.getElementById('board').checkVisibility()`)
	if left := eval[string](b, `document.getElementById('board').innerText + document.getElementById('messages').textContent`); strings.Contains(left, "Ana") {
		t.Errorf("what was shown is still in the page: %.200s", left)
	}

	// who may only read is not offered to write; signing out ends the session
	d.admin("POST", "/api/clients/CLINIC/users", map[string]any{"email": "v@sunrise.example", "password": "viewer of the clinic", "name": "Vic", "role": "viewer"}).want(201)
	b.signIn("CLINIC", "v@sunrise.example", "viewer of the clinic")
	b.chat("Ana Rao")
	b.until("no box", onPage("#window", "You may read, and not write")+` && !document.getElementById('reply').checkVisibility()`)
	b.do("load again", chromedp.Reload())
	b.until("still signed in", `document.getElementById('state').className === 'live'`)
	b.do("sign out", chromedp.Click(chromedp.CSS("#leave")))
	b.until("signed out", `document.getElementById('enter').checkVisibility() && document.getElementById('why').innerText === ''`)
	b.do("load again", chromedp.Reload())
	b.until("still signed out", onPage("#enter", "Sign in"))

	u, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	// the browser itself writes down each answer that is 401; that is how the page learns that it is signed out
	b.behaved(u.Host, "401 (Unauthorized) "+d.url+"/api/")
}
