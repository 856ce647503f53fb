package smtp

import (
	"bytes"
	"io"
	"mime"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/smtp/smtptest"
)

// FuzzCompose writes mails of any fields: what is not refused has the header it
// should have, no field more, and lines that SMTP allows.
func FuzzCompose(f *testing.F) {
	f.Add("a@b.example", "Acme", "c@d.example", "Dena", "Hello", "text", "<p>html</p>", "https://e.example/u/1", "X-A", "v")
	f.Add("a@b.example", "\r\nBcc: x@y.example", "c@d.example", "=?utf-8?q?=0D=0ABcc:?=", "x\r\n\r\ny", ".\r\n", "\x00\xff", "http://e.example/>\r\n", "Bcc", "\n")
	f.Add("ü@bücher.example", strings.Repeat("ü", 400), "c@d.example", strings.Repeat("n ", 400), strings.Repeat("é", 400), "\r\nMessage-ID:\r\n <x", "", "", "", "")
	f.Add("a@b.example", strings.Repeat("x", 899), "c@d.example", strings.Repeat(`"\`, 400), strings.Repeat("x", 900), strings.Repeat("x", 5000), "", "", "X-A", strings.Repeat("y", 900))
	c := New(Config{})
	f.Fuzz(func(t *testing.T, from, fromName, to, toName, subject, text, html, unsubscribe, name, value string) {
		msg := Message{ID: "id", To: to, ToName: toName, Subject: subject, Text: text, HTML: html, ListUnsubscribe: unsubscribe}
		if name != "" {
			msg.Headers = map[string]string{name: value}
		}
		l, e := c.compose(Account{From: from, FromName: fromName}, msg)
		if e != nil {
			if e.Outcome != Rejected || e.Op != "validate" {
				t.Fatal(e)
			}
			return
		}
		m, err := netmail.ReadMessage(bytes.NewReader(l.raw))
		if err != nil {
			t.Fatal(err)
		}
		allowed := map[string]bool{"From": true, "To": true, "Date": true, "Subject": true, "Message-Id": true, "Mime-Version": true, "Content-Type": true, "Content-Transfer-Encoding": true}
		if unsubscribe != "" {
			allowed["List-Unsubscribe"], allowed["List-Unsubscribe-Post"] = true, true
		}
		for k, v := range m.Header {
			if len(v) != 1 || !allowed[k] && !strings.EqualFold(k, name) {
				t.Fatalf("%d header fields %s", len(v), k)
			}
		}
		if got, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil || strings.ContainsAny(got, "\r\n\x00") {
			t.Fatalf("subject %q, %v", got, err)
		}
		for _, k := range []string{"From", "To"} {
			if list, err := m.Header.AddressList(k); err != nil || len(list) != 1 {
				t.Fatalf("%s: %v %v", k, list, err)
			}
		}
		for line := range bytes.SplitSeq(l.raw, []byte("\r\n")) {
			if len(line) > 998 || bytes.ContainsAny(line, "\r\n") || bytes.HasPrefix(line, []byte(".")) {
				t.Fatalf("a line of %d bytes, or one with a CR or LF alone, or with a dot at its start", len(line))
			}
		}
		head, _, _ := bytes.Cut(l.raw, []byte("\r\n\r\n"))
		for _, b := range head {
			if b >= 0x80 && !l.utf8 {
				t.Fatal("a header that is not ASCII")
			}
		}
	})
}

// FuzzQuoted holds our quoted-printable against the library's: it reads back as the same text, line by line, and no line
// is too long, begins with a dot or ends with a space.
func FuzzQuoted(f *testing.F) {
	for _, s := range []string{
		"", ".", "..\n.", "a=b \n\tc\t\n", strings.Repeat("x", 76), strings.Repeat("x", 77), strings.Repeat("x", 75) + "=", strings.Repeat("x", 75) + ".y",
		strings.Repeat("x", 74) + "é.", strings.Repeat(". ", 200), "\r\r\n\n", "--=_alternative\n", strings.Repeat("दीना ", 90),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		raw := appendQuoted(nil, text)
		want := strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
		got, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(raw)))
		if err != nil || strings.ReplaceAll(string(got), "\r\n", "\n") != want {
			t.Fatalf("%q became %q, read as %q, %v", text, raw, got, err)
		}
		for line := range strings.SplitSeq(string(raw), "\r\n") {
			if len(line) > 76 || strings.HasPrefix(line, ".") || strings.TrimRight(line, " \t") != line || strings.Contains(line, boundary) ||
				strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && (r < ' ' || r > '~') }) {
				t.Fatalf("the line %q of %q", line, text)
			}
		}
	})
}

// FuzzPlainDomain holds what is taken for plain against the full mapping.
func FuzzPlainDomain(f *testing.F) {
	for _, s := range []string{"acme.example", "a--b.example", "xn--bcher-kva.example", "1.2", "a-.b", "-a", "ab--c", strings.Repeat("a", 64), "A.b", "a..b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !isPlainDomain(s) {
			return
		}
		if full, err := domains.ToASCII(s); err != nil || full != s {
			t.Fatalf("%q is %q, %v", s, full, err)
		}
	})
}

// FuzzServer lets a server say anything.
func FuzzServer(f *testing.F) {
	s, err := smtptest.Start(smtptest.Config{Security: "none"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Close)
	c := New(Config{AllowPrivate: true, MaxPerConnection: 3})
	f.Cleanup(c.Close)
	host, port := s.HostPort()
	acc := Account{Host: host, Port: port, Security: None, From: "a@b.example"}
	verbs := []string{"greeting", "EHLO", "MAIL", "RCPT", "DATA", ".", "RSET", "content"}
	f.Add(uint8(2), "250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n")
	f.Add(uint8(5), "550-5.7.1 no\r\n550 never\r\n")
	f.Add(uint8(5), "25")
	f.Add(uint8(1), "250-\r\n250-AUTH\r\n250 SIZE x\r\n")
	f.Add(uint8(3), "\x00\xff\r\n")
	f.Add(uint8(4), "999999999999 x\r\n")
	f.Add(uint8(0), "220-\r\n220-\r\n220")
	f.Fuzz(func(t *testing.T, at uint8, answer string) {
		if answer == "" {
			return
		}
		before := len(s.Accepted())
		s.Behave()
		s.Next(1, verbs[int(at)%len(verbs)], smtptest.Closing(smtptest.Raw(answer)))
		e := c.send(t.Context(), acc, Message{ID: "1", To: "c@d.example", Text: "x"})
		if e != nil && e.Outcome != Ambiguous && len(s.Accepted()) > before {
			t.Fatalf("%v, and it was taken", e)
		}
	})
}
