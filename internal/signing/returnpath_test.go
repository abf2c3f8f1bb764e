package signing

import (
	"math"
	"strings"
	"testing"

	"postrider/internal/relay"
	"postrider/internal/smtp"
)

func TestReturnPath(t *testing.T) {
	box := newBox(t)
	paths, err := NewReturnPaths(box)
	if err != nil {
		t.Fatal(err)
	}
	another, err := NewReturnPaths(box) // of another node
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 1000, math.MaxInt32} {
		id := relay.DeliveryID{Message: relay.ID{1, 0xff, 15: 7}, N: n}
		addr := paths.Address(id, "bounce.example.com")
		local, host, _ := strings.Cut(addr, "@")
		if len(local) > 64 || host != "bounce.example.com" || local != strings.ToLower(local) {
			t.Errorf("address %s", addr)
		}
		if _, err := smtp.ParseAddress(addr, false); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
		for _, form := range []string{addr, strings.ToUpper(addr), local} {
			if got, err := another.Parse(form); err != nil || got != id {
				t.Errorf("%s: %v, %v", form, got, err)
			}
		}
	}
}

func TestForgedReturnPath(t *testing.T) {
	paths, err := NewReturnPaths(newBox(t))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := NewReturnPaths(newBox(t))
	if err != nil {
		t.Fatal(err)
	}
	id := relay.DeliveryID{Message: relay.ID{1}, N: 1}
	addr := paths.Address(id, "bounce.example.com")
	other := paths.Address(relay.DeliveryID{Message: relay.ID{1}, N: 2}, "bounce.example.com")
	code := addr[strings.IndexByte(addr, '.'):]
	for name, forged := range map[string]string{
		"nothing":        "",
		"null":           "@",
		"another master": foreign.Address(id, "bounce.example.com"),
		"another's code": strings.SplitN(other, ".", 2)[0] + code,
		"no code":        strings.SplitN(addr, ".", 2)[0] + "@bounce.example.com",
		"empty code":     strings.SplitN(addr, ".", 2)[0] + ".@bounce.example.com",
		"cut code":       strings.Replace(addr, "@", "", 1),
		"longer code":    strings.Replace(addr, "@", "a@", 1),
		"other prefix":   "c" + addr[1:],
		"number written": "b+" + id.Message.String() + "-01" + code,
		"no delivery":    "b+x-1" + code,
		"plain":          "somebody@example.com",
	} {
		if got, err := paths.Parse(forged); err == nil {
			t.Errorf("%s: %s was taken for %v", name, forged, got)
		}
	}
}

func FuzzReturnPath(f *testing.F) {
	paths, err := NewReturnPaths(newBox(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(paths.Address(relay.DeliveryID{Message: relay.ID{1}, N: 1}, "x.test"))
	f.Add("b+a-1.b@c")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := paths.Parse(s)
		if err == nil && !strings.HasPrefix(strings.ToLower(s), strings.TrimSuffix(paths.Address(id, ""), "@")) {
			t.Errorf("%q was taken for %v", s, id)
		}
	})
}

func TestOtherAddresses(t *testing.T) {
	box := newBox(t)
	paths, err := NewReturnPaths(box)
	if err != nil {
		t.Fatal(err)
	}
	id := relay.DeliveryID{Message: relay.ID{1, 0xff, 15: 7}, N: math.MaxInt32}
	bounce, leave, loop := paths.Address(id, "b.test"), paths.Unsubscribe(id, "b.test"), paths.Loop("Yahoo", "b.test")
	for _, addr := range []string{leave, loop, paths.Loop(strings.Repeat("p", 40), "b.test")} {
		if local, _, _ := strings.Cut(addr, "@"); len(local) > 64 {
			t.Errorf("address %s", addr)
		}
	}
	for _, form := range []string{leave, strings.ToUpper(leave)} {
		if got, err := paths.ParseUnsubscribe(form); err != nil || got != id {
			t.Errorf("%s: %v, %v", form, got, err)
		}
	}
	if got, err := paths.ParseLoop(strings.ToUpper(loop)); err != nil || got != "yahoo" {
		t.Errorf("%s: %q, %v", loop, got, err)
	}
	// A code is good for its own kind of address only.
	for _, addr := range []string{bounce, leave, loop, "", "@", "f+", "u+", "f+.x@b.test", "F+" + bounce[2:], "u+" + bounce[2:], "b+" + leave[2:]} {
		_, b := paths.Parse(addr)
		_, u := paths.ParseUnsubscribe(addr)
		_, f := paths.ParseLoop(addr)
		if (b == nil) != (addr == bounce) || (u == nil) != (addr == leave) || (f == nil) != (addr == loop) {
			t.Errorf("%s: %v, %v, %v", addr, b, u, f)
		}
	}
	mark, another := paths.Mark(id.Message), paths.Mark(relay.ID{1})
	for text, want := range map[string]relay.DeliveryID{
		MarkField + ": " + mark:                     {Message: id.Message},
		"x " + strings.ToUpper(mark) + " y":         {Message: id.Message},
		MarkField + ": " + mark + "\r\n<" + bounce:  id,
		MarkField + ": " + mark[:27] + another[27:]: {},
		leave: {}, "": {},
	} {
		if got, ok := paths.Find([]byte(text)); got != want || ok != (want != relay.DeliveryID{}) {
			t.Errorf("%q: %v", text, got)
		}
	}
}
