package trace

import (
	"strings"
	"testing"

	"postrider/internal/relay"
)

func id(n int) relay.DeliveryID { return relay.DeliveryID{Message: relay.ID{1}, N: n} }

// Steps of what is watched are kept, those of others are not, and whoever waits is
// told.
func TestBook(t *testing.T) {
	b := New()
	if b.Watch(id(1)) != nil {
		t.Error("an empty book watches")
	}
	b.Open(id(1))
	b.Open(id(1))
	if b.Watch(id(2)) != nil {
		t.Error("another delivery is watched")
	}
	steps, news := b.Steps(id(1))
	if len(steps) != 0 || news == nil {
		t.Fatalf("%v at the beginning", steps)
	}
	say := b.Watch(id(1))
	say(relay.Step{Stage: relay.StepCommand, Command: "EHLO x"})
	<-news
	say(relay.Step{Stage: relay.StepReply, Reply: &relay.Reply{Code: 250, Text: strings.Repeat("é", mostText)}})
	steps, _ = b.Steps(id(1))
	if len(steps) != 2 || steps[0].At.IsZero() || len(steps[1].Reply.Text) > mostText+4 {
		t.Errorf("steps %+v", steps)
	}
	for range 2 * mostSteps {
		say(relay.Step{})
	}
	if steps, news = b.Steps(id(1)); len(steps) != mostSteps {
		t.Errorf("%d steps", len(steps))
	}
	b.Forget(id(1))
	b.Forget(id(1))
	<-news
	say(relay.Step{}) // late
	if steps, news := b.Steps(id(1)); steps != nil || news != nil || b.count.Load() != 0 {
		t.Error("it is not forgotten")
	}
	for i := range 2 * mostTraces {
		b.Open(id(i + 1))
	}
	if len(b.traces) != mostTraces || len(b.order) != mostTraces || b.Watch(id(1)) != nil || b.Watch(id(2*mostTraces)) == nil {
		t.Errorf("%d are kept", len(b.traces))
	}
}

// What nobody watches costs nothing.
func TestFree(t *testing.T) {
	b := New()
	if n := testing.AllocsPerRun(100, func() { b.Watch(id(1)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
