package s3test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm = "AWS4-HMAC-SHA256"
	stamp     = "20060102T150405Z"
	maxSkew   = 15 * time.Minute
	maxLife   = 7 * 24 * 3600 // seconds
)

// signed is what a request says of its signature.
type signed struct {
	query     bool // in the address, not in a header
	id        string
	date      string // YYYYMMDD
	region    string
	headers   []string
	signature string
	at        time.Time
	life      int // seconds; of an address
	payload   string
}

// verify judges a request's signature (Signature Version 4) and tells where it
// stood: "header", "query", or "" if there was none.
func (s *Server) verify(r *http.Request, q url.Values) (kind string, sig signed, fail *fail) {
	switch {
	case q.Has("X-Amz-Signature") || q.Has("X-Amz-Algorithm"):
		kind = "query"
		sig, fail = readQuery(q)
	case r.Header.Get("Authorization") != "":
		kind = "header"
		sig, fail = readHeader(r.Header)
	default:
		return "", sig, refuse(403, "AccessDenied", "Access Denied")
	}
	if fail != nil {
		return kind, sig, fail
	}
	if sig.id != s.cfg.AccessKeyID {
		return kind, sig, refuse(403, "InvalidAccessKeyId", "The access key Id you provided does not exist in our records.")
	}
	if sig.region != s.cfg.Region {
		return kind, sig, refuse(400, "AuthorizationHeaderMalformed", "The region is wrong; expecting '"+s.cfg.Region+"'")
	}
	if sig.at.Format("20060102") != sig.date {
		return kind, sig, refuse(403, "SignatureDoesNotMatch", "Invalid credential date.")
	}
	now := s.cfg.Now()
	if sig.query {
		if now.Before(sig.at.Add(-maxSkew)) {
			return kind, sig, refuse(403, "AccessDenied", "Request is not valid yet")
		}
		if !now.Before(sig.at.Add(time.Duration(sig.life) * time.Second)) {
			return kind, sig, refuse(403, "AccessDenied", "Request has expired")
		}
	} else if d := now.Sub(sig.at); d > maxSkew || d < -maxSkew {
		return kind, sig, refuse(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
	}
	token := r.Header.Get("X-Amz-Security-Token")
	if sig.query {
		token = q.Get("X-Amz-Security-Token")
	}
	if token != s.cfg.SessionToken {
		return kind, sig, refuse(403, "InvalidToken", "The provided token is malformed or otherwise invalid.")
	}
	if !slices.Contains(sig.headers, "host") || !slices.IsSorted(sig.headers) {
		return kind, sig, refuse(403, "SignatureDoesNotMatch", "host is not signed")
	}
	for name := range r.Header {
		name = strings.ToLower(name)
		if (strings.HasPrefix(name, "x-amz-") || name == "content-md5") && !slices.Contains(sig.headers, name) {
			return kind, sig, refuse(403, "AccessDenied", "There were headers present in the request which were not signed: "+name)
		}
	}
	scope := sig.date + "/" + sig.region + "/s3/aws4_request"
	toSign := algorithm + "\n" + sig.at.Format(stamp) + "\n" + scope + "\n" + hexSum([]byte(canonical(r, q, sig)))
	key := []byte("AWS4" + s.cfg.SecretAccessKey)
	for _, part := range []string{sig.date, sig.region, "s3", "aws4_request", toSign} {
		key = mac(key, part)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(key)), []byte(sig.signature)) {
		return kind, sig, refuse(403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
	}
	return kind, sig, nil
}

func readHeader(h http.Header) (sig signed, _ *fail) {
	bad := refuse(400, "AuthorizationHeaderMalformed", "The authorization header is malformed.")
	rest, ok := strings.CutPrefix(h.Get("Authorization"), algorithm+" ")
	if !ok {
		return sig, bad
	}
	parts := map[string]string{}
	for p := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		parts[k] = v
	}
	if !sig.scope(parts["Credential"]) || len(parts) != 3 {
		return sig, bad
	}
	at, err := time.Parse(stamp, h.Get("X-Amz-Date"))
	if err != nil {
		return sig, refuse(403, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
	}
	sig.at, sig.headers, sig.signature = at, strings.Split(parts["SignedHeaders"], ";"), parts["Signature"]
	if sig.payload = h.Get("X-Amz-Content-Sha256"); sig.payload == "" {
		return sig, refuse(400, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
	}
	return sig, nil
}

func readQuery(q url.Values) (sig signed, _ *fail) {
	bad := refuse(400, "AuthorizationQueryParametersError", "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
	at, err := time.Parse(stamp, q.Get("X-Amz-Date"))
	life, lerr := strconv.Atoi(q.Get("X-Amz-Expires"))
	if err != nil || lerr != nil || life < 1 || life > maxLife || q.Get("X-Amz-Algorithm") != algorithm || !sig.scope(q.Get("X-Amz-Credential")) {
		return sig, bad
	}
	sig.query, sig.at, sig.life, sig.payload = true, at, life, "UNSIGNED-PAYLOAD"
	sig.headers, sig.signature = strings.Split(q.Get("X-Amz-SignedHeaders"), ";"), q.Get("X-Amz-Signature")
	return sig, nil
}

func (sig *signed) scope(credential string) bool {
	p := strings.Split(credential, "/")
	if len(p) != 5 || p[3] != "s3" || p[4] != "aws4_request" {
		return false
	}
	sig.id, sig.date, sig.region = p[0], p[1], p[2]
	return true
}

// canonical is the request as it is signed.
func canonical(r *http.Request, q url.Values, sig signed) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + escape(r.URL.Path, true) + "\n")
	var pairs []string
	for k, values := range q {
		if k == "X-Amz-Signature" {
			continue
		}
		for _, v := range values {
			pairs = append(pairs, escape(k, false)+"="+escape(v, false))
		}
	}
	slices.Sort(pairs)
	b.WriteString(strings.Join(pairs, "&") + "\n")
	for _, name := range sig.headers {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = strconv.FormatInt(r.ContentLength, 10)
		}
		b.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	b.WriteString("\n" + strings.Join(sig.headers, ";") + "\n" + sig.payload)
	return b.String()
}

// escape is the protocol's own percent-encoding: all but letters, digits, - . _ ~ and perhaps the slash.
func escape(s string, path bool) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0, path && c == '/':
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

func mac(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
