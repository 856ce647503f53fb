package whatsapp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// MaxMedia is the largest file that WhatsApp carries, in bytes.
const MaxMedia = 100 << 20

// MediaInfo is where a file can be had. URL lives 5 minutes and asks for the same token.
type MediaInfo struct {
	ID     string
	URL    string
	MIME   string
	SHA256 string // lower-case hex; "" if Meta told none
	Size   int64  // bytes; 0 if Meta told none
}

// HexSHA256 gives a checksum as lower-case hex: webhooks tell it as base64, the
// Graph API as hex. Anything else is "".
func HexSHA256(s string) string {
	if len(s) == 64 {
		if _, err := hex.DecodeString(s); err == nil {
			return strings.ToLower(s)
		}
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(s); err == nil && len(b) == 32 {
			return hex.EncodeToString(b)
		}
	}
	return ""
}

// Media asks where a file can be had. An id from a webhook lives 7 days, one from
// an upload 30. With a PhoneNumberID only that number's files are found.
func (c *Client) Media(ctx context.Context, acc Account, id string) (MediaInfo, error) {
	var w struct {
		ID     text    `json:"id"`
		URL    text    `json:"url"`
		MIME   text    `json:"mime_type"`
		SHA256 text    `json:"sha256"`
		Size   integer `json:"file_size"`
	}
	q := url.Values{}
	if acc.PhoneNumberID != "" {
		q.Set("phone_number_id", acc.PhoneNumberID)
	}
	err := c.do(ctx, acc, call{op: "media", method: http.MethodGet, path: []string{id}, query: q, reads: true, out: &w})
	if err != nil {
		var e *APIError
		if errors.As(err, &e) && e.Code == 100 {
			e.Class.Scope = ScopeMedia // the id, not the number
		}
		return MediaInfo{}, err
	}
	return MediaInfo{first(string(w.ID), id), string(w.URL), string(w.MIME), HexSHA256(string(w.SHA256)), int64(w.Size)}, nil
}

// Download writes the file at a link of [Client.Media] to w and gives its size in
// bytes. The link, and where it may redirect, must lead to the Graph API's own
// host or by https to fbsbx.com; the token goes nowhere else (ErrMediaHost). A
// link that has expired is ErrMediaExpired, a file above limit ErrMediaTooBig;
// limit 0 is MaxMedia. On error w may hold a part.
func (c *Client) Download(ctx context.Context, acc Account, link string, w io.Writer, limit int64) (int64, error) {
	const op = "download"
	if limit <= 0 {
		limit = MaxMedia
	}
	if acc.Token == "" {
		return 0, incomplete(op, "the account has no token")
	}
	for range 4 {
		u, err := url.Parse(link)
		if err != nil || !c.trusts(u) {
			return 0, refused(op, ErrMediaHost)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return 0, refused(op, ErrMediaHost)
		}
		authorize(req, acc)
		req.Header.Set("Accept-Encoding", "identity") // the checksum is of the bytes
		resp, err := c.http.Do(req)
		if err != nil {
			return 0, failure(op, err)
		}
		if to := resp.Header.Get(movedTo); to != "" && resp.StatusCode/100 == 3 {
			_ = resp.Body.Close()
			next, err := u.Parse(to)
			if err != nil {
				return 0, refused(op, ErrMediaHost)
			}
			link = next.String()
			continue
		}
		return c.receive(op, acc, resp, w, limit)
	}
	return 0, refused(op, errors.New("too many redirects"))
}

func (c *Client) receive(op string, acc Account, resp *http.Response, w io.Writer, limit int64) (int64, error) {
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, smallAnswer))
		e := answered(call{op: op, reads: true}, acc, resp, answer, nil)
		e.Class.Scope = ScopeMedia
		if e.Code == 190 || e.Code == 0 && resp.StatusCode == http.StatusUnauthorized {
			e.Class.Scope = ScopeAccount
		}
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
			e.Err = ErrMediaExpired
		}
		return 0, e
	}
	if resp.ContentLength > limit {
		return 0, refused(op, ErrMediaTooBig)
	}
	n, err := io.Copy(w, io.LimitReader(resp.Body, limit))
	if err == nil && n == limit {
		if more, _ := io.ReadFull(resp.Body, make([]byte, 1)); more > 0 {
			err = ErrMediaTooBig
		}
	}
	switch {
	case errors.Is(err, ErrMediaTooBig):
		return n, refused(op, err)
	case err != nil:
		e := failure(op, err)
		e.HTTP, e.Class.Scope = resp.StatusCode, ScopeMedia
		return n, e
	}
	return n, nil
}

func refused(op string, err error) *APIError {
	return &APIError{Op: op, Outcome: Rejected, Class: rejected(ScopeMedia, "refused"), Err: err}
}

// trusts tells whether the token may go to a link.
func (c *Client) trusts(u *url.URL) bool {
	if u.User != nil || u.Opaque != "" {
		return false
	}
	if c.host != nil && u.Scheme == c.host.Scheme && strings.EqualFold(u.Host, c.host.Host) {
		return true
	}
	port := u.Port()
	return u.Scheme == "https" && (port == "" || port == "443") && strings.HasSuffix(strings.ToLower(u.Hostname()), ".fbsbx.com")
}

// UploadMedia hands a file of a MIME type over for sending and gives its id. r is
// read once. Give it a known length (a file, a bytes.Reader): without one the
// upload goes in chunks.
func (c *Client) UploadMedia(ctx context.Context, acc Account, mimeType, filename string, r io.Reader) (string, error) {
	const op = "upload media"
	kind, _, err := mime.ParseMediaType(mimeType)
	if err != nil {
		return "", incomplete(op, "the MIME type is none")
	}
	var head bytes.Buffer
	form := multipart.NewWriter(&head)
	_ = form.WriteField("messaging_product", "whatsapp")
	_ = form.WriteField("type", kind)
	h := textproto.MIMEHeader{}
	h.Set("Content-Disposition", multipart.FileContentDisposition("file", first(filename, "file")))
	h.Set("Content-Type", kind)
	_, _ = form.CreatePart(h) // writing to a buffer does not fail
	tail := "\r\n--" + form.Boundary() + "--\r\n"
	length := int64(-1)
	if n := lengthOf(r); n >= 0 {
		length = int64(head.Len()) + n + int64(len(tail))
	}
	var w struct {
		ID text `json:"id"`
	}
	err = c.do(ctx, acc, call{
		op: op, method: http.MethodPost, path: []string{acc.PhoneNumberID, "media"},
		stream: io.MultiReader(&head, r, strings.NewReader(tail)), kind: form.FormDataContentType(), length: length,
		reads: true, // twice uploaded is harmless: nobody sees it
		out:   &w,
	})
	if err == nil && w.ID == "" {
		e := failure(op, errors.New("an answer without an id"))
		e.HTTP = http.StatusOK
		return "", e
	}
	return string(w.ID), err
}

// lengthOf is how much r holds from where it stands; -1 if it does not tell.
func lengthOf(r io.Reader) int64 {
	switch v := r.(type) {
	case interface{ Len() int }:
		return int64(v.Len())
	case io.Seeker:
		at, err := v.Seek(0, io.SeekCurrent)
		if err != nil {
			return -1
		}
		end, err := v.Seek(0, io.SeekEnd)
		if err != nil {
			return -1
		}
		if _, err := v.Seek(at, io.SeekStart); err != nil {
			return -1
		}
		return end - at
	}
	return -1
}
