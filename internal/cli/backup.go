package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"postrider/internal/api"
	"postrider/internal/daemon"
	"postrider/internal/store/sqlite"
)

func backupCommand() command {
	return command{name: "backup", args: "FILE", short: "copy the store into a file, while the relay runs or when it is stopped",
		example: `
postrider backup /var/backups/postrider-$(date +%F).db
postrider backup -data ./data copy.db`,
		run: runBackup}
}

func runBackup(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.flags(fs)
	quiet := fs.Bool("quiet", false, "print nothing unless it fails")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return badUsage(e, fs, "name the file to make")
	}
	file, err := filepath.Abs(rest[0])
	if err != nil {
		return err
	}
	c, err := p.load()
	if err != nil {
		return err
	}
	if c.Store.Shared() {
		return fmt.Errorf("this store is on a database server, which makes backups itself:\n  pg_dump --format=custom --file=%s %s", shellWord(file), shellWord(c.Store.String()))
	}
	meter := &meter{e: e, quiet: *quiet, told: time.Now()}
	err = api.NewClient(c.Data).Backup(ctx, file, meter.show)
	if errors.Is(err, api.ErrNoServer) {
		err = sqlite.Backup(ctx, filepath.Join(c.Data, daemon.StoreName), file, meter.show)
	}
	if err != nil {
		return err
	}
	if !*quiet {
		fmt.Fprintf(e.Stdout, "%s holds %s: all that was accepted before the call.\n", file, megabytes(meter.total))
	}
	return nil
}

// shellWord is s as one word of a shell command.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+=,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// meter shows how far a long work is, now and then.
type meter struct {
	e     *Env
	quiet bool
	told  time.Time
	total int64
}

func (m *meter) show(done, total int64) {
	m.total = total
	if !m.quiet && total > 0 && time.Since(m.told) > 2*time.Second {
		m.told = time.Now()
		fmt.Fprintf(m.e.Stderr, "%3d %%  %s of %s\n", done*100/total, megabytes(done), megabytes(total))
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func restoreCommand() command {
	return command{name: "restore", args: "FILE", short: "make a backup the store of a relay that is stopped",
		example: `
postrider restore /var/backups/postrider-2026-03-01.db
postrider restore -hold -force /var/backups/postrider-2026-03-01.db
postrider queue release -all`,
		run: runRestore}
}

func runRestore(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	var r sqlite.Restoring
	p.flags(fs)
	fs.BoolVar(&r.Force, "force", false, "put the store that is there aside; else it is an error if there is one")
	fs.BoolVar(&r.Hold, "hold", false, "put everything that waits on hold, to be released or cancelled with \"postrider queue\"")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return badUsage(e, fs, "name the backup")
	}
	c, err := p.load()
	if err != nil {
		return err
	}
	if c.Store.Shared() {
		return fmt.Errorf("this store is on a database server; stop all nodes, then\n  pg_restore --clean --if-exists --single-transaction --dbname=%s %s", shellWord(c.Store.String()), shellWord(rest[0]))
	}
	if err := daemon.MakeData(c.Data); err != nil {
		return err
	}
	r.Log = Logger(e.Stderr, c.Log)
	out, err := sqlite.Restore(ctx, rest[0], filepath.Join(c.Data, daemon.StoreName), r)
	if err != nil {
		return err
	}
	last := "nothing has happened in it yet"
	if !out.Last.IsZero() {
		last = "the last thing that happened in it was at " + stamp(out.Last)
	}
	fmt.Fprintf(e.Stdout, "Restored %d messages; %s.\n", out.Messages, last)
	if out.Aside != "" {
		fmt.Fprintf(e.Stdout, "The store that was there is now %s.\n", out.Aside)
	}
	switch {
	case out.Waiting == 0:
		fmt.Fprintln(e.Stdout, "Nothing waits to be delivered.")
	case r.Hold:
		fmt.Fprintf(e.Stdout, "%d deliveries waited when the backup was made, and are on hold. Some of them may have been delivered\n"+
			"since then: start the relay, look at them with \"postrider queue\", and release or cancel them.\n", out.Waiting)
	default:
		fmt.Fprintf(e.Stdout, "%d deliveries waited when the backup was made. Those that were delivered since then are delivered once\n"+
			"more when the relay starts: the backup knows nothing of it. To decide yourself, restore with -force -hold first.\n", out.Waiting)
	}
	return nil
}
