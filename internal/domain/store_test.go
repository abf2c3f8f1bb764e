package domain

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store/sqlite"
	"postrider/internal/submit"
)

// With the real store: one account has a domain, of checks at once one counts,
// the audit log has what changed and no more, and private keys stay.
func TestRealStore(t *testing.T) {
	ctx := t.Context()
	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "p.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	b := newBench(t)
	b.Manager.store = db
	b.now = func() time.Time { return time.Now().Truncate(time.Microsecond) }
	b.config.NewID = submit.NewID
	one, err := db.EnsureAccount(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	two, err := db.EnsureAccount(ctx, "two")
	if err != nil {
		t.Fatal(err)
	}
	by := relay.Actor{Name: "ann"}
	mine, err := b.Add(ctx, by, one, "example.test", Settings{})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := b.Add(ctx, by, two, "example.test", Settings{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Add(ctx, by, one, "Example.Test", Settings{}); relay.CodeOf(err) != relay.Conflict {
		t.Errorf("the same again: %v", err)
	}
	b.publish(t, mine)
	b.add(t, "_postrider.example.test. 60 IN TXT "+Quote(proofTag+theirs.Proof))

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if d, err := b.Check(ctx, by, one, "example.test"); err != nil || d.Verified.IsZero() {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
	wg.Wait()
	for range 3 {
		d, err := b.Check(ctx, by, two, "example.test")
		if err != nil || !d.Verified.IsZero() || d.Findings[0].Status != relay.Bad {
			t.Errorf("two accounts have it: %+v, %v", d, err)
		}
	}
	for _, which := range []string{theirs.ID.String(), "other.test"} {
		for what, do := range map[string]func() error{
			"find":    func() error { _, err := b.Find(ctx, one, which); return err },
			"check":   func() error { _, err := b.Check(ctx, by, one, which); return err },
			"change":  func() error { _, err := b.Change(ctx, by, one, which, Settings{}); return err },
			"rotate":  func() error { _, err := b.Rotate(ctx, by, one, which); return err },
			"records": func() error { _, err := b.Records(ctx, one, which); return err },
			"remove":  func() error { _, err := b.Remove(ctx, by, one, which); return err },
		} {
			if err := do(); relay.CodeOf(err) != relay.NotFound || err == nil {
				t.Errorf("%s of another's %s: %v", what, which, err)
			}
		}
	}
	kept, err := db.Domain(ctx, one, mine.ID)
	if err != nil || string(kept.Keys[0].Sealed) != kept.Keys[0].Selector || kept.Keys[0].State != relay.KeySigning {
		t.Errorf("%+v, %v", kept, err)
	}
	changes, err := db.Changes(ctx, one, relay.ChangeFilter{Action: "domain"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, c.Action)
	}
	if fmt.Sprint(got) != "[domain.check domain.add]" {
		t.Errorf("audit log of four checks: %v", got)
	}
	// What is due is taken once, and not before its time again.
	late := time.Now().Add(24 * time.Hour)
	found, err := db.DueDomains(ctx, late, late.Add(watchHold), 10)
	if err != nil || len(found) != 2 {
		t.Errorf("%d due, %v", len(found), err)
	}
	if found, err = db.DueDomains(ctx, late, late.Add(watchHold), 10); err != nil || len(found) != 0 {
		t.Errorf("%d due again, %v", len(found), err)
	}
}
