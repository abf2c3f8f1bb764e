package relay

import "cmp"

// Keep is for how many days something is kept. 0: as long as is usual; KeepForEver.
type Keep struct {
	Log     int `json:"log,omitempty"`     // messages, deliveries and events
	Content int `json:"content,omitempty"` // that is archived
}

// KeepForEver is longer than any number of days.
const KeepForEver = -1

// Or takes from usual what k leaves open.
func (k Keep) Or(usual Keep) Keep {
	return Keep{Log: cmp.Or(k.Log, usual.Log), Content: cmp.Or(k.Content, usual.Content)}
}
