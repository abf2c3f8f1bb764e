package link

import (
	"errors"
	"strings"
	"testing"

	"postrider/internal/relay"
	"postrider/internal/seal"
)

func links(t testing.TB, key byte) *Links {
	t.Helper()
	box, err := seal.New([]byte(strings.Repeat(string(key), seal.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(box)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var (
	one   = relay.ID{1, 2, 3}
	other = relay.ID{1, 2, 4}
	mine  = relay.DeliveryID{Message: relay.ID{9, 8, 7, 15: 6}, N: 1}
)

func TestRoundTrip(t *testing.T) {
	l := links(t, 'k')
	for name, tt := range map[string]struct {
		kind   Kind
		id     relay.DeliveryID
		target string
		size   int
	}{
		"open":         {Open, mine, "", 3 + 42},
		"click":        {Click, mine, "https://shop.test/a?b=c&d=%20#e", 3 + 42 + 1 + 42},
		"many":         {Click, relay.DeliveryID{Message: mine.Message, N: 1000}, "http://x.test/", 0},
		"unsubscribe":  {Unsubscribe, mine, "", 3 + 42},
		"of a group":   {Unsubscribe, mine, "news", 0},
		"preferences":  {Preferences, mine, "", 3 + 42},
		"longest":      {Click, mine, "https://" + strings.Repeat("x", MaxTarget-8), 0},
		"other script": {Click, mine, "https://shop.test/\u00fc", 0},
	} {
		p := l.Path(tt.kind, one, tt.id, tt.target)
		got, err := l.Parse(p)
		if err != nil || got.Kind != tt.kind || got.Delivery != tt.id || got.Target != tt.target {
			t.Errorf("%s: %q gives %+v, %v", name, p, got, err)
		}
		if tt.size != 0 && len(p) != tt.size || len(p) > 2000 {
			t.Errorf("%s: %q has %d characters", name, p, len(p))
		}
		if !l.Of(one, got) || l.Of(other, got) {
			t.Errorf("%s: is taken for another account's", name)
		}
		if again := l.Path(tt.kind, one, tt.id, tt.target); again != p {
			t.Errorf("%s: made %q, then %q", name, p, again)
		}
	}
}

// Whatever is changed of a link, be it one bit, it is ours no more.
func TestForged(t *testing.T) {
	l := links(t, 'k')
	good := l.Path(Click, one, mine, "https://shop.test/")
	long := l.Path(Click, one, mine, strings.Repeat("x", MaxTarget+1))
	bad := []string{"", "/", "/c", "/c/", "//c/", "/c//", good + "/", good + "A", good[1:], "/x" + good[2:], "/o" + good[2:], "/u" + good[2:],
		strings.Replace(good, "/c/", "/c//", 1), good + "=", good[:45], good[:46], long, links(t, 'j').Path(Click, one, mine, "https://shop.test/")}
	// Of another link the target, and the token.
	evil := l.Path(Click, one, mine, "https://evil.test/")
	bad = append(bad, good[:45]+evil[45:], evil[:45]+good[45:])
	for i := 3; i < len(good); i++ {
		for _, c := range []byte("AB-_z0/") {
			if changed := good[:i] + string(c) + good[i+1:]; changed != good {
				bad = append(bad, changed)
			}
		}
	}
	for _, p := range bad {
		if got, err := l.Parse(p); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%q gives %+v, %v", p, got, err)
		}
	}
	if _, err := l.Parse(good); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	l := links(f, 'k')
	f.Add(l.Path(Click, one, mine, "https://shop.test/"))
	f.Add(l.Path(Open, one, relay.DeliveryID{Message: one, N: 300}, ""))
	f.Add("/c/AAAA/BBBB")
	f.Fuzz(func(t *testing.T, path string) {
		of, err := l.Parse(path)
		if err == nil && l.path(of) != path {
			t.Errorf("%q and %q are the same link", path, l.path(of))
		}
	})
}

func BenchmarkParse(b *testing.B) {
	l := links(b, 'k')
	p := l.Path(Click, one, mine, "https://shop.test/a/long/path?with=parameters")
	for b.Loop() {
		if _, err := l.Parse(p); err != nil {
			b.Fatal(err)
		}
	}
}
