package media

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// marks is the folder of marks: an empty file for each process that puts media here, by which others see that it is the same
// folder, whatever path leads to it.
const marks = ".nodes"

// Mark leaves the mark of a process.
func (f *Folder) Mark(id string) error {
	if err := os.MkdirAll(filepath.Join(f.dir, marks), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(f.dir, marks, id), nil, 0o600)
}

// Marked tells whether a process left its mark here.
func (f *Folder) Marked(id string) (bool, error) {
	_, err := os.Stat(filepath.Join(f.dir, marks, id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Unmark takes back the mark of a process.
func (f *Folder) Unmark(id string) error { return os.Remove(filepath.Join(f.dir, marks, id)) }

// SweepMarks removes old marks of processes that are not alive: they were killed.
func (f *Folder) SweepMarks(before time.Time, alive map[string]bool) error {
	list, err := os.ReadDir(filepath.Join(f.dir, marks))
	if err != nil {
		return err
	}
	for _, e := range list {
		info, ierr := e.Info()
		if alive[e.Name()] || ierr != nil || !info.ModTime().Before(before) {
			continue
		}
		if rerr := f.Unmark(e.Name()); !errors.Is(rerr, fs.ErrNotExist) { // another process sweeps, too
			err = errors.Join(err, rerr)
		}
	}
	return err
}
