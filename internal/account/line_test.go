package account

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/relay"
)

// TestParallelGuesses: many sessions at once try no more passwords than one
// after the other would.
func TestParallelGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		made, secret := f.add(Wish{Kind: KindSMTP})
		var mu sync.Mutex
		tried, busy := 0, 0
		var all sync.WaitGroup
		start := time.Now()
		for i := range 200 {
			all.Go(func() {
				_, err := f.login("198.51.100.7", made.User, fmt.Sprint("guess", i))
				mu.Lock()
				defer mu.Unlock()
				switch relay.CodeOf(err) {
				case relay.Unauthenticated:
					tried++
				case relay.Busy:
					busy++
				default:
					t.Errorf("guess %d: %v", i, err)
				}
			})
		}
		// Meanwhile another address is served as if nothing was.
		if _, err := f.login(here, "nobody", "x"); relay.CodeOf(err) != relay.Unauthenticated {
			t.Errorf("another address: %v", err)
		}
		all.Wait()
		if took := time.Since(start); tried > 12 || tried+busy != 200 || took > 2*longestLine+testRule.Max {
			t.Errorf("%d passwords were tried in %v, %d told to come later", tried, took, busy)
		}
		if len(f.service.lines.by) != 0 {
			t.Errorf("%d lines are left", len(f.service.lines.by))
		}
		// Who is known there does not stand in the line of those who guess.
		f.service.failures = newFailures(testRule)
		if _, err := f.login("198.51.100.7", made.User, secret); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		for range 50 {
			all.Go(func() { f.service.Login(ctx, netip.MustParseAddr("198.51.100.7"), "nobody", "guess") })
		}
		synctest.Wait()
		if took, err := f.timed("198.51.100.7", made.User, secret); err != nil || took > time.Second {
			t.Errorf("a known user among those who guess: %v after %v", err, took)
		}
		cancel()
		all.Wait()
	})
}

// TestManyRightLogins: a program that opens all its connections at once is not
// slowed.
func TestManyRightLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		made, secret := f.add(Wish{Kind: KindSMTP})
		f.choose("printer", "correct horse")
		start := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if _, err := f.login(here, made.User, secret); err != nil {
					t.Error(err)
				}
				if _, err := f.login(here, "printer", "correct horse"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if took := time.Since(start); took > 0 {
			t.Errorf("they took %v", took)
		}
	})
}

// TestHashingIsBounded: guesses at chosen passwords neither pile up nor keep out
// who has logged in before.
func TestHashingIsBounded(t *testing.T) {
	f := newFixture(t)
	c := f.choose("printer", "correct horse")
	h := &f.service.hashing
	h.slot[0] <- struct{}{} // a guess is being hashed
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for i := range maxHashing {
		waiting.Go(func() { f.service.matches(ctx, c, fmt.Sprint("guess", i), false) })
	}
	for h.line[0].Load() < maxHashing {
		<-time.After(time.Millisecond)
	}
	_, err := f.service.matches(ctx, c, "one guess more", false)
	wantCode(t, "more than may wait", err, relay.Busy)
	if ok, err := f.service.matches(ctx, c, "correct horse", true); !ok || err != nil {
		t.Errorf("a known client with a password that is not remembered: %v, %v", ok, err)
	}
	cancel()
	waiting.Wait()
}

// TestFailuresLookAlikeUnderLoad: where wrong passwords of a user that exists
// take long, so do those of users that do not.
func TestFailuresLookAlikeUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		now := time.Now()
		f.service.hashing.took(now.Add(-3*time.Second), now)
		if took, _ := f.timed(here, "nobody", "guess"); took != 3*time.Second {
			t.Errorf("an unknown user took %v", took)
		}
		time.Sleep(slowLasts)
		if took, _ := f.timed(here, "nobody", "guess"); took != failTime {
			t.Errorf("later an unknown user took %v", took)
		}
	})
}
