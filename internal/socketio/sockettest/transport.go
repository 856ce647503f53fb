package sockettest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// endpoint is where the requests go.
type endpoint struct {
	base   string
	query  url.Values
	header http.Header
	ctx    context.Context
}

func (e *endpoint) url(transport, sid string) string {
	q := url.Values{}
	maps.Copy(q, e.query)
	q.Set("EIO", "4")
	q.Set("transport", transport)
	if sid != "" {
		q.Set("sid", sid)
	}
	base := e.base
	if transport == Websocket {
		base = "ws" + strings.TrimPrefix(base, "http")
	}
	return base + "?" + q.Encode()
}

func sessionID(open string) (string, error) {
	var hello struct{ SID string }
	if !strings.HasPrefix(open, "0") {
		return "", fmt.Errorf("sockettest: not an open packet: %.40q", open)
	}
	err := json.Unmarshal([]byte(open[1:]), &hello)
	return hello.SID, err
}

type wsTransport struct {
	conn *websocket.Conn
	mu   sync.Mutex // one writer at a time
}

func openWebsocket(e *endpoint) (*wsTransport, error) {
	t, err := dialWebsocket(e, "")
	if err != nil {
		return nil, err
	}
	packets, err := t.receive()
	if err == nil {
		_, err = sessionID(packets[0])
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func dialWebsocket(e *endpoint, sid string) (*wsTransport, error) {
	conn, resp, err := websocket.DefaultDialer.DialContext(e.ctx, e.url(Websocket, sid), e.header)
	if err != nil {
		if resp != nil {
			body, _ := io.ReadAll(resp.Body)
			return nil, &HTTPError{resp.StatusCode, string(body)}
		}
		return nil, err
	}
	return &wsTransport{conn: conn}, nil
}

func (t *wsTransport) send(packet string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conn.WriteMessage(websocket.TextMessage, []byte(packet))
}

func (t *wsTransport) receive() ([]string, error) {
	_, data, err := t.conn.ReadMessage()
	return []string{string(data)}, err
}

func (t *wsTransport) goodbye(packets ...string) error {
	for _, p := range append(packets, "1") {
		if err := t.send(p); err != nil {
			return err
		}
	}
	return nil
}

func (t *wsTransport) close() { t.conn.Close() }

type pollTransport struct {
	endpoint *endpoint
	sid      string
	client   *http.Client
	mu       sync.Mutex // one POST at a time
}

func openPolling(e *endpoint) (*pollTransport, error) {
	t := &pollTransport{endpoint: e, client: &http.Client{Transport: &http.Transport{}}}
	packets, err := t.receive()
	if err == nil {
		t.sid, err = sessionID(packets[0])
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *pollTransport) do(method, body string) (string, error) {
	req, err := http.NewRequestWithContext(t.endpoint.ctx, method, t.endpoint.url(Polling, t.sid), strings.NewReader(body))
	if err != nil {
		return "", err
	}
	maps.Copy(req.Header, t.endpoint.header)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "text/plain;charset=UTF-8")
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &HTTPError{resp.StatusCode, string(answer)}
	}
	return string(answer), err
}

func (t *pollTransport) send(packet string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := t.do(http.MethodPost, packet)
	return err
}

func (t *pollTransport) receive() ([]string, error) {
	body, err := t.do(http.MethodGet, "")
	if err != nil {
		return nil, err
	}
	return strings.Split(body, "\x1e"), nil
}

func (t *pollTransport) goodbye(packets ...string) error {
	return t.send(strings.Join(append(packets, "1"), "\x1e"))
}

func (t *pollTransport) close() { t.client.CloseIdleConnections() }

// upgrade moves the session to a websocket. Nothing else may be using t.
func (t *pollTransport) upgrade() (*wsTransport, error) {
	ws, err := dialWebsocket(t.endpoint, t.sid)
	if err != nil {
		return nil, err
	}
	ws.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err = ws.send("2probe"); err == nil {
		var packets []string
		if packets, err = ws.receive(); err == nil && packets[0] != "3probe" {
			err = errors.New("sockettest: probe was not answered")
		}
	}
	if err == nil {
		err = ws.send("5")
	}
	ws.conn.SetReadDeadline(time.Time{})
	t.close()
	if err != nil {
		ws.close()
		return nil, err
	}
	return ws, nil
}
