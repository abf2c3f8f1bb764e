package store

import (
	"context"
	"slices"
	"strings"

	"postrider/internal/relay"
)

// linkedAtOnce is how many deliveries one statement asks for.
const linkedAtOnce = 50

// Linked gives those of these deliveries that are there, of whichever account: they
// are named by links that only the relay can make.
func (db *DB) Linked(ctx context.Context, ids []relay.DeliveryID) (found []*relay.Delivery, err error) {
	for some := range slices.Chunk(ids, linkedAtOnce) {
		args := make([]any, 0, 2*len(some))
		for i := range some {
			args = append(args, some[i].Message[:], int64(some[i].N))
		}
		which := strings.Repeat(" or message = ? and n = ?", len(some))[len(" or "):]
		err := db.read(ctx, "select "+deliveryColumns+" from delivery where "+which, func(row scanner) error {
			var r deliveryRow
			if err := row.Scan(r.targets()...); err != nil {
				return err
			}
			found = append(found, r.delivery())
			return nil
		}, args...)
		if err != nil {
			return nil, db.fail("find deliveries of links", err)
		}
	}
	return found, nil
}
