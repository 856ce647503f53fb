package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
)

// plant is a queue in a folder, whose log tells what a power cut leaves: SQLite copies nothing of it into the file while it is
// as short as here.
type plant struct {
	root    string
	files   int // one after the other
	db      *DB
	q       *Queue
	now     func() time.Time
	size    int64 // of the log when it was last looked at
	durable int64 // of it, what was waited for
}

// fastDir is a folder for what is thrown away: in memory where the system has such a place, since a simulation waits for the
// disk at every step.
func fastDir(t *testing.T) string {
	t.Helper()
	root := ""
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		root = "/dev/shm"
	}
	dir, err := os.MkdirTemp(root, "ecod-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func openPlant(root string) storetest.OpenPlant {
	return func(now func() time.Time) (storetest.Plant, error) {
		dir, err := os.MkdirTemp(root, "life-")
		if err != nil {
			return nil, err
		}
		p := &plant{root: dir, now: now}
		return p, p.open()
	}
}

func (p *plant) path() string { return filepath.Join(p.root, fmt.Sprint(p.files), "services.db") }

func (p *plant) open() (err error) {
	if p.db, err = Open(context.Background(), p.path(), nil); err != nil {
		return err
	}
	p.q, err = OpenQueue(context.Background(), p.db, p.now)
	p.Wrote()
	return err
}

func (p *plant) Queue() store.Queue { return p.q }

// Wrote looks at the log. The engine itself says whether it waited for the disk.
func (p *plant) Wrote() bool {
	st, err := os.Stat(p.path() + "-wal")
	if err != nil {
		return false
	}
	grown := st.Size() != p.size
	if p.size = st.Size(); grown && !p.q.f.relaxed {
		p.durable = p.size
	}
	return grown
}

func (p *plant) Restart() error {
	if err := p.db.Close(); err != nil {
		return err
	}
	p.size, p.durable = 0, 0
	return p.open()
}

func (p *plant) PowerCut(r *rand.Rand) error {
	from := p.path()
	file, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	log, err := os.ReadFile(from + "-wal")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if n := int64(len(log)); n > p.durable { // nobody waited for the rest: it ends anywhere, and maybe in rubbish
		left := log[:p.durable+r.Int64N(n-p.durable+1)]
		for range r.IntN(2) * r.IntN(9000) {
			left = append(left, byte(r.Uint32()))
		}
		log = left
	}
	if err := p.db.Close(); err != nil {
		return err
	}
	p.files++
	p.size, p.durable = 0, 0
	if err := os.MkdirAll(filepath.Dir(p.path()), 0o700); err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(p.path(), file, 0o600), os.WriteFile(p.path()+"-wal", log, 0o600)); err != nil {
		return err
	}
	return p.open()
}

func (p *plant) Sound() error { return p.q.unsound() }

func (p *plant) Close() error {
	return errors.Join(p.db.Close(), os.RemoveAll(p.root))
}

// TestSimulation is the proof of what store.Queue promises, as far as a proof by many examples goes.
func TestSimulation(t *testing.T) {
	lives, most := uint64(1000), 15*time.Second
	switch {
	case os.Getenv("ECOD_TEST_LONG") != "":
		lives, most = 20_000, 0
	case os.Getenv("ECOD_TEST_ALL") != "":
		lives, most = 20_000, time.Minute
	}
	storetest.Simulation{Open: openPlant(fastDir(t))}.Run(t, lives, most)
}

// Each of these breaks one promise, and is found out.
func TestSimulationFinds(t *testing.T) {
	open := openPlant(fastDir(t))
	storetest.RunMutants(t, open, 300)
	t.Run("an enqueue does not wait for the disk", func(t *testing.T) {
		storetest.Simulation{Open: open, Queue: func(q store.Queue) store.Queue { return hurried{q.(*Queue)} }}.Mutant(t, 300)
	})
	t.Run("a lane counts wrong", func(t *testing.T) {
		storetest.Simulation{Open: open, Queue: func(q store.Queue) store.Queue { return miscounting{q.(*Queue)} }}.Mutant(t, 300)
	})
}

// hurried acknowledges jobs that a power cut may take away.
type hurried struct{ *Queue }

func (q hurried) Enqueue(ctx context.Context, jobs ...store.NewJob) ([]store.Enqueued, error) {
	wanted, err := prepareAll(jobs)
	if err != nil {
		return nil, err
	}
	out := make([]store.Enqueued, len(jobs))
	return out, q.changeRedoable(ctx, func(c *change) error {
		for i, w := range wanted {
			j, made, err := c.insert(w)
			if err == nil && !made {
				j, err = c.known(w)
			}
			if err != nil {
				return err
			}
			out[i] = store.Enqueued{Job: j, Duplicate: !made}
		}
		return nil
	})
}

// miscounting forgets that a job went when it is cancelled.
type miscounting struct{ *Queue }

func (q miscounting) Cancel(ctx context.Context, ids ...string) ([]string, error) {
	did, err := q.Queue.Cancel(ctx, ids...)
	if err == nil && len(did) > 0 {
		err = q.f.write(ctx, func(tx *wtx) error {
			_, err := tx.exec(`UPDATE lanes SET parked = parked + 1`)
			return err
		})
	}
	return did, err
}
