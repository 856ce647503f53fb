package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"

	"github.com/ecodrix/ecod/internal/fault"
)

// MaxSize is the largest file that the archive takes, in bytes.
const MaxSize = 100 << 20

// Spooled is a file on its way in: on disk, without a name, so that it is gone when this process is.
type Spooled struct {
	f    *os.File
	hash hash.Hash
	size int64
}

func (a *Archive) spool() (*Spooled, error) {
	f, err := os.CreateTemp(a.cfg.Spool, "in-")
	if err != nil {
		return nil, diskFault(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, diskFault(err)
	}
	return &Spooled{f: f, hash: sha256.New()}, nil
}

// Write implements io.Writer.
func (s *Spooled) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	s.hash.Write(p[:n])
	s.size += int64(n)
	if err != nil {
		err = diskFault(err)
	}
	return n, err
}

// Size is how much was written, in bytes.
func (s *Spooled) Size() int64 { return s.size }

// SHA256 is the checksum of what was written, in hex.
func (s *Spooled) SHA256() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// Close lets the bytes go.
func (s *Spooled) Close() error { return s.f.Close() }

// head gives the first bytes, by which a file tells what it is.
func (s *Spooled) head() ([]byte, error) {
	b := make([]byte, min(s.size, sniffMost))
	_, err := s.f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}

// Receive spools what somebody uploads; fault.TooLarge above MaxSize. The reader's own faults are passed on.
func (a *Archive) Receive(ctx context.Context, r io.Reader) (*Spooled, error) {
	s, err := a.spool()
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(s, &patient{ctx, io.LimitReader(r, MaxSize+1)})
	if err == nil && n > MaxSize {
		err = fault.New(fault.TooLarge, "media.too_large", "A file may have at most 100 MiB.")
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func diskFault(err error) error {
	return fault.Wrap(err, fault.Unavailable, "media.unavailable", "The file cannot be stored now. Try again.")
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func readerOf(b []byte) io.ReaderAt { return bytes.NewReader(b) }
