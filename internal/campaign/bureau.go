package campaign

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Bureau is the work on campaigns, for every client; the tenant says whose.
type Bureau struct {
	Book    *crm.Book
	Office  *mail.Office
	Desk    *chat.Desk
	Tenants *tenant.Registry
	Queue   store.Queue
	// CancelCaused ends the jobs of a campaign that was cancelled (job.Runner.CancelCaused). nil: they find that out.
	CancelCaused func(ctx context.Context, client string, cause store.Causation) (int, error)

	PublicURL string // base of the links in mails
	Now       func() time.Time
	Log       *slog.Logger

	mu     sync.Mutex
	going  map[string]*going                      // by campaign
	hung   map[<-chan struct{}]context.CancelFunc // the calls of hands that were left behind, by what tells that they are done
	closed bool
}

// going is what this process knows of a campaign that is under way. All of it can be forgotten.
type going struct {
	busy sync.Mutex // one window at a time

	mu       sync.Mutex
	limit    *rate.Limiter
	until    time.Time // no place that all processes share before
	told     time.Time // when its progress was told last
	refusals int       // in a row, for what all of its messages have in common
	why      string    // of the last of them
	state    string    // of the campaign, as read at
	seen     time.Time
	mark     time.Duration  // what it takes to mark recipients, about
	call     time.Duration  // and a call to the mail server
	out      map[string]int // recipients in flight, by execution
	unheld   time.Time      // when messages were let go last that a pause had held
}

func (b *Bureau) under(campaignID string) *going {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.going == nil {
		b.going = map[string]*going{}
	}
	g := b.going[campaignID]
	if g == nil {
		g = &going{limit: rate.NewLimiter(rate.Inf, 1)}
		b.going[campaignID] = g
	}
	return g
}

// forget drops what is known of a campaign that is over.
func (b *Bureau) forget(campaignID string) {
	b.mu.Lock()
	delete(b.going, campaignID)
	b.mu.Unlock()
}

// pace takes the campaign's next place in time; see mail.Office.Pace.
func (b *Bureau) pace(ctx context.Context, g *going, c *Campaign, code string, perSecond float64) (mail.Place, error) {
	now := b.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if b.Office.Shared {
		return mail.Shared(ctx, b.Queue, code+"/campaign:"+c.ID, perSecond, now, &g.until)
	}
	want := rate.Inf
	if perSecond > 0 {
		want = rate.Limit(perSecond)
	}
	if g.limit.Limit() != want {
		g.limit.SetLimitAt(now, want)
	}
	r := g.limit.ReserveN(now, 1)
	return mail.Place{Wait: r.DelayFrom(now), Kept: true, Back: func() { r.CancelAt(now) }}, nil
}

// marked takes note of what marking took, called of a call.
func (g *going) marked(took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mark += (took - g.mark) / 8
}

func (g *going) called(took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.call += (took - g.call) / 8
}

// slow tells whether the mail server is slower than the disk by far.
func (g *going) slow() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.call > 3*g.mark
}
