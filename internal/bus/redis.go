package bus

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Times of the connections to Redis. One that stands still is found out within silence.
const (
	dialWithin    = 2 * time.Second
	answerWithin  = 2 * time.Second
	pingEvery     = time.Second
	silence       = 3 * time.Second
	firstPause    = 100 * time.Millisecond // after a failure; it doubles
	longestPause  = 5 * time.Second
	publishAtOnce = 256 // messages of one round trip
)

// quiet keeps the driver's own lines, which name addresses, out of the log: trouble is told here, once.
var quiet sync.Once

// redisWire is a Wire through a Redis server: one connection that hears, and one that publishes.
type redisWire struct {
	client *redis.Client
	secret []string // what no error may repeat
	log    *slog.Logger
	ears   *ears
	out    *line
	told   chan struct{} // subscriptions changed
	ctx    context.Context
	end    context.CancelFunc
	wg     sync.WaitGroup
	node   *node

	hearing atomic.Bool // subscribed to all that was asked for
	lost    atomic.Bool // something was not sent since the others were told of a gap

	published, unsent, gaps atomic.Uint64

	mu       sync.Mutex
	hearErr  error
	sendErr  error
	troubled bool // it was logged
}

// redisBus is the Bus through Redis.
type redisBus struct {
	*node
	wire *redisWire
}

// OpenRedis joins the bus at an address (CheckRedisURL). It does not wait for the server: while that cannot be reached, the
// bus carries nothing, and says so.
func OpenRedis(address string, log *slog.Logger) (Bus, error) {
	u, err := parseRedisURL(address)
	if err != nil {
		return nil, err
	}
	quiet.Do(logging.Disable)
	opt := u.options
	opt.Protocol = 2 // of any server since Redis 3; pushes would only interleave with what is published
	opt.MaxRetries = -1
	opt.DialerRetries = 1
	opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = dialWithin, answerWithin, answerWithin
	opt.ContextTimeoutEnabled = true
	opt.PoolSize = 2
	opt.DisableIdentity = true
	opt.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	w := &redisWire{client: redis.NewClient(opt), log: log, ears: newEars(log), out: newLine(), told: make(chan struct{}, 1)}
	for _, s := range []string{opt.Password, opt.Username} {
		if s != "" {
			w.secret = append(w.secret, s)
		}
	}
	w.node = newNode(w, u.prefix, func() { w.ears.unheard.Add(1) })
	w.ctx, w.end = context.WithCancel(context.Background())
	w.node.Subscribe(gapTopic, func([]byte) { w.gap() })
	w.wg.Go(w.hear)
	w.wg.Go(w.send)
	return &redisBus{node: w.node, wire: w}, nil
}

// SocketIOKeyOf is how the channels of Socket.IO servers begin on the bus at an address.
func SocketIOKeyOf(address string) string {
	u, err := parseRedisURL(address)
	if err != nil {
		return SocketIOKey
	}
	return u.key
}

// Shared implements Bus.
func (b *redisBus) Shared() bool { return true }

// Healthy implements Bus.
func (b *redisBus) Healthy() error {
	b.wire.mu.Lock()
	defer b.wire.mu.Unlock()
	if b.wire.hearErr == nil && b.wire.sendErr == nil && !b.wire.hearing.Load() {
		return errors.New("not connected yet")
	}
	return errors.Join(b.wire.hearErr, b.wire.sendErr)
}

// Stats implements Bus.
func (b *redisBus) Stats() Stats {
	w := b.wire
	return Stats{Published: w.published.Load(), Heard: w.ears.heard.Load(), Unsent: w.unsent.Load(), Unheard: w.ears.unheard.Load(), Gaps: w.gaps.Load()}
}

// Close implements Bus. What waits to be sent is sent if that goes at once.
func (b *redisBus) Close() error {
	w := b.wire
	if all, _ := w.out.take(); len(all) > 0 && w.hearing.Load() {
		_ = w.publish(all)
	}
	w.out.close()
	w.end()
	w.wg.Wait()
	w.ears.close()
	return w.client.Close()
}

// Publish implements Wire.
func (w *redisWire) Publish(channel string, data []byte) {
	if !w.hearing.Load() || len(data) > largest || !w.out.put(message{channel, data}) {
		w.unsent.Add(1)
		w.lost.Store(true)
	}
}

// Subscribe implements Wire.
func (w *redisWire) Subscribe(channels, prefixes []string, hear func(string, []byte)) (stop func()) {
	remove := w.ears.add(channels, prefixes, hear)
	w.resubscribe()
	return func() { remove(); w.resubscribe() }
}

func (w *redisWire) resubscribe() {
	select {
	case w.told <- struct{}{}:
	default:
	}
}

// gap says here that something may have been missed.
func (w *redisWire) gap() {
	w.gaps.Add(1)
	w.node.gap()
}

// fail notes trouble, at one of the two connections, and its end (nil). Of each trouble the log has one line, and one of its
// end.
func (w *redisWire) fail(at *error, err error) {
	if err != nil {
		text := err.Error()
		for _, s := range w.secret {
			text = strings.ReplaceAll(text, s, "***")
		}
		err = errors.New(text)
	}
	w.mu.Lock()
	*at = err
	now := errors.Join(w.hearErr, w.sendErr)
	changed := (now != nil) != w.troubled
	w.troubled = now != nil
	w.mu.Unlock()
	switch {
	case !changed:
	case now != nil:
		w.log.Warn("the bus to other nodes is cut; each node finds what is new by looking, some seconds later", "error", err)
	default:
		w.log.Info("the bus to other nodes is whole again")
	}
}

// pause waits before another try; false when the bus is closed.
func (w *redisWire) pause(after *time.Duration) bool {
	d := *after/2 + rand.N(*after)
	*after = min(2**after, longestPause)
	select {
	case <-w.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// send publishes what waits, in order.
func (w *redisWire) send() {
	pause := firstPause
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-w.out.some:
		}
		all, more := w.out.take()
		if !more {
			return
		}
		for len(all) > 0 {
			n := min(len(all), publishAtOnce)
			err := w.publish(all[:n])
			if err == nil {
				w.published.Add(uint64(n))
				all, pause = all[n:], firstPause
				continue
			}
			if w.ctx.Err() != nil {
				return
			}
			// What waits would be old by the time it can be said.
			w.lost.Store(true)
			late, _ := w.out.take()
			w.unsent.Add(uint64(len(all) + len(late)))
			all = nil
			w.fail(&w.sendErr, err)
			for err != nil {
				if !w.pause(&pause) {
					return
				}
				err = w.tellGap()
			}
			w.fail(&w.sendErr, nil)
		}
	}
}

func (w *redisWire) publish(batch []message) error {
	ctx, cancel := context.WithTimeout(w.ctx, 2*answerWithin)
	defer cancel()
	_, err := w.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, m := range batch {
			p.Publish(ctx, m.channel, m.data)
		}
		return nil
	})
	return err
}

// tellGap says to the others that they may have missed something of ours.
func (w *redisWire) tellGap() error {
	w.lost.Store(false)
	err := w.publish([]message{{w.node.prefix + gapTopic, w.node.id[:]}})
	if err != nil {
		w.lost.Store(true)
	}
	return err
}
