package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// OnDrain registers what to do when the server begins to stop, before it waits for requests under way: telling sockets
// and long polls to go. Call it before Serve.
func (a *API) OnDrain(f func()) { a.onDrain = append(a.onDrain, f) }

// Drain makes /readyz say no, so that a load balancer looks elsewhere. Serve does it when it stops; calling it earlier
// gives the balancer time to notice.
func (a *API) Drain() { a.draining.Store(true) }

// Serve serves on a listener until ctx ends; then it goes on for LameDuck while /readyz says no, takes no new connections, lets requests under way end for at most
// DrainTimeout, and cuts off the rest. It returns nil after a stop that was asked for.
func (a *API) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           a,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		// No ReadTimeout and no WriteTimeout: uploads, downloads and long polls take what they take. Bodies have
		// deadlines of their own (guard.go).
		ErrorLog: slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	a.Drain()
	if a.cfg.LameDuck > 0 {
		select {
		case err := <-failed:
			return err
		case <-time.After(a.cfg.LameDuck):
		}
	}
	for _, f := range a.onDrain {
		f()
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.DrainTimeout)
	defer cancel()
	err := srv.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		a.cfg.Log.Warn("requests were cut off after the drain timeout")
		err = srv.Close()
	}
	if stopped := <-failed; !errors.Is(stopped, http.ErrServerClosed) {
		err = errors.Join(err, stopped)
	}
	return err
}
