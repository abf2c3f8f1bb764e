package store

import "context"

// untouched is an error of a part of a batch that wrote nothing, so that the
// rest of the batch need not suffer.
type untouched struct{ error }

func (u untouched) Unwrap() error { return u.error }

// each does the n parts of a batch in one transaction. Where a part is at fault
// the whole is rolled back and each is done again in a transaction of its own,
// so that the others succeed. Error i belongs to part i.
func (db *DB) each(ctx context.Context, doing string, n int, do func(ctx context.Context, w *writer, i int) error) []error {
	errs := make([]error, n)
	part := func(ctx context.Context, w *writer, i int) error {
		err := do(ctx, w, i)
		errs[i] = nil
		if u, ok := err.(untouched); ok {
			errs[i], err = u.error, nil
		}
		return err
	}
	err := db.write(ctx, doing, func(ctx context.Context, w *writer) error {
		for i := range n {
			if err := part(ctx, w, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return errs
	}
	alone := n > 1 && !storeWide(err)
	for i := range n {
		failed := err
		if alone {
			failed = db.write(ctx, doing, func(ctx context.Context, w *writer) error { return part(ctx, w, i) })
		}
		if failed != nil {
			errs[i] = failed
		}
	}
	return errs
}
