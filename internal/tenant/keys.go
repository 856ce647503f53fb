package tenant

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/fault"
)

// errKey is the one answer to every wrong pair of code and key.
func errKey() error {
	return fault.New(fault.Unauthenticated, "auth.invalid", "The API key or the client code is not valid.")
}

// Authenticate checks an API key (x-api-key) of a client (x-client-code). It gives the client's code in its stored form.
// Wrong or unknown: 401; right but suspended: 403.
func (r *Registry) Authenticate(code, key string) (string, error) {
	sum := sha256.Sum256([]byte(key))
	code, valid := Code(code)
	r.mu.RLock()
	defer r.mu.RUnlock()
	var keys []keyHash
	var status string
	if e := r.clients[code]; valid && e != nil {
		keys, status = e.keys, e.status
	}
	now := r.cfg.Now()
	ok := 0
	for _, k := range keys {
		if k.until.IsZero() || now.Before(k.until) {
			ok |= subtle.ConstantTimeCompare(k.sum[:], sum[:])
		}
	}
	if ok != 1 || key == "" {
		return "", errKey()
	}
	if status == Moving {
		return "", ErrMoving()
	}
	if status != Active {
		return "", fault.New(fault.Forbidden, "client.suspended", "This client is suspended.")
	}
	return code, nil
}

// keyPrefix begins the id of an API key, which is its hash.
const keyPrefix = "key_"

// KeyID names an API key without telling it.
func KeyID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return keyPrefix + hex.EncodeToString(sum[:])
}

// IsKeyID tells the id of an API key from those of other things.
func IsKeyID(s string) bool { return strings.HasPrefix(s, keyPrefix) }

// KeyHolds tells whether the API key of this id is still one of a client that may call.
func (r *Registry) KeyHolds(code, keyID string) bool {
	sum, err := hex.DecodeString(strings.TrimPrefix(keyID, keyPrefix))
	if err != nil || len(sum) != sha256.Size {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.clients[code]
	if e == nil || e.status != Active {
		return false
	}
	now := r.cfg.Now()
	return slices.ContainsFunc(e.keys, func(k keyHash) bool {
		return k.sum == [sha256.Size]byte(sum) && (k.until.IsZero() || now.Before(k.until))
	})
}
