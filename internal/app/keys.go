package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ecodrix/ecod/internal/secret"
)

const (
	keysFile = "secret-keys"
	lockFile = "lock"
)

// held is what the lock file says of the engine that holds it.
type held struct {
	PID  int      `json:"pid"`
	Keys []string `json:"keys"` // ids of the keys it knows, the one that it seals with first
}

// sign writes into the lock file who holds it and which keys it knows: `ecod keys rotate` waits for that.
func sign(lock *os.File, ring *secret.Ring) error {
	b, err := json.Marshal(held{os.Getpid(), ring.IDs()})
	if err != nil {
		return err
	}
	if _, err = lock.WriteAt(append(b, '\n'), 0); err == nil {
		err = lock.Truncate(int64(len(b)) + 1)
	}
	return err
}

// serving tells whether an engine serves a data folder, and what it says of itself.
func serving(dir string) (h held, yes bool) {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return h, false
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
		return h, false // and closing gives it back
	}
	_ = json.NewDecoder(f).Decode(&h) // being written, it is read the next time
	return h, true
}

// keyReader keeps a ring in step with the keys in the data folder, where they are kept there.
type keyReader struct {
	file string
	ring *secret.Ring
	told func() error // after the ring became another

	mu    sync.Mutex
	asked time.Time
}

// look reads the file and lets the ring become what is in it. A file that cannot be read changes nothing.
func (k *keyReader) look() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, err := os.ReadFile(k.file)
	if err != nil {
		return err
	}
	now, err := secret.ParseRing(strings.TrimSpace(string(b)))
	if err != nil {
		return err
	}
	if slices.Equal(now.IDs(), k.ring.IDs()) {
		return nil
	}
	k.ring.Become(now)
	return k.told()
}

// missed looks because a value's key is not known; not for every such value, as anybody may send some.
func (k *keyReader) missed() {
	k.mu.Lock()
	soon := time.Since(k.asked) < time.Second
	if !soon {
		k.asked = time.Now()
	}
	k.mu.Unlock()
	if !soon {
		_ = k.look() // run says it
	}
}

// followKeys lets the engine take up keys that `ecod keys rotate` made, while it runs.
func (a *App) followKeys(lock *os.File) error {
	if err := sign(lock, a.Keys.Ring); err != nil {
		return err
	}
	if a.Config.SecretKeys != "" {
		return nil
	}
	a.keyReader = &keyReader{file: filepath.Join(a.Config.DataDir, keysFile), ring: a.Keys.Ring, told: func() error {
		a.log.Info("the keys were rotated", "newest", a.Keys.Ring.Current())
		return sign(lock, a.Keys.Ring)
	}}
	a.Keys.Ring.OnUnknown(a.keyReader.missed)
	return nil
}

// watchKeys looks for new keys until ctx ends.
func (a *App) watchKeys(ctx context.Context) error {
	if a.keyReader == nil {
		return nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := a.keyReader.look()
		if err != nil && !failing {
			a.log.Error("the keys in the data folder cannot be read; those known serve on", "error", err)
		}
		failing = err != nil
	}
}

// newKeyID names a key by its day.
func newKeyID() string {
	return "k" + time.Now().UTC().Format("20060102") + "-" + strings.ToLower(rand.Text()[:6])
}

// replaceFile puts a file of mode 0600 in place of another, at once and durably.
func replaceFile(path, content string) error {
	tmp, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = tmp.WriteString(content); err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

// lockFolder keeps two commands that must not meet from each other, without keeping out the engine: rotations from each
// other and from backups.
func lockFolder(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("a rotation of keys or a backup is at work in %s; try again when it has ended", dir), f.Close())
	}
	return f, nil
}

// HasStorage tells whether there is something to work on: a data folder that was used, or a database elsewhere.
func HasStorage(cfg Config) error {
	if cfg.DatabaseURL != "" {
		return nil
	}
	return HasData(cfg.DataDir)
}

// HasData tells whether a data folder was ever used.
func HasData(dir string) error {
	if missing(filepath.Join(dir, servicesFile)) {
		return fmt.Errorf("no data in %s; is ECOD_DATA_DIR right?", dir)
	}
	return nil
}
