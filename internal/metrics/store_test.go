package metrics

import (
	"errors"
	"fmt"
	"testing"

	"postrider/internal/relay"
	"postrider/internal/store"
)

func TestStoreError(t *testing.T) {
	of := func(code relay.Code) error {
		return fmt.Errorf("put: %w", &relay.Error{Code: code, Err: errors.New("cause")})
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""}, {fmt.Errorf("settle: %w", store.ErrSettled), ""}, {of(relay.Unavailable), "store_unavailable"}, {of(relay.Busy), "store_busy"},
		{of(relay.Full), "store_full"}, {fmt.Errorf("put: %w", store.ErrLeaseLost), "lease_lost"}, {of(relay.Internal), "store_other"},
		{errors.New("strange"), "store_other"}, {of(relay.Conflict), ""}, {of(relay.NotFound), ""},
	} {
		if got := storeError(tt.err); got != tt.want {
			t.Errorf("%v is %q, want %q", tt.err, got, tt.want)
		}
	}
}
