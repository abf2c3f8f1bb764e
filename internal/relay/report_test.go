package relay

import (
	"testing"
	"time"
)

func TestLatency(t *testing.T) {
	for d, want := range map[time.Duration]int{-time.Second: 1, 0: 1, 100 * time.Millisecond: 1, 101 * time.Millisecond: 2, 150 * time.Millisecond: 2,
		5 * 24 * time.Hour: 39, 1000 * time.Hour: 40} {
		if got := Latency(d); got != want {
			t.Errorf("%v is in bucket %d, want %d", d, got, want)
		}
	}
	for bucket := 1; bucket < 40; bucket++ {
		from, to := LatencyBounds(bucket)
		if from >= to || Latency(to) != bucket || Latency(from+1) != bucket {
			t.Errorf("bucket %d: %v to %v", bucket, from, to)
		}
	}
	if from, to := LatencyBounds(40); from != to || from < 5*24*time.Hour {
		t.Errorf("the last bucket begins at %v, ends at %v", from, to)
	}
}

func TestSendingDomain(t *testing.T) {
	for want, m := range map[string]Message{
		"shop.example": {From: "Info@Shop.Example", Envelope: Envelope{Sender: "x@other.test"}},
		"other.test":   {Envelope: Envelope{Sender: "x@OTHER.test"}},
		"":             {From: "nobody"},
	} {
		if got := m.SendingDomain(); got != want {
			t.Errorf("%+v: %q, want %q", m, got, want)
		}
	}
}
