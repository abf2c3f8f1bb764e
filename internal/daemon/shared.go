package daemon

import (
	"context"
	"errors"
	"log/slog"

	"postrider/internal/queue"
	"postrider/internal/store"
)

func openShared(context.Context, string, *slog.Logger) (*store.DB, error) {
	return nil, errors.New("PostgreSQL is not built in yet")
}

type lessee struct{ *queue.Queue }

func (lessee) Suspend(context.Context)     {}
func (lessee) Resume(int64)                {}
func (lessee) Drain(context.Context) error { return nil }
func (lessee) Look()                       {}
