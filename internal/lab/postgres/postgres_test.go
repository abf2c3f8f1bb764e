package postgres

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestServer takes a server through its life: what is committed outlives a stop
// and a kill, and nothing of it stays behind.
func TestServer(t *testing.T) {
	s, err := New(t.Context(), Options{Settings: []string{"work_mem = 1MB"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	var url string
	if url, err = s.NewDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if other, err := s.NewDatabase(t.Context()); err != nil || other == url {
		t.Fatalf("a second database is %s %v", other, err)
	}
	query(t, url, "create table t (n bigint)")
	for setting, want := range map[string]string{"fsync": "on", "synchronous_commit": "on", "work_mem": "1MB"} {
		if got := query(t, url, "show "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
	for i, end := range []func() error{s.Stop, s.Kill, s.Kill} {
		query(t, url, "insert into t select count(*) from t")
		pid := s.process.cmd.Process.Pid
		children := childrenOf(pid)
		if len(children) == 0 {
			t.Error("the server has no children")
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		for _, p := range append(children, pid) {
			if alive(p) {
				t.Errorf("end %d: process %d lives", i, p)
			}
		}
		if conn, err := pgx.Connect(t.Context(), url); err == nil {
			conn.Close(t.Context())
			t.Errorf("end %d: the server still answers", i)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := query(t, url, "select max(n)::text from t"); got != string(rune('0'+i)) {
			t.Errorf("end %d: row %s is the last", i, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.folder); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}

// TestStandby kills a server: what it committed is on its standby.
func TestStandby(t *testing.T) {
	s := Run(t, Options{})
	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	query(t, s.URL(), "create table t (n bigint)")
	query(t, s.URL(), "insert into t values (7)")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query(t, standby.URL(), "select n::text from t"); got != "7" {
		t.Errorf("the standby has %q", got)
	}
	query(t, standby.URL(), "insert into t values (8)")
}

func TestBouncer(t *testing.T) {
	s := Run(t, Options{Unsynced: true})
	if got := query(t, s.URL(), "show fsync"); got != "off" {
		t.Errorf("fsync is %s", got)
	}
	b := s.Bouncer(t)
	url, err := s.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := query(t, b.URL(url), "select current_database()::text"); got != "db1" {
		t.Errorf("the bouncer leads to %q", got)
	}
	if got := query(t, b.URL("postgres://postgres@"+s.addr+"/pgbouncer?sslmode=disable&default_query_exec_mode=simple_protocol"), "show version"); got == "" {
		t.Error("that is no bouncer")
	}
}

// query gives the first column of the first row.
func query(t *testing.T, url, text string) (first string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&first); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return first
}
