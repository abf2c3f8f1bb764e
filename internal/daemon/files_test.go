package daemon

import (
	"log/slog"
	"testing"

	"postrider/internal/config"
)

func TestFitFiles(t *testing.T) {
	const store = 20
	for _, limit := range []int{64, 256, 1024, 65536, 1 << 20} {
		c := config.Default()
		fitFiles(&c, limit, slog.Default())
		if n := c.Limits.Sessions + c.Delivery.Connections + store; n > limit || c.Limits.Sessions < 8 || c.Delivery.Connections < 4 {
			t.Errorf("limit %d: %d sessions and %d connections", limit, c.Limits.Sessions, c.Delivery.Connections)
		}
	}
	for _, limit := range []int{0, 1 << 20} {
		c := config.Default()
		fitFiles(&c, limit, slog.Default())
		if c.Limits.Sessions != config.Default().Limits.Sessions || c.Delivery.Connections != config.Default().Delivery.Connections {
			t.Errorf("limit %d: %d sessions and %d connections", limit, c.Limits.Sessions, c.Delivery.Connections)
		}
	}
}
