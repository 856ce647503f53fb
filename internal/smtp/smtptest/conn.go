package smtptest

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // it is what CRAM-MD5 is made of
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	netmail "net/mail"
	"strconv"
	"strings"
	"time"
)

// conn is one client's connection.
type conn struct {
	s    *Server
	raw  net.Conn
	link net.Conn // raw, or TLS over it
	r    *bufio.Reader
	nth  int    // of all connections, from 1
	held []byte // answers that go out with the next, as more commands have come in already

	tls, hello, extended bool
	user                 string // signed in as
	messages             int    // begun

	mail bool // a transaction is open
	utf8 bool
	from string
	to   []string
}

// The limits of RFC 5321, CRLF included.
const (
	longestCommand = 512 + 1024 // with room for the parameters of extensions
	longestLine    = 1000
)

var errGone = errors.New("the connection is over")

func (c *conn) secure() error {
	t := tls.Server(c.raw, &tls.Config{Certificates: []tls.Certificate{c.s.cert}, MinVersion: tls.VersionTLS12})
	if err := t.HandshakeContext(c.s.life); err != nil {
		return err
	}
	c.link, c.tls = t, true
	c.r = bufio.NewReader(t)
	return nil
}

func (c *conn) talk() {
	if c.r == nil {
		c.r = bufio.NewReader(c.link)
	}
	if c.do("greeting", "", "", func() string { return "220 smtptest.invalid ESMTP\r\n" }) != nil {
		return
	}
	for {
		if c.s.cfg.IdleTimeout > 0 {
			_ = c.raw.SetReadDeadline(time.Now().Add(c.s.cfg.IdleTimeout))
		}
		line, err := c.line(longestCommand)
		_ = c.raw.SetReadDeadline(time.Time{})
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			c.write(c.say(421, "4.4.2", "idle for too long"))
			return
		}
		if err != nil {
			return
		}
		if !strings.HasSuffix(line, "\r\n") {
			c.write(c.say(500, "5.5.2", "a line that does not end with CRLF"))
			return
		}
		if c.command(strings.TrimSuffix(line, "\r\n")) != nil {
			return
		}
	}
}

// line reads up to the next LF.
func (c *conn) line(most int) (string, error) {
	var b []byte
	for {
		part, err := c.r.ReadSlice('\n')
		b = append(b, part...)
		if len(b) > most {
			return "", errors.New("too long a line")
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return string(b), err
		}
	}
}

func (c *conn) write(answer string) {
	c.held = append(c.held, answer...)
	c.flush()
}

func (c *conn) flush() {
	if len(c.held) == 0 {
		return
	}
	_ = c.raw.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, _ = c.link.Write(c.held)
	c.held = c.held[:0]
}

// say makes an answer.
func (c *conn) say(code int, enhanced, text string) string {
	if c.s.cfg.NoEnhanced || enhanced == "" {
		return fmt.Sprintf("%d %s\r\n", code, text)
	}
	return fmt.Sprintf("%d %s %s\r\n", code, enhanced, text)
}

// do writes a command down, does it and answers; or misbehaves.
func (c *conn) do(verb, arg, to string, work func() string) error {
	cmd := &Command{At: c.s.cfg.Now(), Conn: c.nth, Verb: verb, Arg: arg, From: c.from, To: to, TLS: c.tls}
	f := c.s.fault(*cmd)
	if f != nil {
		cmd.Fault = f.Name
	}
	if f != nil || c.s.cfg.Delay > 0 {
		c.flush()
	}
	c.s.note(cmd)
	answer := ""
	if f == nil || f.accept {
		answer = work()
	}
	if f != nil && f.raw != "" {
		answer = f.raw
	}
	code, _ := strconv.Atoi(answer[:min(3, len(answer))])
	if !c.wait(c.s.cfg.Delay) || f != nil && !c.wait(f.delay) {
		return errGone
	}
	if f != nil {
		switch {
		case f.reset:
			reset(c.raw)
			return errGone
		case f.drop && f.raw == "":
			return errGone
		case f.hang:
			c.untilGone()
			return errGone
		case f.endless:
			c.flood()
			return errGone
		case f.raw == "" && !f.accept: // a delay only
			answer = work()
			code, _ = strconv.Atoi(answer[:min(3, len(answer))])
		}
	}
	c.s.change(func(*journal) { cmd.Code = code })
	c.held = append(c.held, answer...)
	over := f != nil && f.drop || verb == "QUIT" || code == 421
	if over || c.r.Buffered() == 0 {
		c.flush()
	}
	if over {
		return errGone
	}
	return nil
}

func (c *conn) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.s.life.Done():
		return false
	}
}

// untilGone reads until the client closes the connection.
func (c *conn) untilGone() { _, _ = io.Copy(io.Discard, c.r) }

// flood answers without an end, until the client has enough.
func (c *conn) flood() {
	chunk := strings.Repeat("250-and so on\r\n", 200)
	for {
		_ = c.raw.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c.link, chunk); err != nil {
			return
		}
	}
}

func (c *conn) command(line string) error {
	verb, arg, _ := strings.Cut(line, " ")
	switch verb = strings.ToUpper(verb); verb {
	case "EHLO", "HELO":
		return c.do(verb, arg, "", func() string { return c.greet(verb == "EHLO", arg) })
	case "STARTTLS":
		before := c.tls
		ready := false
		if err := c.do(verb, arg, "", func() string {
			if before || c.s.cfg.Security != "starttls" {
				return c.say(503, "5.5.1", "not now")
			}
			ready = true
			return c.say(220, "2.0.0", "go ahead")
		}); err != nil || !ready {
			return err
		}
		if c.r.Buffered() > 0 {
			return errGone // written before the answer to STARTTLS: an injection
		}
		c.hello, c.user, c.mail = false, "", false
		return c.secure()
	case "AUTH":
		return c.do(verb, "[secret]", "", func() string { return c.auth(arg) })
	case "MAIL":
		return c.do(verb, arg, "", func() string { return c.begin(arg) })
	case "RCPT":
		return c.do(verb, arg, path(arg, "TO:"), func() string { return c.recipient(arg) })
	case "DATA":
		open := false
		err := c.do(verb, arg, strings.Join(c.to, ","), func() string {
			if !c.mail || len(c.to) == 0 {
				return c.say(503, "5.5.1", "MAIL and RCPT first")
			}
			open = true
			return "354 go ahead\r\n"
		})
		if err != nil || !open {
			return err
		}
		return c.content()
	case "RSET":
		return c.do(verb, arg, "", func() string { c.mail = false; return c.say(250, "2.0.0", "forgotten") })
	case "NOOP":
		return c.do(verb, arg, "", func() string { return c.say(250, "2.0.0", "ok") })
	case "QUIT":
		return c.do(verb, arg, "", func() string { return c.say(221, "2.0.0", "bye") })
	}
	return c.do(verb, arg, "", func() string { return c.say(500, "5.5.2", "unknown command") })
}

func (c *conn) greet(extended bool, name string) string {
	if name == "" {
		return c.say(501, "5.5.4", "who?")
	}
	c.hello, c.extended, c.mail = true, extended, false
	if !extended {
		return "250 smtptest.invalid\r\n"
	}
	lines := []string{"smtptest.invalid", "8BITMIME"}
	if !c.s.cfg.NoPipelining {
		lines = append(lines, "PIPELINING")
	}
	if !c.s.cfg.NoEnhanced {
		lines = append(lines, "ENHANCEDSTATUSCODES")
	}
	if c.s.cfg.Security == "starttls" && !c.tls {
		lines = append(lines, "STARTTLS")
	}
	if c.s.cfg.Users != nil && (c.tls || c.s.cfg.Security == "none") {
		lines = append(lines, "AUTH "+strings.Join(c.s.cfg.Mechanisms, " "))
	}
	if c.s.cfg.SMTPUTF8 {
		lines = append(lines, "SMTPUTF8")
	}
	if c.s.cfg.Size > 0 {
		lines = append(lines, fmt.Sprintf("SIZE %d", c.s.cfg.Size))
	}
	return "250-" + strings.Join(lines[:len(lines)-1], "\r\n250-") + "\r\n250 " + lines[len(lines)-1] + "\r\n"
}

func (c *conn) auth(arg string) string {
	mechanism, initial, _ := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	known := false
	for _, m := range c.s.cfg.Mechanisms {
		known = known || m == mechanism
	}
	switch {
	case c.s.cfg.Users == nil || !known || !c.hello:
		return c.say(504, "5.5.4", "not known here")
	case !c.tls && c.s.cfg.Security != "none":
		return c.say(530, "5.7.0", "STARTTLS first")
	case c.user != "":
		return c.say(503, "5.5.1", "again?")
	}
	ask := func(challenge string) (string, bool) {
		c.write("334 " + base64.StdEncoding.EncodeToString([]byte(challenge)) + "\r\n")
		line, err := c.line(12288)
		line = strings.TrimSuffix(line, "\r\n")
		b, err64 := base64.StdEncoding.DecodeString(line)
		return string(b), err == nil && err64 == nil && line != "*"
	}
	user, password, ok := "", "", true
	switch mechanism {
	case "PLAIN":
		b, err := base64.StdEncoding.DecodeString(initial)
		both := string(b)
		if ok = err == nil; ok && initial == "" {
			both, ok = ask("")
		}
		parts := strings.Split(both, "\x00")
		if ok = ok && len(parts) == 3; ok {
			user, password = parts[1], parts[2]
		}
	case "LOGIN":
		if b, err := base64.StdEncoding.DecodeString(initial); initial != "" {
			user, ok = string(b), err == nil
		} else {
			user, ok = ask("Username:")
		}
		if ok {
			password, ok = ask("Password:")
		}
	case "CRAM-MD5":
		challenge := fmt.Sprintf("<%d.%d@smtptest.invalid>", c.nth, c.s.cfg.Now().UnixNano())
		answer, heard := ask(challenge)
		i := strings.LastIndexByte(answer, ' ')
		if ok = heard && i > 0; ok {
			user = answer[:i]
			sum := hmac.New(md5.New, []byte(c.s.cfg.Users[user]))
			sum.Write([]byte(challenge))
			if hmac.Equal([]byte(answer[i+1:]), []byte(hex.EncodeToString(sum.Sum(nil)))) {
				password = c.s.cfg.Users[user]
			}
		}
	}
	if !ok {
		return c.say(501, "5.5.2", "that cannot be read")
	}
	if want, known := c.s.cfg.Users[user]; !known || want != password || password == "" {
		return c.say(535, "5.7.8", "wrong user or password")
	}
	c.user = user
	return c.say(235, "2.7.0", "welcome")
}

func (c *conn) begin(arg string) string {
	from := path(arg, "FROM:")
	switch {
	case !c.hello:
		return c.say(503, "5.5.1", "EHLO first")
	case c.s.cfg.Users != nil && c.user == "":
		return c.say(530, "5.7.0", "sign in first")
	case c.mail:
		return c.say(503, "5.5.1", "one after the other")
	case c.s.cfg.MaxPerConnection > 0 && c.messages >= c.s.cfg.MaxPerConnection:
		return c.say(421, "4.7.0", "too many messages on one connection")
	case from == "" && !strings.HasPrefix(strings.ToUpper(arg), "FROM:<>"):
		return c.say(501, "5.1.7", "not an address")
	}
	c.utf8 = false
	_, parameters, _ := strings.Cut(arg, "> ")
	for p := range strings.FieldsSeq(parameters) {
		switch strings.ToUpper(p) {
		case "BODY=8BITMIME", "BODY=7BIT":
		case "SMTPUTF8":
			if !c.s.cfg.SMTPUTF8 {
				return c.say(555, "5.5.4", "not offered")
			}
			c.utf8 = true
		default:
			return c.say(555, "5.5.4", "unknown parameter")
		}
	}
	if !c.utf8 && !ascii(from) {
		return c.say(553, "5.6.7", "not ASCII")
	}
	c.messages++
	c.mail, c.from, c.to = true, from, nil
	return c.say(250, "2.1.0", "ok")
}

func (c *conn) recipient(arg string) string {
	to := path(arg, "TO:")
	switch {
	case !c.mail:
		return c.say(503, "5.5.1", "MAIL first")
	case to == "":
		return c.say(501, "5.1.3", "not an address")
	case !c.utf8 && !ascii(to):
		return c.say(553, "5.6.7", "not ASCII")
	case c.s.cfg.Greylist && c.s.grey(to):
		return c.say(451, "4.7.1", "greylisted, try again")
	}
	c.to = append(c.to, to)
	return c.say(250, "2.1.5", "ok")
}

// content reads a message and takes it, or finds fault with it.
func (c *conn) content() error {
	var data bytes.Buffer
	complaint := ""
	for first := true; ; first = false {
		line, err := c.line(1 << 20)
		if err != nil {
			return err
		}
		if first {
			if f := c.s.fault(Command{Conn: c.nth, Verb: "content", From: c.from, To: strings.Join(c.to, ","), TLS: c.tls}); f != nil {
				c.s.note(&Command{At: c.s.cfg.Now(), Conn: c.nth, Verb: "content", TLS: c.tls, Fault: f.Name})
				switch {
				case f.reset:
					reset(c.raw)
				case f.hang: // does not even read, so that the client cannot write
					<-c.s.life.Done()
				case f.raw != "":
					c.write(f.raw)
				}
				return errGone
			}
		}
		if line == ".\r\n" {
			break
		}
		switch {
		case !strings.HasSuffix(line, "\r\n") || strings.ContainsRune(line[:len(line)-2], '\r'):
			complaint = "a CR or LF that stands alone"
		case len(line) > longestLine:
			complaint = "a line of more than 998 bytes"
		}
		data.WriteString(strings.TrimPrefix(line, "."))
	}
	c.mail = false
	return c.do(".", "", strings.Join(c.to, ","), func() string {
		if c.s.cfg.Size > 0 && data.Len() > c.s.cfg.Size {
			return c.say(552, "5.3.4", "too large")
		}
		if complaint == "" {
			complaint = c.complain(data.Bytes())
		}
		if complaint != "" {
			return c.say(550, "5.6.0", complaint)
		}
		n := c.s.took(Accepted{At: c.s.cfg.Now(), Conn: c.nth, From: c.from, To: c.to, User: c.user, TLS: c.tls, UTF8: c.utf8, Data: data.Bytes()})
		return c.say(250, "2.0.0", fmt.Sprintf("queued as %d", n))
	})
}

// complain says what is wrong with a message's header, if anything.
func (c *conn) complain(data []byte) string {
	head, _, found := bytes.Cut(data, []byte("\r\n\r\n"))
	if !found {
		return "no end of the header"
	}
	if !c.utf8 && !ascii(string(head)) {
		return "a header that is not ASCII"
	}
	m, err := netmail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		return "a header that cannot be read"
	}
	for _, name := range []string{"From", "To", "Date", "Subject", "Message-Id", "Mime-Version", "Content-Type"} {
		if len(m.Header[name]) != 1 {
			return fmt.Sprintf("%d header fields %s", len(m.Header[name]), name)
		}
	}
	for _, name := range []string{"From", "To"} {
		if _, err := m.Header.AddressList(name); err != nil {
			return "no address in " + name
		}
	}
	if _, err := m.Header.Date(); err != nil {
		return "no date in Date"
	}
	return ""
}

// path reads the address of MAIL and RCPT; "" if there is none.
func path(arg, prefix string) string {
	if len(arg) < len(prefix) || !strings.EqualFold(arg[:len(prefix)], prefix) {
		return ""
	}
	rest, ok := strings.CutPrefix(arg[len(prefix):], "<")
	addr, _, closed := strings.Cut(rest, ">")
	local, domain, at := strings.Cut(addr, "@")
	if !ok || !closed || !at || local == "" || domain == "" || strings.ContainsAny(local+domain, " <\t@") {
		return ""
	}
	return addr
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
