package app_test

import (
	"bytes"
	"fmt"
	"image/jpeg"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/s3"
	"github.com/ecodrix/ecod/internal/servertest"
)

// TestMediaOnARealStore is a file's life in a client's own bucket at a store that is no fake: a customer's photo comes
// in, its link is followed as a browser does, a file goes out to Meta, and the erased client leaves nothing.
func TestMediaOnARealStore(t *testing.T) {
	t.Parallel()
	address := servertest.S3(t)
	id, key := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	cfg, err := s3.ParseURL(address, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := s3.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta, func(c *app.Config) { c.AllowPrivate = true })
	c := e.addClient("ACME", 1)
	e.admin("PUT", "/api/clients/ACME/secrets/storage", map[string]any{"url": address, "accessKeyId": id, "secretAccessKey": key + "x"}).want(200)
	c.upload("file", "refused.txt", []byte("by a store that does not know the key")).want(503)
	e.admin("PUT", "/api/clients/ACME/secrets/storage", map[string]any{"url": address, "accessKeyId": id, "secretAccessKey": key}).want(200)

	c.sends("wamid.photo", "image", "image/jpeg", photo(t, 2400, 1800), nil)
	m := c.mediaOf("wamid.photo", "stored")
	for _, k := range blobKeys("ACME", m.SHA256) {
		if _, err := bucket.Stat(t.Context(), k); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
	// the answer is a link, which opens without the engine's keys
	direct := &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, _ := http.NewRequest("GET", e.url+"/api/media/"+m.ID+"/content", nil)
	req.Header.Set("x-api-key", c.Key)
	req.Header.Set("x-client-code", c.Code)
	res, err := direct.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 302 {
		t.Fatalf("content: %d", res.StatusCode)
	}
	if res, err = direct.Get(res.Header.Get("Location")); err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != 200 || sha(content) != m.SHA256 || res.Header.Get("Content-Type") != "image/jpeg" {
		t.Fatalf("the link: %d, %v, %d bytes, %v", res.StatusCode, err, len(content), res.Header)
	}
	if got, err := jpeg.DecodeConfig(bytes.NewReader(content)); err != nil || got.Width != 1200 || got.Height != 1600 {
		t.Errorf("the picture: %+v, %v", got, err)
	}

	data := logo(t)
	up := c.upload("file", "logo.png", data).want(201).get("id").(string)
	c.call("POST", "/api/whatsapp/messages", map[string]any{"to": "12025550143", "type": "image", "image": map[string]any{"id": up}}).want(202)
	eventuallyIn(t, takeover, "the picture is sent", func() string {
		if n := len(meta.Accepted()); n != 1 {
			return fmt.Sprint(n, " accepted")
		}
		return ""
	})
	c.call("DELETE", "/api/media/"+m.ID, nil).want(204)
	if _, err := bucket.Stat(t.Context(), blobKeys("ACME", m.SHA256)[0]); err == nil {
		t.Error("a removed file is still in the store")
	}
	e.admin("DELETE", "/api/clients/ACME?confirm=ACME", nil).want(202)
	eventually(t, "the bucket is emptied", func() string {
		if _, err := bucket.Stat(t.Context(), blobKeys("ACME", sha(data))[0]); err == nil {
			return "the uploaded picture is there"
		}
		return ""
	})
}
