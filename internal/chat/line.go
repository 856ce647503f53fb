package chat

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// Resource is the kind of what sends to Meta need: "wa:" and the phone number's id.
const Resource = "wa"

// The paces at which numbers send, below Meta's own so that no jitter between us and it exceeds those: 80 a second from
// one number, and one every 6 seconds to one recipient, of which 45 may come at once.
var (
	NumberRate = store.Rate{Every: time.Second / 70, Burst: 5}
	PairRate   = store.Rate{Every: 6 * time.Second, Burst: 10}
)

// bulkShare is the part of a number's pace that campaigns leave to who waits for an answer: one in so many.
const bulkShare = 5

// How long what Meta refuses for now rests at first, and at most when it goes on.
const (
	numberRest, numberRestMost   = time.Second, time.Minute
	accountRest, accountRestMost = time.Minute, time.Hour
	qualityRest, qualityRestMost = time.Hour, 24 * time.Hour
)

func resourceOf(phoneNumberID string) string {
	if phoneNumberID == "" {
		return Resource
	}
	return Resource + ":" + phoneNumberID
}

// lines are this process's ways out to Meta: what must hold right before a call, whatever lies between that and the claim
// of its job. What has to outlive the process are pauses in the queue.
type lines struct {
	mu      sync.Mutex
	numbers map[string]*line
	starts  map[string]*opening  // by client and token
	pairs   map[string]time.Time // recipients that rest, until when
}

// line is one number's pace.
type line struct{ all, bulk *rate.Limiter }

func (l *lines) line(number string) *line {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.numbers[number]
	if n == nil {
		bulk := time.Duration(int64(NumberRate.Every) * bulkShare / (bulkShare - 1))
		n = &line{rate.NewLimiter(rate.Every(NumberRate.Every), NumberRate.Burst), rate.NewLimiter(rate.Every(bulk), max(1, NumberRate.Burst-1))}
		if l.numbers == nil {
			l.numbers = map[string]*line{}
		}
		l.numbers[number] = n
	}
	return n
}

// pace waits for the number's next moment.
func (l *lines) pace(ctx context.Context, number string, class store.Class) error {
	n := l.line(number)
	if class.Patience() >= store.Bulk.Patience() && class != store.Quarantine {
		if err := n.bulk.Wait(ctx); err != nil {
			return err
		}
	}
	return n.all.Wait(ctx)
}

// rest lets a recipient rest.
func (l *lines) rest(pair string, now time.Time, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, until := range l.pairs { // they are few, but for those that are over
		if !until.After(now) {
			delete(l.pairs, p)
		}
	}
	if l.pairs == nil {
		l.pairs = map[string]time.Time{}
	}
	l.pairs[pair] = now.Add(d)
}

// resting tells how long a recipient rests; 0: not at all.
func (l *lines) resting(pair string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, l.pairs[pair].Sub(now))
}

// A token that was not used for a moment may have died: one call finds out, and as those that Meta takes double, so may the
// calls under way.
const (
	openedMost   = 64
	openedFor    = time.Second // without a call, it begins anew
	openPatience = 2 * time.Second
	openAgain    = 250 * time.Millisecond
	// How long lines rest while no call is answered: who waits for that would hold the client's workers.
	stillRest, stillRestMost = time.Second, 5 * time.Second
)

// opening is how far a token is trusted.
type opening struct {
	most, under int // calls at once; and under way
	last        time.Time
	moved       chan struct{} // closed when a call ends
}

// enter waits until a call with a token may be made. leave is to be called once, when what the answer says of the token
// stands, with whether Meta took it. False: not now; still tells that not one call ended meanwhile.
func (l *lines) enter(ctx context.Context, token string) (leave func(taken bool), still, ok bool) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	for still = true; ; still = false {
		l.mu.Lock()
		o := l.starts[token]
		if o == nil {
			o = &opening{most: 1, last: time.Now(), moved: make(chan struct{})}
			if l.starts == nil {
				l.starts = map[string]*opening{}
			}
			l.starts[token] = o
		}
		if o.under == 0 && time.Since(o.last) > openedFor {
			o.most = 1
		}
		if o.under < o.most {
			o.under++
			l.mu.Unlock()
			return func(taken bool) { l.left(o, taken) }, false, true
		}
		moved := o.moved
		l.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, still && whole.Err() == nil, false
		}
	}
}

func (l *lines) left(o *opening, taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o.under--
	o.last = time.Now()
	if taken {
		o.most = min(2*o.most, openedMost)
	} else {
		o.most = 1
	}
	close(o.moved)
	o.moved = make(chan struct{})
}

// lane is the lane that a message's call is made in.
func (d *Desk) lane(tn *tenant.Tenant, j store.Job, m *Message) string {
	return store.LaneName(tn.Code, resourceOf(m.PhoneNumberID), j.Class)
}

// resting is what becomes of a job whose line rests; nil: it does not.
func (d *Desk) resting(ctx context.Context, tn *tenant.Tenant, j store.Job, m *Message) error {
	p, err := d.Queue.Paused(ctx, d.lane(tn, j, m))
	if err != nil || p == nil {
		return err
	}
	code := "whatsapp.limited"
	if p.Reason != store.RateLimited {
		code = "whatsapp." + string(p.Reason)
	}
	if slices.Contains(store.Scopes(j.Lane), p.Scope) {
		return job.Return(code)
	}
	wait := accountRest // a job of an earlier engine's waits elsewhere
	if !p.Until.IsZero() {
		wait = min(wait, p.Until.Sub(d.Now()))
	}
	return job.Snooze(max(wait, time.Second), code, nil)
}

// rest lets lines rest, and gives what becomes of the job that found out: it costs it nothing.
func (d *Desk) rest(ctx context.Context, tn *tenant.Tenant, j store.Job, p store.PauseRequest, cause error) error {
	if slices.Contains(store.Scopes(j.Lane), p.Scope) {
		return job.PauseLane(p.Scope, p.Reason, p.For, p.Most, p.Detail, cause)
	}
	if _, err := d.Queue.Pause(ctx, p); err != nil {
		return err
	}
	return job.Snooze(max(p.For, time.Second), p.Detail, cause)
}

// outside is what becomes of a job that may not call now. Where Meta answers nobody, its line rests until it may.
func (d *Desk) outside(ctx context.Context, tn *tenant.Tenant, j store.Job, still bool) error {
	if !still {
		return job.Snooze(openAgain, "whatsapp.opening", ctx.Err())
	}
	return d.rest(ctx, tn, j, store.PauseRequest{
		Scope: tn.Code + "/" + Resource, Reason: store.RateLimited, For: stillRest, Most: stillRestMost, Detail: "whatsapp.slow",
	}, nil)
}

// limited gives the pause that a limit of Meta's asks for; nil: it is none that others share.
func limited(tn *tenant.Tenant, m *Message, e *whatsapp.APIError) *store.PauseRequest {
	kind, number := tn.Code+"/"+Resource, tn.Code+"/"+resourceOf(m.PhoneNumberID)
	after := e.RetryAfter()
	switch {
	case e.Scope() == whatsapp.ScopeNumber && e.Outcome == whatsapp.Limited:
		first := max(after, numberRest)
		return &store.PauseRequest{Scope: number, Reason: store.RateLimited, For: first, Most: max(first, numberRestMost), Detail: "whatsapp.limited"}
	case e.Scope() == whatsapp.ScopeAccount && e.Outcome == whatsapp.Limited:
		first := max(after, accountRest)
		return &store.PauseRequest{Scope: kind, Reason: store.RateLimited, For: first, Most: max(first, accountRestMost), Detail: "whatsapp.limited"}
	case e.Scope() == whatsapp.ScopeQuality && e.Outcome == whatsapp.Limited: // what is like spam rests; answers do not
		return &store.PauseRequest{Scope: number + "/" + string(store.Bulk), Reason: store.Quality, For: max(after, qualityRest), Most: qualityRestMost, Detail: "whatsapp.quality"}
	case e.Scope() == whatsapp.ScopeQuality && slices.Contains(blocked, e.Code):
		return &store.PauseRequest{Scope: kind, Reason: store.Quality, For: max(after, qualityRest), Most: qualityRestMost, Detail: "whatsapp.quality"}
	}
	return nil
}

// blocked are Meta's refusals of the whole account for what it sent.
var blocked = []int{368, 131031}

// Connection is the name of the client's connection to Meta.
const Connection = "whatsapp"

// refusedToken lets all of a client's lines rest until its account is set anew: Meta refuses its token, or it has none. The
// job is held with them, and shows why.
func (d *Desk) refusedToken(ctx context.Context, tn *tenant.Tenant, token, code string, cause error) error {
	scope := tn.Code + "/" + Resource
	fresh, err := d.Queue.Pause(ctx, store.PauseRequest{Scope: scope, Reason: store.Credential, Detail: "whatsapp.credential"})
	if err != nil {
		return err
	}
	if tokenOf(tn) != token { // it was set anew while this call was made, and whoever let go then did not see this pause
		if _, err := d.Queue.Resume(ctx, scope, store.Credential); err != nil {
			return err
		}
	} else if fresh {
		d.attention(ctx, tn, code)
	}
	return job.Park("whatsapp.credential", cause)
}

// attention tells the client once that its account needs it. Nothing depends on it.
func (d *Desk) attention(ctx context.Context, tn *tenant.Tenant, reason string) {
	if err := tn.NeedsAttention(ctx, Connection, reason, d.Now()); err != nil {
		d.Log.Warn("that an account needs attention cannot be noted", "client", tn.Code, "error", err)
	}
}

// blames tells whether a pause is of lines to Meta, and one that somebody has to mend something for.
func blames(p store.Pause) bool {
	_, of, _ := strings.Cut(p.Scope, "/")
	resource, _, _ := strings.Cut(of, "/")
	return store.ResourceKind(resource) == Resource && (p.Reason == store.Credential || p.Reason == store.Quality)
}

// works notes that Meta takes a client's token again, where it was noted that it does not. While lines rest for
// that, or for what they sent, it is still so: this may be the answer to a call that began before, or another line's.
func (d *Desk) works(ctx context.Context, tn *tenant.Tenant) {
	c, err := tn.Connection(ctx, Connection)
	if err == nil && c != nil && c.State == tenant.Attention {
		var ps []store.Pause
		if ps, err = d.Queue.Pauses(ctx, tn.Code); err == nil && !slices.ContainsFunc(ps, blames) {
			err = tn.Connected(ctx, Connection, d.Now())
		}
	}
	if err != nil {
		d.Log.Warn("that an account works cannot be noted", "client", tn.Code, "error", err)
	}
}

// tokenKey names a client's token by its ciphertext: a new one is another.
func tokenKey(code, sealedToken string) string { return code + "|" + sealedToken }

func tokenOf(tn *tenant.Tenant) string {
	if w := tn.Account().WhatsApp; w != nil {
		return w.AccessToken
	}
	return ""
}
