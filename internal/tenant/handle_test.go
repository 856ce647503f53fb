package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// contextUntil ends with a channel.
func contextUntil(stop <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func put(ctx context.Context, tn *tenant.Tenant, id string) error {
	return tn.DB.Commit(ctx, store.Write{Action: store.Put, Kind: "notes", ID: id, Doc: []byte(`{"of":"` + tn.Code + `"}`)})
}

func (w *town) openNow(want ...string) {
	w.t.Helper()
	got := w.Opened()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Errorf("open: %v, want %v", got, want)
	}
	if _, n := w.Len(); n != len(want) {
		w.t.Errorf("Len says %d open", n)
	}
}

func TestUse(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	w.create("ACME")
	if n := w.opens.Load(); n != 0 {
		t.Errorf("creating a client opened %d databases", n)
	}
	_, _, err := w.Use(ctx, "GHOST")
	w.fails(err, "client.not_found")

	one, release1 := w.use("ACME")
	two, release2 := w.use("ACME")
	if one != two || w.opens.Load() != 1 {
		t.Errorf("opened %d times", w.opens.Load())
	}
	if err := put(ctx, one, "a"); err != nil {
		t.Fatal(err)
	}
	release1()
	release1() // once is what counts
	w.openNow("ACME")
	if err := put(ctx, two, "b"); err != nil {
		t.Errorf("closed under its second user: %v", err)
	}
	release2()
	w.openNow("ACME") // kept for the next caller
}

func TestOpenedOnceUnderConcurrency(t *testing.T) {
	gate := make(chan struct{})
	w := newTown(t, func(w *town) {
		w.onOpen = func(context.Context, string) error { <-gate; return nil }
	})
	w.create("ACME")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			tn, release, err := w.Use(t.Context(), "ACME")
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			if err := put(t.Context(), tn, fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	close(gate)
	wg.Wait()
	if n := w.opens.Load(); n != 1 {
		t.Errorf("opened %d times", n)
	}
	tn, release := w.use("ACME")
	defer release()
	if n, err := tn.DB.Count(t.Context(), store.Query{Kind: "notes"}); n != 50 || err != nil {
		t.Errorf("%d written, %v", n, err)
	}
}

func TestBudget(t *testing.T) {
	w := newTown(t, func(w *town) { w.settings.MaxOpen = 3 })
	codes := []string{"AA", "BB", "CC", "DD", "EE"}
	for _, c := range codes {
		w.create(c)
	}
	visit := func(code string) {
		_, release := w.use(code)
		release()
		w.clock.move(time.Second)
	}
	for _, c := range codes[:3] {
		visit(c)
	}
	w.openNow("AA", "BB", "CC")
	visit("AA") // BB is the one used longest ago now
	visit("DD")
	w.openNow("AA", "CC", "DD")
	visit("EE")
	w.openNow("AA", "DD", "EE")
	opens := w.opens.Load()
	visit("BB") // opened again
	w.openNow("BB", "DD", "EE")
	if n := w.opens.Load(); n != opens+1 {
		t.Errorf("%d opened", n-opens)
	}

	// What is in use is beyond the budget; as soon as it is not, the budget holds.
	var releases []func()
	for _, c := range codes {
		tn, release := w.use(c)
		if err := put(t.Context(), tn, "x"); err != nil {
			t.Error(err)
		}
		releases = append(releases, release)
		w.clock.move(time.Second)
	}
	w.openNow(codes...)
	for _, release := range releases {
		release()
		w.clock.move(time.Second)
	}
	w.openNow("CC", "DD", "EE")
}

func TestIdleDatabasesClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, func(w *town) { w.clock = nil })
		w.create("ACME")
		w.create("BUSY")
		stop := make(chan struct{})
		done := make(chan error)
		go func() {
			ctx, cancel := contextUntil(stop)
			defer cancel()
			done <- w.Watch(ctx)
		}()
		tn, release := w.use("ACME")
		if err := put(t.Context(), tn, "x"); err != nil {
			t.Fatal(err)
		}
		release()
		_, releaseBusy := w.use("BUSY")
		time.Sleep(2 * time.Minute) // of the bubble's clock
		synctest.Wait()
		w.openNow("ACME", "BUSY")
		if _, release, ok := w.Borrow("ACME"); !ok {
			t.Error("an open database cannot be borrowed")
		} else {
			release() // which is no use of it
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.openNow("BUSY")
		if _, _, ok := w.Borrow("ACME"); ok {
			t.Error("a closed database was borrowed")
		}

		tn, release = w.use("ACME")
		if n, err := tn.DB.Count(t.Context(), store.Query{Kind: "notes"}); n != 1 || err != nil {
			t.Errorf("after it was opened again: %d notes, %v", n, err)
		}
		release()
		releaseBusy()
		close(stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestDatabaseThatCannotBeOpened(t *testing.T) {
	w := newTown(t)
	w.create("ACME")
	if err := os.MkdirAll(w.file("ACME"), 0o700); err != nil { // a folder is where the file ought to be
		t.Fatal(err)
	}
	for range 2 {
		_, release, err := w.Use(t.Context(), "ACME")
		w.fails(err, "client.unavailable")
		if fault.Of(err) != fault.Unavailable || !errors.Is(err, store.ErrUnavailable) || release != nil {
			t.Errorf("%v", err)
		}
	}
	w.openNow()
	if err := os.Remove(w.file("ACME")); err != nil {
		t.Fatal(err)
	}
	_, release := w.use("ACME")
	release()
	w.openNow("ACME")
}

// A caller that gives up while the database is being opened leaves the others waiting for it.
func TestOpeningGivenUp(t *testing.T) {
	entered, gate := make(chan struct{}, 10), make(chan struct{})
	w := newTown(t, func(w *town) {
		w.onOpen = func(ctx context.Context, _ string) error {
			entered <- struct{}{}
			select {
			case <-gate:
			case <-ctx.Done():
			}
			return ctx.Err()
		}
	})
	w.create("ACME")
	ctx, giveUp := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, _, err := w.Use(ctx, "ACME")
		first <- err
	}()
	<-entered
	second := make(chan error)
	go func() {
		_, release, err := w.Use(t.Context(), "ACME")
		if err == nil {
			release()
		}
		second <- err
	}()
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	close(gate)
	if err := <-second; err != nil {
		t.Errorf("the second: %v", err)
	}
	if n := w.opens.Load(); n != 1 {
		t.Errorf("opened %d times", n)
	}
}

func TestErase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, func(w *town) { w.clock = nil })
		ctx := t.Context()
		w.create("ACME")
		key := w.create("OTHER")
		if _, err := w.SetWhatsApp(ctx, "ACME", tenant.WhatsAppSecrets{WABAID: "W", PhoneNumberIDs: []string{"101"}, AccessToken: "x"}); err != nil {
			t.Fatal(err)
		}
		tn, release := w.use("ACME")
		if err := put(ctx, tn, "x"); err != nil {
			t.Fatal(err)
		}
		if err := w.Erase(ctx, "ACME"); err == nil {
			t.Fatal("a client that is not marked was erased")
		}
		if err := w.BeginErase(ctx, "acme"); err != nil {
			t.Fatal(err)
		}
		_, _, err := w.Use(ctx, "ACME")
		w.fails(err, "client.not_found")

		short, cancel := context.WithTimeout(ctx, time.Minute)
		if err := w.Erase(short, "acme"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a user inside: %v", err)
		}
		cancel()
		if err := put(ctx, tn, "y"); err != nil {
			t.Errorf("the user inside was disturbed: %v", err)
		}
		erased := make(chan error, 1)
		go func() { erased <- w.Erase(ctx, "acme") }() // as a path may spell it
		time.Sleep(time.Second)
		synctest.Wait()
		select {
		case err := <-erased:
			t.Fatalf("it did not wait for its user: %v", err)
		default:
		}
		release()
		if err := <-erased; err != nil {
			t.Fatal(err)
		}
		if files, _ := filepath.Glob(w.file("ACME") + "*"); len(files) != 0 {
			t.Errorf("left behind: %v", files)
		}
		if _, err := w.Account(ctx, "ACME"); fault.Of(err) != fault.NotFound {
			t.Errorf("its document: %v", err)
		}
		w.phone("101", "")
		w.load()
		if w.Status("ACME") != "" {
			t.Error("it is known again")
		}
		if err := w.Erase(ctx, "ACME"); err != nil {
			t.Errorf("again: %v", err)
		}
		w.key("OTHER", key, "")

		// Its code and its number are free, its data gone.
		w.create("ACME")
		if _, err := w.SetWhatsApp(ctx, "ACME", tenant.WhatsAppSecrets{WABAID: "W", PhoneNumberIDs: []string{"101"}, AccessToken: "x"}); err != nil {
			t.Error(err)
		}
		tn, release = w.use("ACME")
		defer release()
		if n, err := tn.DB.Count(ctx, store.Query{Kind: "notes"}); n != 0 || err != nil {
			t.Errorf("the new client found %d of the old one's notes, %v", n, err)
		}
	})
}

// Stopped in the middle, an erasure goes on where it was, also in the next process.
func TestEraseGoesOn(t *testing.T) {
	broken := errors.New("the folder is read-only")
	w := newTown(t, func(w *town) { w.onDrop = func(string) error { return broken } })
	ctx := t.Context()
	key := w.create("ACME")
	_, release := w.use("ACME")
	release()
	if err := w.BeginErase(ctx, "ACME"); err != nil {
		t.Fatal(err)
	}
	if err := w.Erase(ctx, "ACME"); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	w.key("ACME", key, "client.suspended")
	n := w.neighbour()
	if s := n.Status("ACME"); s != tenant.Erasing {
		t.Errorf("after a start: %q", s)
	}
	_, _, err := n.Use(ctx, "ACME")
	n.fails(err, "client.not_found")
	if err := n.Erase(ctx, "ACME"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.file("ACME")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its file: %v", err)
	}
}

func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		w := newTown(t, func(w *town) {
			w.clock = nil
			w.onOpen = func(_ context.Context, code string) error {
				if code == "SLOW" {
					<-gate
				}
				return nil
			}
		})
		w.create("ACME")
		w.create("SLOW")
		w.create("IDLE")
		_, release := w.use("IDLE")
		release()
		tn, release := w.use("ACME")
		used := make(chan error)
		go func() { // on its way in when the close begins
			tn, release, err := w.Use(context.Background(), "SLOW")
			if err == nil {
				err = put(context.Background(), tn, "x")
				release()
			}
			used <- err
		}()
		synctest.Wait()

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with users inside: %v", err)
		}
		_, _, err := w.Use(t.Context(), "IDLE")
		w.fails(err, "stopping")
		closed := make(chan error, 1)
		go func() { closed <- w.Close(context.Background()) }()
		waiting := func(why string) {
			time.Sleep(time.Second) // of the bubble's clock
			synctest.Wait()
			select {
			case err := <-closed:
				t.Fatalf("Close returned %v %s", err, why)
			default:
			}
		}
		waiting("with two users inside")
		if err := put(t.Context(), tn, "y"); err != nil {
			t.Errorf("a user was disturbed: %v", err)
		}
		release()
		waiting("while a database was being opened")
		close(gate)
		if err := <-used; err != nil {
			t.Errorf("who came before the close: %v", err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		w.openNow()
		if err := tn.DB.Commit(t.Context()); !errors.Is(err, store.ErrClosed) {
			t.Errorf("a database after Close: %v", err)
		}
	})
}

// Users, edits, evictions and looks all at once: every write is in its own client's database.
func TestManyAtOnce(t *testing.T) {
	const clients, users, rounds = 5, 8, 8
	w := newTown(t, func(w *town) { w.settings.MaxOpen = 2 })
	hand := w.hand()
	code := func(i int) string { return fmt.Sprintf("C%d", i%clients) }
	for i := range clients {
		w.create(code(i))
	}
	var wg, others sync.WaitGroup
	stop := make(chan struct{})
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_, err := hand.ExecContext(t.Context(), setMember, "$.name", fmt.Sprintf(`"%d"`, i), code(i))
			if err == nil {
				err = w.Load(t.Context())
			}
			if err == nil {
				_, err = w.SetStatus(t.Context(), code(i+1), tenant.Suspended)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for u := range users {
		wg.Go(func() {
			for i := range rounds {
				c := code(u + i)
				tn, release, err := w.Use(t.Context(), c)
				if err != nil {
					t.Error(err)
					return
				}
				if tn.Code != c || tn.Account().Code != c {
					t.Errorf("asked for %s, got %s", c, tn.Code)
				}
				if err := put(t.Context(), tn, fmt.Sprint(u, "-", i)); err != nil {
					t.Error(err)
				}
				release()
			}
		})
	}
	wg.Wait()
	close(stop)
	others.Wait()
	if _, open := w.Len(); open > 2 {
		t.Errorf("%d open", open)
	}
	total := 0
	for i := range clients {
		tn, release := w.use(code(i))
		recs, err := tn.DB.Find(t.Context(), store.Query{Kind: "notes", Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if string(r.Doc) != `{"of":"`+tn.Code+`"}` {
				t.Errorf("in %s: %s", tn.Code, r.Doc)
			}
		}
		total += len(recs)
		release()
	}
	if total != users*rounds {
		t.Errorf("%d of %d writes there", total, users*rounds)
	}
}

// A client that sleeps costs memory for its routes and keys only.
func TestMemoryPerClient(t *testing.T) {
	const clients, most = crowd, 3 << 10
	w := newTown(t)
	w.exec(w.hand(), `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO ClientSecrets (_id, doc) SELECT c, json_object('_id', c, 'rev', c || '/1', 'name', 'Client ' || c, 'status', 'active',
			'timeZone', 'Asia/Kolkata', 'allowedOrigins', json_array('https://' || c || '.example'),
			'apiKeys', json_array(json_object('sha256', ?), json_object('sha256', ?, 'validUntil', '2027-01-01T00:00:00Z')),
			'whatsapp', json_object('wabaId', '1' || i, 'phoneNumberIds', json_array('2' || c, '3' || c), 'accessToken', 'sealed:v1:k1:x'))
		FROM (SELECT i, printf('CLIENT-%05d', i) AS c FROM n)`, clients-1, hash("one"), hash("two"))
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	began := time.Now()
	w.load()
	took := time.Since(began)
	per := int64(heap()-before) / clients
	t.Logf("%d clients: %d bytes each, read in %v", clients, per, took.Round(time.Millisecond))
	if n, open := w.Len(); n != clients || open != 0 {
		t.Errorf("%d registered, %d open", n, open)
	}
	if per > most {
		t.Errorf("%d bytes a client, want at most %d", per, most)
	}
	w.key("client-00123", "one", "")
	w.phone("3CLIENT-00999", "CLIENT-00999")
	if v := w.Version("CLIENT-00007"); v != 1 {
		t.Errorf("version %d: read, not written back", v)
	}
	runtime.KeepAlive(w)
}
