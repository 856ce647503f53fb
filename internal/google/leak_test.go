package google_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/google/googletest"
	"github.com/ecodrix/ecod/internal/secret"
)

// TestNoErrorLeaks makes every method fail in every way, for both kinds of
// account, and looks for secrets wherever an error can end up, and for what a
// user wrote wherever it is printed.
func TestNoErrorLeaks(t *testing.T) {
	const written = "what the user wrote"
	away, hits := elsewhere(t)
	robotAccount := service(t, nil)
	var file map[string]string
	_ = json.Unmarshal([]byte(robotAccount.ServiceAccount.Reveal()), &file)
	keyLine := strings.Split(file["private_key"], "\n")[3]

	type event = google.Event
	methods := map[string]func(context.Context, *google.Client, google.Account, event) error{
		"Insert": func(ctx context.Context, c *google.Client, a google.Account, ev event) error {
			_, err := c.Insert(ctx, a, ev)
			return err
		},
		"Get": func(ctx context.Context, c *google.Client, a google.Account, ev event) error {
			_, err := c.Get(ctx, a, ev.ID)
			return err
		},
		"Patch": func(ctx context.Context, c *google.Client, a google.Account, ev event) error {
			_, err := c.Patch(ctx, a, ev)
			return err
		},
		"Delete": func(ctx context.Context, c *google.Client, a google.Account, ev event) error {
			return c.Delete(ctx, a, ev.ID, "")
		},
		"Check": func(ctx context.Context, c *google.Client, a google.Account, _ event) error { return c.Check(ctx, a) },
	}
	quoted := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	faults := func(one, two string) map[string]googletest.Fault { // one and two are secrets of the account
		return map[string]googletest.Fault{
			"echo":            googletest.Echo(400),
			"echo 403":        googletest.Echo(403),
			"echo 500":        googletest.Echo(500),
			"401":             googletest.Echo(401),
			"rate":            googletest.TooMany(time.Second),
			"quota":           googletest.QuotaExceeded(),
			"503":             googletest.Unavailable(),
			"gateway":         googletest.GatewayHTML(502),
			"cut":             googletest.TruncateAfterAccepting(),
			"reset":           googletest.ResetAfterAccepting(),
			"early reset":     googletest.ResetBeforeReading(),
			"redirect":        googletest.Redirect(away + "/?access_token=" + url.QueryEscape(one)),
			"odd redirect":    googletest.Redirect("http://[" + url.QueryEscape(one)),
			"not JSON":        googletest.Answer(200, "text/html", one+two+written),
			"other JSON":      googletest.Answer(200, "application/json", quoted(one+written)),
			"form":            googletest.Answer(200, "text/plain", "access_token=%zz"+one),
			"secret as words": googletest.Answer(400, "application/json", `{"error":{"message":`+quoted(one+" "+url.QueryEscape(two))+`,"errors":[{"reason":`+quoted(one)+`}],"status":`+quoted(two)+`},"error_description":5}`),
			"secret as code":  googletest.Answer(400, "application/json", `{"error":`+quoted(one)+`,"error_description":`+quoted(two)+`,"error_uri":`+quoted(one)+`}`),
			"hang":            googletest.Hang(),
		}
	}
	seen := 0
	s, warm := serve(t, googletest.Config{})
	hc := plain(t)
	look := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: no error", what)
			return
		}
		seen++
		e := asError(t, err)
		var log bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
			slog.New(h).Error("call failed", "err", err, "e", *e, "grant", acc, "robot", robotAccount)
		}
		public := fmt.Sprintf("%v %+v %s %q", err, struct{ E error }{err}, err, err)
		all := public + log.String() + fmt.Sprintf("%#v %+v", *e, *e)
		for cause := error(e); cause != nil; cause = errors.Unwrap(cause) {
			all += fmt.Sprintf(" %v %+v", cause, cause)
		}
		for _, bad := range []string{theGrant, theCode, url.QueryEscape(theGrant), url.QueryEscape(theCode), "refresh-token", "client-secret", "ya29.", "eyJ", keyLine, "PRIVATE KEY"} {
			if strings.Contains(all, bad) {
				t.Errorf("%s leaks %q: %s", what, bad, all)
			}
		}
		for _, bad := range []string{written, patient, s.URL, away, "http://"} {
			if strings.Contains(public, bad) {
				t.Errorf("%s tells %q: %s", what, bad, public)
			}
		}
	}
	cases := 0
	for kind, a := range map[string]google.Account{"grant": acc, "robot": robotAccount} {
		one, two := theGrant, theCode
		if kind == "robot" {
			one, two = file["private_key"], a.ServiceAccount.Reveal()
		}
		for method, call := range methods {
			for name, f := range faults(one, two) {
				for _, where := range []string{"calendar", "token"} {
					cases++
					ev := booking(fmt.Sprint("case ", cases))
					ev.Summary = written
					s.Behave()
					c := warm
					if method != "Insert" && method != "Check" {
						insert(t, c, ev)
					}
					if where == "calendar" {
						if err := c.Check(t.Context(), a); err != nil {
							t.Fatal(err)
						}
						s.Next(-1, f)
					} else {
						c = google.New(google.Config{BaseURL: s.URL}, hc) // that has no token yet
						s.On("token", -1, f)
					}
					ctx := t.Context()
					if name == "hang" {
						ctx = brief(t)
					}
					look(strings.Join([]string{kind, method, where, name}, " "), call(ctx, c, a, ev))
				}
			}
			ev := booking("another")
			s.Behave()
			odd := a
			odd.RefreshToken, odd.ServiceAccount = odd.RefreshToken+"\n", secret.Text(strings.Replace(odd.ServiceAccount.Reveal(), "{", "{,", 1))
			look(method+" odd secrets", call(t.Context(), google.New(google.Config{BaseURL: s.URL}, hc), odd, ev))
			look(method+" nowhere", call(t.Context(), google.New(google.Config{BaseURL: "http://127.0.0.1:1"}, hc), a, ev))
			look(method+" transport", call(t.Context(), google.New(google.Config{BaseURL: s.URL}, &http.Client{Transport: deadTransport{}}), a, ev))
			cases += 3
		}
	}
	if seen != cases {
		t.Errorf("%d errors looked at, want %d", seen, cases)
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
	for _, r := range s.Requests() {
		if r.InQuery {
			t.Errorf("a secret in an address: %s", r.Kind)
		}
	}
}

type deadTransport struct{}

func (deadTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no way")
}
