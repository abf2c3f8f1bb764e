package smtp

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseCommand(t *testing.T) {
	for in, want := range map[string]struct {
		verb Verb
		args string
	}{
		"EHLO mx.example":       {EHLO, "mx.example"},
		"ehlo  mx.example ":     {EHLO, "mx.example"},
		"Mail FROM:<a@b.c>":     {MAIL, "FROM:<a@b.c>"},
		"STARTTLS":              {STARTTLS, ""},
		"QUIT ":                 {QUIT, ""},
		"GET / HTTP/1.1":        {HTTP, "/ HTTP/1.1"},
		"MAILX FROM:<a@b.c>":    {Unknown, "FROM:<a@b.c>"},
		"XCLIENT ADDR=10.0.0.1": {Unknown, "ADDR=10.0.0.1"},
		"":                      {Unknown, ""},
		" QUIT":                 {Unknown, "QUIT"},
	} {
		if v, args := ParseCommand([]byte(in)); v != want.verb || string(args) != want.args {
			t.Errorf("ParseCommand(%q) = %d, %q", in, v, args)
		}
	}
	line := []byte("RCPT TO:<a@b.c> NOTIFY=NEVER")
	if n := testing.AllocsPerRun(100, func() { ParseCommand(line) }); n != 0 {
		t.Errorf("ParseCommand allocates %v times", n)
	}
}

func TestParseMail(t *testing.T) {
	joe := Address{"joe", "example.com"}
	for in, want := range map[string]Mail{
		"FROM:<joe@example.com>":     {From: joe},
		"from: joe@example.com":      {From: joe},
		"FROM:<>":                    {},
		"FROM:<> SIZE=100 BODY=7bit": {Size: 100, Body: "7BIT"},
		"FROM:<joe@example.com>  SIZE=99999999999999999999  BODY=8BITMIME": {From: joe, Size: math.MaxInt64, Body: "8BITMIME"},
		"FROM:<joe@example.com> RET=hdrs ENVID=a+2Bb REQUIRETLS":           {From: joe, Ret: "HDRS", EnvID: "a+b", RequireTLS: true},
		"FROM:<joe@example.com> AUTH=<>":                                   {From: joe, Auth: "<>"},
		"FROM:<joe@example.com> AUTH=e+3Dmc2@example.com":                  {From: joe, Auth: "e=mc2@example.com"},
		"FROM:<joe@example.com> HOLDFOR=60 MT-PRIORITY=-3":                 {From: joe, HoldFor: time.Minute, Priority: -3},
		"FROM:<joe@example.com> HOLDUNTIL=2030-01-31T12:00:00Z":            {From: joe, HoldUntil: time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)},
		"FROM:<jö@example.com> SMTPUTF8":                                   {From: Address{"jö", "example.com"}, UTF8: true},
	} {
		got, err := ParseMail([]byte(in))
		if err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("ParseMail(%q): %v\n%s", in, err, cmp.Diff(want, got))
		}
	}
	for in, want := range map[string]string{
		"<joe@example.com>":                                               "501 5.5.4",
		"FROM <joe@example.com>":                                          "501 5.5.4",
		"FROM:joe":                                                        "553 5.1.7",
		"FROM:<joe@example.com> SIZE":                                     "501 5.5.4",
		"FROM:<joe@example.com> SIZE=-1":                                  "501 5.5.4",
		"FROM:<joe@example.com> SIZE=1 size=2":                            "501 5.5.4",
		"FROM:<joe@example.com> BODY=9BIT":                                "501 5.5.4",
		"FROM:<joe@example.com> RET=BODY":                                 "501 5.5.4",
		"FROM:<joe@example.com> ENVID=a+0Db":                              "501 5.5.4",
		"FROM:<joe@example.com> ENVID=" + strings.Repeat("a", 101):        "501 5.5.4",
		"FROM:<joe@example.com> HOLDFOR=1 HOLDUNTIL=2030-01-31T12:00:00Z": "501 5.5.4",
		"FROM:<joe@example.com> HOLDUNTIL=tomorrow":                       "501 5.5.4",
		"FROM:<joe@example.com> MT-PRIORITY=10":                           "501 5.5.4",
		"FROM:<joe@example.com> MT-PRIORITY=+1":                           "501 5.5.4",
		"FROM:<joe@example.com> REQUIRETLS=yes":                           "501 5.5.4",
		"FROM:<joe@example.com> XFOO=1":                                   "555 5.5.4",
		"FROM:<joe@example.com> =1":                                       "501 5.5.4",
		"FROM:<jö@example.com>":                                           "553 5.6.7",
	} {
		wantReply(t, in, want, func() error { _, err := ParseMail([]byte(in)); return err })
	}
}

func TestParseRcpt(t *testing.T) {
	joe := Address{"joe", "example.com"}
	for in, want := range map[string]Rcpt{
		"TO:<joe@example.com>":                                     {To: joe},
		"to:joe@example.com NOTIFY=success,Delay":                  {To: joe, Notify: NotifySuccess | NotifyDelay},
		"TO:<joe@example.com> NOTIFY=NEVER ORCPT=rfc822;a+2Bb@c.d": {To: joe, Notify: NotifyNever, ORcpt: "rfc822;a+b@c.d"},
		`TO:<joe@example.com> ORCPT=utf-8;j\x{F6}@c.d`:             {To: joe, ORcpt: "utf-8;jö@c.d"},
	} {
		got, err := ParseRcpt([]byte(in), false)
		if err != nil || got != want {
			t.Errorf("ParseRcpt(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"TO:<>":                  "553 5.1.3",
		"TO:<postmaster>":        "553 5.1.3",
		"FROM:<joe@example.com>": "501 5.5.4",
		"TO:<jö@example.com>":    "553 5.6.7",
		"TO:<joe@example.com> NOTIFY=NEVER,DELAY":    "501 5.5.4",
		"TO:<joe@example.com> NOTIFY=ALWAYS":         "501 5.5.4",
		"TO:<joe@example.com> ORCPT=joe":             "501 5.5.4",
		"TO:<joe@example.com> ORCPT=rfc822;a+0D+0Ab": "501 5.5.4",
		"TO:<joe@example.com> SIZE=1":                "555 5.5.4",
	} {
		wantReply(t, in, want, func() error { _, err := ParseRcpt([]byte(in), false); return err })
	}
}

func TestParseBdat(t *testing.T) {
	if n, last, err := ParseBdat([]byte("86 LAST")); n != 86 || !last || err != nil {
		t.Error(n, last, err)
	}
	if n, last, err := ParseBdat([]byte("0")); n != 0 || last || err != nil {
		t.Error(n, last, err)
	}
	for _, in := range []string{"", "LAST", "-1", "+1", "1 FIRST", "9999999999999999999", "1 LAST LAST"} {
		wantReply(t, in, "501 5.5.4", func() error { _, _, err := ParseBdat([]byte(in)); return err })
	}
}

func wantReply(t *testing.T, in, want string, parse func() error) {
	t.Helper()
	var r Reply
	if err := parse(); !errors.As(err, &r) || !strings.HasPrefix(r.String(), want+" ") {
		t.Errorf("%q: got %v, want %s", in, err, want)
	}
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{"MAIL FROM:<a@b.c> SIZE=1 RET=FULL ENVID=x", "RCPT TO:<a@b.c> NOTIFY=NEVER ORCPT=rfc822;x",
		`RCPT TO:<"x"@b.c> ORCPT=utf-8;\x{F6}`, "BDAT 1 LAST", "MAIL FROM:<> HOLDFOR=1 MT-PRIORITY=-9 REQUIRETLS"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		v, args := ParseCommand(line)
		var err error
		switch v {
		case MAIL:
			var m Mail
			m, err = ParseMail(args)
			if strings.ContainsAny(m.EnvID+m.Auth+m.From.String(), "\r\n\x00") || m.Size < 0 || m.HoldFor < 0 || m.Priority < -9 || m.Priority > 9 {
				t.Fatalf("%q gives %+v", line, m)
			}
		case RCPT:
			var r Rcpt
			r, err = ParseRcpt(args, true)
			if strings.ContainsAny(r.ORcpt+r.To.String(), "\r\n\x00") || err == nil && r.To.IsZero() {
				t.Fatalf("%q gives %+v", line, r)
			}
		case BDAT:
			var n int64
			if n, _, err = ParseBdat(args); n < 0 {
				t.Fatalf("%q gives %d", line, n)
			}
		}
		var r Reply
		if err != nil && (!errors.As(err, &r) || !r.Permanent()) {
			t.Fatalf("%q: the error is no reply: %v", line, err)
		}
	})
}
