package mongo

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/storetest"
)

func TestQueue(t *testing.T) {
	url := servertest.Mongo(t)
	storetest.RunQueue(t, func(t *testing.T, now func() time.Time) store.Queue {
		cs := NewClusters(Config{Home: url})
		t.Cleanup(func() { _ = cs.Close(context.WithoutCancel(t.Context())) })
		return openTestQueue(t, cs, url, freshDatabase(url), now)
	})
}

// freshDatabase names a database of the test's corner that nobody has.
func freshDatabase(url string) string {
	return url[strings.LastIndexByte(url, '/')+1:] + "_" + strings.ToLower(rand.Text()[:8])
}
