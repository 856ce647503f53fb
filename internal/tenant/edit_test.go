package tenant_test

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

const (
	insertDoc = `INSERT INTO ClientSecrets (_id, doc) VALUES (?, ?)`
	setMember = `UPDATE ClientSecrets SET doc = json_set(doc, ?, json(?)) WHERE _id = ?`
	deleteDoc = `DELETE FROM ClientSecrets WHERE _id = ?`
)

func hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// stands gives the version at which a record stands, once nobody rewrites it any more.
func stands(t *testing.T, hand *sql.DB, code string, towns ...*town) int64 {
	t.Helper()
	version := func() (v int64) {
		if err := hand.QueryRowContext(t.Context(), `SELECT version FROM ClientSecrets WHERE _id = ?`, code).Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, w := range slices.Concat(towns, towns) {
		w.load()
	}
	v := version()
	for range 3 {
		for _, w := range towns {
			w.load()
		}
	}
	if now := version(); now != v {
		t.Errorf("%s is rewritten without end: version %d, then %d", code, v, now)
	}
	return v
}

// indexed gives the numbers that the database holds unique for a client.
func indexed(t *testing.T, hand *sql.DB, code string) (numbers []string) {
	t.Helper()
	rows, err := hand.QueryContext(t.Context(), `SELECT value FROM ClientSecrets_phoneNumberIds WHERE _id = ? ORDER BY value`, code)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return numbers
}

// An operator's edits in the table itself are taken up by two processes, and written back once.
func TestHandEdits(t *testing.T) {
	w := newTown(t)
	n := w.neighbour()
	hand := w.hand()
	both := []*town{w, n}

	token, err := w.ring.Seal("NEW", "whatsapp.accessToken", "hush")
	if err != nil {
		t.Fatal(err)
	}
	w.exec(hand, insertDoc, "NEW", fmt.Sprintf(`{"_id":"NEW","name":"By hand","timeZone":"Europe/Rome","allowedOrigins":["https://new.example"],
		"apiKeys":[{"sha256":%q},{"sha256":%q,"validUntil":"2026-05-06T08:08:09Z"},{"sha256":"no hash"}],
		"whatsapp":{"wabaId":"W1","phoneNumberIds":["101","102"],"accessToken":%q}}`, hash("key one"), hash("key two"), token))
	if v := stands(t, hand, "NEW", both...); v != 2 {
		t.Errorf("inserted by hand, it stands at version %d, want 2: written back once", v)
	}
	if p := indexed(t, hand, "NEW"); !slices.Equal(p, []string{"101", "102"}) {
		t.Errorf("indexed numbers %v", p)
	}
	for _, r := range both {
		r.key("new", "key one", "")
		r.key("NEW", "key two", "")
		r.key("NEW", "no hash", "auth.invalid")
		r.phone("101", "NEW")
		r.phone("102", "NEW")
		r.waba("W1", "NEW")
		if !r.AllowsOrigin("NEW", "https://new.example") || r.Status("NEW") != tenant.Active {
			t.Error("origin or status not taken up")
		}
		tn, release := r.use("NEW")
		if tok, err := tn.Secret("whatsapp.accessToken"); err != nil || tok.Reveal() != "hush" {
			t.Errorf("token: %v", err)
		}
		if z := tn.Account().Zone().String(); z != "Europe/Rome" {
			t.Errorf("zone %s", z)
		}
		release()
	}
	w.clock.move(time.Hour)
	w.key("NEW", "key two", "auth.invalid")
	n.key("NEW", "key one", "")
	w.told()

	w.exec(hand, setMember, "$.status", `"suspended"`, "NEW")
	if v := stands(t, hand, "NEW", both...); v != 4 {
		t.Errorf("suspended by hand, it stands at version %d, want 4", v)
	}
	for _, r := range both {
		r.key("NEW", "key one", "client.suspended")
	}
	if told := w.told(); len(told) == 0 || told[0] != "NEW:suspended" {
		t.Errorf("told %v", told)
	}
	if c, err := w.services.Count(t.Context(), store.Query{Kind: "ClientSecrets", Where: []store.Term{store.Where("status", store.Eq, "suspended")}}); c != 1 || err != nil {
		t.Errorf("%d suspended found by the index, %v", c, err)
	}

	w.exec(hand, setMember, "$.status", `"active"`, "NEW")
	w.exec(hand, setMember, "$.whatsapp.phoneNumberIds", `["102","103"]`, "NEW")
	stands(t, hand, "NEW", both...)
	for _, r := range both {
		r.key("NEW", "key one", "")
		r.phone("101", "")
		r.phone("102", "NEW")
		r.phone("103", "NEW")
	}
	if p := indexed(t, hand, "NEW"); !slices.Equal(p, []string{"102", "103"}) {
		t.Errorf("indexed numbers %v", p)
	}
	w.create("BETA")
	_, err = w.SetWhatsApp(t.Context(), "BETA", tenant.WhatsAppSecrets{PhoneNumberIDs: []string{"103"}, AccessToken: "x"})
	w.fails(err, "whatsapp.number_taken") // what a hand wrote is protected too

	w.told()
	_, release := w.use("NEW")
	w.exec(hand, deleteDoc, "NEW")
	for _, r := range both {
		r.load()
		r.key("NEW", "key one", "auth.invalid")
		r.phone("102", "")
		r.waba("W1")
		if s := r.Status("NEW"); s != "" || r.Version("NEW") != 0 || r.AnyAllowsOrigin("https://new.example") {
			t.Errorf("a deleted client is still known: status %q", s)
		}
		_, _, err := r.Use(t.Context(), "NEW")
		r.fails(err, "client.not_found")
	}
	if told := w.told(); !slices.Equal(told, []string{"NEW:"}) {
		t.Errorf("told %v of the deleted client", told)
	}
	release() // of a client that is gone: its database is closed now
	if _, open := w.Len(); open != 0 {
		t.Errorf("%d databases open", open)
	}

	w.exec(hand, insertDoc, "NEW", fmt.Sprintf(`{"apiKeys":[{"sha256":%q}]}`, hash("key three")))
	stands(t, hand, "NEW", both...)
	for _, r := range both {
		r.key("NEW", "key three", "")
		r.key("NEW", "key one", "auth.invalid")
		if a := r.account("NEW"); a.Code != "NEW" || a.Status != tenant.Active {
			t.Errorf("a document without _id and status: %+v", a)
		}
	}
}

// Our own writes are taken up by the other process, and by nobody written again.
func TestOwnWritesAreNotWrittenBack(t *testing.T) {
	w := newTown(t)
	n := w.neighbour()
	key := w.create("ACME")
	n.load()
	n.key("ACME", key, "")
	if _, err := n.SetStatus(t.Context(), "ACME", tenant.Suspended); err != nil {
		t.Fatal(err)
	}
	if v := stands(t, w.hand(), "ACME", w, n); v != 2 {
		t.Errorf("version %d, want 2", v)
	}
	w.key("ACME", key, "client.suspended")
}

// Deleted and inserted anew between two looks: versions begin again, and what was known is over.
func TestReplacedByHand(t *testing.T) {
	for _, how := range []string{"deleted and inserted", "replaced"} {
		t.Run(how, func(t *testing.T) {
			w := newTown(t)
			hand := w.hand()
			old := w.create("ACME")
			for range 3 {
				if _, _, err := w.NewKey(t.Context(), "ACME"); err != nil {
					t.Fatal(err)
				}
			}
			w.load()
			query := insertDoc
			if how == "replaced" {
				query = strings.Replace(insertDoc, "INSERT", "INSERT OR REPLACE", 1)
			} else {
				w.exec(hand, deleteDoc, "ACME")
			}
			w.exec(hand, query, "ACME", fmt.Sprintf(`{"_id":"ACME","apiKeys":[{"sha256":%q}]}`, hash("new")))
			stands(t, hand, "ACME", w)
			w.key("ACME", "new", "")
			w.key("ACME", old, "auth.invalid")
		})
	}
}

// A client erased by another process and created again: this one's newer version of the old one is no obstacle.
func TestCreatedAnew(t *testing.T) {
	w := newTown(t)
	n := w.neighbour()
	w.create("ACME")
	for range 3 {
		if _, _, err := w.NewKey(t.Context(), "ACME"); err != nil {
			t.Fatal(err)
		}
	}
	n.load()
	if err := w.BeginErase(t.Context(), "ACME"); err != nil {
		t.Fatal(err)
	}
	if err := w.Erase(t.Context(), "ACME"); err != nil {
		t.Fatal(err)
	}
	key := n.create("ACME")
	n.key("ACME", key, "")
	w.load()
	w.key("ACME", key, "")
}

// A document copied from another client's with all its members is still seen to be a hand's.
func TestCopiedByHand(t *testing.T) {
	w := newTown(t)
	hand := w.hand()
	w.create("ACME") // stands at version 1, as the copy will
	w.exec(hand, `INSERT INTO ClientSecrets (_id, doc) SELECT 'COPY', json_set(doc, '$.whatsapp', json('{"phoneNumberIds":["7"]}')) FROM ClientSecrets WHERE _id = 'ACME'`)
	// Even before it was taken up: an edit of the one never goes to the other.
	if _, err := w.Change(t.Context(), "COPY", func(a *tenant.Account) error { a.Name = "Copy"; return nil }); err != nil {
		t.Fatal(err)
	}
	stands(t, hand, "COPY", w)
	if a, c := w.account("ACME"), w.account("COPY"); a.Name != "Client ACME" || a.Version != 1 || c.Name != "Copy" || c.Code != "COPY" {
		t.Errorf("mixed up: %+v, %+v", a, c)
	}
	w.exec(hand, `INSERT INTO ClientSecrets (_id, doc) SELECT 'COPY2', json_set(doc, '$.whatsapp', json('{"phoneNumberIds":["8"]}')) FROM ClientSecrets WHERE _id = 'ACME'`)
	stands(t, hand, "COPY2", w)
	if p := indexed(t, hand, "COPY2"); !slices.Equal(p, []string{"8"}) {
		t.Errorf("indexed %v", p)
	}
	if a := w.account("COPY2"); a.Code != "COPY2" {
		t.Errorf("code %s", a.Code)
	}
}

// A number moved from one client to the other by hand, in either order, comes to its new owner without a restart.
func TestNumberMovedByHand(t *testing.T) {
	for _, order := range [][]string{{"BETA", "ACME"}, {"ACME", "BETA"}} {
		t.Run(order[0]+" first", func(t *testing.T) {
			w := newTown(t)
			hand := w.hand()
			w.create("ACME")
			w.create("BETA")
			if _, err := w.SetWhatsApp(t.Context(), "ACME", tenant.WhatsAppSecrets{WABAID: "W", PhoneNumberIDs: []string{"101"}, AccessToken: "x"}); err != nil {
				t.Fatal(err)
			}
			for _, code := range order {
				doc := `{"wabaId":"W","phoneNumberIds":[]}`
				if code == "BETA" {
					doc = `{"wabaId":"W","phoneNumberIds":["101"]}`
				}
				w.exec(hand, setMember, "$.whatsapp", doc, code)
			}
			stands(t, hand, "BETA", w)
			w.phone("101", "BETA")
			if p := indexed(t, hand, "BETA"); !slices.Equal(p, []string{"101"}) {
				t.Errorf("indexed %v", p)
			}
		})
	}
}

// Two clients with one number: the first keeps it, the log says so once, and the second gets it when it is free.
func TestNumberTakenByHand(t *testing.T) {
	w := newTown(t)
	hand := w.hand()
	w.create("ACME")
	if _, err := w.SetWhatsApp(t.Context(), "ACME", tenant.WhatsAppSecrets{WABAID: "W", PhoneNumberIDs: []string{"101"}, AccessToken: "x"}); err != nil {
		t.Fatal(err)
	}
	w.exec(hand, insertDoc, "BETA", fmt.Sprintf(`{"apiKeys":[{"sha256":%q}],"whatsapp":{"wabaId":"W","phoneNumberIds":["101","102"]}}`, hash("key")))
	if v := stands(t, hand, "BETA", w); v != 1 {
		t.Errorf("version %d", v)
	}
	w.phone("101", "ACME")
	w.phone("102", "BETA")
	w.key("BETA", "key", "") // all the rest of it is served
	if n := strings.Count(w.log.String(), "belongs to another client"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if _, err := w.SetWhatsApp(t.Context(), "ACME", tenant.WhatsAppSecrets{WABAID: "W", PhoneNumberIDs: []string{"109"}, AccessToken: "x"}); err != nil {
		t.Fatal(err)
	}
	stands(t, hand, "BETA", w)
	w.phone("101", "BETA")
}

// One document that cannot be read leaves the others served, and itself as it was known.
func TestUnreadableDocument(t *testing.T) {
	w := newTown(t)
	hand := w.hand()
	a, b, c := w.create("AAA"), w.create("BBB"), w.create("CCC")
	w.exec(hand, setMember, "$.apiKeys", `"oops"`, "BBB")
	w.exec(hand, setMember, "$.status", `"suspended"`, "CCC")
	w.exec(hand, insertDoc, "lower", `{}`)
	w.exec(hand, insertDoc, "ODD", `[1]`)
	w.load()
	w.key("AAA", a, "")
	w.key("BBB", b, "")
	w.key("CCC", c, "client.suspended")
	if w.Status("lower") != "" || w.Status("LOWER") != "" || w.Status("ODD") != "" {
		t.Error("a client that cannot be one is served")
	}
	for _, name := range []string{"BBB", "lower", "ODD"} {
		if !strings.Contains(w.log.String(), `"client":"`+name+`"`) {
			t.Errorf("the log does not name %s", name)
		}
	}
	_, err := w.Account(t.Context(), "BBB")
	w.fails(err, "client.unreadable")
	_, _, err = w.Use(t.Context(), "BBB")
	w.fails(err, "client.unavailable")
	var list []string
	for after := ""; ; { // in pages
		page, err := w.List(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			list, after = append(list, a.Code+" "+a.Status), a.Code
		}
		if len(page) < 2 {
			break
		}
	}
	// what is served stands in the list, and so does what could be mended; what can be no client does not
	if want := []string{"AAA active", "BBB unreadable", "CCC suspended", "ODD unreadable"}; !slices.Equal(list, want) {
		t.Errorf("listed %v, want %v", list, want)
	}

	// Started anew, it is unknown until it is mended.
	n := w.neighbour()
	n.key("AAA", a, "")
	n.key("BBB", b, "auth.invalid")
	w.exec(hand, setMember, "$.apiKeys", fmt.Sprintf(`[{"sha256":%q}]`, hash("mended")), "BBB")
	stands(t, hand, "BBB", w, n)
	w.key("BBB", "mended", "")
	n.key("BBB", "mended", "")
	_, release := w.use("BBB")
	release()
}

// A time zone that is none is told of once until it is mended, and the client is served with UTC.
func TestUnknownTimeZone(t *testing.T) {
	w := newTown(t)
	hand := w.hand()
	key := w.create("ACME")
	edit := func(member, value, zone string, told int) {
		t.Helper()
		w.exec(hand, setMember, member, value, "ACME")
		stands(t, hand, "ACME", w)
		w.key("ACME", key, "")
		if z := w.account("ACME").Zone().String(); z != zone {
			t.Errorf("%s %s: served with %s, want %s", member, value, z, zone)
		}
		if n := strings.Count(w.log.String(), "time zone is none"); n != told {
			t.Errorf("%s %s: told %d times, want %d", member, value, n, told)
		}
	}
	edit("$.timeZone", `"Asia/Calcuta"`, "UTC", 1)
	edit("$.name", `"Another"`, "UTC", 1)
	edit("$.timeZone", `"Asia/Kolkata"`, "Asia/Kolkata", 1)
	edit("$.timeZone", `"Local"`, "UTC", 2)
	edit("$.timeZone", `""`, "UTC", 2)
}

// What else stands in a document is the operator's, and stays there.
func TestUnknownMembersStay(t *testing.T) {
	w := newTown(t)
	hand := w.hand()
	w.exec(hand, insertDoc, "ACME", `{"_id":"ACME","notes":["call <Rita> & co"],"NAME":"Acme","plan":{"seats":3}}`)
	w.load()
	if _, _, err := w.NewKey(t.Context(), "ACME"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.SetStatus(t.Context(), "ACME", tenant.Suspended); err != nil {
		t.Fatal(err)
	}
	var notes, seats, name, members string
	err := hand.QueryRowContext(t.Context(), `SELECT doc ->> '$.notes[0]', doc ->> '$.plan.seats', doc ->> '$.name',
		(SELECT group_concat(key) FROM json_each(doc)) FROM ClientSecrets`).Scan(&notes, &seats, &name, &members)
	if err != nil || notes != "call <Rita> & co" || seats != "3" || name != "Acme" || strings.Contains(members, "NAME") {
		t.Errorf("notes %q, seats %q, name %q, members %s, %v", notes, seats, name, members, err)
	}
}

// Watch takes an edit up within the 5 seconds that are promised.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, func(w *town) { w.clock = nil })
		hand := w.hand()
		w.create("ACME")
		done := make(chan error)
		stop := make(chan struct{})
		go func() {
			ctx, cancel := contextUntil(stop)
			defer cancel()
			done <- w.Watch(ctx)
		}()
		w.exec(hand, insertDoc, "NEW", fmt.Sprintf(`{"apiKeys":[{"sha256":%q}]}`, hash("key")))
		w.exec(hand, setMember, "$.status", `"suspended"`, "ACME")
		time.Sleep(5 * time.Second) // of the bubble's clock
		synctest.Wait()
		w.key("NEW", "key", "")
		if s := w.Status("ACME"); s != tenant.Suspended {
			t.Errorf("status %s", s)
		}
		close(stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
