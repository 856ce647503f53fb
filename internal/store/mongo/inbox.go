package mongo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/ecodrix/ecod/internal/store"
)

const (
	deliveries = "deliveries"

	inboxRevision = "1"
	receiveCount  = 500     // deliveries that share an insert
	receiveBytes  = 8 << 20 // and their bytes
	dropBatch     = 2000    // deliveries removed by one command
)

// delivery is a document of the inbox. What is not settled has its state in _open, too, so that an index holds those alone.
type delivery struct {
	ID         string     `bson:"_id"`
	Client     string     `bson:"client,omitempty"`
	State      string     `bson:"state"`
	Open       string     `bson:"_open,omitempty"`
	Error      string     `bson:"error,omitempty"`
	Clients    []string   `bson:"clients,omitempty"`
	Attempt    int        `bson:"attempt"`
	ReceivedAt time.Time  `bson:"receivedAt"`
	SettledAt  *time.Time `bson:"settledAt,omitempty"`
	Body       []byte     `bson:"body"`
}

func (x *delivery) delivery() store.Delivery {
	d := store.Delivery{ID: x.ID, Client: x.Client, Body: x.Body, State: store.DeliveryState(x.State), Error: x.Error, Clients: x.Clients, Attempt: x.Attempt, ReceivedAt: x.ReceivedAt.UTC()}
	if x.SettledAt != nil {
		d.SettledAt = x.SettledAt.UTC()
	}
	return d
}

// Inbox keeps webhooks' bytes in the collection "deliveries". It is a store.Inbox.
type Inbox struct {
	db  *DB
	ids store.DeliveryIDs

	mu      sync.Mutex
	closed  bool
	busy    bool
	waiting []*receipt
	calls   sync.WaitGroup
}

var _ store.Inbox = (*Inbox)(nil)

// receipt is a delivery on its way in.
type receipt struct {
	doc  delivery
	done chan struct{}
	err  error
}

// OpenInbox opens the inbox of a database. now is the clock that says when a delivery was received; nil: the server's.
func OpenInbox(ctx context.Context, db *DB, now func() time.Time) (*Inbox, error) {
	if now == nil {
		if err := db.clock.ask(ctx); err != nil {
			return nil, err
		}
		now = db.clock.now
	}
	some := func(name string) *options.IndexOptionsBuilder {
		return options.Index().SetName(name).SetPartialFilterExpression(bson.D{{Key: name, Value: bson.D{{Key: "$exists", Value: true}}}})
	}
	var indexes []driver.IndexModel
	for _, name := range []string{"_open", "client", "clients"} {
		indexes = append(indexes, driver.IndexModel{Keys: bson.D{{Key: name, Value: 1}, {Key: idKey, Value: 1}}, Options: some(name)})
	}
	if err := db.ensure(ctx, "inbox", inboxRevision, map[string][]driver.IndexModel{deliveries: indexes}); err != nil {
		return nil, err
	}
	return &Inbox{db: db, ids: store.DeliveryIDs{Now: now}}, nil
}

// Receive implements store.Inbox. Calls that come while an insert is under way share the next one.
func (in *Inbox) Receive(ctx context.Context, d *store.Delivery) error {
	if len(d.Body) > store.MaxDoc || len(d.Client) > store.MaxID {
		return fmt.Errorf("%w: delivery of %d bytes", store.ErrTooLarge, len(d.Body))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	id, ms := in.ids.Next()
	at := time.UnixMilli(ms).UTC()
	body := d.Body
	if body == nil {
		body = []byte{}
	}
	r := &receipt{done: make(chan struct{}), doc: delivery{ID: id, Client: d.Client, State: string(store.Received), Open: string(store.Received), ReceivedAt: at, Body: body}}
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return store.ErrClosed
	}
	in.waiting = append(in.waiting, r)
	if !in.busy {
		in.busy = true
		in.calls.Add(1)
		go in.drain()
	}
	in.mu.Unlock()
	select {
	case <-r.done:
	case <-ctx.Done(): // it may be stored all the same: who sends it again is told by its bytes
		return ctx.Err()
	}
	if r.err != nil {
		return r.err
	}
	d.ID, d.ReceivedAt, d.State = id, at, store.Received
	return nil
}

// drain stores what waits, a batch at a time, until nothing does.
func (in *Inbox) drain() {
	defer in.calls.Done()
	for {
		in.mu.Lock()
		n, size := 0, 0
		for n < len(in.waiting) && n < receiveCount && (n == 0 || size+len(in.waiting[n].doc.Body) <= receiveBytes) {
			size += len(in.waiting[n].doc.Body)
			n++
		}
		batch := in.waiting[:n:n]
		in.waiting = in.waiting[n:]
		if n == 0 {
			in.waiting, in.busy = nil, false
			in.mu.Unlock()
			return
		}
		in.mu.Unlock()
		in.insert(batch)
		for _, r := range batch {
			close(r.done)
		}
	}
}

// insert stores a batch and tells each of its receipts what became of it.
func (in *Inbox) insert(batch []*receipt) {
	ctx, cancel := context.WithTimeout(context.Background(), in.db.cl.c.cfg.Timeout)
	defer cancel()
	docs := make([]any, len(batch))
	for i, r := range batch {
		docs[i] = &r.doc
	}
	err := in.db.call(ctx, func(ctx context.Context, d *driver.Database) error {
		_, err := d.Collection(deliveries).InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
		var bulk driver.BulkWriteException
		if errors.As(err, &bulk) && bulk.WriteConcernError == nil { // the others stand
			for _, w := range bulk.WriteErrors {
				batch[w.Index].err = fmt.Errorf("%w: store/mongo: %s", store.ErrUnavailable, codeText(w.Code))
			}
			return nil
		}
		return err
	})
	if errors.Is(err, context.DeadlineExceeded) { // ours, not the callers'
		err = fmt.Errorf("%w: store/mongo: no answer in time", store.ErrUnavailable)
	}
	if err != nil {
		for _, r := range batch {
			r.err = err
		}
	}
}

// call is a call of the database, unless the inbox was closed.
func (in *Inbox) call(ctx context.Context, fn func(ctx context.Context, c *driver.Collection) error) error {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return store.ErrClosed
	}
	in.calls.Add(1)
	in.mu.Unlock()
	defer in.calls.Done()
	return in.db.call(ctx, func(ctx context.Context, d *driver.Database) error { return fn(ctx, d.Collection(deliveries)) })
}

// Settle implements store.Inbox. It waits for the primary alone: what is lost with it is sorted again, to the same result.
func (in *Inbox) Settle(ctx context.Context, settlements ...store.Settlement) error {
	var models []driver.WriteModel
	now := in.ids.Now().UTC()
	for _, s := range settlements {
		set := bson.D{{Key: "state", Value: string(s.State)}}
		var unset bson.D
		put := func(name string, value any, present bool) {
			if present {
				set = append(set, bson.E{Key: name, Value: value})
			} else {
				unset = append(unset, bson.E{Key: name, Value: ""})
			}
		}
		switch s.State {
		case store.Received, store.Settled, store.Unresolved, store.Failed:
		default:
			return fmt.Errorf("store/mongo: no state of a delivery: %q", string(s.State))
		}
		put("_open", string(s.State), s.State != store.Settled)
		put("error", s.Error, s.Error != "")
		put("clients", s.Clients, len(s.Clients) > 0)
		put("settledAt", now, s.State != store.Received)
		update := bson.D{{Key: "$set", Value: set}, {Key: "$inc", Value: bson.D{{Key: "attempt", Value: 1}}}}
		if len(unset) > 0 {
			update = append(update, bson.E{Key: "$unset", Value: unset})
		}
		models = append(models, driver.NewUpdateOneModel().SetFilter(bson.D{{Key: idKey, Value: s.ID}}).SetUpdate(update))
	}
	if len(models) == 0 {
		return nil
	}
	return in.call(ctx, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.Clone(options.Collection().SetWriteConcern(writeconcern.W1())).BulkWrite(ctx, models)
		return err
	})
}

// Replay implements store.Inbox. Every delivery that is not waiting anyhow is set back, settled ones too; its attempts count
// from zero again.
func (in *Inbox) Replay(ctx context.Context, ids ...string) ([]string, error) {
	var did []string
	err := in.call(ctx, func(ctx context.Context, c *driver.Collection) error {
		for _, id := range ids {
			r, err := c.UpdateOne(ctx, bson.D{{Key: idKey, Value: id}, {Key: "state", Value: bson.D{{Key: "$ne", Value: string(store.Received)}}}}, bson.D{
				{Key: "$set", Value: bson.D{{Key: "state", Value: string(store.Received)}, {Key: "_open", Value: string(store.Received)}, {Key: "attempt", Value: 0}}},
				{Key: "$unset", Value: bson.D{{Key: "error", Value: ""}, {Key: "settledAt", Value: ""}}},
			})
			if err != nil {
				return err
			}
			if r.MatchedCount > 0 {
				did = append(did, id)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return did, nil
}

// Close implements store.Inbox. Calls under way finish first. The database stays open.
func (in *Inbox) Close() error {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	in.calls.Wait()
	return nil
}
