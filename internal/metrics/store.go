package metrics

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// storeMetrics is what is told of the store.
type storeMetrics struct {
	commit    *prometheus.HistogramVec
	batch     *prometheus.HistogramVec
	takeovers prometheus.Counter
	taken     prometheus.Counter
}

func newStore(reg *prometheus.Registry) storeMetrics {
	m := storeMetrics{
		commit: histogram("postrider_commit_duration_seconds", "One transaction of messages (put) or outcomes (settle), its sync included.", quick, "kind"),
		batch: histogram("postrider_commit_batch_size", "Messages (put) or outcomes (settle) in one transaction: what waited while the one before was written.",
			prometheus.ExponentialBuckets(1, 2, 11), "kind"),
		takeovers: prometheus.NewCounter(prometheus.CounterOpts{Name: "postrider_takeovers_total", Help: "Dead nodes whose lease this node ended."}),
		taken:     prometheus.NewCounter(prometheus.CounterOpts{Name: "postrider_taken_over_deliveries_total", Help: "Deliveries that those nodes had in hand."}),
	}
	reg.MustRegister(m.commit, m.batch, m.takeovers, m.taken)
	for _, kind := range []string{"put", "settle"} {
		m.commit.WithLabelValues(kind)
		m.batch.WithLabelValues(kind)
	}
	return m
}

// Committed implements queue.Observer.
func (m *Metrics) Committed(kind string, took time.Duration, errs []error) {
	m.commit.WithLabelValues(kind).Observe(took.Seconds())
	m.batch.WithLabelValues(kind).Observe(float64(len(errs)))
	for _, err := range errs {
		if class := storeError(err); class != "" {
			m.errors.WithLabelValues(class).Inc()
			return // the rest of the batch mostly has the same trouble
		}
	}
}

// TookOver counts a dead node, and what it had in hand.
func (m *Metrics) TookOver(deliveries int64) {
	m.takeovers.Inc()
	m.taken.Add(float64(deliveries))
}

// storeError is the class of an error of the store; empty where there is none,
// or where it is about one message, which the store has nothing to do with.
func storeError(err error) string {
	if err == nil || errors.Is(err, store.ErrSettled) {
		return ""
	}
	if errors.Is(err, store.ErrLeaseLost) {
		return errLease
	}
	switch relay.CodeOf(err) {
	case relay.Unavailable:
		return errAway
	case relay.Busy:
		return errBusy
	case relay.Full:
		return errFull
	case relay.Internal:
		return errStore
	default:
		return ""
	}
}
