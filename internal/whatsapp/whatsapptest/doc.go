// Package whatsapptest is a Graph API server for WhatsApp on a real listener: it
// judges what it is sent as strictly as Meta does, keeps a journal of what it
// accepted, posts signed webhooks, and misbehaves on request.
//
// It is not a mock of package whatsapp and shares no code with it, so that the
// two can disagree. It knows no *testing.T: tests and the demo run the same server.
//
//	s, err := whatsapptest.Start(whatsapptest.Config{AppSecret: "…", WebhookURL: engine + "/api/whatsapp/webhook"})
//	defer s.Close()
//	s.AddAccount(whatsapptest.Account{WABAID: "200…", Token: "…", Numbers: []whatsapptest.Number{{ID: "300…"}}})
//	s.Next(1, whatsapptest.ResetAfterAccepting())
//	…
//	got, err := s.WaitAccepted(ctx, 1)
package whatsapptest
