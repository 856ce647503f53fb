package mongo

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/ecodrix/ecod/internal/store"
)

// Config is what a Clusters needs.
type Config struct {
	// MaxConnections is how many connections the process may have for its work, on all clusters together; 0: 256. (A
	// cluster's watch over its servers takes two more per server.)
	MaxConnections int
	// PerCluster is how many of them one cluster may have; 0: 64.
	PerCluster int
	// Timeout of one operation; 0: 10 s.
	Timeout time.Duration
	// Home is the operator's own address. It may stand in a private network and name files of this machine; every other
	// address is taken for a client's.
	Home string
	// AllowPrivate lets clients' addresses stand in private networks, too.
	AllowPrivate bool
	// IsPublic tells the addresses that a client's cluster may have; nil: what is neither private, nor local, nor special.
	IsPublic func(netip.Addr) bool
	// Dialer makes the connections; nil: a net.Dialer. What it gives to an address that a client named is looked at once
	// more, at its other end.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
	Log    *slog.Logger // nil: none
}

const (
	minShare  = 4               // connections that a cluster needs at least
	idleAfter = time.Minute     // a cluster without a database in use is left
	connIdle  = 2 * time.Minute // so does a connection
	limitWait = 2 * time.Second // for a cluster that is being left
)

// LimitError says that a cluster cannot be reached now because all connections are in use by others. It is a
// store.ErrUnavailable: what waits is tried again.
type LimitError struct {
	Limit int // connections of the process
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("store/mongo: all %d connections are in use by other clusters", e.Limit)
}

// Unwrap makes it an engine that is away.
func (e *LimitError) Unwrap() error { return store.ErrUnavailable }
