package whatsapp

import (
	"encoding/json"
	"strings"
	"time"
)

// TemplateEvent is news of a message template.
type TemplateEvent struct {
	ID       string
	Name     string
	Language string // as the API writes it, "en_US", whichever form came

	Event  string // KindTemplateStatus: APPROVED, REJECTED, PAUSED, DISABLED, PENDING_DELETION, …
	Reason string // "" for absent, null and NONE

	PreviousQuality string // KindTemplateQuality: GREEN, YELLOW, RED, UNKNOWN
	Quality         string

	// Category is the one in force now. NextCategory is set while a change is
	// announced (Meta calls the present one "new" then); PreviousCategory once it is done.
	Category         string
	PreviousCategory string
	NextCategory     string
	NextCategoryAt   time.Time

	DisableDate    string // as Meta writes it
	Info           string // a pause: FIRST_PAUSE, SECOND_PAUSE, …
	InfoText       string // for people
	Recommendation string // of a rejection
}

// NumberEvent is news of a phone number. The item's DisplayPhone names it: these
// fields carry no phone number id.
type NumberEvent struct {
	Event           string // KindPhoneQuality: ONBOARDING, THROUGHPUT_UPGRADE, older FLAGGED, UNFLAGGED, UPGRADE, DOWNGRADE
	Limit           string // "TIER_10K"
	Decision        string // KindPhoneName: APPROVED, …
	RequestedName   string
	RejectionReason string
}

// Capability is what the account may do. Limits are as Meta writes them:
// "TIER_2K", a number's digits, "-1" for unlimited.
type Capability struct {
	ConversationsPerBusiness string
	ConversationsPerPhone    string // older
	PhonesPerWABA            string
	PhonesPerBusiness        string
}

// FlowEvent is news of a flow.
type FlowEvent struct {
	ID        string
	Event     string
	Message   string
	OldStatus string
	NewStatus string
}

// AccountEvent is news of the account as a whole; all else is in the item's Raw.
type AccountEvent struct {
	Event        string // ACCOUNT_RESTRICTION, DISABLED_UPDATE, PARTNER_REMOVED, …
	BanState     string // DISABLE, REINSTATE, SCHEDULE_FOR_DISABLE
	BanDate      string // as Meta writes it
	Violation    string
	Restrictions []Restriction
	Decision     string // account_review_update
	AlertType    string // account_alerts
	Severity     string
	Description  string // for people
}

// Restriction is something that the account may not do for a while.
type Restriction struct {
	Type    string // RESTRICTED_BIZ_INITIATED_MESSAGING, …
	Expires time.Time
}

// Preference is a user's word on marketing messages.
type Preference struct {
	WAID         string // "" if the user hides their phone
	UserID       string
	ParentUserID string
	Category     string // "marketing_messages"
	Value        string // "stop", "resume", "signup"
	Detail       string
	At           time.Time
}

// OptOut tells that the user stopped marketing messages.
func (p *Preference) OptOut() bool { return p.Value == "stop" }

// IdentityChange tells that a user's id was replaced. The system messages of
// type user_changed_number and user_changed_user_id tell the same.
type IdentityChange struct {
	WAID                 string
	PreviousUserID       string
	UserID               string
	PreviousParentUserID string
	ParentUserID         string
	At                   time.Time
}

// UserAction is something a user did without writing; what belongs to it is in the item's Raw.
type UserAction struct {
	Type string
	At   time.Time
}

// Call is an event of a voice call.
type Call struct {
	ID         string
	From, To   string
	FromUserID string
	ToUserID   string
	Event      string // "connect", "terminate", …
	Direction  string // "USER_INITIATED", "BUSINESS_INITIATED"
	Status     string
	At         time.Time
	Duration   time.Duration
}

// GroupEvent is news of a group; participants and settings are in the item's Raw.
type GroupEvent struct {
	ID        string
	Type      string
	RequestID string
	At        time.Time
}

// ContactSync is a change in the address book of the business's phone app.
type ContactSync struct {
	Type      string // "contact"
	Action    string // "add", "remove"
	FullName  string
	FirstName string
	Phone     string
	At        time.Time
}

// HistoryChunk is a part of an account's past; chunks come in any order. One
// with Errors and no threads says why there is none (2593109: the business declined).
type HistoryChunk struct {
	Phase    int
	Order    int
	Progress int // per cent
	Threads  []HistoryThread
	Errors   []ProviderError
}

// HistoryThread is the past with one user.
type HistoryThread struct {
	ID       string // the user's phone digits
	Messages []HistoryMessage
}

// HistoryMessage is a message of the past. Err says that Raw is none; Message is nil then.
type HistoryMessage struct {
	Message *Message
	Raw     json.RawMessage
	Err     error
}

// Len is how many messages the chunk holds.
func (h *HistoryChunk) Len() int {
	n := 0
	for _, t := range h.Threads {
		n += len(t.Messages)
	}
	return n
}

// Language writes a template's language as the API does: "en-us" becomes "en_US".
func Language(s string) string {
	lang, region, ok := strings.Cut(strings.ReplaceAll(strings.TrimSpace(s), "-", "_"), "_")
	if !ok {
		return strings.ToLower(lang)
	}
	return strings.ToLower(lang) + "_" + strings.ToUpper(region)
}
