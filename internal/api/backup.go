package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"postrider/internal/relay"
)

// Backer makes copies of the store.
type Backer interface {
	Backup(ctx context.Context, file string, progress func(done, total int64)) error
}

// BackupRequest is what POST /v1/backup takes.
type BackupRequest struct {
	File string `json:"file" doc:"Absolute path of the file to make, on the server's machine and by the server's user; it must not exist"`
}

// BackupProgress is a line of the answer, which has one or more of them while the
// backup is made. The last one is done or has an error. Closing the connection
// before cancels the backup.
type BackupProgress struct {
	Bytes int64  `json:"bytes"` // copied
	Total int64  `json:"total"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
}

func (s *Server) backupRoutes() {
	Register(s, Route{Method: http.MethodPost, Path: "/v1/backup", ID: "backup", Tag: "Server", Right: Operators,
		Summary: "Copy the store into a file on the server", Doc: "Answers with a line of JSON now and then while it works; the last one has done, or an error. Closing the connection cancels it.",
		Example: Example{Body: map[string]any{"file": "/var/backups/postrider.db"}},
	}, s.backup)
}

func (s *Server) backup(_ context.Context, in *body[BackupRequest]) (*huma.StreamResponse, error) {
	if !filepath.IsAbs(in.Body.File) {
		return nil, invalid("body.file", fmt.Sprintf("%q is not an absolute path.", cut(in.Body.File)), "Name the file from the root: /var/backups/postrider.db.")
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", "application/x-ndjson")
		out := json.NewEncoder(ctx.BodyWriter())
		_, w := humago.Unwrap(ctx)
		connection := http.NewResponseController(w)
		var last BackupProgress
		tell := func() {
			_ = connection.SetWriteDeadline(time.Now().Add(time.Minute)) // a large store takes longer than other answers
			_ = out.Encode(last)                                         // who does not listen any more has cancelled
			if f, ok := ctx.BodyWriter().(http.Flusher); ok {
				f.Flush()
			}
		}
		err := s.config.Backup.Backup(ctx.Context(), in.Body.File, func(done, total int64) {
			last.Bytes, last.Total = done, total
			tell()
		})
		if last.Done = err == nil; err != nil {
			last.Error = explain(err)
		}
		tell()
	}}, nil
}

// explain is an error for people: without its cause where it is one of ours.
func explain(err error) string {
	var e *relay.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	if e.Code == relay.Internal {
		return err.Error() // the operator asks; there is no log line of it
	}
	return (&relay.Error{Text: e.Text, Advice: e.Advice}).Error()
}

// Backup has the server copy its store into a file, and tells how far that is.
// It ends with the backup; the end of ctx cancels it.
func (c *Client) Backup(ctx context.Context, file string, progress func(done, total int64)) error {
	b, err := json.Marshal(BackupRequest{File: file})
	if err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	resp, err := c.ask(ctx, http.MethodPost, "/v1/backup", bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var p BackupProgress
		switch err := lines.Decode(&p); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			return errors.New("the server ended before the backup did")
		case err != nil:
			return fmt.Errorf("read answer: %w", err)
		case p.Error != "":
			return errors.New(p.Error)
		}
		progress(p.Bytes, p.Total)
		if p.Done {
			return nil
		}
	}
}
