package store

import (
	"context"
	"time"
)

// DeliveryState is how far a raw delivery is.
type DeliveryState string

// The states of a delivery.
const (
	Received   DeliveryState = "received"   // durable, not yet sorted into the clients' databases
	Settled    DeliveryState = "settled"    // every item stored
	Unresolved DeliveryState = "unresolved" // some item belongs to no client we know; replayable
	Failed     DeliveryState = "failed"     // malformed, or an item that cannot be stored; replayable
)

// Delivery is one webhook request as it came: the exact bytes.
type Delivery struct {
	ID         string // dlv_ + UUIDv7
	Client     string // the client whose own app it came through; "" for the operator's app
	Body       []byte
	State      DeliveryState
	Error      string   // for Unresolved and Failed
	Clients    []string // whose items it held, once sorted
	Attempt    int
	ReceivedAt time.Time
	SettledAt  time.Time
}

// Settlement tells how a delivery ended (or that it is to be tried again: State Received with an Error).
type Settlement struct {
	ID      string
	State   DeliveryState
	Error   string
	Clients []string
}

// DeliveryFilter selects deliveries; newest first. Client selects those that came through the client's own app or held items of it.
type DeliveryFilter struct {
	Client string
	States []DeliveryState
	After  string // id of the last one seen
	Limit  int    // 1 to 1,000; 0 means 100
}

// Inbox keeps the exact bytes of webhooks, by the day, apart from everything else.
type Inbox interface {
	// Receive stores a delivery and returns when it is durable (concurrent calls share one fsync). It sets ID and ReceivedAt.
	Receive(ctx context.Context, d *Delivery) error
	// Pending gives received deliveries not yet settled, oldest first, received before the time given, after an id.
	Pending(ctx context.Context, before time.Time, after string, limit int) ([]Delivery, error)
	// Settle records how deliveries ended, in one commit. It need not be durable at once: a delivery that comes back is sorted again to the same result.
	Settle(ctx context.Context, s ...Settlement) error
	// Delivery reads one; ErrNotFound.
	Delivery(ctx context.Context, id string) (Delivery, error)
	// Deliveries lists deliveries without their bodies.
	Deliveries(ctx context.Context, f DeliveryFilter) ([]Delivery, error)
	// Replay sets deliveries back to received; the ids that it did.
	Replay(ctx context.Context, ids ...string) ([]string, error)
	// Drop removes days whose deliveries are all settled and older than settled, and any day older than unsettled.
	Drop(ctx context.Context, settled, unsettled time.Duration) error
	Close() error
}
