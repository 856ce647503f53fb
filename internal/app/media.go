package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/s3"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// mediaFolder gives the folder of a file:// address.
func mediaFolder(raw string) (string, bool) {
	dir, ok := strings.CutPrefix(raw, "file://")
	return filepath.FromSlash(dir), ok && dir != "" && !strings.ContainsAny(dir, "?#")
}

// resolveMedia checks ECOD_MEDIA_URL and reads what belongs to it.
func (c *Config) resolveMedia(getenv func(string) string) error {
	if c.MediaURL == "" {
		c.MediaURL = "file://" + filepath.ToSlash(filepath.Join(c.DataDir, "media"))
	}
	if _, ok := mediaFolder(c.MediaURL); ok {
		return nil
	}
	if !strings.HasPrefix(c.MediaURL, "s3://") {
		return errors.New("ECOD_MEDIA_URL must begin with file:// and a folder, or with s3:// and a bucket")
	}
	var err error
	if c.bucket, err = s3.ParseURL(c.MediaURL, getenv); err != nil {
		return fmt.Errorf("ECOD_MEDIA_URL: %w", err)
	}
	if c.bucket.AccessKeyID == "" || c.bucket.SecretAccessKey == "" {
		return errors.New("ECOD_MEDIA_URL leads to a bucket, and AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is not set")
	}
	return nil
}

// openMedia builds the archive, with a spool folder of its own. What stands in the data folder is found also after the operator took a bucket.
func openMedia(cfg Config, spool string, log *slog.Logger) (*media.Archive, error) {
	local := filepath.Join(cfg.DataDir, "media")
	var shelves []media.Shelf
	if dir, ok := mediaFolder(cfg.MediaURL); ok {
		local = dir
	} else {
		client, err := s3.New(cfg.bucket, transport())
		if err != nil {
			return nil, BadConfig{fmt.Sprintf("ECOD_MEDIA_URL: %s.", err)}
		}
		shelves = append(shelves, media.NewBucket(client, cfg.bucket))
	}
	folder, err := media.NewFolder(local)
	if err != nil {
		return nil, BadConfig{fmt.Sprintf("The media folder %s cannot be made: %s.", local, err)}
	}
	return media.New(media.Config{
		Graph:   whatsapp.New(whatsapp.Config{BaseURL: cfg.MetaURL, Version: cfg.MetaVersion}, &http.Client{Transport: transport()}),
		Shelves: append(shelves, folder), Bucket: openBucket(clientTransport(cfg.AllowPrivate)),
		Spool: spool, Shared: cfg.DatabaseURL != "", Fetch: max(1, cfg.WorkerConcurrency/2), Now: time.Now, Log: log,
	})
}

// openBucket opens the buckets of clients.
func openBucket(rt http.RoundTripper) func(string, string, secret.Text) (media.Shelf, error) {
	return func(url, accessKeyID string, secretAccessKey secret.Text) (media.Shelf, error) {
		cfg, err := s3.ParseURL(url, nil)
		if err != nil {
			return nil, err
		}
		cfg.AccessKeyID, cfg.SecretAccessKey = accessKeyID, secretAccessKey
		client, err := s3.New(cfg, rt)
		if err != nil {
			return nil, err
		}
		return media.NewBucket(client, cfg), nil
	}
}

// arrived gives the jobs that follow from a customer's message, of everybody who has some.
func arrived(each ...func(context.Context, *tenant.Tenant, *chat.Message) ([]store.NewJob, error)) func(context.Context, *tenant.Tenant, *chat.Message) ([]store.NewJob, error) {
	return func(ctx context.Context, tn *tenant.Tenant, m *chat.Message) (next []store.NewJob, err error) {
		for _, f := range each {
			jobs, err := f(ctx, tn, m)
			if err != nil {
				return nil, err
			}
			next = append(next, jobs...)
		}
		return next, nil
	}
}

// pruneMedia removes uploads of a client that ended before they were stored.
func (a *App) pruneMedia(ctx context.Context, tn *tenant.Tenant) error {
	jobs, err := a.Media.Leftovers(ctx, tn)
	if err != nil || len(jobs) == 0 {
		return err
	}
	_, err = a.Runner.Enqueue(ctx, jobs...)
	return err
}
