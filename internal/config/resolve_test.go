package config

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func fakeMachine(name string, root bool, env map[string]string) machine {
	return machine{
		hostname: func() (string, error) {
			if name == "" {
				return "", errors.New("no name")
			}
			return name, nil
		},
		home: func() (string, error) {
			if env["HOME"] == "" {
				return "", errors.New("no home")
			}
			return env["HOME"], nil
		},
		getenv: func(key string) string { return env[key] },
		root:   root,
	}
}

func TestResolveNames(t *testing.T) {
	for name, want := range map[string]struct{ hostname, node string }{
		"mx.example.com":                         {"mx.example.com", "mx.example.com"},
		"mx.example.com.":                        {"mx.example.com", "mx.example.com"},
		"laptop":                                 {"laptop", "laptop"},
		"my_box":                                 {"localhost", "my_box"},
		"Jörgs Mac":                              {"localhost", "J-rgs-Mac"},
		"":                                       {"localhost", "localhost"},
		strings.Repeat("long-", 13) + ".example": {"localhost", strings.Repeat("long-", 12) + "long"},
	} {
		c := Default()
		if err := c.resolve(fakeMachine(name, true, nil)); err != nil {
			t.Fatal(err)
		}
		if c.Hostname != want.hostname || c.Node != want.node || c.Notices.From != "MAILER-DAEMON@"+want.hostname {
			t.Errorf("on %q: hostname %q, node %q, notices from %q", name, c.Hostname, c.Node, c.Notices.From)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("on %q: %v", name, err)
		}
	}
	c := Default()
	c.Hostname, c.Node, c.Notices.From = "mx.example.org", "one", "help@example.org"
	if err := c.resolve(fakeMachine("box", true, nil)); err != nil {
		t.Fatal(err)
	}
	if c.Hostname != "mx.example.org" || c.Node != "one" || c.Notices.From != "help@example.org" {
		t.Errorf("what was set is gone: %+v", c)
	}
}

func TestResolveData(t *testing.T) {
	here, err := filepath.Abs("x")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data string
		root bool
		env  map[string]string
		want string
	}{
		"root":              {"", true, map[string]string{"HOME": "/root", "XDG_STATE_HOME": "/x"}, "/var/lib/postrider"},
		"person":            {"", false, map[string]string{"HOME": "/home/a"}, "/home/a/.local/state/postrider"},
		"state folder":      {"", false, map[string]string{"HOME": "/home/a", "XDG_STATE_HOME": "/x"}, "/x/postrider"},
		"relative state":    {"", false, map[string]string{"HOME": "/home/a", "XDG_STATE_HOME": "x"}, "/home/a/.local/state/postrider"},
		"environment":       {"", true, map[string]string{"POSTRIDER_DATA": "/e"}, "/e"},
		"file before it":    {"/f", false, map[string]string{"POSTRIDER_DATA": "/e"}, "/f"},
		"relative":          {"x", true, nil, here},
		"relative from env": {"", true, map[string]string{"POSTRIDER_DATA": "x"}, here},
	} {
		cfg := Default()
		cfg.Data = c.data
		if err := cfg.resolve(fakeMachine("box", c.root, c.env)); err != nil || cfg.Data != c.want {
			t.Errorf("%s: got %q, %v; want %q", name, cfg.Data, err, c.want)
		}
	}
	c := Default()
	if err := c.resolve(fakeMachine("box", false, nil)); err == nil || !strings.Contains(err.Error(), "POSTRIDER_DATA") {
		t.Errorf("without a home: got %v, want an error that says what to set", err)
	}
}

func TestResolveListenersAndRoutes(t *testing.T) {
	c := Default()
	c.Listen = []Listener{{Address: ":465"}, {Address: "127.0.0.1:2525"}, {Name: "old", Address: ":26", Mode: "plain", MinTLS: "1.0"}}
	c.Route = []Route{
		{Domain: "Example.COM"},
		{Domain: "*", To: "smtp.example.net:587", User: "u", Password: "/p"},
		{Domain: "x", To: "10.0.0.1:25", TLS: "none"},
	}
	m := fakeMachine("box", true, nil)
	if err := c.resolve(m); err != nil {
		t.Fatal(err)
	}
	if want := []Listener{
		{Name: ":465", Address: ":465", Mode: "tls", MinTLS: "1.2"},
		{Name: "127.0.0.1:2525", Address: "127.0.0.1:2525", Mode: "starttls", MinTLS: "1.2"},
		{Name: "old", Address: ":26", Mode: "plain", MinTLS: "1.0"},
	}; !reflect.DeepEqual(c.Listen, want) {
		t.Errorf("got %+v, want %+v", c.Listen, want)
	}
	if want := []Route{
		{Domain: "example.com", To: "mx", TLS: "opportunistic"},
		{Domain: "*", To: "smtp.example.net:587", TLS: "require", User: "u", Password: "/p"},
		{Domain: "x", To: "10.0.0.1:25", TLS: "none"},
	}; !reflect.DeepEqual(c.Route, want) {
		t.Errorf("got %+v, want %+v", c.Route, want)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	again, err := Parse("printed.toml", []byte(printedText(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.resolve(m); err != nil || !reflect.DeepEqual(c, again) {
		t.Errorf("printed and resolved again: %+v, %v; want %+v", again, err, c)
	}
}

// TestResolve asks the machine that runs it.
func TestResolve(t *testing.T) {
	t.Setenv("POSTRIDER_DATA", t.TempDir())
	c := Default()
	if err := c.Resolve(); err != nil {
		t.Fatal(err)
	}
	if c.Hostname == "" || c.Node == "" || !filepath.IsAbs(c.Data) {
		t.Errorf("left empty: %+v", c)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestServiceNames(t *testing.T) {
	s := Service{SPF: "_SPF.example.com"}
	s.fill("Relay.example.com")
	want := Service{Domain: "relay.example.com", DKIMZone: "dkim.relay.example.com", ReturnHost: "bounce.relay.example.com",
		TrackHost: "track.relay.example.com", SPF: "_spf.example.com"}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("%+v, want %+v", s, want)
	}
	var none Service
	if none.fill("localhost"); !reflect.DeepEqual(none, Service{}) {
		t.Errorf("a machine without a public name offers %+v", none)
	}
}
