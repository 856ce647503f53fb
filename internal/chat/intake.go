package chat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// Intake works off the raw inbox. A delivery is durable before Meta is told so; sorting it into the clients' databases
// comes after, at once if all is well. The inbox row is the work order: it stays received until every item is stored,
// and a sweep finds what a crash or a full queue left behind. Sorting the same delivery again changes nothing.
type Intake struct {
	cfg  IntakeConfig
	work chan store.Delivery
	ends chan store.Settlement

	mu     sync.Mutex
	busy   map[string]bool      // in work now
	resume map[string]time.Time // failed for now, not before
}

// IntakeConfig is what an Intake is built from.
type IntakeConfig struct {
	Inbox   store.Inbox
	Tenants *tenant.Registry
	Desk    *Desk
	Now     func() time.Time
	Log     *slog.Logger
	Workers int // deliveries at once
	// Changed is called after a client's database took something in; it must not block.
	Changed func(code string)
	// Observe is called when a delivery is settled, for metrics.
	Observe func(state store.DeliveryState, sinceReceived time.Duration)
	// Busy tells that acknowledgements are being waited for: sorting lets them go first. May be nil.
	Busy func() bool
}

const (
	sweepEvery  = 2 * time.Second
	sweepBehind = 5 * time.Second // what is older and in nobody's hands was left behind
	settleMost  = 256
	queueLength = 1024 // deliveries kept in memory for the workers; what is beyond comes with the sweep
	retryFirst  = 5 * time.Second
	retryMost   = 5 * time.Minute
)

// NewIntake makes an intake; Run works it.
func NewIntake(cfg IntakeConfig) *Intake {
	return &Intake{cfg: cfg, work: make(chan store.Delivery, queueLength), ends: make(chan store.Settlement, settleMost),
		busy: map[string]bool{}, resume: map[string]time.Time{}}
}

// Receive makes a delivery durable and hands it to the workers. When it returns nil, Meta may be told 200.
func (in *Intake) Receive(ctx context.Context, client string, body []byte) error {
	d := store.Delivery{ID: id.New("dlv"), Client: client, Body: body, ReceivedAt: in.cfg.Now().UTC()}
	if err := in.cfg.Inbox.Receive(ctx, &d); err != nil {
		return err
	}
	in.offer(d)
	return nil
}

// Replay has deliveries sorted again, at once where the workers have room. It gives the ids of those that it set back.
func (in *Intake) Replay(ctx context.Context, ids ...string) ([]string, error) {
	again, err := in.cfg.Inbox.Replay(ctx, ids...)
	if err != nil {
		return again, err
	}
	in.mu.Lock()
	for _, id := range again {
		delete(in.resume, id)
	}
	in.mu.Unlock()
	for _, id := range again {
		if d, err := in.cfg.Inbox.Delivery(ctx, id); err != nil || !in.offer(d) {
			break // the sweep finds them
		}
	}
	return again, nil
}

// offer gives a delivery to the workers unless it is in their hands, or they have plenty. True: it is taken.
func (in *Intake) offer(d store.Delivery) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.busy[d.ID] {
		return true
	}
	if at, ok := in.resume[d.ID]; ok && in.cfg.Now().Before(at) {
		return true
	}
	select {
	case in.work <- d:
		in.busy[d.ID] = true
		return true
	default:
		return false
	}
}

// Backlog is how many deliveries are in the workers' hands or before them.
func (in *Intake) Backlog() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.busy)
}

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
				case d := <-in.work:
					in.yield(ctx)
					in.finish(in.sort(context.WithoutCancel(ctx), d))
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

// yield lets acknowledgements go first, for a little while: Meta waits for them, nobody waits for us.
func (in *Intake) yield(ctx context.Context) {
	if in.cfg.Busy == nil {
		return
	}
	for i := 0; i < 4 && in.cfg.Busy() && ctx.Err() == nil; i++ {
		time.Sleep(500 * time.Microsecond)
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
	for ctx.Err() == nil {
		ds, err := in.cfg.Inbox.Pending(ctx, before, after, 200)
		if err != nil {
			if ctx.Err() == nil {
				in.cfg.Log.Error("the inbox cannot be swept", "error", err)
			}
			return
		}
		for _, d := range ds {
			for !in.offer(d) { // the workers have plenty: they will have room soon
				select {
				case <-ctx.Done():
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
			after = d.ID
		}
		if len(ds) < 200 {
			return
		}
	}
}

// finish hands a delivery's end to the settler, or notes when to try again.
func (in *Intake) finish(d store.Delivery, s store.Settlement) {
	in.mu.Lock()
	if s.State == store.Received {
		pause := min(retryMost, retryFirst<<min(d.Attempt, 10))
		in.resume[d.ID] = in.cfg.Now().Add(pause)
	} else {
		delete(in.resume, d.ID)
	}
	in.mu.Unlock()
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
		in.mu.Lock()
		for _, s := range batch {
			delete(in.busy, s.ID)
		}
		in.mu.Unlock()
	}
}

// sort stores every item of a delivery with the client it belongs to. One item's trouble is not its neighbour's.
func (in *Intake) sort(ctx context.Context, d store.Delivery) (store.Delivery, store.Settlement) {
	s := store.Settlement{ID: d.ID, State: store.Settled}
	batch, err := whatsapp.ParseWebhook(d.Body)
	if err != nil {
		s.State, s.Error = store.Failed, err.Error()
		return d, s
	}
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
	return d, s
}

// ingest stores one item; a panic is that item's trouble alone.
func (in *Intake) ingest(ctx context.Context, tn *tenant.Tenant, d *store.Delivery, it whatsapp.Item) (err error) {
	defer func() {
		if p := recover(); p != nil {
			in.cfg.Log.Error("panic in an item of a delivery", "client", tn.Code, "delivery", d.ID, "at", it.At, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: panic", errUnusable)
		}
	}()
	return in.cfg.Desk.Ingest(ctx, tn, d, it)
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
