package deliver

import (
	"fmt"
	"testing"

	"postrider/internal/queue"
	"postrider/internal/relay"
)

// TestDeadNameServersDelayNobody: one account's mail to domains whose DNS does
// not answer leaves look-ups to the others.
func TestDeadNameServersDelayNobody(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.peer("127.0.1.1", (*talk).serve)
	var dead []*queue.Item
	for i := range 2 * maxLookups {
		domain := fmt.Sprintf("d%d.test", i)
		r.dns.Silence(domain + ".")
		dead = append(dead, r.item("x@"+domain, "x"))
	}
	r.run()
	r.offer(dead...)
	for _, account := range []relay.ID{{2}, {3}} {
		live := r.item("x@receiver.test", "x", func(it *queue.Item) { it.Delivery.Account = account })
		r.offer(live)
		r.delivered([]*queue.Item{live})
	}
	settled := 0
	for _, it := range dead {
		if r.queue.settled(it) {
			settled++
		}
	}
	if settled > 0 {
		t.Errorf("%d look-ups that find nothing had to end first", settled)
	}
}

// TestLookUpIsShared by all that wait for it, and taken at the first turn of any
// of them.
func TestLookUpIsShared(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.peer("127.0.1.1", (*talk).serve)
	var dead, live []*queue.Item
	for i := range maxLookups {
		domain := fmt.Sprintf("d%d.test", i)
		r.dns.Silence(domain + ".")
		dead = append(dead, r.item("x@"+domain, "x"))
	}
	dead = append(dead, r.item("x@receiver.test", "x")) // behind them
	for i := range 6 {
		live = append(live, r.item("x@receiver.test", "x", func(it *queue.Item) { it.Delivery.Account = relay.ID{byte(2 + i%3)} }))
	}
	r.run()
	r.offer(dead...)
	r.offer(live...)
	r.delivered(append(live, dead[maxLookups]))
	if r.queue.settled(dead[0]) {
		t.Error("mail waited for the turn of another that waits for the same look-up")
	}
	if n := r.dns.Queries("receiver.test.", 15); n != 1 {
		t.Errorf("%d look-ups of one domain", n)
	}
}
