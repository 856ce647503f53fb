package crm

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
)

// Depot is where processes that share no disk find each other's files; media.Shelf is one.
type Depot interface {
	Put(ctx context.Context, key string, body io.ReaderAt, size int64, mime string) error
	Open(ctx context.Context, key string) (io.ReadCloser, error)
	Delete(ctx context.Context, keys ...string) error
	Clear(ctx context.Context, prefix string) error
	// Passing tells whether a call that failed may work later with nothing mended.
	Passing(err error) bool
}

// depotFolder begins the keys of files to be imported; no client has such a code.
const depotFolder = "imports"

func depotKey(code, name string) string { return path.Join(depotFolder, code, name+".csv") }

// keep keeps a file where whoever gets its job finds it.
func (b *Book) keep(ctx context.Context, code, name string, r io.Reader) error {
	if err := b.Files.Save(code, name, r); err != nil || b.Depot == nil {
		return err
	}
	f, err := b.Files.Open(code, name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return b.Depot.Put(ctx, depotKey(code, name), f, st.Size(), "text/csv")
}

// kept opens a file, which another process may have kept; fs.ErrNotExist where it is not there any more.
func (b *Book) kept(ctx context.Context, code, name string) (*os.File, error) {
	f, err := b.Files.Open(code, name)
	if !errors.Is(err, fs.ErrNotExist) || b.Depot == nil {
		return f, err
	}
	from, err := b.Depot.Open(ctx, depotKey(code, name))
	if err != nil {
		if !b.Depot.Passing(err) {
			err = errors.Join(fs.ErrNotExist, err)
		}
		return nil, err
	}
	err = b.Files.Save(code, name, from)
	if err = errors.Join(err, from.Close()); err != nil {
		return nil, err
	}
	return b.Files.Open(code, name)
}

// done removes a file that nobody needs any more.
func (b *Book) done(ctx context.Context, code, name string) error {
	err := b.Files.Remove(code, name)
	if b.Depot != nil {
		err = errors.Join(err, b.Depot.Delete(ctx, depotKey(code, name)))
	}
	return err
}

// DropFiles removes all files that wait of a client.
func (b *Book) DropFiles(ctx context.Context, code string) error {
	err := b.Files.Drop(code)
	if err == nil && b.Depot != nil {
		err = b.Depot.Clear(ctx, path.Join(depotFolder, code)+"/")
	}
	return err
}
