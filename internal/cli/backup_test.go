package cli

import (
	"net/smtp"
	"os"
	"path/filepath"
	"testing"

	"postrider/internal/config"
	"postrider/internal/lab"
)

// The relay that runs makes the backup; a stopped one's store is copied by the
// command itself; and either is restored, with the mail that waits in it.
func TestBackupAndRestore(t *testing.T) {
	r := lab.StartRelay(t, func(c *config.Config) {
		c.Route = []config.Route{{Domain: "*", To: "127.0.0.1:1"}} // nobody listens: the mail waits
	})
	c, err := smtp.Dial(r.Addr("plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Auth(smtp.PlainAuth("", r.User, r.Password, "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"ann@x.test", "bob@y.test"} {
		if err := c.Mail("me@z.test"); err != nil {
			t.Fatal(err)
		}
		if err := c.Rcpt(to); err != nil {
			t.Fatal(err)
		}
		w, err := c.Data()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	folder := t.TempDir()
	live, cold := filepath.Join(folder, "live.db"), filepath.Join(folder, "cold.db")
	want(t, ok(t, "backup", "-data", r.Dir, live), live, "MB")
	_, errs, status := call(t, "", "backup", "-data", r.Dir, live)
	if status != 1 {
		t.Errorf("over a file: status %d", status)
	}
	want(t, errs, "already", "overwrites nothing")
	_, errs, status = call(t, "", "backup", "-data", r.Dir, filepath.Join(folder, "none", "x.db"))
	if status != 1 {
		t.Errorf("into no folder: status %d", status)
	}
	want(t, errs, "can't be made", "folder")
	_, errs, status = call(t, "", "restore", "-force", "-data", r.Dir, live)
	if status != 1 {
		t.Errorf("under a relay that runs: status %d", status)
	}
	want(t, errs, "Another Postrider")

	data := filepath.Join(t.TempDir(), "new", "data")
	want(t, ok(t, "restore", "-data", data, live), "Restored 2 messages", "2 deliveries waited", "delivered once\nmore")
	want(t, ok(t, "backup", "-data", data, cold), cold)
	want(t, ok(t, "restore", "-data", data, "-force", "-hold", cold), "2 deliveries waited", "are on hold", "before-restore")
	if _, errs, status := call(t, "", "restore", "-data", data, filepath.Join(folder, "none")); status != 1 {
		t.Errorf("status %d, %s", status, errs)
	}
}

// On a database server its own tools are named, without the password.
func TestBackupOnServer(t *testing.T) {
	if got := shellWord("it's"); got != `'it'\''s'` {
		t.Error(got)
	}
	file := filepath.Join(t.TempDir(), "p.toml")
	if err := os.WriteFile(file, []byte("store = \"postgres://relay:secret@db.test/mail\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs, status := call(t, "", "backup", "-config", file, "x.db")
	if status != 1 {
		t.Errorf("status %d", status)
	}
	want(t, errs, "pg_dump", "postgres://relay@db.test/mail", "x.db")
	_, errs, _ = call(t, "", "restore", "-config", file, "x.db")
	want(t, errs, "pg_restore", "x.db")
}
