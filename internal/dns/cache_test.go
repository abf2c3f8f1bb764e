package dns

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

func TestCache(t *testing.T) {
	now := time.Unix(1, 0)
	c := newCache(3)
	key := func(i int) question { return question{fmt.Sprintf("%d.test.", i), mdns.TypeMX} }
	for i := range 3 {
		c.put(key(i), &answer{expires: now.Add(time.Minute)})
	}
	c.get(key(0), now)                                    // used: stays
	c.put(key(1), &answer{expires: now.Add(time.Second)}) // renewed: stays
	c.put(key(3), &answer{expires: now.Add(time.Minute)})
	for i, want := range []bool{true, true, false, true} {
		if got := c.get(key(i), now) != nil; got != want {
			t.Errorf("entry %d is there: %t", i, got)
		}
	}
	if c.get(question{key(0).name, mdns.TypeA}, now) != nil {
		t.Error("another type found the entry")
	}
	if c.get(key(1), now.Add(time.Second)) != nil {
		t.Error("an expired entry was found")
	}
	for i := range 1000 {
		c.put(key(i), &answer{expires: now.Add(time.Minute)})
	}
	if len(c.entries) != 3 || c.used.Len() != 3 {
		t.Errorf("%d entries, %d in the list, want 3", len(c.entries), c.used.Len())
	}
}

func TestSystemServers(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct{ path, want string }{
		{file("two", "search example.test\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"), "[192.0.2.1 2001:db8::1]"},
		{file("none", "search example.test\n"), "[127.0.0.1]"},
		{filepath.Join(dir, "missing"), "[127.0.0.1]"},
	}
	for _, tt := range tests {
		got, err := systemServers(tt.path)
		if err != nil || fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v, %v, want %s", tt.path, got, err, tt.want)
		}
		if _, err := New(got, 0); err != nil {
			t.Errorf("%s: %v", tt.path, err)
		}
	}
}

func TestCutShort(t *testing.T) {
	m := new(mdns.Msg).SetQuestion("d.test.", mdns.TypeA)
	m.Truncated = true
	m.Answer = []mdns.RR{&mdns.A{Hdr: mdns.RR_Header{Name: "d.test.", Rrtype: mdns.TypeA, Class: mdns.ClassINET}, A: []byte{192, 0, 2, 1}}}
	if a, err := interpret(question{"d.test.", mdns.TypeA}, m, time.Now()); err == nil {
		t.Errorf("half an answer was taken: %+v", a)
	}
}
