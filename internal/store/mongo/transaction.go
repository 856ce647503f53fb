package mongo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/store"
)

// abilities are what a deployment was seen to be able to.
type abilities struct {
	mu    sync.Mutex
	known bool
	tx    bool
}

// transactions tells whether the deployment takes transactions back. There are servers that speak of sessions, take every
// command of a transaction, and keep the documents of one that was aborted: so one is aborted, and looked for, before any is
// relied on.
func (cl *cluster) transactions(ctx context.Context, d *driver.Database) (bool, error) {
	cl.able.mu.Lock()
	defer cl.able.mu.Unlock()
	if cl.able.known {
		return cl.able.tx, nil
	}
	var hello struct {
		SetName  string `bson:"setName"`
		Msg      string `bson:"msg"`
		Sessions *int64 `bson:"logicalSessionTimeoutMinutes"`
	}
	if err := d.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return false, err
	}
	can := false
	if hello.Sessions != nil && (hello.SetName != "" || hello.Msg == "isdbgrid") {
		var err error
		if can, err = takesBack(ctx, d); err != nil {
			return false, err
		}
	}
	cl.able.known, cl.able.tx = true, can
	return can, nil
}

func takesBack(ctx context.Context, d *driver.Database) (bool, error) {
	s, err := d.Client().StartSession()
	if err != nil {
		return false, err
	}
	defer s.EndSession(context.WithoutCancel(ctx))
	if err := s.StartTransaction(); err != nil {
		return false, err
	}
	own := d.Collection(ownColl)
	probe := bson.D{{Key: idKey, Value: "probe." + strconv.FormatUint(rand.Uint64(), 36)}}
	_, err = own.InsertOne(driver.NewSessionContext(ctx, s), probe)
	err = errors.Join(err, s.AbortTransaction(ctx))
	n, countErr := own.CountDocuments(ctx, probe)
	if countErr != nil {
		return false, countErr
	}
	if n > 0 {
		_, err := own.DeleteOne(ctx, probe)
		return false, err
	}
	var se driver.ServerError
	if err != nil && !errors.As(err, &se) {
		return false, err // not an answer
	}
	return err == nil, nil
}

// atOnce makes the commit as one transaction.
func (c *commit) atOnce(ctx context.Context, d *driver.Database) error {
	s, err := d.Client().StartSession()
	if err != nil {
		return err
	}
	defer s.EndSession(context.WithoutCancel(ctx))
	for try := range maxRaces {
		if err = c.attempt(ctx, d, s); err == nil {
			c.db.numbers.assign(ctx, c.db, d, c.numbered())
			return nil
		}
		for i := range c.steps {
			c.steps[i].inserted, c.steps[i].done = false, false
		}
		var race raced
		var labeled driver.LabeledError
		again := errors.As(err, &race) || errors.As(err, &labeled) && labeled.HasErrorLabel("TransientTransactionError")
		if !again || ctx.Err() != nil {
			return err
		}
		if errors.As(err, &race) {
			if err := c.lost(ctx, d, race); err != nil {
				return err
			}
		}
		select { // others want the same records: apart from each other, all get on
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(rand.Int64N(int64(min(try+1, 20)) * int64(2*time.Millisecond)))):
		}
	}
	return fmt.Errorf("%w: store/mongo: others wrote the same records all the time", store.ErrUnavailable)
}

// attempt tries the transaction once.
func (c *commit) attempt(ctx context.Context, d *driver.Database, s *driver.Session) error {
	if err := s.StartTransaction(); err != nil {
		return err
	}
	if err := c.within(driver.NewSessionContext(ctx, s), d); err != nil {
		// The server ends it by itself if it does not hear this.
		over, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.db.cl.c.cfg.Timeout)
		defer cancel()
		_ = s.AbortTransaction(over)
		return err
	}
	for {
		err := s.CommitTransaction(ctx)
		var labeled driver.LabeledError
		if err == nil || ctx.Err() != nil || !errors.As(err, &labeled) || !labeled.HasErrorLabel("UnknownTransactionCommitResult") {
			return err
		}
	}
}

// raced is a step that ran into an id or a unique value: the transaction is lost with it.
type raced struct {
	step int
	err  error
}

func (r raced) Error() string { return "store/mongo: a step ran into another's value" }
func (r raced) Unwrap() error { return r.err }

// lost finds out, after the transaction, what the step ran into; nil: nothing that is still there, or an id that a second try
// will see.
func (c *commit) lost(ctx context.Context, d *driver.Database, r raced) error {
	s := &c.steps[r.step]
	if s.Action == store.Insert {
		there, err := s.there(ctx, d)
		if err != nil {
			return err
		}
		if there {
			return s.duplicate(idKey)
		}
	}
	if err := s.taken(ctx, d); err != nil {
		return err
	}
	for _, before := range c.steps[:r.step] { // a value that the commit itself gave away or took
		if before.Kind == s.Kind {
			return s.duplicate("unique")
		}
	}
	return nil
}

// within makes the writes of a transaction, one after the other.
func (c *commit) within(ctx context.Context, d *driver.Database) error {
	for i := range c.steps {
		s := &c.steps[i]
		s.tried = true
		coll := d.Collection(s.Kind)
		switch {
		case s.Action == store.Check && s.IfVersion == 0:
			if err := s.check(ctx, d); err != nil {
				return err
			}
			continue
		case s.Action == store.Check: // written, so that it cannot change until the end
			r, err := coll.UpdateOne(ctx, bson.D{{Key: idKey, Value: s.ID}, {Key: versionKey, Value: atVersion(s.IfVersion)}},
				bson.D{{Key: "$set", Value: bson.D{{Key: heldKey, Value: c.mark}}}})
			if err == nil && r.MatchedCount == 0 {
				err = s.conflict()
			}
			if err != nil {
				return err
			}
			continue
		case s.lone():
			if err := c.one(ctx, d, i); err != nil {
				if isDuplicate(err) {
					return raced{i, err}
				}
				return err
			}
			continue
		}
		if s.Action == store.Ensure && s.kind.Sequenced { // an insert that is refused would end the transaction
			there, err := s.there(ctx, d)
			if err != nil {
				return err
			}
			if there {
				s.done = true
				continue
			}
		}
		r, err := coll.BulkWrite(ctx, []driver.WriteModel{c.model(i)})
		if isDuplicate(err) {
			return raced{i, err}
		}
		if err != nil {
			return err
		}
		s.done = true
		s.inserted = s.makes(r.UpsertedCount > 0)
	}
	return nil
}
