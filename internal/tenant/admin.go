package tenant

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
)

// keyOverlap is how long the previous API key stays valid after a rotation.
const keyOverlap = 24 * time.Hour

// NewClient is what an operator says of a new client.
type NewClient struct {
	Code, Name, TimeZone, Locale, DefaultCountry string
	DatabaseURL                                  secret.Text
}

// Create registers a client and gives its first API key, shown this once.
func (r *Registry) Create(ctx context.Context, n NewClient) (*Account, string, error) {
	code, ok := Code(n.Code)
	if !ok {
		return nil, "", fault.Bad("/clientCode", "must match %s", codeForm)
	}
	key, hash := newKey()
	now := r.cfg.Now().UTC()
	a := &Account{
		Code: code, Name: n.Name, Status: Active, TimeZone: n.TimeZone, Locale: n.Locale, DefaultCountry: n.DefaultCountry,
		APIKeys: []APIKey{{SHA256: hash, CreatedAt: now}}, CreatedAt: now, UpdatedAt: now, Rev: RevOf(code, 1),
	}
	if err := a.Validate(); err != nil {
		return nil, "", fault.Bad("/timeZone", "%s", err)
	}
	if r.cfg.CheckDB != nil {
		if err := r.cfg.CheckDB(code, n.DatabaseURL); err != nil {
			return nil, "", err
		}
	}
	if n.DatabaseURL != "" {
		sealed, err := r.cfg.Ring.Seal(code, "databaseUrl", n.DatabaseURL.Reveal())
		if err != nil {
			return nil, "", err
		}
		a.DatabaseURL = sealed
	}
	err := r.cfg.Services.Commit(ctx, Accounts.Insert(a))
	if errors.Is(err, store.ErrDuplicate) {
		return nil, "", fault.New(fault.Conflict, "client.exists", "A client with this code exists.")
	}
	if err != nil {
		return nil, "", err
	}
	r.written(a.Code)
	a.Version = 1
	r.renew(code) // what is known of an earlier client of this code is over
	r.remember(a)
	return a, key, nil
}

// Account reads a client's account; fault.NotFound.
func (r *Registry) Account(ctx context.Context, code string) (*Account, error) {
	code, ok := Code(code)
	if !ok {
		return nil, ErrUnknown()
	}
	return r.read(ctx, code)
}

func (r *Registry) read(ctx context.Context, code string) (*Account, error) {
	recs, err := r.cfg.Services.Get(ctx, Accounts.Schema.Kind, code)
	if err != nil {
		return nil, err
	}
	if len(recs) == 0 {
		return nil, ErrUnknown()
	}
	a, err := decode(recs[0])
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "client.unreadable", "The client's document in ClientSecrets cannot be read. Mend it there.")
	}
	return a, nil
}

// decode makes an account of a record. The record's id is its code, whatever a hand wrote into the document.
func decode(rec store.Record) (*Account, error) {
	a, err := Accounts.Decode(rec)
	if err != nil {
		return nil, err
	}
	a.Code = rec.ID
	if a.Status == "" {
		a.Status = Active
	}
	return a, nil
}

// List reads accounts by code, after a code. A document that cannot be read is an account of status Unreadable, with what
// is known of it: it may be served on. What is under an id that is no code is no client.
func (r *Registry) List(ctx context.Context, after string, limit int) ([]*Account, error) {
	var out []*Account
	for {
		q := store.Query{Kind: Accounts.Schema.Kind, Limit: limit - len(out)}
		if after != "" {
			q.After = &store.Cursor{ID: after}
		}
		recs, err := r.cfg.Services.Find(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, rec := range recs {
			after = rec.ID
			if code, ok := Code(rec.ID); !ok || code != rec.ID {
				continue
			}
			a, err := decode(rec)
			if err != nil {
				a = r.unreadable(rec.ID)
			}
			out = append(out, a)
		}
		if len(recs) < q.Limit || len(out) == limit {
			return out, nil
		}
	}
}

// unreadable is what is known of a client whose document cannot be read.
func (r *Registry) unreadable(code string) *Account {
	r.mu.RLock()
	defer r.mu.RUnlock()
	a := &Account{Code: code, Status: Unreadable}
	if e := r.clients[code]; e != nil {
		a.Name, a.AllowedOrigins = e.name, slices.Clone(e.origins)
	}
	return a
}

// Change edits an account and takes the edit into memory at once. edit may run more than once.
func (r *Registry) Change(ctx context.Context, code string, edit func(*Account) error) (*Account, error) {
	for range 10 {
		a, err := r.Account(ctx, code)
		if err != nil {
			return nil, err
		}
		if err := edit(a); err != nil {
			return nil, err
		}
		a.UpdatedAt = r.cfg.Now().UTC()
		a.Rev = RevOf(a.Code, a.Version+1)
		switch err := r.cfg.Services.Commit(ctx, Accounts.Update(a)); {
		case err == nil:
			r.written(a.Code)
			a.Version++
			r.remember(a)
			return a, nil
		case errors.Is(err, store.ErrConflict):
			continue
		case errors.Is(err, store.ErrDuplicate):
			return nil, fault.New(fault.Conflict, "whatsapp.number_taken", "A phone number id belongs to another client already.")
		default:
			return nil, err
		}
	}
	return nil, fault.New(fault.Conflict, "client.busy", "The client is being changed by others. Try again.")
}

// NewKey gives a client a new API key; the one before stays valid until previousUntil (zero: there was none).
func (r *Registry) NewKey(ctx context.Context, code string) (key string, previousUntil time.Time, err error) {
	key, hash := newKey()
	_, err = r.Change(ctx, code, func(a *Account) error {
		now := r.cfg.Now().UTC()
		previousUntil = time.Time{}
		var keep []APIKey
		if k, ok := lasting(a.APIKeys, now); ok { // the others end at once: two at a time
			if until := now.Add(keyOverlap); k.ValidUntil == nil || k.ValidUntil.After(until) {
				k.ValidUntil = &until
			}
			previousUntil = *k.ValidUntil
			keep = append(keep, k)
		}
		a.APIKeys = append(keep, APIKey{SHA256: hash, CreatedAt: now})
		return nil
	})
	return key, previousUntil, err
}

// lasting gives the key that is valid for longest, the last of those without an end.
func lasting(keys []APIKey, now time.Time) (best APIKey, ok bool) {
	for _, k := range keys {
		switch {
		case k.ValidUntil == nil:
		case !k.ValidUntil.After(now), ok && (best.ValidUntil == nil || best.ValidUntil.After(*k.ValidUntil)):
			continue
		}
		best, ok = k, true
	}
	return best, ok
}

// SetStatus suspends or resumes a client.
func (r *Registry) SetStatus(ctx context.Context, code, status string) (*Account, error) {
	return r.Change(ctx, code, func(a *Account) error {
		if a.Status == Erasing {
			return fault.New(fault.Conflict, "client.erasing", "This client is being erased.")
		}
		at := &a.Status
		if a.Status == Moving && a.Move != nil { // what it will be once it is moved
			at = &a.Move.Was
		}
		if status == Suspended && *at != Suspended {
			a.SuspendedAt = r.cfg.Now().UTC()
		}
		*at = status
		return nil
	})
}

// WhatsAppSecrets is a Meta account in the clear, on its way to be sealed.
type WhatsAppSecrets struct {
	WABAID                              string
	PhoneNumberIDs                      []string
	AccessToken, AppSecret, VerifyToken secret.Text
}

// SetWhatsApp replaces a client's Meta account.
func (r *Registry) SetWhatsApp(ctx context.Context, code string, s WhatsAppSecrets) (*Account, error) {
	return r.Change(ctx, code, func(a *Account) error {
		w := &WhatsApp{WABAID: s.WABAID, UpdatedAt: r.cfg.Now().UTC()}
		// the order given is kept: the first number is the one to send from
		for _, p := range s.PhoneNumberIDs {
			if !slices.Contains(w.PhoneNumberIDs, p) {
				w.PhoneNumberIDs = append(w.PhoneNumberIDs, p)
			}
		}
		a.WhatsApp = w
		return r.seal(a, map[string]secret.Text{"whatsapp.accessToken": s.AccessToken, "whatsapp.appSecret": s.AppSecret, "whatsapp.verifyToken": s.VerifyToken})
	})
}

// SetSMTP replaces a client's mail account; password "" is none. The Password member of s is not looked at.
func (r *Registry) SetSMTP(ctx context.Context, code string, s SMTP, password secret.Text) (*Account, error) {
	return r.Change(ctx, code, func(a *Account) error {
		mine := s
		mine.UpdatedAt = r.cfg.Now().UTC()
		a.SMTP = &mine
		return r.seal(a, map[string]secret.Text{"smtp.password": password})
	})
}

// GoogleSecrets is a calendar account in the clear: an OAuth grant, or a service account with the user it acts for.
type GoogleSecrets struct {
	ClientID                                   string
	ClientSecret, RefreshToken, ServiceAccount secret.Text
	Subject, CalendarID                        string
}

// SetGoogle replaces a client's calendar account.
func (r *Registry) SetGoogle(ctx context.Context, code string, g GoogleSecrets) (*Account, error) {
	return r.Change(ctx, code, func(a *Account) error {
		a.Google = &Google{ClientID: g.ClientID, Subject: g.Subject, CalendarID: g.CalendarID, UpdatedAt: r.cfg.Now().UTC()}
		return r.seal(a, map[string]secret.Text{
			"google.clientSecret": g.ClientSecret, "google.refreshToken": g.RefreshToken, "google.serviceAccount": g.ServiceAccount,
		})
	})
}

// SetStorage replaces a client's own bucket.
func (r *Registry) SetStorage(ctx context.Context, code, url, accessKeyID string, secretAccessKey secret.Text) (*Account, error) {
	return r.Change(ctx, code, func(a *Account) error {
		a.Storage = &Storage{URL: url, AccessKeyID: accessKeyID, UpdatedAt: r.cfg.Now().UTC()}
		return r.seal(a, map[string]secret.Text{"storage.secretAccessKey": secretAccessKey})
	})
}

func (r *Registry) seal(a *Account, values map[string]secret.Text) error {
	places := a.sealed()
	for field, v := range values {
		*places[field] = ""
		if v == "" {
			continue
		}
		s, err := r.cfg.Ring.Seal(a.Code, field, v.Reveal())
		if err != nil {
			return err
		}
		*places[field] = s
	}
	return nil
}

// SecretInfo tells of one group of stored secrets, never a value.
type SecretInfo struct {
	Name      string    // "whatsapp"
	Fields    []string  // which are set
	KeyID     string    // the ring's key that sealed them; "" where nothing is sealed
	UpdatedAt time.Time // zero: not known
}

// Secrets lists the accounts that a client has with others, by name.
func (a *Account) Secrets() []SecretInfo {
	groups := map[string]*SecretInfo{}
	if w := a.WhatsApp; w != nil {
		groups["whatsapp"] = &SecretInfo{UpdatedAt: w.UpdatedAt}
	}
	if s := a.SMTP; s != nil {
		groups["smtp"] = &SecretInfo{UpdatedAt: s.UpdatedAt}
	}
	if g := a.Google; g != nil {
		groups["google"] = &SecretInfo{UpdatedAt: g.UpdatedAt}
	}
	if s := a.Storage; s != nil {
		groups["storage"] = &SecretInfo{UpdatedAt: s.UpdatedAt}
	}
	if a.DatabaseURL != "" {
		groups["databaseUrl"] = &SecretInfo{}
	}
	for _, g := range groups {
		g.Fields = []string{}
	}
	for _, field := range SecretFields {
		if at, ok := a.sealed()[field]; ok && *at != "" {
			name, _, _ := strings.Cut(field, ".")
			g := groups[name]
			g.Fields = append(g.Fields, field)
			g.KeyID = secret.KeyID(*at)
		}
	}
	out := []SecretInfo{}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		groups[name].Name = name
		out = append(out, *groups[name])
	}
	return out
}

// AppSecret opens the app secret of a client's own Meta app, for the webhook that is not yet known to be anyone's;
// "" if the client has none or is unknown.
func (r *Registry) AppSecret(ctx context.Context, code string) (secret.Text, error) {
	return r.secretOf(ctx, code, "whatsapp.appSecret")
}

// VerifyToken opens the verify token of a client's own Meta app; "" if the client has none or is unknown.
func (r *Registry) VerifyToken(ctx context.Context, code string) (secret.Text, error) {
	return r.secretOf(ctx, code, "whatsapp.verifyToken")
}

// StorageKey opens the key of a client's own bucket, also of a client that is being erased; "" if it has none.
func (r *Registry) StorageKey(ctx context.Context, code string) (secret.Text, error) {
	return r.secretOf(ctx, code, "storage.secretAccessKey")
}

func (r *Registry) secretOf(ctx context.Context, code, field string) (secret.Text, error) {
	a, err := r.Account(ctx, code)
	if fault.Of(err) == fault.NotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return open(r.cfg.Ring, a, field)
}

// Erase removes a client for good: its database, then its document with the secrets. It goes on where it was stopped.
// Call it from a job, after BeginErase.
func (r *Registry) Erase(ctx context.Context, code string) error {
	a, err := r.Account(ctx, code)
	if fault.Of(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if a.Status != Erasing {
		return fmt.Errorf("tenant: %s is not marked for erasure", code)
	}
	code = a.Code
	if err := r.vacate(ctx, code); err != nil {
		return err
	}
	if err := r.cfg.DropDB(ctx, a); err != nil {
		return err
	}
	if err := r.cfg.Services.Commit(ctx, Accounts.Remove(a)); err != nil {
		return err
	}
	r.written(a.Code)
	r.forget(code)
	return nil
}

// BeginErase marks a client: from now on nobody can use it.
func (r *Registry) BeginErase(ctx context.Context, code string) error {
	_, err := r.Change(ctx, code, func(a *Account) error {
		if a.Status == Moving && a.Move != nil {
			return fault.New(fault.Conflict, "client.moving", "This client is being moved. Erase it when that is done, or cancel the move's job.")
		}
		a.Status = Erasing
		return nil
	})
	return err
}

// vacate waits until nobody uses a client's database, and closes it.
func (r *Registry) vacate(ctx context.Context, code string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		r.closeWhere(func(e *entry) bool { return e.code == code })
		r.mu.RLock()
		e := r.clients[code]
		free := e == nil || (e.handle == nil && e.refs == 0 && e.closing == 0)
		for o := range r.open { // it may have been left for another
			free = free && o.code != code
		}
		r.mu.RUnlock()
		if free {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// newKey makes an API key and the hash to keep.
func newKey() (key, hash string) {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	key = "ecod_" + base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(key))
	return key, hex.EncodeToString(sum[:])
}
