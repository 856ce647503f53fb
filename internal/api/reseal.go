package api

import (
	"context"
	"errors"

	"github.com/ecodrix/ecod/internal/store"
)

// ResealAnswers lets what is sealed of kept answers be sealed anew: seal is given each value with what it is bound to, and
// what it gives back takes its place. The record of a request that is running is only shown, and not changed under it:
// it seals its answer under the newest key anyhow.
func ResealAnswers(ctx context.Context, db store.DB, seal func(owner, field, sealed string) (string, error)) error {
	const page = 200
	q := store.Query{Limit: page}
	for {
		recs, err := IdempotencyKeys.Find(ctx, db, q)
		if err != nil {
			return err
		}
		for _, k := range recs {
			q.After = &store.Cursor{ID: k.ID}
			request, answer := k.Request, k.Answer
			if k.Request != "" {
				if k.Request, err = seal(k.Scope, "idempotency.request."+k.ID, k.Request); err != nil {
					return err
				}
			}
			if k.Answer != "" {
				if k.Answer, err = seal(k.Scope, "idempotency."+k.ID, k.Answer); err != nil {
					return err
				}
			}
			if k.State != stateDone || (k.Request == request && k.Answer == answer) {
				continue
			}
			if err := db.Commit(ctx, IdempotencyKeys.Update(k)); err != nil && !errors.Is(err, store.ErrConflict) {
				return err // a conflict: it ended, or is used anew
			}
		}
		if len(recs) < page {
			return nil
		}
	}
}

// ForgetAnswers deletes the kept answers of a client's callers, its keys and its users: the client is gone.
func ForgetAnswers(ctx context.Context, db store.DB, code string) error {
	const page = 200
	q := store.Query{Limit: page}
	for {
		recs, err := IdempotencyKeys.Find(ctx, db, q)
		if err != nil {
			return err
		}
		for _, k := range recs {
			q.After = &store.Cursor{ID: k.ID}
			if !scopeIsOf(k.Scope, code) {
				continue
			}
			if err := db.Commit(ctx, store.Write{Action: store.Delete, Kind: IdempotencyKeys.Schema.Kind, ID: k.ID}); err != nil {
				return err
			}
		}
		if len(recs) < page {
			return nil
		}
	}
}
