// Package socketio is a Socket.IO server: protocol 5 over Engine.IO 4, for the
// official clients (socket.io-client 3 and 4) and any other that speaks it.
//
// It carries events between a process and its clients, over websockets and over
// HTTP long polling, with namespaces, rooms, acknowledgements both ways and
// broadcasts that are encoded once. It knows nothing of who its users are: an
// application tells it by middleware (Namespace.Use), handlers (Socket.On) and
// rooms (Socket.Join).
//
//	srv := socketio.NewServer(socketio.Config{})
//	ns := srv.Of("/")
//	ns.Use(func(ctx context.Context, hs *socketio.Handshake) (any, error) {
//		user, err := authenticate(ctx, hs.Auth)
//		if err != nil {
//			return nil, &socketio.ConnectError{Message: "unauthorized"}
//		}
//		return user, nil
//	})
//	ns.OnConnect(func(s *socketio.Socket) {
//		s.Join("user:" + s.Data().(*User).ID)
//		s.On("echo", func(ctx context.Context, args []json.RawMessage, ack func(...any)) {
//			ack(args[0])
//		})
//	})
//	mux.Handle("/socket.io/", srv)
//	...
//	ns.To("user:7").Emit("news", item)
//
// # What a caller should know
//
// Handlers, middleware and OnConnect run in the goroutine that reads the client's
// packets, one at a time for each client: while one runs, that client is not read
// from. So a handler must not wait for an answer of its own client (EmitAck); it
// may use EmitFunc, or a goroutine of its own. A handler that panics ends its
// session, not the process.
//
// Emit never blocks: packets wait in memory for the client. A client with more than
// Config.MaxBuffered bytes waiting is cut off (ReasonSlowClient). The official
// clients then reconnect by themselves; give them a way to catch up.
//
// Polling keeps a session's state in this process: with several processes behind a
// balancer use sticky sessions, or clients with transports: ["websocket"]. What is said
// to many (Target) reaches the sockets of other processes through Config.Adapter; a
// Cluster is one, over Redis or whatever publishes, together with JavaScript's servers.
//
// The deadlines of http.Server (ReadTimeout, WriteTimeout) are overridden for the
// requests served here. Call Server.Close before http.Server.Shutdown, which
// would otherwise wait for the open long polls.
//
// # What it is not
//
// Binary attachments are not supported: a client that sends one has its session
// closed. Neither are connection state recovery, compression, JSONP, WebTransport, or
// Engine.IO 3.
package socketio
