package socketio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Socket.IO packet types, as the first byte after the Engine.IO type.
const (
	sioConnect      = '0'
	sioDisconnect   = '1'
	sioEvent        = '2'
	sioAck          = '3'
	sioConnectError = '4'
	sioBinaryEvent  = '5'
	sioBinaryAck    = '6'
)

// errBinary: a well-formed packet whose attachments would follow. Not supported yet.
var errBinary = errors.New("socketio: binary packets are not supported")

// packet is one Socket.IO packet, decoded as far as its type demands.
type packet struct {
	typ         byte
	namespace   string
	id          uint64
	hasID       bool
	attachments int               // binary types only
	event       string            // events only
	args        []json.RawMessage // events and acks
	auth        json.RawMessage   // connect only: an object, or nil
}

type packetLimits struct{ namespace, depth int }

// parsePacket decodes the payload of an Engine.IO message. Anything that a
// conforming client would not send is errMalformed. The result shares b's memory.
func parsePacket(b []byte, lim packetLimits) (packet, error) {
	if len(b) == 0 || b[0] < sioConnect || b[0] > sioBinaryAck || !utf8.Valid(b) {
		return packet{}, errMalformed
	}
	p := packet{typ: b[0], namespace: "/"}
	b = b[1:]
	if p.typ == sioBinaryEvent || p.typ == sioBinaryAck {
		digits, rest, found := bytes.Cut(b, []byte{'-'})
		n, ok := parseDigits(digits, 2)
		if !found || !ok || n > maxAttachments {
			return packet{}, errMalformed
		}
		p.attachments, b = int(n), rest
	}
	if len(b) > 0 && b[0] == '/' {
		name, rest, _ := bytes.Cut(b, []byte{','})
		if len(name) > lim.namespace {
			return packet{}, errMalformed
		}
		p.namespace, b = string(name), rest
	}
	end := 0
	for end < len(b) && b[end] >= '0' && b[end] <= '9' {
		end++
	}
	if end > 0 {
		if p.id, p.hasID = parseDigits(b[:end], maxAckDigits); !p.hasID {
			return packet{}, errMalformed
		}
		b = b[end:]
	}
	if len(b) > 0 && !depthWithin(b, lim.depth) {
		return packet{}, errMalformed
	}
	return p, p.parseData(b)
}

func (p *packet) parseData(b []byte) error {
	switch p.typ {
	case sioConnect:
		if p.hasID || (len(b) > 0 && (b[0] != '{' || !json.Valid(b))) {
			return errMalformed
		}
		if len(b) > 0 {
			p.auth = b
		}
	case sioDisconnect:
		if p.hasID || len(b) > 0 {
			return errMalformed
		}
	case sioEvent, sioBinaryEvent:
		args, err := parseArray(b)
		if err != nil || len(args) == 0 || args[0][0] != '"' || json.Unmarshal(args[0], &p.event) != nil || reserved(p.event) {
			return errMalformed
		}
		p.args = args[1:]
	case sioAck, sioBinaryAck:
		args, err := parseArray(b)
		if err != nil || !p.hasID {
			return errMalformed
		}
		p.args = args
	default: // a client has no business to send a connect error
		return errMalformed
	}
	if p.attachments > 0 || p.typ == sioBinaryEvent || p.typ == sioBinaryAck {
		return errBinary
	}
	return nil
}

func parseArray(b []byte) ([]json.RawMessage, error) {
	if len(b) == 0 || b[0] != '[' {
		return nil, errMalformed
	}
	var args []json.RawMessage
	if err := json.Unmarshal(b, &args); err != nil {
		return nil, errMalformed
	}
	for i, a := range args {
		if a == nil { // encoding/json makes null a nil RawMessage within a slice
			args[i] = json.RawMessage("null")
		}
	}
	return args, nil
}

// parseDigits reads 1 to most digits and nothing else.
func parseDigits(b []byte, most int) (uint64, bool) {
	if len(b) == 0 || len(b) > most {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// depthWithin reports whether no array or object of the JSON text nests deeper than
// most. It does not validate.
func depthWithin(b []byte, most int) bool {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			if depth++; depth > most {
				return false
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return true
}

// reserved: names the clients emit locally; their parsers refuse them on the wire.
func reserved(event string) bool {
	switch event {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return true
	}
	return false
}

// appendHeader starts an Engine.IO message with a Socket.IO packet of the given type;
// its data follows. An id below 0 stands for none.
func appendHeader(dst []byte, typ byte, namespace string, id int64) []byte {
	dst = append(dst, eioMessage, typ)
	if namespace != "/" {
		dst = append(dst, namespace...)
		dst = append(dst, ',')
	}
	if id >= 0 {
		dst = strconv.AppendInt(dst, id, 10)
	}
	return dst
}

// encodePacket makes a frame of a packet whose data is the JSON of v.
func encodePacket(typ byte, namespace string, id int64, v any) (*frame, error) {
	buf := bytes.NewBuffer(appendHeader(make([]byte, 0, 128), typ, namespace, id))
	if err := appendJSON(buf, v); err != nil {
		return nil, err
	}
	return textFrame(buf.Bytes())
}

func disconnectFrame(namespace string) *frame {
	return &frame{data: appendHeader(nil, sioDisconnect, namespace, -1)}
}

// encodeEvent makes a frame of an event. An id below 0 asks for no acknowledgement.
func encodeEvent(namespace string, id int64, event string, args []any) (*frame, error) {
	if reserved(event) {
		return nil, fmt.Errorf("socketio: event name %q is reserved", event)
	}
	buf := bytes.NewBuffer(appendHeader(make([]byte, 0, 256), sioEvent, namespace, id))
	buf.WriteByte('[')
	if err := appendJSON(buf, event); err != nil {
		return nil, err
	}
	for i, arg := range args {
		buf.WriteByte(',')
		if err := appendJSON(buf, arg); err != nil {
			return nil, fmt.Errorf("socketio: argument %d of %q: %w", i+1, event, err)
		}
	}
	buf.WriteByte(']')
	return textFrame(buf.Bytes())
}

// encodeRaw makes a frame of an event that is already JSON: ["name", ...].
func encodeRaw(namespace string, data []byte) (*frame, error) {
	args, err := parseArray(data)
	var event string
	if err != nil || len(args) == 0 || json.Unmarshal(args[0], &event) != nil || reserved(event) {
		return nil, errors.New(`socketio: raw event is not a JSON array that begins with an event name`)
	}
	return textFrame(append(appendHeader(make([]byte, 0, len(namespace)+len(data)+8), sioEvent, namespace, -1), data...))
}

func appendJSON(buf *bytes.Buffer, v any) error {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	buf.Truncate(buf.Len() - 1) // Encode ends with a newline
	return nil
}

// textFrame refuses bytes that a browser would drop its connection for: a
// json.RawMessage may hold invalid UTF-8.
func textFrame(b []byte) (*frame, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("socketio: packet is not valid UTF-8")
	}
	return &frame{data: b}, nil
}
