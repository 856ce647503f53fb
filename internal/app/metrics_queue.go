package app

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
)

// queueMetrics are the numbers of the job queue. docs/operating.md says what each is good for.
type queueMetrics struct {
	enqueued   *prometheus.CounterVec
	started    *prometheus.CounterVec
	ended      *prometheus.CounterVec
	wait       *prometheus.HistogramVec
	run        *prometheus.HistogramVec
	leaseLost  prometheus.Counter
	rejected   prometheus.Counter
	crashes    prometheus.Counter
	doubts     *prometheus.CounterVec
	resolved   *prometheus.CounterVec
	commit     prometheus.Histogram
	group      prometheus.Histogram
	codes      bounded
	clients    busiest
	clientJobs *prometheus.Desc
}

func newQueueMetrics(reg *prometheus.Registry) *queueMetrics {
	seconds := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &queueMetrics{
		enqueued:  counters("ecod_jobs_enqueued_total", "Jobs made, by type.", "type"),
		started:   counters("ecod_jobs_started_total", "Executions begun, by class.", "class"),
		ended:     counters("ecod_job_executions_total", "Executions of jobs, by type, the state they left the job in and the code of what went wrong.", "type", "state", "code"),
		wait:      prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ecod_job_wait_seconds", Help: "From due to started, by class.", Buckets: seconds}, []string{"class"}),
		run:       prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ecod_job_run_seconds", Help: "Time of one execution, by type.", Buckets: seconds}, []string{"type"}),
		leaseLost: counter("ecod_job_lease_lost_total", "Executions told to stop because another process may have their jobs."),
		rejected:  counter("ecod_job_fence_rejected_total", "Ends of executions refused, because their jobs had been taken over."),
		crashes:   counter("ecod_job_crashes_total", "Executions that ended with their leases: a process died, or hung."),
		doubts:    counters("ecod_sends_unconfirmed_total", "Sends whose answers were lost, by channel.", "channel"),
		resolved:  counters("ecod_sends_resolved_total", "Unconfirmed sends of which it became known how they went, or that were sent once more, by channel.", "channel", "as"),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ecod_services_commit_seconds", Help: "Time of one commit of the services database, its work and its fsync.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ecod_services_commit_group", Help: "Callers that shared one commit of the services database.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}}),
		codes:      bounded{most: 200},
		clients:    busiest{shown: 20, kept: 2000},
		clientJobs: prometheus.NewDesc("ecod_client_job_executions_total", "Executions of jobs of the busiest 20 clients since the start.", []string{"client"}, nil),
	}
	reg.MustRegister(m.enqueued, m.started, m.ended, m.wait, m.run, m.leaseLost, m.rejected, m.crashes, m.doubts, m.resolved, m.commit, m.group, m)
	for _, c := range store.Classes { // 0 until it happens: an alert needs a line to look at
		m.started.WithLabelValues(string(c))
		m.wait.WithLabelValues(string(c))
	}
	for _, channel := range []string{"whatsapp", "email"} {
		m.doubts.WithLabelValues(channel)
		m.resolved.WithLabelValues(channel, "resent")
	}
	m.resolved.WithLabelValues("whatsapp", "accepted")
	return m
}

// began counts an execution.
func (m *queueMetrics) began(j *store.Job) {
	_, _, class := store.SplitLane(j.Lane)
	m.started.WithLabelValues(string(class)).Inc()
}

// execution counts one that ended.
func (m *queueMetrics) execution(e job.Execution) {
	_, _, class := store.SplitLane(e.Job.Lane)
	m.ended.WithLabelValues(e.Job.Type, string(e.State), m.codes.of(e.Code)).Inc()
	m.wait.WithLabelValues(string(class)).Observe(max(e.Wait, 0).Seconds())
	m.run.WithLabelValues(e.Job.Type).Observe(e.Run.Seconds())
	m.clients.add(e.Job.Tenant)
}

func (m *queueMetrics) trouble(what string) {
	if what == "lease_lost" {
		m.leaseLost.Inc()
	} else {
		m.rejected.Inc()
	}
}

// moved counts what the queue itself made and found.
func (m *queueMetrics) moved(made map[string]int, crashed int) {
	for typ, n := range made {
		m.enqueued.WithLabelValues(typ).Add(float64(n))
	}
	m.crashes.Add(float64(crashed))
}

// doubt gives the counter of a channel's lost answers.
func (m *queueMetrics) doubt(channel string) func(how string) {
	return func(how string) {
		if how == "" {
			m.doubts.WithLabelValues(channel).Inc()
		} else {
			m.resolved.WithLabelValues(channel, how).Inc()
		}
	}
}

func (m *queueMetrics) committed(group int, took time.Duration) {
	m.commit.Observe(took.Seconds())
	m.group.Observe(float64(group))
}

// Describe implements prometheus.Collector for the busiest clients.
func (m *queueMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.clientJobs }

// Collect implements prometheus.Collector.
func (m *queueMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.clients.most() {
		ch <- prometheus.MustNewConstMetric(m.clientJobs, prometheus.CounterValue, float64(c.n), c.client)
	}
}

// bounded keeps a label from growing: what comes after the first values is "other".
type bounded struct {
	most int
	mu   sync.Mutex
	seen map[string]bool
}

func (b *bounded) of(v string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen[v] {
		return v
	}
	if len(b.seen) >= b.most || len(v) > 64 {
		return "other"
	}
	if b.seen == nil {
		b.seen = map[string]bool{}
	}
	b.seen[v] = true
	return v
}

// busiest counts what clients do, and tells the busiest few: a label must not grow with their number. Who does least is
// forgotten when there are too many.
type busiest struct {
	shown, kept int

	mu sync.Mutex
	n  map[string]int64
}

type clientCount struct {
	client string
	n      int64
}

func (b *busiest) add(client string) {
	if client == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n == nil {
		b.n = map[string]int64{}
	}
	if b.n[client]++; len(b.n) > b.kept {
		for _, c := range b.sorted()[b.kept/2:] {
			delete(b.n, c.client)
		}
	}
}

func (b *busiest) sorted() []clientCount {
	var all []clientCount
	for client, n := range b.n {
		all = append(all, clientCount{client, n})
	}
	slices.SortFunc(all, func(x, y clientCount) int { return cmp.Or(cmp.Compare(y.n, x.n), cmp.Compare(x.client, y.client)) })
	return all
}

func (b *busiest) most() []clientCount {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.sorted()
	return all[:min(len(all), b.shown)]
}

// standing are the gauges that the queue is asked for when somebody looks.
type standing struct {
	queue store.Queue
	log   *slog.Logger
}

var (
	jobsIn   = prometheus.NewDesc("ecod_jobs", "Jobs by state, all clients together.", []string{"state"}, nil)
	oldestIn = prometheus.NewDesc("ecod_job_oldest_ready_seconds", "How long the first job of a class waits that could begin; 0: none waits.", []string{"class"}, nil)
	pausedBy = prometheus.NewDesc("ecod_lanes_paused", "Scopes of lanes that rest, by reason.", []string{"reason"}, nil)
)

// Describe implements prometheus.Collector.
func (s *standing) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{jobsIn, oldestIn, pausedBy} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Without the queue there is nothing to tell: that is told by others.
func (s *standing) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	st, err := s.queue.Standing(ctx)
	if err != nil {
		s.log.Warn("the queue does not tell how it stands", "error", err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, label)
	}
	for state, n := range st.States {
		gauge(jobsIn, float64(n), string(state))
	}
	for _, c := range store.Classes {
		waits := 0.0
		if since, ok := st.OldestReady[c]; ok {
			waits = max(0, time.Since(since).Seconds())
		}
		gauge(oldestIn, waits, string(c))
	}
	for _, r := range []store.PauseReason{store.RateLimited, store.Credential, store.Operator, store.Quality, store.Moving} {
		gauge(pausedBy, float64(st.Paused[r]), string(r))
	}
}
