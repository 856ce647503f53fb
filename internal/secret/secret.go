// Package secret seals what must not be read at rest, and carries it in memory
// in a type that does not print itself.
//
// A sealed value is text: "sealed:v1:<key id>:<base64url of nonce and ciphertext>",
// AES-256-GCM under a key derived (HKDF-SHA256) from the ring's key for one owner.
// Owner and field are authenticated with it, so a ciphertext copied to another
// client or to another field does not open.
package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// Prefix begins every sealed value.
const Prefix = "sealed:v1:"

// ErrOpen is the error of Open for a value that is not sealed, was sealed for
// another owner or field, was changed, or whose key is not in the ring.
var ErrOpen = errors.New("secret: cannot open")

// Text is a secret in memory. It prints, logs and marshals as "[secret]"; Reveal gives the value.
type Text string

// Reveal gives the value; every call is a place to look at when a secret leaks.
func (t Text) Reveal() string { return string(t) }

// String hides the value.
func (t Text) String() string { return "[secret]" }

// GoString hides the value from %#v.
func (t Text) GoString() string { return "[secret]" }

// Format hides the value from every verb of fmt.
func (t Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// LogValue hides the value from slog.
func (t Text) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText hides the value from JSON and its kin.
func (t Text) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

type key struct {
	id    string
	bytes []byte
}

// Ring is the operator's keys: the first seals, all open. It is safe for concurrent use.
type Ring struct {
	keys    atomic.Pointer[[]key]
	unknown atomic.Pointer[func()] // OnUnknown's
}

// ParseRing reads "id:base64-of-32-bytes,…" (ECOD_SECRET_KEYS). Ids are 1 to 32 of [A-Za-z0-9._-] and differ.
func ParseRing(s string) (*Ring, error) {
	r, keys := &Ring{}, []key{}
	seen := map[string]bool{}
	for i, part := range strings.Split(s, ",") {
		kid, b64, ok := strings.Cut(strings.TrimSpace(part), ":")
		if !ok || !validID(kid) {
			return nil, fmt.Errorf("key %d is not of the form id:base64", i+1)
		}
		if seen[kid] {
			return nil, fmt.Errorf("key id %q stands twice", kid)
		}
		seen[kid] = true
		raw, err := base64.StdEncoding.DecodeString(b64)
		if err != nil {
			if raw, err = base64.RawURLEncoding.DecodeString(b64); err != nil {
				return nil, fmt.Errorf("key %q is not base64", kid)
			}
		}
		if len(raw) != 32 {
			return nil, fmt.Errorf("key %q has %d bytes, not 32", kid, len(raw))
		}
		keys = append(keys, key{kid, raw})
	}
	r.keys.Store(&keys)
	return r, nil
}

// Become takes the keys of another ring: the operator rotated them.
func (r *Ring) Become(other *Ring) { r.keys.Store(other.keys.Load()) }

// OnUnknown sets what is called when a value turns up whose key is not in the ring: it may let the ring Become a newer
// one, and the value is tried once more.
func (r *Ring) OnUnknown(f func()) { r.unknown.Store(&f) }

// IDs are the ids of the keys, the one that seals first.
func (r *Ring) IDs() []string {
	var ids []string
	for _, k := range *r.keys.Load() {
		ids = append(ids, k.id)
	}
	return ids
}

func (r *Ring) find(kid string) (key, bool) {
	for _, k := range *r.keys.Load() {
		if k.id == kid {
			return k, true
		}
	}
	return key{}, false
}

// Generate makes a new ring entry in the form that ParseRing reads.
func Generate(id string) string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails since Go 1.24: the program ends instead
	return id + ":" + base64.StdEncoding.EncodeToString(b)
}

func validID(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

// Current is the id of the key that seals.
func (r *Ring) Current() string { return (*r.keys.Load())[0].id }

// Seal encrypts value for an owner ("ACME") and a field ("whatsapp.accessToken").
func (r *Ring) Seal(owner, field, value string) (string, error) {
	k := (*r.keys.Load())[0]
	gcm, err := aead(k, owner)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(nonce)
	out := gcm.Seal(nonce, nonce, []byte(value), aad(owner, field))
	return Prefix + k.id + ":" + base64.RawURLEncoding.EncodeToString(out), nil
}

// Open decrypts what Seal made for the same owner and field. Every failure is ErrOpen.
func (r *Ring) Open(owner, field, sealed string) (Text, error) {
	kid, raw, err := split(sealed)
	if err != nil {
		return "", err
	}
	k, ok := r.find(kid)
	if f := r.unknown.Load(); !ok && f != nil {
		(*f)()
		k, ok = r.find(kid)
	}
	if !ok {
		return "", fmt.Errorf("%w: no key %q in the ring", ErrOpen, kid)
	}
	gcm, err := aead(k, owner)
	if err != nil {
		return "", err
	}
	if len(raw) < gcm.NonceSize() {
		return "", fmt.Errorf("%w: too short", ErrOpen)
	}
	plain, err := gcm.Open(nil, raw[:gcm.NonceSize()], raw[gcm.NonceSize():], aad(owner, field))
	if err != nil {
		return "", fmt.Errorf("%w: sealed for another owner or field, or changed", ErrOpen)
	}
	return Text(plain), nil
}

// Reseal seals a value anew under the ring's current key; one that stands under it already comes back as it is.
func (r *Ring) Reseal(owner, field, sealed string) (string, error) {
	if KeyID(sealed) == r.Current() {
		return sealed, nil
	}
	v, err := r.Open(owner, field, sealed)
	if err != nil {
		return "", err
	}
	return r.Seal(owner, field, v.Reveal())
}

// KeyID tells which key sealed a value; "" if it is not a sealed value.
func KeyID(sealed string) string {
	kid, _, err := split(sealed)
	if err != nil {
		return ""
	}
	return kid
}

func split(sealed string) (kid string, raw []byte, err error) {
	rest, ok := strings.CutPrefix(sealed, Prefix)
	if !ok {
		return "", nil, fmt.Errorf("%w: not a sealed value", ErrOpen)
	}
	kid, b64, ok := strings.Cut(rest, ":")
	if !ok {
		return "", nil, fmt.Errorf("%w: not a sealed value", ErrOpen)
	}
	if raw, err = base64.RawURLEncoding.DecodeString(b64); err != nil {
		return "", nil, fmt.Errorf("%w: not base64", ErrOpen)
	}
	return kid, raw, nil
}

func aead(k key, owner string) (cipher.AEAD, error) {
	sub, err := hkdf.Key(sha256.New, k.bytes, nil, "ecod/"+owner, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(sub)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// aad joins owner and field with a byte that neither may hold.
func aad(owner, field string) []byte { return []byte(owner + "\x00" + field) }
