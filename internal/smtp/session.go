package smtp

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	wire "github.com/wneessen/go-mail/smtp"
)

// session is one connection to an account's server, signed in. One goroutine at a time uses it.
//
// It begins through go-mail's protocol client and speaks MAIL, RCPT, DATA itself: go-mail's Send asks NOOP and RSET for
// every message, waits for each answer, goes on with a session that the server has given up, and has a failure after the
// message was taken look like one before.
type session struct {
	key    login
	conn   *conn
	client *wire.Client
	cfg    *Config
	sent   int  // messages tried
	dead   bool // not to be used again
	timer  *time.Timer
}

// conn bounds what a server may answer.
type conn struct {
	net.Conn
	left int // bytes that may still be read
}

var errTooMuch = errors.New("the server answers too much")

// The most that is read while a session begins (a few certificates are part of it), and for one message.
const (
	mostAtFirst    = 256 << 10
	mostPerMessage = 64 << 10
)

func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooMuch
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// open connects, secures the connection and signs in.
func (c *Client) open(ctx context.Context, acc Account) (*session, *Error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	host, _ := hostName(acc.Host)
	raw, err := c.dial(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(acc.Port)))
	if err != nil {
		return nil, failed(ctx, "connect", err)
	}
	s := &session{key: acc.login(), conn: &conn{Conn: raw, left: mostAtFirst}, cfg: &c.cfg}
	end := s.during(ctx, c.cfg.DialTimeout)
	e := s.begin(ctx, host, acc, &tls.Config{ServerName: host, RootCAs: c.cfg.RootCAs, MinVersion: tls.VersionTLS12})
	end()
	if e == nil && s.dead { // ctx ended in the last moment
		e = &Error{Op: "connect", Outcome: NotSent, Scope: ScopeTransport, Err: ctx.Err()}
	}
	if e != nil {
		_ = raw.Close()
		return nil, e
	}
	return s, nil
}

// during bounds what follows by a time and by ctx, whose end closes the
// connection. The function it gives must be called when that is done.
func (s *session) during(ctx context.Context, most time.Duration) func() {
	_ = s.conn.SetDeadline(time.Now().Add(most))
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Conn.Close() })
	return func() {
		if !stop() {
			s.dead = true
		}
	}
}

func (s *session) begin(ctx context.Context, host string, acc Account, trust *tls.Config) *Error {
	link := net.Conn(s.conn)
	if acc.Security == TLS {
		secured := tls.Client(s.conn, trust)
		if err := secured.HandshakeContext(ctx); err != nil {
			return failed(ctx, "tls", err)
		}
		link = secured
	}
	var err error
	if s.client, err = wire.NewClient(link, host); err != nil { // reads the greeting
		return s.failed(ctx, "greeting", err)
	}
	if err := s.client.Hello(s.cfg.HelloName); err != nil {
		return s.failed(ctx, "hello", err)
	}
	if acc.Security == StartTLS {
		if ok, _ := s.client.Extension("STARTTLS"); !ok {
			return &Error{Op: "starttls", Outcome: Rejected, Scope: ScopeAccount, Err: ErrNoTLS}
		}
		if err := s.client.StartTLS(trust); err != nil {
			return s.failed(ctx, "starttls", err)
		}
	}
	if acc.Username == "" {
		return nil
	}
	auth := s.mechanism(host, acc)
	if auth == nil {
		return &Error{Op: "auth", Outcome: Rejected, Scope: ScopeAccount, Err: ErrAuth}
	}
	if err := s.client.Auth(auth); err != nil {
		e := s.failed(ctx, "auth", err)
		if e.Code == 0 && errors.Is(e.Err, ErrProtocol) { // a challenge that was answered wrongly
			e.Outcome, e.Scope = Rejected, ScopeAccount
		}
		return e
	}
	return nil
}

// mechanism chooses how to sign in: the plain ones where nobody can listen, as
// every server means the same by them; nil if nothing fits.
func (s *session) mechanism(host string, acc Account) wire.Auth {
	_, offered := s.client.Extension("AUTH")
	has := map[string]bool{}
	for m := range strings.FieldsSeq(strings.ToUpper(offered)) {
		has[m] = true
	}
	user, password := acc.Username, acc.Password.Reveal()
	if acc.Security != None || isPrivatePeer(s.conn.Conn) {
		switch {
		case has["PLAIN"]:
			return wire.PlainAuth("", user, password, host, true)
		case has["LOGIN"]:
			return wire.LoginAuth(user, password, host, true)
		}
	}
	switch {
	case has["SCRAM-SHA-256"]:
		return wire.ScramSHA256Auth(user, password)
	case has["SCRAM-SHA-1"]:
		return wire.ScramSHA1Auth(user, password)
	case has["CRAM-MD5"]:
		return wire.CRAMMD5Auth(user, password)
	}
	return nil
}

// send hands over one message.
func (s *session) send(ctx context.Context, l *letter) *Error {
	if ok, _ := s.client.Extension("SMTPUTF8"); l.utf8 && !ok {
		e := invalid(ScopeAccount, "an address is not ASCII, and the server does not take such")
		if l.toUTF8 {
			e.Scope, e.Bounce = ScopeRecipient, BounceSoft
		}
		return e
	}
	if _, size := s.client.Extension("SIZE"); size != "" {
		if most, err := strconv.Atoi(size); err == nil && most > 0 && len(l.raw) > most {
			return invalid(ScopeMessage, "the message is larger than the server takes")
		}
	}
	s.sent++
	s.conn.left = mostPerMessage
	end := s.during(ctx, s.cfg.CommandTimeout)
	e := s.transact(ctx, l)
	end()
	// An answer that nobody asked for would be taken for the next command's.
	s.dead = s.dead || s.client.Text.R.Buffered() > 0
	return e
}

// transact names the sender and the recipient, asks for leave to send the message and sends it. A server that takes
// commands in a row (PIPELINING) is told all three at once; the message itself never goes out before it said go on.
func (s *session) transact(ctx context.Context, l *letter) *Error {
	mail := "MAIL FROM:<" + l.from + ">"
	if ok, _ := s.client.Extension("8BITMIME"); ok {
		mail += " BODY=8BITMIME"
	}
	if l.utf8 { // only asked for where needed: a mail marked so is not passed on to servers that cannot read it
		mail += " SMTPUTF8"
	}
	say := [...]struct {
		op, line string
		want     int
	}{{"mail", mail, 250}, {"rcpt", "RCPT TO:<" + l.to + ">", 25}, {"data", "DATA", 354}}
	row, _ := s.client.Extension("PIPELINING")
	if row {
		var all []byte
		for _, c := range say {
			all = appendLine(all, c.line)
		}
		if err := s.write(all); err != nil {
			return s.failed(ctx, say[0].op, err)
		}
	}
	for i, c := range say {
		var err error
		if !row {
			err = s.write(appendLine(nil, c.line))
		}
		if err == nil {
			_, _, err = s.client.Text.ReadResponse(c.want)
		}
		if err == nil {
			continue
		}
		e := s.failed(ctx, c.op, err)
		if row {
			s.drain(len(say) - 1 - i)
		}
		if i > 0 {
			s.abort()
		}
		return e
	}
	_ = s.conn.SetDeadline(time.Now().Add(s.cfg.DataTimeout))
	// With the final dot in one piece: if that cannot be written to its end, the dot is not there.
	if err := s.write(append(l.raw, ".\r\n"...)); err != nil {
		e := s.failed(ctx, "content", err)
		e.retry = false
		return e
	}
	code, text, err := s.client.Text.ReadResponse(2)
	if err == nil {
		return nil
	}
	if code < 400 || code > 599 {
		e := s.failed(ctx, "content", err)
		e.Outcome, e.Scope, e.Code, e.retry = Ambiguous, ScopeMessage, 0, false
		return e
	}
	e := s.failed(ctx, "content", &textproto.Error{Code: code, Msg: text})
	e.retry = false
	return e
}

func (s *session) write(text []byte) error {
	if _, err := s.client.Text.W.Write(text); err != nil {
		return err
	}
	return s.client.Text.W.Flush()
}

// drain reads the answers to what was said in a row behind a command that was refused. A server that would take the
// message all the same is left: it has nobody to take it for.
func (s *session) drain(answers int) {
	for range answers {
		if s.dead {
			return
		}
		code, _, err := s.client.Text.ReadResponse(0)
		s.dead = err != nil || code < 250 || code == 354 || code == 421
	}
}

// abort ends a transaction that was refused in the middle.
func (s *session) abort() {
	if !s.dead && s.client.Reset() != nil {
		s.dead = true
	}
}

// noop asks for nothing but an answer.
func (s *session) noop(ctx context.Context) *Error {
	end := s.during(ctx, s.cfg.CommandTimeout)
	defer end()
	if err := s.client.Noop(); err != nil {
		return s.failed(ctx, "noop", err)
	}
	return nil
}

// quit says goodbye, without waiting for an answer, and closes the connection.
func (s *session) quit() {
	if s.dead {
		_ = s.conn.Conn.Close() // first: TLS would wait to say goodbye to a server that does not read
	} else {
		_ = s.conn.SetDeadline(time.Now().Add(time.Second))
		_ = s.client.Text.PrintfLine("QUIT")
	}
	_ = s.client.Close()
}

// failed makes the error of a step, from a refusal or from the lack of an answer.
func (s *session) failed(ctx context.Context, op string, err error) *Error {
	var answer *textproto.Error
	if !errors.As(err, &answer) || answer.Code < 400 || answer.Code > 599 {
		s.dead = true
		e := failed(ctx, op, err)
		// An old connection that is gone says so at once; one that is silent would be silent again.
		e.retry = ctx.Err() == nil && !isTimeout(e.Err) && e.Scope == ScopeTransport
		return e
	}
	e := &Error{Op: op, Code: answer.Code, Enhanced: enhancedCode(answer.Code, answer.Msg), Reply: s.scrub(answer.Msg)}
	v := classify(op, e.Code, e.Enhanced)
	e.Outcome, e.Scope, e.Bounce, e.after = v.outcome, v.scope, v.bounce, v.after
	switch {
	case e.Code == 421:
		s.dead, e.retry = true, true
	case e.Code < 450 || 500 <= e.Code && e.Code < 550 && op != "rcpt": // not of this mail, but of the talk itself
		s.dead = true
	}
	return e
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// scrub takes the password out of a server's words and bounds them.
func (s *session) scrub(text string) string {
	if password := s.key.password.Reveal(); password != "" {
		both := "\x00" + s.key.username + "\x00" + password
		for _, form := range []string{
			password, url.QueryEscape(password),
			base64.StdEncoding.EncodeToString([]byte(both)), base64.StdEncoding.EncodeToString([]byte(password)),
			base64.RawStdEncoding.EncodeToString([]byte(both)), base64.RawStdEncoding.EncodeToString([]byte(password)),
		} {
			text = strings.ReplaceAll(text, form, "[password]")
		}
	}
	text = oneLine(text)
	const most = 500
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
