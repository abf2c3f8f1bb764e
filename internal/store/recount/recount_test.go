package recount

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// Each thing that may go wrong with counts is found.
func TestCheck(t *testing.T) {
	const tables = `create table event (at, account, kind, detail, message, n);
create table message (id, stream, credential, received, header_from, sender, tags, params);
create table rollup (account, at, stream, kind, mark, latency, credential, category, provider, sending, source, tag, count);
create table tally (account, day, kind, count);
insert into message values (x'01', 1, x'02', 7200000000, 'a@X.test', '', char(10) || 'shop' || char(10), '{}');
insert into event values (7200000000, x'03', 1, null, x'01', 1);
insert into event values (7200000000, x'03', 4, '{"diagnosis":{"category":"hard"},"attempt":{"source":"192.0.2.1"},"provider":"P"}', x'01', 1);
insert into event values (7200000000, x'03', 12, '{"source":"192.0.2.1","mark":3}', x'01', 1);
insert into rollup values (x'03', 7200000000, 1, 1, 0, 0, x'02', '', '', 'x.test', '', '', 1), (x'03', 7200000000, 1, 1, 0, 0, x'02', '', '', 'x.test', '', 'shop', 1),
 (x'03', 7200000000, 1, 4, 0, 0, x'02', 'hard', 'P', 'x.test', '192.0.2.1', '', 1), (x'03', 7200000000, 1, 4, 0, 0, x'02', 'hard', 'P', 'x.test', '192.0.2.1', 'shop', 1),
 (x'03', 7200000000, 1, 12, 3, 0, x'02', '', '', 'x.test', '192.0.2.1', '', 1), (x'03', 7200000000, 1, 12, 3, 0, x'02', '', '', 'x.test', '192.0.2.1', 'shop', 1);
insert into tally values (x'03', 0, 4, 1), (x'03', 0, 12, 1);`
	for name, c := range map[string]struct {
		damage string
		wrong  int
	}{
		"in order":                 {"", 0},
		"one too many":             {"update rollup set count = 2 where kind = 1 and tag = ''", 1},
		"one too few":              {"delete from rollup where kind = 4 and tag = 'shop'", 1},
		"in another hour":          {"update rollup set at = 3600000000 where kind = 4 and tag = ''", 2},
		"an event that is missing": {"delete from event where kind = 4", 3},
		"a day that is wrong":      {"update tally set count = 5 where kind = 4", 1},
		"no first one":             {`update event set detail = '{"source":"192.0.2.1"}' where kind = 12; update rollup set mark = 0 where kind = 12`, 2},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "x.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for s := range strings.SplitSeq(tables+c.damage, ";") {
				if _, err := db.Exec(s); err != nil {
					t.Fatalf("%s: %v", s, err)
				}
			}
			r, err := Check(t.Context(), db, time.Hour)
			if err != nil || r.Wrong != c.wrong || r.Events == 0 {
				t.Errorf("%+v, %v; want %d wrong", r, err, c.wrong)
			}
		})
	}
}
