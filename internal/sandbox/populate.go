package sandbox

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// Populate registers the example clients with a running engine, and gives them all that they work with.
func (w *World) Populate(ctx context.Context, engine, adminToken string) error {
	w.engine, w.token = engine, adminToken
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range w.Clients {
		g.Go(func() error {
			for _, step := range []func(context.Context, *Client) error{w.register, w.furnish, w.fill, w.chat, w.book, w.campaign} {
				if err := step(ctx, c); err != nil {
					return fmt.Errorf("%s: %w", c.Code, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// register makes the client, its accounts and its user.
func (w *World) register(ctx context.Context, c *Client) error {
	w.Meta.SetWebhook(c.waba, w.engine+"/api/whatsapp/webhook")
	var made struct {
		APIKey string `json:"apiKey"`
	}
	if err := w.admin(ctx, http.MethodPost, "/api/clients", obj{"clientCode": c.Code, "name": c.Name, "timeZone": c.zone, "defaultCountry": c.country}, &made); err != nil {
		return err
	}
	c.Key = made.APIKey
	host, port := w.Mail.HostPort()
	for name, account := range map[string]obj{
		"whatsapp": {"wabaId": c.waba, "phoneNumberIds": []string{c.Number}, "accessToken": c.token},
		"smtp":     {"host": host, "port": port, "security": "none", "username": c.Mailbox, "password": mailPassword, "from": c.Mailbox, "fromName": c.Name},
		"google":   {"clientId": googleID, "clientSecret": googleSecret, "refreshToken": c.refresh()},
	} {
		if err := w.admin(ctx, http.MethodPut, "/api/clients/"+c.Code+"/secrets/"+name, account, nil); err != nil {
			return err
		}
	}
	return w.admin(ctx, http.MethodPost, "/api/clients/"+c.Code+"/users",
		obj{"email": c.User.Email, "password": c.User.Password, "name": c.User.Name, "role": "owner"}, nil)
}

// furnish brings templates, a pipeline and rules.
func (w *World) furnish(ctx context.Context, c *Client) error {
	if err := w.call(ctx, c, http.MethodPost, "/api/whatsapp/templates/sync", obj{}, nil); err != nil {
		return err
	}
	if err := w.call(ctx, c, http.MethodPost, "/api/crm/pipelines", c.pipeline, nil); err != nil {
		return err
	}
	for _, r := range c.rules {
		if err := w.call(ctx, c, http.MethodPost, "/api/crm/automations/rules", r, nil); err != nil {
			return err
		}
	}
	for { // the sync is a job
		var templates struct{ Items []struct{} }
		if err := w.call(ctx, c, http.MethodGet, "/api/whatsapp/templates", nil, &templates); err != nil {
			return err
		}
		if len(templates.Items) == len(c.templates) {
			return nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// fill brings leads.
func (w *World) fill(ctx context.Context, c *Client) error {
	stages, _ := c.pipeline["stages"].([]obj)
	for i, p := range c.people[:known] {
		tags := []string{"newsletter"}
		if i%4 != 3 || i == mute {
			tags = append(tags, "offers")
		}
		if i%7 == 0 {
			tags = append(tags, "vip")
		}
		if err := w.call(ctx, c, http.MethodPost, "/api/crm/leads", obj{
			"name": p.name, "phone": p.phone, "email": p.email, "source": []string{"website", "referral", "walk-in"}[i%3], "tags": tags,
			"pipeline": c.pipeline["id"], "stage": stages[i%3]["id"], "value": 50 * (1 + i%9), "currency": map[string]string{"IN": "INR", "US": "USD"}[c.country],
		}, nil); err != nil {
			return err
		}
	}
	return nil
}

// chat begins conversations: some write, one sends a picture, one wants no messages.
func (w *World) chat(ctx context.Context, c *Client) error {
	for i, line := range []string{"Hello, are you open on Saturday?", "How much is it?", "Thank you for yesterday!", "Can I come an hour later?"} {
		if err := w.says(ctx, c, c.person(3*i), line); err != nil {
			return err
		}
	}
	if err := w.shows(ctx, c, c.person(1), 0); err != nil {
		return err
	}
	return w.says(ctx, c, c.person(mute), "STOP")
}

// book makes appointments with links; the reminder of the first is due in some seconds.
func (w *World) book(ctx context.Context, c *Client) error {
	for i, reminder := range []string{"-595s", "-9m", "-30m"} {
		if err := w.appoint(ctx, c, c.person(2+i), time.Duration(10+15*i)*time.Minute, reminder); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) appoint(ctx context.Context, c *Client, p person, in time.Duration, reminders ...string) error {
	return w.call(ctx, c, http.MethodPost, "/api/appointments", obj{
		"phone": p.phone, "name": p.name, "title": "Call with " + p.name, "startsAt": time.Now().Add(in).UTC().Format(time.RFC3339), "durationMinutes": 15,
		"meet": true, "reminders": reminders, "attendees": []obj{{"email": p.email, "name": p.name}},
	}, nil)
}

// campaign starts the campaigns once more.
func (w *World) campaign(ctx context.Context, c *Client) error {
	c.round++
	for _, m := range c.campaigns {
		body := obj{}
		for k, v := range m {
			body[k] = v
		}
		if c.round > 1 {
			body["name"] = fmt.Sprintf("%s, round %d", m["name"], c.round)
		}
		var made struct{ ID string }
		if err := w.call(ctx, c, http.MethodPost, "/api/campaigns", body, &made); err != nil {
			return err
		}
		if err := w.call(ctx, c, http.MethodPost, "/api/campaigns/"+made.ID+"/start", nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// says lets a customer write.
func (w *World) says(ctx context.Context, c *Client, p person, text string) error {
	return w.Meta.Receive(ctx, w.Meta.InboundText(c.Number, p.phone, p.name, text))
}

// shows lets a customer send a picture.
func (w *World) shows(ctx context.Context, c *Client, p person, picture int) error {
	return w.Meta.Receive(ctx, w.Meta.InboundMedia(c.Number, p.phone, p.name, "image", c.pictures[picture%len(c.pictures)], "Like this one"))
}

// pause waits; false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
