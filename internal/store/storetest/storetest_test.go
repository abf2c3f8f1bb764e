package storetest

import (
	"bytes"
	"testing"

	"postrider/internal/relay"
)

func TestNewID(t *testing.T) {
	var last relay.ID
	for range 10000 {
		id := NewID(noon)
		if bytes.Compare(id[:], last[:]) <= 0 {
			t.Fatalf("%v after %v", id, last)
		}
		last = id
	}
}
