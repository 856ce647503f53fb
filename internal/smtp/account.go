package smtp

import (
	"fmt"
	"log/slog"

	"github.com/ecodrix/ecod/internal/secret"
)

// Security is how a connection is protected.
type Security string

const (
	StartTLS Security = "starttls" // begins in the clear and must change to TLS; usual on 587 and 2525
	TLS      Security = "tls"      // TLS from the first byte; usual on 465
	None     Security = "none"     // no TLS: a password goes only to private addresses, or by challenge and response
)

// Account is whose server and sender it is: a value, so that no client of ours is kept here.
type Account struct {
	Host     string // a name or an IP address
	Port     int
	Security Security
	Username string // "": the server wants no sign-in
	Password secret.Text

	From     string // the sender's address, without a name
	FromName string
	ReplyTo  string // "": none
}

// String names the server, and no address or secret.
func (a Account) String() string { return fmt.Sprintf("%s:%d (%s)", a.Host, a.Port, a.Security) }

// LogValue is String: an account carries addresses and a secret.
func (a Account) LogValue() slog.Value { return slog.StringValue(a.String()) }

// login is what makes a connection fit for reuse.
type login struct {
	host     string
	port     int
	security Security
	username string
	password secret.Text
}

func (a Account) login() login {
	return login{a.Host, a.Port, a.Security, a.Username, a.Password}
}

// Message is one mail to one recipient. White space and control characters in
// ToName, Subject and header values become single spaces; anywhere else they are refused.
type Message struct {
	// ID is the part of the Message-ID before the @, made of letters, digits
	// and .-_+=; the sender's domain follows. The same ID tells a mail's repeats.
	ID string

	To      string // an address, without a name
	ToName  string // cut after 300 bytes, as is the account's FromName
	Subject string // at most 900 bytes

	// At least one of the two; both make a multipart/alternative.
	Text string
	HTML string

	// ListUnsubscribe is a web address for RFC 8058's unsubscribing by one click;
	// it sets the headers List-Unsubscribe and List-Unsubscribe-Post.
	ListUnsubscribe string

	// EnvelopeFrom is where bounces go; "" is the account's From.
	EnvelopeFrom string

	// Headers are further header fields, such as Feedback-ID. Those that are
	// written from other fields, or by the mail's way, are refused.
	Headers map[string]string
}

// String names the message by its ID: the rest is of no log's business.
func (m Message) String() string { return "message " + m.ID }

// LogValue is String.
func (m Message) LogValue() slog.Value { return slog.StringValue(m.String()) }
