package whatsapptest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Change is one change of a webhook body; Batch makes bodies of them.
type Change struct {
	WABAID string
	Field  string
	Time   time.Time // of the entry; zero: none, as for messages
	Value  map[string]any
	ID     string // of the message or status it carries
}

// Inbound is a message as a user sends it.
type Inbound struct {
	PhoneNumberID string // to whom
	From          string // phone digits, or a user id ("GB.9021…") of somebody who hides the phone
	Name          string // profile name; "" for none
	Type          string // "text", "image", "button", "system", …
	Object        any    // what stands under the type
	ID            string // default made up
	At            time.Time
	Extra         map[string]any // further keys of the message: "context", "referral", "errors", …
}

// InboundText is a text that a user sends.
func (s *Server) InboundText(phoneNumberID, from, name, text string) Change {
	return s.InboundMessage(Inbound{PhoneNumberID: phoneNumberID, From: from, Name: name, Type: "text", Object: map[string]any{"body": text}})
}

// InboundMedia is a file that a user sends, put there by AddMedia; kind is
// "image", "audio", "video", "document" or "sticker".
func (s *Server) InboundMedia(phoneNumberID, from, name, kind, mediaID, caption string) Change {
	o := map[string]any{"id": mediaID}
	s.mu.Lock()
	if f := s.files[mediaID]; f != nil {
		o["mime_type"], o["sha256"] = f.mime, base64.StdEncoding.EncodeToString(f.sum())
	}
	s.mu.Unlock()
	if caption != "" {
		o["caption"] = caption
	}
	return s.InboundMessage(Inbound{PhoneNumberID: phoneNumberID, From: from, Name: name, Type: kind, Object: o})
}

// InboundMessage is any message that a user sends.
func (s *Server) InboundMessage(m Inbound) Change {
	if m.ID == "" {
		m.ID = "wamid." + base64.StdEncoding.EncodeToString([]byte("user"+newID(20)))
	}
	if m.At.IsZero() {
		m.At = s.cfg.Now()
	}
	msg := map[string]any{"id": m.ID, "timestamp": strconv.FormatInt(m.At.Unix(), 10), "type": m.Type}
	if m.Object != nil {
		msg[m.Type] = m.Object
	}
	contact, who := person(m.From, m.Name)
	msg["from_user_id"] = who.user
	if who.phone != "" {
		msg["from"] = who.phone
	}
	for k, v := range m.Extra {
		msg[k] = v
	}
	value, waba := s.value(m.PhoneNumberID)
	value["messages"] = []any{msg}
	if m.Type != "system" {
		value["contacts"] = []any{contact}
	}
	return Change{WABAID: waba, Field: "messages", Value: value, ID: m.ID}
}

// Preference is a user's word on marketing messages: "stop" or "resume".
func (s *Server) Preference(phoneNumberID, from, name, word string) Change {
	contact, who := person(from, name)
	p := map[string]any{"user_id": who.user, "detail": "User requested to " + word + " marketing messages", "category": "marketing_messages", "value": word, "timestamp": s.cfg.Now().Unix()}
	if who.phone != "" {
		p["wa_id"] = who.phone
	}
	value, waba := s.value(phoneNumberID)
	value["contacts"], value["user_preferences"] = []any{contact}, []any{p}
	return Change{WABAID: waba, Field: "user_preferences", Value: value}
}

// StatusFor is a status of an accepted message: "sent", "delivered", "read",
// "played", or "failed" with the codes of its errors.
func (s *Server) StatusFor(a Accepted, status string, codes ...int) Change {
	st := map[string]any{"id": a.ID, "status": status, "timestamp": strconv.FormatInt(s.cfg.Now().Unix(), 10)}
	value, waba := s.value(a.PhoneNumberID)
	if a.To != "" {
		st["recipient_id"] = a.WAID
	}
	if status != "failed" || a.To == "" {
		st["recipient_user_id"] = a.UserID
	}
	if a.BizOpaque != "" {
		st["biz_opaque_callback_data"] = a.BizOpaque
	}
	switch status {
	case "failed":
		var errs []any
		for _, c := range codes {
			errs = append(errs, map[string]any{"code": c, "title": fmt.Sprintf("Error %d", c), "message": fmt.Sprintf("Error %d", c),
				"error_data": map[string]any{"details": "as asked for"}, "href": "/documentation/business-messaging/whatsapp/support/error-codes"})
		}
		st["errors"] = errs
	default:
		contact := map[string]any{"profile": map[string]any{}, "user_id": a.UserID}
		if a.To != "" {
			contact["wa_id"] = a.WAID
		}
		value["contacts"] = []any{contact}
		category := "service"
		if a.Type == "template" {
			category = "utility"
		}
		if status == "delivered" {
			st["pricing"] = map[string]any{"billable": a.Type == "template", "pricing_model": "PMP", "type": "regular", "category": category}
		}
	}
	value["statuses"] = []any{st}
	return Change{WABAID: waba, Field: "messages", Value: value, ID: a.ID}
}

type who struct{ phone, user string }

// person is the contact of a phone, or of somebody who has a user id only.
func person(from, name string) (map[string]any, who) {
	w := who{phone: from, user: UserID(from)}
	if strings.Contains(from, ".") {
		w = who{user: from}
	}
	profile := map[string]any{}
	if name != "" {
		profile["name"] = name
	}
	c := map[string]any{"profile": profile, "user_id": w.user}
	if w.phone != "" {
		c["wa_id"] = w.phone
	} else {
		profile["username"] = strings.ToLower(strings.ReplaceAll(from, ".", ""))
	}
	return c, w
}

// value is the head of a number's value; the number need not be known.
func (s *Server) value(number string) (map[string]any, string) {
	display, waba := number, "0"
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		for _, n := range a.Numbers {
			if n.ID == number {
				display, waba = n.Display, a.WABAID
			}
		}
	}
	return map[string]any{"messaging_product": "whatsapp", "metadata": map[string]any{"display_phone_number": display, "phone_number_id": number}}, waba
}

// Batch makes one body: an entry for each run of changes of one account, in
// order, written as Meta writes JSON (\u00e4, \/).
func Batch(changes ...Change) []byte {
	var entries []map[string]any
	for i, c := range changes {
		if i == 0 || changes[i-1].WABAID != c.WABAID {
			e := map[string]any{"id": c.WABAID, "changes": []any{}}
			if !c.Time.IsZero() {
				e["time"] = c.Time.Unix()
			}
			entries = append(entries, e)
		}
		e := entries[len(entries)-1]
		e["changes"] = append(e["changes"].([]any), map[string]any{"field": c.Field, "value": c.Value})
	}
	return wire(map[string]any{"object": "whatsapp_business_account", "entry": entries})
}

func wire(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
	var out bytes.Buffer
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		switch {
		case r == '/':
			out.WriteString(`\/`)
		case r < utf8.RuneSelf:
			out.WriteByte(byte(r))
		default:
			for _, u := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&out, `\u%04x`, u)
			}
		}
	}
	return out.Bytes()
}

// Sign is the X-Hub-Signature-256 of a body.
func Sign(appSecret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(appSecret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// Deliver posts a body to an address once, signed with the server's app secret,
// and gives the HTTP status.
func (s *Server) Deliver(ctx context.Context, url string, body []byte) (int, error) {
	return s.DeliverAs(ctx, url, s.cfg.AppSecret, body)
}

// DeliverAs posts a body signed with another app's secret.
func (s *Server) DeliverAs(ctx context.Context, url, appSecret string, body []byte) (int, error) {
	d := Delivery{At: s.cfg.Now(), URL: url, Body: body}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "facebookexternalua")
	req.Header.Set("X-Hub-Signature-256", Sign(appSecret, body))
	resp, err := s.out.Do(req)
	if errors.Is(err, context.Canceled) { // our own end, and nothing that the receiver did
		return 0, err
	}
	if err != nil {
		d.Err = err.Error()
	} else {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
		_ = resp.Body.Close()
		d.Status = resp.StatusCode
	}
	s.change(func(j *journal) { j.deliveries = append(j.deliveries, d) })
	return d.Status, err
}

// Receive posts changes as one body to where the first one's account has its
// webhooks, once; an error if that is nowhere or the answer is not 200.
func (s *Server) Receive(ctx context.Context, changes ...Change) error {
	if len(changes) == 0 {
		return nil
	}
	url, secret := s.webhook(changes[0].WABAID)
	if url == "" {
		return fmt.Errorf("account %s has no webhook address", changes[0].WABAID)
	}
	status, err := s.DeliverAs(ctx, url, secret, Batch(changes...))
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the webhook was answered with %d", status)
	}
	return err
}

func (s *Server) webhook(waba string) (url, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	url, secret = s.cfg.WebhookURL, s.cfg.AppSecret
	for _, a := range s.accounts {
		if a.WABAID == waba {
			url, secret = first(a.WebhookURL, url), first(a.AppSecret, secret)
		}
	}
	return url, secret
}

// follow posts the statuses of an accepted message, each until it is taken.
func (s *Server) follow(a Accepted, f *Fault) {
	script := s.cfg.Statuses
	code := 0
	if f != nil && f.statuses != nil {
		script = f.statuses(script)
	}
	if f != nil && f.fail != 0 {
		script, code = []string{"failed"}, f.fail
	}
	if url, _ := s.webhook(a.WABAID); url == "" || len(script) == 0 {
		return
	}
	s.spawn(func() {
		for _, status := range script {
			if !s.sleep(s.cfg.StatusDelay) {
				return
			}
			var codes []int
			if code != 0 {
				codes = []int{code}
			}
			body := Batch(s.StatusFor(a, status, codes...))
			for !s.push(a.WABAID, body) {
				if !s.sleep(s.cfg.RetryEvery) {
					return
				}
			}
		}
	})
}

// push posts a body once; false if it was not taken.
func (s *Server) push(waba string, body []byte) bool {
	select {
	case s.post <- struct{}{}:
		defer func() { <-s.post }()
	case <-s.life.Done():
		return false
	}
	url, secret := s.webhook(waba)
	ctx, cancel := context.WithTimeout(s.life, 20*time.Second)
	defer cancel()
	status, err := s.DeliverAs(ctx, url, secret, body)
	return err == nil && status == http.StatusOK
}

// sleep is false if the server closes before the time is over.
func (s *Server) sleep(d time.Duration) bool {
	if d <= 0 {
		return s.life.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.life.Done():
		return false
	}
}
