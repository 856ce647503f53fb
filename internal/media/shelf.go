package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// ErrGone is wrapped by the error of a Shelf for bytes that are not there.
var ErrGone = errors.New("media: no such blob")

// Shelf is where blobs stand.
type Shelf interface {
	// Place names the shelf; files remember it.
	Place() string
	// Put writes a blob, over what stands there, and returns when it is durable.
	Put(ctx context.Context, key string, body io.ReaderAt, size int64, mime string) error
	// Open reads a blob.
	Open(ctx context.Context, key string) (io.ReadCloser, error)
	// Link gives an address that opens a blob for a short time without keys; "" if only Open can.
	Link(ctx context.Context, key, disposition, mime string) (string, error)
	// Delete removes blobs; those that are not there are no error.
	Delete(ctx context.Context, keys ...string) error
	// Clear removes every blob whose key begins with prefix, which ends in a slash.
	Clear(ctx context.Context, prefix string) error
	// Passing tells whether a call that failed may work later with nothing mended.
	Passing(err error) bool
}

// unfinished is the folder of what is being written; nothing else stands in it.
const unfinished = ".new"

// Folder is a Shelf on a local disk.
type Folder struct{ dir string }

// NewFolder makes the folder if need be.
func NewFolder(dir string) (*Folder, error) {
	f := &Folder{dir}
	if err := os.MkdirAll(filepath.Join(dir, unfinished), 0o700); err != nil {
		return nil, err
	}
	return f, nil
}

// Place implements Shelf: wherever the folder is moved to, it is the folder.
func (f *Folder) Place() string { return "folder" }

func (f *Folder) path(key string) (string, error) {
	if !filepath.IsLocal(key) || strings.HasPrefix(key, ".") {
		return "", fmt.Errorf("media: %q is not a key", key)
	}
	return filepath.Join(f.dir, filepath.FromSlash(key)), nil
}

// Put implements Shelf.
func (f *Folder) Put(ctx context.Context, key string, body io.ReaderAt, size int64, _ string) error {
	to, err := f.path(key)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Join(f.dir, unfinished), "blob-")
	if err != nil {
		return err
	}
	_, err = io.Copy(tmp, &patient{ctx, io.NewSectionReader(body, 0, size)})
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = f.makeDirs(path.Dir(key))
	}
	if err == nil {
		err = os.Rename(tmp.Name(), to)
	}
	if err == nil {
		err = syncDir(filepath.Dir(to))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// makeDirs makes the folders of a key durably: a blob in a folder that a power cut takes is not there.
func (f *Folder) makeDirs(rel string) error {
	at := f.dir
	for part := range strings.SplitSeq(rel, "/") {
		parent := at
		at = filepath.Join(at, part)
		switch err := os.Mkdir(at, 0o700); {
		case errors.Is(err, fs.ErrExist):
			continue
		case err != nil:
			return err
		}
		if err := syncDir(parent); err != nil {
			return err
		}
	}
	return nil
}

// Open implements Shelf.
func (f *Folder) Open(_ context.Context, key string) (io.ReadCloser, error) {
	p, err := f.path(key)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrGone, key)
	}
	return file, err
}

// Link implements Shelf.
func (f *Folder) Link(context.Context, string, string, string) (string, error) { return "", nil }

// Delete implements Shelf.
func (f *Folder) Delete(_ context.Context, keys ...string) error {
	for _, key := range keys {
		p, err := f.path(key)
		if err != nil {
			return err
		}
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Clear implements Shelf.
func (f *Folder) Clear(_ context.Context, prefix string) error {
	p, err := f.path(strings.TrimSuffix(prefix, "/"))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(p); err != nil {
		return err
	}
	return syncDir(f.dir)
}

// Passing implements Shelf: disks get room again.
func (f *Folder) Passing(error) bool { return true }

// Sweep removes what a crash left half written, older than a while: another process may write to the same folder.
func (f *Folder) Sweep(now time.Time) error {
	return sweep(filepath.Join(f.dir, unfinished), now.Add(-time.Hour))
}

func sweep(dir string, before time.Time) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		if info, err := e.Info(); err == nil && info.ModTime().Before(before) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// patient ends a long copy with its context.
type patient struct {
	ctx context.Context
	r   io.Reader
}

func (p *patient) Read(b []byte) (int, error) {
	if err := context.Cause(p.ctx); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}
