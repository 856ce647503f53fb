package app_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io/fs"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/s3/s3test"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// photo is a JPEG as a phone takes it: large, lying on its side, with a place in its EXIF.
func photo(t *testing.T, w, h int) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetRGBA(x, y, color.RGBA{uint8(x / 8), uint8(y / 8), uint8((x*7 + y*13) % 31), 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 92}); err != nil {
		t.Fatal(err)
	}
	tiff := append([]byte("Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"), "GPS 52.5200N"...)
	exif := append([]byte{0xff, 0xe1, 0, 0}, tiff...)
	binary.BigEndian.PutUint16(exif[2:], uint16(len(exif)-2))
	return slices.Concat(b.Bytes()[:2], exif, b.Bytes()[2:])
}

// logo is a small PNG that one can see through; nothing about it can be made better.
func logo(t *testing.T) []byte {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, 64, 64))
	m.SetNRGBA(3, 4, color.NRGBA{255, 0, 0, 90})
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// sends lets a customer send a file; declared is the checksum that the webhook tells, of data if nil.
func (c *client) sends(wamid, kind, mime string, data, declared []byte) (metaID string) {
	c.e.t.Helper()
	metaID = c.e.meta.AddMedia(c.Number, mime, data)
	c.tells(wamid, kind, mime, metaID, data, declared)
	return metaID
}

func (c *client) tells(wamid, kind, mime, metaID string, data, declared []byte) {
	c.e.t.Helper()
	if declared == nil {
		declared = data
	}
	sum := sha256.Sum256(declared)
	body := whatsapptest.Batch(c.e.meta.InboundMessage(whatsapptest.Inbound{
		PhoneNumberID: c.Number, From: "12025550143", Name: "Ana", Type: kind, ID: wamid,
		Object: map[string]any{"id": metaID, "mime_type": mime, "sha256": base64.StdEncoding.EncodeToString(sum[:]), "caption": "Look"},
	}))
	c.e.webhook(body).want(200)
}

// mediaOf waits until the file of a message has a status.
func (c *client) mediaOf(wamid, status string) (m struct {
	ID, MIME, SHA256, Status string
	Size                     int64
}) {
	c.e.t.Helper()
	eventuallyIn(c.e.t, takeover, "the media of "+wamid+" is "+status, func() string {
		cv := c.call("GET", "/api/whatsapp/conversations", nil).want(200).get("items.0.id")
		if cv == nil {
			return "no conversation"
		}
		var list struct {
			Items []struct {
				WAMID string
				Media *struct {
					ID, MIME, SHA256, Status string
					Size                     int64
				}
			}
		}
		a := c.call("GET", fmt.Sprintf("/api/whatsapp/conversations/%s/messages", cv), nil).want(200).into(&list)
		for _, x := range list.Items {
			if x.WAMID == wamid && x.Media != nil && x.Media.Status == status {
				m = *x.Media
				return ""
			}
		}
		return string(a.Body)
	})
	return m
}

// upload sends a multipart form.
func (c *client) upload(field, filename string, data []byte) *answer {
	c.e.t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	h := textproto.MIMEHeader{}
	h.Set("Content-Disposition", multipart.FileContentDisposition(field, filename))
	h.Set("Content-Type", "application/octet-stream")
	p, _ := w.CreatePart(h)
	_, _ = p.Write(data)
	_ = w.Close()
	return c.e.send("POST", "/api/media", b.Bytes(), map[string]string{"x-api-key": c.Key, "x-client-code": c.Code, "Content-Type": w.FormDataContentType()})
}

// archive is a place where media stands, as a test looks into it.
type archive struct {
	name  string
	tweak func(*app.Config)
	keys  func() []string // of blobs, sorted
}

// archives are a local folder and a bucket.
func archives(t *testing.T, dir string) []archive {
	t.Helper()
	bucket := newBucket(t, "media")
	folder := filepath.Join(dir, "folder")
	return []archive{
		{"folder", func(c *app.Config) { c.MediaURL = "file://" + folder }, func() []string { return blobsIn(t, folder) }},
		{"bucket", func(c *app.Config) { c.MediaURL = "s3://media?region=auto&endpoint=" + bucket.URL }, func() []string { return bucket.Keys("media") }},
	}
}

func newBucket(t *testing.T, names ...string) *s3test.Server {
	t.Helper()
	s, err := s3test.Start(s3test.Config{AccessKeyID: awsKeyID, SecretAccessKey: awsSecret, Region: "auto", Buckets: names})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func blobsIn(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".nodes" { // whose folder it is
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func blobKeys(code, sum string) []string {
	k := code + "/" + sum[:2] + "/" + sum
	return []string{k, k + ".thumb"}
}

func (e *engine) downloads() int {
	n := 0
	for _, r := range e.meta.Requests() {
		if r.Kind == "media.download" {
			n++
		}
	}
	return n
}

func isDownload(r whatsapptest.Request) bool { return r.Kind == "media.download" }

// TestMediaComesIn: a photo of a customer's is fetched, made small, stripped of its place, kept once, heard of, served.
func TestMediaComesIn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, ar := range archives(t, dir) {
		t.Run(ar.name, func(t *testing.T) {
			e := start(t, filepath.Join(dir, "data-"+ar.name), newMeta(t), ar.tweak)
			c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
			ear := c.listen(t, "websocket")
			data := photo(t, 2400, 1800)
			c.sends("wamid.photo", "image", "image/jpeg", data, nil)
			m := c.mediaOf("wamid.photo", "stored")

			said := ear.find("media.ready", "media.id", m.ID)
			if said.Data["media"].(map[string]any)["sha256"] != m.SHA256 {
				t.Errorf("media.ready says %v", said.Data)
			}
			ear.find("message.status", "message.media.status", "stored")
			if keys := ar.keys(); !slices.Equal(keys, blobKeys("ACME", m.SHA256)) {
				t.Errorf("stored are %v", keys)
			}
			view := c.call("GET", "/api/media/"+m.ID, nil).want(200)
			if view.get("width") != 1200.0 || view.get("height") != 1600.0 || view.get("thumbnail") != true || view.get("status") != "stored" {
				t.Errorf("metadata: %s", view.Body)
			}
			content := c.call("GET", "/api/media/"+m.ID+"/content", nil).want(200)
			got, err := jpeg.DecodeConfig(bytes.NewReader(content.Body))
			if err != nil || got.Width != 1200 || got.Height != 1600 || bytes.Contains(content.Body, []byte("GPS")) ||
				sha(content.Body) != m.SHA256 || int64(len(content.Body)) != m.Size || content.Header.Get("Content-Type") != "image/jpeg" {
				t.Errorf("content: %v, %+v, %d bytes, %v", err, got, len(content.Body), content.Header)
			}
			if d := content.Header.Get("Content-Disposition"); d != "inline" {
				t.Errorf("Content-Disposition %q", d)
			}
			thumb := c.call("GET", "/api/media/"+m.ID+"/thumbnail", nil).want(200)
			if got, err := jpeg.DecodeConfig(bytes.NewReader(thumb.Body)); err != nil || got.Height != 320 {
				t.Errorf("thumbnail: %v, %+v", err, got)
			}
			for _, path := range []string{"", "/content", "/thumbnail"} {
				other.call("GET", "/api/media/"+m.ID+path, nil).want(404)
			}
			other.call("DELETE", "/api/media/"+m.ID, nil).want(404)

			// the same again: fetched, but kept once
			c.sends("wamid.again", "image", "image/jpeg", data, nil)
			again := c.mediaOf("wamid.again", "stored")
			if again.ID == m.ID || again.SHA256 != m.SHA256 || len(ar.keys()) != 2 {
				t.Errorf("again: %+v, stored are %v", again, ar.keys())
			}
			// of another client it is another's
			other.sends("wamid.theirs", "image", "image/jpeg", data, nil)
			other.mediaOf("wamid.theirs", "stored")
			if len(ar.keys()) != 4 {
				t.Errorf("stored are %v", ar.keys())
			}
			// one of the two removed, the other still has its bytes; with the second they go
			c.call("DELETE", "/api/media/"+m.ID, nil).want(204)
			c.call("GET", "/api/media/"+m.ID, nil).want(404)
			c.call("GET", "/api/media/"+again.ID+"/content", nil).want(200)
			c.call("DELETE", "/api/media/"+again.ID, nil).want(204)
			if keys := ar.keys(); len(keys) != 2 || !strings.HasPrefix(keys[0], "BETA/") {
				t.Errorf("after both were removed: %v", keys)
			}
			// an erased client's go with it
			e.admin("DELETE", "/api/clients/BETA?confirm=BETA", nil).want(202)
			eventually(t, "an erased client's media goes", func() string { return strings.Join(ar.keys(), " ") })
			if log := e.log.String(); strings.Contains(log, c.Token) || strings.Contains(log, awsSecret) {
				t.Error("a secret is in the log")
			}
		})
	}
}

// TestMediaThatIsWrong: what is not what it was said to be is asked for again, then given up; nothing of it is kept.
func TestMediaThatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := start(t, dir, newMeta(t))
	c := e.addClient("ACME", 1)
	ear := c.listen(t, "websocket")
	c.sends("wamid.sum", "image", "image/jpeg", photo(t, 400, 300), []byte("something else"))
	c.sends("wamid.type", "image", "image/jpeg", []byte("<html><script>alert(1)</script></html>"), nil)
	for wamid, code := range map[string]string{"wamid.sum": "media.checksum_mismatch", "wamid.type": "media.type_mismatch"} {
		m := c.mediaOf(wamid, "failed")
		ear.find("media.ready", "media.id", m.ID)
		view := c.call("GET", "/api/media/"+m.ID, nil).want(200)
		if view.get("error") != code || view.get("status") != "failed" {
			t.Errorf("%s: %s", wamid, view.Body)
		}
		c.call("GET", "/api/media/"+m.ID+"/content", nil).want(404)
	}
	if n := e.downloads(); n != 10 {
		t.Errorf("%d downloads, want 5 of each", n)
	}
	if b := blobsIn(t, filepath.Join(dir, "media")); len(b) > 0 {
		t.Errorf("kept: %v", b)
	}
	jobs := c.call("GET", "/api/jobs?type=media.fetch", nil).want(200)
	if jobs.get("items.0.state") != "dead" || jobs.get("items.0.attempt") != 5.0 {
		t.Errorf("jobs: %s", jobs.Body)
	}
}

// TestMediaComesThrough: an expired link is asked for anew, a cut, a slow and a failing answer are tried again, a revoked
// token waits for a new one.
func TestMediaComesThrough(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	meta.When(1, isDownload, whatsapptest.GatewayHTML(404))
	meta.When(1, isDownload, whatsapptest.TruncateAfterAccepting())
	meta.When(1, isDownload, whatsapptest.ResetAfterAccepting())
	data := []byte("%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n")
	c.sends("wamid.pdf", "document", "application/pdf", data, nil)
	m := c.mediaOf("wamid.pdf", "stored")
	content := c.call("GET", "/api/media/"+m.ID+"/content", nil).want(200)
	if !bytes.Equal(content.Body, data) || m.SHA256 != sha(data) || m.MIME != "application/pdf" {
		t.Errorf("%+v: %q", m, content.Body)
	}
	c.call("GET", "/api/media/"+m.ID+"/thumbnail", nil).want(404)
	asked := 0
	for _, r := range meta.Requests() {
		if r.Kind == "media" {
			asked++
		}
	}
	if n := e.downloads(); n != 4 || asked < 3 { // a connection that was reset is tried again below us, on the same link
		t.Errorf("%d downloads, %d times asked where", n, asked)
	}

	meta.When(1, isDownload, whatsapptest.EchoToken(c.Token))
	c.sends("wamid.held", "document", "application/pdf", append(data, '\n'), nil)
	eventually(t, "the fetch waits for a token", func() string {
		a := c.call("GET", "/api/jobs?type=media.fetch&state=parked", nil).want(200)
		if a.get("items.0.id") == nil {
			return string(a.Body)
		}
		return ""
	})
	e.admin("PUT", "/api/clients/ACME/secrets/whatsapp", map[string]any{"wabaId": c.WABA, "phoneNumberIds": []string{c.Number}, "accessToken": c.Token}).want(200)
	c.mediaOf("wamid.held", "stored")
	if strings.Contains(e.log.String(), c.Token) {
		t.Error("the token is in the log")
	}
}

// TestMediaLeavesNoLink: Meta's link is followed to no other host.
func TestMediaLeavesNoLink(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c := e.addClient("ACME", 1)
	thief := newMeta(t)
	meta.When(-1, func(r whatsapptest.Request) bool { return r.Kind == "media" },
		whatsapptest.Answer(200, "application/json", `{"id":"1","url":"`+thief.URL+`/whatsapp_business/attachments/?mid=1","mime_type":"image/jpeg"}`))
	c.sends("wamid.x", "image", "image/jpeg", logo(t), nil)
	m := c.mediaOf("wamid.x", "failed")
	if code := c.call("GET", "/api/media/"+m.ID, nil).want(200).get("error"); code != "media.host" {
		t.Errorf("error %v", code)
	}
	if r := thief.Requests(); len(r) > 0 {
		t.Errorf("the other host was called: %+v", r)
	}
}

func TestMediaUpload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, ar := range archives(t, dir) {
		t.Run(ar.name, func(t *testing.T) {
			e := start(t, filepath.Join(dir, "data-"+ar.name), newMeta(t), ar.tweak)
			c := e.addClient("ACME", 1)
			data := logo(t)
			a := c.upload("file", `dir/Ücon "1".png`, data).want(201)
			if a.get("sha256") != sha(data) || a.get("mime") != "image/png" || a.get("size") != float64(len(data)) || a.get("filename") != `Ücon "1".png` {
				t.Fatalf("%s", a.Body)
			}
			id := a.get("id").(string)
			if keys := ar.keys(); !slices.Equal(keys, blobKeys("ACME", sha(data))) {
				t.Errorf("stored are %v", keys)
			}
			if got := c.call("GET", "/api/media/"+id+"/content", nil).want(200); !bytes.Equal(got.Body, data) {
				t.Errorf("%d bytes came back", len(got.Body))
			}
			second := c.upload("file", "again.png", data).want(201)
			if second.get("id") == id || len(ar.keys()) != 2 {
				t.Errorf("stored are %v", ar.keys())
			}
			big := c.upload("file", "photo.jpg", photo(t, 1800, 1700)).want(201)
			if big.get("mime") != "image/jpeg" || big.get("height") != 1600.0 { // it lay on its side
				t.Errorf("%s", big.Body)
			}
		})
	}
}

func TestMediaUploadRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := start(t, dir, newMeta(t))
	c := e.addClient("ACME", 1)
	key := map[string]string{"x-api-key": c.Key, "x-client-code": c.Code}
	with := func(name, value string) map[string]string {
		return map[string]string{"x-api-key": c.Key, "x-client-code": c.Code, name: value}
	}
	for name, a := range map[string]*answer{
		"page":          c.upload("file", "x.png", []byte("<html><body onload=alert(1)>")),
		"drawing":       c.upload("file", "x.svg", []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>`)),
		"program":       c.upload("file", "x.pdf", append([]byte("MZ\x90\x00"), make([]byte, 600)...)),
		"no form":       e.send("POST", "/api/media", "{}", key),
		"another form":  e.send("POST", "/api/media", "a=b", with("Content-Type", "application/x-www-form-urlencoded")),
		"who knows":     c.upload("file", "x.bin", []byte{0, 1, 2, 3, 0xfe, 0xff, 0, 9}),
		"nobody's name": e.send("POST", "/api/media", "x", map[string]string{"Content-Type": "multipart/form-data; boundary=b"}),
	} {
		want := 415
		if name == "nobody's name" {
			want = 401
		}
		if a.Status != want {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	c.upload("other", "x.png", logo(t)).want(422)
	c.upload("file", "x.png", nil).want(422)
	e.send("POST", "/api/media", "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n\r\nhalf", with("Content-Type", "multipart/form-data; boundary=b")).want(400)
	// 1 byte too many, told and not told; exactly as many as allowed is a matter of type
	c.upload("file", "big.pdf", append([]byte("%PDF-1.7\n"), make([]byte, 100<<20)...)).want(413)
	c.upload("file", "just.pdf", append([]byte("%PDF-1.7\n"), make([]byte, 100<<20-9)...)).want(201)
	if left := blobsIn(t, filepath.Join(dir, "spool")); len(left) > 0 {
		t.Errorf("left in the spool: %v", left)
	}
	if b := blobsIn(t, filepath.Join(dir, "media")); len(b) != 1 {
		t.Errorf("stored: %v", b)
	}
	c.call("GET", "/api/media/med_none", nil).want(404)
	c.call("GET", "/api/media/med_none/content", nil).want(404)
	c.call("GET", "/api/media/..%2f..%2fetc/content", nil).want(404)
}

// TestMediaIsServedSafely: headers, ranges, and a browser's own copy.
func TestMediaIsServedSafely(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	id := c.upload("file", "Übersicht.txt", []byte("0123456789")).want(201).get("id").(string)
	get := func(header ...string) *answer {
		h := map[string]string{"x-api-key": c.Key, "x-client-code": c.Code}
		for i := 0; i < len(header); i += 2 {
			h[header[i]] = header[i+1]
		}
		return e.send("GET", "/api/media/"+id+"/content", nil, h)
	}
	a := get().want(200)
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'", "Content-Type": "text/plain",
		"Content-Disposition": "attachment; filename*=utf-8''%C3%9Cbersicht.txt", "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes",
		"Etag": `"` + sha([]byte("0123456789")) + `"`,
	} {
		if got := a.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if part := get("Range", "bytes=2-4").want(206); string(part.Body) != "234" {
		t.Errorf("range: %q", part.Body)
	}
	get("Range", "bytes=50-").want(416)
	get("If-None-Match", a.Header.Get("Etag")).want(304)
}

// TestMediaInOwnBucket: a client's own bucket comes before the operator's folder, and what stood there before is found.
func TestMediaInOwnBucket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bucket := newBucket(t, "acme")
	e := start(t, dir, newMeta(t), func(c *app.Config) { c.AllowPrivate = true })
	c := e.addClient("ACME", 1)
	before := c.upload("file", "a.txt", []byte("before")).want(201).get("id").(string)
	own := map[string]any{"url": "s3://acme/files?region=auto&endpoint=" + bucket.URL, "accessKeyId": awsKeyID, "secretAccessKey": awsSecret}
	e.admin("PUT", "/api/clients/ACME/secrets/storage", own).want(200)
	after := c.upload("file", "b.txt", []byte("after")).want(201).get("id").(string)
	if keys := bucket.Keys("acme"); !slices.Equal(keys, []string{"files/" + blobKeys("ACME", sha([]byte("after")))[0]}) {
		t.Errorf("in the bucket: %v", keys)
	}
	if b := blobsIn(t, filepath.Join(dir, "media")); len(b) != 1 {
		t.Errorf("in the folder: %v", b)
	}
	for id, want := range map[string]string{before: "before", after: "after"} {
		if got := c.call("GET", "/api/media/"+id+"/content", nil).want(200); string(got.Body) != want {
			t.Errorf("%s: %q", want, got.Body)
		}
	}
	// the link is good for minutes and saves the file under its name
	direct := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, _ := http.NewRequest("GET", e.url+"/api/media/"+after+"/content", nil)
	req.Header.Set("x-api-key", c.Key)
	req.Header.Set("x-client-code", c.Code)
	res, err := direct.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if to := res.Header.Get("Location"); res.StatusCode != 302 || !strings.Contains(to, "X-Amz-Expires=300") || !strings.Contains(to, "b.txt") || strings.Contains(to, awsSecret) {
		t.Errorf("%d to %s", res.StatusCode, to)
	}
	// a bucket that refuses keeps nothing, and says nothing of itself
	bucket.Next(-1, "put", s3test.Refusal(403, "AccessDenied", "no"))
	c.upload("file", "c.txt", []byte("refused")).want(503)
	bucket.Behave()
	e.admin("DELETE", "/api/clients/ACME?confirm=ACME", nil).want(202)
	eventually(t, "the bucket is emptied", func() string { return strings.Join(bucket.Keys("acme"), " ") })
}

// TestMediaOwnBucketInside: a client's bucket is not looked for in the operator's own network.
func TestMediaOwnBucketInside(t *testing.T) {
	t.Parallel()
	bucket := newBucket(t, "acme")
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	url := "s3://acme?region=auto&endpoint=" + bucket.URL
	e.admin("PUT", "/api/clients/ACME/secrets/storage", map[string]any{"url": url, "accessKeyId": awsKeyID, "secretAccessKey": awsSecret}).problem(422, "")
	if _, err := e.app.Tenants.SetStorage(t.Context(), "ACME", url, awsKeyID, awsSecret); err != nil { // as a hand would
		t.Fatal(err)
	}
	c.upload("file", "b.txt", []byte("after")).want(503)
	if r := bucket.Requests(); len(r) > 0 {
		t.Errorf("called: %+v", r)
	}
}

// TestMediaGoesOut: an uploaded picture is sent; Meta has its very bytes, once.
func TestMediaGoesOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, ar := range archives(t, dir) {
		t.Run(ar.name, func(t *testing.T) {
			meta := newMeta(t)
			e := start(t, filepath.Join(dir, "data-"+ar.name), meta, ar.tweak)
			c := e.addClient("ACME", 1)
			other := e.addClient("BETA", 2)
			c.sends("wamid.first", "image", "image/jpeg", photo(t, 300, 200), nil) // opens the window
			received := c.mediaOf("wamid.first", "stored")
			data := logo(t)
			id := c.upload("file", "logo.png", data).want(201).get("id").(string)
			meta.When(1, func(r whatsapptest.Request) bool { return r.Kind == "media.upload" }, whatsapptest.Unavailable())
			send := func(id string) *answer {
				return c.call("POST", "/api/whatsapp/messages", map[string]any{"to": "12025550143", "type": "image", "image": map[string]any{"id": id, "caption": "Our logo"}})
			}
			message := send(id).want(202).get("id")
			send(id).want(202)
			send(received.ID).want(202)
			send("med_none").want(422)
			theirs := other.upload("file", "theirs.png", data).want(201).get("id").(string)
			send(theirs).want(422)
			eventuallyIn(t, takeover, "three pictures are sent", func() string {
				if n := len(meta.Accepted()); n != 3 {
					return fmt.Sprint(n, " accepted")
				}
				return ""
			})
			uploads, got := 0, map[string]int{}
			for _, r := range meta.Requests() {
				if r.Kind == "media.upload" && r.Status == 200 {
					uploads++
				}
			}
			for _, a := range meta.Accepted() {
				var body struct{ Image struct{ ID, Caption string } }
				if err := json.Unmarshal(a.Body, &body); err != nil {
					t.Fatal(err)
				}
				mime, b, ok := meta.File(body.Image.ID)
				if !ok || mime != "image/png" && mime != "image/jpeg" || body.Image.Caption != "Our logo" {
					t.Errorf("Meta was asked to send %+v, which is %q", body.Image, mime)
				}
				got[sha(b)]++
			}
			if got[sha(data)] != 2 || got[received.SHA256] != 1 {
				t.Errorf("Meta got %v, want %s twice and %s", got, sha(data), received.SHA256)
			}
			if uploads > 3 || uploads < 2 { // two sends side by side may hand it over twice
				t.Errorf("%d uploads", uploads)
			}
			list := c.call("GET", "/api/whatsapp/conversations", nil).want(200)
			shown := c.call("GET", fmt.Sprintf("/api/whatsapp/conversations/%s/messages", list.get("items.0.id")), nil).want(200)
			if !strings.Contains(string(shown.Body), fmt.Sprint(message)) || !strings.Contains(string(shown.Body), id) {
				t.Errorf("messages: %s", shown.Body)
			}
		})
	}
}

// TestMediaCrash: killed while a file is on its way, the engine has it once after the restart.
func TestMediaCrash(t *testing.T) {
	t.Parallel()
	dir, meta := t.TempDir(), newMeta(t)
	p := serve(t, dir, meta)
	c := p.addClient("ACME", 1)
	held := make(chan struct{}, 1)
	meta.When(1, func(r whatsapptest.Request) bool {
		if isDownload(r) {
			select {
			case held <- struct{}{}:
			default:
			}
		}
		return isDownload(r)
	}, whatsapptest.Hang())
	data := photo(t, 1700, 1600)
	c.sends("wamid.crash", "image", "image/jpeg", data, nil)
	<-held
	p.kill()
	meta.Behave()
	p = serve(t, dir, meta)
	c.e = p.engine
	m := c.mediaOf("wamid.crash", "stored")
	if b := blobsIn(t, filepath.Join(dir, "media")); !slices.Equal(b, blobKeys("ACME", m.SHA256)) {
		t.Errorf("stored: %v", b)
	}
	if left := blobsIn(t, filepath.Join(dir, "spool")); len(left) > 0 {
		t.Errorf("left in the spool: %v", left)
	}
}

func TestMediaConfig(t *testing.T) {
	t.Parallel()
	env := map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
	for url, want := range map[string]string{
		"": "", "file:///var/lib/ecod": "", "s3://media?endpoint=https://x.example&region=auto": "",
		"/var/lib":                          "must begin with file://",
		"file://":                           "must begin with file://",
		"gs://media":                        "must begin with file://",
		"s3://":                             "bucket's name",
		"s3://key:secret@media":             "holds no keys",
		"s3://media?endpoint=x.example":     "endpoint",
		"s3://media?public=true":            "public",
		"s3://media?endpoint=https://x&k=1": "knows endpoint",
	} {
		cfg := config(t.TempDir(), "http://127.0.0.1:1")
		cfg.MediaURL = url
		err := cfg.Resolve(func(k string) string { return env[k] })
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", url, err, want)
		}
	}
	cfg := config(t.TempDir(), "http://127.0.0.1:1")
	cfg.MediaURL = "s3://media"
	if err := cfg.Resolve(func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("without keys: %v", err)
	}
}
