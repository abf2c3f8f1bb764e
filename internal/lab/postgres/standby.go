package postgres

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// Standby makes a copy of the server that follows it, and lets every commit
// wait for that one. Promote makes it a server of its own.
func (s *Server) Standby(ctx context.Context) (*Server, error) {
	copied, err := prepare(filepath.Dir(s.folder))
	if err != nil {
		return nil, err
	}
	if err := copied.follow(ctx, s); err != nil {
		return nil, errors.Join(err, copied.Close())
	}
	return copied, nil
}

func (s *Server) follow(ctx context.Context, primary *Server) error {
	if err := s.run(ctx, "pg_basebackup", "-D", s.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync",
		"-d", "host=127.0.0.1 port="+primary.port()+" user=postgres application_name=standby"); err != nil {
		return err
	}
	if err := s.configure(nil); err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	for _, statement := range []string{"alter system set synchronous_standby_names = 'standby'", "select pg_reload_conf()"} {
		if err := primary.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return primary.until(ctx, "select exists (select 1 from pg_stat_replication where sync_state = 'sync')")
}

// Promote makes a standby accept writes. No commit of it waits for another.
func (s *Server) Promote(ctx context.Context) error {
	if err := s.Exec(ctx, "select pg_promote()"); err != nil {
		return err
	}
	return s.until(ctx, "select not pg_is_in_recovery()")
}

// until waits until a query says true.
func (s *Server) until(ctx context.Context, query string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Close(ctx)
	for {
		var is bool
		if err := conn.QueryRow(ctx, query).Scan(&is); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
		if is {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", query, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
