package whatsapp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/whatsapp"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// TestNoErrorLeaksTheToken makes every method fail in every way and looks for
// the token, and for what a user wrote, wherever an error can end up.
func TestNoErrorLeaksTheToken(t *testing.T) {
	const written = "what the user wrote"
	s, c := graph(t, whatsapptest.Config{})
	id := s.AddMedia(acc.PhoneNumberID, "image/png", []byte("x"))
	info, err := c.Media(t.Context(), acc, id)
	if err != nil {
		t.Fatal(err)
	}
	about := written
	methods := map[string]func(context.Context, *whatsapp.Client, whatsapp.Account) error{
		"SendRaw": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			_, err := c.SendRaw(ctx, a, text(t, written, ""))
			return err
		},
		"MarkRead": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			return c.MarkRead(ctx, a, "wamid.1", true)
		},
		"Templates": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			_, err := c.Templates(ctx, a, "", 0)
			return err
		},
		"CreateTemplate": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			_, err := c.CreateTemplate(ctx, a, whatsapp.TemplateDraft{Name: "x", Components: []byte(`[{"text":"` + written + `"}]`)})
			return err
		},
		"DeleteTemplate": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			return c.DeleteTemplate(ctx, a, "none", "")
		},
		"PhoneNumber": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			_, err := c.PhoneNumber(ctx, a)
			return err
		},
		"PhoneNumbers": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			_, err := c.PhoneNumbers(ctx, a)
			return err
		},
		"Profile": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			_, err := c.Profile(ctx, a)
			return err
		},
		"SetProfile": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			return c.SetProfile(ctx, a, whatsapp.ProfileUpdate{About: &about})
		},
		"Media": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			_, err := c.Media(ctx, a, id)
			return err
		},
		"Download": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			_, err := c.Download(ctx, a, info.URL, io.Discard, 0)
			return err
		},
		"UploadMedia": func(ctx context.Context, c *whatsapp.Client, a whatsapp.Account) error {
			_, err := c.UploadMedia(ctx, a, "text/plain", "x", strings.NewReader(written))
			return err
		},
	}
	faults := map[string]whatsapptest.Fault{
		"echoed token":  whatsapptest.EchoToken(token),
		"echoed body":   whatsapptest.GraphError(400, 131009, "Param is not valid: "+written),
		"500":           whatsapptest.ServerError(),
		"gateway":       whatsapptest.GatewayHTML(502),
		"cut":           whatsapptest.TruncateAfterAccepting(),
		"reset":         whatsapptest.ResetAfterAccepting(),
		"not JSON":      whatsapptest.Answer(200, "text/html", token+" "+written),
		"other JSON":    whatsapptest.Answer(200, "application/json", `"`+written+`"`),
		"token as code": whatsapptest.Answer(400, "application/json", `{"error":{"code":"`+token+`","fbtrace_id":"`+token+`","error_data":"`+url.QueryEscape(token)+`"}}`),
		"redirect":      whatsapptest.Answer(302, "text/html", ""),
		"time-out":      whatsapptest.Hang(),
	}
	seen := 0
	look := func(what string, err error) {
		t.Helper()
		if err == nil {
			if what != "Download not JSON" && what != "Download other JSON" { // any bytes are a file
				t.Errorf("%s: no error", what)
			}
			return
		}
		seen++
		var log bytes.Buffer
		e := apiError(t, err)
		for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
			slog.New(h).Error("call failed", "err", err, "e", e, "account", acc)
		}
		public := fmt.Sprint(err) + fmt.Sprintf("%v %+v %s %q", err, e, struct{ E error }{err}, err)
		all := public + log.String() + fmt.Sprintf("%#v %+v", *e, *e)
		for _, bad := range []string{token, url.QueryEscape(token), "EAAGtest"} {
			if strings.Contains(all, bad) {
				t.Errorf("%s leaks the token: %s", what, all)
			}
		}
		if strings.Contains(public+log.String(), written) {
			t.Errorf("%s leaks what was written: %s", what, public)
		}
		if strings.Contains(public, "hash=") || strings.Contains(public, "http://") {
			t.Errorf("%s leaks an address: %s", what, public)
		}
	}
	for method, call := range methods {
		for name, f := range faults {
			s.Behave()
			s.When(-1, func(whatsapptest.Request) bool { return true }, f)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if name == "time-out" {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
			}
			look(method+" "+name, call(ctx, c, acc))
			cancel()
		}
		s.Behave()
		nowhere := whatsapp.New(whatsapp.Config{BaseURL: "http://127.0.0.1:1"}, plain(t))
		look(method+" refused", call(t.Context(), nowhere, acc))
		broken := acc
		broken.Token = secret.Text(token + "\nX: y") // what net/http will not write
		look(method+" odd token", call(t.Context(), c, broken))
		wrong := acc
		wrong.Token = "EAAGtest-wrong"
		look(method+" wrong token", call(t.Context(), c, wrong))
		dead := whatsapp.New(whatsapp.Config{BaseURL: s.URL}, &http.Client{Transport: deadTransport{}})
		look(method+" transport", call(t.Context(), dead, acc))
	}
	if want := len(methods)*(len(faults)+4) - 2; seen < want {
		t.Errorf("%d errors looked at, want %d", seen, want)
	}
}

type deadTransport struct{}

func (deadTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("no way")
}
