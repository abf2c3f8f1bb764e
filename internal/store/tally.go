package store

import (
	"context"

	"postrider/internal/relay"
)

// tallies count what is not final, each from an index: what waits from
// delivery_ready alone, in its order.
const tallies = "select stream, domain, count(case when state = 1 then 1 end), count(case when state = 2 then 1 end), 0 from delivery" +
	" where lease = 0 and state < 3 group by stream, domain" +
	" union all select stream, domain, count(case when state = 1 then 1 end), count(case when state = 2 then 1 end), 0 from delivery" +
	" where lease > 0 and state < 3 group by stream, domain" +
	" union all select stream, domain, 0, 0, count(*) from delivery where state = 3 group by stream, domain"

// Tally counts all deliveries that are not final, by stream, state and domain;
// each is called with a part of the count, more than once for some. It takes
// time in proportion to how many there are: half a second for a million.
func (db *DB) Tally(ctx context.Context, each func(stream relay.Stream, state relay.State, domain string, n int64)) error {
	err := db.read(ctx, tallies, func(row scanner) error {
		var stream relay.Stream
		var domain string
		var queued, deferred, held int64
		if err := row.Scan(&stream, &domain, &queued, &deferred, &held); err != nil {
			return err
		}
		for _, part := range []struct {
			state relay.State
			n     int64
		}{{relay.Queued, queued}, {relay.Deferred, deferred}, {relay.Held, held}} {
			if part.n > 0 {
				each(stream, part.state, domain, part.n)
			}
		}
		return nil
	})
	if err != nil {
		return db.fail("count deliveries", err)
	}
	return nil
}
