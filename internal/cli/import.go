package cli

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"time"

	"postrider/internal/api"
	"postrider/internal/relay"
	"postrider/internal/suppression"
)

const (
	importBatch = 5000 // lines in one request
	importTold  = 20   // problems that are told
	importEvery = 20   // requests between words on how far it is
)

// Imported is what became of a list.
type Imported struct {
	Lines    int64    `json:"lines"`
	Added    int64    `json:"added"`
	Known    int64    `json:"known"` // suppressed before
	Refused  int64    `json:"refused"`
	Problems []string `json:"problems,omitempty"` // the first ones
}

func (i *Imported) refuse(line int, why string) {
	i.Refused++
	if len(i.Problems) < importTold {
		i.Problems = append(i.Problems, fmt.Sprintf("line %d: %s", line, why))
	}
}

// ofTheLines tells whether a refusal is one that smaller parts may not have.
func ofTheLines(err error) bool {
	var refusal *api.Refusal
	return errors.As(err, &refusal) && slices.Contains([]relay.Code{relay.Invalid, relay.BadAddress, relay.TooLarge}, relay.Code(refusal.Code))
}

// importer sends a list in parts.
type importer struct {
	client *api.Client
	done   Imported
	batch  []api.NewSuppression
	lines  []int // of the batch
}

// send sends part of the batch. Where the server refuses it, it is halved until only
// the line at fault is left out.
func (m *importer) send(ctx context.Context, batch []api.NewSuppression, lines []int) error {
	if len(batch) == 0 {
		return nil
	}
	var out api.AddedSuppressions
	err := m.client.Post(ctx, "/v1/suppressions", api.NewSuppressions{Data: batch}, &out)
	switch {
	case err == nil:
		m.done.Added += out.Added
		m.done.Known += int64(len(batch)) - out.Added
		return nil
	case !ofTheLines(err):
		return err
	case len(batch) == 1:
		m.done.refuse(lines[0], err.Error())
		return nil
	}
	half := len(batch) / 2
	if err := m.send(ctx, batch[:half], lines[:half]); err != nil {
		return err
	}
	return m.send(ctx, batch[half:], lines[half:])
}

func (m *importer) flush(ctx context.Context) error {
	err := m.send(ctx, m.batch, m.lines)
	m.batch, m.lines = m.batch[:0], m.lines[:0]
	return err
}

// broken says how far it came before an error.
func (m *importer) broken(err error) error {
	done := m.done.Added + m.done.Known + m.done.Refused
	if done == 0 {
		return err
	}
	return fmt.Errorf("broken off after %d lines (%d added, %d known before, %d refused); import the list again, which adds nothing twice: %w",
		done, m.done.Added, m.done.Known, m.done.Refused, err)
}

// importSuppressions reads a list from a file, or standard input, a line at a time.
// What it sent stays, whatever comes later: doing it again adds nothing twice.
func importSuppressions(ctx context.Context, e *Env, c *api.Client, file string, usual api.NewSuppression, asJSON bool) error {
	in := io.Reader(e.Stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("open list: %w", err)
		}
		defer f.Close()
		in = f
	}
	list, err := suppression.NewReader(in, usual.Reason)
	if err != nil {
		return err
	}
	m := importer{client: c}
	for requests := 0; ; {
		s, line, err := list.Next()
		var bad *suppression.BadLine
		switch {
		case errors.As(err, &bad):
			m.done.Lines++
			m.done.refuse(line, bad.Why)
			continue
		case errors.Is(err, io.EOF):
			if err := m.flush(ctx); err != nil {
				return m.broken(err)
			}
			return tellImported(e, &m.done, asJSON)
		case err != nil:
			return m.broken(fmt.Errorf("read list: %w", err))
		}
		m.done.Lines++
		if !s.Expires.IsZero() && s.Expires.Before(time.Now()) {
			m.done.refuse(line, fmt.Sprintf("the suppression of %s ended on %s", s.Address, s.Expires.Format(time.DateOnly)))
			continue
		}
		n := api.NewSuppression{Address: s.Address, Stream: usual.Stream, Reason: s.Reason, Note: s.Note, Created: s.Created, Expires: s.Expires}
		if s.Stream != 0 {
			n.Stream = s.Stream.String()
		}
		if m.batch, m.lines = append(m.batch, n), append(m.lines, line); len(m.batch) < importBatch {
			continue
		}
		if err := m.flush(ctx); err != nil {
			return m.broken(err)
		}
		if requests++; requests%importEvery == 0 {
			fmt.Fprintf(e.Stderr, "%d lines …\n", m.done.Lines)
		}
	}
}

func tellImported(e *Env, done *Imported, asJSON bool) error {
	if asJSON {
		return printJSON(e.Stdout, done)
	}
	for _, p := range done.Problems {
		fmt.Fprintln(e.Stderr, clean(p))
	}
	if more := done.Refused - int64(len(done.Problems)); more > 0 {
		fmt.Fprintf(e.Stderr, "… and %d more.\n", more)
	}
	fmt.Fprintf(e.Stdout, "%d lines: %d added, %d known before, %d refused.\n", done.Lines, done.Added, done.Known, done.Refused)
	return nil
}

// exportSuppressions writes CSV with all that there is of each, of one account: a list
// of several would be imported as that of one.
func exportSuppressions(ctx context.Context, e *Env, c *api.Client, q url.Values) error {
	w := csv.NewWriter(e.Stdout)
	if err := w.Write(suppression.Columns); err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	account := ""
	err := api.All(ctx, c, "/v1/suppressions", q, func(v api.Suppression) error {
		if account = cmp.Or(account, v.Account); account != v.Account {
			return fmt.Errorf("only the list of account %s is written; there are others: name each account with -account", account)
		}
		s := relay.Suppression{Address: v.Address, Reason: v.Reason, Note: v.Note, Created: v.Created, Expires: v.Expires}
		var err error
		if v.Stream != "" {
			if s.Stream, err = relay.ParseStream(v.Stream); err != nil {
				return err
			}
		}
		if v.Event != "" {
			if s.Event, err = relay.ParseID(v.Event); err != nil {
				return err
			}
		}
		return w.Write(suppression.Row(s))
	})
	if w.Flush(); err == nil {
		err = w.Error()
	}
	return err
}
