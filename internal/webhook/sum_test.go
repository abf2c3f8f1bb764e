package webhook

import (
	"testing"
	"time"

	"postrider/internal/relay"
)

func at(second int, n byte) relay.EventHead {
	id := relay.FirstIDAt(time.Unix(int64(second), 0))
	id[15] = n
	return relay.EventHead{ID: id, Account: relay.ID{1}, Kind: relay.EventAccepted}
}

// What was sent beyond what is complete is not sent again where all of it is
// known, and is where it is not.
func TestSum(t *testing.T) {
	a, b := at(1, 1).ID, at(2, 2).ID
	until, sum := sumOf(map[relay.ID]struct{}{a: {}, b: {}})
	if until != b || sum != [2]uint64{2, 3} {
		t.Errorf("until %v, sum %v", until, sum)
	}
	if x := before(after(a)); x != a {
		t.Error("before and after")
	}
	if x := before(relay.ID{1}); x.Compare(relay.ID{1}) >= 0 || after(x) != (relay.ID{1}) {
		t.Errorf("before carries wrongly: %x", x)
	}
}
