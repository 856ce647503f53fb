package smtp

import (
	"bytes"
	netmail "net/mail"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/wneessen/go-mail"
)

// letter is a message as it goes over the wire.
type letter struct {
	from, to string // the envelope, without brackets
	utf8     bool   // an address needs SMTPUTF8
	toUTF8   bool   // the recipient's does
	raw      []byte // header and body, lines ended by CRLF, dots not yet doubled
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
	m := mail.NewMsg(mail.WithNoDefaultUserAgent())
	m.SetMessageIDWithValue(msg.ID + "@" + from.domain)
	m.SetDateWithValue(c.cfg.Now().UTC())
	m.FromMailAddress(&netmail.Address{Name: displayName(acc.FromName), Address: from.String()})
	m.ToMailAddress(&netmail.Address{Name: displayName(msg.ToName), Address: to.String()})
	if acc.ReplyTo != "" {
		reply, err := parseAddress(acc.ReplyTo)
		if err != nil {
			return nil, invalid(ScopeAccount, "replyTo is not a mail address")
		}
		l.utf8 = l.utf8 || reply.utf8
		m.ReplyToMailAddress(&netmail.Address{Address: reply.String()})
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
	m.Subject(subject)
	if msg.ListUnsubscribe != "" {
		if !isWebAddress(msg.ListUnsubscribe) {
			return nil, invalid(ScopeMessage, "listUnsubscribe is not a web address")
		}
		// Not folded, as readers of this header are not all careful; and therefore checked to the letter.
		m.SetGenHeaderPreformatted(mail.HeaderListUnsubscribe, "<"+msg.ListUnsubscribe+">")
		m.SetGenHeaderPreformatted(mail.HeaderListUnsubscribePost, "List-Unsubscribe=One-Click")
	}
	for name, value := range msg.Headers {
		if !isFreeHeader(name) || len(value) > maxValue {
			return nil, invalid(ScopeMessage, "a header's name may not be set, or its value is longer than 900 bytes")
		}
		m.SetGenHeader(mail.Header(textproto.CanonicalMIMEHeaderKey(name)), oneLine(value))
	}
	text, html := strings.ToValidUTF8(msg.Text, "\uFFFD"), strings.ToValidUTF8(msg.HTML, "\uFFFD")
	switch {
	case text != "" && html != "":
		m.SetBodyString(mail.TypeTextPlain, text)
		m.AddAlternativeString(mail.TypeTextHTML, html)
	case html != "":
		m.SetBodyString(mail.TypeTextHTML, html)
	case text != "":
		m.SetBodyString(mail.TypeTextPlain, text)
	default:
		return nil, invalid(ScopeMessage, "there is neither text nor html")
	}

	var b bytes.Buffer
	b.Grow(2048 + len(text) + len(html) + (len(text)+len(html))/8)
	if _, err := m.WriteTo(&b); err != nil {
		return nil, invalid(ScopeMessage, "it cannot be written as a mail")
	}
	l.raw = unfoldID(b.Bytes())
	return l, nil
}

// unfoldID puts a long Message-ID back on the line of its name: some servers
// and mail programs do not know it otherwise.
func unfoldID(raw []byte) []byte {
	const folded, flat = "\r\nMessage-ID:\r\n <", "\r\nMessage-ID: <"
	head, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	i := bytes.Index(head, []byte(folded))
	if i < 0 {
		return raw
	}
	return slices.Concat(raw[:i], []byte(flat), raw[i+len(folded):])
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
