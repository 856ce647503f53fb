package s3

import (
	"context"
	"crypto/md5" // #nosec G501 -- Content-MD5 is what stores ask for; integrity is the SHA-256's
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// MaxSize is the largest object, in bytes: what one PUT carries at every store.
const MaxSize = 5<<30 - 1

// MaxTTL is the longest life of a signed link.
const MaxTTL = 7 * 24 * time.Hour

// Client calls one bucket. It is safe for concurrent use and holds nothing that needs closing.
type Client struct {
	core   *minio.Core
	bucket string
	prefix string
}

// Meta is what is kept beside an object's bytes.
type Meta struct {
	MIME        string // "" is application/octet-stream
	Disposition string // Content-Disposition; "" is none
}

// Info is what a store tells of an object.
type Info struct {
	Size     int64 // bytes
	MIME     string
	Modified time.Time
}

// New makes a client that calls through rt; nil is a transport of its own. It calls nothing yet.
func New(cfg Config, rt http.RoundTripper) (*Client, error) {
	host, tls, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	if cfg.AccessKeyID == "" || cfg.SecretAccessKey == "" {
		return nil, errors.New("s3: the access key or its secret is missing (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)")
	}
	if rt == nil {
		if rt, err = minio.DefaultTransport(tls); err != nil {
			return nil, fmt.Errorf("s3: %w", err)
		}
	}
	if cfg.Region == "" && cfg.Endpoint != "" {
		cfg.Region = "us-east-1" // what the others take for "none"; R2 calls it an alias of auto
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = 4
	}
	lookup := map[string]minio.BucketLookupType{"": minio.BucketLookupAuto, "path": minio.BucketLookupPath, "host": minio.BucketLookupDNS}[cfg.Style]
	core, err := minio.NewCore(host, &minio.Options{
		Creds:        credentials.NewStaticV4(cfg.AccessKeyID, cfg.SecretAccessKey.Reveal(), cfg.SessionToken.Reveal()),
		Secure:       tls,
		Region:       cfg.Region,
		BucketLookup: lookup,
		Transport:    plain{rt},
		MaxRetries:   cfg.Attempts,
	})
	if err != nil {
		return nil, errors.New("s3: the endpoint cannot be used")
	}
	return &Client{core: core, bucket: cfg.Bucket, prefix: cfg.Prefix}, nil
}

// plain asks for the bytes as they are: a gateway that compresses them would hide
// their length. The header is not among the signed ones.
type plain struct{ rt http.RoundTripper }

func (p plain) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept-Encoding", "identity")
	return p.rt.RoundTrip(r)
}

// Put stores size bytes of body under key, over what stood there. The body is
// read once for its checksums and once for every attempt; the store refuses
// bytes that do not match them.
func (c *Client) Put(ctx context.Context, key string, body io.ReaderAt, size int64, m Meta) error {
	const op = "put"
	if size < 0 || size > MaxSize {
		return &Error{Op: op, Err: fmt.Errorf("the size is not within 0 and %d", int64(MaxSize))}
	}
	r := io.NewSectionReader(body, 0, size)
	sum, md := sha256.New(), md5.New() // #nosec G401
	n, err := io.Copy(io.MultiWriter(sum, md), ending{ctx, r})
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes to send, not %d: %w", n, size, io.ErrUnexpectedEOF)
	}
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("s3: put: reading what is to be sent: %w", err)
	}
	_, err = c.core.PutObject(ctx, c.bucket, c.prefix+key, r, size,
		base64.StdEncoding.EncodeToString(md.Sum(nil)), hex.EncodeToString(sum.Sum(nil)),
		minio.PutObjectOptions{ContentType: m.MIME, ContentDisposition: m.Disposition, DisableContentSha256: true})
	return failed(ctx, op, err)
}

// ending reads until its context ends.
type ending struct {
	ctx context.Context
	r   io.Reader
}

func (e ending) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.r.Read(p)
}

// Get opens an object. Reading it to the end gives exactly Info.Size bytes or an
// error; a read that fails may be Temporary, and is not made again by itself.
func (c *Client) Get(ctx context.Context, key string) (io.ReadCloser, Info, error) {
	body, o, _, err := c.core.GetObject(ctx, c.bucket, c.prefix+key, minio.GetObjectOptions{})
	if err != nil {
		return nil, Info{}, failed(ctx, "get", err)
	}
	return &reader{ctx: ctx, body: body, left: o.Size}, info(o), nil
}

// reader holds an answer to the length it promised.
type reader struct {
	ctx  context.Context
	body io.ReadCloser
	left int64
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	r.left -= int64(n)
	if errors.Is(err, io.EOF) {
		if r.left <= 0 {
			return n, io.EOF
		}
		err = io.ErrUnexpectedEOF
	}
	return n, failed(r.ctx, "get", err)
}

func (r *reader) Close() error { return r.body.Close() }

// Stat tells of an object without its bytes.
func (c *Client) Stat(ctx context.Context, key string) (Info, error) {
	o, err := c.core.StatObject(ctx, c.bucket, c.prefix+key, minio.StatObjectOptions{})
	if err != nil {
		return Info{}, failed(ctx, "stat", err)
	}
	return info(o), nil
}

func info(o minio.ObjectInfo) Info {
	return Info{Size: o.Size, MIME: o.ContentType, Modified: o.LastModified}
}

// Delete removes an object; one that is not there is no error.
func (c *Client) Delete(ctx context.Context, key string) error {
	err := c.core.RemoveObject(ctx, c.bucket, c.prefix+key, minio.RemoveObjectOptions{})
	if err = failed(ctx, "delete", err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// DeleteAll removes every object whose key begins with prefix, which ends in a
// slash, and gives how many it removed. After an error some may be left: call it
// again. In a bucket that keeps versions, older ones stay.
func (c *Client) DeleteAll(ctx context.Context, prefix string) (int, error) {
	const op = "delete"
	if !strings.HasSuffix(prefix, "/") || prefix == "/" {
		return 0, &Error{Op: op, Err: errors.New("the prefix does not end in a slash")}
	}
	seen, gone := 0, 0
	var first error
	list := func(yield func(minio.ObjectInfo) bool) {
		for o := range c.core.ListObjectsIter(ctx, c.bucket, minio.ListObjectsOptions{Prefix: c.prefix + prefix, Recursive: true}) {
			if o.Err != nil {
				first = failed(ctx, "list", o.Err)
				return
			}
			if !strings.HasPrefix(o.Key, c.prefix+prefix) { // never trust a list with what is not ours
				first = &Error{Op: "list", Err: errors.New("the store listed an object outside of the prefix")}
				return
			}
			seen++
			if !yield(o) {
				return
			}
		}
	}
	results, err := c.core.RemoveObjectsWithIter(ctx, c.bucket, list, minio.RemoveObjectsOptions{})
	if err != nil {
		return 0, failed(ctx, op, err)
	}
	for r := range results {
		switch {
		case r.Err == nil:
			gone++
		case first == nil:
			first = failed(ctx, op, r.Err)
		}
	}
	switch { // the library ends silently when the context does, and forgets some refusals
	case first != nil:
		return gone, first
	case ctx.Err() != nil:
		return gone, context.Cause(ctx)
	case gone < seen:
		return gone, &Error{Op: op, Err: fmt.Errorf("%d of %d objects were not removed", seen-gone, seen)}
	}
	return gone, nil
}

// SignGet gives a link that opens an object for ttl (1 s to MaxTTL, cut to
// seconds) without keys. disposition and mime, if not "", are the headers it is
// served with, whatever was stored. Whether the object is there is not looked at,
// and nothing is called (but Amazon once for its region, if none was given).
func (c *Client) SignGet(ctx context.Context, key string, ttl time.Duration, disposition, mime string) (string, error) {
	if ttl < time.Second || ttl > MaxTTL {
		return "", &Error{Op: "sign", Err: errors.New("a link lives 1 second to 7 days")}
	}
	q := url.Values{}
	if disposition != "" {
		q.Set("response-content-disposition", disposition)
	}
	if mime != "" {
		q.Set("response-content-type", mime)
	}
	u, err := c.core.PresignedGetObject(ctx, c.bucket, c.prefix+key, ttl, q)
	if err != nil {
		return "", failed(ctx, "sign", err)
	}
	return u.String(), nil
}

// Check makes a call that tells whether the bucket is there and the keys may list it.
func (c *Client) Check(ctx context.Context) error {
	for o := range c.core.ListObjectsIter(ctx, c.bucket, minio.ListObjectsOptions{Prefix: c.prefix, Recursive: true, MaxKeys: 1}) {
		return failed(ctx, "list", o.Err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
