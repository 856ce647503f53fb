package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
)

// The cost of a hash, as OWASP advises for argon2id. It stands in every hash, so that it can be raised later.
const (
	hashMemory  = 19 << 10 // KiB
	hashPasses  = 2
	hashThreads = 1
	hashBytes   = 32
	saltBytes   = 16
)

// Limits of passwords.
const (
	MinPassword = 10  // characters
	MaxPassword = 256 // bytes
)

// hasher computes password hashes, few at a time: each takes 19 MiB, and a flood of logins must not take them all.
type hasher struct {
	running chan struct{}
	waiting chan struct{}
}

func newHasher() *hasher {
	n := min(max(runtime.GOMAXPROCS(0), 2), 8)
	return &hasher{running: make(chan struct{}, n), waiting: make(chan struct{}, 32*n)}
}

// enter waits for a turn. leave gives it back.
func (h *hasher) enter(ctx context.Context) (leave func(), err error) {
	select {
	case h.waiting <- struct{}{}:
	default:
		f := fault.New(fault.Limited, "session.busy", "Too many passwords are being checked. Try again.")
		f.RetryAfter = time.Second
		return nil, f
	}
	defer func() { <-h.waiting }()
	select {
	case h.running <- struct{}{}:
		return func() { <-h.running }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hash makes what is stored of a password.
func (h *hasher) hash(ctx context.Context, password secret.Text) (string, error) {
	leave, err := h.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails since Go 1.24
	sum := argon2.IDKey(plain(password), salt, hashPasses, hashMemory, hashThreads, hashBytes)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashPasses, hashThreads, b64(salt), b64(sum)), nil
}

// nobody is the hash that is checked where there is no user: it takes as long, and no password is right.
const nobody = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCE$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// check tells whether a password is the one of a hash.
func (h *hasher) check(ctx context.Context, password secret.Text, hash string) (bool, error) {
	var version, memory, passes, threads int
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, fmt.Errorf("auth: a password hash is of an unknown form")
	}
	_, err1 := fmt.Sscanf(parts[2], "v=%d", &version)
	_, err2 := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &passes, &threads)
	salt, err3 := base64.RawStdEncoding.DecodeString(parts[4])
	sum, err4 := base64.RawStdEncoding.DecodeString(parts[5])
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return false, fmt.Errorf("auth: a password hash cannot be read: %w", err)
		}
	}
	if version != argon2.Version || memory < 8 || memory > 1<<20 || passes < 1 || passes > 64 || threads < 1 || threads > 16 || len(sum) < 16 {
		return false, fmt.Errorf("auth: a password hash has parameters out of range")
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	got := argon2.IDKey(plain(password), salt, uint32(passes), uint32(memory), uint8(threads), uint32(len(sum)))
	return subtle.ConstantTimeCompare(got, sum) == 1 && hash != nobody, nil
}

// plain gives the bytes that are hashed: keyboards differ in how they compose a letter, people do not.
func plain(p secret.Text) []byte { return []byte(norm.NFKC.String(p.Reveal())) }

// common are the words that many passwords are made of by adding digits or signs.
var common = map[string]bool{}

func init() {
	for w := range strings.FieldsSeq(`password passwort passw0rd p@ssword p@ssw0rd mypassword qwerty qwertyuiop qwertzuiop azertyuiop asdfghjkl asdfghjkl;
		qwerty123456 iloveyou welcome welcome1 letmein letmeinnow administrator admin changeme changeit secret supersecret football baseball dragon
		monkey sunshine princess superman starwars whatever trustno1 abc123 abcdef abcdefgh abcdefghij abcdefghijk 1q2w3e4r5t 1qaz2wsx3edc zaq12wsx
		ecodrix whatsapp dashboard business company login default temp temporary test testing tester owner agent viewer`) {
		common[w] = true
	}
}

// weak tells why a password is not good enough; "" if it is. own are words that everybody knows of its user.
func weak(password secret.Text, own ...string) string {
	p := strings.ToLower(string(plain(password)))
	switch {
	case utf8.RuneCountInString(p) < MinPassword:
		return fmt.Sprintf("Expected at least %d characters.", MinPassword)
	case len(p) > MaxPassword:
		return fmt.Sprintf("Expected at most %d bytes.", MaxPassword)
	case strings.ContainsFunc(p, unicode.IsControl):
		return "Expected no control characters."
	case few(p) || runs(p):
		return "Expected a password that is harder to guess: it repeats few characters, or counts."
	}
	stem := strings.TrimFunc(p, func(r rune) bool { return !unicode.IsLetter(r) })
	if common[p] || common[stem] || stem == "" && len(p) < 14 {
		return "Expected a password that is harder to guess: this one is among the most common."
	}
	for _, w := range own {
		w = strings.ToLower(strings.TrimSpace(w))
		local, _, _ := strings.Cut(w, "@")
		if w != "" && (p == w || stem == w || stem == local || p == local) {
			return "Expected a password that is not the user's or the client's own name."
		}
	}
	return ""
}

// few tells whether a text has fewer than five different characters.
func few(s string) bool {
	seen := map[rune]bool{}
	for _, r := range s {
		seen[r] = true
	}
	return len(seen) < 5
}

// runs tells whether most steps from one character to the next are the same small one, as in 12345678 or abcdefgh.
func runs(s string) bool {
	rs := []rune(s)
	steps := map[rune]int{}
	for i := 1; i < len(rs); i++ {
		if d := rs[i] - rs[i-1]; d >= -1 && d <= 1 {
			steps[d]++
		}
	}
	for _, n := range steps {
		if n*4 >= (len(rs)-1)*3 {
			return true
		}
	}
	return false
}
