package whatsapptest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	linkPath = "/whatsapp_business/attachments/"
	linkLife = 5 * time.Minute
	maxFile  = 100 << 20
)

type file struct {
	id, number, mime string
	data             []byte
}

func (f *file) sum() []byte {
	sum := sha256.Sum256(f.data)
	return sum[:]
}

// AddMedia puts a file where a number's user would have sent it, and gives its id.
func (s *Server) AddMedia(phoneNumberID, mimeType string, data []byte) string {
	f := &file{digits(15), phoneNumberID, mimeType, data}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[f.id] = f
	return f.id
}

// File gives an uploaded or added file; false if there is none.
func (s *Server) File(id string) (mimeType string, data []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[id]
	if f == nil {
		return "", nil, false
	}
	return f.mime, f.data, true
}

// ExpireLinks makes every link given so far stale; the ids stay good.
func (s *Server) ExpireLinks() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links++
}

func (s *Server) upload(n Number, r *http.Request, req *Request) answer {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return reply(errInvalid(400, 100, "(#100) The parameter file is required."))
	}
	form, err := r.MultipartReader()
	if err != nil {
		return reply(errInvalid(400, 100, "The form cannot be read"))
	}
	fields, f := map[string]string{}, (*file)(nil)
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return reply(errInvalid(400, 100, "The form cannot be read"))
		}
		data, err := io.ReadAll(io.LimitReader(part, maxFile+1))
		if err != nil {
			return reply(errInvalid(400, 100, "The form cannot be read"))
		}
		if part.FormName() == "file" {
			f = &file{digits(15), n.ID, part.Header.Get("Content-Type"), data}
		} else {
			fields[part.FormName()] = string(data)
		}
	}
	switch {
	case fields["messaging_product"] != "whatsapp":
		return reply(errInvalid(400, 100, "The parameter messaging_product is required."))
	case f == nil:
		return reply(errInvalid(400, 100, "The parameter file is required."))
	case fields["type"] == "" || fields["type"] != f.mime:
		return reply(errInvalid(400, 100, "Param file must be a file with one of the following types"))
	case len(f.data) > maxFile:
		return reply(errInvalid(400, 131053, "Media upload error"))
	}
	s.mu.Lock()
	s.files[f.id] = f
	s.mu.Unlock()
	return reply(map[string]any{"id": f.id})
}

// seen finds a file whose number the token may see.
func (s *Server) seen(id, token string) *file {
	s.mu.Lock()
	f := s.files[id]
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	if _, a := s.number(f.number, token); a == nil {
		return nil
	}
	return f
}

func (s *Server) mediaInfo(id, token string, r *http.Request) answer {
	f := s.seen(id, token)
	if f == nil || !match(r.URL.Query(), "phone_number_id", f.number) {
		return reply(errObject("GET", id))
	}
	ext := strconv.FormatInt(s.cfg.Now().Add(linkLife).Unix(), 10)
	q := url.Values{"mid": {id}, "ext": {ext}, "hash": {s.hash(id, ext)}}
	return reply(map[string]any{"messaging_product": "whatsapp", "url": s.URL + linkPath + "?" + q.Encode(), "mime_type": f.mime,
		"sha256": hex.EncodeToString(f.sum()), "file_size": len(f.data), "id": id})
}

func (s *Server) hash(id, ext string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256(fmt.Append(nil, id, ext, s.links, s.cfg.AppSecret))
	return base64.RawURLEncoding.EncodeToString(sum[:18])
}

func (s *Server) deleteMedia(id, token string) answer {
	if s.seen(id, token) == nil {
		return reply(errObject("DELETE", id))
	}
	s.mu.Lock()
	delete(s.files, id)
	s.mu.Unlock()
	return reply(map[string]any{"success": true})
}

// download gives the bytes; a link that is stale, and a token that may not see
// the file, are not found.
func (s *Server) download(r *http.Request, token string) answer {
	q := r.URL.Query()
	id, ext := q.Get("mid"), q.Get("ext")
	expires, _ := strconv.ParseInt(ext, 10, 64)
	f := s.seen(id, token)
	switch {
	case !s.knows(token):
		return reply(errToken())
	case f == nil, q.Get("hash") != s.hash(id, ext), s.cfg.Now().Unix() >= expires:
		return answer{http.StatusNotFound, "text/html", []byte("<html><body>Not found</body></html>")}
	}
	return answer{http.StatusOK, strings.TrimSpace(f.mime), f.data}
}
