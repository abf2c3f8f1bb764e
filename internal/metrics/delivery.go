package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"postrider/internal/feedback"
	"postrider/internal/queue"
	"postrider/internal/relay"
)

// deliveryMetrics is what package deliver tells.
type deliveryMetrics struct {
	attempts *prometheus.CounterVec
	failures *prometheus.CounterVec
	attempt  *prometheus.HistogramVec
	wait     *prometheus.HistogramVec
	whole    *prometheus.HistogramVec
}

func newDelivery(reg *prometheus.Registry) deliveryMetrics {
	m := deliveryMetrics{
		attempts: counter("postrider_attempts_total", "Attempts, by what came of them.", "outcome", "stream", "site"),
		failures: counter("postrider_failures_total", "Attempts without success, by what the failure means (as in the diagnosis of a message).", "category", "site"),
		attempt:  histogram("postrider_attempt_duration_seconds", "One attempt, from its first command, or from dialling where it was dialled for, to the last reply.", slow[:15], "site"),
		wait:     histogram("postrider_first_attempt_wait_seconds", "From accepting a delivery, or its release, to its first attempt.", slow, "stream"),
		whole:    histogram("postrider_delivery_duration_seconds", "From accepting a delivery, or its release, to its end.", slow, "stream", "outcome"),
	}
	reg.MustRegister(m.attempts, m.failures, m.attempt, m.wait, m.whole)
	for _, class := range siteClasses {
		m.attempt.WithLabelValues(class)
		m.failures.WithLabelValues(feedback.Other, class)
		for _, s := range streams {
			for _, k := range []relay.Kind{relay.EventDelivered, relay.EventDeferred, relay.EventBounced, relay.EventExpired} {
				m.attempts.WithLabelValues(k.String(), s.String(), class)
			}
		}
	}
	for _, s := range streams {
		m.wait.WithLabelValues(s.String())
		for _, k := range []relay.Kind{relay.EventDelivered, relay.EventBounced, relay.EventExpired} {
			m.whole.WithLabelValues(s.String(), k.String())
		}
	}
	return m
}

// Settled implements deliver.Observer.
func (m *Metrics) Settled(it *queue.Item, site string, o *relay.Outcome) {
	stream, kind, class := it.Delivery.Stream.String(), o.Kind.String(), SiteClass(site)
	began := it.Message.Received
	if it.Message.Envelope.Release.After(began) {
		began = it.Message.Envelope.Release
	}
	m.attempts.WithLabelValues(kind, stream, class).Inc()
	if c := o.Diagnosis.Category; c != "" {
		m.failures.WithLabelValues(c, class).Inc()
	}
	if o.Kind.State().Final() {
		m.whole.WithLabelValues(stream, kind).Observe(since(began, o.At))
	}
	a := o.Attempt
	if a == nil {
		return
	}
	m.attempt.WithLabelValues(class).Observe(since(a.Started, a.Ended))
	if it.Delivery.Attempts == 0 {
		m.wait.WithLabelValues(stream).Observe(since(began, a.Started))
	}
	switch {
	case a.Stage == feedback.StageRoute && o.Reply.Enhanced == "4.4.3":
		m.errors.WithLabelValues(errDNS).Inc()
	case a.Stage == feedback.StageConnect:
		m.errors.WithLabelValues(errConnect).Inc()
	}
}

// TLSFailed implements deliver.Observer.
func (m *Metrics) TLSFailed(string) { m.errors.WithLabelValues(errTLS).Inc() }
