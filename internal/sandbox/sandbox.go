package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// AppSecret and VerifyToken are those of the simulated Meta app. They open nothing but the demo.
const (
	AppSecret   = "demo-app-secret"
	VerifyToken = "demo-verify-token"
)

// Client is an example client: the engine's answer to its registration, and what it has at the simulated Meta.
type Client struct {
	Code, Name, Zone, Country string
	WABA, Number, Token       string
	Trigger, Template, Body   string
	Variables                 []string // of the template, in order
	Key                       string   // API key, once registered
}

var clients = []Client{
	{
		Code: "CLINIC", Name: "Sunrise Clinic", Zone: "Asia/Kolkata", Country: "IN", WABA: "200000000000001", Number: "300000000000001",
		Token: "demo-token-clinic", Trigger: "appointment_confirmed", Template: "appointment_confirmed",
		Body: "Hello {{1}}, your appointment with {{2}} is confirmed for {{3}}.", Variables: []string{"patientName", "doctorName", "time"},
	},
	{
		Code: "SHOP", Name: "Corner Shop", Zone: "America/New_York", Country: "US", WABA: "200000000000002", Number: "300000000000002",
		Token: "demo-token-shop", Trigger: "product_purchased", Template: "order_confirmation",
		Body: "Thank you {{1}}! Your order of {{2}} is on its way.", Variables: []string{"customer", "product"},
	},
}

// World is the simulation.
type World struct {
	Meta    *whatsapptest.Server
	Clients []Client

	engine string
	token  string
	http   *http.Client
}

// Start starts the simulated Meta. The engine is told its URL.
func Start() (*World, error) {
	meta, err := whatsapptest.Start(whatsapptest.Config{AppSecret: AppSecret, StatusDelay: 400 * time.Millisecond, JournalLimit: 1000})
	if err != nil {
		return nil, err
	}
	w := &World{Meta: meta, http: &http.Client{Timeout: 10 * time.Second}}
	for _, c := range clients {
		w.Clients = append(w.Clients, c)
		meta.AddAccount(whatsapptest.Account{
			WABAID: c.WABA, Token: c.Token, Numbers: []whatsapptest.Number{{ID: c.Number, VerifiedName: c.Name}},
			Templates: []whatsapptest.Template{{Name: c.Template, Language: "en", Body: c.Body}},
		})
	}
	return w, nil
}

// Close ends the simulation.
func (w *World) Close() { w.Meta.Close() }

// Populate registers the example clients with a running engine, gives them their WhatsApp accounts and their rules.
func (w *World) Populate(ctx context.Context, engine, adminToken string) error {
	w.engine, w.token = engine, adminToken
	for i := range w.Clients {
		c := &w.Clients[i]
		w.Meta.SetWebhook(c.WABA, engine+"/api/whatsapp/webhook")
		var made struct {
			APIKey string `json:"apiKey"`
		}
		if err := w.admin(ctx, http.MethodPost, "/api/clients", map[string]any{
			"clientCode": c.Code, "name": c.Name, "timeZone": c.Zone, "defaultCountry": c.Country,
		}, &made); err != nil {
			return err
		}
		c.Key = made.APIKey
		if err := w.admin(ctx, http.MethodPut, "/api/clients/"+c.Code+"/secrets/whatsapp", map[string]any{
			"wabaId": c.WABA, "phoneNumberIds": []string{c.Number}, "accessToken": c.Token,
		}, nil); err != nil {
			return err
		}
		parameters := []string{}
		for _, v := range c.Variables {
			parameters = append(parameters, "{{"+v+"}}")
		}
		if err := w.call(ctx, c, http.MethodPost, "/api/crm/automations/rules", map[string]any{
			"name": "Confirm by WhatsApp", "trigger": c.Trigger, "enabled": true, "reenrol": "every_event",
			"actions": []map[string]any{
				{"type": "whatsapp.template", "template": c.Template, "language": "en", "parameters": parameters},
				{"type": "lead.stage", "stage": "booked"},
				{"type": "lead.tag.add", "tags": []string{"confirmed"}},
				{"type": "lead.score", "points": 20},
			},
		}, nil); err != nil {
			return err
		}
	}
	return nil
}

var (
	names    = []string{"Ana", "Dhanesh", "Maya", "Tom", "Fatima", "Lucas", "Priya", "Noah", "Sofia", "Kenji"}
	doctors  = []string{"Dr. Arjun", "Dr. Rao", "Dr. Silva"}
	products = []string{"two lamps", "a garden chair", "running shoes", "a kettle"}
	days     = []string{"Monday 10:00", "Tuesday 15:30", "Friday 09:15"}
	lines    = []string{"Thank you!", "Can I come an hour later?", "How much is it?", "Where are you exactly?", "Great, see you then"}
)

func pick(from []string) string { return from[rand.N(len(from))] }

// Traffic lets customers book and write until ctx ends, about every pause.
func (w *World) Traffic(ctx context.Context, pause time.Duration, report func(error)) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := 0; ; n++ {
		c := &w.Clients[n%len(w.Clients)]
		person := rand.N(40)
		name, phone := names[person%len(names)], fmt.Sprintf("91814396%04d", 1000+person)
		if c.Country == "US" {
			phone = fmt.Sprintf("1202555%04d", 100+person)
		}
		err := w.call(ctx, c, http.MethodPost, "/api/crm/automations/events", map[string]any{
			"trigger": c.Trigger, "phone": phone, "createLeadIfMissing": true,
			"variables": map[string]any{
				"patientName": name, "doctorName": pick(doctors), "time": pick(days), "customer": name, "product": pick(products),
			},
			"leadData": map[string]any{"source": "website", "name": name},
		}, nil)
		if err == nil && n%3 == 2 {
			err = w.Meta.Receive(ctx, w.Meta.InboundText(c.Number, phone, name, pick(lines)))
		}
		if err != nil && ctx.Err() == nil {
			report(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
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
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, w.engine+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	auth(req.Header)
	res, err := w.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("sandbox: %s %s: %s: %.200s", method, path, res.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}
