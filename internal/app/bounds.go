package app

import (
	"context"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/store"
)

// bounds gives the limits of clients' resources in a worker of so many slots. A client's messages find a slot whatever
// else of its hangs: all but its own work and WhatsApp's is slow.
func bounds(slots int) func(client, resource string) store.Bounds {
	others := max(3, slots*3/16)
	return func(_, resource string) store.Bounds {
		switch store.ResourceKind(resource) {
		case store.Internal:
			return store.Bounds{}
		case chat.Resource:
			return store.Bounds{Running: 10, Rate: chat.NumberRate, Pair: chat.PairRate}
		case "mail":
			return store.Bounds{Running: 4, Slow: true}
		case "google":
			return store.Bounds{Running: 2, Slow: true, Rate: calendarRate}
		}
		return store.Bounds{Running: others, Slow: true}
	}
}

// calendarRate is half of what Google allows a user of the Calendar API (600 calls a minute): a job makes up to two.
var calendarRate = store.Rate{Every: 200 * time.Millisecond, Burst: 10}

// letGo ends the pauses of a client that was moved, and of one whose accounts were refused: one of them may have been mended. A token that is still bad
// costs one call.
func (a *App) letGo(ctx context.Context, code string) error {
	pauses, err := a.Queue.Pauses(ctx, code)
	for _, p := range pauses {
		if (p.Reason == store.Credential || p.Reason == store.Moving) && err == nil {
			_, err = a.Queue.Resume(ctx, p.Scope, p.Reason)
		}
	}
	return err
}
