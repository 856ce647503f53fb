package chat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// hall is an intake with real files behind it.
type hall struct {
	t       *testing.T
	inbox   *sqlite.Inbox
	tenants *tenant.Registry
	intake  *Intake
	commit  func(code string) // called in every commit to a client's database, if set
}

type watchedDB struct {
	store.DB
	code string
	h    *hall
}

func (w watchedDB) Commit(ctx context.Context, writes ...store.Write) error {
	if w.h.commit != nil {
		w.h.commit(w.code)
	}
	return w.DB.Commit(ctx, writes...)
}

// newHall makes an intake for some clients. Client n has code C<n> and number <n>00.
func newHall(t *testing.T, clients int) *hall {
	t.Helper()
	h, dir := &hall{t: t}, t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	services, err := sqlite.Open(ctx, filepath.Join(dir, "services.db"), []store.Schema{tenant.Accounts.Schema})
	must(err)
	ring, err := secret.ParseRing(secret.Generate("k"))
	must(err)
	kinds := append([]store.Schema{Conversations.Schema, Messages.Schema, EarlyStatuses.Schema, Notes.Schema, news.Items.Schema}, crm.Schemas...)
	log := slog.New(slog.DiscardHandler)
	h.tenants = tenant.NewRegistry(tenant.Config{
		Services: services, Ring: ring, Now: time.Now, Log: log,
		OpenDB: func(ctx context.Context, a *tenant.Account) (store.DB, error) {
			db, err := sqlite.Open(ctx, filepath.Join(dir, a.Code+".db"), kinds)
			return watchedDB{db, a.Code, h}, err
		},
	})
	h.inbox, err = sqlite.OpenInbox(filepath.Join(dir, "inbox"), time.Now)
	must(err)
	t.Cleanup(func() {
		if err := errors.Join(h.inbox.Close(), h.tenants.Close(ctx), services.Close()); err != nil {
			t.Error(err)
		}
	})
	for n := range clients {
		code := fmt.Sprintf("C%d", n)
		_, _, err := h.tenants.Create(ctx, tenant.NewClient{Code: code, Name: code})
		must(err)
		_, err = h.tenants.SetWhatsApp(ctx, code, tenant.WhatsAppSecrets{WABAID: fmt.Sprintf("%d99", n), PhoneNumberIDs: []string{fmt.Sprintf("%d00", n)}, AccessToken: "t"})
		must(err)
	}
	h.intake = NewIntake(IntakeConfig{
		Inbox: h.inbox, Tenants: h.tenants, Desk: &Desk{Book: &crm.Book{Now: time.Now}, Now: time.Now, Log: log}, Now: time.Now, Log: log,
		Workers: 2, Changed: func(string) {},
	})
	return h
}

// run works the intake until the test ends, or stop is called.
func (h *hall) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.intake.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	h.t.Cleanup(stop)
	return stop
}

func text(client, person, n int) []byte {
	return fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":"%[1]d99","changes":[{"field":"messages","value":{"messaging_product":"whatsapp",`+
		`"metadata":{"display_phone_number":"1","phone_number_id":"%[1]d00"},"contacts":[{"profile":{"name":"P"},"wa_id":"4915100000%02[2]d"}],`+
		`"messages":[{"from":"4915100000%02[2]d","id":"wamid.%[1]d.%[2]d.%[3]d","timestamp":"%[4]d","type":"text","text":{"body":"hi"}}]}}]}]}`,
		client, person, n, time.Now().Unix())
}

func (h *hall) receive(body []byte) {
	h.t.Helper()
	if err := h.intake.Receive(context.Background(), "", body); err != nil {
		h.t.Error(err)
	}
}

// waiting is how many deliveries are not settled.
func (h *hall) waiting() int {
	h.t.Helper()
	ds, err := h.inbox.Pending(context.Background(), time.Now().Add(time.Hour), "", 10_000)
	if err != nil {
		h.t.Fatal(err)
	}
	return len(ds)
}

func (h *hall) eventually(what string, done func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: not in 30 s; %d deliveries wait", what, h.waiting())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// messages gives a client's conversations by person and the number of its messages.
func (h *hall) messages(client int) (conversations map[string]*Conversation, messages int64) {
	h.t.Helper()
	ctx := context.Background()
	tn, release, err := h.tenants.Use(ctx, fmt.Sprintf("C%d", client))
	if err != nil {
		h.t.Fatal(err)
	}
	defer release()
	cs, err := Conversations.Find(ctx, tn.DB, store.Query{Limit: 1000})
	if err != nil {
		h.t.Fatal(err)
	}
	conversations = map[string]*Conversation{}
	for _, c := range cs {
		conversations[c.Phone] = c
	}
	if messages, err = tn.DB.Count(ctx, store.Query{Kind: Messages.Schema.Kind}); err != nil {
		h.t.Fatal(err)
	}
	return conversations, messages
}

// Many at once, of few people: every message is there once, and every conversation has counted all of its own.
func TestIntakeTogether(t *testing.T) {
	const clients, people, each = 3, 4, 16
	h := newHall(t, clients)
	h.run()
	var all sync.WaitGroup
	for client := range clients {
		for person := range people {
			for part := range 4 {
				all.Go(func() {
					for n := part; n < each; n += 4 {
						h.receive(text(client, person, n))
					}
				})
			}
		}
	}
	all.Wait()
	h.eventually("all are settled", func() bool { return h.waiting() == 0 && h.intake.Backlog() == 0 })
	for client := range clients {
		conversations, messages := h.messages(client)
		if messages != people*each || len(conversations) != people {
			t.Errorf("client %d has %d messages in %d conversations", client, messages, len(conversations))
		}
		for phone, c := range conversations {
			if c.Unread != each {
				t.Errorf("client %d: the conversation with %s counts %d unread", client, phone, c.Unread)
			}
		}
	}
}

// What a process before left, more than fits into the hands, is worked off.
func TestIntakeSweep(t *testing.T) {
	const left = 150
	h := newHall(t, 2)
	h.intake.lanes = newLanes(40)
	var all sync.WaitGroup
	for part := range 32 {
		all.Go(func() {
			for n := part; n < left; n += 32 {
				d := store.Delivery{Body: text(n%2, n%7, n)}
				if err := h.inbox.Receive(context.Background(), &d); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	h.run()
	h.eventually("all are settled", func() bool { return h.waiting() == 0 })
	_, a := h.messages(0)
	_, b := h.messages(1)
	if a+b != left {
		t.Errorf("%d of %d messages", a+b, left)
	}
}

// Deliveries of one client are written side by side, so that they can share commits; those of one person are not.
func TestIntakeSharesCommits(t *testing.T) {
	h := newHall(t, 1)
	var inside, most atomic.Int64
	two := make(chan struct{}) // closed once two commits were under way at once
	together := sync.OnceFunc(func() { close(two) })
	h.commit = func(string) {
		n := inside.Add(1)
		defer inside.Add(-1)
		if n > most.Load() {
			most.Store(n)
		}
		if n == 2 {
			together()
		}
		select {
		case <-two:
		case <-time.After(10 * time.Second):
		}
	}
	for person := range 2 {
		for n := range 3 {
			h.receive(text(0, person, n)) // nobody works yet: they wait in one lane
		}
	}
	h.run()
	h.eventually("all are settled", func() bool { return h.waiting() == 0 })
	if most.Load() != 2 {
		t.Errorf("at most %d commits at once for two people", most.Load())
	}
	if _, messages := h.messages(0); messages != 6 {
		t.Errorf("%d messages", messages)
	}
}

// A client whose database hangs holds up nobody else, however much waits for it.
func TestIntakeHangingClient(t *testing.T) {
	const many = 150
	h := newHall(t, 2)
	h.intake.lanes = newLanes(100)
	hang := make(chan struct{})
	end := sync.OnceFunc(func() { close(hang) })
	h.commit = func(code string) {
		if code == "C0" {
			<-hang
		}
	}
	var all sync.WaitGroup
	for part := range 16 {
		all.Go(func() {
			for n := part; n < many; n += 16 {
				h.receive(text(0, n%30, n))
			}
		})
	}
	all.Wait()
	h.run()
	t.Cleanup(end)
	for n := range 5 {
		h.receive(text(1, 1, n))
	}
	h.eventually("the other client has its messages", func() bool { _, n := h.messages(1); return n == 5 })
	end()
	h.eventually("all are settled", func() bool { return h.waiting() == 0 })
	if _, n := h.messages(0); n != many {
		t.Errorf("%d messages of the client that hung", n)
	}
}

// Replayed, a delivery is sorted again, to the same end.
func TestIntakeReplay(t *testing.T) {
	h := newHall(t, 1)
	h.run()
	h.receive(text(0, 1, 1))
	h.receive([]byte("not JSON"))
	h.eventually("both have their end", func() bool { return h.waiting() == 0 && h.intake.Backlog() == 0 })
	ds, err := h.inbox.Deliveries(context.Background(), store.DeliveryFilter{})
	if err != nil || len(ds) != 2 {
		t.Fatalf("%d deliveries: %v", len(ds), err)
	}
	if ds[0].State != store.Failed || ds[1].State != store.Settled {
		t.Fatalf("they are %s and %s", ds[0].State, ds[1].State)
	}
	again, err := h.intake.Replay(context.Background(), ds[0].ID, ds[1].ID)
	if err != nil || len(again) != 2 {
		t.Fatalf("%v set back: %v", again, err)
	}
	h.eventually("both have their end again", func() bool { return h.waiting() == 0 && h.intake.Backlog() == 0 })
	if _, n := h.messages(0); n != 1 {
		t.Errorf("%d messages", n)
	}
}
