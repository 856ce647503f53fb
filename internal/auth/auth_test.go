package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

// lodge is a porter on real files with a clock of its own; ACME and BETA are its clients.
type lodge struct {
	*testing.T
	porter  *Porter
	tenants *tenant.Registry
	keys    map[string]string
	began   time.Time
	ahead   atomic.Int64 // of the clock
}

const good = "tides of march 7"

func newLodge(t *testing.T) *lodge {
	t.Helper()
	l := &lodge{T: t, keys: map[string]string{}, began: time.Now()}
	dir, ctx := t.TempDir(), t.Context()
	services, err := sqlite.Open(ctx, filepath.Join(dir, "services.db"), []store.Schema{tenant.Accounts.Schema, Failures.Schema})
	l.must(err)
	ring, err := secret.ParseRing(secret.Generate("k"))
	l.must(err)
	log := slog.New(slog.DiscardHandler)
	l.tenants = tenant.NewRegistry(tenant.Config{
		Services: services, Ring: ring, Now: l.now, Log: log,
		OpenDB: func(ctx context.Context, a *tenant.Account) (store.DB, error) {
			return sqlite.Open(ctx, filepath.Join(dir, a.Code+".db"), Schemas)
		},
		DropDB: func(context.Context, *tenant.Account) error { return nil },
	})
	for _, code := range []string{"ACME", "BE_TA-2"} {
		_, key, err := l.tenants.Create(ctx, tenant.NewClient{Code: code})
		l.must(err)
		l.keys[code] = key
	}
	l.porter = NewPorter(Config{Tenants: l.tenants, Services: services, Ring: ring, Now: l.now, Log: log})
	t.Cleanup(func() {
		l.must(l.tenants.Close(context.Background()))
		l.must(services.Close())
	})
	return l
}

// now follows the monotonic clock: what is stored of it has no other, and the machine's wall clock may be set meanwhile.
func (l *lodge) now() time.Time {
	return l.began.Add(time.Since(l.began) + time.Duration(l.ahead.Load()))
}

func (l *lodge) wait(d time.Duration) { l.ahead.Add(int64(d)) }

func (l *lodge) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lodge) use(code string) *tenant.Tenant {
	l.Helper()
	tn, release, err := l.tenants.Use(context.Background(), code)
	l.must(err)
	l.Cleanup(release)
	return tn
}

func (l *lodge) user(code, email, role string) *User {
	l.Helper()
	u, err := l.porter.AddUser(l.Context(), l.use(code), NewUser{Email: email, Name: "Somebody", Role: role, Password: good}, "")
	l.must(err)
	return u
}

func (l *lodge) login(code, email string) (string, Stay) {
	l.Helper()
	token, stay, err := l.porter.Login(l.Context(), code, email, good)
	l.must(err)
	return token.Reveal(), stay
}

// refused asserts a fault of a kind.
func (l *lodge) refused(what string, err error, kind fault.Kind, code string) *fault.Error {
	l.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != kind || f.Code != code {
		l.Fatalf("%s: %v, want %s", what, err, code)
	}
	return f
}

func TestWeakPasswords(t *testing.T) {
	for _, p := range []string{"", "short", "123456789", "1234567890", "0987654321", "abcdefghijkl", "aaaaaaaaaaaa", "ababababab12"[:10], "password123!", "Password2026",
		"PASSWORD!!!!", "qwertyuiop", "dana@example.com", "Dana123456", "acme-dental1", "tab\tin the middle", strings.Repeat("long", 100), "日本語日本語"} {
		if weak(secret.Text(p), "dana@example.com", "Dana", "ACME-DENTAL") == "" {
			t.Errorf("%q is taken", p)
		}
	}
	for _, p := range []string{good, "correct horse", "Zx9!kd02Lq", "пароль о море", "dana likes boats", "日本語のパスワードです"} {
		if why := weak(secret.Text(p), "dana@example.com", "Dana", "ACME"); why != "" {
			t.Errorf("%q is refused: %s", p, why)
		}
	}
}

func TestHashes(t *testing.T) {
	h := newHasher()
	ctx := t.Context()
	one, err := h.hash(ctx, "Café au lait")
	if err != nil || !strings.HasPrefix(one, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatal(one, err)
	}
	two, _ := h.hash(ctx, "Café au lait")
	if one == two {
		t.Error("two hashes of a password are the same")
	}
	for p, want := range map[secret.Text]bool{"Café au lait": true, "Cafe\u0301 au lait": true, "café au lait": false, "": false} {
		if got, err := h.check(ctx, p, one); got != want || err != nil {
			t.Errorf("%q: %v %v", p.Reveal(), got, err)
		}
	}
	if ok, err := h.check(ctx, "", nobody); ok || err != nil {
		t.Error("nobody has a password", err)
	}
	for _, bad := range []string{"", "plain", "$argon2id$v=19$m=99999999,t=2,p=1$bm9ib2R5$AAAAAAAAAAAAAAAAAAAAAAAA", "$2b$10$xyz", "$argon2id$v=19$m=x$a$b"} {
		if ok, err := h.check(ctx, "x", bad); ok || err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// A flood of logins waits in a bounded line, and takes little memory at a time.
func TestHashesAreFewAtATime(t *testing.T) {
	h := newHasher()
	for range cap(h.running) {
		h.running <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range cap(h.waiting) {
		wg.Go(func() { _, _ = h.enter(ctx) })
	}
	for len(h.waiting) < cap(h.waiting) {
		time.Sleep(time.Millisecond)
	}
	_, err := h.enter(ctx)
	if fault.Of(err) != fault.Limited {
		t.Errorf("one more waits: %v", err)
	}
	cancel()
	wg.Wait()
}

func TestLocks(t *testing.T) {
	want := map[int]time.Duration{1: 0, 4: 0, 5: 30 * time.Second, 6: time.Minute, 7: 2 * time.Minute, 9: 8 * time.Minute, 10: 15 * time.Minute, 1000: 15 * time.Minute}
	for n, d := range want {
		if got := lockFor(n); got != d {
			t.Errorf("after %d: %v, want %v", n, got, d)
		}
	}
}

// Wrong logins of an account that exists and of those that do not are told apart by nothing.
func TestLockout(t *testing.T) {
	t.Parallel()
	l := newLodge(t)
	l.user("ACME", "dana@example.com", "agent")
	accounts := [][2]string{{"acme", " Dana@example.com "}, {"ACME", "nobody@example.com"}, {"GHOST", "dana@example.com"}, {"no code", ""}}
	for _, a := range accounts {
		for i := range lockAfter {
			begun := time.Now()
			_, _, err := l.porter.Login(t.Context(), a[0], a[1], "wrong password")
			l.refused(fmt.Sprint(a, i), err, fault.Unauthenticated, "session.refused")
			if took := time.Since(begun); took < refuseIn {
				t.Errorf("%v is refused in %v", a, took)
			}
		}
		_, _, err := l.porter.Login(t.Context(), a[0], a[1], good)
		if f := l.refused(fmt.Sprint(a), err, fault.Limited, "session.locked"); f.RetryAfter <= 0 || f.RetryAfter > firstLock {
			t.Errorf("%v: wait %v", a, f.RetryAfter)
		}
	}
	l.user("ACME", "other@example.com", "agent")
	l.login("ACME", "other@example.com")
	l.wait(firstLock)
	_, _, err := l.porter.Login(t.Context(), "ACME", "dana@example.com", "wrong password")
	l.refused("the sixth", err, fault.Unauthenticated, "session.refused")
	_, _, err = l.porter.Login(t.Context(), "ACME", "dana@example.com", good)
	if f := l.refused("the sixth locks for longer", err, fault.Limited, "session.locked"); f.RetryAfter <= firstLock {
		t.Errorf("wait %v", f.RetryAfter)
	}
	l.wait(2 * firstLock)
	l.login("ACME", "dana@example.com")
	for range lockAfter - 1 { // a login that succeeds begins the count anew
		_, _, _ = l.porter.Login(t.Context(), "ACME", "dana@example.com", "wrong password")
	}
	l.login("ACME", "dana@example.com")

	if n, err := PruneFailures(t.Context(), l.porter.cfg.Services, l.now(), 100); n != 0 || err != nil {
		t.Errorf("%d pruned: %v", n, err)
	}
	if n, err := PruneFailures(t.Context(), l.porter.cfg.Services, l.now().Add(forgetAfter+time.Minute), 100); n != len(accounts)-1 || err != nil {
		t.Errorf("%d pruned: %v", n, err)
	}
}

// However many guesses come at once, no more are looked at than may fail; and right logins at once are no failures.
func TestLockoutAtOnce(t *testing.T) {
	t.Parallel()
	l := newLodge(t)
	l.user("ACME", "dana@example.com", "agent")
	var in, out, locked atomic.Int64
	var wg sync.WaitGroup
	try := func(p secret.Text) {
		_, _, err := l.porter.Login(t.Context(), "ACME", "dana@example.com", p)
		switch fault.Of(err) {
		case fault.Unauthenticated:
			out.Add(1)
		case fault.Limited:
			locked.Add(1)
		default:
			if err == nil {
				in.Add(1)
			}
		}
	}
	for range 12 {
		wg.Go(func() { try(good) })
	}
	wg.Wait()
	if in.Load() != 12 {
		t.Fatalf("%d of 12 right logins at once", in.Load())
	}
	for range 20 {
		wg.Go(func() { try("wrong password") })
	}
	wg.Wait()
	if out.Load() != lockAfter || locked.Load() != 20-lockAfter {
		t.Errorf("%d looked at, %d locked", out.Load(), locked.Load())
	}
	if len(l.porter.logins.open) != 0 {
		t.Error("lines that nobody stands in are kept")
	}
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	l := newLodge(t)
	ctx := t.Context()
	u := l.user("ACME", "dana@example.com", "agent")
	tn := l.use("ACME")
	over := func(what, token string) {
		t.Helper()
		l.wait(believed)
		_, err := l.porter.Session(ctx, token)
		l.refused(what, err, fault.Unauthenticated, "auth.invalid")
	}
	stands := func(what, token string) Stay {
		t.Helper()
		l.wait(believed)
		s, err := l.porter.Session(ctx, token)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return s
	}
	token, _ := l.login("acme", "DANA@example.com")
	if s := stands("new", token); s.Client != "ACME" || s.User.ID != u.ID {
		t.Errorf("%+v", s)
	}
	for _, bad := range []string{"", "x", token + "x", token[:len(token)-1], strings.Replace(token, "ACME", "BE_TA-2", 1), strings.Replace(token, "ACME", "acme", 1),
		strings.Replace(token, "ACME", "GHOST", 1), "ecs_ACME." + base64.RawURLEncoding.EncodeToString(make([]byte, 32)), "ecs_.", "ecs_ACME.", strings.Repeat("a", 5000)} {
		over(bad, bad)
	}
	t.Run("unused", func(t *testing.T) {
		token, _ := l.login("ACME", "dana@example.com")
		for range 3 {
			l.wait(idleFor - time.Minute)
			stands("used", token)
		}
		l.wait(idleFor + time.Minute)
		over("unused", token)
	})
	t.Run("old", func(t *testing.T) {
		token, _ := l.login("ACME", "dana@example.com")
		for range 59 {
			l.wait(idleFor - time.Minute)
			stands("used", token)
		}
		l.wait(idleFor)
		over("older than it may get", token)
	})
	change := func(c Change) {
		t.Helper()
		if _, err := l.porter.ChangeUser(ctx, tn, u.ID, c); err != nil {
			t.Fatal(err)
		}
	}
	yes, no, role, pass := true, false, "viewer", secret.Text("harbour lights 9")
	token, _ = l.login("ACME", "dana@example.com")
	change(Change{Role: &role})
	if s, err := l.porter.Session(ctx, token); err != nil || s.User.Role != role { // at once
		t.Errorf("a new role: %v", err)
	}
	change(Change{Disabled: &yes})
	over("disabled", token)
	_, _, err := l.porter.Login(ctx, "ACME", "dana@example.com", good)
	l.refused("disabled", err, fault.Unauthenticated, "session.refused")
	change(Change{Disabled: &no})
	over("enabled again", token)
	token, _ = l.login("ACME", "dana@example.com")
	change(Change{Password: &pass})
	over("password changed", token)
	old := secret.Text(good)
	change(Change{Password: &old})

	token, stay := l.login("ACME", "dana@example.com")
	other, _ := l.login("ACME", "dana@example.com")
	l.refused("wrong", l.porter.SetPassword(ctx, tn, stay, "wrong password", pass), fault.Invalid, "invalid")
	l.refused("weak", l.porter.SetPassword(ctx, tn, stay, good, "1234567890"), fault.Invalid, "invalid")
	l.must(l.porter.SetPassword(ctx, tn, stay, good, pass))
	stands("own password changed", token)
	over("the other session", other)
	l.must(l.porter.Logout(ctx, tn, stay.Session.ID))
	if _, err := l.porter.Session(ctx, token); err == nil { // at once
		t.Error("logged out, and still in")
	}
	change(Change{Password: &old})

	token, _ = l.login("ACME", "dana@example.com")
	ticket, _, err := l.porter.SocketToken(tn, tenant.KeyID(l.keys["ACME"]))
	l.must(err)
	_, err = l.tenants.SetStatus(ctx, "ACME", tenant.Suspended)
	l.must(err)
	_, err = l.porter.Session(ctx, token)
	l.refused("suspended", err, fault.Forbidden, "client.suspended")
	_, err = l.porter.Admit(ctx, Credentials{Token: ticket})
	l.refused("suspended", err, fault.Forbidden, "client.suspended")
	_, _, err = l.porter.Login(ctx, "ACME", "dana@example.com", good)
	l.refused("suspended", err, fault.Forbidden, "client.suspended")
	_, _, err = l.porter.Login(ctx, "ACME", "dana@example.com", "wrong password")
	l.refused("suspended, and wrong", err, fault.Unauthenticated, "session.refused")
	_, err = l.tenants.SetStatus(ctx, "ACME", tenant.Active)
	l.must(err)
	over("resumed", token)
	_, err = l.porter.Admit(ctx, Credentials{Token: ticket})
	l.refused("resumed", err, fault.Unauthenticated, "auth.invalid")

	token, _ = l.login("ACME", "dana@example.com")
	l.must(l.porter.RemoveUser(ctx, tn, u.ID))
	over("deleted", token)
	if n, err := tn.DB.Count(ctx, store.Query{Kind: "sessions", Where: []store.Term{store.Where("userId", store.Eq, u.ID)}}); n != 0 || err != nil {
		t.Errorf("%d sessions of nobody: %v", n, err)
	}
}

func TestSessionsOfOneUserAreBounded(t *testing.T) {
	t.Parallel()
	l := newLodge(t)
	u := l.user("ACME", "dana@example.com", "agent")
	tn := l.use("ACME")
	var first string
	for i := range maxSessions + 3 {
		token, _, err := l.porter.open(t.Context(), tn, u)
		l.must(err)
		if i == 0 {
			first = token.Reveal()
		}
		l.wait(time.Second)
	}
	if n, _ := tn.DB.Count(t.Context(), store.Query{Kind: "sessions"}); n != maxSessions {
		t.Errorf("%d sessions", n)
	}
	_, err := l.porter.Session(t.Context(), first)
	l.refused("the oldest", err, fault.Unauthenticated, "auth.invalid")
}

func TestSocketTokens(t *testing.T) {
	t.Parallel()
	l := newLodge(t)
	ctx := t.Context()
	l.user("ACME", "dana@example.com", "viewer")
	acme, beta := l.use("ACME"), l.use("BE_TA-2")
	admit := func(c Credentials) (Pass, error) { return l.porter.Admit(ctx, c) }
	byKey, expires, err := l.porter.SocketToken(acme, tenant.KeyID(l.keys["ACME"]))
	l.must(err)
	if d := expires.Sub(l.now()); d > SocketTokenFor || d < SocketTokenFor-time.Minute {
		t.Errorf("valid for %v", d)
	}
	if p, err := admit(Credentials{Token: byKey}); err != nil || p.Client != "ACME" || p.UserID != "" {
		t.Errorf("%+v %v", p, err)
	}
	if _, err := admit(Credentials{Token: byKey, ClientCode: "acme"}); err != nil {
		t.Error(err)
	}
	session, stay := l.login("ACME", "dana@example.com")
	bySession, _, err := l.porter.SocketToken(acme, stay.Session.ID)
	l.must(err)
	for _, token := range []string{session, bySession} {
		if p, err := admit(Credentials{Token: token}); err != nil || p.Client != "ACME" || p.UserID != stay.User.ID || p.Name != "Somebody" {
			t.Errorf("%+v %v", p, err)
		}
	}
	_, err = l.porter.Session(ctx, byKey)
	l.refused("a socket token is no session", err, fault.Unauthenticated, "auth.invalid")
	foreign, _, err := l.porter.SocketToken(beta, stay.Session.ID) // another client's session
	l.must(err)
	code, rest, _ := strings.Cut(byKey, ".")
	for what, token := range map[string]string{
		"another client's": "ert_BE_TA-2." + rest, "no client's": "ert_GHOST." + rest, "cut": byKey[:len(byKey)-3], "code only": code + ".", "nonsense": "ert_ACME.!!",
		"a session of elsewhere": foreign, "a key": l.keys["ACME"], "half": rest,
	} {
		_, err := admit(Credentials{Token: token})
		l.refused(what, err, fault.Unauthenticated, "auth.invalid")
	}
	_, err = admit(Credentials{Token: byKey, ClientCode: "BE_TA-2"})
	l.refused("for another client", err, fault.Unauthenticated, "auth.invalid")
	_, err = admit(Credentials{ClientCode: "ACME", APIKey: byKey})
	l.refused("as a key", err, fault.Unauthenticated, "auth.invalid")

	proofs := []string{tenant.KeyID(l.keys["ACME"]), tenant.KeyID("other"), stay.Session.ID, "ses_none"}
	ended := func() string {
		e, err := l.porter.Ended(ctx, "ACME", proofs)
		l.must(err)
		return strings.Join(e, " ")
	}
	if got := ended(); got != proofs[1]+" "+proofs[3] {
		t.Errorf("ended: %s", got)
	}
	l.must(l.porter.Logout(ctx, acme, stay.Session.ID))
	_, err = admit(Credentials{Token: bySession})
	l.refused("its session is over", err, fault.Unauthenticated, "auth.invalid")
	if got := ended(); got != proofs[1]+" "+proofs[2]+" "+proofs[3] {
		t.Errorf("ended: %s", got)
	}
	l.wait(SocketTokenFor)
	_, err = admit(Credentials{Token: byKey})
	l.refused("too late", err, fault.Unauthenticated, "auth.invalid")
	byKey, _, err = l.porter.SocketToken(acme, tenant.KeyID(l.keys["ACME"]))
	l.must(err)
	_, _, err = l.tenants.NewKey(ctx, "ACME")
	l.must(err)
	l.wait(25 * time.Hour)
	byKey2, _, err := l.porter.SocketToken(acme, tenant.KeyID(l.keys["ACME"]))
	l.must(err)
	for _, token := range []string{byKey, byKey2} {
		_, err = admit(Credentials{Token: token})
		l.refused("its key was replaced", err, fault.Unauthenticated, "auth.invalid")
	}
	if got := ended(); !strings.Contains(got, proofs[0]) {
		t.Errorf("ended: %s", got)
	}
}

func TestUsersAreChecked(t *testing.T) {
	t.Parallel()
	l := newLodge(t)
	ctx, tn := t.Context(), l.use("ACME")
	ok := NewUser{Email: " Dana@Example.com ", Name: " Dana ", Role: "owner", Password: good}
	u, err := l.porter.AddUser(ctx, tn, ok, "request-1")
	l.must(err)
	if u.Email != "dana@example.com" || u.Name != "Dana" || strings.Contains(u.PasswordHash, good) {
		t.Errorf("%+v", u)
	}
	again, err := l.porter.AddUser(ctx, tn, ok, "request-1")
	if err != nil || again.ID != u.ID {
		t.Errorf("the same request again: %v", err)
	}
	_, err = l.porter.AddUser(ctx, tn, ok, "request-2")
	l.refused("taken", err, fault.Conflict, "user.exists")
	if _, err := l.porter.AddUser(ctx, l.use("BE_TA-2"), ok, ""); err != nil {
		t.Errorf("of another client: %v", err)
	}
	for at, edit := range map[string]func(*NewUser){
		"/email": func(n *NewUser) { n.Email = "nobody" }, "/name": func(n *NewUser) { n.Name = " " },
		"/role": func(n *NewUser) { n.Role = "king" }, "/password": func(n *NewUser) { n.Password = "dana@example.com" },
	} {
		n := ok
		edit(&n)
		_, err := l.porter.AddUser(ctx, tn, n, "")
		if f := l.refused(at, err, fault.Invalid, "invalid"); len(f.Fields) != 1 || f.Fields[0].Pointer != at || strings.Contains(f.Fields[0].Detail, "king") {
			t.Errorf("%s: %v", at, f.Fields)
		}
	}
	other := l.user("ACME", "ravi@example.com", "agent")
	_, err = l.porter.ChangeUser(ctx, tn, other.ID, Change{Email: &u.Email})
	l.refused("taken", err, fault.Conflict, "user.exists")
	_, err = l.porter.ChangeUser(ctx, tn, "usr_none", Change{})
	l.refused("none", err, fault.NotFound, "user.not_found")
	for _, bad := range []string{"", "x", "a b@c.de", "<dana@example.com>", "dana@", "Dana <dana@example.com>", strings.Repeat("a", 260) + "@b.de"} {
		if s, ok := Email(bad); ok {
			t.Errorf("%q is an address: %q", bad, s)
		}
	}
}
