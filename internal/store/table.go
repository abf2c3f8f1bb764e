package store

import (
	"context"
	"strings"
)

// kind is the type of a column.
type kind byte

const (
	blob   kind = iota // []byte, or nil
	words              // string
	number             // int64
)

// column of a table, or of rows that a statement is fed with.
type column struct {
	name string
	kind kind
}

func columns(k kind, names string) (c []column) {
	for name := range strings.FieldsSeq(names) {
		c = append(c, column{name, k})
	}
	return c
}

func names(columns []column) []string {
	all := make([]string, len(columns))
	for i, c := range columns {
		all[i] = c.name
	}
	return all
}

// table is what rows are inserted into. Rows have values in the order of the
// columns.
type table struct {
	columns []column
	one     string // inserts one row
	many    string // inserts rows that come as an array for each column
}

func newTable(name, tail string, sets ...[]column) *table {
	var all []column
	for _, s := range sets {
		all = append(all, s...)
	}
	into := "insert into " + name + " (" + strings.Join(names(all), ", ") + ") "
	return &table{columns: all, one: into + "values (?" + strings.Repeat(", ?", len(all)-1) + ")" + tail,
		many: into + "select * from " + unnested(all) + tail}
}

// unnested gives the rows of arrays, one array for each column, in the order of
// their elements.
func unnested(columns []column) string {
	types := map[kind]string{blob: "bytea[]", words: "text[]", number: "bigint[]"}
	arrays := make([]string, len(columns))
	for i, c := range columns {
		arrays[i] = "cast(? as " + types[c.kind] + ")"
	}
	return "unnest(" + strings.Join(arrays, ", ") + ")"
}

// arrays turns rows into an array for each column.
func arrays(columns []column, rows [][]any) []any {
	args := make([]any, len(columns))
	for i, c := range columns {
		switch c.kind {
		case blob:
			args[i] = array[[]byte](rows, i)
		case words:
			args[i] = array[string](rows, i)
		case number:
			args[i] = array[int64](rows, i)
		}
	}
	return args
}

func array[T any](rows [][]any, i int) []T {
	values := make([]T, len(rows))
	for n, row := range rows {
		if row[i] != nil { // nil stands for none
			values[n] = row[i].(T)
		}
	}
	return values
}

// insert inserts rows: all at once where the engine takes arrays.
func (w *writer) insert(ctx context.Context, t *table, rows ...[]any) error {
	if len(rows) == 0 {
		return nil
	}
	if w.dialect.Arrays {
		return w.send(ctx, t.many, arrays(t.columns, rows)...)
	}
	for _, row := range rows {
		if _, err := w.exec(ctx, t.one, row...); err != nil {
			return err
		}
	}
	return nil
}
