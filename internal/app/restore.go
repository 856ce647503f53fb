package app

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/secret"
)

const (
	// restoring is the file, in the data folder, that stands while what is there is neither the old nor the restored data:
	// no engine starts then.
	restoring = ".restoring"
	// extracted is the folder of what is to take the old data's place.
	extracted = ".restore-new"
	// beforeRestore begins the name of the folder that what was there is put into.
	beforeRestore = "before-restore-"
	maxManifest   = 1 << 30
)

// Restored is what a restore did.
type Restored struct {
	Manifest
	Aside     string   // the folder that what was there before is in now; "": there was nothing
	KeysThere bool     // the keys of the folder, or of the configuration, are those of the backup
	Missing   []string // ids of keys that the backup was sealed with and that are not there
}

// Restore puts a backup into a data folder that no engine serves. The whole archive is checked before anything is
// touched. A folder that holds data is refused unless force; what it held is then put aside, not deleted. Cut short, it is
// to be run again: until then no engine starts on the folder.
func Restore(ctx context.Context, cfg Config, file string, force bool) (res Restored, err error) {
	m, err := verify(ctx, file)
	if err != nil {
		return res, fmt.Errorf("%s: %w", file, err)
	}
	res.Manifest = m
	switch shared := cfg.DatabaseURL != ""; {
	case m.Engine == mongoEngine && !shared:
		return res, errors.New("it is a backup of MongoDB: set ECOD_DATABASE_URL to the empty database that it is to be restored into")
	case m.Engine == "" && shared:
		return res, errors.New("it is a backup of files: restore it without ECOD_DATABASE_URL, and move clients to MongoDB with ecod client move")
	case m.Engine == mongoEngine:
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			return res, err
		}
		if begun, err := restoreShared(ctx, cfg, file); err != nil && !begun {
			return res, fmt.Errorf("nothing was restored: %w", err)
		} else if err != nil {
			return res, fmt.Errorf("the restore did not end; until it is run again and does, no engine starts on what is there: %w", err)
		}
		res.keys(cfg)
		return res, nil
	}
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return res, err
	}
	defer lock.Close()
	dir, fresh := cfg.DataDir, filepath.Join(cfg.DataDir, extracted)
	old, err := contents(dir, m.Keys)
	if err != nil {
		return res, err
	}
	if len(old) > 0 && !force && notRestoring(dir) == nil {
		return res, fmt.Errorf("%s holds data already; --force puts it aside and restores over it", dir)
	}
	if err := os.RemoveAll(fresh); err != nil {
		return res, err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return res, err
	}
	if err := extract(ctx, file, fresh, m); err != nil {
		return res, errors.Join(fmt.Errorf("%s: %w", file, err), os.RemoveAll(fresh))
	}
	media := ""
	if folder, ok := mediaFolder(cfg.MediaURL); ok && m.Media == "in" && !ownMedia(dir, folder) {
		media = folder
	}
	if res.Aside, err = swap(dir, fresh, old, media); err != nil {
		return res, fmt.Errorf("the restore was cut short, run it again: %w", err)
	}
	res.keys(cfg)
	return res, nil
}

// ownMedia tells whether a folder is a data folder's own for media.
func ownMedia(dir, folder string) bool {
	own, err := filepath.Abs(filepath.Join(dir, "media"))
	if err != nil {
		return false
	}
	abs, err := filepath.Abs(folder)
	return err == nil && abs == own
}

// keys looks whether the restored secrets can be opened.
func (r *Restored) keys(cfg Config) {
	have := []string{}
	line := cfg.SecretKeys
	if line == "" {
		if b, err := os.ReadFile(filepath.Join(cfg.DataDir, keysFile)); err == nil {
			line = strings.TrimSpace(string(b))
		}
	}
	if ring, err := secret.ParseRing(line); err == nil {
		have = ring.IDs()
	}
	for _, kid := range r.KeyIDs {
		if !slices.Contains(have, kid) {
			r.Missing = append(r.Missing, kid)
		}
	}
	r.KeysThere = len(r.Missing) == 0
}

// contents lists what of a data folder a restore would replace: everything but the lock, what earlier restores put
// aside, and the keys, unless the backup brings its own.
func contents(dir string, keys bool) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == lockFile, name == restoring, name == extracted, name == "lost+found", strings.HasPrefix(name, beforeRestore):
		case !keys && (name == keysFile || name == "admin-token"):
		default:
			names = append(names, name)
		}
	}
	return names, nil
}

// swap puts what stands in a data folder aside, and what was extracted in its place.
func swap(dir, fresh string, old []string, media string) (aside string, err error) {
	if err := replaceFile(filepath.Join(dir, restoring), time.Now().UTC().Format(time.RFC3339)+"\n"); err != nil {
		return "", err
	}
	if len(old) > 0 {
		aside = filepath.Join(dir, beforeRestore+time.Now().UTC().Format("20060102-150405.000"))
		if err := os.Mkdir(aside, 0o700); err != nil {
			return "", err
		}
		for _, name := range old {
			if err := os.Rename(filepath.Join(dir, name), filepath.Join(aside, name)); err != nil {
				return aside, err
			}
		}
	}
	entries, err := os.ReadDir(fresh)
	if err != nil {
		return aside, err
	}
	for _, e := range entries {
		from, to := filepath.Join(fresh, e.Name()), filepath.Join(dir, e.Name())
		if e.Name() == "media" && media != "" {
			err = merge(from, media) // blobs are named by their content: those that are there stay
		} else {
			err = os.Rename(from, to)
		}
		if err != nil {
			return aside, err
		}
	}
	if err := syncDir(dir); err != nil {
		return aside, err
	}
	if err := os.RemoveAll(fresh); err != nil {
		return aside, err
	}
	if err := os.Remove(filepath.Join(dir, restoring)); err != nil {
		return aside, err
	}
	return aside, syncDir(dir)
}

// merge copies the files of a folder, and of those below, into another, where they are not there.
func merge(from, to string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	return filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(at, 0o700)
		}
		if _, err := os.Stat(at); err == nil {
			return nil
		}
		src, err := root.Open(rel)
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := os.OpenFile(at+".restoring", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if _, err = io.Copy(dst, src); err == nil {
			err = dst.Sync()
		}
		if err = errors.Join(err, dst.Close()); err != nil {
			return err
		}
		return os.Rename(at+".restoring", at)
	})
}

// verify reads an archive to its end and compares it with its manifest.
func verify(ctx context.Context, file string) (m Manifest, err error) {
	seen := map[string]Entry{}
	whole := false
	err = each(ctx, file, func(name string, size int64, r io.Reader) error {
		if whole {
			return errors.New("something follows the manifest")
		}
		if name == manifestName {
			whole = true
			d := json.NewDecoder(io.LimitReader(r, maxManifest))
			if err := d.Decode(&m); err != nil {
				return fmt.Errorf("the manifest cannot be read: %w", err)
			}
			return nil
		}
		if err := allowed(name); err != nil {
			return err
		}
		if _, twice := seen[name]; twice {
			return fmt.Errorf("%s stands twice in it", name)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return err
		}
		seen[name] = Entry{name, size, hex.EncodeToString(sum.Sum(nil))}
		return nil
	})
	switch {
	case err != nil:
		return m, fmt.Errorf("the archive is damaged or cut: %w", err)
	case !whole:
		return m, errors.New("it has no manifest: it is cut, or no backup")
	case m.Format != manifestFormat:
		return m, fmt.Errorf("it is of format %d, and this version reads %d", m.Format, manifestFormat)
	case len(m.Files) != len(seen):
		return m, fmt.Errorf("it holds %d files, and its manifest names %d", len(seen), len(m.Files))
	}
	for _, want := range m.Files {
		if seen[want.Name] != want {
			return m, fmt.Errorf("%s is not what the manifest says", want.Name)
		}
	}
	if _, ok := seen[servicesFile]; !ok && m.Engine == "" {
		return m, errors.New("it holds no services database")
	}
	return m, nil
}

// allowed tells whether a name is one that a backup holds: nothing else is ever written.
func allowed(name string) error {
	if !filepath.IsLocal(name) || strings.Contains(name, `\`) || filepath.ToSlash(filepath.Clean(name)) != name {
		return fmt.Errorf("%q is no name of a backup's file", name)
	}
	dir, rest, nested := strings.Cut(name, "/")
	switch {
	case name == servicesFile, name == keysFile, name == "admin-token":
		return nil
	case (strings.HasPrefix(name, mongoServices) || strings.HasPrefix(name, mongoClients)) && strings.HasSuffix(name, ".bson"):
		return nil
	case nested && (dir == "tenants" || dir == "inbox") && strings.HasSuffix(rest, ".db") && !strings.Contains(rest, "/"):
		return nil
	case nested && (dir == "media" || dir == importsFolder):
		return nil
	}
	return fmt.Errorf("%q is no name of a backup's file", name)
}

// each gives the files of an archive in order. Anything but plain files is an error.
func each(ctx context.Context, file string, fn func(name string, size int64, r io.Reader) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var magic [2]byte
	n, err := io.ReadFull(f, magic[:])
	if err != nil && n == 0 {
		return errors.New("it is empty")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var r io.Reader = f
	if magic == [2]byte{0x1f, 0x8b} {
		z, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		r = z
	}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r) // to the checksum at the end
			return err
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("%q is not a file", h.Name)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(h.Name, h.Size, t); err != nil {
			return err
		}
	}
}

// extract writes the files of an archive into a folder, and compares them once more while it does.
func extract(ctx context.Context, file, dir string, m Manifest) error {
	want := map[string]Entry{}
	for _, e := range m.Files {
		want[e.Name] = e
	}
	for _, sub := range []string{"tenants", "inbox"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return each(ctx, file, func(name string, size int64, r io.Reader) error {
		if name == manifestName {
			return nil
		}
		if err := allowed(name); err != nil {
			return err
		}
		if err := root.MkdirAll(filepath.Dir(filepath.FromSlash(name)), 0o700); err != nil {
			return err
		}
		f, err := root.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		sum := sha256.New()
		if _, err = io.Copy(io.MultiWriter(f, sum), r); err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if got := (Entry{name, size, hex.EncodeToString(sum.Sum(nil))}); got != want[name] {
			return fmt.Errorf("%s changed while it was read", name)
		}
		return nil
	})
}

// notRestoring refuses a data folder on which a restore was cut short.
func notRestoring(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, restoring)); err == nil {
		return BadConfig{fmt.Sprintf("A restore into %s was cut short: run ecod restore again.", dir)}
	}
	return nil
}
