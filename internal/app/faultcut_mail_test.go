package app_test

import (
	"context"
	"log/slog"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// mailing gives a world a mail server, an account at it, and what writes to it.
func (w *world) mailing(reg *tenant.Registry, book *crm.Book, clock func() time.Time) {
	w.box = newMailServer(w.t)
	host, port := w.box.HostPort()
	_, err := reg.SetSMTP(context.Background(), "ACME", tenant.SMTP{Host: host, Port: port, Security: "none", Username: "acme", From: "hello@acme.example"},
		secret.Text("mail-password"))
	w.must(err)
	client := smtp.New(smtp.Config{AllowPrivate: true, Now: clock})
	w.t.Cleanup(client.Close)
	w.office = &mail.Office{Book: book, SMTP: client, Now: clock, Log: slog.New(slog.DiscardHandler)}
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
