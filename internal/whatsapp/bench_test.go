package whatsapp

import (
	"bytes"
	"fmt"
	"testing"
)

func BenchmarkParseWebhook(b *testing.B) {
	one := body(b, "text_basic.json")
	var many bytes.Buffer
	many.WriteString(`{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[`)
	for i := range 1000 {
		if i > 0 {
			many.WriteByte(',')
		}
		fmt.Fprintf(&many, `{"field":"messages","value":{"messaging_product":"whatsapp","metadata":{"phone_number_id":"3"},"statuses":[{"id":"wamid.%d","status":"sent","timestamp":"1793035014","recipient_id":"12025550143"}]}}`, i)
	}
	many.WriteString(`]}]}`)
	for name, raw := range map[string][]byte{"one": one, "thousand": many.Bytes()} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseWebhook(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
