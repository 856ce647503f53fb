package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

const deliveryColumns = `d._id, d.client, d.state, d.error, d.clients, d.attempt, d.receivedAt, d.settledAt`

func scanDelivery(r row) store.Delivery {
	return store.Delivery{
		ID: r.text(0), Client: r.text(1), State: store.DeliveryState(r.text(2)), Error: r.text(3),
		Clients: scanClients(r.text(4)), Attempt: int(r.int(5)), ReceivedAt: timeAt(r, 6), SettledAt: timeAt(r, 7),
	}
}

func scanClients(s string) (cs []string) {
	if s != "" {
		_ = json.Unmarshal([]byte(s), &cs) // ours; a broken one is none
	}
	return cs
}

// Pending implements store.Inbox.
func (in *Inbox) Pending(ctx context.Context, before time.Time, after string, limit int) ([]store.Delivery, error) {
	defer in.closeIdle()
	if limit <= 0 {
		limit = 100
	}
	end := before.UnixMilli()
	if before.Nanosecond()%int(time.Millisecond) > 0 {
		end++
	}
	below := store.FirstDeliveryID(end)
	first := ""
	if at, ok := store.DeliveryTime(after); ok {
		first = dayOf(at)
	}
	names, err := in.list()
	if err != nil {
		return nil, err
	}
	var out []store.Delivery
	for _, name := range names {
		if name < first {
			continue
		}
		if name > dayOf(end) || len(out) >= limit {
			break
		}
		err := in.read(ctx, name, func(c *conn) error {
			for r, err := range c.rows(ctx, `SELECT `+deliveryColumns+`, b.body FROM deliveries d INDEXED BY deliveriesOpen CROSS JOIN bodies b ON b.n = d.n
				WHERE d.state = 'received' AND d.state <> 'settled' AND d._id > ? AND d._id < ? ORDER BY d._id LIMIT ?`, after, below, limit-len(out)) {
				if err != nil {
					return err
				}
				d := scanDelivery(r)
				d.Body = r.bytes(8)
				out = append(out, d)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// read runs fn with a reader of a day; a day that is gone has nothing to read.
func (in *Inbox) read(ctx context.Context, name string, fn func(c *conn) error) error {
	err := in.use(ctx, name, false, func(f *file) error { return f.snapshot(ctx, fn) })
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// Delivery implements store.Inbox.
func (in *Inbox) Delivery(ctx context.Context, id string) (store.Delivery, error) {
	var d store.Delivery
	if at, ok := store.DeliveryTime(id); ok {
		err := in.read(ctx, dayOf(at), func(c *conn) error {
			r, err := c.first(ctx, `SELECT `+deliveryColumns+`, b.body FROM deliveries d JOIN bodies b ON b.n = d.n WHERE d._id = ?`, id)
			if err == nil && r != nil {
				d = scanDelivery(r)
				d.Body = r.bytes(8)
			}
			return err
		})
		if err != nil {
			return d, err
		}
	}
	if d.ID == "" {
		return d, fmt.Errorf("%w: delivery", store.ErrNotFound)
	}
	return d, nil
}

// Deliveries implements store.Inbox.
func (in *Inbox) Deliveries(ctx context.Context, f store.DeliveryFilter) ([]store.Delivery, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	below, last := "dlv_~", "~" // beyond every id and day
	if f.After != "" {
		at, ok := store.DeliveryTime(f.After)
		if !ok {
			return nil, nil
		}
		below, last = f.After, dayOf(at)
	}
	names, err := in.list()
	if err != nil {
		return nil, err
	}
	slices.Reverse(names)
	var out []store.Delivery
	for _, name := range names {
		if name > last {
			continue
		}
		if len(out) >= limit {
			break
		}
		query, args := deliveriesOf(f, below, limit-len(out))
		err := in.read(ctx, name, func(c *conn) error {
			for r, err := range c.rows(ctx, query, args...) {
				if err != nil {
					return err
				}
				out = append(out, scanDelivery(r))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// deliveriesOf is the query for the newest deliveries of a day below an id. States but settled are few, and
// have their index; the others are read in the order of their ids, of a client's or of all.
func deliveriesOf(f store.DeliveryFilter, below string, limit int) (string, []any) {
	var parts []string
	var args []any
	part := func(sql string, as ...any) {
		parts = append(parts, "SELECT _id FROM ("+sql+" LIMIT ?)")
		args = append(append(args, as...), limit)
	}
	states := slices.Compact(slices.Sorted(slices.Values(f.States)))
	if len(states) == 0 || slices.Contains(states, store.Settled) {
		ofState := ""
		if len(states) > 0 {
			ofState = " AND d.state = 'settled'"
		}
		if f.Client == "" {
			part(`SELECT d._id FROM deliveries d WHERE d._id < ?`+ofState+` ORDER BY d._id DESC`, below)
		} else {
			part(`SELECT d._id FROM deliveryClients c CROSS JOIN deliveries d ON d._id = c.deliveryId
				WHERE c.client = ? AND c.deliveryId < ?`+ofState+` ORDER BY c.deliveryId DESC`, f.Client, below)
		}
	}
	for _, s := range states {
		if s == store.Settled {
			continue
		}
		sql, as := `SELECT d._id FROM deliveries d INDEXED BY deliveriesOpen WHERE d.state = ? AND d.state <> 'settled' AND d._id < ?`, []any{string(s), below}
		if f.Client != "" {
			sql += ` AND EXISTS (SELECT 1 FROM deliveryClients c WHERE c.client = ? AND c.deliveryId = d._id)`
			as = append(as, f.Client)
		}
		part(sql+` ORDER BY d._id DESC`, as...)
	}
	return `SELECT ` + deliveryColumns + ` FROM deliveries d WHERE d._id IN (SELECT _id FROM (` + strings.Join(parts, " UNION ALL ") +
		`) ORDER BY _id DESC LIMIT ?) ORDER BY d._id DESC`, append(args, limit)
}
