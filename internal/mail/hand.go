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
	"github.com/ecodrix/ecod/internal/store"
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
	w, began := o.window(tn), o.Now()
	err := o.SMTP.Send(ctx, acc, msg)
	a := answer(err)
	o.learn(ctx, tn, a)
	o.note(ctx, tn, w, a, began)
	return a
}

// notedFor is how long a server that works need not be noted again.
const notedFor = time.Hour

// note records for people whether the client's account works. Nothing depends on it. A mail that was under way when another
// found the account refused, or that went out while the rest wait for it to be mended, does not prove that it was.
func (o *Office) note(ctx context.Context, tn *tenant.Tenant, w *window, a Answer, began time.Time) {
	now, refused := o.Now(), false
	if a.Fate == Taken {
		_, refused = o.Rest(ctx, tn)
	}
	w.mu.Lock()
	due := a.Fate == Taken && !refused && began.After(w.refused) && now.Sub(w.noted) >= notedFor
	switch {
	case due:
		w.noted = now
	case a.Fate == Broken:
		w.noted, w.refused = time.Time{}, now
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

// window is what this process knows of a client's way out: its pace, and how many are on it.
type window struct {
	hands chan struct{}

	mu      sync.Mutex
	limit   *rate.Limiter
	until   time.Time // no place that all processes share before
	noted   time.Time // when it was recorded last that the account works
	refused time.Time // when the account was refused last
	account time.Time // when the account was set that this was learnt of
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
			w.account, w.noted, w.refused = s.UpdatedAt, time.Time{}, time.Time{}
		}
		w.mu.Unlock()
	}
	return w
}

// Resource is what mail needs.
const Resource = "mail"

// How long a server that asks for patience rests at first, and at most when it goes on; and until it is looked again at one
// that refuses the account.
const (
	firstRest = time.Second
	maxRest   = 5 * time.Minute
)

// learn lets all of the client's mail rest where an answer says that the others would fare alike.
func (o *Office) learn(ctx context.Context, tn *tenant.Tenant, a Answer) {
	if a.Fate != Later || !a.Shared {
		return
	}
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	first := max(a.Wait, firstRest)
	_, err := o.Queue.Pause(rctx, store.PauseRequest{Scope: tn.Code + "/" + Resource, Reason: store.RateLimited, For: first, Most: max(first, maxRest), Detail: "smtp.unavailable"})
	if err != nil {
		o.Log.Warn("a mail server that asks for patience gets none", "client", tn.Code, "error", err)
	}
}

// Rest tells how long the client's mail has to wait because its server or account asked for it; 0: not at all. refused: the
// account is, and nobody knows how long.
func (o *Office) Rest(ctx context.Context, tn *tenant.Tenant) (rest time.Duration, refused bool) {
	p, err := o.Queue.Paused(ctx, store.LaneName(tn.Code, Resource, store.Normal))
	switch {
	case err != nil || p == nil: // the queue is asked again before the next claim
		return 0, false
	case p.Until.IsZero():
		return maxRest, p.Reason == store.Credential
	}
	return max(0, time.Until(p.Until)), false
}

// Place is a place in time: how long it is until then, and whether it is kept; else whoever wants it asks again then.
type Place struct {
	Wait time.Duration
	Kept bool
	Back func() // gives it back
}

// Shared takes a place of those that all processes share, as Queue.Take has it. It asks in no hurry: what was refused is
// refused until it may be had, without asking. until is the caller's memory of that, guarded by its own lock.
func Shared(ctx context.Context, q store.Queue, key string, perSecond float64, now time.Time, until *time.Time) (Place, error) {
	free := Place{Kept: true, Back: func() {}}
	if perSecond <= 0 {
		return free, nil
	}
	if wait := until.Sub(now); wait > 0 {
		return Place{Wait: wait, Back: func() {}}, nil
	}
	n, wait, err := q.Take(ctx, key, store.Rate{Every: time.Duration(float64(time.Second) / perSecond), Burst: 1}, 1)
	if err != nil || n == 1 {
		return free, err
	}
	*until = now.Add(max(wait, time.Millisecond))
	return Place{Wait: max(wait, time.Millisecond), Back: func() {}}, nil
}

// paceKey is what the places of a client's mail are taken from.
func paceKey(code string) string { return code + "/" + Resource + ":pace" }

// Pace takes the client's next place in time: places are evenly apart, by the rate of its account.
func (o *Office) Pace(ctx context.Context, tn *tenant.Tenant) (Place, error) {
	w := o.window(tn)
	if s := tn.Account().SMTP; o.Shared && s != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		return Shared(ctx, o.Queue, paceKey(tn.Code), s.RatePerSecond, o.Now(), &w.until)
	}
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
	return Place{r.DelayFrom(now), true, func() { r.CancelAt(now) }}, nil
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
