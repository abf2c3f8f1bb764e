package store

import (
	"bytes"
	"testing"
	"time"

	"postrider/internal/relay"
)

func TestRebind(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"begin":                     "begin",
		"select ? where a = ? or ?": "select $1 where a = $2 or $3",
		contentTable.one:            "insert into content (message, part, bytes) values ($1, $2, $3)",
	} {
		if got := (&Dialect{Numbered: true}).rebind(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
		if got := (&Dialect{}).rebind(in); got != in {
			t.Errorf("%q became %q without need", in, got)
		}
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":             "",
		"Grüße 🐎\r\n":  "Grüße 🐎\r\n",
		"a\x00b":       "a\uFFFDb",
		"\xff\xfea":    "\uFFFDa",
		"\xe4\x00\xe4": "\uFFFD\uFFFD\uFFFD",
	} {
		if got := text(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestMicros(t *testing.T) {
	for _, in := range []time.Time{{}, time.UnixMicro(1).UTC(), time.UnixMicro(-1).UTC(), time.Date(9999, 1, 1, 0, 0, 0, 1000, time.UTC)} {
		if got := fromMicros(micros(in)); got != in {
			t.Errorf("%v came back as %v", in, got)
		}
	}
}

func TestIDAt(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7e6, time.UTC)
	id := idAt(at)
	if !id.Time().Equal(at) {
		t.Errorf("the id of %v has the time %v", at, id.Time())
	}
	before := idAt(at.Add(-time.Millisecond))
	if bytes.Compare(before[:], id[:]) >= 0 {
		t.Error("an earlier id is not smaller")
	}
	if early := idAt(time.Time{}); early != (relay.ID{}) {
		t.Errorf("before 1970: %v", early)
	}
}

func TestMigrationTexts(t *testing.T) {
	if _, err := migrationTexts(); err != nil {
		t.Error(err)
	}
}
