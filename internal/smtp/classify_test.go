package smtp

import (
	"testing"
	"time"
)

// TestClassify is the table of what refusals mean, row by row.
func TestClassify(t *testing.T) {
	const (
		rejected, limited                = Rejected, Limited
		message, recipient, acct, server = ScopeMessage, ScopeRecipient, ScopeAccount, ScopeTransport
		min5, min1, hour                 = 5 * time.Minute, time.Minute, time.Hour
	)
	for _, tc := range []struct {
		op       string
		code     int
		enhanced string
		outcome  Outcome
		scope    Scope
		bounce   Bounce
		after    time.Duration
	}{
		// a mailbox that is not there
		{"rcpt", 550, "5.1.1", rejected, recipient, BounceHard, 0},
		{"rcpt", 550, "5.1.2", rejected, recipient, BounceHard, 0},
		{"rcpt", 553, "5.1.3", rejected, recipient, BounceHard, 0},
		{"rcpt", 550, "5.1.6", rejected, recipient, BounceHard, 0},
		{"rcpt", 550, "5.1.10", rejected, recipient, BounceHard, 0},
		{"rcpt", 550, "5.2.1", rejected, recipient, BounceHard, 0},
		{"content", 550, "5.1.1", rejected, recipient, BounceHard, 0},
		{"data", 550, "5.1.1", rejected, recipient, BounceHard, 0},
		{"rcpt", 550, "", rejected, recipient, BounceHard, 0},
		{"rcpt", 551, "", rejected, recipient, BounceHard, 0},
		{"rcpt", 553, "", rejected, recipient, BounceHard, 0},
		{"rcpt", 556, "", rejected, recipient, BounceHard, 0},
		{"rcpt", 550, "5.0.0", rejected, recipient, BounceHard, 0},
		// one that is full, or hard to reach
		{"rcpt", 552, "5.2.2", rejected, recipient, BounceSoft, 0},
		{"rcpt", 552, "5.2.3", rejected, recipient, BounceSoft, 0},
		{"rcpt", 550, "5.4.1", rejected, recipient, BounceSoft, 0},
		{"rcpt", 550, "5.4.4", rejected, recipient, BounceSoft, 0},
		{"rcpt", 550, "5.3.0", rejected, recipient, BounceSoft, 0},
		{"rcpt", 550, "5.1.0", rejected, recipient, BounceSoft, 0},
		{"rcpt", 552, "", rejected, recipient, BounceSoft, 0},
		{"rcpt", 521, "", rejected, recipient, BounceSoft, 0},
		{"content", 552, "", rejected, recipient, BounceSoft, 0},
		{"content", 552, "5.2.2", rejected, recipient, BounceSoft, 0},
		{"rcpt", 452, "4.2.2", limited, recipient, BounceSoft, min5},
		// the sender or the content: the recipient is not to blame
		{"rcpt", 550, "5.7.1", rejected, message, BouncePolicy, 0},
		{"content", 550, "5.7.1", rejected, message, BouncePolicy, 0},
		{"content", 550, "5.7.26", rejected, message, BouncePolicy, 0},
		{"content", 550, "5.7.515", rejected, message, BouncePolicy, 0},
		{"content", 554, "5.6.0", rejected, message, BouncePolicy, 0},
		{"content", 554, "", rejected, message, BouncePolicy, 0},
		{"content", 550, "", rejected, message, BouncePolicy, 0},
		{"rcpt", 554, "", rejected, message, BouncePolicy, 0},
		{"rcpt", 501, "", rejected, message, BouncePolicy, 0},
		{"rcpt", 503, "5.5.1", rejected, message, BouncePolicy, 0},
		{"content", 552, "5.3.4", rejected, message, BouncePolicy, 0},
		{"mail", 552, "5.3.4", rejected, message, BouncePolicy, 0},
		{"mail", 552, "", rejected, message, BouncePolicy, 0},
		// the account
		{"greeting", 554, "5.7.1", rejected, acct, BounceNone, 0},
		{"hello", 550, "", rejected, acct, BounceNone, 0},
		{"starttls", 502, "", rejected, acct, BounceNone, 0},
		{"auth", 535, "5.7.8", rejected, acct, BounceNone, 0},
		{"auth", 534, "5.7.9", rejected, acct, BounceNone, 0},
		{"auth", 550, "5.1.1", rejected, acct, BounceNone, 0}, // never a bounce
		{"mail", 550, "5.7.60", rejected, acct, BounceNone, 0},
		{"mail", 553, "5.1.8", rejected, acct, BounceNone, 0},
		{"mail", 550, "5.1.1", rejected, acct, BounceNone, 0},
		{"mail", 530, "5.7.0", rejected, acct, BounceNone, 0},
		{"rcpt", 530, "", rejected, acct, BounceNone, 0},
		{"content", 550, "5.1.7", rejected, acct, BounceNone, 0},
		{"content", 554, "5.2.252", rejected, acct, BounceNone, 0},
		{"content", 550, "5.7.708", rejected, acct, BounceNone, 0},
		{"content", 550, "5.4.5", limited, acct, BounceNone, hour},
		{"rcpt", 550, "5.4.5", limited, acct, BounceNone, hour},
		{"content", 550, "5.1.90", limited, acct, BounceNone, hour},
		{"auth", 454, "4.7.0", limited, acct, BounceNone, min1},
		{"mail", 450, "4.7.1", limited, acct, BounceNone, min1},
		{"mail", 452, "4.3.1", limited, acct, BounceNone, min1},
		{"content", 451, "4.7.28", limited, acct, BounceNone, min1},
		{"content", 452, "", limited, acct, BounceNone, min1},
		{"rcpt", 452, "4.5.3", limited, acct, BounceNone, min1},
		// greylisting and its like
		{"rcpt", 450, "4.7.1", limited, recipient, BounceNone, min5},
		{"rcpt", 451, "4.7.1", limited, recipient, BounceNone, min5},
		{"rcpt", 450, "4.2.1", limited, recipient, BounceNone, min5},
		{"rcpt", 450, "4.1.2", limited, recipient, BounceNone, min5},
		{"rcpt", 450, "", limited, recipient, BounceNone, min5},
		{"content", 451, "", limited, recipient, BounceNone, min5},
		// the server as a whole
		{"mail", 421, "4.7.0", limited, server, BounceNone, 0},
		{"rcpt", 421, "4.7.28", limited, server, BounceNone, 0},
		{"content", 421, "", limited, server, BounceNone, 0},
		{"greeting", 450, "", limited, server, BounceNone, 0},
		{"greeting", 421, "", limited, server, BounceNone, 0},
		{"starttls", 454, "4.7.0", limited, server, BounceNone, 0},
	} {
		got := classify(tc.op, tc.code, tc.enhanced)
		if want := (verdict{tc.outcome, tc.scope, tc.bounce, tc.after}); got != want {
			t.Errorf("%s %d %s: %+v, want %+v", tc.op, tc.code, tc.enhanced, got, want)
		}
	}
	// whatever a server answers, the two classes stay what they are
	for _, op := range []string{"greeting", "hello", "starttls", "auth", "mail", "rcpt", "data", "content", "noop"} {
		for code := 400; code < 600; code++ {
			for _, enhanced := range []string{"", "x.1.1", "x.2.2", "x.4.5", "x.5.1", "x.7.1", "x.9.9"} {
				if enhanced != "" {
					enhanced = string(rune('0'+code/100)) + enhanced[1:]
				}
				v := classify(op, code, enhanced)
				if code < 500 && (v.outcome != Limited || v.bounce == BounceHard) || code >= 500 && v.outcome != Rejected && v != spent {
					t.Fatalf("%s %d %s: %+v", op, code, enhanced, v)
				}
				if v.bounce == BounceHard && v.scope != ScopeRecipient || v.outcome == Rejected && v.after != 0 {
					t.Fatalf("%s %d %s: %+v", op, code, enhanced, v)
				}
			}
		}
	}
}

func TestEnhancedCode(t *testing.T) {
	for _, tc := range []struct {
		code int
		text string
		want string
	}{
		{550, "5.1.1 no such user", "5.1.1"}, {550, "5.1.1", "5.1.1"}, {550, "5.7.515 Access denied\n5.7.515 more", "5.7.515"}, {451, "4.7.1\nmore", "4.7.1"},
		{550, "no such user", ""}, {550, "", ""}, {550, "4.2.2 the classes differ", ""}, {550, "2.1.1 x", ""},
		{550, "Client host 5.12.33.44 blocked", ""}, {550, "5.12.33.44 blocked", ""}, {550, "5.1.1234 x", ""}, {550, "5.1. x", ""}, {550, "5.a.1 x", ""}, {550, "#5.1.1 x", ""},
	} {
		if got := enhancedCode(tc.code, tc.text); got != tc.want {
			t.Errorf("%d %q: %q, want %q", tc.code, tc.text, got, tc.want)
		}
	}
}
