package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/tenant"
)

// Lines are the lines to those whom clients have accounts with. This package knows no protocol of theirs.
type Lines struct {
	// FitSMTP and FitStorage tell what of an account that is about to be set could never work.
	FitSMTP    func(context.Context, tenant.SMTP) []fault.Field
	FitStorage func(ctx context.Context, url string) []fault.Field
	// Check makes a live call with an account that is set, and records what it found.
	Check func(ctx context.Context, tn *tenant.Tenant, name string) (tenant.Check, error)
}

// secrets is the admin API of the accounts that clients have with others.
type secrets struct {
	clients
	lines Lines
}

// RegisterSecrets adds what sets, checks and removes a client's accounts with others.
func RegisterSecrets(a *API, tenants *tenant.Registry, lines Lines) {
	c := secrets{clients{tenants: tenants}, lines}
	const tag = "Clients"
	Admin(a, Op{Route: "PUT /api/clients/{code}/secrets/whatsapp", ID: "setClientWhatsApp", Tag: tag, Summary: "Set a client's Meta account",
		Description: "Replaces the account whole: an appSecret or verifyToken that is left out is removed. The first phone number is the one to send from. " +
			"A number that belongs to another client: 409 whatsapp.number_taken."}, c.setWhatsApp)
	Admin(a, Op{Route: "GET /api/clients/{code}/secrets", ID: "listClientSecrets", Tag: tag, Summary: "List which secrets a client has",
		Description: "Names only, never a value."}, c.list)
	Admin(a, Op{Route: "PUT /api/clients/{code}/secrets/smtp", ID: "setClientSMTP", Tag: tag, Summary: "Set a client's mail server",
		Description: "Replaces the account whole: a password that is left out is removed."}, c.setSMTP)
	Admin(a, Op{Route: "PUT /api/clients/{code}/secrets/google", ID: "setClientGoogle", Tag: tag, Summary: "Set a client's Google calendar",
		Description: "Either an OAuth grant (clientId, clientSecret, refreshToken), or a service account with the user it acts for (serviceAccount, subject)."}, c.setGoogle)
	Admin(a, Op{Route: "PUT /api/clients/{code}/secrets/storage", ID: "setClientStorage", Tag: tag, Summary: "Set a client's own bucket for media"}, c.setStorage)
	Admin(a, Op{Route: "POST /api/clients/{code}/secrets/{name}/check", ID: "checkClientSecret", Tag: tag, Summary: "Check an account by a live call",
		Description: "Nothing is sent and nothing is changed at the other side. What was found is also shown by GET …/secrets. An account that works again lets go on what waited for it."}, c.check)
	Admin(a, Op{Route: "DELETE /api/clients/{code}/secrets/{name}", ID: "removeClientSecret", Tag: tag, Summary: "Remove a client's account", Status: http.StatusNoContent,
		Description: "What waits for the account waits on. Files that stand in a removed bucket stay there, and cannot be read from here any more."}, c.remove)
	a.nullable("SecretView", "attention")
	a.nullable("SecretView", "lastCheck")
}

// stored answers with what is known of an account just set.
func stored(acct *tenant.Account, name string) (*Answer[SecretView], error) {
	for _, info := range acct.Secrets() {
		if info.Name == name {
			return OK(secretView(info))
		}
	}
	return nil, errors.New("the stored account is not there")
}

// token reads a secret that is one line of ASCII; one copied from a page brings its line end along.
func (f *fields) token(pointer, v string) secret.Text {
	v = strings.TrimSpace(v)
	if strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' }) {
		f.add(pointer, "Expected visible ASCII characters.")
	}
	return secret.Text(v)
}

type whatsappSecretsInput struct {
	ByCode
	Body struct {
		WABAID         string   `json:"wabaId" pattern:"^[0-9]{1,32}$" patternDescription:"digits" example:"102290129340398"`
		PhoneNumberIDs []string `json:"phoneNumberIds" minItems:"1" maxItems:"20" doc:"Meta's ids of the numbers, not the numbers." example:"[\"106540352242922\"]"`
		AccessToken    string   `json:"accessToken" minLength:"1" maxLength:"4096" doc:"A system user's token."`
		AppSecret      string   `json:"appSecret,omitempty" maxLength:"512" doc:"Of the client's own Meta app, if it has one."`
		VerifyToken    string   `json:"verifyToken,omitempty" maxLength:"512" doc:"For the webhook of the client's own Meta app."`
	}
}

var digits = regexp.MustCompile(`^[0-9]{1,32}$`)

func (c secrets) setWhatsApp(ctx context.Context, in *whatsappSecretsInput) (*Answer[SecretView], error) {
	b := in.Body
	var bad fields
	for i, p := range b.PhoneNumberIDs {
		if !digits.MatchString(p) {
			bad.add("/phoneNumberIds/"+strconv.Itoa(i), "Expected digits: Meta's id of the number.")
		}
	}
	s := tenant.WhatsAppSecrets{
		WABAID: b.WABAID, PhoneNumberIDs: b.PhoneNumberIDs, AccessToken: bad.token("/accessToken", b.AccessToken),
		AppSecret: bad.token("/appSecret", b.AppSecret), VerifyToken: bad.token("/verifyToken", b.VerifyToken),
	}
	if s.AccessToken == "" {
		bad.add("/accessToken", "A token is required.")
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	if _, err := c.usable(ctx, in.Code); err != nil {
		return nil, err
	}
	acct, err := c.tenants.SetWhatsApp(ctx, in.Code, s)
	if err != nil {
		return nil, err
	}
	return stored(acct, "whatsapp")
}

// SecretView tells of one group of a client's secrets, never a value.
type SecretView struct {
	Name      string   `json:"name" example:"whatsapp"`
	Fields    []string `json:"fields" doc:"Which are set." example:"[\"whatsapp.accessToken\"]"`
	KeyID     *string  `json:"keyId" doc:"The operator's key that sealed them; null: nothing of them is sealed."`
	UpdatedAt *Time    `json:"updatedAt" nullable:"true"`

	LastCheck *SecretCheck   `json:"lastCheck" doc:"What a live call last found, since they were set; null: none was made."`
	Attention *AttentionView `json:"attention" doc:"Why they are of no use until somebody sets them anew; null: nothing is known against them."`
}

// SecretCheck is what a live call with an account found.
type SecretCheck struct {
	At     Time    `json:"at"`
	OK     bool    `json:"ok"`
	Detail *string `json:"detail" doc:"What is wrong; null: nothing."`
}

// AttentionView is what is wrong with a client's account with others.
type AttentionView struct {
	Reason string `json:"reason" example:"invalid_grant"`
	Since  *Time  `json:"since" nullable:"true"`
}

func secretView(s tenant.SecretInfo) SecretView {
	return SecretView{Name: s.Name, Fields: s.Fields, KeyID: orNull(s.KeyID), UpdatedAt: At(s.UpdatedAt)}
}

// found adds what is known of the connection.
func (v *SecretView) found(c *tenant.Connection) {
	if c == nil {
		return
	}
	if c.State == tenant.Attention {
		v.Attention = &AttentionView{c.Reason, At(c.At)}
	}
	switch {
	case c.Check != nil && !c.At.After(c.Check.At):
		v.LastCheck = secretCheck(*c.Check)
	case c.State != "": // found at work, which is a check as good as any
		v.LastCheck = &SecretCheck{At: Time{c.At}, OK: c.State == tenant.Connected, Detail: orNull(c.Reason)}
	}
}

func secretCheck(c tenant.Check) *SecretCheck {
	return &SecretCheck{At: Time{c.At}, OK: c.OK, Detail: orNull(c.Detail)}
}

func (c secrets) list(ctx context.Context, in *ByCode) (*Answer[List[SecretView]], error) {
	acct, err := c.tenants.Account(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	out := List[SecretView]{Items: []SecretView{}}
	for _, s := range acct.Secrets() {
		out.Items = append(out.Items, secretView(s))
	}
	tn, release, err := c.tenants.Use(ctx, in.Code)
	if err != nil {
		return OK(out) // what was found is in the client's database, and that cannot be reached now
	}
	defer release()
	for i := range out.Items {
		v := &out.Items[i]
		conn, err := tn.Connection(ctx, v.Name)
		if err != nil {
			return nil, err
		}
		v.found(conn)
	}
	return OK(out)
}

type bySecret struct {
	ByCode
	Name string `path:"name" enum:"whatsapp,smtp,google,storage"`
}

func (c secrets) check(ctx context.Context, in *bySecret) (*Answer[SecretCheck], error) {
	acct, err := c.usable(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	if _, err := stored(acct, in.Name); err != nil {
		return nil, fault.Missing("secret")
	}
	tn, release, err := c.tenants.Use(ctx, acct.Code)
	if err != nil {
		return nil, err
	}
	defer release()
	found, err := c.lines.Check(ctx, tn, in.Name)
	if err != nil {
		return nil, err
	}
	return OK(*secretCheck(found))
}

func (c secrets) remove(ctx context.Context, in *bySecret) (*struct{}, error) {
	if _, err := c.usable(ctx, in.Code); err != nil {
		return nil, err
	}
	_, err := c.tenants.RemoveSecret(ctx, in.Code, in.Name)
	return nil, err
}

type smtpSecretsInput struct {
	ByCode
	Body struct {
		Host          string  `json:"host" minLength:"1" maxLength:"253" example:"smtp.example.com"`
		Port          int     `json:"port" minimum:"1" maximum:"65535" doc:"25, 465, 587 or 2525, unless the operator allows private networks." example:"587"`
		Security      string  `json:"security" enum:"starttls,tls,none"`
		Username      string  `json:"username,omitempty" maxLength:"320"`
		Password      string  `json:"password,omitempty" maxLength:"1024"`
		From          string  `json:"from" maxLength:"254" doc:"The sender's address." example:"hello@acme.example"`
		FromName      string  `json:"fromName,omitempty" maxLength:"200"`
		ReplyTo       string  `json:"replyTo,omitempty" maxLength:"254"`
		RatePerSecond float64 `json:"ratePerSecond,omitempty" minimum:"0" maximum:"1000" doc:"Mails a second at most; 0: as the server takes them."`
	}
}

func (c secrets) setSMTP(ctx context.Context, in *smtpSecretsInput) (*Answer[SecretView], error) {
	b := in.Body
	var bad fields
	host := strings.ToLower(strings.TrimSpace(b.Host))
	if _, err := netip.ParseAddr(host); err != nil && !hostForm.MatchString(host) {
		bad.add("/host", "Expected a host name or an IP address.")
	}
	from, ok := crm.Email(b.From)
	if !ok {
		bad.add("/from", "Expected an e-mail address.")
	}
	replyTo := ""
	if b.ReplyTo != "" {
		if replyTo, ok = crm.Email(b.ReplyTo); !ok {
			bad.add("/replyTo", "Expected an e-mail address.")
		}
	}
	for pointer, v := range map[string]string{"/fromName": b.FromName, "/username": b.Username, "/password": b.Password} {
		if v != "" && strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			bad.add(pointer, "Expected no control characters.")
		}
	}
	if b.Password != "" && b.Username == "" {
		bad.add("/username", "A password needs a username.")
	}
	set := tenant.SMTP{
		Host: host, Port: b.Port, Security: b.Security, Username: b.Username, From: from, FromName: b.FromName, ReplyTo: replyTo,
		RatePerSecond: b.RatePerSecond,
	}
	if len(bad) == 0 && c.lines.FitSMTP != nil {
		bad = c.lines.FitSMTP(ctx, set)
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	if _, err := c.usable(ctx, in.Code); err != nil {
		return nil, err
	}
	acct, err := c.tenants.SetSMTP(ctx, in.Code, set, secret.Text(b.Password))
	if err != nil {
		return nil, err
	}
	return stored(acct, "smtp")
}

type googleSecretsInput struct {
	ByCode
	Body struct {
		ClientID       string         `json:"clientId,omitempty" maxLength:"512"`
		ClientSecret   string         `json:"clientSecret,omitempty" maxLength:"512"`
		RefreshToken   string         `json:"refreshToken,omitempty" maxLength:"2048"`
		ServiceAccount map[string]any `json:"serviceAccount,omitempty" doc:"Google's key file."`
		Subject        string         `json:"subject,omitempty" maxLength:"254" doc:"The user that a service account acts for."`
		CalendarID     string         `json:"calendarId,omitempty" maxLength:"512" doc:"The user's own calendar if left out."`
	}
}

func (c secrets) setGoogle(ctx context.Context, in *googleSecretsInput) (*Answer[SecretView], error) {
	b := in.Body
	var bad fields
	g := tenant.GoogleSecrets{ClientID: strings.TrimSpace(b.ClientID), CalendarID: strings.TrimSpace(b.CalendarID)}
	if len(b.ServiceAccount) > 0 {
		if b.ClientID != "" || b.ClientSecret != "" || b.RefreshToken != "" {
			bad.add("/serviceAccount", "Give either a service account or an OAuth grant.")
		}
		if kind, _ := b.ServiceAccount["type"].(string); kind != "service_account" {
			bad.add("/serviceAccount/type", "Expected Google's key file of a service account.")
		}
		for _, name := range []string{"client_email", "private_key"} {
			if v, _ := b.ServiceAccount[name].(string); v == "" {
				bad.add("/serviceAccount/"+name, "Google's key file of a service account has it.")
			}
		}
		subject, ok := crm.Email(b.Subject)
		if !ok {
			bad.add("/subject", "A service account needs the e-mail address of the user it acts for.")
		}
		raw, err := json.Marshal(b.ServiceAccount)
		if err != nil || len(raw) > 16<<10 {
			bad.add("/serviceAccount", "Expected Google's key file of a service account.")
		}
		g.ServiceAccount, g.Subject = secret.Text(raw), subject
	} else {
		g.ClientSecret, g.RefreshToken = bad.token("/clientSecret", b.ClientSecret), bad.token("/refreshToken", b.RefreshToken)
		for pointer, missing := range map[string]bool{"/clientId": g.ClientID == "", "/clientSecret": g.ClientSecret == "", "/refreshToken": g.RefreshToken == ""} {
			if missing {
				bad.add(pointer, "An OAuth grant needs clientId, clientSecret and refreshToken.")
			}
		}
		if b.Subject != "" {
			bad.add("/subject", "Only a service account acts for a user.")
		}
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	if _, err := c.usable(ctx, in.Code); err != nil {
		return nil, err
	}
	acct, err := c.tenants.SetGoogle(ctx, in.Code, g)
	if err != nil {
		return nil, err
	}
	return stored(acct, "google")
}

type storageSecretsInput struct {
	ByCode
	Body struct {
		URL             string `json:"url" maxLength:"1000" example:"s3://acme-media?endpoint=https://account.r2.example&region=auto"`
		AccessKeyID     string `json:"accessKeyId" minLength:"1" maxLength:"256"`
		SecretAccessKey string `json:"secretAccessKey" minLength:"1" maxLength:"1024"`
	}
}

func (c secrets) setStorage(ctx context.Context, in *storageSecretsInput) (*Answer[SecretView], error) {
	b := in.Body
	var bad fields
	u, err := url.Parse(b.URL)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.User != nil {
		bad.add("/url", "Expected s3://bucket?endpoint=https://…&region=…, without keys.")
	}
	id, key := bad.token("/accessKeyId", b.AccessKeyID), bad.token("/secretAccessKey", b.SecretAccessKey)
	for pointer, v := range map[string]secret.Text{"/accessKeyId": id, "/secretAccessKey": key} {
		if v == "" {
			bad.add(pointer, "A key is required.")
		}
	}
	if len(bad) == 0 && c.lines.FitStorage != nil {
		bad = append(bad, c.lines.FitStorage(ctx, b.URL)...)
	}
	if err := bad.fault(); err != nil {
		return nil, err
	}
	if _, err := c.usable(ctx, in.Code); err != nil {
		return nil, err
	}
	acct, err := c.tenants.SetStorage(ctx, in.Code, b.URL, id.Reveal(), key)
	if err != nil {
		return nil, err
	}
	return stored(acct, "storage")
}
