package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// Restoring says how a backup is restored.
type Restoring struct {
	Force bool // the store that is there is put aside, not refused
	Hold  bool // everything that waits is put on hold
	Log   *slog.Logger
}

// Restored is what came of it.
type Restored struct {
	Content
	Held  int    // deliveries put on hold
	Aside string // file of the store that was there before; empty: there was none
}

// Content is what is in a copy of a store.
type Content struct {
	Schema   int       // version
	Messages int       // in the log
	Waiting  int       // deliveries that are not final
	Last     time.Time // of the newest event; zero: there is none
}

// Restore makes the file, which a backup made, the store at path. Nobody may
// have that open. The file is checked before anything is changed, and stays
// what it is. A crash leaves the old store or the new one.
func Restore(ctx context.Context, file, path string, r Restoring) (out Restored, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return out, fmt.Errorf("find store: %w", err)
	}
	unlock, err := lock(path + ".lock")
	if err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	_, err = os.Lstat(path)
	there := err == nil
	if there && !r.Force {
		return out, &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("There is a store already: %s.", path),
			Advice: "With -force it is put aside and the backup takes its place."}
	}
	if out.Content, err = Check(ctx, file); err != nil {
		return out, err
	}
	fresh := path + ".restoring"
	defer func() {
		err = errors.Join(err, gone(fresh), gone(fresh+"-wal"), gone(fresh+"-shm"), gone(fresh+".lock"))
	}()
	if err := copyFile(ctx, file, fresh); err != nil {
		return out, err
	}
	if r.Hold {
		if out.Held, err = hold(ctx, fresh, r.Log); err != nil {
			return out, err
		}
		if _, err := os.Lstat(fresh + "-wal"); err == nil {
			return out, fmt.Errorf("hold what waits: %s-wal is left over", fresh)
		}
	}
	if there {
		if out.Aside, err = putAside(ctx, path); err != nil {
			return out, err
		}
	}
	// A log without its file is nobody's; beside the new file it would be taken
	// for that one's.
	if err := errors.Join(gone(path+"-wal"), gone(path+"-shm"), os.Rename(fresh, path)); err != nil {
		return out, fmt.Errorf("put the backup into its place: %w", err)
	}
	return out, syncFolder(filepath.Dir(path))
}

// Check tells what is in a file that Backup made, or why it is of no use.
func Check(ctx context.Context, file string) (b Content, err error) {
	useless := func(text string, err error) error {
		return &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("%s is no backup that can be restored: %s.", file, text),
			Advice: "Take another one.", Err: err}
	}
	i, err := os.Stat(file)
	switch {
	case err != nil:
		return b, fmt.Errorf("check backup: %w", err)
	case !i.Mode().IsRegular() || i.Size() == 0:
		return b, useless("it is empty, or no file", nil)
	}
	if file, err = filepath.Abs(file); err != nil {
		return b, fmt.Errorf("check backup: %w", err)
	}
	// Nobody changes it: no lock and no log beside it are needed, and the folder
	// may be read-only.
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(file), RawQuery: "immutable=1&mode=ro"}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return b, fmt.Errorf("check backup: %w", err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRowContext(ctx, "pragma integrity_check(1)").Scan(&verdict); err != nil || verdict != "ok" {
		if ctx.Err() != nil {
			return b, ctx.Err()
		}
		if verdict != "" {
			err = errors.New(verdict)
		}
		return b, useless("it is damaged, or of another program", err)
	}
	var last int64
	err = db.QueryRowContext(ctx, `select (select max(version) from schema_version), (select count(*) from message),
		(select count(*) from delivery where state < 10), (select coalesce(max(at), 0) from event where id = (select max(id) from event))`).
		Scan(&b.Schema, &b.Messages, &b.Waiting, &last)
	if err != nil {
		return b, useless("it holds no Postrider store", err)
	}
	if b.Schema > store.Latest {
		return b, useless(fmt.Sprintf("it has schema %d, of a newer Postrider; this one knows schema %d", b.Schema, store.Latest), nil)
	}
	if last != 0 {
		b.Last = time.UnixMicro(last)
	}
	return b, nil
}

// copyFile copies a file into one that is its owner's only, and syncs it. The
// owner is the folder's: root may restore for the relay's user.
func copyFile(ctx context.Context, from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("copy backup: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buffer := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n, err := in.Read(buffer)
		if _, err := out.Write(buffer[:n]); err != nil {
			return fmt.Errorf("copy backup: %w", err)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read backup: %w", err)
		}
	}
	if err := inherit(out, filepath.Dir(to)); err != nil {
		return fmt.Errorf("copy backup: %w", err)
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("sync copy of backup: %w", err)
	}
	return nil
}

// hold puts everything that waits in the store on hold, each with its event.
func hold(ctx context.Context, path string, log *slog.Logger) (held int, err error) {
	db, err := Open(ctx, path, log)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	lease, err := db.Join(ctx, "restore") // releases what was in hand when the backup was made
	if err != nil {
		return 0, err
	}
	f := relay.DeliveryFilter{Live: true, States: []relay.State{relay.Queued, relay.Deferred}, Limit: 1000}
	for {
		found, err := db.Deliveries(ctx, relay.Everyone, f)
		if err != nil {
			return held, err
		}
		var orders []relay.Outcome
		for _, l := range found {
			orders = append(orders, relay.Outcome{Delivery: l.ID, Account: l.Account, Kind: relay.EventHeld, At: time.Now().Truncate(time.Microsecond)})
		}
		if err := errors.Join(db.Settle(ctx, 0, orders)...); err != nil {
			return held, err
		}
		if held += len(found); len(found) < f.Limit {
			return held, db.Leave(ctx, lease)
		}
		f.Before = &found[len(found)-1].ID
	}
}

// putAside renames the store that is there, whole: what stands in its log is
// moved into the file first. One that can't be opened any more goes as it is.
func putAside(ctx context.Context, path string) (string, error) {
	db := handle(path, 1, []string{"busy_timeout=1000"})
	var busy, pages, moved int
	err := errors.Join(db.QueryRowContext(ctx, "pragma wal_checkpoint(truncate)").Scan(&busy, &pages, &moved), db.Close())
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err == nil && busy != 0 {
		return "", &relay.Error{Code: relay.Conflict, Text: "Another program has the store open.", Advice: "Close it first."}
	}
	aside := path + ".before-restore-" + time.Now().UTC().Format("20060102T150405Z")
	if _, err := os.Lstat(aside); err == nil {
		return "", fmt.Errorf("put the old store aside: %s: %w", aside, fs.ErrExist)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("put the old store aside: %w", err)
	}
	if err := os.Rename(path+"-wal", aside+"-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("put the old store aside: %w", err)
	}
	return aside, nil
}
