package metrics

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"

	"postrider/internal/relay"
)

// feedbackMetrics is what package feedback tells. The names of providers are those of
// the rules for replies, and those that the operator registered an address with.
type feedbackMetrics struct {
	came       prometheus.Counter
	notTaken   *prometheus.CounterVec
	became     *prometheus.CounterVec
	complaints *prometheus.CounterVec
}

func newFeedback(reg *prometheus.Registry) feedbackMetrics {
	m := feedbackMetrics{
		came:       prometheus.NewCounter(prometheus.CounterOpts{Name: "postrider_feedback_taken_total", Help: "Mails that came back and were answered 250, for each delivery that they came back to."}),
		notTaken:   counter("postrider_feedback_refused_total", "Recipients that were refused on listeners of mode feedback, by the reason.", "reason"),
		became:     counter("postrider_feedback_settled_total", "What became of mails that came back: the event that tells of it, or unmatched, where it is about nothing that is known.", "became"),
		complaints: counter("postrider_complaints_total", "Complaints, by the public name of the provider whose user complained.", "provider"),
	}
	reg.MustRegister(m.came, m.notTaken, m.became, m.complaints)
	for _, why := range []string{"forged", "expired", "unknown", "host"} {
		m.notTaken.WithLabelValues(why)
	}
	for _, k := range []relay.Kind{relay.EventBounced, relay.EventComplained, relay.EventFeedback, relay.EventUnsubscribed} {
		m.became.WithLabelValues(k.String())
	}
	m.became.WithLabelValues("unmatched")
	m.complaints.WithLabelValues("other")
	return m
}

// FeedbackTaken implements feedback.Observer.
func (m *Metrics) FeedbackTaken() { m.came.Inc() }

// FeedbackRefused implements feedback.Observer.
func (m *Metrics) FeedbackRefused(why string) { m.notTaken.WithLabelValues(why).Inc() }

// FeedbackSettled implements feedback.Observer.
func (m *Metrics) FeedbackSettled(became, provider string) {
	m.became.WithLabelValues(became).Inc()
	if became == relay.EventComplained.String() {
		m.complaints.WithLabelValues(cmp.Or(provider, "other")).Inc()
	}
}
