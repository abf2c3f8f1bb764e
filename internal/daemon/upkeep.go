package daemon

import (
	"time"

	"postrider/internal/relay"
	"postrider/internal/upkeep"
)

// upkeep makes what keeps the log.
func (d *Daemon) upkeep() *upkeep.Upkeep {
	const day = 24 * time.Hour
	r := d.Config.Retain
	return upkeep.New(upkeep.Config{Node: d.Config.Node, Keep: relay.Keep{Log: int(time.Duration(r.Log) / day), Content: int(time.Duration(r.Content) / day)},
		Idle: func() bool { return d.Condition() != relay.Working }}, d.store, d.store, d.log)
}
