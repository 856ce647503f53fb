package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ecodrix/ecod/internal/clock"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// EraseClientJob is the type of the system's job that erases a client. Its payload is {"clientCode":"ACME"}; its handler
// marks the client itself, should the process have ended between making the job and marking.
const EraseClientJob = "client.erase"

// clients is the admin API of the client registry.
type clients struct {
	tenants *tenant.Registry
	queue   store.Queue
}

// ByCode is the input of what is about one client; embed it.
type ByCode struct {
	Code string `path:"code" maxLength:"64" doc:"The client's code; case does not matter."`
}

// ClientView is a client as the admin API shows it: no key, no secret.
type ClientView struct {
	ClientCode     string           `json:"clientCode" example:"ACME"`
	Name           string           `json:"name"`
	Status         string           `json:"status" enum:"active,suspended,moving,erasing,unreadable" doc:"moving: its database is being moved, and it is answered 503. unreadable: its document in ClientSecrets does not decode; what was known of it is served on."`
	TimeZone       string           `json:"timeZone" doc:"IANA." example:"Asia/Kolkata"`
	Locale         *string          `json:"locale"`
	DefaultCountry *string          `json:"defaultCountry" doc:"ISO 3166-1 alpha-2, for phones written without a country."`
	AllowedOrigins []string         `json:"allowedOrigins" doc:"Whose pages may call, and open sockets."`
	WhatsApp       *ClientMetaBrief `json:"whatsapp"`
	Settings       ClientSettings   `json:"settings"`
	Database       ClientDatabase   `json:"database" doc:"Whether its database can be had, as far as the process that answers knows."`
	CreatedAt      Time             `json:"createdAt"`
	UpdatedAt      Time             `json:"updatedAt"`
}

// ClientDatabase is how a client's database fares.
type ClientDatabase struct {
	State  string `json:"state" enum:"ok,unavailable" doc:"unavailable: it cannot be reached, opened or brought up to date. The client's calls are answered 503 client.unavailable, its webhooks are kept, its jobs wait; all goes on by itself when it is back."`
	Own    bool   `json:"own" doc:"It stands on a cluster of the client's own (databaseUrl)."`
	Since  *Time  `json:"since,omitempty" doc:"Since when it is unavailable."`
	Detail string `json:"detail,omitempty"`
}

// ClientMetaBrief is what is not secret of a client's Meta account.
type ClientMetaBrief struct {
	WABAID         string   `json:"wabaId"`
	PhoneNumberIDs []string `json:"phoneNumberIds"`
}

// ClientSettings are a client's own defaults; what is absent is the product's.
type ClientSettings struct {
	Reminders     []string `json:"reminders,omitzero" nullable:"false" maxItems:"10" doc:"Of appointments: offsets such as -24h; empty: none." example:"[\"-24h\",\"-1h\"]"`
	OptOutWords   []string `json:"optOutWords,omitzero" nullable:"false" maxItems:"50" doc:"Whole messages that ask for no more messages; any case."`
	OptInWords    []string `json:"optInWords,omitzero" nullable:"false" maxItems:"50"`
	RatePerSecond float64  `json:"ratePerSecond,omitzero" minimum:"1" maximum:"100000" doc:"Calls of the API a second that a caller may make, on average; twice as many may come at once."`
}

// CreatedClient is a new client with its first key, shown this once.
type CreatedClient struct {
	APIKey string `json:"apiKey" doc:"Shown this once."`
	ClientView
}

// view is a client as it stands, with what is known of its database.
func (c clients) view(a *tenant.Account) ClientView {
	v := clientView(a)
	if since, detail, ails := c.tenants.Ailing(a.Code); ails {
		v.Database.State, v.Database.Since, v.Database.Detail = "unavailable", &Time{since}, detail
	}
	return v
}

func clientView(a *tenant.Account) ClientView {
	v := ClientView{
		ClientCode: a.Code, Name: a.Name, Status: a.Status, TimeZone: or(a.TimeZone, "UTC"), Locale: orNull(a.Locale),
		DefaultCountry: orNull(a.DefaultCountry), AllowedOrigins: append([]string{}, a.AllowedOrigins...),
		Database: ClientDatabase{State: "ok", Own: a.DatabaseURL != ""}, CreatedAt: Time{a.CreatedAt}, UpdatedAt: Time{a.UpdatedAt},
	}
	if s := a.Settings; s != nil {
		v.Settings = ClientSettings{s.Reminders, s.OptOutWords, s.OptInWords, s.RatePerSecond}
	}
	if w := a.WhatsApp; w != nil {
		v.WhatsApp = &ClientMetaBrief{w.WABAID, append([]string{}, w.PhoneNumberIDs...)}
	}
	return v
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// RegisterClients adds the admin API of clients. An erasure is a job of type EraseClientJob in queue.
func RegisterClients(a *API, tenants *tenant.Registry, queue store.Queue) {
	c := clients{tenants, queue}
	const tag = "Clients"
	Admin(a, Op{Route: "POST /api/clients", ID: "createClient", Tag: tag, Summary: "Create a client and its first API key", Status: http.StatusCreated,
		Description: "The key is shown this once. A lost one is replaced by POST /api/clients/{code}/keys."}, c.create)
	Admin(a, Op{Route: "GET /api/clients", ID: "listClients", Tag: tag, Summary: "List clients by code"}, c.list)
	Admin(a, Op{Route: "GET /api/clients/{code}", ID: "getClient", Tag: tag, Summary: "Read a client"}, c.get)
	Admin(a, Op{Route: "PATCH /api/clients/{code}", ID: "updateClient", Tag: tag, Summary: "Change a client",
		Description: "A member that is absent stays as it is; null empties it. The database cannot be changed here: 409 client.use_move."}, c.update)
	Admin(a, Op{Route: "DELETE /api/clients/{code}", ID: "eraseClient", Tag: tag, Summary: "Erase a client for good", Status: http.StatusAccepted,
		Description: "Nobody can use the client from now on. A job erases its database, its media and its secrets."}, c.erase)
	Admin(a, Op{Route: "POST /api/clients/{code}/keys", ID: "createClientKey", Tag: tag, Summary: "Make a new API key", Status: http.StatusCreated,
		Description: "The key before it stays valid until previousValidUntil; at most two are valid at a time."}, c.newKey)
	Admin(a, Op{Route: "POST /api/clients/{code}/suspend", ID: "suspendClient", Tag: tag, Summary: "Suspend a client",
		Description: "Its calls are answered 403 and its jobs are held. Webhooks for it are still taken in."}, c.setStatus(tenant.Suspended))
	Admin(a, Op{Route: "POST /api/clients/{code}/resume", ID: "resumeClient", Tag: tag, Summary: "Resume a suspended client"}, c.setStatus(tenant.Active))
	a.nullable("ClientView", "whatsapp")
	a.nullable("CreatedClient", "whatsapp")
}

type newClientInput struct {
	Body struct {
		ClientCode     string  `json:"clientCode" pattern:"^[A-Za-z0-9][A-Za-z0-9_-]{1,39}$" patternDescription:"2 to 40 of A-Z, 0-9, _ and -" example:"ACME" doc:"Stored in upper case."`
		Name           string  `json:"name" minLength:"1" maxLength:"200" example:"Acme Dental"`
		TimeZone       string  `json:"timeZone,omitempty" maxLength:"64" doc:"IANA; UTC if left out." example:"Asia/Kolkata"`
		Locale         string  `json:"locale,omitempty" maxLength:"35" doc:"BCP 47." example:"en-IN"`
		DefaultCountry string  `json:"defaultCountry,omitempty" pattern:"^[A-Za-z]{2}$" patternDescription:"two letters" doc:"For phones written without a country." example:"IN"`
		DatabaseURL    *string `json:"databaseUrl,omitempty" maxLength:"2000" doc:"mongodb:// or mongodb+srv://, for a database of its own."`
	}
}

func (c clients) create(ctx context.Context, in *newClientInput) (*createdClient, error) {
	b := in.Body
	var bad fields
	bad.timeZone("/timeZone", b.TimeZone)
	bad.locale("/locale", b.Locale)
	bad.text("/name", b.Name)
	if b.DatabaseURL != nil {
		if why := databaseURL(*b.DatabaseURL); why != "" {
			bad.add("/databaseUrl", why)
		}
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	var own secret.Text
	if b.DatabaseURL != nil {
		own = secret.Text(*b.DatabaseURL)
	}
	acct, key, err := c.tenants.Create(ctx, tenant.NewClient{
		DatabaseURL: own,
		Code:        b.ClientCode, Name: strings.TrimSpace(b.Name), TimeZone: b.TimeZone, Locale: b.Locale, DefaultCountry: strings.ToUpper(b.DefaultCountry),
	})
	if err != nil {
		return nil, err
	}
	return &createdClient{"/api/clients/" + acct.Code, CreatedClient{key, c.view(acct)}}, nil
}

type createdClient struct {
	Location string `header:"Location"`
	Body     CreatedClient
}

// databaseURL tells why a client cannot have the database it names; "": it can, as far as its address tells.
func databaseURL(s string) string {
	if !strings.HasPrefix(s, "mongodb://") && !strings.HasPrefix(s, "mongodb+srv://") {
		return "Expected mongodb:// or mongodb+srv://."
	}
	_, rest, _ := strings.Cut(s, "://")
	if hosts, _, _ := strings.Cut(rest, "/"); hosts == "" || strings.HasSuffix(hosts, "@") {
		return "Expected the address of a server."
	}
	return ""
}

func (c clients) list(ctx context.Context, in *struct{ Page }) (*Answer[List[ClientView]], error) {
	at, err := in.After("clients")
	if err != nil {
		return nil, err
	}
	after := ""
	if at != nil {
		after = at.ID
	}
	rows, err := c.tenants.List(ctx, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "clients", func(a *tenant.Account) store.Cursor { return store.Cursor{ID: a.Code} }, c.view), nil
}

func (c clients) get(ctx context.Context, in *ByCode) (*Answer[ClientView], error) {
	acct, err := c.tenants.Account(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	return OK(c.view(acct))
}

type clientPatch struct {
	ByCode
	Body struct {
		Name           Optional[string]         `json:"name,omitzero" minLength:"1" maxLength:"200"`
		TimeZone       Optional[string]         `json:"timeZone,omitzero" maxLength:"64" doc:"IANA; null is UTC."`
		Locale         Optional[string]         `json:"locale,omitzero" maxLength:"35" doc:"BCP 47."`
		DefaultCountry Optional[string]         `json:"defaultCountry,omitzero" pattern:"^[A-Za-z]{2}$" patternDescription:"two letters"`
		AllowedOrigins Optional[[]string]       `json:"allowedOrigins,omitzero" maxItems:"20" doc:"Each scheme://host or scheme://host:port." example:"[\"https://shop.example\"]"`
		Settings       Optional[ClientSettings] `json:"settings,omitzero" doc:"Replaced whole."`
		DatabaseURL    Optional[string]         `json:"databaseUrl,omitzero" doc:"Refused: a client's database is moved by a job." deprecated:"true"`
	}
}

func (c clients) update(ctx context.Context, in *clientPatch) (*Answer[ClientView], error) {
	b := in.Body
	if b.DatabaseURL.Set {
		return nil, fault.New(fault.Conflict, "client.use_move", "A client's database is changed by moving it: ecod client move.")
	}
	var bad fields
	if b.Name.Set {
		if b.Name.Null {
			bad.add("/name", "A client needs a name.")
		} else {
			bad.text("/name", b.Name.Value)
		}
	}
	bad.timeZone("/timeZone", b.TimeZone.Value)
	bad.locale("/locale", b.Locale.Value)
	var origins []string
	for i, s := range b.AllowedOrigins.Value {
		o, ok := normalOrigin(s)
		if !ok {
			bad.add("/allowedOrigins/"+strconv.Itoa(i), "Expected an origin: https://host or https://host:port, without a path.")
		} else if !slices.Contains(origins, o) {
			origins = append(origins, o)
		}
	}
	settings := settingsOf(b.Settings.Value, &bad)
	if err := bad.fault(); err != nil {
		return nil, err
	}
	acct, err := c.tenants.Change(ctx, in.Code, func(a *tenant.Account) error {
		if err := notErasing(a); err != nil {
			return err
		}
		if b.Name.Set {
			a.Name = strings.TrimSpace(b.Name.Value)
		}
		b.TimeZone.Apply(&a.TimeZone)
		b.Locale.Apply(&a.Locale)
		if b.DefaultCountry.Set {
			a.DefaultCountry = strings.ToUpper(b.DefaultCountry.Value)
		}
		if b.AllowedOrigins.Set {
			a.AllowedOrigins = origins
		}
		if b.Settings.Set {
			a.Settings = settings
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return OK(c.view(acct))
}

var offsetForm = regexp.MustCompile(`^-[0-9]{1,5}[mhdw]$`)

// settingsOf checks settings; nil: all as the product has it.
func settingsOf(s ClientSettings, bad *fields) *tenant.Settings {
	for i, r := range s.Reminders {
		if !offsetForm.MatchString(r) {
			bad.add("/settings/reminders/"+strconv.Itoa(i), "Expected an offset such as -24h, -30m or -1d.")
		}
	}
	for name, words := range map[string][]string{"optOutWords": s.OptOutWords, "optInWords": s.OptInWords} {
		for i, w := range words {
			if strings.TrimSpace(w) == "" || len(w) > 100 {
				bad.add("/settings/"+name+"/"+strconv.Itoa(i), "Expected 1 to 100 bytes.")
			}
		}
	}
	if s.Reminders == nil && s.OptOutWords == nil && s.OptInWords == nil && s.RatePerSecond == 0 {
		return nil
	}
	return &tenant.Settings{Reminders: s.Reminders, OptOutWords: s.OptOutWords, OptInWords: s.OptInWords, RatePerSecond: s.RatePerSecond}
}

func notErasing(a *tenant.Account) error {
	if a.Status == tenant.Erasing {
		return fault.New(fault.Conflict, "client.erasing", "This client is being erased.")
	}
	return nil
}

// usable reads an account that may be given something new.
func (c clients) usable(ctx context.Context, code string) (*tenant.Account, error) {
	acct, err := c.tenants.Account(ctx, code)
	if err == nil {
		err = notErasing(acct)
	}
	return acct, err
}

type eraseInput struct {
	ByCode
	Confirm string `query:"confirm" maxLength:"64" doc:"The client's code once more."`
}

// JobStarted names the job that does what was asked.
type JobStarted struct {
	JobID string `json:"jobId"`
}

func (c clients) erase(ctx context.Context, in *eraseInput) (*Answer[JobStarted], error) {
	acct, err := c.tenants.Account(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	if code, _ := tenant.Code(in.Confirm); code != acct.Code {
		return nil, fault.Bad("query.confirm", "Expected the client's code, to confirm that it is to be erased.")
	}
	// The job first: if the process ends between the two, the job marks the client. The key names this client, not one
	// that has its code later.
	payload, _ := json.Marshal(map[string]string{"clientCode": acct.Code})
	made, err := c.queue.Enqueue(ctx, store.NewJob{
		Type: EraseClientJob, Payload: payload, MaxAttempts: 20,
		UniqueKey: "erase:" + acct.Code + ":" + strconv.FormatInt(acct.CreatedAt.UnixMilli(), 10),
	})
	if err != nil {
		return nil, err
	}
	if made[0].Duplicate { // asked before; if that came to nothing, it is to be tried again
		if _, err := c.queue.Retry(ctx, made[0].Job.ID); err != nil {
			return nil, err
		}
	}
	if err := c.tenants.BeginErase(ctx, acct.Code); err != nil && fault.Of(err) != fault.NotFound { // NotFound: the job was faster
		return nil, err
	}
	return OK(JobStarted{made[0].Job.ID})
}

// NewKey is a client's new API key.
type NewKey struct {
	APIKey             string `json:"apiKey" doc:"Shown this once."`
	PreviousValidUntil Time   `json:"previousValidUntil" doc:"When the key before it ends."`
}

func (c clients) newKey(ctx context.Context, in *ByCode) (*Answer[NewKey], error) {
	if _, err := c.usable(ctx, in.Code); err != nil {
		return nil, err
	}
	key, until, err := c.tenants.NewKey(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	return OK(NewKey{key, Time{until}})
}

func (c clients) setStatus(status string) func(context.Context, *ByCode) (*Answer[ClientView], error) {
	return func(ctx context.Context, in *ByCode) (*Answer[ClientView], error) {
		acct, err := c.tenants.SetStatus(ctx, in.Code, status)
		if err != nil {
			return nil, err
		}
		return OK(c.view(acct))
	}
}

// normalOrigin brings an origin to the form in which browsers send it; false if it is not one.
func normalOrigin(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Opaque != "" || u.User != nil || u.Path != "" || u.RawQuery != "" ||
		u.ForceQuery || strings.Contains(s, "#") || len(s) > 300 || !hostForm.MatchString(u.Hostname()) {
		return "", false
	}
	host := strings.ToLower(u.Host)
	if p := u.Port(); p != "" {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 || n > 65535 {
			return "", false
		}
		if (u.Scheme == "https" && n == 443) || (u.Scheme == "http" && n == 80) {
			host = strings.TrimSuffix(host, ":"+p)
		}
	} else if strings.HasSuffix(host, ":") {
		return "", false
	}
	return u.Scheme + "://" + host, true
}

var hostForm = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|[0-9A-Fa-f:.]+)$`)

// fields collects what is wrong with an input beyond what its schema says.
type fields []fault.Field

func (f *fields) add(pointer, detail string) {
	*f = append(*f, fault.Field{Pointer: pointer, Detail: detail})
}

func (f *fields) fault() error { return fault.BadFields(*f) }

func (f *fields) timeZone(pointer, name string) {
	if name == "" {
		return
	}
	if _, err := clock.Zone(name); err != nil {
		f.add(pointer, "Expected an IANA time zone such as Asia/Kolkata.")
	}
}

var localeForm = regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$`)

func (f *fields) locale(pointer, tag string) {
	if tag != "" && !localeForm.MatchString(tag) {
		f.add(pointer, "Expected a BCP 47 tag such as en-IN.")
	}
}

// line refuses what would not stay on one line of a list, a header or a file.
func (f *fields) line(pointer, s string) {
	if !crm.Line(s) {
		f.add(pointer, "Expected a text without line ends and control characters.")
	}
}

// text refuses names that show nothing, or that a terminal would act on.
func (f *fields) text(pointer, s string) {
	if strings.TrimSpace(s) == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		f.add(pointer, "Expected a text with visible characters and no control characters.")
	}
}
