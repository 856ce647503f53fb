package whatsapp

import "time"

// Class is what a code means for the one who sent.
type Class struct {
	Meaning   string // a few words of ours
	Outcome   Outcome
	Scope     Scope
	Temporary bool          // the same may work later
	Wait      time.Duration // how long its Scope should rest; 0: the caller's own backoff
	OptOut    bool          // the recipient wants no more of the kind
	Known     bool          // the code stands in the table; false: guessed from the HTTP status
}

// Classify tells what an error means: of a call by its HTTP status, code and
// subcode, and of a failed status, where http is 0. There is one table for both,
// because the same code comes now one way, now the other.
//
// A status of 5xx proves nothing about a call (Ambiguous), whatever code it
// bears, but for 131016 and 131057. A failed status is never ambiguous.
// Code 0 beside an HTTP status means that the answer bore none.
func Classify(http, code, subcode int) Class {
	c, known := lookUp(code, subcode)
	if code == 0 && http != 401 {
		known = false
	}
	if known {
		c.Known = true
	} else {
		c = byStatus(http, code)
	}
	switch {
	case http >= 500 && code != 131016 && code != 131057:
		c.Outcome, c.Temporary = Ambiguous, true
	case http == 429 && c.Outcome != Limited:
		c.Outcome, c.Temporary, c.Wait = Limited, true, max(c.Wait, time.Second)
	}
	return c
}

func lookUp(code, subcode int) (Class, bool) {
	if code == 100 { // the subcode says what is invalid
		if c, ok := codes[subcode]; ok && subcode > 1000 {
			return c, true
		}
		if subcode == 33 {
			return notVisible, true
		}
	}
	if c, ok := codes[code]; ok {
		return c, true
	}
	for _, r := range ranges {
		if code >= r.from && code <= r.to {
			return r.class, true
		}
	}
	return Class{}, false
}

// byStatus is the class of an answer without a code that we know.
func byStatus(http, code int) Class {
	switch {
	case http == 429:
		return limited(ScopeNumber, time.Second, "too many requests")
	case http == 401, http == 403 && code == 0:
		return rejected(ScopeAccount, "the credential is refused")
	case http == 408, http < 200 && http != 0, http >= 200 && http < 400:
		return Class{Meaning: "no answer of Meta's", Outcome: Ambiguous, Scope: ScopeMessage, Temporary: true}
	}
	return rejected(ScopeMessage, "a code we do not know")
}

func rejected(s Scope, meaning string) Class {
	return Class{Meaning: meaning, Outcome: Rejected, Scope: s}
}

// untilLater is a refusal that is known to pass, or that a few more tries are worth.
func untilLater(s Scope, wait time.Duration, meaning string) Class {
	return Class{Meaning: meaning, Outcome: Rejected, Scope: s, Temporary: true, Wait: wait}
}

func limited(s Scope, wait time.Duration, meaning string) Class {
	return Class{Meaning: meaning, Outcome: Limited, Scope: s, Temporary: true, Wait: wait}
}

func notSent(s Scope, meaning string) Class {
	return Class{Meaning: meaning, Outcome: NotSent, Scope: s, Temporary: true}
}

func after(d time.Duration, c Class) Class { c.Wait = d; return c }
func optOut(c Class) Class                 { c.OptOut = true; return c }

const day = 24 * time.Hour

var notVisible = rejected(ScopeNumber, "the object does not exist or the token may not see it")

// codes is Meta's error codes, as far as they concern us. Where Meta's pages
// differ, the reading is the one that loses no message and annoys nobody twice.
var codes = map[int]Class{
	// the credential and the account
	0:      rejected(ScopeAccount, "the token is not accepted"),
	3:      rejected(ScopeAccount, "a capability or permission is missing"),
	10:     rejected(ScopeAccount, "a permission is missing"),
	33:     rejected(ScopeNumber, "the phone number was deleted"),
	190:    rejected(ScopeAccount, "the token has expired or is invalid"),
	131005: rejected(ScopeAccount, "access denied"),
	131042: rejected(ScopeAccount, "trouble with the payment method"),
	134011: rejected(ScopeAccount, "the payments terms are not accepted"),
	368:    rejected(ScopeQuality, "the account is blocked for policy"),
	131031: rejected(ScopeQuality, "the account is locked"),
	131048: limited(ScopeQuality, time.Hour, "limited because of spam"),
	131063: rejected(ScopeQuality, "marketing messages are off for this number"),
	131064: limited(ScopeQuality, time.Hour, "limited because of miscategorised templates"),

	// limits of pace
	4:       limited(ScopeNumber, time.Minute, "the app's limit of calls is reached"),
	80007:   limited(ScopeAccount, time.Minute, "the account's limit of calls is reached"),
	80008:   limited(ScopeAccount, time.Minute, "the account's limit of calls is reached"),
	130429:  limited(ScopeNumber, time.Second, "the number's throughput is reached"),
	131056:  limited(ScopePair, time.Second, "too many messages to this recipient"), // then PairDelay
	131057:  limited(ScopeNumber, time.Minute, "the number is in maintenance"),
	133016:  limited(ScopeAccount, time.Hour, "too many registrations"), // ten in 72 hours
	133008:  limited(ScopeNumber, time.Hour, "too many wrong PINs"),
	133009:  limited(ScopeNumber, 5*time.Minute, "the PIN was tried too fast"),
	133015:  limited(ScopeNumber, 5*time.Minute, "the number was deleted a moment ago"),
	2494100: limited(ScopeNumber, 5*time.Minute, "the number is in maintenance"),

	// the recipient
	130403: optOut(rejected(ScopeRecipient, "the recipient blocked the business")),
	130472: after(day, rejected(ScopeRecipient, "the recipient is part of an experiment")),
	130497: rejected(ScopeRecipient, "the recipient's country is restricted"),
	131021: rejected(ScopeRecipient, "the recipient is the sender"),
	131026: rejected(ScopeRecipient, "the message cannot be delivered to this recipient"),
	131030: rejected(ScopeRecipient, "the recipient is not in the test number's list"),
	131049: after(day, rejected(ScopeRecipient, "the recipient got enough marketing messages")),
	131050: optOut(rejected(ScopeRecipient, "the recipient stopped marketing messages")),
	131051: rejected(ScopeRecipient, "the message's type is not supported"),
	131062: rejected(ScopeRecipient, "this message needs a phone number, not a user id"),
	137000: rejected(ScopeRecipient, "the recipient's identity key changed"),

	// the message
	131047: rejected(ScopeMessage, "more than 24 hours since the recipient's last message"),
	131055: rejected(ScopeMessage, "the method is not allowed"),
	131060: rejected(ScopeMessage, "the message is not available"),
	135000: rejected(ScopeMessage, "refused without a reason"),
	1:      untilLater(ScopeMessage, 0, "an unknown error at Meta"),
	2:      untilLater(ScopeMessage, 0, "Meta is down for a while"),
	131000: untilLater(ScopeMessage, 0, "something went wrong at Meta"),
	131016: notSent(ScopeMessage, "Meta is overloaded for a while"),

	// what the message was made from
	100:    rejected(ScopeTemplate, "a parameter is invalid"),
	131008: rejected(ScopeTemplate, "a parameter is missing"),
	131009: rejected(ScopeTemplate, "a parameter's value is invalid"),
	132000: rejected(ScopeTemplate, "the number of parameters differs from the template's"),
	132001: rejected(ScopeTemplate, "the template does not exist in this language or is not approved"),
	132005: rejected(ScopeTemplate, "the filled template is too long"),
	132007: rejected(ScopeTemplate, "the template is against policy"),
	132012: rejected(ScopeTemplate, "a parameter has another format than the template's"),
	132015: rejected(ScopeTemplate, "the template is paused"),
	132016: rejected(ScopeTemplate, "the template is disabled"),
	132018: rejected(ScopeTemplate, "the template's parameters are invalid"),
	132068: rejected(ScopeTemplate, "the flow is blocked"),
	132069: limited(ScopeTemplate, time.Hour, "the flow is throttled"),
	134100: rejected(ScopeTemplate, "only marketing templates go this way"),
	134101: untilLater(ScopeTemplate, 10*time.Minute, "the template is being synchronised"),
	134102: untilLater(ScopeTemplate, 0, "the template is not available yet"),

	// the file
	131052: rejected(ScopeMedia, "Meta could not fetch the user's file"),
	131053: untilLater(ScopeMedia, 0, "Meta could not fetch or read the file"),

	// the number
	131037:  rejected(ScopeNumber, "the number's display name is not approved"),
	131045:  rejected(ScopeNumber, "the number is not registered right"),
	133000:  untilLater(ScopeNumber, 0, "the number's deregistration is not complete"),
	133004:  untilLater(ScopeNumber, 0, "the registration server is down for a while"),
	133005:  rejected(ScopeNumber, "the PIN is wrong"),
	133006:  rejected(ScopeNumber, "the number has to be verified first"),
	133010:  rejected(ScopeNumber, "the number is not registered"),
	2593107: rejected(ScopeNumber, "the synchronisation was asked for before"),
	2593108: rejected(ScopeNumber, "the time for the synchronisation is over"),
	2593109: rejected(ScopeNumber, "the business does not share its history"),
}

// ranges are codes that are alike; a code of the table comes first.
var ranges = []struct {
	from, to int
	class    Class
}{
	{200, 299, rejected(ScopeAccount, "a permission is missing")},
	{131200, 131299, rejected(ScopeMessage, "trouble with the group")},
	{138000, 138999, rejected(ScopeMessage, "trouble with the call")},
	{139000, 139999, rejected(ScopeMessage, "trouble with the flow or the block list")},
	{147001, 147005, rejected(ScopeMessage, "trouble with the username")},
	{2388000, 2388999, rejected(ScopeTemplate, "the template cannot be made so")},
}
