// Command engines puts the two engines of the storage contract side by side under the same load: messages that come in (a
// client's records in one commit, and a job of the services), jobs made, jobs claimed and finished. ../README.md has figures, and
// what they are worth.
//
//	go run ./bench/engines [-seconds 10] [-mongo mongodb://127.0.0.1:27017/ecodbench]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/mongo"
	"github.com/ecodrix/ecod/internal/store/sqlite"
)

const (
	tenants = 20
	writers = 32
	workers = 4
	batch   = 16 // jobs of one claim
)

// kinds are shaped as a client's: a conversation that changes with every message, and news of it.
var kinds = []store.Schema{
	{Kind: "contacts", Fields: []store.Field{{Name: "phone", Unique: true}, {Name: "name"}}},
	{Kind: "conversations", Fields: []store.Field{{Name: "contactId"}, {Name: "lastMessageAt", Type: store.Int}}, Orders: [][]string{{"lastMessageAt"}}},
	{Kind: "messages", Fields: []store.Field{{Name: "conversationId"}, {Name: "at", Type: store.Int}, {Name: "wamid", Unique: true}}, Orders: [][]string{{"conversationId", "at"}}},
	{Kind: "news", Fields: []store.Field{{Name: "topic"}}, Sequenced: true},
}

// engine is what is measured.
type engine struct {
	name    string
	queue   store.Queue
	tenants []store.DB
	close   func() error
}

func main() {
	seconds := flag.Int("seconds", 10, "length of each load")
	url := flag.String("mongo", os.Getenv("ECOD_TEST_MONGODB_URL"), "the MongoDB server; databases with the name in it as prefix are made and dropped")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, time.Duration(*seconds)*time.Second, *url); err != nil {
		fmt.Fprintln(os.Stderr, "engines:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, length time.Duration, url string) error {
	dir, err := os.MkdirTemp("", "ecod-engines-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	open := []func() (*engine, error){func() (*engine, error) { return embedded(ctx, dir) }}
	if url != "" {
		open = append(open, func() (*engine, error) { return server(ctx, url) })
	}
	for _, f := range open {
		e, err := f()
		if err != nil {
			return err
		}
		err = e.measure(ctx, length)
		if err := errors.Join(err, e.close()); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

func embedded(ctx context.Context, dir string) (*engine, error) {
	e := &engine{name: "SQLite"}
	services, err := sqlite.Open(ctx, filepath.Join(dir, "services.db"), nil)
	if err != nil {
		return nil, err
	}
	if e.queue, err = sqlite.OpenQueue(ctx, services, time.Now); err != nil {
		return nil, err
	}
	for i := range tenants {
		db, err := sqlite.Open(ctx, filepath.Join(dir, fmt.Sprintf("t%d.db", i)), kinds)
		if err != nil {
			return nil, err
		}
		e.tenants = append(e.tenants, db)
	}
	e.close = func() error {
		for _, db := range e.tenants {
			if err := db.Close(); err != nil {
				return err
			}
		}
		return services.Close()
	}
	return e, nil
}

func server(ctx context.Context, url string) (*engine, error) {
	e := &engine{name: "MongoDB"}
	prefix := mongo.Database(url)
	if prefix == "" {
		prefix = "ecodbench"
	}
	c := mongo.NewClusters(mongo.Config{Home: url})
	names := []string{prefix + "_services"}
	services, err := c.Open(ctx, url, names[0], nil)
	if err != nil {
		return nil, err
	}
	if e.queue, err = mongo.OpenQueue(ctx, services, nil); err != nil {
		return nil, err
	}
	for i := range tenants {
		name := fmt.Sprintf("%s_t_%d", prefix, i)
		db, err := c.Open(ctx, url, name, kinds)
		if err != nil {
			return nil, err
		}
		names, e.tenants = append(names, name), append(e.tenants, db)
	}
	e.close = func() error {
		ctx := context.WithoutCancel(ctx)
		var errs []error
		for _, db := range append(e.tenants, services) {
			errs = append(errs, db.Close())
		}
		for _, name := range names {
			errs = append(errs, c.Drop(ctx, url, name))
		}
		return errors.Join(append(errs, c.Close(ctx))...)
	}
	return e, nil
}

func (e *engine) measure(ctx context.Context, length time.Duration) error {
	run := rand.Uint64()
	err := e.load(ctx, "messages stored, with a job each", length, func(ctx context.Context, n int64) error {
		if err := e.message(ctx, run, n); err != nil {
			return err
		}
		return e.enqueue(ctx, fmt.Sprintf("message %d %d", run, n), n)
	})
	if err != nil {
		return err
	}
	made := atomic.Int64{}
	err = e.load(ctx, "jobs made, each durable", length, func(ctx context.Context, n int64) error {
		made.Add(1)
		return e.enqueue(ctx, fmt.Sprintf("job %d %d", run, n), n)
	})
	if err != nil {
		return err
	}
	return e.drain(ctx, length)
}

// load has writers do a step as often as they can, and prints how often they could.
func (e *engine) load(ctx context.Context, what string, length time.Duration, step func(ctx context.Context, n int64) error) error {
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var errs []error
	var wg sync.WaitGroup
	began := time.Now()
	for range writers {
		wg.Go(func() {
			for time.Since(began) < length {
				at := time.Now()
				err := step(ctx, next.Add(1))
				mu.Lock()
				took = append(took, time.Since(at))
				errs = append(errs, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	slices.Sort(took)
	fmt.Printf("%-8s %-34s %8.0f/s   p50 %7.1f ms   p99 %7.1f ms\n", e.name, what, float64(len(took))/time.Since(began).Seconds(),
		float64(took[len(took)/2].Microseconds())/1000, float64(took[len(took)*99/100].Microseconds())/1000)
	return nil
}

// message is one that comes in: its facts first, the conversation that speaks of it last.
func (e *engine) message(ctx context.Context, run uint64, n int64) error {
	db := e.tenants[n%tenants]
	who := fmt.Sprintf("%d", n/tenants%50)
	doc := func(more string) []byte {
		return fmt.Appendf(nil, `{"id":"x","createdAt":"2026-01-01T00:00:00Z","type":"text","n":%d,"text":"%s"}`, n, more)
	}
	const text = "Good morning! Could you tell me whether my order will be here before the weekend? Thank you very much in advance."
	id := fmt.Sprintf("%d-%d", run, n)
	return db.Commit(ctx,
		store.Write{Action: store.Ensure, Kind: "contacts", ID: "con_" + who, Doc: doc("Ada"), Fields: store.Fields{"phone": who, "name": "ada"}},
		store.Write{Action: store.Ensure, Kind: "news", ID: "new_" + id, Doc: doc(""), Fields: store.Fields{"topic": "message"}},
		store.Write{Action: store.Insert, Kind: "messages", ID: "msg_" + id, Doc: doc(text), Fields: store.Fields{"conversationId": who, "at": n, "wamid": id}},
		store.Write{Action: store.Put, Kind: "conversations", ID: "cnv_" + who, Doc: doc(text), Fields: store.Fields{"contactId": who, "lastMessageAt": n}},
	)
}

func (e *engine) enqueue(ctx context.Context, key string, n int64) error {
	_, err := e.queue.Enqueue(ctx, store.NewJob{Tenant: fmt.Sprintf("CLIENT%02d", n%tenants), Type: "nothing", UniqueKey: key, Payload: json.RawMessage(`{"messageId":"msg_0191f0c3aaaa70000000000000000001"}`)})
	return err
}

// drain claims and finishes what was made, for so long.
func (e *engine) drain(ctx context.Context, length time.Duration) error {
	var done atomic.Int64
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	began := time.Now()
	for w := range workers {
		wg.Go(func() {
			for time.Since(began) < length {
				n, err := e.work(ctx, fmt.Sprintf("worker %d", w))
				done.Add(int64(n))
				if err != nil || n == 0 {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	fmt.Printf("%-8s %-34s %8.0f/s\n", e.name, fmt.Sprintf("jobs claimed and finished, %d at once", batch), float64(done.Load())/time.Since(began).Seconds())
	return errors.Join(errs...)
}

func (e *engine) work(ctx context.Context, owner string) (int, error) {
	jobs, err := e.queue.Claim(ctx, store.ClaimRequest{Owner: owner, Limit: batch, Lease: time.Minute, Types: []string{"nothing"}})
	if err != nil || len(jobs) == 0 {
		return 0, err
	}
	var outcomes []store.Outcome
	for _, j := range jobs {
		outcomes = append(outcomes, store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded})
	}
	_, err = e.queue.Finish(ctx, outcomes...)
	return len(jobs), err
}
