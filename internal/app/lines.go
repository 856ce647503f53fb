package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/google"
	"github.com/ecodrix/ecod/internal/mail"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/s3"
	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// checkTime is how long a live check of one account may take.
const checkTime = 10 * time.Second

// links are the names of the accounts that clients have with others.
var links = []string{"whatsapp", "smtp", "google", "storage"}

// rests are the resources whose lanes rest where such an account is refused.
var rests = map[string]string{"whatsapp": chat.Resource, "smtp": mail.Resource, "google": meeting.Resource}

// lines are the lines to those whom clients have accounts with, for checks alone: they wait for less long than work does.
type lines struct {
	allowPrivate bool
	graph        *whatsapp.Client
	post         *smtp.Client
	calendar     *google.Client
	buckets      http.RoundTripper
}

func newLines(cfg Config) *lines {
	return &lines{
		allowPrivate: cfg.AllowPrivate,
		graph:        whatsapp.New(whatsapp.Config{BaseURL: cfg.MetaURL, Version: cfg.MetaVersion}, &http.Client{Transport: transport(), Timeout: checkTime}),
		post:         smtp.New(smtp.Config{AllowPrivate: cfg.AllowPrivate, DialTimeout: checkTime, CommandTimeout: checkTime}),
		calendar:     google.New(google.Config{BaseURL: cfg.GoogleURL}, &http.Client{Transport: transport(), Timeout: checkTime}),
		buckets:      clientTransport(cfg.AllowPrivate),
	}
}

func (l *lines) close() { l.post.Close() }

// trouble is why an account does not work, in words that name no secret and no address.
type trouble struct {
	detail    string
	mend      string // what the operator can do
	attention string // a reason; "": it may pass by itself
}

// check makes a live call with an account of a client, which sends and changes nothing. nil: it works.
func (l *lines) check(ctx context.Context, tn *tenant.Tenant, name string) *trouble {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var t *trouble
	switch name {
	case "whatsapp":
		t = l.checkWhatsApp(ctx, tn)
	case "smtp":
		t = l.checkSMTP(ctx, tn)
	case "google":
		t = l.checkGoogle(ctx, tn)
	case "storage":
		t = l.checkStorage(ctx, tn)
	}
	if t != nil && t.mend == "" {
		t.mend = "set it anew: PUT /api/clients/" + tn.Code + "/secrets/" + name
		if t.attention == "" {
			t.mend = "try again later; if it stays, look whether this machine reaches the other side"
		}
	}
	return t
}

// sealedAway is the trouble of a secret that does not open.
func sealedAway(err error) *trouble {
	t := &trouble{detail: "the account cannot be read", attention: "unreadable"}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		t.detail, t.attention = f.Detail, f.Code
	}
	return t
}

func (l *lines) checkWhatsApp(ctx context.Context, tn *tenant.Tenant) *trouble {
	token, err := tn.Secret("whatsapp.accessToken")
	if err != nil {
		return sealedAway(err)
	}
	w := tn.Account().WhatsApp
	if token == "" || w.WABAID == "" || len(w.PhoneNumberIDs) == 0 {
		return &trouble{detail: "token, business account or phone number is missing", attention: "incomplete"}
	}
	numbers, err := l.graph.PhoneNumbers(ctx, whatsapp.Account{WABAID: w.WABAID, PhoneNumberID: w.PhoneNumberIDs[0], Token: token})
	if err != nil {
		t := &trouble{detail: err.Error()}
		if e, ok := errors.AsType[*whatsapp.APIError](err); ok && !e.Temporary() && e.HTTP != 0 {
			t.attention = "graph_" + strconv.Itoa(e.Code)
			if e.Scope() == whatsapp.ScopeAccount {
				t.mend = "make a new token of a system user in Meta's business settings, and set it: PUT /api/clients/" + tn.Code + "/secrets/whatsapp"
			}
		}
		return t
	}
	known := map[string]bool{}
	for _, n := range numbers {
		known[n.ID] = true
	}
	for _, p := range w.PhoneNumberIDs {
		if !known[p] {
			return &trouble{detail: fmt.Sprintf("phone number id %s is not one of the business account's", p), attention: "number_unknown"}
		}
	}
	return nil
}

func (l *lines) checkSMTP(ctx context.Context, tn *tenant.Tenant) *trouble {
	acc, err := (&mail.Office{}).Account(tn)
	if err != nil {
		return sealedAway(err)
	}
	if err = l.post.Validate(acc); err == nil {
		err = l.post.Check(ctx, acc)
	}
	if err == nil {
		return nil
	}
	t := &trouble{detail: err.Error()}
	if e, ok := errors.AsType[*smtp.Error](err); ok && !e.Temporary() && (e.Scope == smtp.ScopeAccount || errors.Is(err, smtp.ErrForbidden)) {
		t.attention = e.Op
	}
	if errors.Is(err, smtp.ErrForbidden) {
		t.mend = "use a public server on port 25, 465, 587 or 2525, or set ECOD_ALLOW_PRIVATE_NETWORKS=true"
	}
	return t
}

func (l *lines) checkGoogle(ctx context.Context, tn *tenant.Tenant) *trouble {
	acc, err := (&meeting.Diary{}).Account(tn)
	if err != nil {
		return sealedAway(err)
	}
	if err = l.calendar.Check(ctx, acc); err == nil {
		return nil
	}
	t := &trouble{detail: err.Error()}
	if e, ok := errors.AsType[*google.Error](err); ok && !e.Temporary() {
		if t.attention = e.Reason; t.attention == "" {
			t.attention = "refused"
		}
	}
	return t
}

func (l *lines) checkStorage(ctx context.Context, tn *tenant.Tenant) *trouble {
	key, err := tn.Secret("storage.secretAccessKey")
	if err != nil {
		return sealedAway(err)
	}
	set := tn.Account().Storage
	cfg, err := s3.ParseURL(set.URL, nil)
	if err != nil {
		return &trouble{detail: err.Error(), attention: "url"}
	}
	cfg.AccessKeyID, cfg.SecretAccessKey = set.AccessKeyID, key
	return l.bucket(ctx, cfg, l.buckets)
}

// bucket checks a bucket, a client's or the operator's.
func (l *lines) bucket(ctx context.Context, cfg s3.Config, rt http.RoundTripper) *trouble {
	cfg.Attempts = 1
	c, err := s3.New(cfg, rt)
	if err == nil {
		err = c.Check(ctx)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, errPrivateNetwork) {
		return &trouble{detail: "the bucket's endpoint is on a private network", attention: "private_network", mend: "use a public endpoint, or set ECOD_ALLOW_PRIVATE_NETWORKS=true"}
	}
	t := &trouble{detail: err.Error()}
	if e, ok := errors.AsType[*s3.Error](err); !ok || !e.Temporary() && e.HTTP != 0 {
		t.attention = "refused"
		if ok && e.Code != "" {
			t.attention = e.Code
		}
	}
	return t
}

// fitSMTP tells what of a mail account could never work.
func (l *lines) fitSMTP(ctx context.Context, s tenant.SMTP) (bad []fault.Field) {
	err := l.post.Validate(smtp.Account{
		Host: s.Host, Port: s.Port, Security: smtp.Security(s.Security), Username: s.Username, From: s.From, FromName: s.FromName, ReplyTo: s.ReplyTo,
	})
	switch {
	case errors.Is(err, smtp.ErrForbidden):
		bad = append(bad, fault.Field{Pointer: "/port", Detail: "Expected 25, 465, 587 or 2525; other ports only where the operator allows private networks."})
	case err != nil && !smtp.IsAddress(s.From):
		bad = append(bad, fault.Field{Pointer: "/from", Detail: "Expected name@domain, without quotes and brackets."})
	case err != nil && s.ReplyTo != "" && !smtp.IsAddress(s.ReplyTo):
		bad = append(bad, fault.Field{Pointer: "/replyTo", Detail: "Expected name@domain, without quotes and brackets."})
	case err != nil:
		bad = append(bad, fault.Field{Pointer: "/host", Detail: "The mail client does not take this account: " + err.Error() + "."})
	}
	if !l.allowPrivate && private(ctx, s.Host) {
		bad = append(bad, fault.Field{Pointer: "/host", Detail: "The server is on a private network, and the operator does not allow those."})
	}
	return bad
}

// fitStorage tells what of a bucket's address could never work.
func (l *lines) fitStorage(ctx context.Context, raw string) []fault.Field {
	cfg, err := s3.ParseURL(raw, nil)
	if err != nil {
		return []fault.Field{{Pointer: "/url", Detail: "The address cannot be used: " + err.Error() + "."}}
	}
	u, err := url.Parse(cfg.Endpoint)
	if err == nil && u.Hostname() != "" && !l.allowPrivate && private(ctx, u.Hostname()) {
		return []fault.Field{{Pointer: "/url", Detail: "The endpoint is on a private network, and the operator does not allow those."}}
	}
	return nil
}

// private tells that a host leads to addresses that are not public, and to no others. A name that cannot be looked up now
// may lead anywhere: it is judged when it is called.
func private(ctx context.Context, host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return !smtp.IsPublic(ip)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(ips) == 0 {
		return false
	}
	for _, ip := range ips {
		if smtp.IsPublic(ip) {
			return false
		}
	}
	return true
}

// secretLines are the lines for the admin API. A check that succeeds lets go on what waited for the account.
func (a *App) secretLines() api.Lines {
	l := newLines(a.Config)
	a.onClose("lines for checks", func(context.Context) error { l.close(); return nil })
	return api.Lines{
		FitSMTP: l.fitSMTP, FitStorage: l.fitStorage,
		Check: func(ctx context.Context, tn *tenant.Tenant, name string) (tenant.Check, error) {
			t := l.check(ctx, tn, name)
			c, err := record(ctx, tn, name, t)
			if resource := rests[name]; err == nil && c.OK && resource != "" {
				_, err = a.Queue.Resume(ctx, tn.Code+"/"+resource, store.Credential)
			}
			if err == nil && c.OK && tn.Account().Status == tenant.Active {
				_, err = a.Queue.ReleaseParked(ctx, tn.Code)
			}
			return c, err
		},
	}
}

// record keeps what a check found.
func record(ctx context.Context, tn *tenant.Tenant, name string, t *trouble) (tenant.Check, error) {
	c, attention := tenant.Check{At: time.Now(), OK: t == nil}, ""
	if t != nil {
		c.Detail, attention = t.detail, t.attention
	}
	return c, tn.Checked(ctx, name, c, attention)
}
