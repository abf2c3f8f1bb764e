package daemon

import (
	"log/slog"

	"postrider/internal/config"
)

// fitFiles lowers the numbers of sessions and of connections to what the limit
// of open files has room for. Who comes when it is reached is then told so, and
// the store, the temporary files and the control socket have what they need.
func fitFiles(c *config.Config, limit int, log *slog.Logger) {
	if limit <= 0 {
		return
	}
	fit := func(setting string, n *int, most int) {
		if *n > most {
			log.Info("the limit of open files (ulimit -n) allows less than a setting asks for", "setting", setting,
				"set", *n, "used", most, "open_files", limit)
			*n = most
		}
	}
	// The rest is for the store (about 20) and for messages in files.
	fit("limits.sessions", &c.Limits.Sessions, max(limit*3/5-16, 8))
	fit("delivery.connections", &c.Delivery.Connections, max(limit/5, 4))
}
