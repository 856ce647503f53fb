package mongo

import (
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
)

func TestInbox(t *testing.T) {
	open := opener(t)
	storetest.RunInbox(t, func(t *testing.T, now func() time.Time) store.Inbox {
		in, err := OpenInbox(t.Context(), open(t, nil).(*DB), now)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := in.Close(); err != nil {
				t.Error(err)
			}
		})
		return in
	})
}
