package s3test

import (
	"bytes"
	"crypto/md5" // #nosec G501 -- Content-MD5 is the protocol's
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const maxBody = 256 << 20

// answer is what is said to a request.
type answer struct {
	status int
	code   string // of an error
	header http.Header
	body   []byte
}

// ServeHTTP answers as a store would, or as a Fault says.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key := s.place(r)
	req := &Request{At: s.cfg.Now(), Op: opOf(r, key), Bucket: bucket, Key: key, Query: r.URL.RawQuery, Header: r.Header.Clone(),
		Size: r.ContentLength, Payload: r.Header.Get("X-Amz-Content-Sha256")}
	req.Header.Del("Authorization")
	f := s.fault(req.Op)
	req.Fault = f.Name
	q, qerr := url.ParseQuery(r.URL.RawQuery)
	kind, sig, bad := s.verify(r, q)
	req.Signed = kind
	s.note(req)

	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	var a answer
	switch {
	case f.hang:
		select {
		case <-r.Context().Done():
		case <-s.life.Done():
		}
		cut(w, nil)
		return
	case f.refusal != nil:
		a = f.refusal.answer()
	case f.page != "":
		a = answer{f.status, "", http.Header{"Content-Type": {"text/html"}}, []byte(f.page)}
	case f.reset && !f.accept:
		cut(w, nil)
		return
	case err != nil:
		a = refuse(400, "IncompleteBody", "The request body terminated unexpectedly").answer()
	case len(body) > maxBody:
		a = refuse(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size").answer()
	case qerr != nil:
		a = refuse(400, "InvalidURI", "Couldn't parse the specified URI.").answer()
	case bad != nil:
		a = bad.answer()
	default:
		a = s.answer(r, req, q, sig, body, f)
	}
	if f.etag != "" && a.status < 300 {
		a.header.Set("Etag", f.etag)
	}
	s.answered(req, a.status, a.code)
	switch {
	case f.reset:
		cut(w, nil)
		return
	case f.truncate && a.status < 300:
		var head bytes.Buffer
		fmt.Fprintf(&head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n", len(a.body))
		_ = a.header.Write(&head)
		head.WriteString("\r\n")
		head.Write(a.body[:min(f.keep, len(a.body))])
		cut(w, head.Bytes())
		return
	}
	for k, v := range a.header {
		w.Header()[k] = v
	}
	w.Header().Set("X-Amz-Request-Id", fmt.Sprintf("REQ%013d", req.Seq))
	w.Header().Set("Server", "s3test")
	if a.status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.body)
	}
}

// strict refuses what R2 refuses, and uploads that nothing vouches for.
func strict(r *http.Request, op string, sig signed, body []byte) *fail {
	for name := range r.Header {
		lower := strings.ToLower(name)
		if lower == "x-amz-trailer" || lower == "x-amz-decoded-content-length" || strings.HasPrefix(lower, "x-amz-checksum-") || strings.HasPrefix(lower, "x-amz-sdk-") {
			return refuse(501, "NotImplemented", "Header '"+lower+"' not implemented")
		}
	}
	if strings.HasPrefix(sig.payload, "STREAMING-") || strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") {
		return refuse(501, "NotImplemented", sig.payload+" not implemented")
	}
	if sig.payload != "UNSIGNED-PAYLOAD" && sig.payload != hexSum(body) {
		return refuse(400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	given := r.Header.Get("Content-Md5")
	if given != "" {
		want, err := base64.StdEncoding.DecodeString(given)
		if err != nil || len(want) != md5.Size {
			return refuse(400, "InvalidDigest", "The Content-MD5 you specified is not valid.")
		}
		if sum := md5.Sum(body); !bytes.Equal(want, sum[:]) { // #nosec G401
			return refuse(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
		}
	}
	switch op {
	case "put":
		if r.ContentLength < 0 {
			return refuse(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
		}
		if given == "" && sig.payload == "UNSIGNED-PAYLOAD" {
			return refuse(400, "InvalidRequest", "Neither Content-MD5 nor x-amz-content-sha256 vouches for the body")
		}
	case "delete-many":
		if given == "" {
			return refuse(400, "InvalidRequest", "Missing required header for this request: Content-MD5")
		}
	}
	return nil
}

func (s *Server) answer(r *http.Request, req *Request, q url.Values, sig signed, body []byte, f Fault) answer {
	if bad := strict(r, req.Op, sig, body); bad != nil {
		return bad.answer()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	objects, ok := s.buckets[req.Bucket]
	if !ok {
		return refuse(404, "NoSuchBucket", "The specified bucket does not exist").answer()
	}
	if len(req.Key) > 1024 {
		return refuse(400, "KeyTooLongError", "Your key is too long").answer()
	}
	h := http.Header{}
	switch req.Op {
	case "put":
		o := Object{Body: body, MIME: r.Header.Get("Content-Type"), Disposition: r.Header.Get("Content-Disposition"), ETag: etag(body), Modified: s.cfg.Now()}
		if _, taken := objects[req.Key]; taken && r.Header.Get("If-None-Match") == "*" {
			return refuse(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold").answer()
		}
		objects[req.Key] = o
		h.Set("Etag", o.ETag)
		return answer{200, "", h, nil}
	case "get", "head":
		o, ok := objects[req.Key]
		if !ok {
			return refuse(404, "NoSuchKey", "The specified key does not exist.").answer()
		}
		h.Set("Etag", o.ETag)
		h.Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
		set(h, "Content-Type", o.MIME, q.Get("response-content-type"))
		set(h, "Content-Disposition", o.Disposition, q.Get("response-content-disposition"))
		return answer{200, "", h, o.Body}
	case "delete":
		delete(objects, req.Key)
		return answer{204, "", h, nil}
	case "delete-many":
		return deleteMany(objects, body, f.partial)
	case "list":
		return s.list(objects, q)
	}
	return refuse(501, "NotImplemented", "A header or query you provided implies functionality that is not implemented").answer()
}

func set(h http.Header, name, stored, asked string) {
	if asked != "" {
		stored = asked
	}
	if stored != "" {
		h.Set(name, stored)
	}
}

func deleteMany(objects map[string]Object, body []byte, failing int) answer {
	var in struct {
		XMLName xml.Name `xml:"Delete"`
		Objects []struct {
			Key string
		} `xml:"Object"`
		Quiet bool
	}
	if err := xml.Unmarshal(body, &in); err != nil || len(in.Objects) == 0 || len(in.Objects) > 1000 {
		return refuse(400, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema").answer()
	}
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?><DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`)
	for i, o := range in.Objects {
		if i < failing {
			b.WriteString("<Error><Key>" + xmlText(o.Key) + "</Key><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message></Error>")
			continue
		}
		delete(objects, o.Key)
		if !in.Quiet {
			b.WriteString("<Deleted><Key>" + xmlText(o.Key) + "</Key></Deleted>")
		}
	}
	b.WriteString("</DeleteResult>")
	return answer{200, "", http.Header{"Content-Type": {"application/xml"}}, []byte(b.String())}
}

func (s *Server) list(objects map[string]Object, q url.Values) answer {
	limit := s.cfg.PageSize
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil && n >= 0 {
		limit = min(limit, n)
	}
	after := q.Get("start-after")
	if t := q.Get("continuation-token"); t != "" {
		b, err := base64.URLEncoding.DecodeString(t)
		if err != nil {
			return refuse(400, "InvalidArgument", "The continuation token provided is incorrect").answer()
		}
		after = string(b)
	}
	var keys []string
	for k := range objects {
		if strings.HasPrefix(k, q.Get("prefix")) && k > after {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	more := len(keys) > limit
	keys = keys[:min(limit, len(keys))]
	name := xmlText
	if q.Get("encoding-type") == "url" {
		name = func(s string) string { return escape(s, true) }
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>%t</IsTruncated><KeyCount>%d</KeyCount><MaxKeys>%d</MaxKeys>`, more, len(keys), limit)
	if q.Get("encoding-type") == "url" {
		b.WriteString("<EncodingType>url</EncodingType>")
	}
	if more {
		last := ""
		if len(keys) > 0 {
			last = keys[len(keys)-1]
		}
		b.WriteString("<NextContinuationToken>" + base64.URLEncoding.EncodeToString([]byte(last)) + "</NextContinuationToken>")
	}
	for _, k := range keys {
		o := objects[k]
		fmt.Fprintf(&b, "<Contents><Key>%s</Key><LastModified>%s</LastModified><ETag>%s</ETag><Size>%d</Size></Contents>",
			name(k), o.Modified.UTC().Format(time.RFC3339), xmlText(o.ETag), len(o.Body))
	}
	b.WriteString("</ListBucketResult>")
	return answer{200, "", http.Header{"Content-Type": {"application/xml"}}, []byte(b.String())}
}

func etag(body []byte) string {
	sum := md5.Sum(body) // #nosec G401
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func xmlText(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // to a buffer: does not fail
	return b.String()
}
