package sqlite

import (
	"context"
	"database/sql"
	"os"
)

// disk knows how much room there is for mail. New messages leave a reserve
// free: what becomes of the mail that is there must still be written when the
// disk is full, or the relay could never make room by delivering.
type disk struct {
	path  string // of the database
	space spaceOf
}

// spaceOf tells how many bytes the disk of path has, and how many of them are
// free.
type spaceOf func(path string) (free, total int64, err error)

// maxReserve is what is left free for outcomes, in bytes: room for a hundred
// thousand of them. On small disks it is a tenth of the disk.
const maxReserve = 256 << 20

// room tells whether n more bytes of mail can be taken. Where the system does
// not say how full the disk is, there is room until a write fails.
func (d disk) room(ctx context.Context, db *sql.DB, n int64) bool {
	free, total, err := d.space(d.path)
	if err != nil {
		return true
	}
	reserve := reserve(total)
	// What is in the log has to move into the file, which may grow by as much.
	var log int64
	if i, err := os.Stat(d.path + "-wal"); err == nil {
		log = i.Size()
	}
	if free >= reserve+log+n {
		return true
	}
	// The file may have room inside; the log must have it outside.
	return free >= reserve/2+n && free+unused(ctx, db) >= reserve+log+n
}

// reserve is what is left free on a disk of so many bytes.
func reserve(total int64) int64 { return min(total/10, maxReserve) }

// unused is how many bytes of the file nothing is kept in.
func unused(ctx context.Context, db *sql.DB) int64 {
	var pages, size int64
	if db.QueryRowContext(ctx, "pragma freelist_count").Scan(&pages) != nil || db.QueryRowContext(ctx, "pragma page_size").Scan(&size) != nil {
		return 0
	}
	return pages * size
}
