package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ecodrix/ecod/internal/s3"
)

// linkLife is how long a signed link opens a blob: long enough to follow a redirect and begin.
const linkLife = 5 * time.Minute

// Bucket is a Shelf in a bucket of any S3-compatible store.
type Bucket struct {
	client *s3.Client
	place  string
}

// NewBucket makes a shelf of a bucket.
func NewBucket(c *s3.Client, cfg s3.Config) *Bucket { return &Bucket{c, cfg.String()} }

// Place implements Shelf.
func (b *Bucket) Place() string { return b.place }

// Put implements Shelf.
func (b *Bucket) Put(ctx context.Context, key string, body io.ReaderAt, size int64, mime string) error {
	return b.client.Put(ctx, key, body, size, s3.Meta{MIME: mime, Disposition: "attachment"})
}

// Open implements Shelf.
func (b *Bucket) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	r, _, err := b.client.Get(ctx, key)
	if errors.Is(err, s3.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return r, err
}

// Link implements Shelf.
func (b *Bucket) Link(ctx context.Context, key, disposition, mime string) (string, error) {
	return b.client.SignGet(ctx, key, linkLife, disposition, mime)
}

// Delete implements Shelf.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := b.client.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// Clear implements Shelf.
func (b *Bucket) Clear(ctx context.Context, prefix string) error {
	_, err := b.client.DeleteAll(ctx, prefix)
	return err
}

// Passing implements Shelf.
func (b *Bucket) Passing(err error) bool {
	var e *s3.Error
	return !errors.As(err, &e) || e.Temporary()
}
