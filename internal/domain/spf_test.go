package domain

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"postrider/internal/relay"
)

func TestMergeSPF(t *testing.T) {
	for _, tt := range []struct {
		have []string
		want string
	}{
		{nil, "v=spf1 include:x.test ~all"},
		{[]string{"v=spf1 mx -all"}, "v=spf1 include:x.test mx -all"},
		{[]string{"v=spf1 -all"}, "v=spf1 include:x.test -all"},
		{[]string{"v=spf1"}, "v=spf1 include:x.test ~all"},
		{[]string{"v=spf1 include:X.test mx ~all"}, "v=spf1 include:X.test mx ~all"},
		{[]string{"v=spf1 redirect=_spf.other.test"}, "v=spf1 include:x.test redirect=_spf.other.test"},
		{[]string{"v=spf1 redirect=_spf.other.test -all"}, "v=spf1 include:x.test -all"}, // it counted for nothing
		{[]string{"v=spf1 mx -all", "v=spf1 include:o.test mx ~all"}, "v=spf1 include:x.test mx include:o.test ~all"},
		{[]string{"v=spf1 redirect=_spf.o.test", "v=spf1 a ?all"}, "v=spf1 include:x.test include:_spf.o.test a ?all"},
		{[]string{"v=spf1 a all", "v=spf1 mx -all"}, "v=spf1 include:x.test a mx -all"},
		{[]string{"v=spf1 -all", "v=spf1 mx +all"}, "v=spf1 include:x.test mx -all"},
		{[]string{"v=spf1 -ip4:192.0.2.9 exists:%{i}.o.test -all"}, "v=spf1 include:x.test -ip4:192.0.2.9 exists:%{i}.o.test -all"},
	} {
		if got := MergeSPF(tt.have, "x.test"); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.have, got, tt.want)
		}
	}
}

// spfOf judges the SPF of example.com with these TXT records by name.
func spfOf(txt map[string][]string, broken ...string) relay.Finding {
	a := Answers{}
	for name, values := range txt {
		a[Question{name, "TXT"}] = Answer{Values: values}
	}
	for _, name := range broken {
		a[Question{name, "TXT"}] = Answer{Err: errors.New("no answer within 5s")}
	}
	return judgeSPF(aDomain("example.com"), service, a, false)
}

func TestJudgeSPF(t *testing.T) {
	tree := map[string][]string{"example.com": {"v=spf1 include:i0.test -all"}, "spf.relay.test.net": {"v=spf1 ip4:192.0.2.25 ~all"}}
	for i := range 12 {
		tree[fmt.Sprintf("i%d.test", i)] = []string{fmt.Sprintf("v=spf1 include:i%d.test -all", i+1)}
	}
	tree["i12.test"] = []string{"v=spf1 -all"}
	us := []string{"v=spf1 ip4:192.0.2.25 ~all"}
	for name, tt := range map[string]struct {
		txt    map[string][]string
		broken []string
		status relay.Verdict
		text   string
	}{
		"none":           {map[string][]string{"example.com": {"hello", "v=spf10 -all"}}, nil, relay.Warning, "no SPF record"},
		"good":           {map[string][]string{"example.com": {"x", "V=SPF1 include:SPF.relay.test.net. -all"}, "spf.relay.test.net": us}, nil, relay.Good, "needs 1 of"},
		"deep":           {map[string][]string{"example.com": {"v=spf1 include:o.test -all"}, "o.test": {"v=spf1 include:spf.relay.test.net -all"}, "spf.relay.test.net": us}, nil, relay.Good, "needs 2 of"},
		"by address":     {map[string][]string{"example.com": {"v=spf1 ip4:192.0.2.0/24 -all"}}, nil, relay.Good, "needs 0 of"},
		"by name":        {map[string][]string{"example.com": {"v=spf1 a:relay.test.net -all"}}, nil, relay.Good, "needs 1 of"},
		"denied address": {map[string][]string{"example.com": {"v=spf1 -ip4:192.0.2.25 ~all"}}, nil, relay.Warning, "does not name"},
		"not named":      {map[string][]string{"example.com": {"v=spf1 mx -all"}}, nil, relay.Warning, "does not name"},
		"two":            {map[string][]string{"example.com": {"v=spf1 mx -all", "v=spf1 include:spf.relay.test.net -all"}}, nil, relay.Bad, "2 SPF records"},
		"eleven":         {tree, nil, relay.Bad, "needs 13 look-ups"},
		"itself":         {map[string][]string{"example.com": {"v=spf1 include:example.com -all"}}, nil, relay.Bad, "includes itself"},
		"in a circle":    {map[string][]string{"example.com": {"v=spf1 include:a.test -all"}, "a.test": {"v=spf1 redirect=example.com"}}, nil, relay.Bad, "includes itself"},
		"ten":            {map[string][]string{"example.com": {"v=spf1 a mx ptr exists:x.test a:1.test a:2.test a:3.test a:4.test a:5.test a:relay.test.net ip4:192.0.2.1 -all"}}, nil, relay.Good, "needs 10"},
		"one too many":   {map[string][]string{"example.com": {"v=spf1 a mx ptr exists:x.test a:1.test a:2.test a:3.test a:4.test a:5.test a:6.test a:relay.test.net -all"}}, nil, relay.Bad, "needs 11"},
		"gone include":   {map[string][]string{"example.com": {"v=spf1 include:spf.relay.test.net include:gone.test -all"}, "spf.relay.test.net": us, "gone.test": nil}, nil, relay.Bad, "gone.test has no SPF record"},
		"no mechanism":   {map[string][]string{"example.com": {"v=spf1 include:spf.relay.test.net inclde:x.test -all"}, "spf.relay.test.net": us}, nil, relay.Bad, "is no mechanism"},
		"everybody":      {map[string][]string{"example.com": {"v=spf1 +all"}}, nil, relay.Bad, "+all"},
		"macro":          {map[string][]string{"example.com": {"v=spf1 include:%{d}.o.test include:spf.relay.test.net -all"}, "spf.relay.test.net": us}, nil, relay.Good, "needs 2"},
		"timeout":        {nil, []string{"example.com"}, relay.Unknown, "no answer within 5s"},
		"part of it":     {map[string][]string{"example.com": {"v=spf1 include:slow.test include:spf.relay.test.net -all"}, "spf.relay.test.net": us}, []string{"slow.test"}, relay.Unknown, "slow.test"},
	} {
		f := spfOf(tt.txt, tt.broken...)
		if f.Status != tt.status || !strings.Contains(f.Text, tt.text) {
			t.Errorf("%s: %s, %s; want %s with %q", name, f.Status, f.Text, tt.status, tt.text)
		}
		if (f.Status == relay.Bad || f.Status == relay.Warning) && f.Advice == "" {
			t.Errorf("%s: no advice", name)
		}
	}
	// Whoever merges never gets two.
	f := spfOf(map[string][]string{"example.com": {"v=spf1 mx -all", "v=spf1 a ~all"}})
	if want := []string{"v=spf1 include:spf.relay.test.net mx a ~all"}; !slices.Equal(f.Expected, want) {
		t.Errorf("expected %q, want %q", f.Expected, want)
	}
}

// A hostile tree is walked to a bound, whatever its shape.
func TestWalkBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("v=spf1")
	a := Answers{}
	for i := range 1000 {
		name := fmt.Sprintf("i%d.test", i)
		fmt.Fprintf(&b, " include:%s", name)
		a[Question{name, "TXT"}] = Answer{Values: []string{"v=spf1 include:a.test include:b.test -all"}}
	}
	a[Question{"a.test", "TXT"}] = Answer{Values: []string{"v=spf1 include:b.test include:c.test -all"}}
	w := walkSPF("example.com", b.String(), a)
	if len(w.missing) > spfWalk || w.lookups < 1000 {
		t.Errorf("%d questions, %d look-ups", len(w.missing), w.lookups)
	}
}

func FuzzSPF(f *testing.F) {
	for _, s := range []string{"v=spf1 -all", "v=spf1 include:a.test redirect=b.test", "v=spf1 ip4:1.2.3.4/33 + ~ :/= a/24 a:/24//64 exp=x", "v=spf1 +"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		a := Answers{{"example.com", "TXT"}: {Values: []string{one, two}}, {"a.test", "TXT"}: {Values: []string{two}}}
		d := aDomain("example.com")
		judgeSPF(d, service, a, false)
		records := spfRecords([]string{one, two})
		merged := MergeSPF(records, "x.test")
		if again := MergeSPF([]string{merged}, "x.test"); again != merged {
			t.Errorf("%q becomes %q", merged, again)
		}
		if len(spfRecords([]string{merged})) != 1 {
			t.Errorf("%q is no SPF record", merged)
		}
	})
}
