package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// childDir is set in the environment of the processes that these tests kill.
const childDir = "ECOD_TEST_CRASH_DIR"

// killed runs a test of this binary in another process, kills it -9 after it has told some things, and gives
// all that it told: lines of words.
func killed(t *testing.T, child, dir string) (told [][]string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+child+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	enough := 50 + rand.IntN(400)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil { // what is cut short was not told
			break
		}
		if told = append(told, strings.Fields(line)); len(told) == enough {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait()
	if len(told) < enough {
		t.Fatalf("the child ended by itself: %v\n%s", told, stderr.String())
	}
	return told
}

func TestQueueCrashChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return
	}
	ctx := context.Background()
	q := testQueue(t, filepath.Join(dir, "services.db"), time.Now)
	run := fmt.Sprint(os.Getpid())
	for p := range 8 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprint("k-", run, "-", p, "-", i)
				made, err := q.Enqueue(ctx, store.NewJob{Tenant: fmt.Sprint("T", p%3), Type: "a", UniqueKey: key})
				if err != nil {
					panic(err)
				}
				fmt.Println("made", made[0].Job.Tenant, key, made[0].Job.ID)
			}
		}()
	}
	for w := range 3 {
		go func() {
			for {
				jobs, err := q.Claim(ctx, store.ClaimRequest{Owner: run, Limit: 4, Lease: 15 * time.Second, Types: []string{"a"}})
				if err != nil {
					panic(err)
				}
				for i, j := range jobs {
					fmt.Println("claimed", j.Tenant, j.ID, j.Token)
					if i%2 == w%2 {
						continue
					}
					held, err := q.Finish(ctx, store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded,
						Next: []store.NewJob{{Tenant: j.Tenant, Type: "next", UniqueKey: "next-" + j.ID}}})
					if err != nil || !held[0] {
						panic(fmt.Sprint(held, err))
					}
					fmt.Println("ended", j.Tenant, j.ID, j.Token)
				}
			}
		}()
	}
	select {}
}

func TestQueueSurvivesKill(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	tokens := map[string]string{} // the last told of each job
	for round := range 5 {
		told := killed(t, "TestQueueCrashChild", dir)
		// Two minutes on, all leases of the dead process are over.
		db, err := Open(ctx, filepath.Join(dir, "services.db"), nil)
		if err != nil {
			t.Fatal(err)
		}
		q, err := OpenQueue(ctx, db, func() time.Time { return time.Now().Add(2 * time.Minute) })
		if err != nil {
			t.Fatal(err)
		}
		q.sound(t)
		if _, _, err := q.Promote(ctx); err != nil {
			t.Fatal(err)
		}
		if counts, err := q.JobCounts(ctx, ""); err != nil || counts[store.Running] != 0 {
			t.Errorf("%d jobs still run for the dead: %v", counts[store.Running], err)
		}
		job := func(id string) store.Job {
			t.Helper()
			j, err := q.Job(ctx, id)
			if err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			return j
		}
		ended := map[string]bool{}
		n := map[string]int{}
		for _, l := range told {
			n[l[0]]++
			switch l[0] {
			case "made":
				again, err := q.Enqueue(ctx, store.NewJob{Tenant: l[1], Type: "a", UniqueKey: l[2]})
				if err != nil || !again[0].Duplicate || again[0].Job.ID != l[3] {
					t.Errorf("%s was made as %s, and is %+v (%v)", l[2], l[3], again, err)
				}
			case "claimed":
				if tokens[l[2]] == l[3] {
					t.Errorf("token %s of %s was given twice", l[3], l[2])
				}
				tokens[l[2]] = l[3]
			case "ended":
				ended[l[2]] = true
				next, err := q.Enqueue(ctx, store.NewJob{Tenant: l[1], Type: "next", UniqueKey: "next-" + l[2]})
				if err != nil || !next[0].Duplicate {
					t.Errorf("%s ended, what it causes was not made: %v", l[2], err)
				}
			}
		}
		for _, l := range told {
			if l[0] != "claimed" {
				continue
			}
			switch j := job(l[2]); j.State {
			case store.Succeeded:
			case store.Ready:
				if ended[j.ID] || j.Crashes == 0 {
					t.Errorf("ended %v, stored %+v", ended[j.ID], j)
				}
			case store.Dead:
				if ended[j.ID] || j.Crashes != 3 {
					t.Errorf("ended %v, stored %+v", ended[j.ID], j)
				}
			default:
				t.Errorf("after the kill: %+v", j)
			}
		}
		t.Logf("round %d: %v", round, n)
		q.sound(t)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInboxCrashChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return
	}
	ctx := context.Background()
	in := testInbox(t, dir, time.Now)
	for p := range 16 {
		go func() {
			for i := 0; ; i++ {
				body := fmt.Sprint(os.Getpid(), "-", p, "-", i)
				d := store.Delivery{Body: []byte(body)}
				if err := in.Receive(ctx, &d); err != nil {
					panic(err)
				}
				fmt.Println(d.ID, body)
				if i%3 == 0 {
					if err := in.Settle(ctx, store.Settlement{ID: d.ID, State: store.Settled, Clients: []string{"A"}}); err != nil {
						panic(err)
					}
				}
			}
		}()
	}
	select {}
}

func TestInboxSurvivesKill(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	all := map[string]string{}
	for range 4 {
		for _, l := range killed(t, "TestInboxCrashChild", dir) {
			all[l[0]] = l[1]
		}
		in, err := OpenInbox(dir, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		for id, body := range all {
			if d, err := in.Delivery(ctx, id); err != nil || string(d.Body) != body {
				t.Fatalf("%s holds %q, want %q (%v)", id, d.Body, body, err)
			}
		}
		names, err := in.list()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names { // two if it is midnight
			err := in.read(ctx, name, func(c *conn) error {
				for what, sql := range map[string]string{
					"integrity":          `SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'`,
					"stored twice":       `SELECT body FROM bodies GROUP BY body HAVING count(*) > 1`,
					"without its bytes":  `SELECT _id FROM deliveries WHERE n NOT IN (SELECT n FROM bodies)`,
					"bytes of no one":    `SELECT n FROM bodies WHERE n NOT IN (SELECT n FROM deliveries)`,
					"settled for no one": `SELECT _id FROM deliveries WHERE state = 'settled' AND _id NOT IN (SELECT deliveryId FROM deliveryClients)`,
				} {
					if r, err := c.first(ctx, sql); err != nil || r != nil {
						t.Errorf("%s: %v, %v", what, r, err)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(all) < 200 {
		t.Errorf("only %d deliveries were acknowledged", len(all))
	}
}
