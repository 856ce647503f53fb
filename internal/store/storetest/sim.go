package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/ecodrix/ecod/internal/store"
)

// Plant is where a simulation takes place: a queue with the process and the disk it stands on.
type Plant interface {
	Queue() store.Queue // the one that is open now
	// Wrote tells whether anything was written since it was last asked.
	Wrote() bool
	// Restart closes the queue and opens it again.
	Restart() error
	// PowerCut opens what a power cut now may leave: all that waited for the disk, and of the rest some.
	PowerCut(r *rand.Rand) error
	// Sound tells what is wrong between the tables.
	Sound() error
	Close() error
}

// OpenPlant opens a new one whose only clock is now.
type OpenPlant func(now func() time.Time) (Plant, error)

// Simulation is many short lives of a queue under several workers, each drawn by its seed: at every step something else
// happens (see world.step), and after every step the queue is held against a model of what it promised. So a life can be
// had again by its number:
//
//	ECOD_TEST_SIM_SEED=17 go test -v -run TestSimulation ./internal/store/sqlite
type Simulation struct {
	Open OpenPlant
	// Queue is put around the plant's, Now around its clock; nil: as they are. Runner tells how simulated workers break the rules.
	// They make the mutants, of which a simulation must find something wrong.
	Queue  func(store.Queue) store.Queue
	Now    func(time.Time) time.Time
	Runner Habit
	// Remote is a queue on a server: its clock is the server's, which nobody sets, and a claim ends of the jobs that are too
	// late those that it meets, as it reads no others.
	Remote bool
}

// Habit is how a simulated worker deals with what it finds in its ledger.
type Habit int

// Only the first keeps the promise that an effect is attempted again if it is known not to have happened.
const (
	Careful Habit = iota
	Blind         // calls again when it finds a call in flight
	Hasty         // calls first and writes down after
)

// Run lives so many lives beside each other, and fails with the first that goes wrong. On a machine that is busy it begins none
// once the time is up; at most 0: no matter how long.
func (s Simulation) Run(t *testing.T, lives uint64, most time.Duration) {
	t.Helper()
	if one := os.Getenv("ECOD_TEST_SIM_SEED"); one != "" {
		seed, err := strconv.ParseUint(one, 10, 64)
		if err != nil {
			t.Fatalf("ECOD_TEST_SIM_SEED: %v", err)
		}
		trace, err := s.Live(seed)
		t.Logf("seed %d:\n%s", seed, strings.Join(trace, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	began := time.Now()
	lived, seed, trace, err := s.find(lives, func() bool { return most > 0 && time.Since(began) > most })
	t.Logf("%d lives in %v", lived, time.Since(began).Round(time.Millisecond))
	if err != nil {
		t.Fatalf("seed %d: %v\nthe last of %d steps:\n%s\nlive it again with ECOD_TEST_SIM_SEED=%d",
			seed, err, len(trace), strings.Join(trace[max(0, len(trace)-25):], "\n"), seed)
	}
}

// find looks for a life that goes wrong.
func (s Simulation) find(lives uint64, late func() bool) (lived, seed uint64, trace []string, err error) {
	var next, done atomic.Uint64
	var mu sync.Mutex
	var all sync.WaitGroup
	var stop atomic.Bool
	for range max(2, runtime.GOMAXPROCS(0)) {
		all.Go(func() {
			for !stop.Load() && !late() {
				n := next.Add(1)
				if n > lives {
					return
				}
				steps, wrong := s.Live(n)
				if done.Add(1); wrong == nil {
					continue
				}
				mu.Lock()
				if err == nil {
					seed, trace, err = n, steps, wrong
				}
				mu.Unlock()
				stop.Store(true)
			}
		})
	}
	all.Wait()
	return done.Load(), seed, trace, err
}

// Live lives one life and tells what happened in it, and what was wrong.
func (s Simulation) Live(seed uint64) (trace []string, err error) {
	base := time.Now()
	base = base.Add(time.Millisecond - time.Duration(base.Nanosecond())%time.Millisecond)
	w := &world{
		ctx: context.Background(), rnd: rand.New(rand.NewPCG(seed, 1)), base: base, habit: s.Runner, remote: s.Remote,
		m: newModel(), ledger: map[string]*entry{}, called: map[string][]answer{}, ended: map[string]bool{}, hosts: "0",
	}
	w.clock = w.now
	if s.Now != nil {
		w.clock = func() time.Time { return s.Now(w.now()) }
	}
	w.plant, err = s.Open(func() time.Time { return w.clock() })
	if err != nil {
		return nil, err
	}
	w.wrap = s.Queue
	defer func() {
		p := recover()
		switch f, ok := p.(failure); {
		case ok:
			trace, err = w.trace, f
		case p != nil:
			panic(fmt.Sprintf("seed %d: %v", seed, p))
		}
		if e := w.plant.Close(); err == nil {
			err = e
		}
	}()
	w.live(20 + w.rnd.IntN(60))
	return w.trace, nil
}

// failure is what a life ends with when a promise was broken.
type failure string

func (f failure) Error() string { return string(f) }

// world is one life: the queue, those who use it, the services they call, and what must be true of all.
type world struct {
	ctx   context.Context
	rnd   *rand.Rand
	plant Plant
	wrap  func(store.Queue) store.Queue
	habit Habit

	remote bool // see Simulation

	base       time.Time     // with a monotonic reading
	mono, wall time.Duration // what both clocks went on; what the wall clock was set by on top
	furthest   time.Duration // that it was set to
	clock      func() time.Time

	m     *model
	since []*model // how it was after the last change that a power cut must leave, and after each one since

	workers []*worker
	hosts   string              // counts processes, for names
	ledger  map[string]*entry   // in the client's database, which outlives every process
	called  map[string][]answer // journal of the service that is called, by ledger key
	ended   map[string]bool     // executions whose end held, "id/token"
	unseen  bool                // do not look at every step
	serial  int
	trace   []string
}

// now is the true clock: Go's, with a monotonic reading that no jump of the wall clock moves.
func (w *world) now() time.Time { return Stepped(w.base.Add(w.mono), w.wall) }

// wms is the wall clock in milliseconds, as the queue keeps its times.
func (w *world) wms() int64 { return w.base.Round(0).Add(w.mono + w.wall).UnixMilli() }

// Stepped sets the wall clock of a time by whole seconds without its monotonic reading: time.Time keeps the wall seconds above
// its 30 bits of nanoseconds while it has one.
func Stepped(t time.Time, by time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(by/time.Second) << 30
	return t
}

func (w *world) q() store.Queue {
	if w.wrap != nil {
		return w.wrap(w.plant.Queue())
	}
	return w.plant.Queue()
}

func (w *world) tell(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%3d  %s  ", len(w.trace)+1, (w.mono).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

func (w *world) must(err error) {
	if err != nil {
		w.fail("%v", err)
	}
}

// chance is true once in n times.
func (w *world) chance(n int) bool { return w.rnd.IntN(n) == 0 }

func draw[T any](w *world, of ...T) T { return of[w.rnd.IntN(len(of))] }

// live does so many steps, then lets all be well and waits for the end of every job.
func (w *world) live(steps int) {
	if w.wrap != nil { // one mutant for one life
		q := w.wrap
		made := map[store.Queue]store.Queue{}
		w.wrap = func(inner store.Queue) store.Queue {
			if made[inner] == nil {
				made[inner] = q(inner)
			}
			return made[inner]
		}
	}
	w.plant.Wrote()
	w.since = []*model{w.m.clone()}
	for range 3 {
		w.workers = append(w.workers, w.newWorker())
	}
	for range steps {
		w.step()
	}
	w.recover()
	w.must(w.plant.Sound())
}

// checked compares the queue with the model, and notes what a power cut must leave from now on. redoable: what was done may be
// undone by one.
func (w *world) checked(redoable bool) {
	if w.plant.Wrote() {
		if !redoable {
			w.since = nil
		}
		w.since = append(w.since, w.m.clone())
	} else if len(w.since) > 0 { // such as which executions the model saw end
		w.since[len(w.since)-1] = w.m.clone()
	}
	if w.unseen {
		return
	}
	if wrong := w.m.differs(w.seen()); wrong != "" {
		w.fail("%s", wrong)
	}
}

// seen is every job that the queue holds.
func (w *world) seen() map[string]store.Job {
	all := map[string]store.Job{}
	f := store.JobFilter{AllTenants: true, Limit: 1000}
	for {
		js, err := w.plant.Queue().Jobs(w.ctx, f)
		w.must(err)
		for _, j := range js {
			if _, twice := all[j.ID]; twice {
				w.fail("%s is there twice", j.ID)
			}
			all[j.ID] = j
		}
		if len(js) < f.Limit {
			return all
		}
		f.After = js[len(js)-1].ID
	}
}
