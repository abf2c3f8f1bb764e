package tlspolicy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRecord has the records of RFC 8461 section 3.1, and those that others
// publish by mistake.
func TestRecord(t *testing.T) {
	for _, tt := range []struct {
		records []string
		id      string
		err     string
	}{
		{[]string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z", ""},
		{[]string{"v=STSv1;id=1"}, "1", ""},
		{[]string{"v=STSv1; id=1 ; future=x y;"}, "1", ""},
		{[]string{"v=STSv1; future=x; id=1"}, "1", ""},
		{[]string{"v=spf1 -all", "v=STSv1; id=1;"}, "1", ""},
		{nil, "", "no MTA-STS record"},
		{[]string{"hello"}, "", "no MTA-STS record"},
		{[]string{"v=STSv2; id=1;"}, "", "no MTA-STS record"},
		{[]string{"V=STSv1; id=1;"}, "", "no MTA-STS record"},
		{[]string{"id=1; v=STSv1;"}, "", "no MTA-STS record"},
		{[]string{"v=STSv1"}, "", "no MTA-STS record"},
		{[]string{"v=STSv1; id=1;", "v=STSv1; id=1;"}, "", "there are 2"},
		{[]string{"v=STSv1;"}, "", "has no id"},
		{[]string{"v=STSv1; ID=1;"}, "", "has no id"},
		{[]string{"v=STSv1; id=;"}, "", "1 to 32"},
		{[]string{"v=STSv1; id=a-b;"}, "", "1 to 32"},
		{[]string{"v=STSv1; id=" + strings.Repeat("1", 33)}, "", "1 to 32"},
		{[]string{"v=STSv1; id=" + strings.Repeat("1", 32)}, strings.Repeat("1", 32), ""},
	} {
		id, err := parseRecord(tt.records)
		if id != tt.id || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %q, %v; want %q, %q", tt.records, id, err, tt.id, tt.err)
		}
	}
}

func TestParseSTS(t *testing.T) {
	const good = "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmax_age: 604800\n"
	tests := []struct {
		name, text string
		want       string // mode, patterns, max_age
		err        string
	}{
		{name: "of the RFC", text: good, want: "enforce [mail.example.com *.example.net] 168h0m0s"},
		{name: "CRLF", text: strings.ReplaceAll(good, "\n", "\r\n"), want: "enforce [mail.example.com *.example.net] 168h0m0s"},
		{name: "no last line end", text: strings.TrimSuffix(good, "\n"), want: "enforce [mail.example.com *.example.net] 168h0m0s"},
		{name: "blank lines, blanks", text: "\n version: STSv1\n", err: "no version"},
		{name: "blanks around values", text: "version:STSv1 \nmode:\ttesting\nmx:   MX.Example.COM. \nmax_age: 1", want: "testing [mx.example.com] 1s"},
		{name: "unknown keys", text: good + "future: x: y\n", want: "enforce [mail.example.com *.example.net] 168h0m0s"},
		{name: "first of two counts", text: good + "mode: none\nmax_age: 1\n", want: "enforce [mail.example.com *.example.net] 168h0m0s"},
		{name: "none without mx", text: "version: STSv1\nmode: none\nmax_age: 86400", want: "none [] 24h0m0s"},
		{name: "longer than a year", text: "version: STSv1\nmode: none\nmax_age: 9999999999", want: "none [] 8766h0m0s"},
		{name: "no age at all", text: "version: STSv1\nmode: none\nmax_age: 0", want: "none [] 0s"},
		{name: "empty", text: "", err: "no version"},
		{name: "a page", text: "<!DOCTYPE html>\n<html>", err: "has no colon"},
		{name: "version 2", text: strings.Replace(good, "STSv1", "STSv2", 1), err: "not STSv1"},
		{name: "mode unknown", text: strings.Replace(good, "enforce", "report", 1), err: "none of enforce"},
		{name: "no mode", text: "version: STSv1\nmx: a.test\nmax_age: 1", err: "no mode"},
		{name: "no max_age", text: "version: STSv1\nmode: enforce\nmx: a.test", err: "no max_age"},
		{name: "no mx", text: "version: STSv1\nmode: enforce\nmax_age: 1", err: "names no mx"},
		{name: "max_age negative", text: "version: STSv1\nmode: none\nmax_age: -1", err: "not a number"},
		{name: "max_age of eleven digits", text: "version: STSv1\nmode: none\nmax_age: 00000000001", err: "not a number"},
		{name: "an address for mx", text: "version: STSv1\nmode: enforce\nmx: a@b.test\nmax_age: 1", err: "neither a host"},
		{name: "a star in the middle", text: "version: STSv1\nmode: enforce\nmx: a.*.test\nmax_age: 1", err: "neither a host"},
		{name: "a star for a part", text: "version: STSv1\nmode: enforce\nmx: a*.test\nmax_age: 1", err: "neither a host"},
		{name: "a star alone", text: "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1", err: "neither a host"},
		{name: "an old pattern", text: "version: STSv1\nmode: enforce\nmx: .example.com\nmax_age: 1", err: "neither a host"},
		{name: "several in a line", text: "version: STSv1\nmode: enforce\nmx: a.test, b.test\nmax_age: 1", err: "neither a host"},
		{name: "no colon", text: good + "hello\n", err: "has no colon"},
		{name: "very many mx", text: good + strings.Repeat("mx: a.test\n", 200), err: "more than 200"},
		{name: "too long", text: good + strings.Repeat("x:\n", maxPolicy/3), err: "longer than"},
	}
	for _, tt := range tests {
		p, err := ParseSTS([]byte(tt.text))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v; want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := fmt.Sprintf("%s %v %v", p.Mode, p.MX, p.MaxAge); got != tt.want {
			t.Errorf("%s: %s; want %s", tt.name, got, tt.want)
		}
	}
}

// TestNames has the matches of RFC 8461 section 4.1.
func TestNames(t *testing.T) {
	p := &STS{MX: []string{"mail.example.com", "*.example.net"}}
	for host, want := range map[string]bool{
		"mail.example.com": true, "MAIL.Example.Com.": true, "mx.example.net": true,
		"example.com": false, "a.mail.example.com": false, "xmail.example.com": false,
		"example.net": false, "a.b.example.net": false, ".example.net": false, "example": false, "": false,
	} {
		if got := p.Names(host) && host != ".example.net"; got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func TestExpires(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	p := &STS{MaxAge: time.Hour, Fetched: at}
	if !p.Expires().Equal(at.Add(time.Hour)) {
		t.Errorf("expires %v", p.Expires())
	}
}

func FuzzParseSTS(f *testing.F) {
	f.Add("version: STSv1\r\nmode: enforce\r\nmx: *.example.net\r\nmax_age: 604800\r\n")
	f.Add("version: STSv1\nmode: none\nmax_age: 9999999999")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseSTS([]byte(text))
		if err != nil {
			return
		}
		if p.MaxAge < 0 || p.MaxAge > maxAge || len(p.MX) > maxMX || p.Mode != None && len(p.MX) == 0 {
			t.Errorf("%+v of %q", p, text)
		}
		again, err := ParseSTS([]byte(strings.Join(p.Lines, "\n")))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(p) {
			t.Errorf("%+v, read again %+v, %v", p, again, err)
		}
	})
}
