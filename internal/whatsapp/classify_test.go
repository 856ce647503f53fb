package whatsapp

import (
	"net/http"
	"testing"
	"time"
)

// TestEveryCode is the policy in one place: each code as an answer with the HTTP
// status that Meta gives it, and as a failed status (HTTP 0).
func TestEveryCode(t *testing.T) {
	const (
		no  = false
		yes = true
	)
	for _, tc := range []struct {
		code, subcode, http int
		outcome             Outcome // of the answer
		scope               Scope
		temporary           bool
		wait                time.Duration
		status              Outcome // of a failed status with this code
		statusTemporary     bool
	}{
		// the credential and the account
		{0, 0, 401, Rejected, ScopeAccount, no, 0, Rejected, no}, // as a status: no code at all
		{3, 0, 500, Ambiguous, ScopeAccount, yes, 0, Rejected, no},
		{10, 0, 403, Rejected, ScopeAccount, no, 0, Rejected, no},
		{33, 0, 400, Rejected, ScopeNumber, no, 0, Rejected, no},
		{190, 463, 401, Rejected, ScopeAccount, no, 0, Rejected, no},
		{200, 0, 403, Rejected, ScopeAccount, no, 0, Rejected, no},
		{299, 0, 403, Rejected, ScopeAccount, no, 0, Rejected, no},
		{368, 0, 403, Rejected, ScopeQuality, no, 0, Rejected, no},
		{131005, 0, 403, Rejected, ScopeAccount, no, 0, Rejected, no},
		{131031, 0, 403, Rejected, ScopeQuality, no, 0, Rejected, no},
		{131042, 0, 400, Rejected, ScopeAccount, no, 0, Rejected, no},
		{131048, 0, 400, Limited, ScopeQuality, yes, time.Hour, Limited, yes},
		{131063, 0, 400, Rejected, ScopeQuality, no, 0, Rejected, no},
		{131064, 0, 400, Limited, ScopeQuality, yes, time.Hour, Limited, yes},
		{134011, 0, 400, Rejected, ScopeAccount, no, 0, Rejected, no},

		// limits of pace
		{4, 0, 400, Limited, ScopeNumber, yes, time.Minute, Limited, yes},
		{80007, 0, 400, Limited, ScopeAccount, yes, time.Minute, Limited, yes},
		{80008, 0, 400, Limited, ScopeAccount, yes, time.Minute, Limited, yes},
		{130429, 0, 400, Limited, ScopeNumber, yes, time.Second, Limited, yes},
		{130429, 0, 429, Limited, ScopeNumber, yes, time.Second, Limited, yes},
		{131056, 0, 400, Limited, ScopePair, yes, time.Second, Limited, yes},
		{131057, 0, 500, Limited, ScopeNumber, yes, time.Minute, Limited, yes},
		{133008, 0, 400, Limited, ScopeNumber, yes, time.Hour, Limited, yes},
		{133009, 0, 400, Limited, ScopeNumber, yes, 5 * time.Minute, Limited, yes},
		{133015, 0, 400, Limited, ScopeNumber, yes, 5 * time.Minute, Limited, yes},
		{133016, 0, 400, Limited, ScopeAccount, yes, time.Hour, Limited, yes},
		{2494100, 0, 400, Limited, ScopeNumber, yes, 5 * time.Minute, Limited, yes},
		{100, 2494100, 400, Limited, ScopeNumber, yes, 5 * time.Minute, Limited, yes},

		// the recipient
		{130403, 0, 400, Rejected, ScopeRecipient, no, 0, Rejected, no},
		{130472, 0, 400, Rejected, ScopeRecipient, no, 24 * time.Hour, Rejected, no},
		{130497, 0, 403, Rejected, ScopeRecipient, no, 0, Rejected, no},
		{131021, 0, 400, Rejected, ScopeRecipient, no, 0, Rejected, no},
		{131026, 0, 400, Rejected, ScopeRecipient, no, 0, Rejected, no},
		{131030, 0, 400, Rejected, ScopeRecipient, no, 0, Rejected, no},
		{131049, 0, 400, Rejected, ScopeRecipient, no, 24 * time.Hour, Rejected, no},
		{131050, 0, 400, Rejected, ScopeRecipient, no, 0, Rejected, no},
		{131051, 0, 400, Rejected, ScopeRecipient, no, 0, Rejected, no},
		{131062, 0, 400, Rejected, ScopeRecipient, no, 0, Rejected, no},
		{137000, 0, 400, Rejected, ScopeRecipient, no, 0, Rejected, no},

		// the message
		{1, 0, 400, Rejected, ScopeMessage, yes, 0, Rejected, yes},
		{2, 0, 503, Ambiguous, ScopeMessage, yes, 0, Rejected, yes},
		{131000, 0, 500, Ambiguous, ScopeMessage, yes, 0, Rejected, yes},
		{131016, 0, 500, NotSent, ScopeMessage, yes, 0, NotSent, yes},
		{131047, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},
		{131055, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},
		{131060, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},
		{135000, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},
		{131215, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},
		{138000, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},
		{139000, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},
		{147001, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},
		{147005, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},

		// what the message was made from
		{100, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{100, 33, 400, Rejected, ScopeNumber, no, 0, Rejected, no},
		{100, 2388024, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{2388019, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{131008, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{131009, 2494073, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{132000, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{132001, 0, 404, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{132005, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{132007, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{132012, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{132015, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{132016, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{132018, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{132068, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{132069, 0, 400, Limited, ScopeTemplate, yes, time.Hour, Limited, yes},
		{134100, 0, 400, Rejected, ScopeTemplate, no, 0, Rejected, no},
		{134101, 0, 400, Rejected, ScopeTemplate, yes, 10 * time.Minute, Rejected, yes},
		{134102, 0, 500, Ambiguous, ScopeTemplate, yes, 0, Rejected, yes},

		// the file
		{131052, 0, 400, Rejected, ScopeMedia, no, 0, Rejected, no},
		{131053, 0, 400, Rejected, ScopeMedia, yes, 0, Rejected, yes},

		// the number
		{131037, 0, 400, Rejected, ScopeNumber, no, 0, Rejected, no},
		{131045, 0, 500, Ambiguous, ScopeNumber, yes, 0, Rejected, no},
		{133000, 0, 500, Ambiguous, ScopeNumber, yes, 0, Rejected, yes},
		{133004, 0, 503, Ambiguous, ScopeNumber, yes, 0, Rejected, yes},
		{133005, 0, 400, Rejected, ScopeNumber, no, 0, Rejected, no},
		{133006, 0, 400, Rejected, ScopeNumber, no, 0, Rejected, no},
		{133010, 0, 400, Rejected, ScopeNumber, no, 0, Rejected, no},
		{2593107, 0, 400, Rejected, ScopeNumber, no, 0, Rejected, no},
		{2593108, 0, 400, Rejected, ScopeNumber, no, 0, Rejected, no},
		{2593109, 0, 400, Rejected, ScopeNumber, no, 0, Rejected, no},

		// no code, or one that nobody knows: the HTTP status decides
		{0, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},
		{0, 0, 403, Rejected, ScopeAccount, no, 0, Rejected, no},
		{0, 0, 408, Ambiguous, ScopeMessage, yes, 0, Rejected, no},
		{0, 0, 429, Limited, ScopeNumber, yes, time.Second, Rejected, no},
		{0, 0, 302, Ambiguous, ScopeMessage, yes, 0, Rejected, no},
		{0, 0, 200, Ambiguous, ScopeMessage, yes, 0, Rejected, no},
		{0, 0, 500, Ambiguous, ScopeMessage, yes, 0, Rejected, no},
		{0, 0, 502, Ambiguous, ScopeMessage, yes, 0, Rejected, no},
		{0, 0, 504, Ambiguous, ScopeMessage, yes, 0, Rejected, no},
		{999999, 0, 400, Rejected, ScopeMessage, no, 0, Rejected, no},
		{999999, 0, 401, Rejected, ScopeAccount, no, 0, Rejected, no},
		{999999, 0, 403, Rejected, ScopeMessage, no, 0, Rejected, no},
		{999999, 0, 429, Limited, ScopeNumber, yes, time.Second, Rejected, no},
		{999999, 0, 500, Ambiguous, ScopeMessage, yes, 0, Rejected, no},
		{131026, 0, 500, Ambiguous, ScopeRecipient, yes, 0, Rejected, no},
	} {
		c := Classify(tc.http, tc.code, tc.subcode)
		if c.Outcome != tc.outcome || c.Scope != tc.scope || c.Temporary != tc.temporary || c.Wait != tc.wait || c.Meaning == "" {
			t.Errorf("%d/%d HTTP %d: %+v", tc.code, tc.subcode, tc.http, c)
		}
		s := Classify(0, tc.code, tc.subcode)
		if s.Outcome != tc.status || s.Temporary != tc.statusTemporary || s.Outcome == Ambiguous {
			t.Errorf("%d/%d as a status: %+v", tc.code, tc.subcode, s)
		}
		wantOptOut := tc.code == 131050 || tc.code == 130403
		if c.OptOut != wantOptOut || s.OptOut != wantOptOut {
			t.Errorf("%d: opt-out %v", tc.code, c.OptOut)
		}
		tested[tc.code], tested[tc.subcode] = true, true
	}
	for code := range codes {
		if !tested[code] {
			t.Errorf("code %d stands in the table and in no test", code)
		}
	}
	for _, r := range ranges {
		if !tested[r.from] && !tested[r.to] && !anyTested(r.from, r.to) {
			t.Errorf("no code of %d to %d is tested", r.from, r.to)
		}
	}
	if Classify(400, 999999, 0).Known || Classify(400, 0, 0).Known || !Classify(400, 131026, 0).Known || !Classify(0, 250, 0).Known {
		t.Error("Known")
	}
}

var tested = map[int]bool{}

func anyTested(from, to int) bool {
	for code := range tested {
		if code >= from && code <= to {
			return true
		}
	}
	return false
}

func TestRetryAfterHeader(t *testing.T) {
	soon := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
	for in, want := range map[string][2]time.Duration{
		"7": {7 * time.Second, 7 * time.Second}, "0": {0, 0}, "-4": {0, 0}, "99999999999": {24 * time.Hour, 24 * time.Hour}, soon: {80 * time.Second, 90 * time.Second},
		"Thu, 01 Jan 1970 00:00:00 GMT": {0, 0},
	} {
		if d, ok := retryAfter(in); !ok || d < want[0] || d > want[1] {
			t.Errorf("%q: %v %v", in, d, ok)
		}
	}
	for _, in := range []string{"", "soon", "7s", "1.5"} {
		if _, ok := retryAfter(in); ok {
			t.Errorf("%q taken", in)
		}
	}
}

func TestPairDelay(t *testing.T) {
	for n, want := range []float64{1, 4, 16, 64, 256, 256} {
		if got := PairDelay(n).Seconds(); got != want {
			t.Errorf("%d: %v s", n, got)
		}
	}
	if PairDelay(-1) != time.Second {
		t.Error("before the first")
	}
}
