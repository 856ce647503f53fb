package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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
// good: the same mails to the same server, in the clear. The loop keeps no record of anything.
func (b *bench) mailing(ctx context.Context) error {
	bare, err := bareMail(ctx)
	if err != nil {
		return err
	}
	ours, err := b.campaign(ctx)
	if err != nil {
		return err
	}
	b.note(fmt.Sprintf("campaign of %d e-mails of 5 KB, %d connections, beside a bare go-mail loop", mails, mailConnections), ours >= 0.7*bare, "≥ 0.7",
		"%.0f/s beside %.0f/s: %.2f", ours, bare, ours/bare)
	return nil
}

// rate is how many mails a second a server took, from the first to the last.
func rate(ctx context.Context, s *smtptest.Server, first *time.Time) (float64, error) {
	if _, err := s.WaitAccepted(ctx, 1); err != nil {
		return 0, err
	}
	if first.IsZero() {
		*first = time.Now()
	}
	all, err := s.WaitAccepted(ctx, mails)
	if err != nil {
		return 0, err
	}
	return float64(mails) / all[len(all)-1].At.Sub(*first).Seconds(), nil
}

func bareMail(ctx context.Context) (float64, error) {
	s, err := smtptest.Start(smtptest.Config{Security: "none"})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	host, port := s.HostPort()
	var next atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, mailConnections)
	began := time.Now()
	for range mailConnections {
		wg.Go(func() {
			failed <- func() error {
				cfg, err := gomail.NewClient(host, gomail.WithPort(port), gomail.WithTLSPolicy(gomail.NoTLS), gomail.WithoutNoop(), gomail.WithoutRset())
				if err != nil {
					return err
				}
				conn, err := cfg.DialToSMTPClientWithContext(ctx)
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
					if err := cfg.SendWithSMTPClient(conn, m); err != nil {
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
			return 0, err
		}
	}
	return rate(ctx, s, &began)
}

func (b *bench) campaign(ctx context.Context) (float64, error) {
	meta, err := whatsapptest.Start(whatsapptest.Config{AppSecret: appSecret})
	if err != nil {
		return 0, err
	}
	defer meta.Close()
	s, err := smtptest.Start(smtptest.Config{Security: "none"})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	e, err := b.serve(filepath.Join(b.dir, "mail"), meta.URL, "ECOD_ALLOW_PRIVATE_NETWORKS=true")
	if err != nil {
		return 0, err
	}
	defer func() { _ = e.cmd.Process.Kill() }()
	c, err := e.register(1)
	if err != nil {
		return 0, err
	}
	host, port := s.HostPort()
	err = e.admin("PUT", "/api/clients/"+c.Code+"/secrets/smtp", map[string]any{"host": host, "port": port, "security": "none", "from": "hello@acme.example"}, nil)
	if err != nil {
		return 0, err
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
		return 0, err
	}
	if err := call("POST", e.url+"/api/campaigns/"+made.ID+"/start", key, nil, nil); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	var first time.Time
	r, err := rate(ctx, s, &first)
	if err != nil {
		return 0, err
	}
	if d := s.Duplicates(); len(d) > 0 {
		return 0, fmt.Errorf("%d mails were sent twice", len(d))
	}
	return r, nil
}
