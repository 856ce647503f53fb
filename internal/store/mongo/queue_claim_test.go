package mongo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
)

// crowded has a lane at its rate, with a pair at its own, a lane on trial, and one that is free.
func crowded(s *scene) {
	for i := range 6 {
		s.make(fmt.Sprint("wa", i), store.NewJob{Resource: "wa:1", Pair: []string{"ana", ""}[i%2]})
	}
	s.make("trial", store.NewJob{Resource: "mail"})
	s.make("later", store.NewJob{Resource: "mail"})
	s.make("free", store.NewJob{})
	_, err := s.good.Pause(s.ctx, store.PauseRequest{Scope: "A/mail", Reason: store.RateLimited, For: time.Second})
	s.must(err)
	s.at = s.at.Add(time.Second)
}

func crowdedClaim(s *scene, q *Queue, owner string) ([]store.Job, error) {
	return q.Claim(s.ctx, store.ClaimRequest{Owner: owner, Limit: 20, Lease: 15 * time.Second, Types: []string{"a"}, Quarantine: true,
		Bounds: func(_, resource string) store.Bounds {
			if resource != "wa:1" {
				return store.Bounds{}
			}
			return store.Bounds{Rate: store.Rate{Every: time.Minute, Burst: 4}, Pair: store.Rate{Every: time.Hour, Burst: 2}}
		}})
}

// running counts the running jobs of each resource.
func (s *scene) running() map[string]int {
	s.Helper()
	js, err := s.good.Jobs(s.ctx, store.JobFilter{AllTenants: true, States: []store.State{store.Running}})
	s.must(err)
	n := map[string]int{}
	for _, j := range js {
		_, resource, _ := store.SplitLane(j.Lane)
		n[resource]++
	}
	return n
}

// A claim is cut at every write, before it and after it, or held up while another does the same: no rate is exceeded, no
// more than one job is on trial, and in the end every job ran.
func TestClaimCut(t *testing.T) {
	t.Parallel()
	url := servertest.Mongo(t)
	s := newScene(t, url)
	crowded(s)
	s.f.arm(-1, none)
	js, err := crowdedClaim(s, s.cut, "w1")
	s.must(err)
	if len(js) != 6 || fmt.Sprint(s.running()) != "map[internal:1 mail:1 wa:1:4]" {
		t.Fatalf("undisturbed, it claims %d, %v", len(js), s.running())
	}
	for k := range s.f.seen() {
		for _, how := range []cut{before, after, stall} {
			t.Run(fmt.Sprint(k, []string{"", "before", "after", "stall"}[how]), func(t *testing.T) {
				s := newScene(t, url)
				crowded(s)
				s.f.arm(k, how)
				done := make(chan error, 1)
				go func() {
					_, err := crowdedClaim(s, s.cut, "w1")
					done <- err
				}()
				if how == stall {
					<-s.f.stalled
				} else if err := <-done; err != nil && !errors.Is(err, store.ErrUnavailable) {
					t.Errorf("it failed with %v", err)
				}
				_, err := crowdedClaim(s, s.good, "w2")
				s.must(err)
				if how == stall {
					close(s.f.resume)
					s.must(<-done)
				}
				if n := s.running(); n["wa:1"] > 4 || n["mail"] > 1 || n["internal"] != 1 {
					t.Errorf("running at once: %v", n)
				}
				s.drain()
			})
		}
	}
}

// drain lets the other process go on alone until every job has ended.
func (s *scene) drain() {
	s.Helper()
	for range 200 {
		s.at = s.at.Add(20 * time.Second)
		s.good.rests.drop()
		_, _, err := s.good.Promote(s.ctx)
		s.must(err)
		js, err := crowdedClaim(s, s.good, "w3")
		s.must(err)
		for _, j := range js {
			_, err := s.good.Finish(s.ctx, store.Outcome{ID: j.ID, Token: j.Token, State: store.Succeeded})
			s.must(err)
		}
		left, err := s.good.Jobs(s.ctx, store.JobFilter{AllTenants: true, States: []store.State{store.Scheduled, store.Ready, store.Running}})
		s.must(err)
		if len(left) == 0 {
			return
		}
		if !slices.ContainsFunc(left, func(j store.Job) bool { return j.State != store.Scheduled }) {
			s.at = s.at.Add(time.Hour)
		}
	}
	s.Errorf("these never ran:\n%s", s.print())
}

// counting counts what is asked of a server.
type counting struct {
	net.Conn
	n *atomic.Int64
}

func (c counting) Write(b []byte) (int, error) {
	if len(b) > 26 && binary.LittleEndian.Uint32(b[12:]) == 2013 {
		size := int(binary.LittleEndian.Uint32(b[21:]))
		if es, err := bson.Raw(b[21:min(len(b), 21+size)]).Elements(); err == nil && len(es) > 0 {
			switch es[0].Key() {
			case "hello", "ping", "endSessions":
			default:
				c.n.Add(1)
			}
		}
	}
	return c.Conn.Write(b)
}

// A claim asks the server a handful of times, for however many jobs.
func TestClaimRoundTrips(t *testing.T) {
	t.Parallel()
	url := servertest.Mongo(t)
	var asked atomic.Int64
	cs := NewClusters(Config{Home: url, Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return counting{c, &asked}, err
	}})
	t.Cleanup(func() { _ = cs.Close(context.WithoutCancel(t.Context())) })
	q := openTestQueue(t, cs, url, freshDatabase(url), nil)
	var made []store.NewJob
	for i := range 200 {
		made = append(made, store.NewJob{Tenant: fmt.Sprint("T", i%10), Resource: "wa:1", Pair: fmt.Sprint(i), Type: "a"})
	}
	if _, err := q.Enqueue(t.Context(), made...); err != nil {
		t.Fatal(err)
	}
	r := store.ClaimRequest{Owner: "w", Limit: 50, Slots: 200, Lease: time.Minute, Types: []string{"a"}, Bounds: func(string, string) store.Bounds {
		return store.Bounds{Rate: store.Rate{Every: time.Millisecond, Burst: 100}, Pair: store.Rate{Every: time.Minute, Burst: 3}}
	}}
	claim := func(want int) int64 {
		t.Helper()
		q.board.mu.Lock() // as after a look a moment ago
		q.board.looked = time.Now()
		q.board.mu.Unlock()
		if _, err := q.rests.read(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if err := q.count(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := asked.Load()
		js, err := q.Claim(t.Context(), r)
		if err != nil || len(js) != want {
			t.Fatalf("%d claimed, %v", len(js), err)
		}
		return asked.Load() - before
	}
	if _, err := q.Claim(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	r.Limit = 100
	if n := claim(100); n > 6 {
		t.Errorf("a claim of 100 asked %d times", n)
	}
	r.Bounds, r.Limit = nil, 1
	if n := claim(1); n > 2 {
		t.Errorf("a claim of one asked %d times", n)
	}
}
