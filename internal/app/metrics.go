package app

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ecodrix/ecod/internal/store"
)

// metrics are the engine's own; those of HTTP are the API's. No label grows with the number of clients.
type metrics struct {
	registry   *prometheus.Registry
	queue      *queueMetrics
	deliveries *prometheus.CounterVec
	sorting    prometheus.Histogram
}

func newMetrics() *metrics {
	seconds := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecod_webhook_deliveries_total",
			Help: "Webhook deliveries sorted, by the state they ended in."}, []string{"state"}),
		sorting: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ecod_webhook_sorting_seconds", Help: "From received to stored with the clients.", Buckets: seconds}),
	}
	m.queue = newQueueMetrics(m.registry)
	m.registry.MustRegister(m.deliveries, m.sorting,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, s := range []store.DeliveryState{store.Settled, store.Unresolved, store.Failed, store.Received} {
		m.deliveries.WithLabelValues(string(s)) // 0 until it happens: an alert needs a line to look at
	}
	return m
}

func (m *metrics) delivery(state store.DeliveryState, since time.Duration) {
	m.deliveries.WithLabelValues(string(state)).Inc()
	m.sorting.Observe(since.Seconds())
}

// watch adds the gauges that are read when asked for.
func (m *metrics) watch(a *App) {
	gauge := func(name, help string, read func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	gauge("ecod_clients", "Registered clients.", func() float64 { n, _ := a.Tenants.Len(); return float64(n) })
	gauge("ecod_clients_open", "Open client databases.", func() float64 { _, n := a.Tenants.Len(); return float64(n) })
	m.registry.MustRegister(&standing{queue: a.Queue, log: a.log})
	gauge("ecod_jobs_running", "Jobs held by this process.", func() float64 { return float64(a.Runner.Running()) })
	gauge("ecod_jobs_stuck", "Handlers that do not heed the end of their contexts.", func() float64 { return float64(a.Runner.Stuck()) })
	gauge("ecod_webhook_backlog", "Deliveries being sorted or waiting for it, in memory.", func() float64 { return float64(a.Intake.Backlog()) })
	gauge("ecod_sockets", "Connected sockets.", func() float64 { return float64(a.Hub.Sockets()) })
}
