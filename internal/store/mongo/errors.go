package mongo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/ecodrix/ecod/internal/store"
)

// Codes of the server that mean something to us.
const (
	codeDuplicate   = 11000
	codeNoNamespace = 26
)

var (
	tooLarge = []int{10334, 17419, 17420, 17280}                // of documents and of index keys
	queries  = []int{2, 9, 14, 16, 52, 54, 57, 73, 168, 51, 96} // what the server read and will never do
)

// undone are the codes of writes that the server undid, since others at once were in their way: PostgreSQL's 40001 and 40P01.
var undone = []int{16777220, 16908292}

// takenBackError is such a write's: it may be tried again at once.
type takenBackError struct{ error }

func (e takenBackError) Unwrap() error { return e.error }

// again does what may be tried again until the server does not take it back, a few times at most.
func again(ctx context.Context, do func() error) (err error) {
	for try := range 4 {
		var back takenBackError
		if err = do(); !errors.As(err, &back) || ctx.Err() != nil {
			return err
		}
		time.Sleep(rand.N(time.Duration(try+1) * 10 * time.Millisecond)) // apart from the others
	}
	return err
}

// errDropped: somebody dropped the database, or a collection of it, while it was used.
var errDropped = fmt.Errorf("%w: store/mongo: the database, or a collection of it, was dropped meanwhile", store.ErrUnavailable)

// fail makes the driver's error one of the contract's. Of the server's words none is kept: they quote values.
func fail(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || driver.IsTimeout(err) || driver.IsNetworkError(err) || errors.Is(err, context.Canceled)) {
		return ctx.Err()
	}
	for _, ours := range []error{store.ErrConflict, store.ErrDuplicate, store.ErrTooLarge, store.ErrUnavailable, store.ErrQuery, store.ErrClosed, store.ErrNotFound, errSchema} {
		if errors.Is(err, ours) {
			return err
		}
	}
	if foreign := (*ForeignError)(nil); errors.As(err, &foreign) {
		return err
	}
	codes := driver.ErrorCodes(err)
	has := func(some []int) bool {
		return slices.ContainsFunc(codes, func(c int) bool { return slices.Contains(some, c) })
	}
	switch {
	case isDuplicate(err):
		return fmt.Errorf("%w: store/mongo: code %d", store.ErrDuplicate, codeDuplicate)
	case errors.Is(err, driver.ErrClientDisconnected):
		return fmt.Errorf("%w: store/mongo: the cluster was left", store.ErrUnavailable)
	case has(tooLarge):
		return fmt.Errorf("%w: store/mongo: %s", store.ErrTooLarge, codeText(codes[0]))
	case has([]int{codeNoNamespace}):
		return errDropped
	case len(codes) > 0 && has(queries):
		return fmt.Errorf("%w: store/mongo: %s", store.ErrQuery, codeText(codes[0]))
	case len(codes) > 0:
		err := fmt.Errorf("%w: store/mongo: %s", store.ErrUnavailable, codeText(codes[0]))
		if has(undone) {
			return takenBackError{err}
		}
		return err
	case driver.IsTimeout(err):
		return fmt.Errorf("%w: store/mongo: no answer in time", store.ErrUnavailable)
	case driver.IsNetworkError(err):
		return fmt.Errorf("%w: store/mongo: the connection broke", store.ErrUnavailable)
	}
	return fmt.Errorf("%w: store/mongo: %T", store.ErrUnavailable, err)
}

// isDuplicate tells a taken id or unique value by its code.
func isDuplicate(err error) bool {
	var se driver.ServerError
	return errors.As(err, &se) && se.HasErrorCode(codeDuplicate)
}

// sqlStates says what some of PostgreSQL's states mean to whoever reads them of a MongoDB-compatible server.
var sqlStates = map[string]string{
	"40001": "writes at once were in each other's way, and the server took this one back",
	"40P01": "a deadlock of writes at once, which the server ended by taking this one back",
	"55P03": "a lock was not had in time",
	"57014": "the server cancelled it, as it does after its own time limit",
	"57P01": "the server is being stopped",
	"57P03": "the server is starting or stopping",
}

// codeText tells a server's code. Servers on PostgreSQL (DocumentDB, FerretDB) give its states for some writes, packed as
// PostgreSQL does: six bits a character. Those that end in 0 cannot be told from MongoDB's own codes, which are below 2^24.
func codeText(code int) string {
	if code < 1<<24 || code >= 1<<30 {
		return fmt.Sprintf("code %d", code)
	}
	var state [5]byte
	for i := range state {
		state[i] = '0' + byte(code>>(6*i)&0x3f)
	}
	if says := sqlStates[string(state[:])]; says != "" {
		return fmt.Sprintf("code %d (%s; PostgreSQL's %s)", code, says, state)
	}
	return fmt.Sprintf("code %d (PostgreSQL's %s)", code, state)
}
