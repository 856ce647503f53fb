package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/store/sqlite"
	"github.com/ecodrix/ecod/internal/tenant"
)

const steadyRate = 1000 // a second

// webhooks measures the peak beside the bare server, then a steady rate, and looks for what was acknowledged.
func (b *bench) webhooks(ctx context.Context) error {
	e, err := b.serve(filepath.Join(b.dir, "webhooks"), "")
	if err != nil {
		return err
	}
	defer func() { _ = e.cmd.Process.Kill() }()
	clients := make([]client, 100)
	for i := range clients {
		if clients[i], err = e.register(i + 1); err != nil {
			return err
		}
	}
	bare, err := b.bare()
	if err != nil {
		return err
	}
	defer func() { _ = bare.cmd.Process.Kill() }()

	// The bare server half before and half after: the machine may be another by then.
	compare := load{url: bare.url, run: "bare", clients: clients}
	before, err := compare.do(ctx, b.seconds/2)
	if err != nil {
		return fmt.Errorf("bare server: %w", err)
	}
	bareUsed, err := bare.cpu()
	if err != nil {
		return err
	}
	// Every client has heard from every customer before: what is measured is a day like any other.
	warm, err := load{url: e.url, run: "warm", clients: clients, rate: 500}.do(ctx, time.Duration(len(clients)*customers)*time.Second/500)
	if err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	if err := e.waitSettled(ctx); err != nil {
		return err
	}
	var used [3]time.Duration // of the processors, by the engine
	if used[0], err = e.cpu(); err != nil {
		return err
	}
	peak, err := load{url: e.url, run: "peak", clients: clients}.do(ctx, b.seconds)
	if err != nil {
		return fmt.Errorf("peak: %w", err)
	}
	if used[1], err = e.cpu(); err != nil {
		return err
	}
	sorted, err := e.metric(settledMetric)
	if err != nil {
		return err
	}
	sorted -= float64(len(warm.acked))
	began := time.Now()
	if err := e.waitSettled(ctx); err != nil {
		return err
	}
	drained := time.Since(began)
	if used[2], err = e.cpu(); err != nil {
		return err
	}
	after, err := compare.do(ctx, b.seconds/2)
	if err != nil {
		return fmt.Errorf("bare server: %w", err)
	}
	bareRate := (before.perSecond() + after.perSecond()) / 2
	ratio := peak.perSecond() / bareRate
	b.note("webhook peak, acknowledged", ratio >= 0.5, "≥ 0.5 of bare", "%.0f/s = %.2f of bare; p50 %s, p99 %s", peak.perSecond(), ratio,
		ms(quantile(peak.latency, .5)), ms(quantile(peak.latency, .99)))
	b.note("the same, bare server", true, "", "%.0f/s (before %.0f, after %.0f); p50 %s, p99 %s", bareRate, before.perSecond(), after.perSecond(),
		ms(quantile(after.latency, .5)), ms(quantile(after.latency, .99)))
	left := len(peak.acked) - int(sorted)
	b.note("backlog after the peak", true, "", "%d of %d, worked off in %.1f s (%.0f/s; %.0f/s during the peak)", left, len(peak.acked),
		drained.Seconds(), float64(left)/drained.Seconds(), sorted/peak.took.Seconds())
	b.note("processor time a message", true, "", "bare %s; engine %s acknowledged (with what it sorted meanwhile), %s sorted after",
		each(bareUsed, len(before.acked)), each(used[1]-used[0], len(peak.acked)), each(used[2]-used[1], left))

	steady, err := load{url: e.url, run: "steady", clients: clients, rate: steadyRate}.do(ctx, 2*b.seconds)
	if err != nil {
		return fmt.Errorf("steady: %w", err)
	}
	if err := e.waitSettled(ctx); err != nil {
		return err
	}
	if err := e.stop(); err != nil {
		return err
	}
	times, unsettled, err := b.settledAfter(ctx, filepath.Join(e.dir, "inbox"), "steady")
	if err != nil {
		return err
	}
	p99 := quantile(times, .99)
	b.note(fmt.Sprintf("webhooks at %d/s, post to settled", steadyRate), p99 <= 2*time.Second, "p99 ≤ 2 s", "%.0f/s; p50 %s, p99 %s, max %s",
		steady.perSecond(), ms(quantile(times, .5)), ms(p99), ms(quantile(times, 1)))
	b.note("the same, acknowledged", true, "", "p50 %s, p99 %s from when it was due", ms(quantile(steady.latency, .5)), ms(quantile(steady.latency, .99)))

	acked := slices.Concat(warm.acked, peak.acked, steady.acked)
	lost, twice, err := b.missing(ctx, e.dir, clients, acked)
	if err != nil {
		return err
	}
	refused := warm.refused + peak.refused + steady.refused
	b.note("acknowledged messages lost", lost == 0 && unsettled == 0 && twice == 0, "0", "%d of %d (%d stored twice, %d deliveries not settled, %d refused %s)",
		lost, len(acked), twice, unsettled, refused, warm.firstBad+peak.firstBad+steady.firstBad)
	return nil
}

const settledMetric = `ecod_webhook_deliveries_total{state="settled"}`

// waitSettled waits until no delivery waits for being sorted.
func (e *engine) waitSettled(ctx context.Context) error {
	last, since := 0.0, time.Now()
	for {
		var waiting struct{ Items []struct{} }
		if err := e.admin("GET", "/api/admin/deliveries?state=received&limit=1", nil, &waiting); err != nil {
			return err
		}
		if len(waiting.Items) == 0 {
			return nil
		}
		settled, err := e.metric(settledMetric)
		if err != nil {
			return err
		}
		if settled > last {
			last, since = settled, time.Now()
		}
		if time.Since(since) > 30*time.Second {
			return fmt.Errorf("%.0f deliveries are settled, and for 30 s no more, but there are others", settled)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// settledAfter reads in the inbox's files how long each delivery of a run took from the moment it was posted, as its
// body tells, until its end was recorded, which is after its message can be read; sorted. And how many of all
// deliveries are not settled.
func (b *bench) settledAfter(ctx context.Context, dir, run string) (times []time.Duration, unsettled int, err error) {
	in, err := sqlite.OpenInbox(dir, time.Now)
	if err != nil {
		return nil, 0, err
	}
	defer in.Close()
	after := ""
	for {
		ds, err := in.Deliveries(ctx, store.DeliveryFilter{After: after, Limit: 1000})
		if err != nil {
			return nil, 0, err
		}
		if len(ds) == 0 {
			slices.Sort(times)
			return times, unsettled, nil
		}
		after = ds[len(ds)-1].ID
		for _, d := range ds {
			if d.State != store.Settled {
				unsettled++
				continue
			}
			if d, err = in.Delivery(ctx, d.ID); err != nil {
				return nil, 0, err
			}
			if !strings.Contains(string(d.Body), idPrefix+run+".") {
				continue
			}
			at, err := postedAt(d.Body)
			if err != nil {
				return nil, 0, err
			}
			times = append(times, d.SettledAt.Sub(at))
		}
	}
}

// missing counts the acknowledged messages that are not in their client's database, and those that are there twice. The
// engine has stopped.
func (b *bench) missing(ctx context.Context, dir string, clients []client, acked []string) (lost, twice int, err error) {
	have := map[string]int{}
	for _, c := range clients {
		db, err := sqlite.Open(ctx, filepath.Join(dir, "tenants", tenant.DatabaseName(c.Code)+".db"), app.TenantSchemas())
		if err != nil {
			return 0, 0, err
		}
		var after *store.Cursor
		for {
			ms, err := chat.Messages.Find(ctx, db, store.Query{After: after, Limit: 1000})
			if err != nil {
				return 0, 0, errors.Join(err, db.Close())
			}
			if len(ms) == 0 {
				break
			}
			after = &store.Cursor{ID: ms[len(ms)-1].ID}
			for _, m := range ms {
				have[m.WAMID]++
			}
		}
		if err := db.Close(); err != nil {
			return 0, 0, err
		}
	}
	for _, id := range acked {
		switch n := have[id]; {
		case n == 0:
			lost++
		case n > 1:
			twice++
		}
	}
	return lost, twice, nil
}

// each is a share of d in microseconds.
func each(d time.Duration, n int) string {
	return fmt.Sprintf("%.0f µs", float64(d.Microseconds())/float64(max(n, 1)))
}

// ms writes a duration in milliseconds.
func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
