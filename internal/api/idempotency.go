package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/store"
)

// keepAnswers is how long the answer to an Idempotency-Key is kept.
const keepAnswers = 24 * time.Hour

// maxKept is the largest answer that is kept: answers to POSTs are small, and a record has a limit.
const maxKept = 2 << 20

// IdempotencyKey is one use of an Idempotency-Key, in the services database. Its id is derived from who called what
// with which key. It is running from before the handler until its answer is stored; a running one whose lease is over
// belongs to a process that died, and may be taken over.
type IdempotencyKey struct {
	store.Meta
	ID         string    `json:"_id"`
	Scope      string    `json:"scope"`             // of the caller; binds the sealed answer
	Request    string    `json:"request,omitempty"` // the body's hash, sealed: a body may hold a password, which a bare hash would help to guess
	State      string    `json:"state"`
	Answer     string    `json:"answer,omitempty"` // sealed: it may hold a secret
	Node       string    `json:"node,omitempty"`   // the process that runs it
	LeaseUntil time.Time `json:"leaseUntil"`
	CreatedAt  time.Time `json:"createdAt"`
	ExpiresAt  time.Time `json:"expiresAt"`
}

const (
	stateRunning = "running"
	stateDone    = "done"
)

// IdempotencyKeys is the kind; the services database must know its Schema.
var IdempotencyKeys = store.Kind[IdempotencyKey]{
	Schema: store.Schema{Kind: "idempotencyKeys", Fields: []store.Field{{Name: "expiresAt", Type: store.Int}}, Orders: [][]string{{"expiresAt"}}},
	Key:    func(k *IdempotencyKey) string { return k.ID },
	Index:  func(k *IdempotencyKey) store.Fields { return store.Fields{"expiresAt": k.ExpiresAt.UnixMilli()} },
	Meta:   func(k *IdempotencyKey) *store.Meta { return &k.Meta },
}

// PruneIdempotencyKeys deletes the kept answers that are over, at most limit; how many.
func PruneIdempotencyKeys(ctx context.Context, db store.DB, now time.Time, limit int) (int, error) {
	old, err := IdempotencyKeys.Find(ctx, db, store.Query{
		Where: []store.Term{store.Where("expiresAt", store.Lt, now.UnixMilli())}, Order: "expiresAt", Limit: limit,
	})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, k := range old {
		switch err := db.Commit(ctx, IdempotencyKeys.Remove(k)); {
		case err == nil:
			n++
		case !errors.Is(err, store.ErrConflict): // a conflict: somebody uses the key anew
			return n, err
		}
	}
	return n, nil
}

// Once is a name for what this request does that stays the same when the caller repeats it with its Idempotency-Key
// ("" without one). Derive ids from it, and a repetition after a crash makes nothing twice.
func Once(ctx context.Context) string { return requestOf(ctx).once }

// keptAnswer is what a record seals.
type keptAnswer struct {
	Request string      `json:"request"` // the id of the request that made it
	Status  int         `json:"status"`
	Header  http.Header `json:"header"`
	Body    []byte      `json:"body"`
}

// idempotencyHeader gives the request's key, "" where there is none or it does not matter.
func idempotencyHeader(r *http.Request, o *operation) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if !o.idempotent || len(values) == 0 {
		return "", nil
	}
	key := values[0]
	if len(values) > 1 || key == "" || len(key) > 255 || strings.ContainsFunc(key, func(c rune) bool { return c < '!' || c > '~' }) {
		f := fault.New(fault.Malformed, "idempotency.bad_key", "Idempotency-Key must be 1 to 255 visible ASCII characters.")
		f.Fields = []fault.Field{{Pointer: "header.Idempotency-Key", Detail: "Expected 1 to 255 visible ASCII characters."}}
		return "", f
	}
	return key, nil
}

func jsonLease(timeout time.Duration) time.Duration { return timeout + 10*time.Second }

// hashBody is the hash by which two requests are the same: the bytes of the body, and the query.
func hashBody(r *http.Request, body []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s", len(r.URL.RawQuery), r.URL.RawQuery)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// once runs a request at most once per key: it answers with what run makes, or with what was kept. hash is that of the
// body, "" where it is known only when run has read it (run then gives it).
func (a *API) once(w http.ResponseWriter, r *http.Request, caller Caller, key string, lease time.Duration, hash string, run func() (*capture, string, error)) error {
	scope := caller.scope()
	if scope == "" { // nobody: the key is the address's own
		scope = "address:" + clientAddr(r)
	}
	// The record must be told how it went even if the caller is gone.
	ctx := context.WithoutCancel(r.Context())
	now := a.cfg.Now().UTC()
	rec := &IdempotencyKey{
		ID: id.Derived("idk", scope, r.Method, r.URL.EscapedPath(), key), Scope: scope, State: stateRunning,
		Node: a.node, LeaseUntil: now.Add(lease), CreatedAt: now, ExpiresAt: now.Add(keepAnswers),
	}
	if err := a.sealHash(rec, hash); err != nil {
		return err
	}
	kept, err := a.begin(ctx, rec, hash)
	if err != nil {
		return err
	}
	if kept != nil {
		return a.repeat(ctx, w, r, kept, hash)
	}
	requestOf(ctx).once = rec.ID
	finished := false
	defer func() {
		if !finished { // a panic, or an answer that is not kept
			a.forget(ctx, rec)
		}
	}()
	c, hash, err := run()
	if err != nil {
		return err
	}
	if worthKeeping(c.status) {
		if err := a.sealHash(rec, hash); err != nil {
			return err
		}
		finished = a.keep(ctx, rec, c)
	}
	c.send()
	return nil
}

// worthKeeping: what would be answered again. A 5xx, and refusals of the moment, are not.
func worthKeeping(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests, statusClosed:
		return false
	}
	return status < 500
}

// sealHash notes the hash of a request's body, if it is known.
func (a *API) sealHash(rec *IdempotencyKey, hash string) (err error) {
	if rec.Request = ""; hash != "" {
		rec.Request, err = a.cfg.Ring.Seal(rec.Scope, "idempotency.request."+rec.ID, hash)
	}
	return err
}

// hashOf gives the hash that sealHash noted, "" if none.
func (a *API) hashOf(rec *IdempotencyKey) (string, error) {
	if rec.Request == "" {
		return "", nil
	}
	hash, err := a.cfg.Ring.Open(rec.Scope, "idempotency.request."+rec.ID, rec.Request)
	if err != nil {
		return "", fmt.Errorf("kept request of %s: %w", rec.ID, err)
	}
	return hash.Reveal(), nil
}

// begin makes the record, or gives the one that is there; nil, nil: run. hash is the body's, "" if it is not known yet.
func (a *API) begin(ctx context.Context, rec *IdempotencyKey, hash string) (*IdempotencyKey, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	db := a.cfg.Services
	for range 5 {
		err := db.Commit(ctx, IdempotencyKeys.Insert(rec))
		if err == nil {
			rec.Version = 1
			return nil, nil
		}
		if !errors.Is(err, store.ErrDuplicate) {
			return nil, err
		}
		old, err := IdempotencyKeys.Get(ctx, db, rec.ID)
		if errors.Is(err, store.ErrNotFound) {
			continue // it ended without an answer between the two
		}
		if err != nil {
			return nil, err
		}
		now := rec.CreatedAt
		over := !old.ExpiresAt.After(now)
		before := ""
		if !over {
			if before, err = a.hashOf(old); err != nil {
				return nil, err
			}
		}
		switch {
		case before != "" && hash != "" && before != hash:
			return nil, errMismatch()
		case !over && old.State == stateDone:
			return old, nil
		case !over && old.LeaseUntil.After(now) && (old.Node == a.node || !a.cfg.Alone): // alone, another process's request died with it
			f := fault.New(fault.Conflict, "idempotency.in_progress", "The first request with this Idempotency-Key is still running.")
			f.RetryAfter = time.Second
			return nil, f
		}
		rec.Version = old.Version
		err = db.Commit(ctx, IdempotencyKeys.Update(rec))
		if err == nil {
			rec.Version++
			return nil, nil
		}
		rec.Version = 0
		if !errors.Is(err, store.ErrConflict) {
			return nil, err
		}
	}
	return nil, fault.New(fault.Conflict, "idempotency.in_progress", "Other requests with this Idempotency-Key are running.")
}

func errMismatch() error {
	return fault.New(fault.Conflict, "idempotency.mismatch", "This Idempotency-Key was used with another body.")
}

// keep stores the answer; durable before the caller hears it. If it cannot be stored, the caller hears it all the
// same: what was done is done, and only a repetition would do it again.
func (a *API) keep(ctx context.Context, rec *IdempotencyKey, c *capture) bool {
	q := requestOf(ctx)
	if len(c.body) > maxKept {
		q.log.Warn("an answer is too large to be kept for its Idempotency-Key", q.attrs("bytes", len(c.body))...)
		return false
	}
	plain, err := json.Marshal(keptAnswer{Request: q.id, Status: c.status, Header: c.header, Body: c.body})
	if err == nil {
		rec.Answer, err = a.cfg.Ring.Seal(rec.Scope, "idempotency."+rec.ID, string(plain))
	}
	if err != nil {
		q.log.Error("an answer could not be sealed", q.attrs("error", err)...)
		return false
	}
	rec.State = stateDone
	for wait := 50 * time.Millisecond; ; wait *= 4 {
		err = a.commit(ctx, IdempotencyKeys.Update(rec))
		if err == nil || errors.Is(err, store.ErrConflict) || wait > time.Second {
			break
		}
		time.Sleep(wait)
	}
	if err != nil {
		q.log.Error("an answer could not be kept for its Idempotency-Key", q.attrs("error", err)...)
	}
	return true // even if it failed: the record stays running until its lease is over, rather than inviting a repetition now
}

// forget removes the record of a request whose answer is not kept, so that the caller may try again at once.
func (a *API) forget(ctx context.Context, rec *IdempotencyKey) {
	if err := a.commit(ctx, IdempotencyKeys.Remove(rec)); err != nil && !errors.Is(err, store.ErrConflict) {
		q := requestOf(ctx)
		q.log.Warn("an Idempotency-Key stays in use until its lease is over", q.attrs("error", err)...)
	}
}

func (a *API) commit(ctx context.Context, w ...store.Write) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return a.cfg.Services.Commit(ctx, w...)
}

// repeat answers with what was kept. An unknown hash is that of a streamed body, which has to be read first.
func (a *API) repeat(ctx context.Context, w http.ResponseWriter, r *http.Request, kept *IdempotencyKey, hash string) error {
	if hash == "" {
		h := newBodyHash(r)
		if err := h.drain(r.Body); err != nil {
			return err
		}
		before, err := a.hashOf(kept)
		if err != nil {
			return err
		}
		if hash = h.sum(); hash != before {
			return errMismatch()
		}
	}
	text, err := a.cfg.Ring.Open(kept.Scope, "idempotency."+kept.ID, kept.Answer)
	if err != nil {
		return fmt.Errorf("kept answer of %s: %w", kept.ID, err)
	}
	var k keptAnswer
	if err := json.Unmarshal([]byte(text.Reveal()), &k); err != nil {
		return fmt.Errorf("kept answer of %s: %w", kept.ID, err)
	}
	q := requestOf(ctx)
	q.replay = k.Request
	if k.Status >= 400 { // the body names the first request, and the header goes with the body
		w.Header().Set("X-Request-Id", k.Request)
	}
	w.Header().Set("Idempotency-Replayed", "true")
	c := newCapture(w)
	c.status, c.header, c.body = k.Status, k.Header, k.Body
	c.send()
	return nil
}
