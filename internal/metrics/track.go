package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"postrider/internal/relay"
)

// trackMetrics is what package track tells.
type trackMetrics struct {
	tracked   *prometheus.CounterVec
	untracked *prometheus.CounterVec
}

func newTrack(reg *prometheus.Registry) trackMetrics {
	m := trackMetrics{
		tracked:   counter("postrider_engagements_total", "Opens and clicks that were recorded, by who did them: a person, as far as can be told, or a machine.", "kind", "by"),
		untracked: counter("postrider_engagements_left_out_total", "Opens and clicks that were not recorded, by the reason.", "reason"),
	}
	reg.MustRegister(m.tracked, m.untracked)
	for _, k := range []relay.Kind{relay.EventOpened, relay.EventClicked} {
		m.tracked.WithLabelValues(k.String(), "person")
		m.tracked.WithLabelValues(k.String(), "machine")
	}
	for _, why := range []string{"repeated", "full", "gone", "store"} {
		m.untracked.WithLabelValues(why)
	}
	return m
}

// Tracked implements track.Observer.
func (m *Metrics) Tracked(kind relay.Kind, machine bool) {
	by := "person"
	if machine {
		by = "machine"
	}
	m.tracked.WithLabelValues(kind.String(), by).Inc()
}

// Untracked implements track.Observer.
func (m *Metrics) Untracked(why string) { m.untracked.WithLabelValues(why).Inc() }
