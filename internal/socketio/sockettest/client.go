// Package sockettest is a small Socket.IO client for tests: protocol 5 over Engine.IO
// 4, one namespace, over a websocket, over polling, or from the one to the other. It
// shares no code with the server, so that the two can disagree.
//
// It is not a client for programs: it does not reconnect, and keeps every event until
// it is asked for.
package sockettest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// Transports for Options.Transport.
const (
	Websocket = "websocket"
	Polling   = "polling"
	Upgrade   = "upgrade" // polling first, then a websocket, as browsers do
)

// Options of a Dial. The zero value connects to "/" over a websocket.
type Options struct {
	Namespace string
	Auth      any // marshalled to a JSON object
	Header    http.Header
	Query     url.Values // of every request, beside the protocol's own
	Transport string
	Path      string // default "/socket.io/"
}

// ErrClosed says that the connection has ended. Errors of a Client wrap it.
var ErrClosed = errors.New("sockettest: connection closed")

// ConnectError is the server's refusal to let the client into the namespace.
type ConnectError struct {
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data"`
}

func (e *ConnectError) Error() string { return "sockettest: refused: " + e.Message }

// HTTPError is a request of the handshake that was answered with an error.
type HTTPError struct {
	Status int
	Body   string
}

func (e *HTTPError) Error() string { return fmt.Sprintf("sockettest: HTTP %d: %s", e.Status, e.Body) }

// Event is one event from the server.
type Event struct {
	Name string
	Args []json.RawMessage
	// Ack answers the event. It is nil if the server asked for no answer.
	Ack func(args ...any) error
}

// Decode unmarshals the event's argument i, counted from 0.
func (e Event) Decode(i int, v any) error {
	if i >= len(e.Args) {
		return fmt.Errorf("sockettest: event %q has %d arguments", e.Name, len(e.Args))
	}
	return json.Unmarshal(e.Args[i], v)
}

// transport carries Engine.IO packets, as text.
type transport interface {
	send(packet string) error
	receive() (packets []string, err error)
	goodbye(packets ...string) error // sends last packets, and ends the session
	close()                          // makes a receive in another goroutine return
}

// Client is a connection to one namespace. Its methods may be called from any goroutine.
type Client struct {
	prefix string // of the namespace within packets
	id     string
	done   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc

	mu        sync.Mutex
	transport transport
	events    []Event
	arrived   chan struct{} // closed, and replaced, when an event arrives
	acks      map[int]chan []json.RawMessage
	lastAck   int
	err       error
	connected chan error
}

// Dial connects to the server at base (http://host:port) and to the namespace. ctx
// bounds the dialling only. A refusal is a *ConnectError or a *HTTPError.
func Dial(ctx context.Context, base string, opt Options) (*Client, error) {
	c := &Client{
		done:      make(chan struct{}),
		arrived:   make(chan struct{}),
		acks:      map[int]chan []json.RawMessage{},
		connected: make(chan error, 1),
	}
	if opt.Namespace != "" && opt.Namespace != "/" {
		c.prefix = opt.Namespace + ","
	}
	if opt.Path == "" {
		opt.Path = "/socket.io/"
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	e := &endpoint{base: base + opt.Path, query: opt.Query, header: opt.Header, ctx: c.ctx}
	stop := context.AfterFunc(ctx, c.cancel)
	defer stop()

	if err := c.open(e, opt); err != nil {
		c.cancel()
		return nil, err
	}
	go c.run()
	select {
	case err := <-c.connected:
		if err != nil {
			c.Drop()
			return nil, err
		}
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		c.Drop()
		return nil, ctx.Err()
	}
	return c, nil
}

func (c *Client) open(e *endpoint, opt Options) error {
	connect := "40" + c.prefix
	if opt.Auth != nil {
		auth, err := json.Marshal(opt.Auth)
		if err != nil {
			return err
		}
		connect += string(auth)
	}
	if opt.Transport == Polling || opt.Transport == Upgrade {
		p, err := openPolling(e)
		if err != nil {
			return err
		}
		c.transport = p
		if opt.Transport == Upgrade {
			ws, err := p.upgrade()
			if err != nil {
				return err
			}
			c.transport = ws
		}
	} else {
		ws, err := openWebsocket(e)
		if err != nil {
			return err
		}
		c.transport = ws
	}
	return c.transport.send(connect)
}

// run reads packets until the connection ends.
func (c *Client) run() {
	defer close(c.done)
	for {
		packets, err := c.transport.receive()
		for _, p := range packets {
			if err == nil {
				err = c.packet(p)
			}
		}
		if err != nil {
			c.mu.Lock()
			c.err = fmt.Errorf("%w: %w", ErrClosed, err)
			c.mu.Unlock()
			c.transport.close()
			c.cancel()
			return
		}
	}
}

func (c *Client) packet(p string) error {
	switch {
	case p == "2":
		return c.transport.send("3")
	case p == "1":
		return errors.New("closed by the server")
	case p == "6":
		return nil
	case !strings.HasPrefix(p, "4") || len(p) < 2 || !strings.HasPrefix(p[2:], c.prefix):
		return fmt.Errorf("unexpected packet %.40q", p)
	}
	body := p[2+len(c.prefix):]
	digits := len(body) - len(strings.TrimLeft(body, "0123456789"))
	id, _ := strconv.Atoi(body[:digits])
	body = body[digits:]
	switch p[1] {
	case '0':
		var hello struct{ SID string }
		if err := json.Unmarshal([]byte(body), &hello); err != nil {
			return err
		}
		c.id = hello.SID
		c.connected <- nil
	case '1':
		_ = c.transport.goodbye()
		return errors.New("disconnected by the server")
	case '2':
		var args []json.RawMessage
		ev := Event{}
		if err := json.Unmarshal([]byte(body), &args); err != nil {
			return err
		}
		if err := json.Unmarshal(args[0], &ev.Name); err != nil {
			return err
		}
		ev.Args = args[1:]
		if digits > 0 {
			ev.Ack = func(args ...any) error {
				if args == nil {
					args = []any{}
				}
				return c.send('3', strconv.Itoa(id), args)
			}
		}
		c.mu.Lock()
		c.events = append(c.events, ev)
		close(c.arrived)
		c.arrived = make(chan struct{})
		c.mu.Unlock()
	case '3':
		var args []json.RawMessage
		if err := json.Unmarshal([]byte(body), &args); err != nil {
			return err
		}
		c.mu.Lock()
		answer := c.acks[id]
		delete(c.acks, id)
		c.mu.Unlock()
		if answer == nil {
			return fmt.Errorf("unexpected acknowledgement %d", id)
		}
		answer <- args
	case '4':
		refusal := new(ConnectError)
		if err := json.Unmarshal([]byte(body), refusal); err != nil {
			return err
		}
		c.connected <- refusal
	default:
		return fmt.Errorf("unexpected packet %.40q", p)
	}
	return nil
}

// ID returns the socket's id.
func (c *Client) ID() string { return c.id }

// Done is closed when the connection has ended, by either side. Err tells why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, or nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Emit sends an event.
func (c *Client) Emit(event string, args ...any) error {
	return c.send('2', "", append([]any{event}, args...))
}

// EmitAck sends an event and waits for its acknowledgement.
func (c *Client) EmitAck(ctx context.Context, event string, args ...any) ([]json.RawMessage, error) {
	answer := make(chan []json.RawMessage, 1)
	c.mu.Lock()
	id := c.lastAck
	c.lastAck++
	c.acks[id] = answer
	c.mu.Unlock()
	if err := c.send('2', strconv.Itoa(id), append([]any{event}, args...)); err != nil {
		return nil, err
	}
	select {
	case args := <-answer:
		return args, nil
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Client) send(typ byte, id string, data []any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil {
		return err
	}
	return c.transport.send("4" + string(typ) + c.prefix + id + strings.TrimSuffix(buf.String(), "\n"))
}

// Next returns the next event, in the order of arrival. Events that arrived before the
// connection ended can still be had after it.
func (c *Client) Next(ctx context.Context) (Event, error) {
	for {
		c.mu.Lock()
		if len(c.events) > 0 {
			ev := c.events[0]
			c.events = c.events[1:]
			c.mu.Unlock()
			return ev, nil
		}
		arrived, err := c.arrived, c.err
		c.mu.Unlock()
		if err != nil {
			return Event{}, err
		}
		select {
		case <-arrived:
		case <-c.done:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Wait returns the next event of that name, and drops those before it.
func (c *Client) Wait(ctx context.Context, name string) (Event, error) {
	for {
		ev, err := c.Next(ctx)
		if err != nil || ev.Name == name {
			return ev, err
		}
	}
}

// Close says goodbye and waits until the connection has ended.
func (c *Client) Close() error {
	err := c.transport.goodbye("41" + c.prefix)
	c.Drop()
	return err
}

// Drop cuts the connection without a word, and waits until that is done. A server
// notices at once, unless the client was polling and between two polls.
func (c *Client) Drop() {
	c.transport.close()
	c.cancel()
	<-c.done
}
