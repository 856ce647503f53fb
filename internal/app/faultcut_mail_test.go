package app_test

import (
	"context"
	"log/slog"
	"time"

	"github.com/ecodrix/ecod/internal/campaign"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// mailing gives a world what writes to its mail server.
func (w *world) mailing(reg *tenant.Registry, book *crm.Book, clock func() time.Time) {
	client := smtp.New(smtp.Config{AllowPrivate: true, Now: clock})
	w.t.Cleanup(client.Close)
	log := slog.New(slog.DiscardHandler)
	w.office = &mail.Office{Book: book, SMTP: client, Queue: w.queue, Now: clock, Log: log}
	w.bureau = &campaign.Bureau{Book: book, Office: w.office, Desk: w.desk, Tenants: reg, Queue: w.queue, PublicURL: "https://x.example", Now: clock, Log: log}
	w.desk.Cleared, w.desk.Tracked = w.bureau.Cleared, w.bureau.Tracked
}

// campaign writes down a campaign to three people under a fixed id, running, its audience frozen.
func (w *world) campaign(channel string, frozen bool) {
	w.t.Helper()
	ctx := context.Background()
	c := &campaign.Campaign{ID: "cmp_fixed", Name: "News", Channel: channel, State: campaign.Running, Gen: 1, Size: 3, CreatedAt: w.now, UpdatedAt: w.now, StartedAt: w.now}
	n := &campaign.Named{ID: c.ID}
	for i, p := range []string{"918143963821", "918143963822", "918143963823"} {
		n.List = append(n.List, campaign.Entry{Email: []string{"ana@example.com", "bo@example.com", "cy@example.com"}[i], Phone: "+" + p, Name: "N"})
	}
	if c.Content = (campaign.Content{Subject: "Hi {{name}}", Text: "Hi {{name}}"}); channel == campaign.WhatsApp {
		c.Content = campaign.Content{Template: "hello", Language: "en", Parameters: []string{"{{name}}"}}
	}
	w.must(w.db.Commit(ctx, campaign.Nameds.Insert(n), campaign.Campaigns.Insert(c)))
	if frozen {
		_, err := w.bureau.HandleFreeze(ctx, w.tn, w.campaignJob(campaign.FreezeJob, 1))
		w.must(err)
	}
}

func (w *world) campaignJob(typ string, n int) store.Job {
	return store.Job{ID: "job_c", Type: typ, Tenant: "ACME", Token: 1, MaxAttempts: 8, Payload: payload(map[string]any{"campaignId": "cmp_fixed", "gen": 1, "n": n, "page": 0})}
}

// turn takes a turn of the campaign.
func (w *world) turn(op string) {
	w.t.Helper()
	_, err := w.bureau.HandleTurn(context.Background(), w.tn, store.Job{Type: campaign.TurnJob, Tenant: "ACME",
		Payload: payload(map[string]string{"campaignId": "cmp_fixed", "turn": "trn_1", "op": op})})
	w.must(err)
}

// letter plans a letter to Ana.
func (w *world) letter() {
	w.t.Helper()
	_, writes, err := w.office.Plan(context.Background(), w.tn, mail.Outgoing{To: "ana@example.com", Subject: "Hello", Text: "Hello Ana", Seed: "one"})
	w.must(err)
	w.must(w.db.Commit(context.Background(), writes...))
}

func (w *world) letterJob() store.Job {
	w.t.Helper()
	l, err := mail.Letters.First(context.Background(), w.db, store.Query{})
	w.must(err)
	return store.Job{ID: "job_m", Type: mail.SendJob, Tenant: "ACME", Token: 1, MaxAttempts: 8, Payload: payload(map[string]string{"letterId": l.ID})}
}
