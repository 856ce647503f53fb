package job

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// What a storage engine says is not shown to the client whose job met it, however the handler tells it.
func TestStorageErrorsAreToldInOurWords(t *testing.T) {
	typ := Type{}
	const raw = "SQL logic error: Expression tree is too large"
	for _, sentinel := range []error{store.ErrUnavailable, store.ErrClosed, store.ErrQuery} {
		met := fmt.Errorf("%w: %s", sentinel, raw)
		for name, err := range map[string]error{"plain": met, "retry": Retry(0, "x", met), "dead": Dead("x", fmt.Errorf("freeze: %w", met))} {
			o := typ.outcome(&store.Job{MaxAttempts: 9}, Result{}, err, time.Now())
			if o.Error == nil || o.Error.Message == "" || strings.Contains(o.Error.Message, "SQL") || strings.Contains(o.Error.Message, "store:") {
				t.Errorf("%v, %s: %+v", sentinel, name, o.Error)
			}
		}
	}
	if o := typ.outcome(&store.Job{MaxAttempts: 9}, Result{}, errors.New("boom"), time.Now()); o.Error.Message != "boom" {
		t.Errorf("%+v", o.Error)
	}
}
