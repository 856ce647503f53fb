package google_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/google/googletest"
	"github.com/ecodrix/ecod/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ana      = "ana@clinic.example"
	patient  = "patient@mail.example"
	robot    = "robot@demo.iam.gserviceaccount.example"
	theGrant = "refresh-token/of+ana"
	theCode  = "client-secret/of=ours"
)

var acc = google.Account{ClientID: "client-1", ClientSecret: theCode, RefreshToken: theGrant}

// keyFile is a service account that may act for ana; made once, since keys take long.
var keyFile = sync.OnceValues(func() (googletest.ServiceAccount, []byte) {
	a, file, err := googletest.NewServiceAccount(robot, ana)
	if err != nil {
		panic(err)
	}
	return a, file
})

// serve starts a Google with both kinds of account and a client before it.
func serve(t *testing.T, cfg googletest.Config) (*googletest.Server, *google.Client) {
	t.Helper()
	s, err := googletest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.AddGrant(googletest.Grant{User: ana, ClientID: acc.ClientID, ClientSecret: theCode, RefreshToken: theGrant})
	a, _ := keyFile()
	s.AddServiceAccount(a)
	return s, google.New(google.Config{BaseURL: s.URL + "/"}, plain(t))
}

// service is the service account of keyFile, its file changed.
func service(t *testing.T, change func(map[string]string)) google.Account {
	t.Helper()
	_, file := keyFile()
	if change != nil {
		var m map[string]string
		if err := json.Unmarshal(file, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		file, _ = json.Marshal(m)
	}
	return google.Account{ServiceAccount: secret.Text(file), Subject: ana}
}

// plain is an http.Client whose connections end with the test.
func plain(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// elsewhere is a server that nobody should call.
func elsewhere(t *testing.T) (url string, hits *atomic.Int32) {
	hits = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	t.Cleanup(s.Close)
	return s.URL, hits
}

var monday = time.Date(2027, 3, 1, 9, 30, 0, 0, time.UTC)

func booking(seed string) google.Event {
	return google.Event{ID: google.EventID(seed), Summary: "Consultation", Description: "With Dr. Ärger <b>", Start: monday, End: monday.Add(30 * time.Minute),
		TimeZone: "Asia/Kolkata", Attendees: []google.Attendee{{Email: patient, Name: "Pat"}}, RequestID: seed}
}

func insert(t *testing.T, c *google.Client, ev google.Event) google.Event {
	t.Helper()
	got, err := c.Insert(t.Context(), acc, ev)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func asError(t *testing.T, err error) *google.Error {
	t.Helper()
	var e *google.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no *Error", err, err)
	}
	return e
}

func brief(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
