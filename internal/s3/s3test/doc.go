// Package s3test is an S3 server on a real listener, holding its objects in
// memory: it verifies every signature, is as strict as the strictest store that
// it stands for, keeps a journal, and misbehaves on request.
//
// It is not a mock of package s3 and shares no code with it or with its library,
// so that they can disagree. It knows no *testing.T: tests and the demo run the
// same server.
//
// What it refuses, as R2 did: aws-chunked framing, trailers, x-amz-checksum and
// x-amz-sdk headers, uploads without a length (all 501 or 411), and, stricter
// than any, an upload whose bytes nothing vouches for.
//
//	s, err := s3test.Start(s3test.Config{AccessKeyID: "…", SecretAccessKey: "…", Region: "auto", Buckets: []string{"media"}})
//	defer s.Close()
//	s.Next(1, "put", s3test.SlowDown())
//	…
//	for _, r := range s.Requests() { … }
package s3test
