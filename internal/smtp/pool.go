package smtp

import (
	"context"
	"slices"
	"time"
)

// lane is the connections of one account.
type lane struct {
	slots chan struct{} // a place for each connection in use
	users int           // calls that hold or want a place; guarded by Client.mu, as are the following
	idle  []*session    // the last used last
}

// with calls f with a place in the account's lane. While it holds one it may
// take a kept connection, or open one if none is kept: so there are never more
// connections than places.
func (c *Client) with(ctx context.Context, acc Account, f func(*lane) *Error) *Error {
	key := acc.login()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return &Error{Op: "wait", Outcome: NotSent, Scope: ScopeTransport, Err: ErrClosed}
	}
	n := c.lanes[key]
	if n == nil {
		n = &lane{slots: make(chan struct{}, c.cfg.MaxPerAccount)}
		c.lanes[key] = n
	}
	n.users++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		n.users--
		c.forget(key, n)
		c.mu.Unlock()
	}()

	if ctx.Err() == nil { // select would choose at random
		select {
		case n.slots <- struct{}{}:
			defer func() { <-n.slots }()
			return f(n)
		case <-ctx.Done():
		}
	}
	return &Error{Op: "wait", Outcome: NotSent, Scope: ScopeTransport, Err: ctx.Err()}
}

// forget drops a lane that nobody needs. Client.mu is held.
func (c *Client) forget(key login, n *lane) {
	if n.users == 0 && len(n.idle) == 0 && c.lanes[key] == n {
		delete(c.lanes, key)
	}
}

// take gives the connection that was kept last; nil if there is none.
func (c *Client) take(n *lane) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(n.idle) == 0 {
		return nil
	}
	s := n.idle[len(n.idle)-1]
	n.idle = n.idle[:len(n.idle)-1]
	c.idle--
	s.timer.Stop() // if it went off already, it finds nothing to close
	return s
}

// keep puts a connection back, or closes it if it is not fit to be used again.
func (c *Client) keep(n *lane, s *session) {
	c.mu.Lock()
	if s.dead || s.sent >= c.cfg.MaxPerConnection || c.closed || c.idle >= c.cfg.MaxIdle {
		c.mu.Unlock()
		s.quit()
		return
	}
	n.idle = append(n.idle, s)
	c.idle++
	if s.timer == nil {
		s.timer = time.AfterFunc(c.cfg.IdleTimeout, func() { c.expire(n, s) })
	} else {
		s.timer.Reset(c.cfg.IdleTimeout)
	}
	c.mu.Unlock()
}

// expire closes a connection that was not used for a while.
func (c *Client) expire(n *lane, s *session) {
	c.mu.Lock()
	i := slices.Index(n.idle, s)
	if i < 0 { // it was taken at the last moment
		c.mu.Unlock()
		return
	}
	n.idle = slices.Delete(n.idle, i, i+1)
	c.idle--
	c.forget(s.key, n)
	c.mu.Unlock()
	s.quit()
}
