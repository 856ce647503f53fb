package sandbox

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// answerAfter is how long customers take to answer.
const answerAfter = 1500 * time.Millisecond

// Run lets the world go on until ctx ends: about every wait somebody books, buys, writes or asks; customers answer what
// they are sent; campaigns begin anew. report is told what went wrong, by several goroutines, once each.
func (w *World) Run(ctx context.Context, wait time.Duration, report func(error)) {
	tell := func(err error) {
		if err != nil && ctx.Err() == nil {
			report(err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { w.answers(ctx, tell) })
	wg.Go(func() { w.watch(ctx, tell) })
	wg.Go(func() {
		for n := 0; pause(ctx, wait); n++ {
			tell(w.step(ctx, n))
		}
	})
	wg.Wait()
}

// step is what happens next: the same in every demo.
func (w *World) step(ctx context.Context, n int) error {
	c, turn := w.Clients[n%len(w.Clients)], n/len(w.Clients)
	p := c.person((turn/8 + turn%8*3) % oftener) // so that everybody comes to everything, and nobody too often for a rule
	switch turn % 8 {
	case 0, 4:
		return w.business(ctx, c, p, turn)
	case 1:
		return w.says(ctx, c, p, "How much is it?")
	case 2:
		return w.form(ctx, c, turn/8)
	case 3:
		return w.shows(ctx, c, p, turn/8)
	case 5:
		return w.reply(ctx, c)
	case 6:
		return w.reschedule(ctx, c, p)
	default:
		return w.tidy(ctx, c)
	}
}

// business is what a client lives of: a booking, or an order.
func (w *World) business(ctx context.Context, c *Client, p person, turn int) error {
	trigger, variables := "product_purchased", obj{"customer": p.name, "product": []string{"two lamps", "a garden chair", "a kettle"}[turn%3], "amount": 40 + 80*(turn/4%3)}
	if c.Code == "CLINIC" {
		if err := w.says(ctx, c, p, "I would like to see a doctor"); err != nil {
			return err
		}
		at := time.Now().Add(time.Duration(20+turn%60) * time.Minute)
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			return err
		}
		trigger, variables = "appointment_confirmed", obj{"patientName": p.name, "doctorName": []string{"Dr. Arjun", "Dr. Rao", "Dr. Silva"}[turn%3],
			"time": at.In(zone).Format("Monday 15:04"), "startsAt": at.UTC().Format(time.RFC3339)}
	}
	return w.event(ctx, c, trigger, p, variables)
}

// form is somebody on the website, known or new.
func (w *World) form(ctx context.Context, c *Client, turn int) error {
	return w.event(ctx, c, "form_submitted", c.person(known+turn%(crowd-known)), obj{"page": "contact"})
}

func (w *World) event(ctx context.Context, c *Client, trigger string, p person, variables obj) error {
	return w.call(ctx, c, http.MethodPost, "/api/crm/automations/events", obj{
		"trigger": trigger, "phone": p.phone, "email": p.email, "variables": variables, "createLeadIfMissing": true,
		"leadData": obj{"source": "website", "name": p.name},
	}, nil)
}

// reply is somebody at the client who answers the customer that wrote last.
func (w *World) reply(ctx context.Context, c *Client) error {
	var open struct {
		Items []struct {
			ID              string
			WindowExpiresAt *time.Time
		}
	}
	if err := w.call(ctx, c, http.MethodGet, "/api/whatsapp/conversations?unread=true&limit=5", nil, &open); err != nil {
		return err
	}
	for _, o := range open.Items {
		if o.WindowExpiresAt == nil || time.Until(*o.WindowExpiresAt) < time.Minute {
			continue
		}
		if err := w.call(ctx, c, http.MethodPost, "/api/whatsapp/conversations/"+o.ID+"/read", nil, nil); err != nil {
			return err
		}
		return w.call(ctx, c, http.MethodPost, "/api/whatsapp/messages", obj{"conversationId": o.ID, "type": "text", "text": "Thank you for writing. We are here until six."}, nil)
	}
	return nil
}

// reschedule moves the next appointment of all by some minutes, or books one if there are few.
func (w *World) reschedule(ctx context.Context, c *Client, p person) error {
	var next struct {
		Items []struct {
			ID       string
			StartsAt time.Time
		}
	}
	from := url.QueryEscape(time.Now().Add(5 * time.Minute).UTC().Format(time.RFC3339))
	if err := w.call(ctx, c, http.MethodGet, "/api/appointments?status=confirmed&limit=10&from="+from, nil, &next); err != nil {
		return err
	}
	if len(next.Items) < 10 {
		return w.appoint(ctx, c, p, 12*time.Minute, "-11m", "-2m")
	}
	err := w.call(ctx, c, http.MethodPatch, "/api/appointments/"+next.Items[0].ID, obj{"startsAt": next.Items[0].StartsAt.Add(30 * time.Minute).UTC().Format(time.RFC3339)}, nil)
	if refused(err, http.StatusConflict) {
		return nil // the client cancelled it a moment ago
	}
	return err
}

// tidy begins the campaigns anew when they are done, and lets the calendar forget what is over.
func (w *World) tidy(ctx context.Context, c *Client) error {
	for _, e := range w.Google.Events(c.Calendar) {
		if e.End.Before(time.Now()) {
			w.Google.Forget(c.Calendar, e.ID)
		}
	}
	var running struct{ Items []struct{} }
	if err := w.call(ctx, c, http.MethodGet, "/api/campaigns?state=running&limit=1", nil, &running); err != nil || len(running.Items) > 0 {
		return err
	}
	return w.campaign(ctx, c)
}

// answers lets customers answer what they are sent.
func (w *World) answers(ctx context.Context, tell func(error)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for seen := 0; ; {
		var fresh []whatsapptest.Accepted
		if w.Meta.Wait(ctx, func() bool {
			fresh = fresh[:0]
			for _, a := range w.Meta.Accepted() {
				if a.Seq > seen {
					fresh = append(fresh, a)
				}
			}
			return len(fresh) > 0
		}) != nil {
			return
		}
		for _, a := range fresh {
			seen = a.Seq
			c, p := w.whose(a)
			if line := answer(a); c != nil && line != "" {
				wg.Go(func() {
					if pause(ctx, answerAfter) {
						tell(w.says(ctx, c, p, line))
					}
				})
			}
		}
	}
}

// whose finds who was written to by whom; nil if that is nobody of the play, such as the number of a trial.
func (w *World) whose(a whatsapptest.Accepted) (*Client, person) {
	for _, c := range w.Clients {
		if c.Number != a.PhoneNumberID {
			continue
		}
		for _, p := range c.people {
			if p.phone == a.WAID {
				return c, p
			}
		}
	}
	return nil, person{}
}

// answer is what a customer says to a message; "" for nothing. Nobody asks back, so that nobody talks without end.
func answer(a whatsapptest.Accepted) string {
	var lines []string
	switch {
	case a.Type == "text": // somebody wrote this, who would like to see that it arrived
		lines = []string{"Thank you!", "Great, see you then.", "Perfect, thanks.", "All right, thank you."}
	case a.Template == "welcome" && a.Seq%2 == 0:
		lines = []string{"Thanks, that is kind.", "I was only looking, thank you."}
	case a.Template == "appointment_confirmed" && a.Seq%2 == 0, a.Template == "review_request":
		lines = []string{"Very good!", "Thanks a lot."}
	case (a.Template == "spring_checkup" || a.Template == "garden_sale") && a.Seq%3 == 0:
		lines = []string{"Sounds good!", "Not now, thank you."}
	default:
		return ""
	}
	return lines[a.Seq%len(lines)]
}

// watch reports what the engine failed at.
func (w *World) watch(ctx context.Context, tell func(error)) {
	told := map[string]bool{}
	for pause(ctx, 3*time.Second) {
		for _, err := range w.Troubles(ctx) {
			if !told[err.Error()] && len(told) < 1000 {
				told[err.Error()] = true
				tell(err)
			}
		}
	}
}

// Troubles is what the engine failed at so far: work given up or held, messages sent twice, webhooks not taken.
func (w *World) Troubles(ctx context.Context) (out []error) {
	for _, c := range w.Clients {
		for _, q := range []struct{ what, path string }{
			{"job", "/api/jobs?state=dead"}, {"job", "/api/jobs?state=parked"}, {"job", "/api/jobs?state=expired"},
			{"run", "/api/crm/automations/runs?state=failed"}, {"run", "/api/crm/automations/runs?state=held"},
			{"delivery", "/api/whatsapp/deliveries?state=failed"}, {"campaign", "/api/campaigns?state=paused"},
		} {
			var bad struct {
				Items []struct {
					ID, Type, State string
					Error, Trouble  *struct{ Code string }
					Held            *struct{ Reason string }
				}
			}
			if err := w.call(ctx, c, http.MethodGet, q.path, nil, &bad); err != nil {
				out = append(out, err)
				continue
			}
			for _, b := range bad.Items {
				why := b.Error
				if why == nil {
					why = b.Trouble
				}
				if why == nil && b.Held != nil {
					why = &struct{ Code string }{b.Held.Reason}
				}
				if why == nil {
					why = &struct{ Code string }{"no reason given"}
				}
				if why.Code == "run_over" { // a customer's answer ended the run before it sent this
					continue
				}
				out = append(out, fmt.Errorf("%s: %s %s %s is %s: %s", c.Code, q.what, b.Type, b.ID, b.State, why.Code))
			}
		}
	}
	for id, n := range w.Meta.Duplicates() {
		out = append(out, fmt.Errorf("message %s was sent %d times", id, n))
	}
	for id, n := range w.Mail.Duplicates() {
		out = append(out, fmt.Errorf("mail %s was sent %d times", id, n))
	}
	for _, d := range w.Meta.Deliveries() {
		if d.Status != http.StatusOK {
			out = append(out, fmt.Errorf("a webhook at %s was answered %d %s", d.At.Format(time.TimeOnly), d.Status, d.Err))
		}
	}
	return out
}
