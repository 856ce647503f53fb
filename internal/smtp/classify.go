package smtp

import (
	"slices"
	"strings"
	"time"
)

// verdict is what a server's refusal means.
type verdict struct {
	outcome Outcome
	scope   Scope
	bounce  Bounce
	after   time.Duration
}

var (
	hard      = verdict{outcome: Rejected, scope: ScopeRecipient, bounce: BounceHard}
	soft      = verdict{outcome: Rejected, scope: ScopeRecipient, bounce: BounceSoft}
	policy    = verdict{outcome: Rejected, scope: ScopeMessage, bounce: BouncePolicy}
	account   = verdict{outcome: Rejected, scope: ScopeAccount}
	busy      = verdict{outcome: Limited, scope: ScopeTransport}
	greylist  = verdict{outcome: Limited, scope: ScopeRecipient, after: 5 * time.Minute}
	full      = verdict{outcome: Limited, scope: ScopeRecipient, bounce: BounceSoft, after: 5 * time.Minute}
	throttled = verdict{outcome: Limited, scope: ScopeAccount, after: time.Minute}
	spent     = verdict{outcome: Limited, scope: ScopeAccount, after: time.Hour}
)

// Enhanced codes, without their class, that say the same wherever they are met.
var (
	quotas = []string{
		"4.5",  // Gmail: the day's quota is spent
		"1.90", // Exchange Online: the day's recipients are spent
	}
	ofAccount = []string{
		"1.7", "1.8", // the sender's address
		"7.8", "7.9", "7.14", // the credential
		"7.60", "2.252", // may not send as this sender
		"7.501", "7.502", "7.503", "7.705", "7.708", // Exchange Online: the sender or its tenant is blocked
	}
	noMailbox = []string{"1.1", "1.2", "1.3", "1.6", "1.10", "2.1"}
)

// classify is the one table of what refusals mean: op is the step, code 400 to
// 599, enhanced an RFC 3463 code of the same class or "".
func classify(op string, code int, enhanced string) verdict {
	_, detail, _ := strings.Cut(enhanced, ".")
	subject, _, _ := strings.Cut(detail, ".")
	session := op != "rcpt" && op != "data" && op != "content" // nothing was said of a recipient yet

	switch {
	case code == 421: // it closes the connection, whatever was asked
		return busy
	case code < 500:
		return refusedForNow(op, code, detail, subject, session)
	case slices.Contains(quotas, detail):
		return spent
	case code == 530, code == 534, code == 535, code == 538, slices.Contains(ofAccount, detail):
		return account
	case op == "mail" && (code == 552 || detail == "3.4"):
		return policy // too large, and told so early
	case session:
		return account
	case slices.Contains(noMailbox, detail):
		return hard
	}
	switch subject {
	case "1", "2", "4":
		return soft
	case "3":
		if detail == "3.4" {
			return policy
		}
		return soft
	case "5", "6", "7":
		return policy
	}
	switch { // no enhanced code that tells anything
	case code == 552:
		return soft
	case op == "rcpt" && (code == 550 || code == 551 || code == 553 || code == 556):
		return hard
	case op == "rcpt" && code == 521:
		return soft
	}
	return policy
}

func refusedForNow(op string, code int, detail, subject string, session bool) verdict {
	switch {
	case op == "greeting", op == "hello", op == "starttls":
		return busy
	case session, code == 454, slices.Contains(ofAccount, detail):
		return throttled
	case detail == "2.2":
		return full
	case subject == "1", subject == "2", subject == "4":
		return greylist
	case subject == "7" && op == "rcpt":
		return greylist
	case subject == "3", subject == "5", subject == "7":
		return throttled
	case code == 452:
		return throttled
	}
	return greylist
}

// enhancedCode reads the RFC 3463 code at the beginning of an answer; "" if
// there is none, or one that contradicts the answer's code.
func enhancedCode(code int, text string) string {
	word, _, _ := strings.Cut(text, "\n")
	word, _, _ = strings.Cut(word, " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || int(parts[0][0]-'0') != code/100 {
		return ""
	}
	for _, p := range parts {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return ""
		}
	}
	return word
}
