package domain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store/sqlite"
	"postrider/internal/submit"
)

// desk is an Entrance that keeps the last mail.
type desk struct {
	to   string
	utf8 bool
	text string
	err  error
}

func (d *desk) Report(_ context.Context, _ relay.ID, to string, utf8 bool, content relay.Content, answers *relay.Notice) (relay.ID, error) {
	r, err := content.Open()
	if err != nil {
		return relay.ID{}, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	d.to, d.utf8, d.text = to, utf8, string(b)
	return relay.ID{}, errors.Join(err, d.err)
}

// token is that of the link in the last mail.
func (d *desk) token(t *testing.T) string {
	t.Helper()
	found := regexp.MustCompile(`https://relay\.test/verify/(\S+)\r\n`).FindStringSubmatch(d.text)
	if found == nil {
		t.Fatalf("no link in %q", d.text)
	}
	return found[1]
}

func TestSenders(t *testing.T) {
	ctx, by := t.Context(), relay.Actor{Name: "Eve\r\nBcc: all@example.com"}
	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "p.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	account, err := db.EnsureAccount(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	other, err := db.EnsureAccount(ctx, "two")
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{}
	s := NewSenders(SenderConfig{Hostname: "relay.test", From: "postmaster@relay.test", Link: "https://relay.test/verify/", NewID: submit.NewID}, db, d)
	clock := epoch
	s.now = func() time.Time { return clock }
	add := func(address string) error { _, err := s.Add(ctx, by, account, address, false); return err }

	for _, bad := range []string{"", "ann", "ann@", "ann@[192.0.2.1]", "ann@a..b", strings.Repeat("a", 70) + "@example.com", "a b@example.com"} {
		if err := add(bad); relay.CodeOf(err) != relay.BadAddress || err == nil {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for address, want := range map[string]string{"Ann@BÜCHER.example": "ann@xn--bcher-kva.example", `"odd one"@example.com`: `"odd one"@example.com`, "jürgen@example.com": "jürgen@example.com",
		strings.Repeat("a", 64) + "@" + strings.Repeat("b", 60) + "." + strings.Repeat("c", 60) + "." + strings.Repeat("d", 60) + ".org": ""} {
		v, err := s.Add(ctx, by, account, address, false)
		if err != nil || want != "" && v.Address != want || d.utf8 != strings.Contains(address, "jürgen") {
			t.Errorf("%s: %+v, %v, utf8 %t", address, v, err, d.utf8)
		}
	}

	if err := add("ann@example.com"); err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(d.text, "\r\n\r\n")
	if strings.Contains(head, "Bcc") || strings.Contains(d.text, "\nBcc") {
		t.Errorf("somebody's name became a field: %q", d.text)
	}
	first := d.token(t)
	if err := add("ann@example.com"); relay.CodeOf(err) != relay.RateLimited {
		t.Errorf("again at once: %v", err)
	}
	clock = clock.Add(linkPause)
	if err := add("ann@example.com"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Verify(ctx, by, first); relay.CodeOf(err) != relay.NotFound {
		t.Errorf("a link that another has replaced: %v", err)
	}
	token := d.token(t)
	if v, err := s.Asked(ctx, token); err != nil || !v.Verified.IsZero() {
		t.Errorf("looking: %+v, %v", v, err)
	}
	clock = clock.Add(linkLife)
	if _, err := s.Verify(ctx, by, token); relay.CodeOf(err) != relay.NotFound {
		t.Errorf("a link that is too old: %v", err)
	}
	clock = clock.Add(-time.Minute)
	for range 2 {
		if v, err := s.Verify(ctx, by, strings.ToUpper(token)); err != nil || v.Verified.IsZero() {
			t.Errorf("%+v, %v", v, err)
		}
	}
	if v, err := db.Sender(ctx, account, "ann@example.com"); err != nil || v.Verified.IsZero() {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := db.Sender(ctx, other, "ann@example.com"); relay.CodeOf(err) != relay.NotFound {
		t.Errorf("another account has it too: %v", err)
	}
	if _, err := s.Remove(ctx, by, other, "ann@example.com"); relay.CodeOf(err) != relay.NotFound {
		t.Errorf("another account removes it: %v", err)
	}

	// A mail that can't be sent may be asked for again at once.
	d.err = &relay.Error{Code: relay.Busy, Text: "Too much at once."}
	if err := add("bob@example.com"); relay.CodeOf(err) != relay.Busy {
		t.Errorf("the queue is full: %v", err)
	}
	d.err = nil
	if err := add("bob@example.com"); err != nil {
		t.Errorf("after that: %v", err)
	}

	// Nobody's mailbox is filled, and not many people's either.
	var last error
	for i := range linkADay + 1 {
		if last = add(fmt.Sprintf("p%d@example.com", i)); last != nil {
			break
		}
	}
	if relay.CodeOf(last) != relay.RateLimited {
		t.Errorf("links without end: %v", last)
	}
	// Who removes what they asked for has not asked for less.
	if _, err := s.Remove(ctx, by, account, "P1@example.com"); err != nil {
		t.Error(err)
	}
	if err := add("p1@example.com"); relay.CodeOf(err) != relay.RateLimited {
		t.Errorf("links without end to one address: %v", err)
	}
	if v, err := s.Add(ctx, by, account, "p49@example.com", true); err != nil || v.Verified.IsZero() {
		t.Errorf("the operator's word: %+v, %v", v, err)
	}
	s.config.Link = ""
	if err := add("new@example.com"); relay.CodeOf(err) != relay.Unavailable {
		t.Errorf("no public address: %v", err)
	}
}
