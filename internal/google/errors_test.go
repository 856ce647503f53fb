package google_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/google/googletest"
)

// TestVerdicts is the table of what Google's answers mean to the caller.
func TestVerdicts(t *testing.T) {
	s, c := serve(t, googletest.Config{})
	api := googletest.APIError
	modern := func(detail string) googletest.Fault {
		return googletest.Answer(403, "application/json", `{"error":{"code":403,"message":"x","status":"PERMISSION_DENIED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"`+detail+`"},{"@type":"x"}]}}`)
	}
	type verdict struct {
		outcome   google.Outcome
		scope     google.Scope
		temporary bool
		after     time.Duration
	}
	const (
		rejected, limited, ambiguous, notSent = google.Rejected, google.Limited, google.Ambiguous, google.NotSent
		event, account, quota                 = google.ScopeEvent, google.ScopeAccount, google.ScopeQuota
	)
	for _, tc := range []struct {
		kind  string // of the request that is met
		fault googletest.Fault
		want  verdict
	}{
		{"insert", api(400, "invalid", "x"), verdict{rejected, event, false, 0}},
		{"insert", api(400, "timeRangeEmpty", "x"), verdict{rejected, event, false, 0}},
		{"insert", api(403, "rateLimitExceeded", "x"), verdict{limited, quota, true, 0}},
		{"insert", api(403, "userRateLimitExceeded", "x"), verdict{limited, quota, true, 0}},
		{"insert", api(403, "quotaExceeded", "Calendar usage limits exceeded."), verdict{limited, quota, true, time.Hour}},
		{"insert", api(403, "dailyLimitExceeded", "x"), verdict{limited, quota, true, time.Hour}},
		{"insert", modern("RATE_LIMIT_EXCEEDED"), verdict{limited, quota, true, 0}},
		{"insert", modern("ACCESS_TOKEN_SCOPE_INSUFFICIENT"), verdict{rejected, account, false, 0}},
		{"insert", modern("SERVICE_DISABLED"), verdict{rejected, account, false, 0}},
		{"insert", api(403, "insufficientPermissions", "x"), verdict{rejected, account, false, 0}},
		{"insert", api(403, "accessNotConfigured", "x"), verdict{rejected, account, false, 0}},
		{"insert", api(403, "forbiddenForServiceAccounts", "x"), verdict{rejected, account, false, 0}},
		{"insert", api(403, "requiredAccessLevel", "x"), verdict{rejected, account, false, 0}},
		{"insert", api(403, "forbiddenForNonOrganizer", "x"), verdict{rejected, event, false, 0}},
		{"insert", api(403, "somethingNew", "x"), verdict{rejected, event, false, 0}},
		{"insert", googletest.GatewayHTML(403), verdict{rejected, event, false, 0}},
		{"insert", api(400, "rateLimitExceeded", "x"), verdict{rejected, event, false, 0}},
		{"insert", googletest.TooMany(0), verdict{limited, quota, true, 0}},
		{"insert", googletest.TooMany(17 * time.Second), verdict{limited, quota, true, 17 * time.Second}},
		{"insert", googletest.TooMany(1000 * time.Hour), verdict{limited, quota, true, 24 * time.Hour}},
		{"insert", googletest.GatewayHTML(429), verdict{limited, quota, true, 0}},
		{"insert", api(404, "notFound", "x"), verdict{rejected, account, false, 0}},
		{"insert", api(412, "conditionNotMet", "x"), verdict{rejected, event, false, 0}},
		{"insert", googletest.GatewayHTML(408), verdict{ambiguous, event, true, 0}},
		{"insert", api(500, "backendError", "x"), verdict{ambiguous, event, true, 0}},
		{"insert", googletest.Unavailable(), verdict{ambiguous, event, true, 0}},
		{"insert", googletest.GatewayHTML(502), verdict{ambiguous, event, true, 0}},
		{"insert", googletest.GatewayHTML(504), verdict{ambiguous, event, true, 0}},
		{"insert", googletest.ResetBeforeReading(), verdict{ambiguous, event, true, 0}},
		{"insert", googletest.Answer(200, "text/html", "<html>"), verdict{ambiguous, event, true, 0}},
		{"insert", googletest.Answer(200, "application/json", "{}"), verdict{ambiguous, event, true, 0}},
		{"insert", googletest.Answer(200, "application/json", `{"id":"another"}`), verdict{ambiguous, event, true, 0}},
		{"insert", googletest.Answer(200, "application/json", `{"id":"`+google.EventID("x")+`","description":"`+strings.Repeat("x", 600<<10)+`"}`), verdict{ambiguous, event, true, 0}},
		{"patch", api(409, "conflict", "x"), verdict{rejected, event, true, 0}},
		{"patch", googletest.Unavailable(), verdict{ambiguous, event, true, 0}},
		{"delete", googletest.Unavailable(), verdict{ambiguous, event, true, 0}},
		{"delete", googletest.RateLimited(), verdict{limited, quota, true, 0}},
		{"get", googletest.Unavailable(), verdict{notSent, event, true, 0}},
		{"get", googletest.ResetBeforeReading(), verdict{notSent, event, true, 0}},
		{"get", googletest.Answer(200, "application/json", "[]"), verdict{notSent, event, true, 0}},
		{"get", googletest.Answer(200, "application/json", "{}"), verdict{notSent, event, true, 0}},
		{"token", googletest.OAuthError(400, "invalid_grant", "x"), verdict{rejected, account, false, 0}},
		{"token", googletest.OAuthError(401, "invalid_client", "x"), verdict{rejected, account, false, 0}},
		{"token", googletest.OAuthError(401, "unauthorized_client", "x"), verdict{rejected, account, false, 0}},
		{"token", googletest.OAuthError(403, "org_internal", "x"), verdict{rejected, account, false, 0}},
		{"token", googletest.OAuthError(400, "something_new", "x"), verdict{rejected, account, false, 0}},
		{"token", googletest.OAuthError(400, "temporarily_unavailable", "x"), verdict{notSent, event, true, 0}},
		{"token", googletest.OAuthError(500, "invalid_grant", "x"), verdict{notSent, event, true, 0}},
		{"token", googletest.OAuthError(403, "rate_limit_exceeded", "x"), verdict{limited, quota, true, 0}},
		{"token", googletest.TooMany(9 * time.Second), verdict{limited, quota, true, 9 * time.Second}},
		{"token", googletest.GatewayHTML(503), verdict{notSent, event, true, 0}},
		{"token", googletest.GatewayHTML(403), verdict{notSent, event, true, 0}},
		{"token", googletest.Answer(200, "text/html", "<html>"), verdict{notSent, event, true, 0}},
		{"token", googletest.Answer(200, "application/json", `{"token_type":"Bearer"}`), verdict{notSent, event, true, 0}},
		{"token", googletest.Answer(200, "application/json", `{"access_token":"`+strings.Repeat("x", 100<<10)+`"}`), verdict{notSent, event, true, 0}},
		{"token", googletest.ResetBeforeReading(), verdict{notSent, event, true, 0}},
		{"token", googletest.TruncateAfterAccepting(), verdict{notSent, event, true, 0}},
	} {
		s.Behave()
		s.On(tc.kind, -1, tc.fault)
		for _, a := range []google.Account{acc, service(t, nil)} {
			if tc.kind == "token" {
				c = google.New(google.Config{BaseURL: s.URL}, plain(t)) // that has none yet
			}
			var err error
			switch tc.kind {
			case "patch":
				_, err = c.Patch(t.Context(), a, google.Event{ID: google.EventID("x"), Summary: "x"})
			case "delete":
				err = c.Delete(t.Context(), a, google.EventID("x"), "")
			case "get":
				_, err = c.Get(t.Context(), a, google.EventID("x"))
			default:
				_, err = c.Insert(t.Context(), a, booking("x"))
			}
			e := asError(t, err)
			if got := (verdict{e.Outcome, e.Scope, e.Temporary(), e.RetryAfter()}); got != tc.want {
				t.Errorf("%s meets %s: %+v, want %+v (%v)", tc.kind, tc.fault.Name, got, tc.want, err)
			}
		}
	}
	if n := len(s.Writes()); n != 0 {
		t.Errorf("%d writes", n)
	}
	s.Behave()
	s.On("token", -1, googletest.OAuthError(200, "invalid_grant", "x")) // which x/oauth2 reads for a grant, and not for an assertion
	for _, tc := range []struct {
		a         google.Account
		temporary bool
	}{{acc, false}, {service(t, nil), true}} {
		if e := asError(t, google.New(google.Config{BaseURL: s.URL}, plain(t)).Check(t.Context(), tc.a)); e.Temporary() != tc.temporary {
			t.Errorf("%+v", e)
		}
	}
	nowhere := google.New(google.Config{BaseURL: "http://127.0.0.1:1"}, plain(t))
	if e := asError(t, nowhere.Check(t.Context(), acc)); e.Outcome != google.NotSent || !e.Temporary() || e.HTTP != 0 {
		t.Errorf("%+v", e)
	}
}
