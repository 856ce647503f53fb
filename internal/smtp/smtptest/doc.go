// Package smtptest is an SMTP server on a real listener: it judges what it is
// sent strictly, keeps a journal of what it took, and misbehaves on request.
//
// It is not a mock of package smtp and shares no code with it, so that the two
// can disagree. It delivers nothing. It knows no *testing.T: tests and the demo
// run the same server.
//
//	s, err := smtptest.Start(smtptest.Config{Users: map[string]string{"user": "password"}})
//	defer s.Close()
//	s.Next(1, ".", smtptest.Accepting(smtptest.Reset()))
//	…
//	got, err := s.WaitAccepted(ctx, 1)
package smtptest
