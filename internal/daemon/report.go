package daemon

import (
	"time"

	"postrider/internal/report"
	"postrider/internal/reputation"
)

// reports tell how much mail went which way.
func (d *Daemon) reports() *report.Reports {
	return &report.Reports{Store: d.store, Hours: time.Duration(d.Config.Counts.Hours), Now: time.Now}
}

// scores say how good senders are.
func (d *Daemon) scores() *reputation.Book {
	return &reputation.Book{Store: d.store, HalfLife: time.Duration(d.Config.Counts.HalfLife)}
}

// keeper keeps the counts behind both small.
func (d *Daemon) keeper() *report.Keeper {
	c := &d.Config.Counts
	return &report.Keeper{Store: d.store, Hours: time.Duration(c.Hours), Keep: time.Duration(c.Keep), Log: d.log}
}
