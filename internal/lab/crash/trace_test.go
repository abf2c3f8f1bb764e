package crash

import (
	"strings"
	"testing"
)

// The parts of a trace, as strace writes it.
const (
	pageCalls = `10  22:16:02.000001 pwrite64(11</d/postrider.db-wal>, "\0\0\0\17\0\0\0\0\343q\35a\254l\301\3\6x\24FL\336\376x", 24, 0) = 24
10  22:16:02.000002 pwrite64(11</d/postrider.db-wal>, "\n\0this-is-the-message-that-must-not-be-lost\r\n"..., 8192, 24) = 8192
`
	commitCalls = `10  22:16:02.000003 pwrite64(11</d/postrider.db-wal>, "\0\0\0\23\0\0\0\25\343q\35a\254l\301\3\375\373\220G>\336\251^", 24, 8216) = 24
12  22:16:02.000004 pwrite64(11</d/postrider.db>, "other", 5, 0) = 5
10  22:16:02.000005 pwrite64(11</d/postrider.db-wal>, "\n\0\"\\) = 0 "..., 8192, 8240) = 8192
`
	syncCall  = "10  22:16:02.000006 fsync(11</d/postrider.db-wal>) = 0\n"
	replyCall = `11  22:16:02.000007 write(20<socket:[4711]>, "250 2.0.0 Ok: queued as 06h00bj6snsgfep95yd0he7zsw\r\n", 52) = 52
`
	noise = `12  22:16:02.000008 --- SIGURG {si_signo=SIGURG, si_code=SI_TKILL} ---
12  22:16:02.000009 +++ exited with 0 +++
`
	syncBegins = "10  22:16:02.000006 fsync(11</d/postrider.db-wal> <unfinished ...>\n"
	syncEnds   = "10  22:16:02.000010 <... fsync resumed>) = 0\n"
	syncFails  = "10  22:16:02.000006 fsync(11</d/postrider.db-wal>) = -1 EIO (Input/output error)\n"
	otherSync  = "10  22:16:02.000006 fsync(11</d/postrider.db>) = 0\n"
)

func TestOrderSQLite(t *testing.T) {
	for name, c := range map[string]struct{ trace, problem string }{
		"good":              {pageCalls + commitCalls + noise + syncCall + replyCall, ""},
		"good, interleaved": {pageCalls + commitCalls + syncBegins + noise + syncEnds + replyCall, ""},
		"no sync":           {pageCalls + commitCalls + replyCall, "before its commit is synced"},
		"sync too late":     {pageCalls + commitCalls + replyCall + syncCall, "before its commit is synced"},
		"sync ends late":    {pageCalls + commitCalls + syncBegins + replyCall + syncEnds, "before its commit is synced"},
		"sync never ends":   {pageCalls + commitCalls + syncBegins + replyCall, "before its commit is synced"},
		"sync too early":    {pageCalls + syncCall + commitCalls + replyCall, "before its commit is synced"},
		"sync fails":        {pageCalls + commitCalls + syncFails + replyCall, "before its commit is synced"},
		"another's sync":    {pageCalls + commitCalls + otherSync + replyCall, "before its commit is synced"},
		"no commit":         {pageCalls + syncCall + replyCall, "not committed"},
		"no message":        {commitCalls + syncCall + replyCall, "not written"},
		"no reply":          {pageCalls + commitCalls + syncCall, "not acknowledged"},
		"cut off":           {pageCalls + strings.SplitAfter(commitCalls, "\n")[0], "no page"},
	} {
		t.Run(name, func(t *testing.T) {
			calls, err := parseTrace(strings.NewReader(c.trace))
			if err != nil {
				t.Fatal(err)
			}
			told, err := orderSQLite(calls)
			switch {
			case c.problem == "" && (err != nil || len(told) != 4):
				t.Errorf("got %v after %q", err, told)
			case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
				t.Errorf("got %v, want %q", err, c.problem)
			}
		})
	}
}

func TestParseTrace(t *testing.T) {
	calls, err := parseTrace(strings.NewReader(commitCalls + syncBegins + syncEnds))
	if err != nil || len(calls) != 4 {
		t.Fatalf("got %+v, %v", calls, err)
	}
	if c := calls[0]; c.data != "\x00\x00\x00\x13\x00\x00\x00\x15\xe3q\x1da\xacl\xc1\x03\xfd\xfb\x90G>\xde\xa9^" || c.result != "24" {
		t.Errorf("got %+v", c)
	}
	if c := calls[2]; c.data != "\n\x00\"\\) = 0 " || c.result != "8192" || c.file != "/d/postrider.db-wal" {
		t.Errorf("got %+v", c)
	}
	if c := calls[3]; c.begin != 3 || c.end != 4 || c.result != "0" {
		t.Errorf("got %+v", c)
	}
}
