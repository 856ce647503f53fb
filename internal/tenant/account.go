package tenant

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/store"
)

// Statuses of an account.
const (
	Active    = "active"
	Suspended = "suspended"
	Erasing   = "erasing"

	// Unreadable is shown of a client whose document does not decode; it is never written.
	Unreadable = "unreadable"
)

// Account is a client's document in ClientSecrets. Secret members hold ciphertext (package secret), bound to the
// client's code and the member's path ("whatsapp.accessToken").
type Account struct {
	store.Meta
	Code           string    `json:"_id"`
	Name           string    `json:"name"`
	Status         string    `json:"status"`
	TimeZone       string    `json:"timeZone,omitempty"`       // IANA; "" is UTC
	Locale         string    `json:"locale,omitempty"`         // BCP 47
	DefaultCountry string    `json:"defaultCountry,omitempty"` // ISO 3166-1 alpha-2, for phones written without a country
	AllowedOrigins []string  `json:"allowedOrigins,omitempty"`
	APIKeys        []APIKey  `json:"apiKeys"`
	DatabaseURL    string    `json:"databaseUrl,omitempty"` // sealed
	LinkKey        string    `json:"linkKey,omitempty"`     // sealed; of the links in mails, for good
	WhatsApp       *WhatsApp `json:"whatsapp,omitempty"`
	SMTP           *SMTP     `json:"smtp,omitempty"`
	Google         *Google   `json:"google,omitempty"`
	Storage        *Storage  `json:"storage,omitempty"`
	Settings       *Settings `json:"settings,omitempty"`
	Move           *Move     `json:"move,omitempty"`
	Moves          int64     `json:"moves,omitempty"` // how often its database changed
	CreatedAt      time.Time `json:"createdAt,omitzero"`
	UpdatedAt      time.Time `json:"updatedAt,omitzero"`
	// SuspendedAt is when the client was last suspended: dashboard sessions from before are over.
	SuspendedAt time.Time `json:"suspendedAt,omitzero"`
	// Rev names the document and the version at which our own code last wrote it. Another value means that a hand edited it
	// since, or copied it from another client's.
	Rev string `json:"rev,omitempty"`

	other map[string]json.RawMessage // members that are not ours
}

// RevOf is the Rev of a document that stands at a version.
func RevOf(code string, version int64) string { return code + "/" + strconv.FormatInt(version, 10) }

// ownMembers are the names of an account's members, in lower case as encoding/json takes them in any.
var ownMembers = func() map[string]bool {
	names := map[string]bool{}
	for f := range reflect.TypeFor[Account]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names[strings.ToLower(name)] = true
	}
	return names
}()

type bareAccount Account

// UnmarshalJSON keeps members that it does not know: an operator's notes, or what a newer version wrote.
func (a *Account) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, (*bareAccount)(a)); err != nil {
		return err
	}
	a.other = nil
	if err := json.Unmarshal(b, &a.other); err != nil {
		return err
	}
	maps.DeleteFunc(a.other, func(name string, _ json.RawMessage) bool { return ownMembers[strings.ToLower(name)] })
	return nil
}

// MarshalJSON writes the unknown members behind our own.
func (a *Account) MarshalJSON() ([]byte, error) {
	own, err := json.Marshal((*bareAccount)(a))
	if err != nil || len(a.other) == 0 {
		return own, err
	}
	rest, err := json.Marshal(a.other)
	return slices.Concat(own[:len(own)-1], []byte{','}, rest[1:]), err
}

// APIKey is one valid key, by its hash.
type APIKey struct {
	SHA256     string     `json:"sha256"`               // hex
	ValidUntil *time.Time `json:"validUntil,omitempty"` // nil: until replaced
	CreatedAt  time.Time  `json:"createdAt,omitzero"`
}

// WhatsApp is the client's Meta account.
type WhatsApp struct {
	WABAID         string    `json:"wabaId"`
	PhoneNumberIDs []string  `json:"phoneNumberIds"`
	AccessToken    string    `json:"accessToken"`           // sealed
	AppSecret      string    `json:"appSecret,omitempty"`   // sealed
	VerifyToken    string    `json:"verifyToken,omitempty"` // sealed
	UpdatedAt      time.Time `json:"updatedAt,omitzero"`
}

// SMTP is the client's mail server.
type SMTP struct {
	Host          string    `json:"host"`
	Port          int       `json:"port"`
	Security      string    `json:"security"`
	Username      string    `json:"username,omitempty"`
	Password      string    `json:"password,omitempty"` // sealed
	From          string    `json:"from"`
	FromName      string    `json:"fromName,omitempty"`
	ReplyTo       string    `json:"replyTo,omitempty"`
	RatePerSecond float64   `json:"ratePerSecond,omitempty"`
	UpdatedAt     time.Time `json:"updatedAt,omitzero"`
}

// Google is the client's calendar account: an OAuth grant, or a service account.
type Google struct {
	ClientID       string    `json:"clientId,omitempty"`
	ClientSecret   string    `json:"clientSecret,omitempty"`   // sealed
	RefreshToken   string    `json:"refreshToken,omitempty"`   // sealed
	ServiceAccount string    `json:"serviceAccount,omitempty"` // sealed JSON
	Subject        string    `json:"subject,omitempty"`
	CalendarID     string    `json:"calendarId,omitempty"`
	UpdatedAt      time.Time `json:"updatedAt,omitzero"`
}

// Storage is the client's own bucket.
type Storage struct {
	URL             string    `json:"url"`
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey"` // sealed
	UpdatedAt       time.Time `json:"updatedAt,omitzero"`
}

// Settings are a client's own defaults; a nil list is the product's.
type Settings struct {
	Reminders   []string `json:"reminders,omitzero"`   // of appointments: offsets such as "-24h"; empty but not nil: none
	OptOutWords []string `json:"optOutWords,omitzero"` // a whole message of one of them asks for no more messages; any case
	OptInWords  []string `json:"optInWords,omitzero"`
	// RatePerSecond is how many calls of its API the client may make, on average; 0: as the product has it.
	RatePerSecond float64 `json:"ratePerSecond,omitzero"`
}

// Accounts is the ClientSecrets kind. A phone number id belongs to one client; a WABA may be shared.
var Accounts = store.Kind[Account]{
	Schema: store.Schema{
		Kind: "ClientSecrets",
		Fields: []store.Field{
			{Name: "status", Type: store.Text},
			{Name: "phoneNumberIds", Type: store.Text, Multi: true, Unique: true},
		},
		Watched: true,
	},
	Key: func(a *Account) string { return a.Code },
	Index: func(a *Account) store.Fields {
		f := store.Fields{"status": a.Status}
		if a.WhatsApp != nil {
			f["phoneNumberIds"] = slices.Clone(a.WhatsApp.PhoneNumberIDs)
		}
		return f
	},
	Meta: func(a *Account) *store.Meta { return &a.Meta },
}

var codeForm = regexp.MustCompile(`^[A-Z0-9][A-Z0-9_-]{1,39}$`)

// Code brings a client code to its stored form, upper case; false if it cannot be one.
func Code(s string) (string, bool) {
	if len(s) > 40 {
		return "", false
	}
	s = strings.ToUpper(s)
	return s, codeForm.MatchString(s)
}

// DatabaseName is the name of a client's database.
func DatabaseName(code string) string { return "ecod_t_" + code }

// sealed gives the places of an account's ciphertexts, by the field name they are bound to.
func (a *Account) sealed() map[string]*string {
	m := map[string]*string{"databaseUrl": &a.DatabaseURL, linkKeyField: &a.LinkKey}
	if w := a.WhatsApp; w != nil {
		m["whatsapp.accessToken"], m["whatsapp.appSecret"], m["whatsapp.verifyToken"] = &w.AccessToken, &w.AppSecret, &w.VerifyToken
	}
	if s := a.SMTP; s != nil {
		m["smtp.password"] = &s.Password
	}
	if g := a.Google; g != nil {
		m["google.clientSecret"], m["google.refreshToken"], m["google.serviceAccount"] = &g.ClientSecret, &g.RefreshToken, &g.ServiceAccount
	}
	if s := a.Storage; s != nil {
		m["storage.secretAccessKey"] = &s.SecretAccessKey
	}
	if v := a.Move; v != nil {
		m[moveTo], m[moveFrom] = &v.To, &v.From
	}
	return m
}

// SecretFields are the field names that `ecod secret encrypt` accepts.
var SecretFields = []string{"databaseUrl", "whatsapp.accessToken", "whatsapp.appSecret", "whatsapp.verifyToken", "smtp.password",
	"google.clientSecret", "google.refreshToken", "google.serviceAccount", "storage.secretAccessKey"}

// Zone is the client's time zone; UTC where none, or an unknown one, is set.
func (a *Account) Zone() *time.Location {
	if zone, err := a.zone(); err == nil {
		return zone
	}
	return time.UTC
}

func (a *Account) zone() (*time.Location, error) {
	if a.TimeZone == "" {
		return time.UTC, nil
	}
	return clock.Zone(a.TimeZone)
}

// Validate tells what is wrong with the plain members of an account.
func (a *Account) Validate() error {
	if _, ok := Code(a.Code); !ok {
		return fmt.Errorf("client code is not of the form %s", codeForm)
	}
	if _, err := a.zone(); err != nil {
		return errors.New("timeZone is not an IANA zone")
	}
	return nil
}
