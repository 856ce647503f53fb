// Package realtime tells a client's dashboards what changed, over Socket.IO.
//
// A Hub lets sockets in, each into the room of its own client, and reads the
// client's news (package news) in order whenever it is poked. What it tells is
// what is durable; a socket that was away asks with "since". Typing and presence
// in a conversation are of the moment: told to its room, and kept nowhere. A socket
// goes with the session or the key that it was let in with (package auth). The
// protocol is package socketio's; who writes news are the domains.
package realtime
