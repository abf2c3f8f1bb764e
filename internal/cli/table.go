package cli

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"

	"postrider/internal/api"
)

// printList prints all of a list: as a table, or one JSON object a line. Columns
// are separated by tabs.
func printList[T any](ctx context.Context, e *Env, c *api.Client, path string, q url.Values, asJSON bool, head string, row func(T) []string) error {
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	n := 0
	err := api.All(ctx, c, path, q, func(v T) error {
		if asJSON {
			return printLine(e.Stdout, v)
		}
		if n++; n == 1 {
			fmt.Fprintln(w, head)
		}
		columns := row(v)
		for i := range columns {
			columns[i] = clean(columns[i])
		}
		fmt.Fprintln(w, strings.Join(columns, "\t"))
		return nil
	})
	if err != nil {
		return err
	}
	if n == 0 && !asJSON {
		fmt.Fprintln(e.Stderr, "There is none.")
	}
	return w.Flush()
}

// verbs are what a command can do: with how many words after the verb, and how it
// is told where they are wrong.
type verbs map[string]int

// of gives the verb and the words after it.
func (v verbs) of(rest []string) (verb string, words []string, ok bool) {
	if len(rest) == 0 {
		return "", nil, false
	}
	n, known := v[rest[0]]
	if !known || n >= 0 && len(rest)-1 != n || n < 0 && len(rest) < 2 {
		return "", nil, false
	}
	return rest[0], rest[1:], true
}

// printTable prints what is there at once.
func printTable[T any](e *Env, head string, all []T, row func(T) []string) error {
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, v := range all {
		columns := row(v)
		for i := range columns {
			columns[i] = clean(columns[i])
		}
		fmt.Fprintln(w, strings.Join(columns, "\t"))
	}
	return w.Flush()
}

// where is a path with a name in it.
func where(path, name string) string { return path + "/" + url.PathEscape(name) }
