package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// fullConn is all that a connection of the driver can do that matters here.
type fullConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.ConnBeginTx
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	NewBackup(uri string) (*sqlite.Backup, error)
}

// source is the connection that writes, which backups are read through: so
// SQLite brings what was copied already up to date with each commit
// (https://sqlite.org/backup.html). A copy through any other connection would
// have to begin anew with each commit, or pin the write-ahead log for as long as
// it takes, and that grows by all that is written meanwhile. Only who holds the
// turn to write touches it.
type source struct {
	conn fullConn
	copy *sqlite.Backup // one that is under way
}

var errCopying = &relay.Error{Code: relay.Conflict, Text: "Another backup is under way.", Advice: "Wait until it has ended."}

// begin starts a copy into the file, of which nobody else knows yet. It is not
// synced, and has no journal: until it is whole it is worth nothing.
func (s *source) begin(file string) error {
	switch {
	case s.copy != nil:
		return errCopying
	case s.conn == nil:
		return errNoConn
	}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(file), RawQuery: "_pragma=synchronous(off)&_pragma=journal_mode(off)"}
	c, err := s.conn.NewBackup(name.String())
	if err != nil {
		return err
	}
	s.copy = c
	return nil
}

var errNoConn = &relay.Error{Code: relay.Unavailable, Text: "The store failed while it was copied.", Advice: "Call for the backup again."}

// step copies some pages, and says how many there are in all and are left.
func (s *source) step(pages int32) (total, left int, err error) {
	if s.copy == nil {
		return 0, 0, errNoConn
	}
	more, err := s.copy.Step(pages)
	if total, left = s.copy.PageCount(), s.copy.Remaining(); err == nil && more && left == 0 {
		left = 1 // it says done itself
	}
	return total, left, err
}

// end closes what begin opened, however far it came.
func (s *source) end() error {
	c := s.copy
	if s.copy = nil; c == nil {
		return nil
	}
	return c.Finish()
}

// watched is the connection that writes. A copy must not outlive it.
type watched struct {
	fullConn
	source *source
}

func (w *watched) Close() error {
	err := w.source.end()
	w.source.conn = nil
	return errors.Join(err, w.fullConn.Close())
}

const (
	stepPages = 64       // in one turn: half a MiB, some milliseconds
	syncBytes = 32 << 20 // copied between two syncs, so that no turn has to wait for a disk that is behind
)

// backup copies the store into a file that must not exist, while mail goes on,
// turn by turn with what is written. What is in the store when it ends is in the
// copy, whole and synced; where it does not end well there is no file. progress,
// where not nil, hears how many bytes there are and how many of them are copied.
func (s *source) backup(ctx context.Context, exclusive store.Exclusive, space spaceOf, file string, progress func(done, total int64)) (err error) {
	part, f, err := partOf(file)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close(), gone(part), gone(part+"-wal"), gone(part+"-shm"))
	}()
	if err := exclusive(ctx, func(context.Context) error { return s.begin(part) }); err != nil {
		return fmt.Errorf("begin backup: %w", err)
	}
	copyErr := s.copyTo(ctx, exclusive, space, f, progress)
	// drain: what was begun must be ended, however this came to an end.
	endErr := exclusive(context.WithoutCancel(ctx), func(context.Context) error { return s.end() })
	if err := errors.Join(copyErr, endErr); err != nil {
		return fmt.Errorf("copy store: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync backup: %w", err)
	}
	return place(part, file)
}

func (s *source) copyTo(ctx context.Context, exclusive store.Exclusive, space spaceOf, f *os.File, progress func(done, total int64)) error {
	const page = 8 << 10
	var unsynced int64
	for told := (time.Time{}); ; {
		var total, left int
		err := exclusive(ctx, func(context.Context) (err error) {
			total, left, err = s.step(stepPages)
			return err
		})
		if err != nil {
			return err
		}
		if time.Since(told) > time.Second/5 || left == 0 {
			told = time.Now()
			if progress != nil {
				progress(int64(total-left)*page, int64(total)*page)
			}
			if free, all, err := space(f.Name()); err == nil && free < int64(left)*page+reserve(all) {
				return &relay.Error{Code: relay.Full, Text: "There is no room for the backup.",
					Advice: fmt.Sprintf("It needs another %d MiB, and leaves %d MiB free for the mail that is there.", int64(left)*page>>20, reserve(all)>>20)}
			}
		}
		if left == 0 {
			return nil
		}
		if unsynced += stepPages * page; unsynced >= syncBytes {
			unsynced = 0
			if err := f.Sync(); err != nil {
				return fmt.Errorf("sync backup: %w", err)
			}
		}
	}
}

// Backup copies a store that no relay has open, as it is, without bringing its
// schema up to date.
func Backup(ctx context.Context, path, file string, progress func(done, total int64)) (err error) {
	if path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("find store: %w", err)
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("find store: %w", err)
	}
	unlock, err := lock(path + ".lock")
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s := &source{}
	c, err := connector{path: path, pragmas: writerPragmas, source: s}.Connect(ctx)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	alone := func(ctx context.Context, f func(context.Context) error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return f(ctx)
	}
	return s.backup(ctx, alone, space, file, progress)
}

// partOf makes the file that a copy is written to before it gets its name. A
// crash leaves it behind, and its name says that it is none.
func partOf(file string) (part string, f *os.File, err error) {
	if _, err := os.Lstat(file); err == nil {
		return "", nil, &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("There is a file %s already.", file), Advice: "Choose another name; a backup overwrites nothing."}
	}
	part = file + ".part"
	f, err = os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		err = &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("There is a file %s: another backup is under way, or one was cut off.", part), Advice: "Delete it if none is."}
	case err != nil:
		err = &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("The file %s can't be made: %v.", part, errors.Unwrap(err)),
			Advice: "Name one in a folder that the relay's user may write to."}
	}
	return part, f, err
}

// place gives the part its name, for good, and overwrites nothing.
func place(part, file string) error {
	if err := os.Link(part, file); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("name backup: %w", err)
		}
		// A file system without links.
		if _, there := os.Lstat(file); there == nil {
			return fmt.Errorf("name backup: %w", fs.ErrExist)
		}
		if err := os.Rename(part, file); err != nil {
			return fmt.Errorf("name backup: %w", err)
		}
	}
	return syncFolder(filepath.Dir(file))
}

// gone deletes a file that may not be there.
func gone(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncFolder makes the names in a folder durable.
func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}
