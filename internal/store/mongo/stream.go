package mongo

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
)

// streamRest is how long a stream that broke is left alone.
const streamRest = 5 * time.Second

// noStreams are the codes of servers that have no streams of changes: no replica set, or another make.
var noStreams = []int{20, 59, 72, 115, 238, 40324, 40573}

// stream hears from the server which records of a kind were written, where the server tells. What it tells is relied on once
// all records were compared after it began.
type stream struct {
	kind string
	cl   *cluster

	mu     sync.Mutex
	begun  bool
	cancel context.CancelFunc
	done   chan struct{}
	ids    []noted
	opened int // counts openings; odd: open now
	relied int // the opening after which all records were compared
}

// open begins to listen, if nobody does, and gives the opening that is on.
func (s *stream) open(d *driver.Database) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		var ctx context.Context
		s.begun = true
		ctx, s.cancel = context.WithCancel(context.Background())
		s.done = make(chan struct{})
		go s.run(ctx, d.Name())
	}
	return s.opened
}

// compared tells whether nothing was missed since an opening.
func (s *stream) compared(opening int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return opening%2 == 1 && s.relied == opening
}

// rely says that all records were compared after an opening.
func (s *stream) rely(opening int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if opening%2 == 1 && s.opened == opening {
		s.relied = opening
	}
}

// take gives what was heard since the last call.
func (s *stream) take() []noted {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.ids
	s.ids = nil
	return ids
}

func (s *stream) stop() {
	s.mu.Lock()
	begun := s.begun
	s.begun = true
	s.mu.Unlock()
	if begun && s.cancel != nil {
		s.cancel()
		<-s.done
	}
}

// run listens until it is stopped, or the server turns out to have no streams. It holds the cluster's connections meanwhile.
func (s *stream) run(ctx context.Context, database string) {
	defer close(s.done)
	for ctx.Err() == nil {
		err := s.listen(ctx, database)
		if slices.ContainsFunc(driver.ErrorCodes(err), func(c int) bool { return slices.Contains(noStreams, c) }) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(streamRest):
		}
	}
}

func (s *stream) listen(ctx context.Context, database string) error {
	client, err := s.cl.begin(ctx)
	if err != nil {
		return err
	}
	defer s.cl.end()
	heard, err := client.Database(database).Collection(s.kind).Watch(ctx, bson.A{bson.D{{Key: "$project", Value: bson.D{{Key: "documentKey", Value: 1}}}}})
	if err != nil {
		return err
	}
	defer func() { _ = heard.Close(context.WithoutCancel(ctx)) }()
	turn := func() {
		s.mu.Lock()
		s.opened++
		s.mu.Unlock()
	}
	turn()
	defer turn()
	for heard.Next(ctx) {
		id, err := heard.Current.LookupErr("documentKey", idKey)
		if err != nil { // the collection was dropped or renamed
			return nil
		}
		s.mu.Lock()
		s.ids = append(s.ids, noted{idOf(id), false})
		s.mu.Unlock()
	}
	return heard.Err()
}
