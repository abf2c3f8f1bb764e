package daemon

import (
	"context"
	"errors"
	"log/slog"

	"postrider/internal/store"
)

func openShared(context.Context, string, *slog.Logger) (*store.DB, error) {
	return nil, errors.New("PostgreSQL is not built in yet")
}
