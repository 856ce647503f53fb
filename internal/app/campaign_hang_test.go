package app_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/smtp/smtptest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// hangs has a mail server never answer the mail to an address; what it gives is closed when that is so.
func hangs(box *smtptest.Server, address string) <-chan struct{} {
	met := make(chan struct{})
	box.When(1, func(k smtptest.Command) bool {
		if k.Verb != "." || k.To != address {
			return false
		}
		close(met)
		return true
	}, smtptest.Hang())
	return met
}

// some are the first items of a list that is asked for with a condition.
func (c *client) some(path string) []any {
	c.e.t.Helper()
	return c.call("GET", path+"&limit=100", nil).want(200).get("items").([]any)
}

// left waits until all of a campaign but some are sent, and those are on their way.
func (c *client) left(path string, n, sending int) {
	c.e.t.Helper()
	eventually(c.e.t, "the others get their mail", func() string {
		k := c.counts(path)
		if k["sent"] != n-sending || k["planned"] != sending {
			return fmt.Sprint(k)
		}
		return ""
	})
	if rs := c.some(path + "/recipients?state=sending"); len(rs) != sending {
		c.e.t.Errorf("on their way: %v", rs)
	}
}

// A mail without an answer holds up nobody else's, however often its campaign is paused meanwhile, and a process that is
// killed then leaves it as one whose answer was lost.
func TestCampaignGoesOnBesideAHangingMail(t *testing.T) {
	t.Parallel()
	const n = 300
	box, meta, dir := newMailServer(t), newMeta(t), t.TempDir()
	p := serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	c := p.addClient("ACME", 1)
	c.mailAccount(box, map[string]any{"ratePerSecond": 100})
	met := hangs(box, "p0010@example.com")
	path := c.campaign(mailing(map[string]any{"list": people(n)}, nil))
	c.call("POST", path+"/start", nil).want(200)
	select {
	case <-met:
	case <-time.After(15 * time.Second):
		t.Fatal("the mail did not come")
	}
	for range 12 { // each leaves a window, of which one is needed
		c.call("POST", path+"/pause", nil).want(200)
		c.call("POST", path+"/resume", nil).want(200)
	}
	eventually(t, "one window waits for the mail, and one goes on", func() string {
		if running := c.some("/api/jobs?type=campaign.window&state=running"); len(running) > 2 {
			return fmt.Sprint(len(running), " windows hold a worker")
		}
		return ""
	})
	c.left(path, n, 1)
	p.kill()
	p = serve(t, dir, meta, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	c.e = p.engine
	if k := c.ended(path); k["sent"] != n-1 || k["unconfirmed"] != 1 {
		t.Errorf("counts %v", k)
	}
	once(t, box, n, map[string]bool{"p0010@example.com": true})
}

// However many mails hang, a campaign leaves few of them behind; an engine that stops ends their calls, and tells those
// as lost, also when the campaign is cancelled.
func TestCampaignStopsWithHangingMails(t *testing.T) {
	t.Parallel()
	const n = 60
	box, dir, meta := newMailServer(t), t.TempDir(), newMeta(t)
	e := start(t, dir, meta, private)
	c := e.addClient("ACME", 1)
	c.mailAccount(box, nil)
	box.Next(-1, ".", smtptest.Hang())
	path := c.campaign(mailing(map[string]any{"list": people(n)}, nil))
	c.call("POST", path+"/start", nil).want(200)
	eventually(t, "nobody waits for the hands", func() string {
		rs := c.some(path + "/recipients?state=sending")
		if running := c.some("/api/jobs?type=campaign.window&state=running"); len(rs) == 0 || len(rs) > 4 || len(running) > 0 {
			return fmt.Sprint(len(rs), " on their way, running ", len(running))
		}
		return ""
	})
	c.call("POST", path+"/cancel", nil).want(200)
	sending := len(c.some(path + "/recipients?state=sending"))
	began := time.Now()
	e.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
	box.Behave()
	c.e = start(t, dir, meta, private)
	if k := c.counts(path); k["unconfirmed"] != sending || k["sent"] != 0 || sending > 4 {
		t.Errorf("%d were on their way, counts %v", sending, k)
	}
}

// A template that is paused in the middle of a campaign pauses that, whether a webhook tells or only Meta's answers do; once
// it is approved again and the campaign goes on, everybody gets one message.
func TestWhatsAppCampaignOutlivesAPausedTemplate(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprint("told ", told), func(t *testing.T) {
			t.Parallel()
			const n = 120
			meta := newMeta(t)
			e := start(t, t.TempDir(), meta)
			c := e.addClient("ACME", 1)
			trouble := "whatsapp.132015"
			if told {
				trouble = "whatsapp.template_not_approved"
				id := c.call("POST", "/api/whatsapp/templates/sync", nil).want(202).get("jobId").(string)
				eventually(t, "the templates are known", func() string {
					if j := c.call("GET", "/api/jobs/"+id, nil).want(200); j.get("state") != "succeeded" {
						return string(j.Body)
					}
					return ""
				})
			}
			path := c.campaign(templated(n, map[string]any{"ratePerSecond": 40}))
			c.call("POST", path+"/start", nil).want(200)
			if _, err := meta.WaitAccepted(within(takeover), 60); err != nil {
				t.Fatal(err)
			}
			status := func(event string) {
				change := meta.TemplateStatus(c.WABA, "appointment_confirmed", "en", event)
				if told {
					e.webhook(whatsapptest.Batch(change)).want(200)
				}
			}
			status("PAUSED")
			eventually(t, "the campaign is paused", func() string {
				a := c.call("GET", path, nil).want(200)
				if told && a.get("trouble.code") == "whatsapp.132015" {
					return "" // Meta's answer was faster than its webhook
				}
				if a.get("state") != "paused" || a.get("trouble.code") != trouble {
					return string(a.Body) + fmt.Sprint(c.counts(path))
				}
				return ""
			})
			if told {
				eventually(t, "a resumption is refused", func() string {
					if a := c.call("POST", path+"/resume", nil); a.Status != 409 {
						return string(a.Body)
					}
					return ""
				})
			}
			if k := c.counts(path); k["failed"] != 0 {
				t.Errorf("counts %v", k)
			}
			status("APPROVED")
			eventually(t, "it goes on", func() string {
				if a := c.call("POST", path+"/resume", nil); a.Status != 200 {
					return string(a.Body)
				}
				return ""
			})
			if k := c.ended(path); k["sent"] != n || k["failed"] != 0 {
				t.Errorf("counts %v", k)
			}
			if got := len(meta.Accepted()); got != n {
				t.Errorf("%d messages", got)
			}
			if d := meta.Duplicates(); len(d) > 0 {
				t.Errorf("sent twice: %v", d)
			}
		})
	}
}
