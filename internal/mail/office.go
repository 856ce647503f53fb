package mail

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// SendJob is the type of the job that sends a letter.
const SendJob = "email.send"

// Office is the work on single e-mails, for every client; the tenant says whose.
type Office struct {
	Book  *crm.Book
	SMTP  *smtp.Client
	Queue store.Queue // where the clients' mail rests
	// Shared tells that other processes send the same clients' mail: their pace is all processes' together.
	Shared bool
	Now    func() time.Time
	Log    *slog.Logger
	// Settled gives the jobs that follow when a letter with an origin was sent, refused, or lost its answer.
	Settled func(tn *tenant.Tenant, l *Letter) []store.NewJob
	// Doubt hears that a letter's answer was lost (how ""), and that it is sent once more: resent. nil: nobody.
	Doubt func(how string)
	// MayBegin is asked right before a run's letter goes out; a *Refusal keeps it back.
	MayBegin func(ctx context.Context, tn *tenant.Tenant, runID, step string) error

	mu      sync.Mutex
	windows map[string]*window // by client
}

// Outgoing asks for a letter. Subject, HTML and Text are as they are sent: variables are filled in.
type Outgoing struct {
	Contact     *crm.Contact // nil: nobody's in particular
	LeadID      string
	To          string // "" is the contact's
	Subject     string
	HTML        string
	Text        string
	Unsubscribe string // the address of one click
	Marketing   bool
	ExpiresAt   time.Time
	Origin      Origin
	Resend      bool   // once more, if the answer is lost; not of marketing
	Seed        string // names the letter: the same seed gives the same letter
}

// Refusal is why a letter cannot be sent, as the client is told.
type Refusal struct{ Code, Detail string }

func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }

// Plan gives the letter and the writes that record it, ready to be sent by the job SendOf. A *Refusal if it cannot be
// addressed.
func (o *Office) Plan(_ context.Context, tn *tenant.Tenant, out Outgoing) (*Letter, []store.Write, error) {
	now := o.Now().UTC()
	l := &Letter{
		ID: id.Derived("ltr", tn.Code, out.Seed), LeadID: out.LeadID, To: out.To, Subject: out.Subject, HTML: out.HTML, Text: out.Text,
		Unsubscribe: out.Unsubscribe, Marketing: out.Marketing, ExpiresAt: out.ExpiresAt, Origin: out.Origin,
		Send: Send{State: Planned, Resend: out.Resend && !out.Marketing}, StatusAt: map[string]time.Time{Planned: now}, CreatedAt: now,
	}
	if c := out.Contact; c != nil {
		l.ContactID, l.ToName = c.ID, c.Name
		if l.To == "" {
			l.To = c.Email
		}
	}
	if l.To == "" {
		return nil, nil, &Refusal{"no_email", "The lead has no e-mail address."}
	}
	to, ok := crm.Email(l.To)
	if !ok {
		return nil, nil, &Refusal{"invalid_email", "This is not an e-mail address."}
	}
	l.To = to
	acc, err := o.Account(tn)
	if err == nil {
		err = o.SMTP.Validate(acc)
	}
	var r *Refusal
	if errors.As(err, &r) {
		return nil, nil, r // any other trouble of the account can be mended while the job waits
	}
	return l, []store.Write{Letters.Ensure(l)}, nil
}

// sendPayload is the payload of SendJob.
type sendPayload struct {
	LetterID string `json:"letterId"`
}

// SendOf is the job that sends a planned letter.
func (o *Office) SendOf(tn *tenant.Tenant, l *Letter, cause store.Causation) store.NewJob {
	n := job.New(tn.Code, SendJob, sendPayload{l.ID})
	n.UniqueKey = "mail:" + l.ID
	cause.Message = l.ID
	n.Causation = cause
	return n
}

// retry runs a read-then-commit until no other writer came between.
func retry(ctx context.Context, step func() error) error {
	var err error
	for range 20 {
		if err = step(); !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrDuplicate) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}
