package whatsapp_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/whatsapp"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

func TestMedia(t *testing.T) {
	s, c := graph(t, whatsapptest.Config{})
	ctx := t.Context()
	data := bytes.Repeat([]byte("jpeg"), 50_000)
	file := filepath.Join(t.TempDir(), "a.jpg")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for name, r := range map[string]io.Reader{"a file": f, "bytes": bytes.NewReader(data), "a stream": io.MultiReader(bytes.NewReader(data))} {
		id, err := c.UploadMedia(ctx, acc, "image/jpeg; x=y", `a "quoted" é`+"\r\nX-Evil: 1.jpg", r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if mime, got, ok := s.File(id); !ok || mime != "image/jpeg" || !bytes.Equal(got, data) {
			t.Fatalf("%s: %s, %d bytes", name, mime, len(got))
		}
		if _, err := c.Send(ctx, acc, whatsapp.SendRequest{To: "12025550143", Type: "image", Object: json.RawMessage(`{"id":"` + id + `"}`)}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		info, err := c.Media(ctx, acc, id)
		if err != nil || info.Size != int64(len(data)) || info.MIME != "image/jpeg" || len(info.SHA256) != 64 {
			t.Fatalf("%s: %+v %v", name, info, err)
		}
		var b bytes.Buffer
		if n, err := c.Download(ctx, acc, info.URL, &b, 0); err != nil || n != int64(len(data)) || !bytes.Equal(b.Bytes(), data) {
			t.Fatalf("%s: %d %v", name, n, err)
		}
		for limit, want := range map[int64]error{int64(len(data)): nil, int64(len(data)) - 1: whatsapp.ErrMediaTooBig, 1: whatsapp.ErrMediaTooBig} {
			if n, err := c.Download(ctx, acc, info.URL, io.Discard, limit); !errors.Is(err, want) || n > limit {
				t.Errorf("limit %d: %d %v", limit, n, err)
			}
		}
	}
	id := s.AddMedia(acc.PhoneNumberID, "audio/ogg; codecs=opus", []byte("opus"))
	info, err := c.Media(ctx, acc, id)
	if err != nil || info.MIME != "audio/ogg; codecs=opus" {
		t.Fatalf("%+v %v", info, err)
	}
	s.ExpireLinks()
	_, err = c.Download(ctx, acc, info.URL, io.Discard, 0)
	if e := apiError(t, err); !errors.Is(err, whatsapp.ErrMediaExpired) || e.Scope() != whatsapp.ScopeMedia || e.Ambiguous() {
		t.Errorf("an expired link: %v", err)
	}
	if info, err = c.Media(ctx, acc, id); err != nil {
		t.Fatal(err)
	}
	if _, err = c.Download(ctx, acc, info.URL, io.Discard, 0); err != nil {
		t.Errorf("a fresh link: %v", err)
	}
	if _, err = c.Media(ctx, acc, "999"); apiError(t, err).Subcode != 33 || apiError(t, err).Scope() != whatsapp.ScopeMedia {
		t.Errorf("an unknown id: %v", err)
	}
	old := acc
	old.Token = "revoked"
	if _, err = c.Download(ctx, old, info.URL, io.Discard, 0); apiError(t, err).Scope() != whatsapp.ScopeAccount {
		t.Errorf("a bad token: %v", err)
	}
	s.When(1, func(r whatsapptest.Request) bool { return r.Kind == "media.download" }, whatsapptest.GatewayHTML(503))
	if _, err = c.Download(ctx, acc, info.URL, io.Discard, 0); !apiError(t, err).Temporary() || apiError(t, err).Ambiguous() {
		t.Errorf("503: %v", err)
	}
	s.When(-1, func(r whatsapptest.Request) bool { return r.Kind == "media.download" }, whatsapptest.ResetAfterAccepting()) // the transport repeats a GET
	if _, err = c.Download(ctx, acc, info.URL, io.Discard, 0); apiError(t, err).Outcome != whatsapp.NotSent {
		t.Errorf("reset: %v", err)
	}
}

// TestDownloadGivesTheTokenToMetaOnly tries links and redirects that lead elsewhere.
func TestDownloadGivesTheTokenToMetaOnly(t *testing.T) {
	var evilHits, evilTokens atomic.Int64
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		evilHits.Add(1)
		if r.Header.Get("Authorization") != "" {
			evilTokens.Add(1)
		}
	}))
	defer evil.Close()
	var redirect atomic.Value
	var tokens atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+token {
			tokens.Add(1)
		}
		if r.URL.Path == "/go" {
			http.Redirect(w, r, redirect.Load().(string), http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, "bytes")
	})
	base := httptest.NewServer(handler)
	defer base.Close()
	meta := httptest.NewTLSServer(handler) // stands for lookaside.fbsbx.com
	defer meta.Close()
	tr := meta.Client().Transport.(*http.Transport).Clone()
	tr.TLSClientConfig.InsecureSkipVerify = true //nolint:gosec // the test's own certificate bears another name
	tr.DialTLSContext = nil
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasSuffix(strings.ToLower(addr), ".fbsbx.com:443") {
			addr = meta.Listener.Addr().String()
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	defer tr.CloseIdleConnections()
	c := whatsapp.New(whatsapp.Config{BaseURL: base.URL}, &http.Client{Transport: tr, Timeout: 5 * time.Second})
	get := func(link string) error { _, err := c.Download(t.Context(), acc, link, io.Discard, 0); return err }

	for _, good := range []string{base.URL + "/x", "https://lookaside.fbsbx.com/x", "https://LOOKASIDE.FBSBX.COM:443/x"} {
		tokens.Store(0)
		if err := get(good); err != nil || tokens.Load() != 1 {
			t.Errorf("%s: %v, token seen %d times", good, err, tokens.Load())
		}
	}
	bad := []string{evil.URL + "/x", "http://lookaside.fbsbx.com/x", "https://lookaside.fbsbx.com:8443/x", "https://fbsbx.com.evil.example/x", "https://evilfbsbx.com/x",
		"https://user@lookaside.fbsbx.com/x", "https://lookaside.fbsbx.com@" + strings.TrimPrefix(evil.URL, "http://") + "/x", "file:///etc/passwd", "", "x", "https:lookaside.fbsbx.com",
		strings.Replace(base.URL, "http:", "https:", 1) + "/x", "//" + strings.TrimPrefix(evil.URL, "http://"), "http://[::1", "https://lookaside.fbsbx.com%2eevil.example/x"}
	for _, link := range bad {
		if err := get(link); !errors.Is(err, whatsapp.ErrMediaHost) || apiError(t, err).Temporary() {
			t.Errorf("%s: %v", link, err)
		}
		redirect.Store(link)
		if link == "" || link == "x" {
			continue // leads nowhere, or stays on the host
		}
		for _, from := range []string{base.URL + "/go", "https://lookaside.fbsbx.com/go"} {
			if strings.HasPrefix(link, "//") && strings.HasPrefix(from, "https") {
				continue
			}
			if err := get(from); !errors.Is(err, whatsapp.ErrMediaHost) {
				t.Errorf("%s redirected to %s: %v", from, link, err)
			}
		}
	}
	if evilHits.Load() != 0 || evilTokens.Load() != 0 {
		t.Errorf("%d calls elsewhere, %d with the token", evilHits.Load(), evilTokens.Load())
	}
	redirect.Store("https://lookaside.fbsbx.com/x")
	if err := get(base.URL + "/go"); err != nil {
		t.Errorf("a redirect to Meta: %v", err)
	}
	redirect.Store(base.URL + "/go")
	if err := get(base.URL + "/go"); err == nil {
		t.Error("a circle of redirects ended well")
	}
}

func TestHexSHA256(t *testing.T) {
	const sum = "0d668b45683a185315854adfc8e535cbd8d3443fa601eff5988a3c8ccfda87d2"
	raw, _ := hex.DecodeString(sum)
	for _, in := range []string{sum, strings.ToUpper(sum), base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw)} {
		if got := whatsapp.HexSHA256(in); got != sum {
			t.Errorf("%q: %q", in, got)
		}
	}
	for _, in := range []string{"", "x", sum[:62], base64.StdEncoding.EncodeToString(raw[:31]), strings.Repeat("z", 64)} {
		if got := whatsapp.HexSHA256(in); got != "" {
			t.Errorf("%q: %q", in, got)
		}
	}
}
