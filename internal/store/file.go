package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// File is something small that all nodes share, by a name with slashes.
type File struct {
	Name     string
	Size     int64
	Modified time.Time
	Bytes    []byte // nil in a list
}

// PutFile keeps a file in place of one that was there.
func (db *DB) PutFile(ctx context.Context, name string, content []byte) error {
	return db.write(ctx, "put file", func(ctx context.Context, w *writer) error {
		_, err := w.exec(ctx, "insert into file (name, bytes, modified) values (?, ?, "+w.dialect.Now+")"+
			" on conflict (name) do update set bytes = excluded.bytes, modified = excluded.modified", text(name), some(content))
		return err
	})
}

// some is never null.
func some(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// EnsureFile keeps a file where there is none of that name, and gives the one
// that is there then.
func (db *DB) EnsureFile(ctx context.Context, name string, content []byte) (kept []byte, err error) {
	err = db.write(ctx, "ensure file", func(ctx context.Context, w *writer) error {
		if _, err := w.exec(ctx, "insert into file (name, bytes, modified) values (?, ?, "+w.dialect.Now+") on conflict do nothing", text(name), some(content)); err != nil {
			return err
		}
		return w.query(ctx, "select bytes from file where name = ?", func(row scanner) error { return row.Scan(&kept) }, text(name))
	})
	return kept, err
}

// File gives a file, or a relay.Error NotFound.
func (db *DB) File(ctx context.Context, name string) (*File, error) {
	found, err := collect(ctx, db, "read file", func(row scanner) (*File, error) {
		f := File{Name: name}
		var modified int64
		err := row.Scan(&f.Bytes, &modified)
		f.Size, f.Modified = int64(len(f.Bytes)), db.clock.time(modified)
		return &f, err
	}, "select bytes, modified from file where name = ?", text(name))
	return only(found, err, missing("file", name))
}

// Files lists the files whose names begin so, by name, without their bytes.
func (db *DB) Files(ctx context.Context, prefix string) ([]*File, error) {
	return collect(ctx, db, "list files", func(row scanner) (*File, error) {
		var f File
		var modified int64
		err := row.Scan(&f.Name, &f.Size, &modified)
		f.Modified = db.clock.time(modified)
		return &f, err
	}, `select name, length(bytes), modified from file where name like ? escape '\' order by name`, likeEscaper.Replace(text(prefix))+"%")
}

// RemoveFile removes a file; one that is not there is a relay.Error NotFound.
func (db *DB) RemoveFile(ctx context.Context, name string) error {
	return db.write(ctx, "remove file", func(ctx context.Context, w *writer) error {
		gone, err := w.exec(ctx, "delete from file where name = ?", text(name))
		if err == nil && gone == 0 {
			err = missing("file", name)
		}
		return err
	})
}

// Lock takes the lock of that name for its owner, for as long as that by the
// store's clock, and tells whether it is the owner's now. An owner that has it
// may take it again, and so keep it.
func (db *DB) Lock(ctx context.Context, name, owner string, lasts time.Duration) (locked bool, err error) {
	err = db.write(ctx, "lock", func(ctx context.Context, w *writer) error {
		now := w.dialect.Now
		n, err := w.exec(ctx, "insert into mutex (name, owner, expires) values (?, ?, "+now+" + ?) on conflict (name) do update"+
			" set owner = excluded.owner, expires = excluded.expires where mutex.owner = excluded.owner or mutex.expires <= "+now,
			text(name), text(owner), lasts.Microseconds())
		locked = n > 0
		return err
	})
	return locked, err
}

// Unlock gives a lock back. One that is not the owner's any more stays.
func (db *DB) Unlock(ctx context.Context, name, owner string) error {
	return db.write(ctx, "unlock", func(ctx context.Context, w *writer) error {
		_, err := w.exec(ctx, "delete from mutex where name = ? and owner = ?", text(name), text(owner))
		return err
	})
}

var tlsTable = newTable("tls_report", " on conflict (day, domain, digest) do update set sessions = tls_report.sessions + excluded.sessions",
	columns(number, "day"), columns(words, "domain"), columns(blob, "digest"), columns(words, "detail"), columns(number, "sessions"))

// CountTLS adds to the counts of sessions.
func (db *DB) CountTLS(ctx context.Context, counts []relay.TLSCount) error {
	// One row for each, however often it comes; in one order for all who write.
	sums := map[relay.TLSCount]int64{}
	for _, c := range counts {
		n := c.Sessions
		c.Day, c.Domain, c.Detail, c.Sessions = relay.PerDay.Start(c.Day), text(c.Domain), text(c.Detail), 0
		sums[c] += n
	}
	keys := slices.SortedFunc(maps.Keys(sums), func(a, b relay.TLSCount) int {
		return cmp.Or(a.Day.Compare(b.Day), strings.Compare(a.Domain, b.Domain), strings.Compare(a.Detail, b.Detail))
	})
	rows := make([][]any, len(keys))
	for i, k := range keys {
		digest := sha256.Sum256([]byte(k.Detail))
		rows[i] = []any{micros(k.Day), k.Domain, digest[:], k.Detail, sums[k]}
	}
	return db.write(ctx, "count TLS sessions", func(ctx context.Context, w *writer) error { return w.insert(ctx, tlsTable, rows...) })
}

// TLSDomains gives the domains that have counts of that day.
func (db *DB) TLSDomains(ctx context.Context, day time.Time) (domains []string, err error) {
	err = db.read(ctx, "select distinct domain from tls_report where day = ? order by domain", func(row scanner) error {
		var d string
		err := row.Scan(&d)
		domains = append(domains, d)
		return err
	}, dayMicros(day))
	if err != nil {
		return nil, db.fail("read domains of TLS reports", err)
	}
	return domains, nil
}

// TLSCounts gives the counts of a domain of that day.
func (db *DB) TLSCounts(ctx context.Context, day time.Time, domain string) ([]*relay.TLSCount, error) {
	return collect(ctx, db, "read TLS report", func(row scanner) (*relay.TLSCount, error) {
		c := relay.TLSCount{Day: relay.PerDay.Start(day), Domain: domain}
		err := row.Scan(&c.Detail, &c.Sessions)
		return &c, err
	}, "select detail, sessions from tls_report where day = ? and domain = ? order by sessions desc, detail", dayMicros(day), text(domain))
}

// DropTLS removes the counts of a domain of that day and of days before it, when
// they are reported.
func (db *DB) DropTLS(ctx context.Context, day time.Time, domain string) error {
	return db.write(ctx, "drop TLS report", func(ctx context.Context, w *writer) error {
		_, err := w.exec(ctx, "delete from tls_report where day <= ? and domain = ?", dayMicros(day), text(domain))
		return err
	})
}
