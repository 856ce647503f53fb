package campaign

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A mail server may leave a mail without an answer for minutes. The window that handed it over waits for a moment, and
// then leaves the hand behind: its recipient stays in flight until the call ends by its own time-out, while the next
// windows go on with the connections that are left.
const (
	patience  = 3 * time.Second // a window waits so long for the answers to its last mails
	hungMost  = 3               // hands left behind with which no other window begins: one connection is for the client's other mail
	hungPause = time.Second     // until it is looked again whether they are back
)

// crew are the hands of a window.
type crew struct {
	hands    int
	all      sync.WaitGroup
	grabs    context.Context // to wait for a connection: as long as the window lasts
	calls    context.Context // to hand mails over: outlives the window
	shut     context.CancelFunc
	cut      context.CancelFunc
	attended func() bool // calls end with the window from now on no more; false: they have ended
}

// hire has n hands hand over what a clerk marks.
func (rd *round) hire(ctx context.Context, n int) *clerk {
	w := &crew{hands: n}
	w.grabs, w.shut = context.WithCancel(ctx)
	w.calls, w.cut = context.WithCancel(context.WithoutCancel(ctx))
	w.attended = context.AfterFunc(ctx, w.cut)
	k := &clerk{rd: rd, crew: w, ready: make(chan *errand, mostOpen), back: make(chan *errand, mostOpen), until: time.NewTimer(linger)}
	for range n {
		w.all.Go(k.work)
	}
	return k
}

// leave returns when all that is marked is done and written down, or has been waited for long enough.
func (k *clerk) leave(ctx context.Context) {
	k.all.Go(func() { k.windUp(ctx) })
	done := make(chan struct{})
	go func() { k.all.Wait(); close(done) }()
	defer k.shut()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-done:
		k.attended()
		k.cut()
		return
	case <-ctx.Done():
	case <-late.C:
		if k.attended() && k.rd.b.leave(ctx, k.rd.tn.Code, done, k.cut) {
			return
		}
	}
	k.shut()
	k.cut()
	<-done
}

// leave lets hands go on by themselves until they are done; they hold the client's database open, and cut ends their
// calls when the engine stops. False: it stops already, or the client is going.
func (b *Bureau) leave(ctx context.Context, code string, done <-chan struct{}, cut context.CancelFunc) bool {
	_, release, err := b.Tenants.Use(ctx, code)
	if err != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		release()
		return false
	}
	if b.hung == nil {
		b.hung = map[<-chan struct{}]context.CancelFunc{}
	}
	b.hung[done] = cut
	go func() {
		<-done
		cut()
		release()
		b.mu.Lock()
		delete(b.hung, done)
		b.mu.Unlock()
	}()
	return true
}

// Close ends the calls that no window waits for any more; what is known of them is written down.
func (b *Bureau) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	var all []<-chan struct{}
	for done, cut := range b.hung {
		cut()
		all = append(all, done)
	}
	b.mu.Unlock()
	for _, done := range all {
		select {
		case <-done:
		case <-ctx.Done():
			return errors.New("campaign: calls to mail servers have not ended")
		}
	}
	return nil
}

// sent counts the recipients that an execution has in flight.
func (g *going) sent(flight string, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.out == nil {
		g.out = map[string]int{}
	}
	if g.out[flight] += n; g.out[flight] <= 0 {
		delete(g.out, flight)
	}
}

// away tells whether an execution has recipients in flight.
func (g *going) away(flight string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out[flight] > 0
}

// left is how many mails earlier windows left on the wire, as the one that is busy sees it.
func (g *going) left() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, mails := range g.out {
		n += mails
	}
	return n
}
