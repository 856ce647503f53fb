package socketio

import (
	"bytes"
	"encoding/base64"
	"errors"
	"sync"

	"github.com/gorilla/websocket"
)

// Engine.IO packet types, as the first byte of a text frame.
const (
	eioOpen    = '0'
	eioClose   = '1'
	eioPing    = '2'
	eioPong    = '3'
	eioMessage = '4'
	eioUpgrade = '5'
	eioNoop    = '6'
)

const recordSeparator = 0x1e

var errMalformed = errors.New("socketio: malformed packet")

// frame is one Engine.IO packet on its way out. It does not change once queued, so
// a broadcast queues the same frame for every client.
type frame struct {
	data   []byte // text: type digit and payload; binary: the bare bytes
	binary bool
	shared bool // goes to many clients: worth preparing

	once     sync.Once
	prepared *websocket.PreparedMessage
}

// Frames that are the same for everyone.
var (
	pingFrame  = &frame{data: []byte{eioPing}, shared: true}
	closeFrame = &frame{data: []byte{eioClose}}
	noopFrame  = &frame{data: []byte{eioNoop}}
)

// size is what a waiting frame counts against Config.MaxBuffered.
func (f *frame) size() int { return len(f.data) + frameOverhead }

func (f *frame) messageType() int {
	if f.binary {
		return websocket.BinaryMessage
	}
	return websocket.TextMessage
}

// writeTo sends the frame as one websocket message.
func (f *frame) writeTo(c *websocket.Conn) error {
	if f.shared {
		f.once.Do(func() { f.prepared, _ = websocket.NewPreparedMessage(f.messageType(), f.data) })
		if f.prepared != nil {
			return c.WritePreparedMessage(f.prepared)
		}
	}
	return c.WriteMessage(f.messageType(), f.data)
}

// pollLen is the frame's length within a polling payload.
func (f *frame) pollLen() int {
	if f.binary {
		return 1 + base64.StdEncoding.EncodedLen(len(f.data))
	}
	return len(f.data)
}

// pollBytes is the frame within a polling payload, where binary travels as text.
func (f *frame) pollBytes() []byte {
	if !f.binary {
		return f.data
	}
	b := make([]byte, f.pollLen())
	b[0] = 'b'
	base64.StdEncoding.Encode(b[1:], f.data)
	return b
}

// splitPayload cuts the body of a POST into its packets and gives them to yield,
// binary ones decoded, until yield returns false. The bytes given are parts of body.
func splitPayload(body []byte, yield func(data []byte, binary bool) bool) error {
	for rest, more := body, true; more; {
		var rec []byte
		rec, rest, more = bytes.Cut(rest, []byte{recordSeparator})
		if len(rec) == 0 {
			return errMalformed
		}
		binary := rec[0] == 'b'
		if binary {
			rec = rec[1:]
			n, err := base64.StdEncoding.Decode(rec, rec)
			if err != nil {
				return errMalformed
			}
			rec = rec[:n]
		}
		if !yield(rec, binary) {
			return nil
		}
	}
	return nil
}
