package crm

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Folder is where files to be imported wait, one folder a client. A file in it is whole.
type Folder string

func (f Folder) path(code, name string) string { return filepath.Join(string(f), code, name+".csv") }

// Save keeps a file; it is on the disk when Save returns. The reader's error is given as it is.
func (f Folder) Save(code, name string, r io.Reader) (err error) {
	dir := filepath.Join(string(f), code)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, "upload-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if _, err = io.Copy(tmp, r); err != nil {
		return err
	}
	if err = tmp.Sync(); err != nil {
		return err
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), f.path(code, name)); err != nil {
		return err
	}
	for _, d := range []string{dir, string(f)} { // the client's folder may be new, too
		if err = syncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// Open opens a file; fs.ErrNotExist where it is not there any more.
func (f Folder) Open(code, name string) (*os.File, error) { return os.Open(f.path(code, name)) }

// Remove deletes a file, if it is there.
func (f Folder) Remove(code, name string) error {
	if err := os.Remove(f.path(code, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Drop deletes all of a client's files.
func (f Folder) Drop(code string) error {
	if code == "" {
		return errors.New("crm: whose files?")
	}
	return os.RemoveAll(filepath.Join(string(f), code))
}

// Prune deletes the files that were kept before a time: of uploads that were cut, and of imports that ended long ago.
func (f Folder) Prune(ctx context.Context, before time.Time) error {
	files, err := filepath.Glob(filepath.Join(string(f), "*", "*"))
	if err != nil {
		return err
	}
	for _, name := range files {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() && st.ModTime().Before(before) {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // a folder of ours
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
