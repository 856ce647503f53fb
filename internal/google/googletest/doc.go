// Package googletest is Google's token endpoint (<URL>/token) and Calendar API
// (<URL>/calendar/v3/…) on a real listener: it judges what it is sent as
// strictly as Google does, keeps a journal of what it accepted, and misbehaves
// on request.
//
// It is not a mock of package google and shares no code with it, so that the
// two can disagree. It knows no *testing.T: tests and the demo run the same server.
//
//	s, err := googletest.Start(googletest.Config{PendingPolls: 2})
//	defer s.Close()
//	s.AddGrant(googletest.Grant{User: "ana@clinic.example", ClientID: "…", ClientSecret: "…", RefreshToken: "…"})
//	s.On("insert", 1, googletest.ResetAfterAccepting())
//	…
//	got, err := s.WaitWrites(ctx, 1)
package googletest
