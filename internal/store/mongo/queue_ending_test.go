package mongo

import (
	"context"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
)

// An ending that cannot be completed, as a hand may have broken it, keeps neither others from it nor what is due.
func TestBrokenEnding(t *testing.T) {
	t.Parallel()
	s := newScene(t, servertest.Mongo(t))
	s.make("due", store.NewJob{RunAt: s.at.Add(time.Second)})
	for i, name := range []string{"first", "broken", "last"} {
		s.make(name, store.NewJob{ClaimFor: name})
		if i > 0 {
			s.cut, s.f = faulty(t, s.url, s.good.db.name, s.now)
		}
		s.f.arm(1, before) // once its outcome stands
		if _, err := s.finish(s.cut, name, store.Outcome{State: store.Succeeded, Next: []store.NewJob{{Tenant: "A", Type: "b", UniqueKey: name}}}); err == nil {
			t.Fatal("it was not cut")
		}
	}
	err := s.good.on(s.ctx, jobs, func(ctx context.Context, c *driver.Collection) error {
		_, err := c.UpdateOne(ctx, bson.D{is("_id", s.jobs["broken"].ID)}, bson.D{is("$set", bson.D{is("_ending.set._id", "another")})})
		return err
	})
	s.must(err)
	s.at = s.at.Add(time.Minute)
	if ready, _, err := s.good.Promote(s.ctx); err == nil || ready != 1 {
		t.Errorf("%d ready, %v", ready, err)
	}
	for name, want := range map[string]store.State{"first": store.Succeeded, "broken": store.Running, "last": store.Succeeded, "due": store.Ready} {
		if j, err := s.good.Job(s.ctx, s.jobs[name].ID); err != nil || j.State != want {
			t.Errorf("%s: %+v, %v", name, j, err)
		}
	}
}
