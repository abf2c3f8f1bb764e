// Package metrics shows the relay from outside: it counts what the other parts
// tell and pulls what they know, and serves both to Prometheus, beside the
// answers to "do you live?" and "may I send you mail?".
//
// No label has a value that a client or a receiver could choose: not a
// recipient, not a domain, not an account. How many series there are does not
// depend on what mail there is.
package metrics

import (
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"postrider/internal/relay"
)

// Metrics counts what it is told. It is the Observer of package smtpd, of
// package deliver and of package queue.
type Metrics struct {
	smtpMetrics
	deliveryMetrics
	storeMetrics
	trackMetrics
	feedbackMetrics
	errors *prometheus.CounterVec // by class
	alerts *prometheus.CounterVec // told, by channel
}

// New makes the metrics and registers them, with those of the process and of
// Go's runtime. The registry must be new.
func New(reg *prometheus.Registry, version string) *Metrics {
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "postrider_build_info",
		Help:        "Always 1; the labels say which program runs.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision(), "goversion": runtime.Version()}})
	build.Set(1)
	m := &Metrics{errors: counter("postrider_errors_total", "Troubles, by class; docs/metrics.md explains each.", "class")}
	for _, c := range errorClasses {
		m.errors.WithLabelValues(c)
	}
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build, m.errors)
	m.alerts = counter("postrider_alert_messages_total", "What was told of alerts, by kind of channel, and whether it was taken.", "channel", "result")
	for _, kind := range []relay.ChannelKind{relay.ChannelMail, relay.ChannelWebhook, relay.ChannelSlack} {
		m.alerts.WithLabelValues(string(kind), "taken")
		m.alerts.WithLabelValues(string(kind), "failed")
	}
	reg.MustRegister(m.alerts)
	m.smtpMetrics = newSMTP(reg)
	m.deliveryMetrics = newDelivery(reg)
	m.storeMetrics = newStore(reg)
	m.trackMetrics = newTrack(reg)
	m.feedbackMetrics = newFeedback(reg)
	return m
}

// AlertTold counts something that was told of an alert.
func (m *Metrics) AlertTold(kind relay.ChannelKind, ok bool) {
	result := "failed"
	if ok {
		result = "taken"
	}
	m.alerts.WithLabelValues(string(kind), result).Inc()
}

// Classes of errors.
const (
	errDNS     = "dns_temporary"
	errTLS     = "tls"
	errConnect = "connect"
	errAway    = "store_unavailable"
	errBusy    = "store_busy"
	errFull    = "store_full"
	errLease   = "lease_lost"
	errStore   = "store_other"
)

var errorClasses = [...]string{errDNS, errTLS, errConnect, errAway, errBusy, errFull, errLease, errStore}

// revision is what the program was built from, as far as it knows.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
}

// quick are the buckets of what takes milliseconds, and slow those of what may
// take days, in seconds.
var (
	quick = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	slow  = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 14400, 86400, 432000}
)

// since is from a time to a later one, in seconds, and never below 0: clocks are
// set back at times.
func since(from, to time.Time) float64 { return max(0, to.Sub(from).Seconds()) }
