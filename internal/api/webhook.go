package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

const (
	maxWebhook     = 4 << 20          // bytes
	webhookTimeout = 10 * time.Second // for the bytes to arrive
	maxChallenge   = 256
)

// MetaApp is the operator's own Meta app, shared by its clients. Empty members verify nothing.
type MetaApp struct{ AppSecret, VerifyToken secret.Text }

// webhook takes in what Meta sends. It looks at the signature over the exact bytes and at nothing else of them: thousands
// come each second, and each is durable before it is answered.
type webhook struct {
	app     MetaApp
	tenants *tenant.Registry
	intake  *chat.Intake
}

// RegisterWebhook adds the two addresses that Meta calls: the operator's app, and a client's own.
func RegisterWebhook(a *API, app MetaApp, tenants *tenant.Registry, intake *chat.Intake) {
	h := webhook{app, tenants, intake}
	a.HandleFunc("POST /api/whatsapp/webhook", func(w http.ResponseWriter, r *http.Request) error {
		return h.receive(w, r, "", app.AppSecret)
	})
	a.HandleFunc("POST /api/whatsapp/webhook/{clientCode}", func(w http.ResponseWriter, r *http.Request) error {
		code, appSecret, err := h.own(r.Context(), r.PathValue("clientCode"), tenants.AppSecret)
		if err != nil {
			return err
		}
		return h.receive(w, r, code, appSecret)
	})
	a.HandleFunc("GET /api/whatsapp/webhook", func(w http.ResponseWriter, r *http.Request) error {
		return verify(w, r, app.VerifyToken)
	})
	a.HandleFunc("GET /api/whatsapp/webhook/{clientCode}", func(w http.ResponseWriter, r *http.Request) error {
		_, token, err := h.own(r.Context(), r.PathValue("clientCode"), tenants.VerifyToken)
		if err != nil {
			return err
		}
		return verify(w, r, token)
	})
	for _, path := range []string{"/api/whatsapp/webhook", "/api/whatsapp/webhook/{clientCode}"} {
		a.documentWebhook(path)
	}
}

// own gives a client's code as it is stored and one of its secrets; an empty one for a client that has none, is not
// there or is being erased: those look alike.
func (h webhook) own(ctx context.Context, code string, of func(context.Context, string) (secret.Text, error)) (string, secret.Text, error) {
	code, ok := tenant.Code(code)
	if status := h.tenants.Status(code); !ok || status == "" || status == tenant.Erasing {
		return "", "", nil
	}
	s, err := of(ctx, code)
	return code, s, err
}

var received = []byte("EVENT_RECEIVED")

// receive verifies a delivery and makes it durable. client is whose app it came through, "" for the operator's.
func (h webhook) receive(w http.ResponseWriter, r *http.Request, client string, appSecret secret.Text) error {
	body, err := ReadBody(w, r, maxWebhook, webhookTimeout)
	if err != nil {
		return err
	}
	if !whatsapp.VerifySignature(appSecret, r.Header.Get(whatsapp.SignatureHeader), body) {
		return fault.New(fault.Unauthenticated, "whatsapp.signature", "The signature of the body is missing or wrong.")
	}
	if err := h.intake.Receive(r.Context(), client, body); err != nil {
		if errors.Is(err, context.Canceled) {
			return err
		}
		f := fault.Wrap(err, fault.Unavailable, "inbox.unavailable", "The delivery cannot be stored now. Send it again.")
		f.RetryAfter = 5 * time.Second
		return f
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return write(w, received)
}

// verify answers Meta's question whether an address is ours: with the challenge, and nothing else of the request.
func verify(w http.ResponseWriter, r *http.Request, token secret.Text) error {
	q := r.URL.Query()
	challenge := q.Get("hub.challenge")
	if q.Get("hub.mode") != "subscribe" || !sameSecret(q.Get("hub.verify_token"), token) || !plainChallenge(challenge) {
		return fault.New(fault.Forbidden, "whatsapp.verify", "The verify token is missing or wrong, or the request is not one for verification.")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	return write(w, []byte(challenge))
}

// sameSecret compares in a time that tells neither where two values differ nor how long they are. An empty secret is
// nobody's.
func sameSecret(got string, want secret.Text) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want.Reveal()))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && want != ""
}

func plainChallenge(s string) bool {
	if s == "" || len(s) > maxChallenge {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_', c == '.', c == '=', c == '+', c == '/':
		default:
			return false
		}
	}
	return true
}

// documentWebhook puts an address into the OpenAPI document: plain handlers have no place in it.
func (a *API) documentWebhook(path string) {
	text := map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}}
	id, what := "", "the operator's Meta app"
	params := []*huma.Param{}
	if path != "/api/whatsapp/webhook" {
		id, what = "OfClient", "a client's own Meta app"
		params = append(params, &huma.Param{Name: "clientCode", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	str := func(name, in, doc string) *huma.Param {
		return &huma.Param{Name: name, In: in, Required: true, Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	responses := func(ok string, codes ...int) map[string]*huma.Response {
		m := map[string]*huma.Response{"200": {Description: ok, Content: text}}
		for _, c := range codes {
			m[strconv.Itoa(c)] = a.problemResponse(c)
		}
		return m
	}
	doc := a.huma.OpenAPI()
	doc.AddOperation(&huma.Operation{
		OperationID: "verifyWebhook" + id, Method: http.MethodGet, Path: path, Tags: []string{"WhatsApp"},
		Summary: "Meta verifies the webhook address of " + what, Security: security(AccessPublic),
		Parameters: append(params[:len(params):len(params)], str("hub.mode", "query", "subscribe"), str("hub.verify_token", "query", ""), str("hub.challenge", "query", "")),
		Responses:  responses("The challenge, bare.", http.StatusForbidden, http.StatusServiceUnavailable),
	})
	doc.AddOperation(&huma.Operation{
		OperationID: "receiveWebhook" + id, Method: http.MethodPost, Path: path, Tags: []string{"WhatsApp"},
		Summary: "Meta delivers through " + what, Security: security(AccessPublic),
		Description: "At most 4 MiB. Answered 200 when the exact bytes are durable; what is in them is sorted afterwards.",
		Parameters:  append(params[:len(params):len(params)], str(whatsapp.SignatureHeader, "header", "sha256= and the HMAC-SHA256 of the body under the app secret, in hex.")),
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}}}},
		Responses: responses("The delivery is durable.", http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge,
			http.StatusServiceUnavailable),
	})
}
