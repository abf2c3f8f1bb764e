package signing

import (
	"errors"
	"testing"
	"time"

	"postrider/internal/mailauth"
	"postrider/internal/relay"
	"postrider/internal/seal"
)

func newBox(t testing.TB) *seal.Box {
	t.Helper()
	box, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func TestNewKey(t *testing.T) {
	box, now := newBox(t), time.Unix(1_700_000_000, 0)
	d := &relay.Domain{Account: relay.ID{1}, Name: "example.com"}
	for _, algorithm := range []string{mailauth.RSA, mailauth.Ed25519} {
		k, err := NewKey(box, d, "pr2611", algorithm, now)
		if err != nil {
			t.Fatal(err)
		}
		if k.Selector != "pr2611" || k.Algorithm != algorithm || k.State != relay.KeyWaiting || !k.Since.Equal(now) {
			t.Errorf("made %+v", k)
		}
		opened, err := openKey(box, d, k)
		if err != nil || opened.Record() != k.Public {
			t.Errorf("%s: opened %v, %v", algorithm, opened, err)
		}
		other := *d
		other.Account = relay.ID{2}
		if _, err := openKey(box, &other, k); !errors.Is(err, seal.ErrBroken) {
			t.Errorf("another account opened it: %v", err)
		}
	}
	if _, err := NewKey(box, d, "pr", "dsa", now); err == nil {
		t.Error("a key of an unknown kind was made")
	}
}
