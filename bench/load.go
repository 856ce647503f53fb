package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	connections = 64
	customers   = 50 // of each client
	idPrefix    = "wamid.bench."
)

// load posts signed webhooks, one unique message each, over connections that are kept alive. It speaks HTTP/1.1 itself:
// the machine's few processors are there for what is measured.
type load struct {
	url     string
	run     string // makes the messages of this run unique
	clients []client
	rate    int // posts a second, in an even pace; 0: each connection as fast as it is answered
}

// outcome of a load.
type outcome struct {
	took     time.Duration
	acked    []string        // ids of the messages that were answered 200
	latency  []time.Duration // of those, sorted; with a rate, from when the post was due
	refused  int             // answered otherwise
	firstBad string
}

func (o *outcome) perSecond() float64 { return float64(len(o.acked)) / o.took.Seconds() }

func (l load) do(ctx context.Context, length time.Duration) (*outcome, error) {
	host := strings.TrimPrefix(l.url, "http://")
	all := &outcome{}
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	began := time.Now()
	for n := range connections {
		wg.Go(func() {
			o, err := l.connection(ctx, host, n, began, length)
			mu.Lock()
			defer mu.Unlock()
			all.acked, all.latency, all.refused = append(all.acked, o.acked...), append(all.latency, o.latency...), all.refused+o.refused
			if all.firstBad == "" {
				all.firstBad = o.firstBad
			}
			if failed == nil {
				failed = err
			}
		})
	}
	wg.Wait()
	all.took = time.Since(began)
	slices.Sort(all.latency)
	if failed == nil {
		failed = ctx.Err()
	}
	return all, failed
}

func (l load) connection(ctx context.Context, host string, n int, began time.Time, length time.Duration) (o outcome, err error) {
	c, err := net.Dial("tcp", host)
	if err != nil {
		return o, err
	}
	defer c.Close()
	in := bufio.NewReaderSize(c, 4096)
	mac := hmac.New(sha256.New, []byte(appSecret))
	var body, req []byte
	for i := 0; ctx.Err() == nil; i++ {
		due := time.Now()
		if l.rate > 0 {
			due = began.Add(time.Duration(i*connections+n) * time.Second / time.Duration(l.rate))
			time.Sleep(time.Until(due))
		}
		if due.Sub(began) >= length {
			return o, nil
		}
		serial := i*connections + n
		id := idPrefix + l.run + "." + strconv.Itoa(serial)
		body = l.message(body[:0], l.clients[serial%len(l.clients)], serial, id, time.Now())
		req = request(req[:0], host, mac, body)
		if _, err := c.Write(req); err != nil {
			return o, err
		}
		status, err := readAnswer(in)
		if err != nil {
			return o, err
		}
		if !bytes.Equal(status, ok200) {
			o.refused++
			o.firstBad = string(status)
			continue
		}
		o.latency = append(o.latency, time.Since(due))
		o.acked = append(o.acked, id)
	}
	return o, nil
}

var filler = strings.Repeat("Could I come a little later on Monday? ", 12)

// message writes a body as Meta has them, of about 1 KB. The text says when it was posted.
func (l load) message(b []byte, c client, serial int, id string, at time.Time) []byte {
	customer := 9100000000 + int64(serial/len(l.clients)%customers)
	return fmt.Appendf(b, `{"object":"whatsapp_business_account","entry":[{"id":"%s","changes":[{"value":{"messaging_product":"whatsapp",`+
		`"metadata":{"display_phone_number":"%[2]s","phone_number_id":"%[2]s"},"contacts":[{"profile":{"name":"Customer %[3]d"},"wa_id":"%[3]d","user_id":"IN.%[3]d"}],`+
		`"messages":[{"from":"%[3]d","from_user_id":"IN.%[3]d","id":"%[4]s","timestamp":"%[5]d","type":"text","text":{"body":"%[6]d %[7]s"}}]},"field":"messages"}]}]}`,
		c.WABA, c.Number, customer, id, at.Unix(), at.UnixMicro(), filler)
}

// postedAt reads out of a body when it was posted.
func postedAt(body []byte) (time.Time, error) {
	_, rest, _ := bytes.Cut(body, []byte(`"text":{"body":"`))
	digits, _, _ := bytes.Cut(rest, []byte(" "))
	us, err := strconv.ParseInt(string(digits), 10, 64)
	return time.UnixMicro(us), err
}

func request(b []byte, host string, mac hash.Hash, body []byte) []byte {
	mac.Reset()
	mac.Write(body)
	b = fmt.Appendf(b, "POST /api/whatsapp/webhook HTTP/1.1\r\nHost: %s\r\nUser-Agent: facebookexternalua\r\nContent-Type: application/json\r\n"+
		"X-Hub-Signature-256: sha256=%s\r\nContent-Length: %d\r\n\r\n", host, hex.EncodeToString(mac.Sum(nil)), len(body))
	return append(b, body...)
}

var ok200 = []byte("200")

// readAnswer reads one answer whole and gives its status.
func readAnswer(in *bufio.Reader) (status []byte, err error) {
	length := -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			f := bytes.Fields(line)
			if len(f) < 2 {
				return nil, fmt.Errorf("not an answer: %q", line)
			}
			status = bytes.Clone(f[1])
			continue
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 {
		return nil, fmt.Errorf("an answer %s without a length", status)
	}
	_, err = io.CopyN(io.Discard, in, int64(length))
	return status, err
}
