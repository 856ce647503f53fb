package sandbox

import (
	"fmt"
	"strings"

	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// What the simulations let the engine in with.
const (
	mailPassword = "demo-mail-password"
	googleID     = "demo-google-client"
	googleSecret = "demo-google-secret"
)

// cast is what a client's story is made of.
type cast struct {
	zone, country string
	waba, token   string
	templates     []whatsapptest.Template
	people        []person
	pipeline      obj
	rules         []obj
	campaigns     []obj
	pictures      [3]string // the ids that they have at Meta
}

// obj is a JSON object.
type obj = map[string]any

// person is a customer. The first known of them are leads from the beginning, some of the others come by the website.
type person struct{ name, phone, email string }

const (
	known   = 24
	crowd   = 36
	mute    = known - 1 // wants no messages, and says so
	oftener = 20        // so many of the known write and book
)

func (c *cast) refresh() string { return "refresh-of-" + c.waba }

// person i comes again after all others.
func (c *cast) person(i int) person { return c.people[i%len(c.people)] }

func people(country string) (out []person) {
	names := strings.Split("Ana Rao,Dhanesh Kumar,Maya Iyer,Tom Becker,Fatima Khan,Lucas Alves,Priya Nair,Noah Meyer,Sofia Costa,Kenji Mori,Lena Vogt,Omar Haddad,"+
		"Ivy Chen,Raj Patel,Clara Dupont,Ben Adler,Zara Ali,Hugo Marin,Nina Petrova,Sam Okafor,Elif Kaya,Jonas Lind,Rosa Diaz,Igor Novak,"+
		"Amy Walsh,Karim Aziz,Tess de Vries,Leo Rossi,Mira Das,Paul Nagy,Ruth Cohen,Yusuf Demir,Greta Holm,Ken Tan,Isla Reid,Vera Popa", ",")
	for i, name := range names[:crowd] {
		phone := fmt.Sprintf("91814396%04d", 1001+i)
		if country == "US" {
			phone = fmt.Sprintf("1202555%04d", 101+i)
		}
		out = append(out, person{name, phone, strings.ToLower(strings.ReplaceAll(name, " ", ".")) + "@example.com"})
	}
	return out
}

func casts() []*Client {
	return []*Client{
		{
			Code: "CLINIC", Name: "Sunrise Clinic", Number: "300000000000001", Mailbox: "hello@sunrise.example", Calendar: "desk@sunrise.example",
			User: User{Name: "Dana Roy", Email: "dana@sunrise.example"},
			cast: cast{
				zone: "Asia/Kolkata", country: "IN", waba: "200000000000001", token: "demo-token-clinic", people: people("IN"),
				templates: append(templates(),
					utility("appointment_confirmed", "Hello {{1}}, your appointment with {{2}} is confirmed for {{3}}."),
					marketing("spring_checkup", "Hello {{1}}, spring check-ups are open. Shall we book one for you?")),
				pipeline: obj{"id": "treatments", "name": "Treatments", "stages": []obj{
					{"id": "new", "name": "New"}, {"id": "contacted", "name": "Contacted"}, {"id": "booked", "name": "Booked"}, {"id": "treated", "name": "Treated", "kind": "won"}, {"id": "lost", "name": "Lost"},
				}},
				rules: append(rules("Sunrise Clinic", "A first consultation is 500 rupees; the second one is free."), obj{
					"name": "Confirm the appointment", "trigger": "appointment_confirmed", "enabled": true, "reenrol": "every_event",
					"actions": []obj{
						{"type": "whatsapp.template", "template": "appointment_confirmed", "language": "en", "parameters": []string{"{{patientName}}", "{{doctorName}}", "{{time}}"}},
						{"type": "email.send", "subject": "Your appointment with {{doctorName}}", "html": "<p>Hello {{patientName}},</p><p>we see you {{time}}.</p>", "text": "Hello {{patientName}}, we see you {{time}}."},
						{"type": "lead.stage", "pipeline": "treatments", "stage": "booked"},
						{"type": "lead.tag.add", "tags": []string{"booked"}},
						{"type": "lead.score", "points": 20},
						{"type": "lead.set", "fields": obj{"doctor": "{{doctorName}}"}},
						{"type": "meet.create", "title": "{{doctorName}} and {{patientName}}", "startsAt": "{{startsAt}}", "durationMinutes": 30},
						{"type": "whatsapp.text", "text": "If you cannot come, meet {{doctorName}} by video: {{meet.url}}"},
					},
				}),
				campaigns: []obj{
					{"name": "Spring check-up by e-mail", "channel": "email", "audience": obj{"filter": obj{"tag": "newsletter"}}, "ratePerSecond": 0.5,
						"content": obj{"subject": "{{name}}, spring check-ups are open", "html": "<p>Hello {{name}}, book yours now.</p>", "text": "Hello {{name}}, book yours now."}},
					{"name": "Spring check-up by WhatsApp", "channel": "whatsapp", "audience": obj{"filter": obj{"tag": "offers"}}, "ratePerSecond": 0.5,
						"content": obj{"template": "spring_checkup", "language": "en", "parameters": []string{"{{name}}"}}},
				},
			},
		},
		{
			Code: "SHOP", Name: "Corner Shop", Number: "300000000000002", Mailbox: "orders@corner.example", Calendar: "tom@corner.example",
			User: User{Name: "Tom Brook", Email: "tom@corner.example"},
			cast: cast{
				zone: "America/New_York", country: "US", waba: "200000000000002", token: "demo-token-shop", people: people("US"),
				templates: append(templates(),
					utility("order_confirmation", "Thank you {{1}}! Your order of {{2}} is on its way."),
					utility("review_request", "Hello {{1}}, how do you like {{2}}?"),
					marketing("garden_sale", "Hello {{1}}, everything for the garden is 20% off this week.")),
				pipeline: obj{"id": "orders", "name": "Orders", "stages": []obj{
					{"id": "new", "name": "New"}, {"id": "basket", "name": "Basket"}, {"id": "ordered", "name": "Ordered"}, {"id": "returning", "name": "Returning", "kind": "won"}, {"id": "lost", "name": "Lost"},
				}},
				rules: append(rules("Corner Shop", "Prices are on corner.example; delivery is free from 50 dollars."),
					obj{"name": "Confirm the order", "trigger": "product_purchased", "enabled": true, "reenrol": "every_event", "actions": []obj{
						{"type": "whatsapp.template", "template": "order_confirmation", "language": "en", "parameters": []string{"{{customer}}", "{{product}}"}},
						{"type": "email.send", "subject": "Your order: {{product}}", "html": "<p>Thank you {{customer}}.</p>", "text": "Thank you {{customer}}."},
						{"type": "lead.stage", "pipeline": "orders", "stage": "ordered"},
						{"type": "lead.tag.add", "tags": []string{"customer"}},
						{"type": "lead.score", "points": 25},
						{"type": "branch", "condition": "event.variables.amount >= 200", "then": []obj{{"type": "lead.tag.add", "tags": []string{"big order"}}}},
					}},
					obj{"name": "Ask for a review", "trigger": "product_purchased", "enabled": true, "exits": []string{"opt_out"}, "actions": []obj{
						{"type": "wait", "for": "20s"},
						{"type": "whatsapp.template", "template": "review_request", "language": "en", "parameters": []string{"{{customer}}", "{{product}}"}},
					}}),
				campaigns: []obj{
					{"name": "Garden sale by e-mail", "channel": "email", "audience": obj{"filter": obj{"tag": "newsletter"}}, "ratePerSecond": 0.5,
						"content": obj{"subject": "{{name}}, 20% off for the garden", "html": "<p>Hello {{name}}, this week only.</p>", "text": "Hello {{name}}, this week only."}},
					{"name": "Garden sale by WhatsApp", "channel": "whatsapp", "audience": obj{"filter": obj{"tag": "offers"}}, "ratePerSecond": 0.5,
						"content": obj{"template": "garden_sale", "language": "en", "parameters": []string{"{{name}}"}}},
				},
			},
		},
	}
}

func utility(name, body string) whatsapptest.Template {
	return whatsapptest.Template{Name: name, Language: "en", Body: body}
}

func marketing(name, body string) whatsapptest.Template {
	return whatsapptest.Template{Name: name, Language: "en", Body: body, Category: "MARKETING"}
}

// templates are those that both clients have.
func templates() []whatsapptest.Template {
	return []whatsapptest.Template{
		utility("welcome", "Hello {{1}}, this is {{2}}. Thank you for your message. How can we help?"),
		utility("follow_up", "Hello {{1}}, do you still have a question for us?"),
		utility("appointment_reminder", "Hello {{1}}, we meet at {{2}}. Join here: {{3}}"),
	}
}

// rules are those that both clients have.
func rules(name, prices string) []obj {
	return []obj{
		{"name": "Points for new leads", "trigger": "lead_created", "enabled": true, "actions": []obj{
			{"type": "lead.score", "points": 5},
			{"type": "branch", "condition": "lead.source == 'referral'", "then": []obj{{"type": "lead.score", "points": 15}}},
		}},
		{"name": "Welcome, then follow up", "trigger": "form_submitted", "enabled": true, "actions": []obj{
			{"type": "lead.tag.add", "tags": []string{"website"}},
			{"type": "lead.score", "points": 10},
			{"type": "whatsapp.template", "template": "welcome", "language": "en", "parameters": []string{"{{lead.name}}", name}},
			{"type": "wait", "for": "15s"},
			{"type": "whatsapp.template", "template": "follow_up", "language": "en", "parameters": []string{"{{lead.name}}"}},
		}},
		{"name": "Tag who answers", "trigger": "message_received", "enabled": true, "condition": "!('replied' in lead.tags)", "actions": []obj{
			{"type": "lead.tag.add", "tags": []string{"replied"}},
			{"type": "lead.score", "points": 15},
		}},
		{"name": "Tag who is keen", "trigger": "tag_added", "enabled": true, "condition": "event.variables.tag == 'replied' && lead.score >= 30", "actions": []obj{
			{"type": "lead.tag.add", "tags": []string{"hot"}},
		}},
		{"name": "Tell the prices", "trigger": "message_received", "enabled": true, "reenrol": "every_event",
			"condition": "event.variables.type == 'text' && event.variables.text contains 'How much'",
			"actions":   []obj{{"type": "whatsapp.text", "text": prices}}},
		{"name": "Remind of the appointment", "trigger": "appointment_reminder", "enabled": true, "reenrol": "every_event", "actions": []obj{
			{"type": "whatsapp.template", "template": "appointment_reminder", "language": "en",
				"parameters": []string{"{{lead.name}}", "{{appointment.time}}", "{{appointment.meetUrl}}"}},
		}},
	}
}
