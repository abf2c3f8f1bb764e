package store

import (
	"context"

	"postrider/internal/relay"
)

// Commit does what Put and Settle do, in one transaction with one sync where it
// can: what becomes of the mail that is there costs little beside what comes in.
// Where anything is at fault both are done apart, so that neither suffers: a full
// disk, say, takes no new mail and still notes what was delivered.
func (db *DB) Commit(ctx context.Context, lease int64, puts []*relay.Submission, ends []relay.Outcome) (ofPuts, ofEnds []error) {
	put, settle := db.putting(ctx, lease, puts), db.settling(lease, ends)
	if len(puts) > 0 && len(ends) > 0 {
		ofPuts, ofEnds = make([]error, len(puts)), make([]error, len(ends))
		err := db.write(ctx, "commit", func(ctx context.Context, w *writer) error {
			clear(ofPuts)
			clear(ofEnds)
			if err := put(ctx, w, numbers(len(puts)), func(i int, err error) { ofPuts[i] = err }); err != nil {
				return err
			}
			return settle(ctx, w, numbers(len(ends)), func(i int, err error) { ofEnds[i] = err })
		})
		if err == nil {
			return ofPuts, ofEnds
		}
		if relay.CodeOf(err) == relay.Unavailable { // to try again would only take its time
			return repeat(err, len(puts)), repeat(err, len(ends))
		}
	}
	return db.each(ctx, "put", len(puts), put), db.each(ctx, "settle", len(ends), settle)
}

func repeat(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// numbers are 0 to n-1.
func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// untouched is an error of a part of a batch that wrote nothing, so that the
// rest of the batch need not suffer.
type untouched struct{ error }

func (u untouched) Unwrap() error { return u.error }

// batch is what each does in one transaction: the parts of these numbers. A part
// that writes nothing for a reason of its own is told to fail; any other error
// rolls back the whole.
type batch func(ctx context.Context, w *writer, parts []int, fail func(part int, err error)) error

// each does n parts in one transaction. Where a part is at fault the whole is
// rolled back and each is done again in a transaction of its own, so that the
// others succeed. Error i belongs to part i.
func (db *DB) each(ctx context.Context, doing string, n int, do batch) []error {
	errs := make([]error, n)
	if n == 0 {
		return errs
	}
	fail := func(part int, err error) { errs[part] = err }
	parts := numbers(n)
	all := func(parts []int) error {
		return db.write(ctx, doing, func(ctx context.Context, w *writer) error {
			for _, i := range parts {
				errs[i] = nil
			}
			return do(ctx, w, parts, fail)
		})
	}
	err := all(parts)
	if err == nil {
		return errs
	}
	alone := n > 1 && !storeWide(err)
	for i := range parts {
		failed := err
		if alone {
			failed = all(parts[i : i+1])
		}
		if failed != nil {
			errs[i] = failed
		}
	}
	return errs
}

// oneByOne makes a batch of what does one part.
func oneByOne(do func(ctx context.Context, w *writer, part int) error) batch {
	return func(ctx context.Context, w *writer, parts []int, fail func(int, error)) error {
		for _, i := range parts {
			err := do(ctx, w, i)
			if u, ok := err.(untouched); ok {
				fail(i, u.error)
			} else if err != nil {
				return err
			}
		}
		return nil
	}
}
