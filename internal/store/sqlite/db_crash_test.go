package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ecodrix/ecod/internal/store"
)

var crashing = []store.Schema{
	{Kind: "things", Fields: []store.Field{{Name: "name"}, {Name: "tags", Multi: true}}},
	{Kind: "news", Sequenced: true},
}

// pair is a commit of two records, of which a crash must leave both or none.
func pair(id string) []store.Write {
	doc := []byte(`"` + strings.Repeat("x", 2000) + `"`)
	return []store.Write{
		{Action: store.Insert, Kind: "things", ID: id, Doc: doc, Fields: store.Fields{"name": id, "tags": []string{"a", id}}},
		{Action: store.Insert, Kind: "news", ID: id, Doc: doc},
	}
}

// sound holds a file after a crash: everything acknowledged is there, every commit is whole, every index agrees.
func sound(t *testing.T, path string, acknowledged []string) {
	t.Helper()
	ctx := context.Background()
	db, err := Open(ctx, path, crashing)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rs, err := db.Get(ctx, "things", acknowledged...)
	if err != nil || len(rs) != len(acknowledged) {
		t.Fatalf("of %d acknowledged, %d are there, %v", len(acknowledged), len(rs), err)
	}
	err = db.f.read(ctx, func(c *conn) error {
		for _, check := range []struct{ sql, want string }{
			{"PRAGMA integrity_check", "ok"},
			{"SELECT count(*) FROM things t LEFT JOIN news n USING (_id) WHERE n._id IS NULL", "0"},
			{"SELECT count(*) FROM news n LEFT JOIN things t USING (_id) WHERE t._id IS NULL", "0"},
			{"SELECT (SELECT count(*) FROM things_tags) - 2 * (SELECT count(*) FROM things)", "0"},
			{"SELECT max(seq) - count(*) FROM news", "0"},
		} {
			r, err := c.first(ctx, check.sql)
			if err != nil {
				return err
			}
			if r.text(0) != check.want && !r.null(0) {
				t.Errorf("%s: %s", check.sql, r.text(0))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCopiesWhileWriting takes the files as a power cut would leave them: what was not synced yet may be missing
// or torn, what was acknowledged was synced.
func TestCopiesWhileWriting(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	db := openFresh(t, crashing).(*DB)
	var mu sync.Mutex
	var acknowledged []string
	allowed, more := make(chan struct{}, 200), make(chan struct{}, 200)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-allowed:
				case <-ctx.Done():
					return
				}
				id := fmt.Sprintf("%d-%d", g, i)
				if err := db.Commit(context.Background(), pair(id)...); err != nil {
					t.Error(err)
				}
				mu.Lock()
				acknowledged = append(acknowledged, id)
				mu.Unlock()
				more <- struct{}{}
			}
		})
	}
	for range 20 {
		for range 60 {
			allowed <- struct{}{}
		}
		for range rand.IntN(50) {
			<-more
		}
		mu.Lock()
		acked := acknowledged[:len(acknowledged):len(acknowledged)]
		mu.Unlock()
		copied := filepath.Join(t.TempDir(), "copy.db")
		// The snapshot keeps the log from being begun anew, which would make the two copies not of one moment.
		err := db.f.snapshot(context.Background(), func(c *conn) error {
			if _, err := c.first(context.Background(), "SELECT 1 FROM things"); err != nil {
				return err
			}
			log, err := os.Stat(db.f.path + "-wal")
			if err != nil {
				return err
			}
			return errors.Join(copyFile(db.f.path, copied, -1), copyFile(db.f.path+"-wal", copied+"-wal", log.Size()))
		})
		if err != nil {
			t.Fatal(err)
		}
		sound(t, copied, acked)
		for len(allowed) > 0 || len(more) > 0 {
			<-more
		}
	}
	stop()
	wg.Wait()
}

// copyFile copies; of what is beyond synced, only a random part, and then a torn page.
func copyFile(from, to string, synced int64) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if synced >= 0 && int64(len(b)) > synced {
		b = b[:synced+rand.Int64N(int64(len(b))-synced+1)]
		for range rand.IntN(5000) {
			b = append(b, byte(rand.Int()))
		}
	}
	return os.WriteFile(to, b, 0o600)
}

const childEnv = "STORE_SQLITE_TEST_CHILD"

// child runs this test's binary again as another process, which does one of the parts of TestChild.
func child(t *testing.T, part, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childEnv+"="+part+" "+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestChild is no test but the other process of those below.
func TestChild(t *testing.T) {
	part, path, _ := strings.Cut(os.Getenv(childEnv), " ")
	switch part {
	case "load":
		childLoad(path)
	case "full":
		if err := childFull(path); err != nil {
			fmt.Println("failed:", err)
		}
	}
}

// childLoad commits and tells what was acknowledged, until it is killed.
func childLoad(path string) {
	db, err := Open(context.Background(), path, crashing)
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	var mu sync.Mutex
	for g := range 8 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), g, i)
				err := db.Commit(context.Background(), pair(id)...)
				mu.Lock()
				if err != nil {
					fmt.Println("failed:", err)
				} else {
					fmt.Println(id)
				}
				mu.Unlock()
			}
		}()
	}
	select {}
}

func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var acknowledged []string
	for round := range 4 {
		cmd, out := child(t, "load", path)
		for n := 0; n < 150+100*round && out.Scan(); n++ {
			if strings.HasPrefix(out.Text(), "failed") {
				t.Error(out.Text())
			}
			acknowledged = append(acknowledged, out.Text())
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for out.Scan() { // what it had still told
			acknowledged = append(acknowledged, out.Text())
		}
		_ = cmd.Wait()
		if last := len(acknowledged) - 1; !strings.Contains(acknowledged[last], "-") { // torn by the kill
			acknowledged = acknowledged[:last]
		}
		sound(t, path, acknowledged)
	}
	if len(acknowledged) < 4*150 {
		t.Errorf("only %d acknowledged", len(acknowledged))
	}
}

// TestDiskFull: SQLite's own limit stands in for the disk's.
func TestDiskFull(t *testing.T) {
	ctx := context.Background()
	db := openFresh(t, crashing).(*DB)
	limit := func(pages int) {
		t.Helper()
		err := db.f.write(ctx, func(tx *wtx) error {
			_, err := tx.first(fmt.Sprintf("PRAGMA max_page_count = %d", pages))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit(60)
	var acknowledged, refused []string
	for i := 0; len(refused) < 5; i++ {
		id := fmt.Sprint(i)
		switch err := db.Commit(ctx, pair(id)...); {
		case err == nil:
			acknowledged = append(acknowledged, id)
		case errors.Is(err, store.ErrUnavailable):
			refused = append(refused, id)
		default:
			t.Fatal(err)
		}
	}
	if len(acknowledged) == 0 {
		t.Fatal("nothing went in before the disk was full")
	}
	check := func() {
		t.Helper()
		for _, kind := range []string{"things", "news"} {
			if rs, err := db.Get(ctx, kind, refused...); err != nil || len(rs) > 0 {
				t.Fatalf("of what was refused, %d %s are there, %v", len(rs), kind, err)
			}
			if rs, err := db.Get(ctx, kind, acknowledged...); err != nil || len(rs) != len(acknowledged) {
				t.Fatalf("of %d acknowledged, %d are there, %v", len(acknowledged), len(rs), err)
			}
		}
	}
	check()
	limit(100_000)
	for _, id := range refused {
		if err := db.Commit(ctx, pair(id)...); err != nil {
			t.Fatalf("with space again: %v", err)
		}
	}
	acknowledged, refused = append(acknowledged, refused...), nil
	check()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	sound(t, db.f.path, acknowledged)
}

// TestWritesFail: the system refuses to write (here, beyond a file size), many commits wait together, and later it
// does not any more. In a process of its own, since the limit is the process's.
func TestWritesFail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	cmd, out := child(t, "full", path)
	var acknowledged []string
	for out.Scan() {
		if id, ok := strings.CutPrefix(out.Text(), "ok "); ok {
			acknowledged = append(acknowledged, id)
		} else if strings.HasPrefix(out.Text(), "failed") {
			t.Error(out.Text())
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if len(acknowledged) < 50 {
		t.Fatalf("%d acknowledged", len(acknowledged))
	}
	sound(t, path, acknowledged)
}

func childFull(path string) error {
	ctx := context.Background()
	signal.Ignore(syscall.SIGXFSZ)
	db, err := Open(ctx, path, crashing)
	if err != nil {
		return err
	}
	limit := func(bytes uint64) error {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &now); err != nil {
			return err
		}
		now.Cur = min(bytes, now.Max)
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &now)
	}
	var mu sync.Mutex
	var acknowledged, refused []string
	var wrong atomic.Value
	load := func(name string, n int) {
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range n {
					id := fmt.Sprintf("%s-%d-%d", name, g, i)
					err := db.Commit(ctx, pair(id)...)
					mu.Lock()
					switch {
					case err == nil:
						acknowledged = append(acknowledged, id)
					case errors.Is(err, store.ErrUnavailable):
						refused = append(refused, id)
					default:
						wrong.Store(err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	load("before", 5)
	if len(refused) > 0 {
		return errors.New("refused without a limit")
	}
	if err := limit(1 << 20); err != nil {
		return err
	}
	load("limited", 40)
	if len(refused) == 0 {
		return errors.New("the limit held nothing back")
	}
	for _, kind := range []string{"things", "news"} {
		rs, err := db.Get(ctx, kind, refused...)
		if err != nil || len(rs) > 0 {
			return fmt.Errorf("of what was refused, %d %s are there, %w", len(rs), kind, err)
		}
	}
	if err := limit(1 << 40); err != nil {
		return err
	}
	had := len(refused)
	load("after", 5)
	if len(refused) > had {
		return errors.New("refused after the limit")
	}
	if err, _ := wrong.Load().(error); err != nil {
		return err
	}
	for _, id := range acknowledged {
		fmt.Println("ok", id)
	}
	return db.Close()
}
