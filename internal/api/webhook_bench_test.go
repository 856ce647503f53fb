package api_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// noInbox takes everything and keeps nothing.
type noInbox struct{ store.Inbox }

func (noInbox) Receive(context.Context, *store.Delivery) error { return nil }

// BenchmarkWebhook is what a delivery costs besides the disk and the network: the shell, the signature, the answer.
func BenchmarkWebhook(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	a := api.New(api.Config{Log: log})
	intake := chat.NewIntake(chat.IntakeConfig{Inbox: noInbox{}, Now: time.Now, Log: log})
	api.RegisterWebhook(a, api.MetaApp{AppSecret: appSecret}, tenant.NewRegistry(tenant.Config{Log: log, Now: time.Now}), intake)
	body := bytes.Repeat([]byte("x"), 1200)
	signature := whatsapptest.Sign(appSecret, body)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := httptest.NewRequest(http.MethodPost, hook, bytes.NewReader(body))
			r.Header.Set(whatsapp.SignatureHeader, signature)
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				b.Fatal(w.Code)
			}
		}
	})
}
