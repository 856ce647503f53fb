package bus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// hear keeps a connection that is subscribed to what is asked for.
func (w *redisWire) hear() {
	pause := firstPause
	for {
		began := time.Now()
		err := w.session()
		w.hearing.Store(false)
		if w.ctx.Err() != nil {
			return
		}
		w.fail(&w.hearErr, err)
		if time.Since(began) > longestPause {
			pause = firstPause
		}
		if !w.pause(&pause) {
			return
		}
	}
}

// session hears over one connection until it breaks.
func (w *redisWire) session() error {
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	ps := w.client.Subscribe(ctx)
	defer func() { _ = ps.Close() }()
	s := &subscriber{wire: w, ps: ps, channels: map[string]bool{}, prefixes: map[string]bool{}}
	if err := s.renew(ctx); err != nil {
		return err
	}
	failed := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.keep(ctx); err != nil {
			failed <- err
		}
		_ = ps.Close() // wakes the reader
	}()
	defer func() { cancel(); <-done }()
	for {
		got, err := ps.ReceiveTimeout(ctx, silence)
		if err != nil {
			select {
			case err = <-failed:
			default:
			}
			return err
		}
		switch m := got.(type) {
		case *redis.Pong:
			w.connected()
		case *redis.Message:
			prefix := ""
			if m.Pattern != "" {
				prefix = unpattern(m.Pattern)
			}
			w.ears.tell(prefix, message{m.Channel, []byte(m.Payload)})
		}
	}
}

// connected notes that the server answered after all subscriptions were made.
func (w *redisWire) connected() {
	if !w.hearing.Swap(true) {
		w.fail(&w.hearErr, nil)
		w.gap() // what was published before this connection stood is missed
	}
	if w.lost.Load() && w.sendErrOf() == nil {
		w.lost.Store(false)
		w.node.Publish(gapTopic, nil)
	}
}

func (w *redisWire) sendErrOf() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sendErr
}

// subscriber writes to the connection that hears.
type subscriber struct {
	wire               *redisWire
	ps                 *redis.PubSub
	channels, prefixes map[string]bool // subscribed to
}

// keep makes subscriptions as they are asked for, and has the server answer now and then.
func (s *subscriber) keep(ctx context.Context) error {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wire.told:
		case <-tick.C:
		}
		if err := s.renew(ctx); err != nil {
			return err
		}
	}
}

// renew makes the subscriptions that are asked for, ends those that are not, and asks for an answer after them.
func (s *subscriber) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	channels, prefixes := s.wire.ears.names()
	for _, step := range []struct {
		have, want map[string]bool
		add, drop  func(context.Context, ...string) error
		name       func(string) string
	}{
		{s.channels, channels, s.ps.Subscribe, s.ps.Unsubscribe, func(c string) string { return c }},
		{s.prefixes, prefixes, s.ps.PSubscribe, s.ps.PUnsubscribe, pattern},
	} {
		var add, drop []string
		for c := range step.want {
			if !step.have[c] {
				step.have[c] = true
				add = append(add, step.name(c))
			}
		}
		for c := range step.have {
			if !step.want[c] {
				delete(step.have, c)
				drop = append(drop, step.name(c))
			}
		}
		slices.Sort(add)
		if len(add) > 0 {
			if err := step.add(ctx, add...); err != nil {
				return fmt.Errorf("subscribe: %w", err)
			}
		}
		if len(drop) > 0 {
			if err := step.drop(ctx, drop...); err != nil {
				return fmt.Errorf("unsubscribe: %w", err)
			}
		}
	}
	return s.ps.Ping(ctx)
}

var (
	escape   = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)
	unescape = strings.NewReplacer(`\\`, `\`, `\*`, `*`, `\?`, `?`, `\[`, `[`, `\]`, `]`)
)

// pattern is what Redis knows a prefix as.
func pattern(prefix string) string { return escape.Replace(prefix) + "*" }

func unpattern(p string) string { return unescape.Replace(strings.TrimSuffix(p, "*")) }
