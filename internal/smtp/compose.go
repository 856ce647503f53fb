package smtp

import (
	"bytes"
	"maps"
	"mime"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// letter is a message as it goes over the wire.
type letter struct {
	from, to string // the envelope, without brackets
	utf8     bool   // an address needs SMTPUTF8
	toUTF8   bool   // the recipient's does
	raw      []byte // header and body, each line ended by CRLF; none begins with a dot, so that none need be doubled
}

// raws are for the next letters. A large one is not kept.
var raws = sync.Pool{New: func() any { return new([]byte) }}

// free gives back what a letter took. Nobody may look at it any more.
func (l *letter) free() {
	if cap(l.raw) <= 64<<10 {
		raws.Put(&l.raw)
	}
}

// The longest that a line of a header may get; SMTP allows 998 bytes.
const maxValue = 900

// compose writes the message. It does all that can be refused without a connection.
func (c *Client) compose(acc Account, msg Message) (*letter, *Error) {
	from, err := parseAddress(acc.From)
	if err != nil {
		return nil, invalid(ScopeAccount, "from is not a mail address")
	}
	to, err := parseAddress(msg.To)
	if err != nil {
		e := invalid(ScopeRecipient, "the recipient is not a mail address")
		e.Bounce = BounceHard
		return nil, e
	}
	l := &letter{from: from.String(), to: to.String(), utf8: from.utf8 || to.utf8, toUTF8: to.utf8}

	if !isID(msg.ID) {
		return nil, invalid(ScopeMessage, "the id is missing or is not made of letters, digits and .-_+=")
	}
	reply := ""
	if acc.ReplyTo != "" {
		a, err := parseAddress(acc.ReplyTo)
		if err != nil {
			return nil, invalid(ScopeAccount, "replyTo is not a mail address")
		}
		reply, l.utf8 = a.String(), l.utf8 || a.utf8
	}
	if msg.EnvelopeFrom != "" {
		envelope, err := parseAddress(msg.EnvelopeFrom)
		if err != nil {
			return nil, invalid(ScopeMessage, "the envelope's sender is not a mail address")
		}
		l.from, l.utf8 = envelope.String(), l.utf8 || envelope.utf8
	}
	subject := oneLine(msg.Subject)
	if len(subject) > maxValue {
		return nil, invalid(ScopeMessage, "the subject is longer than 900 bytes")
	}
	text, html := valid(msg.Text), valid(msg.HTML)
	if text == "" && html == "" {
		return nil, invalid(ScopeMessage, "there is neither text nor html")
	}

	b := *raws.Get().(*[]byte)
	b = slices.Grow(b[:0], 2048+len(text)+len(html)+(len(text)+len(html))/8)
	b = appendField(b, "Date", c.cfg.Now().UTC().Format(time.RFC1123Z))
	b = appendField(b, "MIME-Version", "1.0")
	// Not folded, however long: some servers and mail programs do not know it otherwise.
	b = appendLine(b, "Message-ID: <", msg.ID, "@", from.domain, ">")
	b = appendField(b, "Subject", mime.QEncoding.Encode("UTF-8", subject))
	for _, name := range slices.Sorted(maps.Keys(msg.Headers)) {
		value := msg.Headers[name]
		if !isFreeHeader(name) || len(value) > maxValue {
			return nil, invalid(ScopeMessage, "a header's name may not be set, or its value is longer than 900 bytes")
		}
		b = appendField(b, textproto.CanonicalMIMEHeaderKey(name), mime.QEncoding.Encode("UTF-8", oneLine(value)))
	}
	if msg.ListUnsubscribe != "" {
		if !isWebAddress(msg.ListUnsubscribe) {
			return nil, invalid(ScopeMessage, "listUnsubscribe is not a web address")
		}
		// Not folded, as readers of this header are not all careful; and therefore checked to the letter.
		b = appendLine(b, "List-Unsubscribe: <", msg.ListUnsubscribe, ">")
		b = appendLine(b, "List-Unsubscribe-Post: List-Unsubscribe=One-Click")
	}
	b = appendField(b, "From", person(acc.FromName, from.String()))
	b = appendField(b, "To", person(msg.ToName, to.String()))
	if reply != "" {
		b = appendField(b, "Reply-To", person("", reply))
	}
	switch {
	case text != "" && html != "":
		b = appendLine(b, `Content-Type: multipart/alternative; boundary="`, boundary, `"`)
		b = appendPart(appendLine(b, "\r\n--", boundary), "text/plain", text)
		b = appendPart(appendLine(b, "\r\n--", boundary), "text/html", html)
		b = appendLine(b, "\r\n--", boundary, "--")
	case html != "":
		b = appendPart(b, "text/html", html)
	default:
		b = appendPart(b, "text/plain", text)
	}
	if !bytes.HasSuffix(b, []byte("\r\n")) {
		b = append(b, "\r\n"...)
	}
	l.raw = b
	return l, nil
}

// valid gives a text as UTF-8; nearly all are, and that is told faster.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func isID(s string) bool {
	if s == "" || len(s) > 200 || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	return strings.Trim(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-_+=") == ""
}

func isWebAddress(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte(`<>"\`, s[i]) >= 0 {
			return false
		}
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && len(s) <= maxValue
}

// ownHeaders are written from the fields of a message or an account, or by servers on the way.
var ownHeaders = []string{
	"from", "sender", "reply-to", "to", "cc", "bcc", "envelopefrom", "subject", "date", "message-id", "mime-version",
	"list-unsubscribe", "list-unsubscribe-post", "return-path", "received", "dkim-signature", "authentication-results",
}

func isFreeHeader(name string) bool {
	for i := range len(name) {
		if name[i] <= ' ' || name[i] >= 0x7f || name[i] == ':' {
			return false
		}
	}
	name = strings.ToLower(name)
	return name != "" && len(name) <= 60 && !slices.Contains(ownHeaders, name) &&
		!strings.HasPrefix(name, "content-") && !strings.HasPrefix(name, "resent-") && !strings.HasPrefix(name, "arc-")
}

// invalid is the error of what was refused before anything was called.
func invalid(scope Scope, why string) *Error {
	return &Error{Op: "validate", Outcome: Rejected, Scope: scope, Err: &reason{ErrInvalid, why}}
}

// reason is a sentinel with words of its own.
type reason struct {
	is   error
	text string
}

func (r *reason) Error() string { return r.text }
func (r *reason) Unwrap() error { return r.is }
