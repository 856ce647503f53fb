package mongo

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/ecodrix/ecod/internal/store"
)

// Finish implements store.Queue. A job that was asked to cancel does not go back: Ready, Scheduled and Parked
// become Cancelled. Ready without RunAt keeps its place in its lane. Scheduled for a time past is Ready.
//
// The update that finds the job running under its token decides. Where more than the job is to be written, it writes all
// of that into the job (see ending): cut after it, the outcome stands, and telling it again, as who got an error does,
// holds.
func (q *Queue) Finish(ctx context.Context, outcomes ...store.Outcome) ([]bool, error) {
	if len(outcomes) == 0 {
		return nil, nil
	}
	f := &finishing{change: q.begin(), outcomes: outcomes, next: make([][]store.Wanted, len(outcomes)), held: make([]bool, len(outcomes))}
	for i, o := range outcomes {
		err := o.Check()
		if err == nil {
			f.next[i], err = store.WantAll(o.Next, newJobID)
		}
		if err != nil {
			return nil, fmt.Errorf("outcome of job %s: %w", o.ID, err)
		}
	}
	defer f.end()
	if err := f.run(ctx); err != nil {
		return nil, err
	}
	return f.held, nil
}

type finishing struct {
	*change
	outcomes []store.Outcome
	next     [][]store.Wanted
	held     []bool
	begun    []jobDoc // whose endings stand
}

func (f *finishing) run(ctx context.Context) error {
	todo := make([]int, len(f.outcomes))
	for i := range todo {
		todo[i] = i
	}
	for range 3 { // a job may be asked to cancel between the look and the write, once
		var err error
		if todo, err = f.write(ctx, todo); err != nil {
			f.unsure = true
			return err
		}
		if len(todo) == 0 {
			break
		}
	}
	return f.complete(ctx, f.begun)
}

// write writes outcomes into their jobs; those that must be looked at again.
func (f *finishing) write(ctx context.Context, todo []int) (again []int, err error) {
	ids := make([]string, len(todo))
	for k, i := range todo {
		ids[k] = f.outcomes[i].ID
	}
	// What a job was given is not needed to end it.
	ds, err := f.q.find(ctx, bson.D{is("_id", in(ids)), is("state", string(store.Running))}, options.Find().SetProjection(bson.D{is("payload", 0)}))
	if err != nil {
		return nil, err
	}
	running := make(map[string]jobDoc, len(ds))
	for _, d := range ds {
		running[d.ID] = d
	}
	var steps []step
	of := map[string]int{} // outcomes, by job
	plans := map[string]jobDoc{}
	for _, i := range todo {
		o := f.outcomes[i]
		d, ok := running[o.ID]
		if _, told := of[o.ID]; !ok || told || d.Token != o.Token {
			continue
		}
		of[o.ID] = i
		if d.ending != nil { // told before, by who did not hear that it held
			f.held[i] = true
			f.begun = append(f.begun, d)
			continue
		}
		s, err := f.plan(&d, i)
		if err != nil {
			return nil, err
		}
		plans[o.ID] = d
		steps = append(steps, s)
	}
	did, err := f.q.apply(ctx, steps...)
	if err != nil {
		return nil, err
	}
	for id, d := range plans {
		i := of[id]
		switch {
		case did[id]:
			f.held[i] = true
			if err := f.wrote(ctx, d, f.outcomes[i]); err != nil {
				return nil, err
			}
		case !d.endState().Terminal():
			again = append(again, i)
		}
	}
	return again, nil
}

// plan makes a job's ending, and the step that writes it, or that it stands.
func (f *finishing) plan(d *jobDoc, i int) (s step, err error) {
	o := f.outcomes[i]
	e := &ending{state: o.State, next: f.next[i]}
	runAt := d.RunAt.UnixMilli()
	if o.State == store.Scheduled || o.State == store.Ready {
		if !o.RunAt.IsZero() {
			runAt = o.RunAt.UnixMilli()
		}
		if runAt <= f.now {
			e.state = store.Ready
		} else if o.State == store.Ready { // made for later but claimed for its caller
			runAt = f.now
		}
	}
	asked := bson.D{}
	if !e.state.Terminal() {
		if d.cancel {
			e.state = store.Cancelled
		} else {
			asked = bson.D{is("cancelRequested", bson.D{is("$ne", true)})}
		}
	}
	e.set = bson.D{is("state", string(e.state)), is("runAt", bson.DateTime(runAt))}
	if e.state.Terminal() {
		e.set = append(e.set, is("endedAt", bson.DateTime(f.now)))
	}
	if o.CountFailed {
		e.set = append(e.set, is("attempt", int64(d.Attempt+1)))
	}
	if o.Error != nil {
		e.set = append(e.set, is("errors", errorsDoc(d.Errors, o.Error)))
	}
	if len(o.Result) > 0 {
		e.set = append(e.set, is("result", jsonValue(o.Result)))
	}
	if d.home != "" && (o.State != store.Ready || o.Pause != nil) { // it came to an end, and took nobody down
		e.home = true
		e.set = append(e.set, is("lane", d.home))
	}
	if o.Pause != nil {
		p, err := ownPause(d.Lane, *o.Pause)
		if err != nil {
			return s, err
		}
		e.pause = &p
	}
	for i, w := range e.next {
		if w.RunAt.IsZero() { // whenever it comes to be made
			e.next[i].RunAt = msTime(f.now)
		}
	}
	d.ending = e
	must := append(bson.D{is("state", string(store.Running)), is("token", d.Token), is("_ending", absent)}, asked...)
	if len(e.next) == 0 && e.pause == nil {
		s = d.last(f.now)
		s.must = must
		return s, nil
	}
	return step{ids: []string{d.ID}, must: must, set: bson.D{is("_ending", e.doc())}}, nil
}

// wrote notes what became of a job whose outcome held.
func (f *finishing) wrote(ctx context.Context, d jobDoc, o store.Outcome) error {
	f.q.pace(d.Lane, time.Duration(f.now-d.StartedAt.UnixMilli())*time.Millisecond)
	if len(d.ending.next) > 0 || d.ending.pause != nil {
		f.begun = append(f.begun, d)
	} else {
		f.ended(d)
	}
	if o.State == store.Ready || o.Pause != nil { // given back, it proved nothing
		return nil
	}
	return f.q.prove(ctx, d.Lane, d.StartedAt.UnixMilli())
}
