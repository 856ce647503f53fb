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
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ecodrix/ecod/internal/store/sqlite"
)

// A backup is a tar, gzipped if its name says so: the files of a data folder under their names in it, and last the
// manifest, which makes it whole.
const (
	manifestName   = "manifest.json"
	manifestFormat = 1
	holdFor        = 3 * time.Second // commits wait so long at most while the moment is taken
	snapshotsMost  = 1000            // clients' files that are held open at once
)

// Manifest is the list of what a backup holds.
type Manifest struct {
	Format  int       `json:"format"`
	Version string    `json:"version"`
	At      time.Time `json:"at"`               // the moment it shows
	KeyIDs  []string  `json:"keyIds"`           // of the keys that its secrets may be sealed with
	Keys    bool      `json:"keys"`             // they are in it, with the admin token
	Media   string    `json:"media"`            // "in": media are in it; else where they are
	Later   []string  `json:"later"`            // clients' files that show a later moment: there were too many to take at once
	Clients int       `json:"clients"`          // clients' databases in it
	Engine  string    `json:"engine,omitempty"` // "mongodb"; "": files
	// Elsewhere are clients whose databases are at addresses of their own, and not in it.
	Elsewhere []string `json:"elsewhere,omitempty"`
	Files     []Entry  `json:"files"`
}

// Entry is one file of a backup.
type Entry struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// BackupOptions say what a backup is to hold and where it goes.
type BackupOptions struct {
	To       string // a folder, in which a file is made, or the file, which must not be there
	WithKeys bool
	Version  string
}

// Backup writes a consistent copy of a data folder while an engine may serve it, and gives the name of the file. ADR 4
// says why it is consistent.
func Backup(ctx context.Context, cfg Config, o BackupOptions) (file string, m Manifest, err error) {
	if err := HasStorage(cfg); err != nil {
		return "", m, err
	}
	if o.WithKeys && cfg.SecretKeys != "" {
		return "", m, BadConfig{"--with-keys: the keys are in ECOD_SECRET_KEYS and not in the data folder; keep them where you keep that."}
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil { // of a node that serves from MongoDB it may be new
		return "", m, err
	}
	folder, err := lockFolder(cfg.DataDir, syscall.LOCK_SH) // no rotation may run from the databases' moment to the keys'
	if err != nil {
		return "", m, err
	}
	defer folder.Close()
	keys, err := cfg.LoadKeys()
	if err != nil {
		return "", m, err
	}
	if file, err = backupFile(o.To, time.Now()); err != nil {
		return "", m, err
	}
	work, err := os.MkdirTemp(filepath.Dir(file), ".ecod-backup-")
	if err != nil {
		return "", m, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	m = Manifest{Format: manifestFormat, Version: o.Version, KeyIDs: keys.Ring.IDs(), Keys: o.WithKeys, Media: "in", Later: []string{}}
	moment := &moment{}
	if cfg.DatabaseURL == "" {
		if moment, err = takeMoment(ctx, cfg.DataDir); err != nil {
			return "", m, err
		}
		if m.Elsewhere, err = ownDatabases(ctx, cfg.DataDir, keys); err != nil {
			moment.close()
			return "", m, err
		}
	}
	defer moment.close()
	m.At = moment.at

	partial := filepath.Join(work, "archive")
	out, err := os.OpenFile(partial, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", m, err
	}
	w := newArchive(out, strings.HasSuffix(file, "gz"))
	if cfg.DatabaseURL != "" {
		err = backupShared(ctx, cfg, w, work, &m, keys)
	} else {
		err = moment.write(ctx, w, filepath.Join(work, "copy"), &m)
	}
	if err == nil {
		err = moment.imports(w)
	}
	if err == nil {
		if dir, local := mediaFolder(cfg.MediaURL); local {
			err = w.folder(ctx, dir, "media")
		} else {
			m.Media = cfg.bucket.String()
		}
	}
	if err == nil && o.WithKeys {
		for _, name := range []string{keysFile, "admin-token"} {
			if path := filepath.Join(cfg.DataDir, name); err == nil && !missing(path) {
				err = w.file(name, path)
			}
		}
	}
	m.Files = w.entries
	if err == nil {
		err = w.finish(m)
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return "", m, err
	}
	if err := os.Link(partial, file); errors.Is(err, fs.ErrExist) { // it came meanwhile
		return "", m, err
	} else if err != nil { // a file system without links
		if err := os.Rename(partial, file); err != nil {
			return "", m, err
		}
	}
	return file, m, syncDir(filepath.Dir(file))
}

// backupFile is the file that a backup goes to.
func backupFile(to string, now time.Time) (string, error) {
	if st, err := os.Stat(to); err == nil && st.IsDir() {
		to = filepath.Join(to, "ecod-"+now.UTC().Format("20060102-150405")+".tar.gz")
	} else if strings.HasSuffix(to, "/") {
		return "", fmt.Errorf("the folder %s is not there", to)
	}
	if _, err := os.Lstat(to); err == nil {
		return "", fmt.Errorf("%s is there already; a backup is not written over anything", to)
	}
	abs, err := filepath.Abs(to)
	return abs, err
}

// moment is every database of a data folder as of one moment.
type moment struct {
	at    time.Time
	taken []takenFile
	later []string   // clients' files that were too many to be taken with the others
	files []*os.File // that jobs wait to read: held open, they can be read though they are deleted
	dir   string
}

type takenFile struct {
	name string // in the data folder
	s    *sqlite.Snapshot
}

func (m *moment) close() {
	for _, t := range m.taken {
		_ = t.s.Close()
	}
	for _, f := range m.files {
		_ = f.Close()
	}
}

// takeMoment takes a snapshot of every database while nobody can commit to the services database or the inbox: nothing
// is acknowledged then that stands there, no job is made, begun or ended, no webhook is settled.
func takeMoment(ctx context.Context, dir string) (*moment, error) {
	for try := 0; ; try++ {
		m, err := tryMoment(ctx, dir)
		if err == nil || !errors.Is(err, errDays) || try == 3 {
			return m, err
		}
	}
}

// errDays: a day of the inbox began or was dropped meanwhile.
var errDays = errors.New("the inbox's days changed while they were looked at")

func tryMoment(ctx context.Context, dir string) (m *moment, err error) {
	m = &moment{dir: dir}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	var held []func()
	release := func() {
		for _, r := range slices.Backward(held) {
			r()
		}
		held = nil
	}
	defer release()
	days, err := databases(dir, "inbox")
	if err != nil {
		return nil, err
	}
	clients, err := databases(dir, "tenants")
	if err != nil {
		return nil, err
	}
	// those in use first: what sleeps does not change while the others are taken
	slices.SortStableFunc(clients, func(a, b string) int { return inUse(dir, b) - inUse(dir, a) })
	central := append([]string{servicesFile}, days...)
	for _, name := range central {
		r, err := sqlite.Hold(ctx, filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && name != servicesFile {
			return nil, errDays
		}
		if err != nil {
			return nil, err
		}
		held = append(held, r)
	}
	m.at = time.Now().UTC()
	began := time.Now()
	take := func(name string) error {
		s, err := sqlite.TakeSnapshot(ctx, filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "tenants") {
			return nil // erased a moment ago
		}
		if err == nil {
			m.taken = append(m.taken, takenFile{name, s})
		}
		return err
	}
	for _, name := range central {
		if err := take(name); err != nil {
			return nil, err
		}
	}
	imports, err := filepath.Glob(filepath.Join(dir, importsFolder, "*", "*.csv"))
	if err != nil {
		return nil, err
	}
	for _, path := range imports {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.files = append(m.files, f)
	}
	for i, name := range clients {
		if i == snapshotsMost || time.Since(began) > holdFor {
			m.later = clients[i:]
			break
		}
		if err := take(name); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if again, err := databases(dir, "inbox"); err != nil || !slices.Equal(again, days) {
		return nil, errors.Join(err, errDays)
	}
	return m, nil
}

// databases lists the database files of a folder, as names in the data folder.
func databases(dir, folder string) (names []string, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".db") {
			names = append(names, filepath.Join(folder, e.Name()))
		}
	}
	return names, err
}

// inUse tells whether a database has a log, as those have that somebody has open.
func inUse(dir, name string) int {
	if st, err := os.Stat(filepath.Join(dir, name) + "-wal"); err == nil && st.Size() > 0 {
		return 1
	}
	return 0
}

// write copies the databases into an archive, one after the other, by way of a file.
func (m *moment) write(ctx context.Context, w *archive, via string, man *Manifest) error {
	put := func(name string, s *sqlite.Snapshot) error {
		err := s.CopyTo(ctx, via)
		if err == nil {
			err = w.file(filepath.ToSlash(name), via)
		}
		if strings.HasPrefix(name, "tenants") {
			man.Clients++
		}
		return errors.Join(err, s.Close(), os.Remove(via))
	}
	for len(m.taken) > 0 {
		t := m.taken[0]
		m.taken = m.taken[1:]
		if err := put(t.name, t.s); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	for _, name := range m.later {
		s, err := sqlite.TakeSnapshot(ctx, filepath.Join(m.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			man.Later = append(man.Later, filepath.Base(name))
			err = put(name, s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// imports adds the files that jobs wait to read.
func (m *moment) imports(w *archive) error {
	for _, f := range m.files {
		st, err := f.Stat()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(m.dir, f.Name())
		if err != nil {
			return err
		}
		if err := w.add(filepath.ToSlash(rel), f, st.Size(), st.ModTime()); err != nil {
			return err
		}
	}
	return nil
}

// archive writes a tar and notes what went into it.
type archive struct {
	tar     *tar.Writer
	gz      *gzip.Writer
	entries []Entry
	names   map[string]bool
}

func newArchive(w io.Writer, zip bool) *archive {
	a := &archive{names: map[string]bool{}}
	if zip {
		a.gz = gzip.NewWriter(w)
		w = a.gz
	}
	a.tar = tar.NewWriter(w)
	return a
}

// file adds a file as it is now. One that is not there any more is left out.
func (a *archive) file(name, from string) error {
	f, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return a.add(name, f, st.Size(), st.ModTime())
}

func (a *archive) add(name string, r io.Reader, size int64, at time.Time) error {
	if a.names[name] {
		return fmt.Errorf("%s stands twice in the archive", name)
	}
	a.names[name] = true
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: at.UTC().Truncate(time.Second), Format: tar.FormatPAX}); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(a.tar, sum), io.LimitReader(r, size))
	if err == nil && n != size {
		err = fmt.Errorf("%s became shorter while it was copied", name)
	}
	a.entries = append(a.entries, Entry{name, size, hex.EncodeToString(sum.Sum(nil))})
	return err
}

// folder adds the files of a folder and those below.
func (a *archive) folder(ctx context.Context, dir, as string) error {
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile, or never made
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && p != dir:
			return fs.SkipDir // half-written
		case !e.Type().IsRegular():
			return nil
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		return a.file(path.Join(as, filepath.ToSlash(rel)), p)
	})
}

// finish writes the manifest and ends the archive.
func (a *archive) finish(manifest any) error {
	b, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := a.tar.WriteHeader(&tar.Header{Name: manifestName, Mode: 0o600, Size: int64(len(b)), ModTime: time.Now().UTC().Truncate(time.Second), Format: tar.FormatPAX}); err != nil {
		return err
	}
	if _, err := a.tar.Write(b); err != nil {
		return err
	}
	if err := a.tar.Close(); err != nil || a.gz == nil {
		return err
	}
	return a.gz.Close()
}
