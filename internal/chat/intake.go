package chat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// Intake works off the raw inbox. A delivery is durable before Meta is told so; sorting it into the clients' databases
// comes after, at once if all is well. The inbox row is the work order: it stays received until every item is stored,
// and a sweep finds what a crash or a full queue left behind. Sorting the same delivery again changes nothing.
type Intake struct {
	cfg   IntakeConfig
	lanes *lanes
	ends  chan store.Settlement

	receiving atomic.Int64 // calls of Receive under way
	crowdedAt atomic.Int64 // when they were a crowd last, Unix ns
	refusedAt atomic.Int64 // when a delivery could not be stored last, Unix ns; 0: one was since
}

// IntakeConfig is what an Intake is built from.
type IntakeConfig struct {
	Inbox   store.Inbox
	Tenants *tenant.Registry
	Desk    *Desk
	// Enqueue makes the jobs that follow from an item, before its delivery is settled.
	Enqueue func(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error)
	Now     func() time.Time
	Log     *slog.Logger
	Workers int // lanes at once: how many clients' databases are written to
	// Changed is called after a client's database took something in; it must not block.
	Changed func(code string)
	// Observe is called when a delivery is settled, for metrics.
	Observe func(state store.DeliveryState, sinceReceived time.Duration)
}

const (
	sweepEvery  = 2 * time.Second
	sweepBehind = 5 * time.Second // what is older and in nobody's hands was left behind
	sweepPage   = 200
	laneWait    = time.Second // how long a sweep waits for a lane that has plenty
	settleMost  = 256
	retryFirst  = 5 * time.Second
	retryMost   = 5 * time.Minute
	together    = 32 // deliveries of one lane that are sorted side by side

	// In a peak, acknowledgements go before sorting. It is one while more is in hand than is sorted in a moment, and this
	// many calls of Receive wait for the disk together: a stream that sorting keeps up with is never taken for one.
	peakHand = handsMost / 2
	crowd    = 32
	crowdFor = 20 * time.Millisecond // a crowd is seen for so long after it
	// A worker gives way for so long at most and then sorts one delivery, so that each does 20 a second at least; and not
	// for deliveries that were received a minute ago: what goes on for longer than a peak gets its share.
	giveWay = 50 * time.Millisecond
	peakFor = time.Minute
)

// NewIntake makes an intake; Run works it.
func NewIntake(cfg IntakeConfig) *Intake {
	return &Intake{cfg: cfg, lanes: newLanes(handsMost), ends: make(chan store.Settlement, settleMost)}
}

// Receive makes a delivery durable and hands it to the workers. When it returns nil, Meta may be told 200.
func (in *Intake) Receive(ctx context.Context, client string, body []byte) error {
	d := store.Delivery{Client: client, Body: body}
	if in.receiving.Add(1) >= crowd {
		in.crowdedAt.Store(time.Now().UnixNano())
	}
	err := in.cfg.Inbox.Receive(ctx, &d)
	in.receiving.Add(-1)
	if err != nil {
		if Unavailable(err) {
			in.refusedAt.Store(time.Now().UnixNano())
		}
		return err
	}
	in.refusedAt.Store(0)
	in.lanes.offer(d, in.cfg.Now()) // if there is no room, the sweep will bring it
	return nil
}

// Replay has deliveries sorted again, at once where the workers have room. It gives the ids of those that it set back.
func (in *Intake) Replay(ctx context.Context, ids ...string) ([]string, error) {
	again, err := in.cfg.Inbox.Replay(ctx, ids...)
	if err != nil {
		return again, err
	}
	for _, id := range again {
		in.lanes.putOff(id, time.Time{})
	}
	for _, id := range again {
		d, err := in.cfg.Inbox.Delivery(ctx, id)
		if err != nil {
			in.cfg.Log.Warn("a delivery to be sorted again waits for the sweep", "delivery", id, "error", err)
			continue
		}
		if in.lanes.offer(d, in.cfg.Now()) == full {
			break // the sweep finds the others
		}
	}
	return again, nil
}

// refusedFor is how long a delivery that could not be stored tells against the inbox.
const refusedFor = 10 * time.Second

// Healthy tells whether deliveries can be stored, as far as the last ones tell.
func (in *Intake) Healthy() error {
	if at := in.refusedAt.Load(); at != 0 && time.Since(time.Unix(0, at)) < refusedFor {
		return errors.New("the last webhook could not be stored")
	}
	return nil
}

// Backlog is how many deliveries are in the workers' hands or before them.
func (in *Intake) Backlog() int { return in.lanes.len() }

// Run sorts deliveries until ctx ends; those in work are finished first.
func (in *Intake) Run(ctx context.Context) error {
	var workers, settler sync.WaitGroup
	settler.Go(in.settle)
	for range in.cfg.Workers {
		workers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case la := <-in.lanes.ready:
					most := together
					if in.peak(ctx, in.lanes.oldest(la)) {
						most = 1
					}
					in.sortAll(context.WithoutCancel(ctx), in.lanes.take(la, most))
					in.lanes.leave(la)
				}
			}
		})
	}
	in.sweep(ctx)
	workers.Wait()
	close(in.ends)
	settler.Wait()
	return nil
}

// peak lets acknowledgements go first: Meta waits for them, nobody waits for us. It tells whether they go on.
func (in *Intake) peak(ctx context.Context, receivedAt time.Time) bool {
	for end := time.Now().Add(giveWay); ; {
		now := time.Now()
		if now.UnixNano()-in.crowdedAt.Load() > int64(crowdFor) || in.lanes.len() < peakHand || in.cfg.Now().Sub(receivedAt) > peakFor || ctx.Err() != nil {
			return false
		}
		if now.After(end) {
			return true
		}
		time.Sleep(crowdFor / 4)
	}
}

// sweep looks for deliveries that were left behind.
func (in *Intake) sweep(ctx context.Context) {
	behind := time.Duration(0) // what is there at the start was left by the process before
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		in.sweepOnce(ctx, in.cfg.Now().Add(-behind))
		behind = sweepBehind
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (in *Intake) sweepOnce(ctx context.Context, before time.Time) {
	after := ""
	hanging := map[string]bool{} // lanes that make no room
	for ctx.Err() == nil {
		ds, err := in.cfg.Inbox.Pending(ctx, before, after, sweepPage)
		if err != nil {
			if ctx.Err() == nil {
				in.cfg.Log.Error("the inbox cannot be swept", "error", err)
			}
			return
		}
		for _, d := range ds {
			after = d.ID
			in.bring(ctx, d, hanging)
		}
		if len(ds) < sweepPage {
			return
		}
	}
}

// bring offers a delivery until there is room for it, which there soon is; a lane that makes none is passed over.
func (in *Intake) bring(ctx context.Context, d store.Delivery, hanging map[string]bool) {
	key := laneOf(d.Body)
	if hanging[key] {
		return
	}
	var waited time.Duration
	const pause = 5 * time.Millisecond
	for {
		switch in.lanes.offer(d, in.cfg.Now()) {
		case taken:
			return
		case laneFull:
			if waited += pause; waited > laneWait {
				hanging[key] = true
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// finish hands a delivery's end to the settler, or notes when to try again.
func (in *Intake) finish(d store.Delivery, s store.Settlement) {
	var again time.Time
	if s.State == store.Received {
		again = in.cfg.Now().Add(min(retryMost, retryFirst<<min(d.Attempt, 10)))
	}
	in.lanes.putOff(d.ID, again)
	if in.cfg.Observe != nil {
		in.cfg.Observe(s.State, in.cfg.Now().Sub(d.ReceivedAt))
	}
	in.ends <- s
}

// settle records ends, many in one commit.
func (in *Intake) settle() {
	for s := range in.ends {
		batch := []store.Settlement{s}
	more:
		for len(batch) < settleMost {
			select {
			case s, ok := <-in.ends:
				if !ok {
					break more
				}
				batch = append(batch, s)
			default:
				break more
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := in.cfg.Inbox.Settle(ctx, batch...); err != nil {
			in.cfg.Log.Error("deliveries cannot be settled; they will be sorted again", "deliveries", len(batch), "error", err)
		}
		cancel()
		in.lanes.drop(batch)
	}
}

// sortAll sorts deliveries of one lane: those of one person in their order, others side by side, so that they share the
// commits of the client's database.
func (in *Intake) sortAll(ctx context.Context, ds []store.Delivery) {
	type parsed struct {
		store.Delivery
		batch whatsapp.Batch
		err   error
	}
	people := map[string][]parsed{}
	for _, d := range ds {
		p := parsed{Delivery: d}
		p.batch, p.err = whatsapp.ParseWebhook(d.Body)
		who := personOf(p.batch)
		people[who] = append(people[who], p)
	}
	var all sync.WaitGroup
	for _, theirs := range people {
		all.Go(func() {
			for _, p := range theirs {
				if p.err != nil {
					in.finish(p.Delivery, store.Settlement{ID: p.ID, State: store.Failed, Error: p.err.Error()})
					continue
				}
				in.finish(p.Delivery, in.sort(ctx, p.Delivery, p.batch))
			}
		})
	}
	all.Wait()
}

// personOf tells whom a delivery concerns, as far as it decides which of them wait for each other; "" if not one person.
func personOf(b whatsapp.Batch) string {
	if len(b.Items) != 1 {
		return ""
	}
	switch it := b.Items[0]; {
	case it.Message != nil:
		return cmp.Or(it.Message.GroupID, it.Message.To, it.Message.From, it.Message.FromUserID)
	case it.Status != nil:
		return cmp.Or(it.Status.RecipientID, it.Status.RecipientUserID)
	}
	return ""
}

// sort stores every item of a delivery with the client it belongs to. One item's trouble is not its neighbour's.
func (in *Intake) sort(ctx context.Context, d store.Delivery, batch whatsapp.Batch) store.Settlement {
	s := store.Settlement{ID: d.ID, State: store.Settled}
	clients := map[string]*store.DeliveryState{}
	open := map[string]*tenant.Tenant{}
	defer func() {
		for code := range open {
			in.cfg.Changed(code)
		}
	}()
	worst := func(state store.DeliveryState, why string) {
		rank := map[store.DeliveryState]int{store.Settled: 0, store.Unresolved: 1, store.Failed: 2, store.Received: 3}
		if rank[state] > rank[s.State] {
			s.State, s.Error = state, why
		}
	}
	for _, it := range batch.Ordered() {
		if it.Kind == whatsapp.KindInvalid {
			worst(store.Failed, fmt.Sprintf("%s: %v", it.At, it.Err))
			continue
		}
		codes := in.route(d, it)
		if len(codes) == 0 {
			worst(store.Unresolved, fmt.Sprintf("%s: no client has this number or account", it.At))
		}
		for _, code := range codes {
			clients[code] = nil
			tn := open[code]
			if tn == nil {
				t, release, err := in.cfg.Tenants.Use(ctx, code)
				if err != nil {
					worst(store.Received, fmt.Sprintf("client %s: %v", code, err))
					continue
				}
				defer release()
				open[code], tn = t, t
			}
			if err := in.ingest(ctx, tn, &d, it); err != nil {
				if errors.Is(err, errUnusable) || errors.Is(err, store.ErrTooLarge) {
					worst(store.Failed, fmt.Sprintf("%s: %v", it.At, err))
				} else {
					worst(store.Received, fmt.Sprintf("%s: %v", it.At, err))
				}
				in.cfg.Log.Error("an item of a delivery was not stored", "client", code, "delivery", d.ID, "at", it.At, "kind", it.Kind, "error", err)
			}
		}
	}
	s.Clients = slices.Sorted(maps.Keys(clients))
	return s
}

// ingest stores one item; a panic is that item's trouble alone.
func (in *Intake) ingest(ctx context.Context, tn *tenant.Tenant, d *store.Delivery, it whatsapp.Item) (err error) {
	defer func() {
		if p := recover(); p != nil {
			in.cfg.Log.Error("panic in an item of a delivery", "client", tn.Code, "delivery", d.ID, "at", it.At, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: panic", errUnusable)
		}
	}()
	next, err := in.cfg.Desk.Ingest(ctx, tn, d, it)
	if err == nil && len(next) > 0 {
		_, err = in.cfg.Enqueue(ctx, next...)
	}
	return err
}

// route tells whose an item is. Through a client's own app comes only what is that client's.
func (in *Intake) route(d store.Delivery, it whatsapp.Item) []string {
	var codes []string
	switch {
	case it.PhoneNumberID != "":
		if code, ok := in.cfg.Tenants.ByPhone(it.PhoneNumberID); ok {
			codes = []string{code}
		}
	default:
		codes = in.cfg.Tenants.ByWABA(it.WABAID)
	}
	if d.Client == "" {
		return codes
	}
	if slices.Contains(codes, d.Client) {
		return []string{d.Client}
	}
	return nil
}

// Unavailable tells whether an error of Receive means that nothing could be stored now.
func Unavailable(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || fault.Of(err) == fault.Unavailable
}

// Hasten has deliveries that failed tried again with the next sweep, not each at its own time: what they failed for may be
// mended.
func (in *Intake) Hasten() { in.lanes.hasten() }
