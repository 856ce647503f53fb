package s3test_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ecodrix/ecod/internal/s3/s3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// example is the server of the worked examples in Amazon's description of the
// signature, at their time: the one witness that is neither ours nor the client's.
func example(t *testing.T, now time.Time) *s3test.Server {
	t.Helper()
	s, err := s3test.Start(s3test.Config{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		Region: "us-east-1", Buckets: []string{"examplebucket"}, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Set("examplebucket", "test.txt", s3test.Object{Body: []byte("hello"), MIME: "text/plain"})
	return s
}

func serve(s *s3test.Server, r *http.Request) (int, string) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	b, _ := io.ReadAll(w.Result().Body)
	return w.Code, string(b)
}

func TestAmazonsExampleOfASignedLink(t *testing.T) {
	const link = "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
	day := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	get := func(l string) *http.Request { return httptest.NewRequest(http.MethodGet, l, nil) }
	for _, c := range []struct {
		name string
		at   time.Time
		link string
		want int
		code string
	}{
		{"as given", day, link, 200, "hello"},
		{"in its last second", day.Add(24*time.Hour - time.Second), link, 200, "hello"},
		{"expired", day.Add(24 * time.Hour), link, 403, "Request has expired"},
		{"too early", day.Add(-time.Hour), link, 403, "not valid yet"},
		{"longer", day, strings.Replace(link, "86400", "86401", 1), 403, "SignatureDoesNotMatch"},
		{"too long", day, strings.Replace(link, "86400", "604801", 1), 400, "AuthorizationQueryParametersError"},
		{"another key", day, strings.Replace(link, "test.txt", "test2.txt", 1), 403, "SignatureDoesNotMatch"},
		{"more asked", day, link + "&response-content-type=text%2Fhtml", 403, "SignatureDoesNotMatch"},
		{"another day", day, strings.Replace(link, "20130524%2F", "20130525%2F", 1), 403, "SignatureDoesNotMatch"},
		{"another region", day, strings.Replace(link, "us-east-1", "auto", 1), 400, "AuthorizationHeaderMalformed"},
		{"another caller", day, strings.Replace(link, "EXAMPLE", "EXAMPLF", 1), 403, "InvalidAccessKeyId"},
		{"no signature", day, link[:strings.Index(link, "?")], 403, "AccessDenied"},
	} {
		status, body := serve(example(t, c.at), get(c.link))
		if status != c.want || !strings.Contains(body, c.code) {
			t.Errorf("%s: %d %s, want %d %s", c.name, status, body, c.want, c.code)
		}
	}
	if status, _ := serve(example(t, day), httptest.NewRequest(http.MethodPut, link, strings.NewReader("x"))); status != 403 {
		t.Errorf("a link to read was good for writing: %d", status)
	}
}

func TestAmazonsExampleOfASignedHeader(t *testing.T) {
	at := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	request := func() *http.Request {
		r := httptest.NewRequest(http.MethodGet, "https://examplebucket.s3.amazonaws.com/test.txt", nil)
		r.Header.Set("Range", "bytes=0-9")
		r.Header.Set("X-Amz-Content-Sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
		r.Header.Set("X-Amz-Date", "20130524T000000Z")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
		return r
	}
	s := example(t, at)
	if status, body := serve(s, request()); status != 200 {
		t.Errorf("as given: %d %s", status, body)
	}
	for name, edit := range map[string]func(*http.Request){
		"a signed header changed":   func(r *http.Request) { r.Header.Set("Range", "bytes=0-8") },
		"an x-amz header unsigned":  func(r *http.Request) { r.Header.Set("X-Amz-Acl", "public-read") },
		"a query added":             func(r *http.Request) { r.URL.RawQuery = "acl" },
		"another payload":           func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") },
		"no payload":                func(r *http.Request) { r.Header.Del("X-Amz-Content-Sha256") },
		"a security token unsigned": func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "t") },
	} {
		r := request()
		edit(r)
		if status, body := serve(s, r); status != 403 && status != 400 {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if status, body := serve(example(t, at.Add(16*time.Minute)), request()); status != 403 || !strings.Contains(body, "RequestTimeTooSkewed") {
		t.Errorf("16 minutes late: %d %s", status, body)
	}
}
