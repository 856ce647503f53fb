package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// Config is what an Archive is built from.
type Config struct {
	// Graph makes Meta's media calls. Its HTTP client has no overall timeout: files are large, and the context ends them.
	Graph *whatsapp.Client
	// Shelves are the operator's: what is new goes to the first; what stands on the others is still found.
	Shelves []Shelf
	// Bucket opens a client's own bucket. It calls nothing yet.
	Bucket func(url, accessKeyID string, secretAccessKey secret.Text) (Shelf, error)
	Spool  string // folder for files on their way in, of this process alone
	Shared bool   // other processes put files onto the shelves, and remove them
	Fetch  int    // files fetched at once; 0: 4
	Now    func() time.Time
	Log    *slog.Logger
}

// Archive is the archive, for every client; the tenant says whose.
type Archive struct {
	cfg      Config
	decoding *semaphore.Weighted // a slot a core
	heavy    *semaphore.Weighted // one, for a picture that takes much memory; asked for before decoding
	fetching chan struct{}
	locks    [64]sync.Mutex // by blob: who counts its records must not miss one

	mu      sync.Mutex
	buckets map[string]bucketOf // by client
}

// bucketOf is a client's own bucket as it was set.
type bucketOf struct {
	set   tenant.Storage
	shelf Shelf
}

// New makes an archive; what a process before this one left in the spool is removed.
func New(cfg Config) (*Archive, error) {
	if cfg.Fetch == 0 {
		cfg.Fetch = 4
	}
	if err := os.MkdirAll(cfg.Spool, 0o700); err != nil {
		return nil, err
	}
	a := &Archive{cfg: cfg, decoding: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))), heavy: semaphore.NewWeighted(1), fetching: make(chan struct{}, cfg.Fetch), buckets: map[string]bucketOf{}}
	if err := sweep(cfg.Spool, cfg.Now().Add(time.Hour)); err != nil {
		return nil, err
	}
	return a, nil
}

func key(code, sha string) string      { return code + "/" + sha[:2] + "/" + sha }
func thumbKey(code, sha string) string { return key(code, sha) + ".thumb" }

func (a *Archive) lock(code, sha string) (unlock func()) {
	h := uint32(2166136261)
	for _, b := range []byte(code + sha) {
		h = (h ^ uint32(b)) * 16777619
	}
	m := &a.locks[h%uint32(len(a.locks))]
	m.Lock()
	return m.Unlock
}

// shelf is where a client's new files go: its own bucket, if it has one.
func (a *Archive) shelf(tn *tenant.Tenant) (Shelf, error) {
	set := tn.Account().Storage
	if set == nil {
		return a.cfg.Shelves[0], nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if b, ok := a.buckets[tn.Code]; ok && b.set == *set {
		return b.shelf, nil
	}
	k, err := tn.Secret("storage.secretAccessKey")
	if err != nil {
		return nil, err
	}
	s, err := a.cfg.Bucket(set.URL, set.AccessKeyID, k)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "media.bucket", "The client's own bucket cannot be used as it is set.")
	}
	a.buckets[tn.Code] = bucketOf{*set, s}
	return s, nil
}

// First is the operator's shelf for what is new.
func (a *Archive) First() Shelf { return a.cfg.Shelves[0] }

// at finds the shelf that a file stands on.
func (a *Archive) at(tn *tenant.Tenant, place string) (Shelf, error) {
	for _, s := range a.cfg.Shelves {
		if s.Place() == place {
			return s, nil
		}
	}
	own, err := a.shelf(tn)
	if err != nil {
		return nil, err
	}
	if own.Place() != place {
		return nil, fault.Wrap(fmt.Errorf("client %s: the file stands at %s", tn.Code, place), fault.Unavailable,
			"media.elsewhere", "The file stands in a bucket that is no longer set.")
	}
	return own, nil
}

// File reads a file's record; fault.NotFound.
func (a *Archive) File(ctx context.Context, tn *tenant.Tenant, fileID string) (*File, error) {
	f, err := Files.Get(ctx, tn.DB, fileID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("media")
	}
	return f, err
}

// Upload keeps what a client uploaded; it is durable when Upload returns. s stays the caller's to close.
func (a *Archive) Upload(ctx context.Context, tn *tenant.Tenant, filename string, s *Spooled) (*File, error) {
	if s.size == 0 {
		return nil, fault.Bad("/file", "The file is empty.")
	}
	head, err := s.head()
	if err != nil {
		return nil, diskFault(err)
	}
	filename = cleanName(filename)
	t := sniff(head, filename)
	if !slices.Contains(uploadable, base(t)) {
		return nil, fault.New(fault.Unsupported, "media.type", "Files of this type cannot be uploaded: pictures, audio, video, PDF, office and text files can.")
	}
	f := &File{ID: id.New("med"), Status: Pending, MIME: t, Filename: filename, CreatedAt: a.cfg.Now().UTC()}
	if err := a.keep(ctx, tn, f, s); err != nil {
		return nil, unavailable(err)
	}
	f.Status, f.StoredAt = Stored, a.cfg.Now().UTC()
	if err := tn.DB.Commit(ctx, Files.Update(f)); err != nil {
		return nil, err
	}
	return f, nil
}

// unavailable is the fault for a shelf that does not take a blob.
func unavailable(err error) error {
	var f *fault.Error
	if errors.As(err, &f) || errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.Canceled) {
		return err
	}
	return diskFault(err)
}

// keep puts a spooled file of type f.MIME on the client's shelf, or finds its content there, and records f as pending
// with its blob. The commit that makes f stored is the caller's.
func (a *Archive) keep(ctx context.Context, tn *tenant.Tenant, f *File, s *Spooled) error {
	shelf, err := a.shelf(tn)
	if err != nil {
		return err
	}
	if same, err := a.share(ctx, tn, f, shelf.Place(), s.SHA256()); same || err != nil {
		return err
	}
	f.OriginalSHA256, f.Place = s.SHA256(), shelf.Place()
	f.SHA256, f.Size, f.Width, f.Height, f.Thumbnail = s.SHA256(), s.size, 0, 0, ""
	var body io.ReaderAt = s.f
	var thumb []byte
	if strings.HasPrefix(f.MIME, "image/") {
		p, err := a.optimise(ctx, f.MIME, s)
		if err != nil {
			return err
		}
		f.MIME, f.Width, f.Height, f.Thumbnail, thumb = p.MIME, p.Width, p.Height, p.ThumbMIME, p.Thumb
		f.SHA256, f.Size, body = p.sha, int64(len(p.Data)), readerOf(p.Data)
	}
	if err := a.record(ctx, tn, f); err != nil {
		return err
	}
	if err := a.cleared(ctx, tn, f); err != nil {
		return err
	}
	if len(thumb) > 0 {
		if err := shelf.Put(ctx, thumbKey(tn.Code, f.SHA256), readerOf(thumb), int64(len(thumb)), f.Thumbnail); err != nil {
			return err
		}
	}
	return shelf.Put(ctx, key(tn.Code, f.SHA256), body, f.Size, f.MIME)
}

// record makes a file known that is about to be written: from now on its blob is not removed.
func (a *Archive) record(ctx context.Context, tn *tenant.Tenant, f *File) error {
	defer a.lock(tn.Code, f.SHA256)()
	if err := tn.DB.Commit(ctx, Files.Update(f)); err != nil {
		return err
	}
	f.Version++
	return nil
}

// How long a file waits for the removal of another with its content, and how often it looks.
const clearWait, clearLook = 10 * time.Second, 50 * time.Millisecond

// cleared waits until no other process removes a blob of f's name; in this one, the lock does. Who removes one says so in its
// record, and then looks whether others lead to the blob; f's record says so, and then f looks here: one of the two sees the
// other. A removal that a crash cut is not under way, and finds f when it goes on: the wait ends.
func (a *Archive) cleared(ctx context.Context, tn *tenant.Tenant, f *File) error {
	for began := time.Now(); a.cfg.Shared && time.Since(began) < clearWait; {
		others, err := Files.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("blob", store.Eq, f.SHA256)}, Limit: 20})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(others, func(o *File) bool { return o.ID != f.ID && o.Place == f.Place && o.going() }) {
			return nil
		}
		select {
		case <-time.After(clearLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// share makes f a file of content that stands on the shelf already; false if there is none.
func (a *Archive) share(ctx context.Context, tn *tenant.Tenant, f *File, place, original string) (bool, error) {
	donors, err := Files.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("original", store.Eq, original)}, Limit: 5})
	if err != nil {
		return false, err
	}
	for _, d := range donors {
		if d.Place != place || d.ID == f.ID {
			continue
		}
		shared, err := func() (bool, error) {
			defer a.lock(tn.Code, d.SHA256)()
			if d, err = Files.Get(ctx, tn.DB, d.ID); errors.Is(err, store.ErrNotFound) || err == nil && d.Status != Stored {
				return false, nil // removed meanwhile
			}
			if err != nil {
				return false, err
			}
			f.take(d)
			if err := tn.DB.Commit(ctx, Files.Update(f)); err != nil {
				return false, err
			}
			f.Version++
			// removed between the two, by another process that may not have seen f: then f brings its own bytes
			again, err := Files.Get(ctx, tn.DB, d.ID)
			if errors.Is(err, store.ErrNotFound) {
				return false, nil
			}
			return err == nil && again.Status == Stored, err
		}()
		if shared || err != nil {
			return shared, err
		}
	}
	return false, nil
}

// drop removes a file's blob, unless another record leads to it.
func (a *Archive) drop(ctx context.Context, tn *tenant.Tenant, f *File) error {
	if f.SHA256 == "" {
		return nil
	}
	defer a.lock(tn.Code, f.SHA256)()
	sharing, err := Files.Find(ctx, tn.DB, store.Query{Where: []store.Term{store.Where("blob", store.Eq, f.SHA256)}, Limit: 20})
	if err != nil {
		return err
	}
	if slices.ContainsFunc(sharing, func(o *File) bool { return o.ID != f.ID && o.Place == f.Place }) {
		return nil
	}
	shelf, err := a.at(tn, f.Place)
	if err != nil {
		return err
	}
	return shelf.Delete(ctx, thumbKey(tn.Code, f.SHA256), key(tn.Code, f.SHA256))
}

// Content is a file's bytes, or where they are.
type Content struct {
	Link  string            // "" if Bytes has them
	Bytes io.ReadSeekCloser // the caller closes it
	MIME  string
	ETag  string
}

// Open gives a file's bytes, or its thumbnail's.
func (a *Archive) Open(ctx context.Context, tn *tenant.Tenant, f *File, thumbnail bool) (Content, error) {
	switch {
	case f.Status == Pending:
		return Content{}, fault.New(fault.Conflict, "media.pending", "The file is not here yet.")
	case f.Status != Stored:
		return Content{}, fault.New(fault.NotFound, "media.failed", "The file could not be had.")
	case thumbnail && f.Thumbnail == "":
		return Content{}, fault.New(fault.NotFound, "media.no_thumbnail", "The file has no thumbnail.")
	}
	shelf, err := a.at(tn, f.Place)
	if err != nil {
		return Content{}, err
	}
	c, k := Content{MIME: f.MIME, ETag: `"` + f.SHA256 + `"`}, key(tn.Code, f.SHA256)
	if thumbnail {
		c.MIME, c.ETag, k = f.Thumbnail, `"`+f.SHA256+`-t"`, thumbKey(tn.Code, f.SHA256)
	}
	if c.Link, err = shelf.Link(ctx, k, f.Disposition(c.MIME), c.MIME); err == nil && c.Link == "" {
		c.Bytes, err = a.read(ctx, shelf, k)
	}
	if err != nil {
		return Content{}, fault.Wrap(err, fault.Unavailable, "media.unavailable", "The file cannot be read now.")
	}
	return c, nil
}

// Read gives the bytes of a stored file as they come, wherever they stand.
func (a *Archive) Read(ctx context.Context, tn *tenant.Tenant, f *File) (io.ReadCloser, error) {
	shelf, err := a.at(tn, f.Place)
	if err != nil {
		return nil, err
	}
	return shelf.Open(ctx, key(tn.Code, f.SHA256))
}

// read opens a blob for reading at any place; one in a bucket is spooled first.
func (a *Archive) read(ctx context.Context, shelf Shelf, k string) (io.ReadSeekCloser, error) {
	r, err := shelf.Open(ctx, k)
	if err != nil {
		return nil, err
	}
	if rs, ok := r.(io.ReadSeekCloser); ok {
		return rs, nil
	}
	defer r.Close()
	s, err := a.Receive(ctx, r)
	if err != nil {
		return nil, err
	}
	if _, err = s.f.Seek(0, io.SeekStart); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s.f, nil
}

// optimised is a Picture with its checksum.
type optimised struct {
	Picture
	sha string
}

// optimise is Optimise for a spooled file, as many at once as there are cores, of heavy ones one: it takes one of the
// slots, and the other heavy ones wait for it elsewhere, so that small pictures of other clients go past them.
func (a *Archive) optimise(ctx context.Context, mimeType string, s *Spooled) (*optimised, error) {
	p, err := a.optimiseAs(ctx, mimeType, s, s.size > heavy/2)
	if errors.Is(err, errHeavy) {
		return a.optimiseAs(ctx, mimeType, s, true)
	}
	return p, err
}

// errHeavy: a picture turned out to be heavy.
var errHeavy = errors.New("media: a heavy picture")

func (a *Archive) optimiseAs(ctx context.Context, mimeType string, s *Spooled, isHeavy bool) (*optimised, error) {
	if isHeavy {
		if err := a.heavy.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		defer a.heavy.Release(1)
	}
	if err := a.decoding.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer a.decoding.Release(1)
	data, err := s.readAll()
	if err != nil {
		return nil, diskFault(err)
	}
	kind := base(mimeType)
	c := readContainer(kind, data)
	if cfg, err := decodeConfig(kind, data); err == nil && !isHeavy && weight(kind, cfg, c) > heavy && !tooLarge(kind, cfg, c) {
		return nil, errHeavy
	}
	p := &optimised{Picture: optimise(ctx, data, mimeType, c)}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.sha = hexSHA256(p.Data)
	return p, nil
}
