package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/ecodrix/ecod/internal/smtp/smtptest"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

const (
	mails           = 10_000
	mailConnections = 4 // as many as the engine opens to one account
)

// Of about 5 KB, in two parts.
var (
	mailText = strings.Repeat("what the client wrote, and some more of it.\n", 40)
	mailHTML = "<html><body>" + strings.Repeat("<p>what the client wrote, and some more of it.</p>\n", 60) + "</body></html>"
)

// mailing measures a campaign's e-mails a second beside a loop around go-mail with as many connections, each kept for
// good: the same mails to the same server, in the clear. The loop keeps no record of anything. Both share the processors
// with the server. It offers PIPELINING as nearly all do, which the loop makes no use of; then it does not.
func (b *bench) mailing(ctx context.Context) error {
	what, bar := fmt.Sprintf("campaign of %d e-mails of 5 KB, %d connections, beside a bare go-mail loop", mails, mailConnections), "≥ 0.7"
	for _, cfg := range []smtptest.Config{{Security: "none"}, {Security: "none", NoPipelining: true}} {
		bare, bareCPU, err := bareMail(ctx, cfg)
		if err != nil {
			return err
		}
		ours, engineCPU, serverCPU, err := b.campaign(ctx, cfg)
		if err != nil {
			return err
		}
		b.note(what, ours >= 0.7*bare, bar, "%.0f/s beside %.0f/s: %.2f", ours, bare, ours/bare)
		b.note("  processor time of one of them, with the server's", true, "", "%v + %v beside %v", engineCPU, serverCPU, bareCPU)
		what, bar = "  to a server without PIPELINING", ""
	}
	return nil
}

// taken waits until a server took all mails, without a look at every step of it, which would cost more than the server.
func taken(ctx context.Context, s *smtptest.Server) error {
	for look := time.NewTicker(20 * time.Millisecond); ; {
		if s.Taken() >= mails {
			look.Stop()
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d mails: %w", s.Taken(), mails, ctx.Err())
		}
	}
}

// perSecond is the rate until the last mail was taken.
func perSecond(s *smtptest.Server, since time.Time) float64 {
	all := s.Accepted()
	return mails / all[len(all)-1].At.Sub(since).Seconds()
}

// ownCPU is the time this process has used of the processors.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bareMail gives the loop's rate, and the processor time of a mail with the server's.
func bareMail(ctx context.Context, cfg smtptest.Config) (rate float64, each time.Duration, err error) {
	s, err := smtptest.Start(cfg)
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	host, port := s.HostPort()
	var next atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, mailConnections)
	began, cpu := time.Now(), ownCPU()
	for range mailConnections {
		wg.Go(func() {
			failed <- func() error {
				client, err := gomail.NewClient(host, gomail.WithPort(port), gomail.WithTLSPolicy(gomail.NoTLS), gomail.WithoutNoop(), gomail.WithoutRset())
				if err != nil {
					return err
				}
				conn, err := client.DialToSMTPClientWithContext(ctx)
				if err != nil {
					return err
				}
				defer conn.Close()
				for i := next.Add(1); i <= mails; i = next.Add(1) {
					m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
					m.SetMessageIDWithValue(fmt.Sprintf("%d@acme.example", i))
					if err := m.FromFormat("Acme", "hello@acme.example"); err != nil {
						return err
					}
					if err := m.AddTo(fmt.Sprintf("p%05d@example.com", i)); err != nil {
						return err
					}
					m.Subject("News")
					m.SetBodyString(gomail.TypeTextPlain, mailText)
					m.AddAlternativeString(gomail.TypeTextHTML, mailHTML)
					if err := client.SendWithSMTPClient(conn, m); err != nil {
						return err
					}
				}
				return nil
			}()
		})
	}
	wg.Wait()
	for range mailConnections {
		if err := <-failed; err != nil {
			return 0, 0, err
		}
	}
	return perSecond(s, began), (ownCPU() - cpu) / mails, nil
}

// campaign gives the engine's rate, and the processor time of a mail: the engine's and the server's.
func (b *bench) campaign(ctx context.Context, server smtptest.Config) (rate float64, engine, taker time.Duration, err error) {
	meta, err := whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret})
	if err != nil {
		return 0, 0, 0, err
	}
	defer meta.Close()
	s, err := smtptest.Start(server)
	if err != nil {
		return 0, 0, 0, err
	}
	defer s.Close()
	e, err := b.serve(filepath.Join(b.dir, fmt.Sprint("mail", server.NoPipelining)), meta.URL, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { _ = e.cmd.Process.Kill() }()
	c, err := e.register(1)
	if err != nil {
		return 0, 0, 0, err
	}
	host, port := s.HostPort()
	err = e.admin("PUT", "/api/clients/"+c.Code+"/secrets/smtp", map[string]any{"host": host, "port": port, "security": "none", "from": "hello@acme.example"}, nil)
	if err != nil {
		return 0, 0, 0, err
	}
	var people []string
	for i := range mails {
		people = append(people, fmt.Sprintf("p%05d@example.com", i))
	}
	key := map[string]string{"x-api-key": c.Key, "x-client-code": c.Code}
	var made struct {
		ID string `json:"id"`
	}
	err = call("POST", e.url+"/api/campaigns", key, map[string]any{"name": "News", "channel": "email", "audience": map[string]any{"list": people},
		"content": map[string]any{"subject": "News", "html": mailHTML, "text": mailText}}, &made)
	if err != nil {
		return 0, 0, 0, err
	}
	if err := call("POST", e.url+"/api/campaigns/"+made.ID+"/start", key, nil, nil); err != nil {
		return 0, 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	first, err := s.WaitAccepted(ctx, 1)
	if err != nil {
		return 0, 0, 0, err
	}
	own := ownCPU()
	before, err := e.cpu()
	if err != nil {
		return 0, 0, 0, err
	}
	if err := taken(ctx, s); err != nil {
		return 0, 0, 0, err
	}
	after, err := e.cpu()
	if err != nil {
		return 0, 0, 0, err
	}
	engine, taker = (after-before)/mails, (ownCPU()-own)/mails
	if d := s.Duplicates(); len(d) > 0 {
		return 0, 0, 0, fmt.Errorf("%d mails were sent twice", len(d))
	}
	return perSecond(s, first[0].At), engine, taker, nil
}
