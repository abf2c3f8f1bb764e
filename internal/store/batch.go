package store

import (
	"context"
	"slices"
)

// job is a batch of parts that are to be done in one transaction.
type job struct {
	doing string
	n     int
	do    func(ctx context.Context, w *writer, i int) error
	errs  []error
	done  chan struct{} // closed when errs is final
}

// togetherMost is the most jobs in one transaction.
const togetherMost = 8

// untouched is an error of a part that wrote nothing, so that the rest of the
// batch need not suffer.
type untouched struct{ error }

func (u untouched) Unwrap() error { return u.error }

// each does the n parts of a batch in one transaction, and whatever other
// batches wait by then in the same one: while one sync runs the next work
// gathers, and Put and Settle share it. Where a part is at fault the whole is
// rolled back and the parts are done each in a transaction of its own, so that
// the others succeed. Error i belongs to part i.
func (db *DB) each(ctx context.Context, doing string, n int, do func(ctx context.Context, w *writer, i int) error) []error {
	j := &job{doing: doing, n: n, do: do, errs: make([]error, n), done: make(chan struct{})}
	db.mu.Lock()
	db.jobs = append(db.jobs, j)
	db.mu.Unlock()
	select {
	case <-db.turn:
		db.together(context.WithoutCancel(ctx), db.take(j))
		db.turn <- struct{}{}
	case <-j.done:
	case <-ctx.Done():
		j.giveUp(db, ctx.Err())
	case <-db.done:
		j.giveUp(db, errClosed)
	}
	<-j.done
	return j.errs
}

// take gives the jobs that are to be done now, mine among them unless it is
// done already.
func (db *DB) take(mine *job) []*job {
	db.mu.Lock()
	defer db.mu.Unlock()
	if !slices.Contains(db.jobs, mine) {
		return nil
	}
	taken := []*job{mine}
	rest := db.jobs[:0:0]
	for _, j := range db.jobs {
		switch {
		case j == mine:
		case len(taken) < togetherMost:
			taken = append(taken, j)
		default:
			rest = append(rest, j)
		}
	}
	db.jobs = rest
	return taken
}

// giveUp ends a job that nobody has begun; one that was begun comes to its end.
func (j *job) giveUp(db *DB, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if i := slices.Index(db.jobs, j); i >= 0 {
		db.jobs = slices.Delete(db.jobs, i, i+1)
		j.end(db.fail(j.doing, err))
	}
}

// end closes the job with an error for all of its parts, or with those they
// have.
func (j *job) end(err error) {
	if err != nil {
		for i := range j.errs {
			j.errs[i] = err
		}
	}
	close(j.done)
}

// together does jobs in one transaction, or each alone if one is at fault.
func (db *DB) together(ctx context.Context, jobs []*job) {
	if len(jobs) == 0 {
		return
	}
	err := db.transact(ctx, func(ctx context.Context, w *writer) error {
		for _, j := range jobs {
			for i := range j.n {
				if err := j.part(ctx, w, i); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for _, j := range jobs {
		switch {
		case err == nil:
			j.end(nil)
		case db.storeWide(err) || len(jobs) == 1 && j.n == 1:
			j.end(db.fail(j.doing, err))
		case len(jobs) > 1:
			db.together(ctx, []*job{j})
		default:
			db.singly(ctx, j)
		}
	}
}

// singly does each part in a transaction of its own.
func (db *DB) singly(ctx context.Context, j *job) {
	for i := range j.n {
		err := db.transact(ctx, func(ctx context.Context, w *writer) error { return j.part(ctx, w, i) })
		if err != nil {
			j.errs[i] = db.fail(j.doing, err)
		}
	}
	j.end(nil)
}

// part does one part, and gives the error that the transaction must not
// survive.
func (j *job) part(ctx context.Context, w *writer, i int) error {
	err := j.do(ctx, w, i)
	j.errs[i] = nil
	if u, ok := err.(untouched); ok {
		j.errs[i], err = u.error, nil
	}
	return err
}
