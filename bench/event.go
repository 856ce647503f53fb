package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

const (
	singleEvents = 300
	betweenThem  = 20 * time.Millisecond // the engine is idle again by then
)

// eventToCall measures from the posting of an event to the arrival of the message it causes at a Graph API, one event
// at a time: what the engine itself takes, in a process that has nothing else to do.
func (b *bench) eventToCall(ctx context.Context) error {
	meta, err := whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret, Statuses: []string{}})
	if err != nil {
		return err
	}
	defer meta.Close()
	e, err := b.serve(filepath.Join(b.dir, "events"), meta.URL)
	if err != nil {
		return err
	}
	defer func() { _ = e.cmd.Process.Kill() }()
	c, err := e.register(1)
	if err != nil {
		return err
	}
	meta.AddAccount(whatsapptest.Account{WABAID: c.WABA, Token: c.Token, Numbers: []whatsapptest.Number{{ID: c.Number}},
		Templates: []whatsapptest.Template{{Name: "appointment_confirmed", Language: "en", Body: "Hi {{1}}, {{2}} sees you {{3}}."}}})
	key := map[string]string{"x-api-key": c.Key, "x-client-code": c.Code}
	err = call("POST", e.url+"/api/crm/automations/rules", key, map[string]any{
		"name": "Confirm", "trigger": "appointment_confirmed", "enabled": true, "reenrol": "every_event",
		"actions": []map[string]any{{"type": "whatsapp.template", "template": "appointment_confirmed", "language": "en",
			"parameters": []string{"{{patientName}}", "{{doctorName}}", "{{time}}"}}},
	}, nil)
	if err != nil {
		return err
	}
	const warm = 20
	var toCall, toAnswer []time.Duration
	for i := range warm + singleEvents {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(betweenThem):
		}
		sent := time.Now()
		err := call("POST", e.url+"/api/crm/automations/events", key, map[string]any{
			"trigger": "appointment_confirmed", "phone": fmt.Sprintf("9181439%05d", i), "eventId": fmt.Sprintf("ev-%d", i), "createLeadIfMissing": true,
			"variables": map[string]any{"patientName": "Dhanesh", "doctorName": "Dr. Arjun", "time": "Monday 10AM"},
			"leadData":  map[string]any{"source": "website", "name": "Dhanesh"},
		}, nil)
		if err != nil {
			return err
		}
		answered := time.Now()
		wait, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err = meta.WaitAccepted(wait, i+1)
		cancel()
		if err != nil {
			return err
		}
		if i >= warm {
			calls := meta.Requests()
			toCall, toAnswer = append(toCall, calls[len(calls)-1].At.Sub(sent)), append(toAnswer, answered.Sub(sent))
		}
	}
	slices.Sort(toCall)
	slices.Sort(toAnswer)
	p50, p99 := quantile(toCall, .5), quantile(toCall, .99)
	b.note("event to Graph call, idle", p50 <= 5*time.Millisecond && p99 <= 50*time.Millisecond, "p50 ≤ 5 ms, p99 ≤ 50 ms", "p50 %s, p99 %s, max %s",
		ms(p50), ms(p99), ms(quantile(toCall, 1)))
	b.note("the same, event to answer", true, "", "p50 %s, p99 %s", ms(quantile(toAnswer, .5)), ms(quantile(toAnswer, .99)))
	return e.stop()
}
