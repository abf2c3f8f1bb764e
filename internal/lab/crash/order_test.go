package crash

import (
	"strings"
	"testing"
)

// What a server and the relay do, as strace writes it.
const (
	sentCall = `21  22:16:02.000001 write(11<TCP:[127.0.0.1:58550->127.0.0.1:5432]>, "P\0\0\0\207\0insert this-is-the-message-that-must-not-be-lost", 300) = 300
`
	walCall = `31  22:16:02.000002 pwrite64(28</d/pg_wal/000000010000000000000001>, "\20\321\5\0this-is-the-message-that-must-not-be-lost\r\n", 8192, 0) = 8192
`
	walSync   = "31  22:16:02.000003 fdatasync(28</d/pg_wal/000000010000000000000001>) = 0\n"
	walAgain  = "31  22:16:02.000004 pwrite64(28</d/pg_wal/000000010000000000000001>, \"commit\", 8192, 8192) = 8192\n"
	otherSend = "32  22:16:02.000005 sendto(6<TCP:[127.0.0.1:5432->127.0.0.1:58552]>, \"C\\0\\0\\0\\vCOMMIT\\0Z\\0\\0\\0\\5I\", 17, 0, NULL, 0) = 17\n"
	sendCall  = "31  22:16:02.000006 sendto(6<TCP:[127.0.0.1:5432->127.0.0.1:58550]>, \"C\\0\\0\\0\\vCOMMIT\\0Z\\0\\0\\0\\5I\", 17, 0, NULL, 0) = 17\n"
	reply250  = "22  22:16:02.000007 write(20<TCP:[127.0.0.1:2525->127.0.0.2:4000]>, \"250 2.0.0 Ok: queued as 06h00bj6snsgfep95yd0he7zsw\\r\\n\", 52) = 52\n"
)

func TestOrderPostgres(t *testing.T) {
	const late = "before its commit is synced"
	for name, c := range map[string]struct{ trace, problem string }{
		"good":              {sentCall + walCall + walSync + sendCall + reply250, ""},
		"good, two writes":  {sentCall + walCall + walSync + walAgain + walSync + sendCall + reply250, ""},
		"good, by another":  {sentCall + walCall + strings.Replace(walSync, "31", "33", 1) + otherSend + sendCall + reply250, ""},
		"no sync":           {sentCall + walCall + sendCall + reply250, late},
		"sync too late":     {sentCall + walCall + sendCall + walSync + reply250, late},
		"sync too early":    {sentCall + walSync + walCall + sendCall + reply250, late},
		"written too late":  {sentCall + sendCall + walCall + walSync + reply250, late},
		"half of it synced": {sentCall + walCall + walSync + walAgain + sendCall + reply250, late},
		"sync fails":        {sentCall + walCall + strings.Replace(walSync, "= 0", "= -1 EIO (Input/output error)", 1) + sendCall + reply250, late},
		"250 too early":     {sentCall + walCall + walSync + reply250 + sendCall, late},
		"another's commit":  {sentCall + walCall + walSync + otherSend + reply250, "not committed"},
		"not written yet":   {sentCall + walSync + sendCall + reply250, late},
		"no message":        {sentCall + walSync + sendCall, "not written"},
		"not sent":          {walCall + walSync + sendCall + reply250, "not sent"},
		"no reply":          {sentCall + walCall + walSync + sendCall, "not acknowledged"},
	} {
		t.Run(name, func(t *testing.T) {
			calls, err := parseTrace(strings.NewReader(c.trace))
			if err != nil {
				t.Fatal(err)
			}
			told, err := orderPostgres(calls, "127.0.0.1:5432")
			switch {
			case c.problem == "" && (err != nil || len(told) != 4):
				t.Errorf("got %v after %q", err, told)
			case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
				t.Errorf("got %v, want %q", err, c.problem)
			}
		})
	}
}
