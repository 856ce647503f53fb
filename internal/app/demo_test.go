package app_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/sandbox"
)

// demo is the demo's world around a running engine, going on until the test ends.
type demo struct {
	*engine
	world *sandbox.World
	end   func()

	mu      sync.Mutex
	reports []string
}

// startDemo starts the demo as `ecod demo` does. wait is between two customers; 0: nobody comes after the beginning.
func startDemo(t *testing.T, wait time.Duration) *demo {
	t.Helper()
	world, err := sandbox.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(world.Close)
	d := &demo{world: world, end: func() {}}
	d.engine = start(t, t.TempDir(), world.Meta, private, func(c *app.Config) {
		c.MetaAppSecret, c.MetaVerifyToken, c.GoogleURL = sandbox.AppSecret, sandbox.VerifyToken, world.Google.URL
	})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	if err := world.Populate(ctx, d.url, d.token); err != nil {
		t.Fatal(err)
	}
	if wait > 0 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			world.Run(ctx, wait, func(err error) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.reports = append(d.reports, err.Error())
			})
		}()
		d.end = sync.OnceFunc(func() { cancel(); <-done })
		t.Cleanup(d.end)
	}
	return d
}

// of speaks as one of the demo's clients.
func (d *demo) of(code string) (*client, *sandbox.Client) {
	d.t.Helper()
	i := slices.IndexFunc(d.world.Clients, func(c *sandbox.Client) bool { return c.Code == code })
	if i < 0 {
		d.t.Fatalf("the demo has no client %s", code)
	}
	c := d.world.Clients[i]
	return &client{e: d.engine, Code: c.Code, Key: c.Key, Number: c.Number}, c
}

// TestDemo: all that the product does happens in the demo, and nothing of it goes wrong.
func TestDemo(t *testing.T) {
	t.Parallel()
	d := startDemo(t, 150*time.Millisecond)
	clinic, cast := d.of("CLINIC")
	shop, _ := d.of("SHOP")
	happens := func(what string, check func() string) {
		t.Helper()
		eventuallyIn(t, 2*time.Minute, what, check) // who answers, and who does not, is left to chance
	}
	accepted := func(c *client, template, text string) func() string {
		return func() string {
			for _, a := range d.meta.Accepted() {
				if a.PhoneNumberID == c.Number && a.Template == template && strings.Contains(a.Text, text) {
					return ""
				}
			}
			return fmt.Sprintf("none of %d messages", len(d.meta.Accepted()))
		}
	}
	mailed := func(from, subject, header string) func() string {
		return func() string {
			for _, a := range d.world.Mail.Accepted() {
				s, _ := mailText(t, a)
				m, err := a.Message()
				if err == nil && a.User == from && strings.Contains(s, subject) && (header == "" || m.Header.Get(header) != "") {
					return ""
				}
			}
			return fmt.Sprintf("none of %d mails", len(d.world.Mail.Accepted()))
		}
	}
	there := func(c *client, path, member string, ok func(any) bool) func() string {
		return func() string {
			a := c.call("GET", path, nil).want(200)
			items, _ := a.get("items").([]any)
			for i := range items {
				if ok(a.get(fmt.Sprint("items.", i, ".", member))) {
					return ""
				}
			}
			return fmt.Sprintf("no %s in %.300s", member, a.Body)
		}
	}
	is := func(want any) func(any) bool { return func(got any) bool { return got == want } }
	some := func(got any) bool { return got != nil && got != "" && got != 0.0 }

	// leads, their points, tags and stages
	happens("a scored lead", there(clinic, "/api/crm/leads?sort=-score&limit=1", "score", func(s any) bool { return s != nil && s.(float64) >= 30 }))
	happens("a tag made by a rule", there(clinic, "/api/crm/leads?tag=hot&tag=replied", "name", some))
	happens("a stage made by a rule", there(clinic, "/api/crm/leads?pipeline=treatments&stage=booked", "fields.doctor", some))
	happens("a big order", there(shop, "/api/crm/leads?tag=big%20order", "name", some))

	// a booking: template, mail, calendar, the link in a text
	happens("the template", accepted(clinic, "appointment_confirmed", "your appointment with Dr."))
	happens("the mail", mailed(cast.Mailbox, "Your appointment with Dr.", ""))
	happens("the text with the link", accepted(clinic, "", "by video: https://meet.google.com/"))
	happens("the calendar event", func() string {
		for _, e := range d.world.Google.Events(cast.Calendar) {
			if strings.HasPrefix(e.Summary, "Dr.") && e.Conference != nil && strings.HasPrefix(e.Conference.URL, "https://") {
				return ""
			}
		}
		return fmt.Sprintf("%d events", len(d.world.Google.Events(cast.Calendar)))
	})
	happens("an appointment with its link", there(clinic, "/api/appointments", "meetUrl", some))
	happens("a reminder", accepted(clinic, "appointment_reminder", "Join here: https://meet.google.com/"))
	happens("an order's mail", mailed("orders@corner.example", "Your order: ", ""))

	// conversations: answers, ticks, pictures
	happens("an answer by rule", accepted(clinic, "", "A first consultation is 500 rupees"))
	happens("an answer by a person", accepted(clinic, "", "We are here until six"))
	conversations := clinic.call("GET", "/api/whatsapp/conversations", nil).want(200)
	message := func(what string, ok func(m map[string]any) bool) (found map[string]any) {
		t.Helper()
		happens(what, func() string {
			conversations = clinic.call("GET", "/api/whatsapp/conversations", nil).want(200)
			items, _ := conversations.get("items").([]any)
			for i := range items {
				var list struct{ Items []map[string]any }
				clinic.call("GET", fmt.Sprintf("/api/whatsapp/conversations/%s/messages", conversations.get(fmt.Sprint("items.", i, ".id"))), nil).want(200).into(&list)
				for _, m := range list.Items {
					if ok(m) {
						found = m
						return ""
					}
				}
			}
			return fmt.Sprintf("none in %d conversations", len(items))
		})
		return found
	}
	message("a message that was read", func(m map[string]any) bool { return m["direction"] == "out" && m["status"] == "read" })
	message("a customer who answers", func(m map[string]any) bool { return m["direction"] == "in" && m["text"] == "Thank you!" })
	picture := message("a picture in the archive", func(m map[string]any) bool {
		media, _ := m["media"].(map[string]any)
		return m["direction"] == "in" && media["status"] == "stored"
	})
	thumb := clinic.call("GET", fmt.Sprintf("/api/media/%s/thumbnail", picture["media"].(map[string]any)["id"]), nil).want(200)
	if !strings.HasPrefix(thumb.Header.Get("Content-Type"), "image/") || len(thumb.Body) < 500 {
		t.Errorf("the thumbnail is %d bytes of %s", len(thumb.Body), thumb.Header.Get("Content-Type"))
	}

	// campaigns that run, slowly
	happens("the campaign's mail", mailed(cast.Mailbox, "spring check-ups are open", "List-Unsubscribe"))
	happens("the campaign's template", accepted(clinic, "spring_checkup", "spring check-ups are open"))
	for _, c := range []*client{clinic, shop} {
		for _, channel := range []string{"email", "whatsapp"} {
			happens(c.Code+"'s campaign by "+channel, func() string {
				list := c.call("GET", "/api/campaigns", nil).want(200)
				items, _ := list.get("items").([]any)
				for i := range items {
					if list.get(fmt.Sprint("items.", i, ".channel")) != channel {
						continue
					}
					n := c.counts(fmt.Sprint("/api/campaigns/", list.get(fmt.Sprint("items.", i, ".id"))))
					if n["sent"] >= 3 && (channel == "email" || n["read"] >= 1) {
						return ""
					}
				}
				return string(list.Body)
			})
		}
	}

	// automation: waits, follow-ups, exits
	const runs = "/api/crm/automations/runs"
	happens("a run that waits", there(clinic, runs+"?state=waiting", "waitUntil", some))
	happens("a run left because somebody answered", there(clinic, runs+"?state=exited", "exitReason", is("reply")))
	happens("a follow-up after the wait", accepted(clinic, "follow_up", "do you still have a question"))
	happens("a review asked for after the wait", accepted(shop, "review_request", "how do you like"))
	happens("jobs passing by", there(clinic, "/api/jobs?type=whatsapp.send", "state", is("succeeded")))

	d.end()
	if bad := d.world.Troubles(t.Context()); len(bad) > 0 || len(d.reports) > 0 {
		t.Errorf("went wrong: %v; was reported: %v", bad, d.reports)
	}
}

// TestDemoTellsTroubles: what the engine fails at in the demo is told, not hidden.
func TestDemoTellsTroubles(t *testing.T) {
	t.Parallel()
	d := startDemo(t, 100*time.Millisecond)
	_, cast := d.of("CLINIC")
	d.world.Google.Revoke("refresh-of-200000000000001")
	eventuallyIn(t, takeover, "the report", func() string {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !slices.ContainsFunc(d.reports, func(s string) bool { return strings.Contains(s, cast.Code) && strings.Contains(s, "meet.create") }) {
			return fmt.Sprint(d.reports)
		}
		return ""
	})
}
