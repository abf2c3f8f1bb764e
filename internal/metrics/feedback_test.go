package metrics

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestFeedback(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg, "")
	m.FeedbackTaken()
	m.FeedbackRefused("forged")
	m.FeedbackSettled("bounced", "Yahoo")
	m.FeedbackSettled("complained", "Yahoo")
	m.FeedbackSettled("complained", "")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			name := f.GetName()
			for _, l := range s.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = s.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{"postrider_feedback_taken_total": 1, "postrider_feedback_refused_total forged": 1, "postrider_feedback_refused_total expired": 0,
		"postrider_feedback_settled_total bounced": 1, "postrider_feedback_settled_total complained": 2, "postrider_feedback_settled_total unmatched": 0,
		"postrider_complaints_total Yahoo": 1, "postrider_complaints_total other": 1} {
		if n, ok := got[name]; !ok || n != want {
			t.Errorf("%s: %v, want %v", name, n, want)
		}
	}
}
