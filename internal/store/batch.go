package store

import "context"

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
	fail := func(part int, err error) { errs[part] = err }
	parts := make([]int, n)
	for i := range parts {
		parts[i] = i
	}
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
