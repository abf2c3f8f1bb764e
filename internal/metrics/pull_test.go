package metrics

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/relay"
)

// counts is a store that counts how often it is asked, and takes its time.
type counts struct {
	asked int
	takes time.Duration
	err   error
}

func (c *counts) Tally(ctx context.Context, each func(relay.Stream, relay.State, string, int64)) error {
	c.asked++
	select {
	case <-time.After(c.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	each(relay.Transactional, relay.Queued, "gmail.com", 3)
	each(relay.Transactional, relay.Queued, "known.test", 2)
	each(relay.Broadcast, relay.Deferred, "x.test", 5)
	return c.err
}

func (c *counts) OpenAlerts(context.Context) ([]*relay.Alert, error) {
	return []*relay.Alert{{Kind: relay.AlertQuota, Severity: relay.SeverityWarning}}, nil
}

func (c *counts) Nodes(context.Context) ([]relay.Node, error) {
	return []relay.Node{{Name: "me", InHand: 7}, {Name: "b", Draining: true, InHand: 1}, {Name: "c", Silent: time.Hour, InHand: 2}}, nil
}

func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counts{takes: 100 * time.Millisecond}
		s := &Sources{Store: c, Node: "me", Site: func(domain string) string {
			if domain == "known.test" {
				return "google.com"
			}
			return ""
		}}
		var l looked
		l.again = lookAgain
		want := func(asked int, after time.Duration) {
			t.Helper()
			<-time.After(after)
			l.refresh(t.Context(), s)
			if c.asked != asked {
				t.Errorf("asked %d times, want %d", c.asked, asked)
			}
		}
		want(1, 0)
		if n := l.stock[stock{relay.Queued, relay.Transactional, classGoogle}]; n != 5 {
			t.Errorf("%v for google, want 5", n)
		}
		if n := l.stock[stock{relay.Deferred, relay.Broadcast, classOther}]; n != 5 || len(l.stock) != 3*2*len(siteClasses) {
			t.Errorf("%v for others, in %d series", n, len(l.stock))
		}
		if l.nodes["alive"] != 1 || l.nodes["draining"] != 1 || l.nodes["dead"] != 1 || l.held["this"] != 7 || l.held["others"] != 3 {
			t.Errorf("nodes %v, held %v", l.nodes, l.held)
		}
		want(1, lookAgain-time.Second)
		c.takes = 2 * time.Second
		want(2, time.Second)
		want(2, lookAgain) // a count that takes long is made less often
		want(3, 2*time.Second*lookShare-lookAgain)
		c.takes = time.Hour
		start, at := time.Now(), l.at
		want(4, 2*time.Second*lookShare)
		if took := time.Since(start) - 2*time.Second*lookShare; took != lookTime || l.at != at || len(l.stock) == 0 {
			t.Errorf("a count without end took %v; counted at %v, before at %v", took, l.at, at)
		}
		c.takes, c.err = 0, errors.New("away")
		want(5, lookTime*lookShare)
		if l.at != at || len(l.stock) == 0 {
			t.Error("what was counted is forgotten when the store is away")
		}
	})
}
