package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// The tables of one day. Times are Unix milliseconds. The bytes lie apart, so that settling a delivery or
// listing many touches none of them.
const inboxSchema = `
CREATE TABLE IF NOT EXISTS deliveries (
	n INTEGER PRIMARY KEY, _id TEXT NOT NULL, client TEXT NOT NULL, state TEXT NOT NULL, error TEXT, clients TEXT,
	attempt INTEGER NOT NULL DEFAULT 0, receivedAt INTEGER NOT NULL, settledAt INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS deliveriesId ON deliveries (_id);
CREATE INDEX IF NOT EXISTS deliveriesOpen ON deliveries (state, _id) WHERE state <> 'settled';
CREATE TABLE IF NOT EXISTS deliveryClients (
	client TEXT NOT NULL, deliveryId TEXT NOT NULL, PRIMARY KEY (client, deliveryId)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bodies (n INTEGER PRIMARY KEY, body BLOB NOT NULL);`

const (
	inboxCacheKB = 2048
	dayIdle      = time.Minute // after which a day before today is closed
	dayLayout    = "2006-01-02"
)

// Inbox keeps webhooks' bytes in one file per UTC day, opened on demand. It is a store.Inbox.
type Inbox struct {
	dir string
	ids store.DeliveryIDs

	mu     sync.Mutex
	closed bool
	days   map[string]*day // open, or being opened or dropped
}

var _ store.Inbox = (*Inbox)(nil)

// day is one file. Its fields but f and err are guarded by the inbox's lock.
type day struct {
	name string
	used time.Time
	uses int  // calls under way
	gone bool // being dropped

	once sync.Once
	f    *file
	err  error
}

// OpenInbox opens the inbox in a folder, and makes the folder if it is not there. now is the clock that says
// when a delivery was received, and so in which day it lies.
func OpenInbox(dir string, now func() time.Time) (*Inbox, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unavailable(err)
	}
	if err := syncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, unavailable(err)
	}
	return &Inbox{dir: dir, ids: store.DeliveryIDs{Now: now}, days: map[string]*day{}}, nil
}

// Receive implements store.Inbox.
func (in *Inbox) Receive(ctx context.Context, d *store.Delivery) error {
	if len(d.Body) > store.MaxDoc || len(d.Client) > store.MaxID {
		return fmt.Errorf("%w: delivery of %d bytes", store.ErrTooLarge, len(d.Body))
	}
	id, at := in.ids.Next()
	body := d.Body
	if body == nil {
		body = []byte{} // NULL is no body
	}
	err := in.use(ctx, dayOf(at), true, func(f *file) error {
		return f.writeSure(ctx, func(tx *wtx) error {
			if _, err := tx.exec(`INSERT INTO deliveries (_id, client, state, receivedAt) VALUES (?, ?, 'received', ?)`, id, d.Client, at); err != nil {
				return err
			}
			if _, err := tx.exec(`INSERT INTO bodies (n, body) VALUES (last_insert_rowid(), ?)`, body); err != nil {
				return err
			}
			if d.Client == "" {
				return nil
			}
			_, err := tx.exec(`INSERT INTO deliveryClients (client, deliveryId) VALUES (?, ?)`, d.Client, id)
			return err
		})
	})
	if err != nil {
		return err
	}
	d.ID, d.ReceivedAt, d.State = id, msTime(at), store.Received
	return nil
}

// Settle implements store.Inbox. Deliveries of one day share a commit; those that are gone are passed over.
func (in *Inbox) Settle(ctx context.Context, settlements ...store.Settlement) error {
	byDay := map[string][]store.Settlement{}
	for _, s := range settlements {
		switch s.State {
		case store.Received, store.Settled, store.Unresolved, store.Failed:
		default:
			return invalid("no state of a delivery: %q", string(s.State))
		}
		if at, ok := store.DeliveryTime(s.ID); ok {
			byDay[dayOf(at)] = append(byDay[dayOf(at)], s)
		}
	}
	now := in.ids.Now().UnixMilli()
	for name, ss := range byDay {
		err := in.use(ctx, name, false, func(f *file) error {
			return f.write(ctx, func(tx *wtx) error {
				for _, s := range ss {
					if err := settle(tx, s, now); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

func settle(tx *wtx, s store.Settlement, now int64) error {
	r, err := tx.first(`SELECT n, client, clients FROM deliveries WHERE _id = ?`, s.ID)
	if err != nil || r == nil {
		return err
	}
	n, own, before := r.int(0), r.text(1), scanClients(r.text(2))
	var settledAt, clients any
	if s.State != store.Received {
		settledAt = now
	}
	if len(s.Clients) > 0 {
		b, err := json.Marshal(s.Clients)
		if err != nil {
			return err
		}
		clients = string(b)
	}
	_, err = tx.exec(`UPDATE deliveries SET state = ?, error = ?, clients = ?, attempt = attempt + 1, settledAt = ? WHERE n = ?`,
		string(s.State), orNull(s.Error), clients, settledAt, n)
	if err != nil {
		return err
	}
	for _, c := range before {
		if c != own && !slices.Contains(s.Clients, c) {
			if _, err := tx.exec(`DELETE FROM deliveryClients WHERE client = ? AND deliveryId = ?`, c, s.ID); err != nil {
				return err
			}
		}
	}
	for _, c := range s.Clients {
		if c != own && !slices.Contains(before, c) {
			if _, err := tx.exec(`INSERT INTO deliveryClients (client, deliveryId) VALUES (?, ?) ON CONFLICT DO NOTHING`, c, s.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// Replay implements store.Inbox. Every delivery that is not waiting anyhow is set back, settled ones too; its
// attempts count from zero again.
func (in *Inbox) Replay(ctx context.Context, ids ...string) ([]string, error) {
	byDay := map[string][]string{}
	for _, id := range ids {
		if at, ok := store.DeliveryTime(id); ok {
			byDay[dayOf(at)] = append(byDay[dayOf(at)], id)
		}
	}
	did := map[string]bool{}
	for name, ids := range byDay {
		var set []string
		err := in.use(ctx, name, false, func(f *file) error {
			return f.write(ctx, func(tx *wtx) error {
				set = nil
				for _, id := range ids {
					n, err := tx.exec(`UPDATE deliveries SET state = 'received', error = NULL, attempt = 0, settledAt = NULL WHERE _id = ? AND state <> 'received'`, id)
					if err != nil {
						return err
					}
					if n > 0 {
						set = append(set, id)
					}
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		for _, id := range set {
			did[id] = true
		}
	}
	var out []string
	for _, id := range ids { // in the order asked
		if did[id] {
			out = append(out, id)
			delete(did, id)
		}
	}
	return out, nil
}

// Drop implements store.Inbox. A day that is being read is dropped the next time.
func (in *Inbox) Drop(ctx context.Context, settled, unsettled time.Duration) error {
	names, err := in.list()
	if err != nil {
		return err
	}
	now := in.ids.Now()
	for _, name := range names {
		start, err := time.Parse(dayLayout, name)
		if err != nil {
			return err
		}
		age := now.Sub(start.AddDate(0, 0, 1)) // of its youngest delivery
		drop := age >= unsettled && age > 0
		if !drop && age >= settled && age > 0 {
			if drop, err = in.settled(ctx, name); err != nil {
				return err
			}
		}
		if drop {
			if err := in.drop(name); err != nil {
				return err
			}
		}
	}
	in.closeIdle()
	return nil
}

// settled tells whether every delivery of a day is.
func (in *Inbox) settled(ctx context.Context, name string) (bool, error) {
	open := false
	err := in.use(ctx, name, false, func(f *file) error {
		return f.read(ctx, func(c *conn) error {
			r, err := c.first(ctx, `SELECT 1 FROM deliveries INDEXED BY deliveriesOpen WHERE state <> 'settled' LIMIT 1`)
			open = r != nil
			return err
		})
	})
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && !open, err
}

// drop closes a day and removes its file, unless it is in use.
func (in *Inbox) drop(name string) error {
	in.mu.Lock()
	d := in.days[name]
	if in.closed || d != nil && (d.uses > 0 || d.gone) {
		in.mu.Unlock()
		return nil
	}
	if d == nil {
		d = &day{name: name}
		in.days[name] = d
	}
	d.gone = true // use answers that it is not there
	in.mu.Unlock()

	var err error
	if d.f != nil {
		err = d.f.close()
	}
	for _, suffix := range []string{".db", ".db-wal", ".db-shm"} {
		if rm := os.Remove(filepath.Join(in.dir, name+suffix)); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
			err = errors.Join(err, rm)
		}
	}
	in.mu.Lock()
	delete(in.days, name)
	in.mu.Unlock()
	return unavailable(err)
}

// use runs fn with the file of a day. A day without a file is made if asked; else it is store.ErrNotFound.
func (in *Inbox) use(ctx context.Context, name string, create bool, fn func(f *file) error) error {
	in.mu.Lock()
	d := in.days[name]
	switch {
	case in.closed:
		in.mu.Unlock()
		return store.ErrClosed
	case d != nil && d.gone:
		in.mu.Unlock()
		return fmt.Errorf("%w: deliveries of %s", store.ErrNotFound, name)
	case d == nil:
		d = &day{name: name}
		in.days[name] = d
	}
	d.uses++
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		d.uses--
		d.used = time.Now()
		if d.err != nil && in.days[name] == d {
			delete(in.days, name) // the next call tries again
		}
		in.mu.Unlock()
	}()
	d.once.Do(func() { d.f, d.err = openDay(filepath.Join(in.dir, name+".db"), create) })
	if d.err != nil {
		return d.err
	}
	return fn(d.f)
}

// openDay opens a day's file. It does not end with the call that happens to open it.
func openDay(path string, create bool) (*file, error) {
	ctx := context.Background()
	if !create {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: no deliveries of that day", store.ErrNotFound)
		}
	}
	f, err := openFile(ctx, path, inboxCacheKB)
	if err != nil {
		return nil, err
	}
	complete := false
	err = f.read(ctx, func(c *conn) error {
		r, err := c.first(ctx, `SELECT 1 FROM sqlite_schema WHERE name = 'bodies'`)
		complete = r != nil
		return err
	})
	if err == nil && !complete {
		err = f.write(ctx, func(tx *wtx) error { return tx.script(inboxSchema) })
	}
	if err == nil {
		err = f.write(ctx, func(tx *wtx) error { return f.tune(tx, busyFile) })
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// closeIdle closes days before today that nobody used for a while.
func (in *Inbox) closeIdle() {
	today := dayOf(in.ids.Now().UnixMilli())
	var idle []*day
	in.mu.Lock()
	for name, d := range in.days {
		if name < today && d.uses == 0 && !d.gone && time.Since(d.used) > dayIdle {
			idle = append(idle, d)
			delete(in.days, name)
		}
	}
	in.mu.Unlock()
	for _, d := range idle {
		_ = d.f.close() // what it could not check-point is in its log
	}
}

// list gives the days that have a file, oldest first.
func (in *Inbox) list() ([]string, error) {
	entries, err := os.ReadDir(in.dir)
	if err != nil {
		return nil, unavailable(err)
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".db")
		if _, err := time.Parse(dayLayout, name); ok && err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Close implements store.Inbox. Calls under way finish first.
func (in *Inbox) Close() error {
	in.mu.Lock()
	in.closed = true
	open := in.days
	in.days = map[string]*day{}
	in.mu.Unlock()
	var errs []error
	for _, d := range open {
		d.once.Do(func() { d.err = store.ErrClosed }) // waits for one that is being opened
		if d.f != nil {
			errs = append(errs, d.f.close())
		}
	}
	return errors.Join(errs...)
}

// dayOf names the UTC day of a time.
func dayOf(ms int64) string { return msTime(ms).Format(dayLayout) }
