package store

import (
	"context"
	"strings"

	"postrider/internal/relay"
)

// Position is how far a reader of SuppressionNews has come: the turn of each part.
type Position map[int64]int64

// newsTurns is how many turns of news are read at once; each may name ten thousand
// addresses.
const newsTurns = 16

// SuppressionNews gives what was suppressed since a position, of all accounts, and
// the position after it; not all that there is, maybe: ask again while it gives
// some. A position of nil gives none, and where the news stand. whole is false
// where some of it is not there any more: nothing that is kept in memory is to be
// believed then.
//
// What is committed before the call is among it, unless a program of an older
// version added it just now: that is put among the news here, and among what the
// next call gives.
func (db *DB) SuppressionNews(ctx context.Context, since Position) (news []relay.SuppressionNews, now Position, whole bool, err error) {
	if err := db.adopt(ctx); err != nil {
		return nil, nil, false, err
	}
	now = Position{}
	err = db.read(ctx, "select part, value from suppression_turn", func(row scanner) error {
		var part, value int64
		err := row.Scan(&part, &value)
		now[part] = value
		return err
	})
	if err != nil {
		return nil, nil, false, db.fail("look for new suppressions", err)
	}
	if since == nil {
		return nil, now, true, nil
	}
	for part, value := range now {
		at := since[part]
		if value == at {
			continue
		}
		if value < at { // the store is another one, or was set back
			return nil, now, false, nil
		}
		found, end, err := db.newsOf(ctx, part, at)
		if err != nil {
			return nil, nil, false, db.fail("read new suppressions", err)
		}
		if end < min(value, at+newsTurns) {
			return nil, now, false, nil // swept
		}
		news, now[part] = append(news, found...), end
	}
	for part := range since {
		if _, ok := now[part]; !ok {
			return nil, now, false, nil
		}
	}
	return news, now, true, nil
}

// Reached tells whether whoever came from one position to another by SuppressionNews
// has seen all that there was when it was asked.
func (p Position) Reached(now Position) bool {
	for part, value := range now {
		if value-p[part] >= newsTurns {
			return false
		}
	}
	return true
}

// SuppressionKeys gives what is suppressed, by account, address and stream, behind a
// key: all accounts, also what holds no more. It is for who reads all there is.
func (db *DB) SuppressionKeys(ctx context.Context, after relay.SuppressionKey, limit int) (keys []relay.SuppressionKey, err error) {
	keys = make([]relay.SuppressionKey, 0, limit)
	var account []byte
	err = db.read(ctx, "select account, address, stream from suppression where (account, address, stream) > (?, ?, ?) order by account, address, stream limit ?", func(row scanner) error {
		var k relay.SuppressionKey
		err := row.Scan(&account, &k.Address, &k.Stream)
		k.Account = toID(account)
		keys = append(keys, k)
		return err
	}, after.Account[:], after.Address, int64(after.Stream), limit)
	if err != nil {
		return nil, db.fail("read suppressions", err)
	}
	return keys, nil
}

// newsOf gives news of a part behind a turn, and how far they go without a gap.
func (db *DB) newsOf(ctx context.Context, part, after int64) (news []relay.SuppressionNews, end int64, err error) {
	end = after
	err = db.read(ctx, "select turn, account, stream, addresses from suppression_news where part = ? and turn > ? and turn <= ? order by turn, account, stream", func(row scanner) error {
		var turn int64
		var account []byte
		var addresses string
		var one relay.SuppressionNews
		if err := row.Scan(&turn, &account, &one.Stream, &addresses); err != nil {
			return err
		}
		if turn <= end+1 {
			one.Account, one.Addresses = toID(account), strings.Split(addresses, "\n")
			news, end = append(news, one), turn
		}
		return nil
	}, part, after, after+newsTurns)
	return news, end, err
}

// adopt spreads what programs of older versions added.
func (db *DB) adopt(ctx context.Context) error {
	strange := false
	const look = "select account, address, stream from suppression where strange <> 0 order by account, address, stream limit 1000"
	if err := db.read(ctx, look, func(scanner) error { strange = true; return nil }); err != nil {
		return db.fail("look for new suppressions", err)
	}
	if !strange {
		return nil
	}
	return db.write(ctx, "spread new suppressions", func(ctx context.Context, w *writer) error {
		found := map[relay.ID]map[relay.Stream][]string{}
		err := w.query(ctx, look, func(row scanner) error {
			var account []byte
			var address string
			var stream relay.Stream
			err := row.Scan(&account, &address, &stream)
			id := toID(account)
			if found[id] == nil {
				found[id] = map[relay.Stream][]string{}
			}
			found[id][stream] = append(found[id][stream], address)
			return err
		})
		if err != nil || len(found) == 0 { // another node was faster
			return err
		}
		t, err := w.nextTurn(ctx, db.part)
		if err != nil {
			return err
		}
		for account, news := range found {
			for stream, addresses := range news {
				for some := range inParts(addresses) {
					if _, err := w.exec(ctx, "update suppression set strange = 0 where account = ? and stream = ? and address in (?"+repeatMark(len(some)-1)+")",
						texts([]any{account[:], int64(stream)}, some)...); err != nil {
						return err
					}
				}
			}
			if err := db.addNews(ctx, w, t, account, news); err != nil {
				return err
			}
		}
		return nil
	})
}
