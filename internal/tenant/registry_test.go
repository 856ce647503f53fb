package tenant_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/tenant"
)

func TestCreate(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	a, key, err := w.Create(ctx, tenant.NewClient{Code: "acme", Name: "Acme", TimeZone: "Asia/Kolkata"})
	if err != nil {
		t.Fatal(err)
	}
	if a.Code != "ACME" || a.Status != tenant.Active || len(a.APIKeys) != 1 {
		t.Errorf("made %+v", a)
	}
	w.key("ACME", key, "")
	w.key("aCmE", key, "")
	if zone := w.account("acme").Zone().String(); zone != "Asia/Kolkata" {
		t.Errorf("zone %s", zone)
	}

	_, _, err = w.Create(ctx, tenant.NewClient{Code: "Acme", Name: "Another"})
	w.fails(err, "client.exists")
	w.key("ACME", key, "") // untouched by the second
	for _, code := range []string{"", "A", "-A", "A B", "../X", "Ä1", "A\x00B", strings.Repeat("A", 41)} {
		_, _, err := w.Create(ctx, tenant.NewClient{Code: code})
		w.fails(err, "invalid")
	}
	for _, zone := range []string{"Mars/Olympus", "Local", "../../etc/passwd"} {
		_, _, err := w.Create(ctx, tenant.NewClient{Code: "ZONE", TimeZone: zone})
		w.fails(err, "invalid")
	}
	if n, _ := w.Len(); n != 1 {
		t.Errorf("%d registered", n)
	}
	if _, err := w.Account(ctx, "ghost"); err == nil {
		t.Error("an account of nobody")
	}

	w.create("B-1")
	w.create("C_2")
	var codes []string
	for after := ""; ; {
		page, err := w.List(ctx, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			codes = append(codes, a.Code)
			after = a.Code
		}
		if len(page) < 2 {
			break
		}
	}
	if want := []string{"ACME", "B-1", "C_2"}; !slices.Equal(codes, want) {
		t.Errorf("listed %v", codes)
	}
}

func TestKeys(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	first := w.create("ACME")
	other := w.create("OTHER")

	for _, c := range []struct{ code, key string }{
		{"ACME", ""}, {"ACME", first + "x"}, {"ACME", first[:len(first)-1]}, {"ACME", other}, {"OTHER", first}, {"NOBODY", first},
		{"", first}, {"", ""}, {strings.Repeat("A", 10_000), first},
	} {
		w.key(c.code, c.key, "auth.invalid")
	}

	second, until, err := w.NewKey(ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	if want := w.clock.Now().Add(24 * time.Hour); !until.Equal(want) {
		t.Errorf("the first is valid until %v, want %v", until, want)
	}
	w.key("ACME", first, "")
	w.key("ACME", second, "")
	w.clock.move(24*time.Hour - time.Nanosecond)
	w.key("ACME", first, "")
	w.clock.move(time.Nanosecond)
	w.key("ACME", first, "auth.invalid")
	w.key("ACME", second, "")

	third, _, err := w.NewKey(ctx, "ACME")
	if err != nil {
		t.Fatal(err)
	}
	fourth, _, err := w.NewKey(ctx, "ACME")
	if err != nil {
		t.Fatal(err)
	}
	w.key("ACME", second, "auth.invalid") // still within its overlap, but two at a time
	w.key("ACME", third, "")
	w.key("ACME", fourth, "")
	if n := len(w.account("ACME").APIKeys); n != 2 {
		t.Errorf("%d keys kept", n)
	}

	// A start later, the same keys are valid.
	n := w.neighbour()
	n.key("ACME", third, "")
	n.key("ACME", fourth, "")
	n.key("ACME", first, "auth.invalid")

	if _, _, err := w.NewKey(ctx, "GHOST"); err == nil {
		t.Error("a key for nobody")
	}
}

// A key that a hand gave an end is replaced like one without: it does not end at once.
func TestRotateKeyWithAnEnd(t *testing.T) {
	for _, c := range []struct {
		name       string
		ends, want time.Duration // from now; want 0: no key before
	}{
		{"far", 1000 * time.Hour, 24 * time.Hour},
		{"soon", time.Hour, time.Hour},
		{"past", -time.Hour, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTown(t)
			key := w.create("ACME")
			now := w.clock.Now()
			until := now.Add(c.ends)
			if _, err := w.Change(t.Context(), "ACME", func(a *tenant.Account) error { a.APIKeys[0].ValidUntil = &until; return nil }); err != nil {
				t.Fatal(err)
			}
			next, previous, err := w.NewKey(t.Context(), "ACME")
			if err != nil {
				t.Fatal(err)
			}
			w.key("ACME", next, "")
			if c.want == 0 {
				w.key("ACME", key, "auth.invalid")
				if !previous.IsZero() {
					t.Errorf("previous until %v", previous)
				}
				return
			}
			if got := previous.Sub(now); got != c.want {
				t.Errorf("previous for %v, want %v", got, c.want)
			}
			w.key("ACME", key, "")
			w.clock.move(c.want)
			w.key("ACME", key, "auth.invalid")
		})
	}
}

func TestSuspended(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	key := w.create("ACME")
	if _, err := w.SetStatus(ctx, "acme", tenant.Suspended); err != nil {
		t.Fatal(err)
	}
	w.key("ACME", key, "client.suspended")
	w.key("ACME", key+"x", "auth.invalid") // who has no key does not learn that there is such a client
	if s := w.Status("ACME"); s != tenant.Suspended {
		t.Errorf("status %s", s)
	}
	_, release := w.use("ACME") // webhooks are still taken in
	release()
	if _, err := w.SetStatus(ctx, "ACME", tenant.Active); err != nil {
		t.Fatal(err)
	}
	w.key("ACME", key, "")
	if got, want := w.told(), []string{"ACME:suspended", "ACME:active"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if err := w.BeginErase(ctx, "ACME"); err != nil {
		t.Fatal(err)
	}
	_, err := w.SetStatus(ctx, "ACME", tenant.Active)
	w.fails(err, "client.erasing")
	w.key("ACME", key, "client.suspended")
}

func TestRouting(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	w.create("ACME")
	w.create("BETA")
	set := func(code, waba string, phones ...string) error {
		_, err := w.SetWhatsApp(ctx, code, tenant.WhatsAppSecrets{WABAID: waba, PhoneNumberIDs: phones, AccessToken: "tok-" + secret.Text(code)})
		return err
	}
	if err := set("ACME", "W1", "102", "101", "102"); err != nil {
		t.Fatal(err)
	}
	if p := w.account("ACME").WhatsApp.PhoneNumberIDs; !slices.Equal(p, []string{"102", "101"}) {
		t.Errorf("numbers %v: the order given is kept, once each", p)
	}
	w.fails(set("BETA", "W1", "103", "101"), "whatsapp.number_taken")
	if a := w.account("BETA"); a.WhatsApp != nil {
		t.Error("a refused account was stored")
	}
	w.phone("101", "ACME")
	w.phone("103", "")
	if err := set("BETA", "W1", "103"); err != nil { // a WABA may be shared
		t.Fatal(err)
	}
	w.waba("W1", "ACME", "BETA")
	w.waba("W2")

	if err := set("ACME", "W2", "102"); err != nil { // gives up 101 and W1
		t.Fatal(err)
	}
	w.phone("101", "")
	w.waba("W1", "BETA")
	w.waba("W2", "ACME")
	if err := set("BETA", "W1", "101", "103"); err != nil {
		t.Fatal(err)
	}
	w.phone("101", "BETA")

	tn, release := w.use("BETA")
	defer release()
	if tok, err := tn.Secret("whatsapp.accessToken"); err != nil || tok.Reveal() != "tok-BETA" {
		t.Errorf("token %v", err)
	}
	if tok, err := tn.Secret("whatsapp.appSecret"); err != nil || tok != "" {
		t.Errorf("an app secret that is not set: %v", err)
	}
	if err := set("BETA", "W1", "101"); err != nil {
		t.Fatal(err)
	}
	if p := tn.Account().WhatsApp.PhoneNumberIDs; len(p) != 1 {
		t.Errorf("a tenant at work sees its account as of now: %v", p)
	}
	for _, c := range []string{"ghost", "", "!"} {
		if v, err := w.VerifyToken(ctx, c); v != "" || err != nil {
			t.Errorf("verify token of %q: %v", c, err)
		}
	}
}

func (w *town) phone(number, want string) {
	w.t.Helper()
	if got, ok := w.ByPhone(number); got != want || ok != (want != "") {
		w.t.Errorf("phone %s is %q's, want %q", number, got, want)
	}
}

func (w *town) waba(id string, want ...string) {
	w.t.Helper()
	got := w.ByWABA(id)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Errorf("WABA %s is of %v, want %v", id, got, want)
	}
}

func TestOrigins(t *testing.T) {
	w := newTown(t)
	w.create("ACME")
	w.create("BETA")
	set := func(code string, origins ...string) {
		if _, err := w.Change(t.Context(), code, func(a *tenant.Account) error { a.AllowedOrigins = origins; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	set("ACME", "https://a.example", "https://both.example")
	set("BETA", "https://both.example")
	set("ACME", "https://a.example")
	for _, c := range []struct {
		origin             string
		acme, beta, anyone bool
	}{
		{"https://a.example", true, false, true},
		{"https://both.example", false, true, true},
		{"https://A.example", false, false, false},
		{"null", false, false, false},
		{"", false, false, false},
	} {
		if got := [3]bool{w.AllowsOrigin("ACME", c.origin), w.AllowsOrigin("BETA", c.origin), w.AnyAllowsOrigin(c.origin)}; got != [3]bool{c.acme, c.beta, c.anyone} {
			t.Errorf("%q: %v", c.origin, got)
		}
	}
	set("BETA")
	if w.AnyAllowsOrigin("https://both.example") {
		t.Error("nobody allows it any more")
	}
}

// Sealed members are ciphertext in the document, and neither they nor what they hide is anywhere else.
func TestSecretsStayHidden(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	plain := []string{"mongodb://u:hush-database@h/", "hush-token", "hush-app-secret", "hush-verify"}
	in := tenant.NewClient{Code: "ACME", Name: "Acme", DatabaseURL: secret.Text(plain[0])}
	_, key, err := w.Create(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	wa := tenant.WhatsAppSecrets{WABAID: "1", PhoneNumberIDs: []string{"2"}, AccessToken: secret.Text(plain[1]), AppSecret: secret.Text(plain[2]), VerifyToken: secret.Text(plain[3])}
	if _, err = w.SetWhatsApp(ctx, "ACME", wa); err != nil {
		t.Fatal(err)
	}
	tn, release := w.use("ACME")
	defer release()
	account := tn.Account()

	for i, field := range []string{"databaseUrl", "whatsapp.accessToken", "whatsapp.appSecret", "whatsapp.verifyToken"} {
		if v, err := tn.Secret(field); err != nil || v.Reveal() != plain[i] {
			t.Errorf("%s does not open: %v", field, err)
		}
	}
	if v, err := w.AppSecret(ctx, "acme"); err != nil || v.Reveal() != plain[2] {
		t.Errorf("app secret: %v", err)
	}
	if v, err := w.VerifyToken(ctx, "ACME"); err != nil || v.Reveal() != plain[3] {
		t.Errorf("verify token: %v", err)
	}

	// With the operator's key gone, the error names client, field and mend.
	n := newTown(t, func(n *town) { n.dir = w.dir })
	lost, release2 := n.use("ACME")
	defer release2()
	_, unreadable := lost.Secret("whatsapp.accessToken")
	n.fails(unreadable, "secret.unreadable")
	if s := fmt.Sprint(unreadable); !strings.Contains(s, "ACME") || !strings.Contains(s, "whatsapp.accessToken") {
		t.Errorf("an error that does not name client and field: %s", s)
	}

	sealed := []string{account.DatabaseURL, account.WhatsApp.AccessToken, account.WhatsApp.AppSecret, account.WhatsApp.VerifyToken}
	doc, _ := json.Marshal(account)
	for i := range sealed {
		if !strings.Contains(string(doc), sealed[i]) || !strings.HasPrefix(sealed[i], "sealed:v1:k1:") {
			t.Errorf("field %d is not in the document as ciphertext", i)
		}
	}
	for name, v := range map[string]any{
		"document": account, "raw document": string(doc), "NewClient": in, "WhatsAppSecrets": wa, "Secrets()": account.Secrets(),
		"Tenant": tn, "Registry": w.Registry, "error": unreadable, "log": w.log.String() + n.log.String(),
	} {
		b, _ := json.Marshal(v)
		text := fmt.Sprintf("%v %+v %#v %s", v, v, v, b)
		for i, p := range plain {
			if strings.Contains(text, p) {
				t.Errorf("%s shows secret %d in the clear", name, i)
			}
			if !strings.HasSuffix(name, "document") && strings.Contains(text, sealed[i]) {
				t.Errorf("%s shows ciphertext %d", name, i)
			}
		}
		if strings.Contains(text, key) {
			t.Errorf("%s shows the API key", name)
		}
	}
	infos := account.Secrets()
	if len(infos) != 2 || infos[1].Name != "whatsapp" || len(infos[1].Fields) != 3 || infos[1].KeyID != "k1" || infos[1].UpdatedAt.IsZero() {
		t.Errorf("infos %+v", infos)
	}
}

// A ciphertext moved to another client or another field does not open.
func TestSecretsAreBound(t *testing.T) {
	w := newTown(t)
	ctx := t.Context()
	for _, c := range []string{"ACME", "BETA"} {
		w.create(c)
		if _, err := w.SetWhatsApp(ctx, c, tenant.WhatsAppSecrets{WABAID: "1", AccessToken: "tok", AppSecret: "app"}); err != nil {
			t.Fatal(err)
		}
	}
	stolen := w.account("ACME").WhatsApp.AccessToken
	if _, err := w.Change(ctx, "BETA", func(a *tenant.Account) error { a.WhatsApp.AccessToken = stolen; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Change(ctx, "ACME", func(a *tenant.Account) error { a.WhatsApp.AppSecret = stolen; return nil }); err != nil {
		t.Fatal(err)
	}
	beta, release := w.use("BETA")
	defer release()
	_, err := beta.Secret("whatsapp.accessToken")
	w.fails(err, "secret.unreadable")
	_, err = w.AppSecret(ctx, "ACME")
	w.fails(err, "secret.unreadable")
	if v, err := beta.Secret("whatsapp.appSecret"); err != nil || v.Reveal() != "app" {
		t.Errorf("the untouched one: %v", err)
	}
	sealed, err := beta.Seal("x", "value")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := beta.Open("x", sealed); err != nil || v.Reveal() != "value" {
		t.Errorf("Seal and Open: %v", err)
	}
}

// Edits of one client at the same time: none is lost.
func TestChangeConcurrently(t *testing.T) {
	w := newTown(t)
	w.create("ACME")
	done := make(chan error, 4)
	for i := range cap(done) {
		go func() {
			_, err := w.Change(t.Context(), "ACME", func(a *tenant.Account) error {
				a.AllowedOrigins = append(a.AllowedOrigins, fmt.Sprintf("https://%d.example", i))
				return nil
			})
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := len(w.account("ACME").AllowedOrigins); n != cap(done) {
		t.Errorf("%d of %d edits kept", n, cap(done))
	}
	for i := range cap(done) {
		if !w.AllowsOrigin("ACME", fmt.Sprintf("https://%d.example", i)) {
			t.Errorf("edit %d is not in memory", i)
		}
	}
	if got := w.account("ACME").Version; got != w.Version("ACME") {
		t.Errorf("version %d in memory, %d stored", w.Version("ACME"), got)
	}
}
