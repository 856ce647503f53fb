package socketio

import "sync/atomic"

// Stats is a snapshot of a server's counters. Sessions, Websockets and Sockets are
// what is there now; all others count up from the server's start.
type Stats struct {
	Sessions   int64 // clients connected, over either transport
	Websockets int64 // of them, over a websocket
	Sockets    int64 // connections to namespaces

	Opened   uint64 // sessions opened
	Upgraded uint64 // sessions that went from polling to a websocket
	Refused  uint64 // requests answered with an error

	PacketsIn  uint64 // Engine.IO packets, with the heartbeat's
	PacketsOut uint64
	BytesIn    uint64 // their bytes, without framing
	BytesOut   uint64

	ConnectErrors   uint64 // connections to a namespace refused
	VolatileDropped uint64 // volatile packets dropped because the client was behind
	SlowClients     uint64 // sessions closed for that reason
	PingTimeouts    uint64
	Malformed       uint64
	Panics          uint64 // of handlers
}

type counters struct {
	websockets, sockets                    atomic.Int64
	opened, upgrades, refused              atomic.Uint64
	framesIn, framesOut, bytesIn, bytesOut atomic.Uint64
	connectErrors, volatileDropped         atomic.Uint64
	slow, pingTimeouts, malformed, panics  atomic.Uint64
}

// Stats returns the counters as they are now. They are read one after the other.
func (srv *Server) Stats() Stats {
	srv.mu.RLock()
	sessions := len(srv.sessions)
	srv.mu.RUnlock()
	c := &srv.stats
	return Stats{
		Sessions:        int64(sessions),
		Websockets:      c.websockets.Load(),
		Sockets:         c.sockets.Load(),
		Opened:          c.opened.Load(),
		Upgraded:        c.upgrades.Load(),
		Refused:         c.refused.Load(),
		PacketsIn:       c.framesIn.Load(),
		PacketsOut:      c.framesOut.Load(),
		BytesIn:         c.bytesIn.Load(),
		BytesOut:        c.bytesOut.Load(),
		ConnectErrors:   c.connectErrors.Load(),
		VolatileDropped: c.volatileDropped.Load(),
		SlowClients:     c.slow.Load(),
		PingTimeouts:    c.pingTimeouts.Load(),
		Malformed:       c.malformed.Load(),
		Panics:          c.panics.Load(),
	}
}
