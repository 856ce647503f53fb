package smtp_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	gomail "github.com/wneessen/go-mail"

	"github.com/ecodrix/ecod/internal/smtp"
	"github.com/ecodrix/ecod/internal/smtp/smtptest"
)

// A mail of about 5 KB, in two parts.
func fiveKB(i int) smtp.Message {
	m := mail(i)
	m.Text = strings.Repeat("what the user wrote, and some more of it.\n", 40)
	m.HTML = "<html><body>" + strings.Repeat("<p>what the user wrote, and some more of it.</p>\n", 60) + "</body></html>"
	m.ListUnsubscribe = "https://ecod.example/u/abcdefghijklmnopqrstuvwxyz"
	return m
}

// BenchmarkSend goes beside BenchmarkBareGoMail: the same mail, server and number of connections.
func BenchmarkSend(b *testing.B) {
	for _, conns := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			_, c, acc := post(b, smtptest.Config{JournalLimit: 10}, smtp.Config{MaxPerAccount: conns})
			var next atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for range conns {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						if err := c.Send(b.Context(), acc, fiveKB(int(i))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkBareGoMail is go-mail with a connection a goroutine, kept for good, and nothing looked after.
func BenchmarkBareGoMail(b *testing.B) {
	for _, conns := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			s, _, acc := post(b, smtptest.Config{JournalLimit: 10}, smtp.Config{})
			var next atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for range conns {
				wg.Go(func() {
					cfg, err := gomail.NewClient(acc.Host, gomail.WithPort(acc.Port), gomail.WithTLSPolicy(gomail.TLSMandatory),
						gomail.WithTLSConfig(&tls.Config{ServerName: acc.Host, RootCAs: s.RootCAs()}), gomail.WithSMTPAuth(gomail.SMTPAuthPlain),
						gomail.WithUsername(acc.Username), gomail.WithPassword(acc.Password.Reveal()), gomail.WithoutNoop(), gomail.WithoutRset())
					if err != nil {
						b.Error(err)
						return
					}
					conn, err := cfg.DialToSMTPClientWithContext(b.Context())
					if err != nil {
						b.Error(err)
						return
					}
					defer conn.Close()
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						in := fiveKB(int(i))
						m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
						m.SetMessageIDWithValue(in.ID + "@acme.test")
						_ = m.FromFormat(acc.FromName, acc.From)
						_ = m.AddToFormat(in.ToName, in.To)
						_ = m.ReplyTo(acc.ReplyTo)
						m.Subject(in.Subject)
						_ = m.SetListUnsubscribeOneClick(in.ListUnsubscribe)
						m.SetBodyString(gomail.TypeTextPlain, in.Text)
						m.AddAlternativeString(gomail.TypeTextHTML, in.HTML)
						if err := cfg.SendWithSMTPClient(conn, m); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
