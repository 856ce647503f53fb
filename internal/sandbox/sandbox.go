package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/google/googletest"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// AppSecret and VerifyToken are those of the simulated Meta app. They open nothing but the demo.
const (
	AppSecret   = "demo-app-secret"
	VerifyToken = "demo-verify-token"
)

// The journals of the simulations keep at least this many entries.
const journalLimit = 500

// Client is an example client, with what opens it once it is registered.
type Client struct {
	Code, Name string
	Number     string // of WhatsApp: the phone number id
	Mailbox    string // that its mails come from
	Calendar   string // the Google user that its appointments are booked by
	Key        string // API key
	User       User   // of the dashboard

	cast
	round int // of its campaigns
}

// User is who may sign in to a client's dashboard.
type User struct{ Name, Email, Password string }

// World is the simulation.
type World struct {
	Meta    *whatsapptest.Server
	Mail    *smtptest.Server
	Google  *googletest.Server
	Clients []*Client

	engine string
	token  string
	http   *http.Client
}

// Start starts the simulations. The engine is told their addresses: Meta.URL, Google.URL; that of Mail is in the accounts
// of the clients, which the engine takes if it allows private networks.
func Start() (w *World, err error) {
	w = &World{http: &http.Client{Timeout: 10 * time.Second}}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	if w.Meta, err = whatsapptest.Start(whatsapptest.Config{AppSecret: AppSecret, StatusDelay: 700 * time.Millisecond, JournalLimit: journalLimit}); err != nil {
		return nil, err
	}
	users := map[string]string{}
	for _, c := range casts() {
		users[c.Mailbox] = mailPassword
		w.Clients = append(w.Clients, c)
	}
	if w.Mail, err = smtptest.Start(smtptest.Config{Security: "none", Users: users, JournalLimit: journalLimit}); err != nil {
		return nil, err
	}
	if w.Google, err = googletest.Start(googletest.Config{JournalLimit: journalLimit}); err != nil {
		return nil, err
	}
	for _, c := range w.Clients {
		w.Meta.AddAccount(whatsapptest.Account{
			WABAID: c.waba, Token: c.token, Numbers: []whatsapptest.Number{{ID: c.Number, VerifiedName: c.Name}}, Templates: c.templates,
		})
		w.Google.AddGrant(googletest.Grant{User: c.Calendar, ClientID: googleID, ClientSecret: googleSecret, RefreshToken: c.refresh()})
		for i, b := range pictures() {
			c.pictures[i] = w.Meta.AddMedia(c.Number, "image/jpeg", b)
		}
		c.User.Password = strings.ToLower(rand.Text()[:14])
	}
	return w, nil
}

// Close ends the simulations.
func (w *World) Close() {
	if w.Meta != nil {
		w.Meta.Close()
	}
	if w.Mail != nil {
		w.Mail.Close()
	}
	if w.Google != nil {
		w.Google.Close()
	}
}

func (w *World) admin(ctx context.Context, method, path string, body, into any) error {
	return w.do(ctx, method, path, body, into, func(h http.Header) { h.Set("Authorization", "Bearer "+w.token) })
}

func (w *World) call(ctx context.Context, c *Client, method, path string, body, into any) error {
	return w.do(ctx, method, path, body, into, func(h http.Header) {
		h.Set("X-Api-Key", c.Key)
		h.Set("X-Client-Code", c.Code)
	})
}

func (w *World) do(ctx context.Context, method, path string, body, into any, auth func(http.Header)) error {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, w.engine+path, content)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	auth(req.Header)
	res, err := w.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return &refusal{method + " " + path, res.StatusCode, string(answer)}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// refusal is an answer of the engine's that is not 2xx.
type refusal struct {
	call   string
	status int
	body   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%s was answered %d: %.300s", r.call, r.status, r.body)
}

// refused tells whether an error is an answer with this status.
func refused(err error, status int) bool {
	var r *refusal
	return errors.As(err, &r) && r.status == status
}
