package job_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// The tests of this file are about whole processes: this test binary, started again as a worker on a queue's file.
const (
	workerDir   = "ECOD_JOB_TEST_DIR"   // makes the test binary a worker on the queue in this folder
	workerAlone = "ECOD_JOB_TEST_ALONE" // it knows that nobody else works on it
	journalFile = "journal"
)

// task is the payload of the worker's jobs.
type task struct {
	For  time.Duration `json:"for,omitempty"`  // how long it takes
	Deaf bool          `json:"deaf,omitempty"` // it does not hear when it is told to end
	Exit bool          `json:"exit,omitempty"` // it takes the process down
}

// yardIn opens the queue in a folder, as one process of several, and its clients.
func yardIn(ctx context.Context, dir string) (*sqlite.DB, *sqlite.Queue, *tenant.Registry, error) {
	db, err := sqlite.Open(ctx, filepath.Join(dir, "services.db"), []store.Schema{tenant.Accounts.Schema})
	if err != nil {
		return nil, nil, nil, err
	}
	q, err := sqlite.OpenQueue(ctx, db, time.Now)
	if err != nil {
		return nil, nil, nil, err
	}
	ring, err := secret.ParseRing(secret.Generate("k"))
	if err != nil {
		return nil, nil, nil, err
	}
	return db, q, tenant.NewRegistry(tenant.Config{Services: db, Ring: ring, Now: time.Now, Log: slog.New(slog.DiscardHandler)}), nil
}

// work is a worker's life; its exit code.
func work(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	db, q, tenants, err := yardIn(ctx, dir)
	if err == nil && os.Getenv(workerAlone) != "" {
		_, err = q.Lapse(ctx)
	}
	journal, jerr := os.OpenFile(filepath.Join(dir, journalFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil || jerr != nil {
		fmt.Fprintln(os.Stderr, err, jerr)
		return 1
	}
	note := func(what string, j store.Job) {
		_, _ = fmt.Fprintf(journal, "%s %s %d %d\n", what, j.ID, os.Getpid(), time.Now().UnixMilli())
	}
	r := job.NewRunner(job.Config{
		Queue: q, Tenants: tenants, Concurrency: 20, Poll: 100 * time.Millisecond, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}, job.Type{Name: "task", System: true, Timeout: time.Hour, Base: time.Second, Handle: func(ctx context.Context, _ *tenant.Tenant, j store.Job) (job.Result, error) {
		p, err := job.Payload[task](j)
		if err != nil {
			return job.Result{}, err
		}
		note("begin", j)
		if p.Exit {
			os.Exit(2)
		}
		hears := ctx.Done()
		if p.Deaf {
			hears = nil
		}
		select {
		case <-time.After(p.For):
		case <-hears:
			return job.Result{}, ctx.Err()
		}
		note("end", j)
		next := store.NewJob{Type: "nobody's", UniqueKey: fmt.Sprintf("of %s by %d", j.ID, os.Getpid())}
		return job.Result{Result: os.Getpid(), Next: []store.NewJob{next}}, nil
	}})
	fmt.Println("ready")
	if err := r.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := db.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// plant is a queue's file on which worker processes work, and this one looks on.
type plant struct {
	*testing.T
	dir   string
	queue *sqlite.Queue
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	t.Parallel()
	p := &plant{T: t, dir: t.TempDir()}
	db, q, _, err := yardIn(t.Context(), p.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	p.queue = q
	return p
}

// process is a worker at work.
type process struct {
	*exec.Cmd
	began  time.Time
	exited chan error
	log    *strings.Builder
}

func (p *plant) worker(env ...string) *process {
	p.Helper()
	w := &process{Cmd: exec.Command(os.Args[0]), began: time.Now(), exited: make(chan error, 1), log: &strings.Builder{}}
	w.Env = append(append(os.Environ(), workerDir+"="+p.dir), env...)
	w.Stderr = w.log
	out, err := w.StdoutPipe()
	if err == nil {
		err = w.Start()
	}
	if err != nil {
		p.Fatal(err)
	}
	ready := bufio.NewScanner(out)
	if !ready.Scan() {
		_ = w.Wait()
		p.Fatalf("the worker does not start: %s", w.log)
	}
	go func() { w.exited <- w.Wait() }()
	p.Cleanup(func() {
		_ = w.Process.Kill()
		<-w.exited
		w.exited <- nil
		if p.Failed() {
			p.Logf("worker %d: %s", w.Process.Pid, w.log)
		}
	})
	return w
}

// end waits for a worker's end and gives its exit code.
func (p *plant) end(w *process) int {
	p.Helper()
	select {
	case <-w.exited:
		w.exited <- nil
		return w.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		p.Fatal("the worker does not end")
		return -1
	}
}

func (p *plant) signal(w *process, s os.Signal) time.Time {
	p.Helper()
	if err := w.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
	return time.Now()
}

func (p *plant) add(n int, t task) (ids []string) {
	p.Helper()
	b, err := json.Marshal(t)
	if err != nil {
		p.Fatal(err)
	}
	made, err := p.queue.Enqueue(p.Context(), slices.Repeat([]store.NewJob{{Type: "task", Class: store.Interactive, Payload: b}}, n)...)
	if err != nil {
		p.Fatal(err)
	}
	for _, m := range made {
		ids = append(ids, m.Job.ID)
	}
	return ids
}

// within waits until so many of the jobs are as they should be, and tells when that was.
func (p *plant) within(d time.Duration, since time.Time, what string, ids []string, ok func(store.Job) bool) time.Duration {
	p.Helper()
	for {
		jobs, n := p.jobs(ids), 0
		for _, j := range jobs {
			if ok(j) {
				n++
			}
		}
		took := time.Since(since)
		switch {
		case n == len(ids) && took <= d:
			p.Logf("%s after %v", what, took.Round(time.Millisecond))
			return took
		case took > d:
			for _, j := range jobs {
				p.Logf("%s of %s, attempt %d, starts %d, crashes %d, result %s, errors %v", j.State, j.Owner, j.Attempt, j.Starts, j.Crashes, j.Result, j.Errors)
			}
			p.Fatalf("after %v, %d of %d: %s", took, n, len(ids), what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *plant) jobs(ids []string) []store.Job {
	p.Helper()
	out := make([]store.Job, len(ids))
	for i, id := range ids {
		j, err := p.queue.Job(p.Context(), id)
		if err != nil {
			p.Fatal(err)
		}
		out[i] = j
	}
	return out
}

// journal gives how often each job did something, by any worker or by one.
func (p *plant) journal(what string, by *process) map[string]int {
	p.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, journalFile))
	if err != nil {
		p.Fatal(err)
	}
	n := map[string]int{}
	for line := range strings.Lines(string(b)) {
		var did, id string
		var pid int
		var at int64
		if _, err := fmt.Sscan(line, &did, &id, &pid, &at); err != nil {
			p.Fatalf("%q: %v", line, err)
		}
		if did == what && (by == nil || pid == by.Process.Pid) {
			n[id]++
		}
	}
	return n
}

func running(j store.Job) bool { return j.State == store.Running }

// A worker that was killed and is started again goes on at once: nobody waits for the leases of the dead one.
func TestKilledAndStartedAgain(t *testing.T) {
	p := newPlant(t)
	w := p.worker(workerAlone + "=1")
	ids := p.add(10, task{For: time.Hour})
	p.within(10*time.Second, time.Now(), "running", ids, running)
	waiting := p.add(30, task{For: 10 * time.Millisecond})
	p.signal(w, syscall.SIGKILL)
	p.end(w)
	again := p.worker(workerAlone + "=1")
	p.within(2*time.Second, again.began, "what waited is done", waiting, func(j store.Job) bool { return j.State == store.Succeeded })
	p.within(5*time.Second, again.began, "what ran runs again", ids, func(j store.Job) bool { return running(j) && j.Starts == 2 && j.Crashes == 1 && j.Attempt == 0 })
}

// A worker that is frozen is taken for gone: another has its jobs within 20 s. When it wakes up, nothing that it says is heard.
func TestFrozen(t *testing.T) {
	p := newPlant(t)
	w := p.worker()
	ids := p.add(20, task{For: 10 * time.Second, Deaf: true})
	p.within(10*time.Second, time.Now(), "running", ids, running)
	owner := p.jobs(ids)[0].Owner
	at := p.signal(w, syscall.SIGSTOP)
	other := p.worker()
	p.within(20*time.Second, at, "taken over", ids, func(j store.Job) bool { return j.Owner != owner && j.Starts == 2 || j.State == store.Succeeded })
	time.Sleep(time.Until(at.Add(20 * time.Second)))
	p.signal(w, syscall.SIGCONT)
	p.within(20*time.Second, time.Now(), "done by the other", ids, func(j store.Job) bool {
		return j.State == store.Succeeded && string(j.Result) == fmt.Sprint(other.Process.Pid) && j.Starts == 2 && j.Crashes == 1 && j.Attempt == 0
	})
	deadline := time.Now().Add(20 * time.Second)
	for len(p.journal("end", w)) < len(ids) { // the frozen one did all of it, too
		if time.Now().After(deadline) {
			t.Fatalf("the frozen one ended %d", len(p.journal("end", w)))
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.signal(w, syscall.SIGTERM)
	if code := p.end(w); code != 0 {
		t.Errorf("the frozen one exits %d", code)
	}
	for _, j := range p.jobs(ids) {
		if string(j.Result) != fmt.Sprint(other.Process.Pid) || j.Starts != 2 {
			t.Errorf("after its late word: result %s, %d starts", j.Result, j.Starts)
		}
	}
	if n, err := p.queue.Jobs(t.Context(), store.JobFilter{AllTenants: true, Types: []string{"nobody's"}, Limit: 1000}); err != nil || len(n) != len(ids) {
		t.Errorf("%d jobs follow from %d, %v", len(n), len(ids), err)
	}
}

// A stop waits for jobs of seconds, and gives back those that take longer; neither costs an attempt.
func TestStopOfAProcess(t *testing.T) {
	p := newPlant(t)
	w := p.worker()
	ids := p.add(10, task{For: 5 * time.Second})
	p.within(5*time.Second, time.Now(), "running", ids, running)
	at := p.signal(w, syscall.SIGTERM)
	if code, d := p.end(w), time.Since(at); code != 0 || d > 25*time.Second {
		t.Errorf("exit %d after %v", code, d)
	}
	p.within(25*time.Second, at, "succeeded", ids, func(j store.Job) bool {
		return j.State == store.Succeeded && j.Attempt == 0 && j.Starts == 1 && j.Crashes == 0
	})

	w = p.worker()
	ids = p.add(10, task{For: time.Minute})
	p.within(5*time.Second, time.Now(), "running", ids, running)
	at = p.signal(w, syscall.SIGTERM)
	p.within(21*time.Second, at, "given back", ids, func(j store.Job) bool { return j.State == store.Ready && j.Attempt == 0 && j.Crashes == 0 })
	if code, d := p.end(w), time.Since(at); code != 0 || d > 25*time.Second {
		t.Errorf("exit %d after %v", code, d)
	}
	at = time.Now()
	p.worker()
	p.within(time.Second+500*time.Millisecond, at, "running again", ids, running) // half a second for the process to start
}

// A job that takes the process down is dead after the third time. Of the 200 enqueued with it all succeed, and each
// begins at most twice, although every crash takes along what runs then.
func TestPoison(t *testing.T) {
	p := newPlant(t)
	innocent := p.add(100, task{For: 30 * time.Millisecond})
	poison := p.add(1, task{Exit: true})
	innocent = append(innocent, p.add(100, task{For: 30 * time.Millisecond})...)
	began := time.Now()
	crashes := 0
	for {
		w := p.worker(workerAlone + "=1")
		died := false
		for !died {
			select {
			case <-w.exited:
				w.exited <- nil
				died = true
				if code := w.ProcessState.ExitCode(); code != 2 {
					t.Fatalf("exit %d", code)
				}
				crashes++
			default:
				time.Sleep(20 * time.Millisecond)
			}
			jobs := p.jobs(append(innocent, poison...))
			if !slices.ContainsFunc(jobs, func(j store.Job) bool { return !j.State.Terminal() }) {
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatal("it takes too long")
			}
		}
		if !died {
			break
		}
	}
	if j := p.jobs(poison)[0]; j.State != store.Dead || !slices.Equal(codes(j), []string{"poison"}) || crashes != 3 || p.journal("begin", nil)[j.ID] != 3 {
		t.Errorf("the poison: %s, %v, after %d crashes", j.State, codes(j), crashes)
	}
	begun, twice := p.journal("begin", nil), 0
	for _, j := range p.jobs(innocent) {
		if j.State != store.Succeeded || begun[j.ID] > 2 {
			t.Errorf("an innocent is %s, and began %d times", j.State, begun[j.ID])
		}
		if begun[j.ID] == 2 {
			twice++
		}
	}
	t.Logf("%d began twice; all was done after %v", twice, time.Since(began).Round(time.Millisecond))
}
