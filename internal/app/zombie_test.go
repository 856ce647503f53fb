package app_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/campaign"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// frost freezes the first execution of a job right before one of its commits: neither that one nor a later one of it goes
// through, as in a process that was stopped.
type frost struct {
	mu     sync.Mutex
	left   int           // commits that go through before
	frozen chan struct{} // closed when somebody is
	thaw   chan struct{}
	flow   sync.RWMutex // held while a commit goes through
}

func freeze(after int) *frost {
	return &frost{left: after, frozen: make(chan struct{}), thaw: make(chan struct{})}
}

// claims is under what a context knows how many executions of its job there were before.
type claims struct{}

func (f *frost) pass(ctx context.Context) (through func()) {
	before, known := ctx.Value(claims{}).(int64) // steps of one goroutine do not say it
	if before > 0 {
		return func() {}
	}
	f.mu.Lock()
	f.left--
	left := f.left
	if left >= 0 {
		f.flow.RLock()
	}
	f.mu.Unlock()
	if left >= 0 {
		return f.flow.RUnlock
	}
	if left == -1 {
		f.flow.Lock() // what was let through is there
		close(f.frozen)
		f.flow.Unlock()
	}
	if left == -1 || known {
		<-f.thaw
	}
	return func() {}
}

// other is the same world as another process has it: the domains anew, over the same databases and servers.
func (w *world) other() *world {
	o := *w
	o.claims++
	o.domains()
	return &o
}

// TestZombies freezes every handler right before each of its commits, lets another process take the job over and end it,
// and thaws the first: whatever it still does, nothing of it stands, and nothing goes out twice. One thing is let stand
// where it comes late: that a server has taken a message. It is what really happened, and nobody else can know it.
func TestZombies(t *testing.T) {
	t.Parallel()
	for _, c := range append(faultCases(), zombieCases()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.prepare == nil {
				c.prepare = func(*world) {}
			}
			straight := ""
			if c.truth {
				w := newWorld(t)
				c.prepare(w)
				_, err := c.do(w)(w)
				w.must(ignoreVerdict(err))
				straight = w.stateBut(append(c.skip, "news"), lateNotes...)
			}
			for n := 0; thaws(t, c, n, straight); n++ {
			}
		})
	}
}

// lateNotes are what tells a late answer from one in time.
var lateNotes = []string{"statusAt", "token", "wamid", "flight"}

// thaws takes a handler that is frozen before its n-th commit through its case; false: it ends before that.
func thaws(t *testing.T, c faultCase, n int, straight string) bool {
	w := newWorld(t)
	c.prepare(w)
	first := c.do(w)
	heir := w.other()
	second := c.do(heir)
	f := freeze(n)
	w.frost = f
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = first(w) }()
	select {
	case <-ended:
		if t.Logf("%d commits", n); n == 0 {
			t.Error("the handler commits nothing: this case tests nothing")
		}
		return false
	case <-f.frozen:
	}
	_, err := second(heir)
	w.must(ignoreVerdict(err))
	accounts := []string{"connections"} // what is found of an account is true whoever found it
	state, outside := w.stateBut(accounts), w.outside()
	close(f.thaw)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatalf("thawed before commit %d, it does not end", n)
	}
	if got := w.stateBut(accounts); got != state {
		if late := w.stateBut(append(c.skip, "news"), lateNotes...); !c.truth || late != straight {
			t.Errorf("thawed before commit %d, it changed:\n%s\nand is not as without trouble:\n%s", n, diff(state, got), diff(straight, late))
		}
	}
	got := w.outside()
	if once := slices.Compact(slices.Sorted(slices.Values(got))); len(once) != len(got) {
		t.Errorf("thawed before commit %d, it has done twice %v", n, got)
	}
	if !slices.Equal(got, outside) && !c.truth { // of those, calls may have been under way
		t.Errorf("thawed before commit %d, it did outside %v, after %v", n, got, outside)
	}
	return n < 100
}

// zombieCases are more ends that a call can have.
func zombieCases() []faultCase {
	planned := func(w *world) {
		w.rule(fullRule)
		_, err := w.engine.HandleEvent(context.Background(), w.tn, w.eventJob(map[string]any{"name": "Dhanesh"}))
		w.must(err)
	}
	send := func(w *world) step { return run(w.desk.HandleSend, w.sendJob(1)) }
	window := func(w *world) step { return run(w.bureau.HandleWindow, w.campaignJob(campaign.WindowJob, 1)) }
	return []faultCase{
		{name: "whatsapp.send that Meta limits", do: send, prepare: func(w *world) {
			planned(w)
			w.meta.Next(1, whatsapptest.GraphError(400, 131056, "too many to this recipient"))
		}},
		{name: "whatsapp.send with a dead token", do: send, prepare: func(w *world) {
			planned(w)
			w.meta.Next(1, whatsapptest.GraphError(401, 190, "expired"))
		}},
		{name: "whatsapp.send without an answer", do: send, prepare: func(w *world) {
			planned(w)
			w.meta.Next(1, whatsapptest.GatewayHTML(502))
		}},
		{name: "email.send that is put off", do: func(w *world) step { return run(w.office.HandleSend, w.letterJob()) }, prepare: func(w *world) {
			w.letter()
			w.box.Next(1, "RCPT", smtptest.Reply(450, "4.2.0", "greylisted"))
		}},
		{name: "campaign.window that is put off", do: window, prepare: func(w *world) {
			w.campaign("email", true)
			w.box.Next(3, "RCPT", smtptest.Reply(450, "4.2.0", "greylisted"))
		}, ignore: []string{"due"}},
		{name: "campaign.window that bounces", do: window, prepare: func(w *world) {
			w.campaign("email", true)
			w.box.Next(3, "RCPT", smtptest.Reply(550, "5.1.1", "no such user"))
		}},
	}
}

// outside is what the servers took, by name.
func (w *world) outside() []string {
	var out []string
	for _, a := range w.meta.Accepted() {
		out = append(out, "message "+a.BizOpaque)
	}
	for _, a := range w.box.Accepted() {
		out = append(out, "mail "+a.MessageID())
	}
	return append(out, blobsIn(w.t, w.shelf)...)
}
