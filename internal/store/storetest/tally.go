package storetest

import (
	"fmt"

	"postrider/internal/relay"
)

var tallyTests = []test{
	{"by stream, state and domain", func(f *fixture) {
		tally := func() map[string]int64 {
			f.Helper()
			got := map[string]int64{}
			if err := f.db.Tally(f.Context(), func(stream relay.Stream, state relay.State, domain string, n int64) {
				got[fmt.Sprint(stream, " ", state, " ", domain)] += n
			}); err != nil {
				f.Fatal(err)
			}
			return got
		}
		f.equal("of nothing", tally(), map[string]int64{})
		waiting, leased, held, final := f.message("a@x.test", "b@x.test"), f.message("a@x.test"), f.message("a@y.test"), f.message("a@y.test")
		leased.InHand, held.InHand, final.InHand = true, true, true
		bulk := f.message("a@x.test")
		bulk.Message.Stream, bulk.Deliveries[0].Stream = relay.Broadcast, relay.Broadcast
		f.put(f.lease, waiting, leased, held, final, bulk)
		f.equal("as put", tally(), map[string]int64{"transactional queued x.test": 3, "transactional queued y.test": 2, "broadcast queued x.test": 1})
		for s, kind := range map[*relay.Submission]relay.Kind{leased: relay.EventDeferred, held: relay.EventHeld, final: relay.EventDelivered} {
			o := relay.Outcome{Delivery: s.Deliveries[0].ID, Account: f.me, Kind: kind, At: noon, Due: noon}
			if err := f.db.Settle(f.Context(), f.lease, []relay.Outcome{o})[0]; err != nil {
				f.Fatal(err)
			}
		}
		f.equal("as settled", tally(), map[string]int64{"transactional queued x.test": 2, "transactional deferred x.test": 1,
			"transactional held y.test": 1, "broadcast queued x.test": 1})
	}},
}
