package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// postgres is a server that this run starts for itself, on a socket in its own folder. Commits are as durable as it
// comes (fsync and synchronous_commit are on); it gets more memory and a longer log than it comes with, for its good.
type postgres struct {
	cmd  *exec.Cmd
	pool *pgxpool.Pool
}

func startPostgres(ctx context.Context, dir string) (*postgres, error) {
	dir = filepath.Join(dir, "pg")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	as, err := lowly(dir)
	if err != nil {
		return nil, err
	}
	initdb, err := binary("initdb")
	if err != nil {
		return nil, err
	}
	server, err := binary("postgres")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	cmd := exec.CommandContext(ctx, initdb, "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale")
	cmd.Dir, cmd.SysProcAttr = dir, as
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	p := &postgres{cmd: exec.Command(server, "-D", data, "-k", dir, "-c", "listen_addresses=", //nolint:gosec // looked up above
		"-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB", "-c", "max_connections=200", "-c", "logging_collector=off")}
	p.cmd.Dir, p.cmd.SysProcAttr = dir, as
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.connect(ctx, dir); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *postgres) connect(ctx context.Context, dir string) error {
	cfg, err := pgxpool.ParseConfig("host=" + dir + " user=bench dbname=postgres pool_max_conns=100")
	if err != nil {
		return err
	}
	if p.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return err
	}
	for range 100 {
		if err = p.pool.Ping(ctx); err == nil {
			return nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("no answer of PostgreSQL: %w", err)
}

// stop is a fast shutdown.
func (p *postgres) stop() {
	if p.pool != nil {
		p.pool.Close()
	}
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	_ = p.cmd.Wait()
}

// binary finds one of PostgreSQL's programs, of the newest version installed.
func binary(name string) (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return slices.Max(found), nil
	}
	return exec.LookPath(name)
}

// lowly gives a folder to a user that PostgreSQL runs as where this process is root, whom it refuses.
func lowly(dir string) (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chown(dir, int(uid), int(gid))); err != nil { //nolint:gosec // to be walked through
			return nil, err
		}
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
}
