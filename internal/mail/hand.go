package mail

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Fate is what became of handing a mail over.
type Fate int

// The fates.
const (
	Taken   Fate = iota // the server has it
	Refused             // for good, because of the recipient or of what is in it
	Later               // not sent: it can be tried again
	Lost                // it may have been delivered; it must not be sent again by itself
	Broken              // not sent, because of the client's account: all its mail waits until somebody mends that
)

// Answer is how handing a mail over ended.
type Answer struct {
	Fate   Fate
	Code   string // "5.1.1", "550", "network"; for people and for counting
	Title  string // a sentence for the client
	Bounce smtp.Bounce
	// Shared: not this mail's trouble but the server's or the account's: the others wait too, and it cost this one nothing.
	Shared bool
	Wait   time.Duration // advised pause; 0: none
	Err    error         // for the log
}

// Account gives the client's mail account. Its fault is a *Refusal where there is none, else that of a secret.
func (o *Office) Account(tn *tenant.Tenant) (smtp.Account, error) {
	s := tn.Account().SMTP
	if s == nil {
		return smtp.Account{}, &Refusal{"smtp.not_configured", "The client has no mail server yet."}
	}
	password, err := tn.Secret("smtp.password")
	if err != nil {
		return smtp.Account{}, err
	}
	return smtp.Account{
		Host: s.Host, Port: s.Port, Security: smtp.Security(s.Security), Username: s.Username, Password: password,
		From: s.From, FromName: s.FromName, ReplyTo: s.ReplyTo,
	}, nil
}

// Loopback tells whether the client's mail server is on this machine: a rehearsal.
func Loopback(s *tenant.SMTP) bool {
	if s == nil {
		return false
	}
	ip := net.ParseIP(s.Host)
	return s.Host == "localhost" || (ip != nil && ip.IsLoopback())
}

// Hand hands one mail over and tells what became of it. Whoever calls has written down before that it may go out.
func (o *Office) Hand(ctx context.Context, tn *tenant.Tenant, acc smtp.Account, msg smtp.Message) Answer {
	err := o.SMTP.Send(ctx, acc, msg)
	a := answer(err)
	w := o.window(tn)
	w.learn(a, o.Now())
	o.note(ctx, tn, w, a)
	return a
}

// notedFor is how long a server that works need not be noted again.
const notedFor = time.Hour

// note records for people whether the client's account works. Nothing depends on it.
func (o *Office) note(ctx context.Context, tn *tenant.Tenant, w *window, a Answer) {
	now := o.Now()
	w.mu.Lock()
	due := a.Fate == Taken && now.Sub(w.noted) >= notedFor
	switch {
	case due:
		w.noted = now
	case a.Fate == Broken:
		w.noted = time.Time{}
	}
	w.mu.Unlock()
	nctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	var err error
	switch {
	case due:
		err = tn.Connected(nctx, "smtp", now)
	case a.Fate == Broken:
		err = tn.NeedsAttention(nctx, "smtp", a.Code, now)
	}
	if err != nil {
		o.Log.Warn("what was found of a mail account cannot be noted", "client", tn.Code, "error", err)
	}
}

func answer(err error) Answer {
	if err == nil {
		return Answer{Fate: Taken}
	}
	var e *smtp.Error
	if !errors.As(err, &e) {
		return Answer{Fate: Later, Code: "network", Title: "The mail was not handed over.", Shared: true, Err: err}
	}
	a := Answer{Code: codeOf(e), Bounce: e.Bounce, Wait: e.RetryAfter(), Err: err, Shared: e.Scope == smtp.ScopeAccount || e.Scope == smtp.ScopeTransport}
	switch {
	case e.Ambiguous():
		a.Fate, a.Title = Lost, "The server's answer was lost after the mail was handed over."
	case e.Outcome == smtp.Rejected && e.Scope == smtp.ScopeAccount:
		a.Fate, a.Title = Broken, "The mail server does not accept the client's account."
	case e.Outcome == smtp.Rejected:
		a.Fate, a.Title = Refused, refusals[e.Bounce]
	default:
		a.Fate, a.Title = Later, "The mail server cannot take the mail now."
	}
	return a
}

var refusals = map[smtp.Bounce]string{
	smtp.BounceHard:   "There is no such mailbox.",
	smtp.BounceSoft:   "The mailbox cannot take the mail.",
	smtp.BouncePolicy: "The mail server refuses the sender or the content.",
	smtp.BounceNone:   "The mail is not fit to be sent.",
}

func codeOf(e *smtp.Error) string {
	switch {
	case e.Enhanced != "":
		return e.Enhanced
	case e.Code != 0:
		return strconv.Itoa(e.Code)
	case errors.Is(e, smtp.ErrInvalid):
		return "invalid"
	case errors.Is(e, smtp.ErrForbidden):
		return "smtp.forbidden"
	}
	return "network"
}

// maxHands is how many mails of one client are on their way at once: as many as there are connections, so that a server
// that hangs holds up few workers and nobody else's mail.
const maxHands = 4

// window is what this process knows of a client's way out: its pace, and whether the server rests.
type window struct {
	hands chan struct{}

	mu       sync.Mutex
	limit    *rate.Limiter
	trouble  int // answers in a row that were the server's or the account's trouble
	restTill time.Time
	noted    time.Time // when it was recorded last that the account works
	account  time.Time // when the account was set that this was learnt of
}

func (o *Office) window(tn *tenant.Tenant) *window {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.windows == nil {
		o.windows = map[string]*window{}
	}
	w := o.windows[tn.Code]
	if w == nil {
		w = &window{hands: make(chan struct{}, maxHands), limit: rate.NewLimiter(rate.Inf, 1)}
		o.windows[tn.Code] = w
	}
	if s := tn.Account().SMTP; s != nil {
		w.mu.Lock()
		if !w.account.Equal(s.UpdatedAt) { // another server, or a mended one
			w.account, w.trouble, w.restTill, w.noted = s.UpdatedAt, 0, time.Time{}, time.Time{}
		}
		w.mu.Unlock()
	}
	return w
}

// maxRest bounds the pause after shared trouble that advises none.
const maxRest = 5 * time.Minute

func (w *window) learn(a Answer, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !a.Shared {
		w.trouble = 0
		return
	}
	rest := a.Wait
	if rest == 0 {
		rest = min(time.Second<<min(w.trouble, 10), maxRest)
	}
	w.trouble++
	if till := now.Add(rest); till.After(w.restTill) {
		w.restTill = till
	}
}

// Rest tells how long the client's mail has to wait because its server or account asked for it; 0: not at all.
func (o *Office) Rest(tn *tenant.Tenant) time.Duration {
	w := o.window(tn)
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(0, w.restTill.Sub(o.Now()))
}

// Pace takes the client's next place in time and tells how long it is until then: places are evenly apart, by the rate
// of its account. cancel gives the place back.
func (o *Office) Pace(tn *tenant.Tenant) (wait time.Duration, cancel func()) {
	w := o.window(tn)
	want := rate.Inf
	if s := tn.Account().SMTP; s != nil && s.RatePerSecond > 0 {
		want = rate.Limit(s.RatePerSecond)
	}
	now := o.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.limit.Limit() != want {
		w.limit.SetLimitAt(now, want)
	}
	r := w.limit.ReserveN(now, 1)
	return r.DelayFrom(now), func() { r.CancelAt(now) }
}

// Grab takes one of the client's hands, waiting for one as long as ctx lasts; false if none was free.
func (o *Office) Grab(ctx context.Context, tn *tenant.Tenant) (release func(), ok bool) {
	w := o.window(tn)
	select {
	case w.hands <- struct{}{}:
		return func() { <-w.hands }, true
	case <-ctx.Done():
		return nil, false
	}
}
