package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", file, diff)
	}
}

// TestErrors parses each testdata/errors/*.toml and compares what is said with
// the .txt beside it.
func TestErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.toml")
	if err != nil || len(files) < 5 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(file), text)
			if err == nil {
				t.Fatal("no error")
			}
			golden(t, strings.TrimSuffix(file, ".toml")+".txt", []byte(err.Error()+"\n"))
		})
	}
}

func TestParseOverDefaults(t *testing.T) {
	c, err := Parse("relay.toml", []byte("\xef\xbb\xbfhostname = \"mx.example.com\"\r\n"+
		"limits.recipients = 7\r\n"+
		"queue = { retry = [\"10s\"], expire = \"1h\" }\r\n"+
		"[[listen]]\r\naddress = \"127.0.0.1:0\"\r\n[[listen]]\r\naddress = \"127.0.0.1:0\"\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Hostname = "mx.example.com"
	want.Limits.Recipients = 7
	want.Queue.Retry = []Duration{10 * second}
	want.Queue.Expire = hour
	want.Listen = []Listener{{Address: "127.0.0.1:0"}, {Address: "127.0.0.1:0"}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestParseNothing(t *testing.T) {
	c, err := Parse("empty.toml", nil)
	if err != nil || !reflect.DeepEqual(c, Default()) {
		t.Errorf("got %+v, %v; want the defaults", c, err)
	}
	for _, l := range c.Listen {
		if !l.Default {
			t.Errorf("%s does not count as a default", l.Address)
		}
	}
}

func TestParseZeroNeedsNoUnit(t *testing.T) {
	c, err := Parse("relay.toml", []byte("notices.delay_warning = 0\nlimits.message_size = 1048576\n"))
	if err != nil || c.Notices.Delay != 0 || c.Limits.MessageSize != mb {
		t.Errorf("got %v and %v, %v", c.Notices.Delay, c.Limits.MessageSize, err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "postrider.toml")
	text := `data = "state"
[tls]
cert = "cert.pem"
key = "/etc/ssl/key.pem"
[[route]]
domain = "*"
to = "smtp.example.net:587"
user = "relay"
password_file = "secret/password"
ca = "../ca.pem"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// A secret beside the configuration must not get into it.
	if err := os.Mkdir(filepath.Join(dir, "secret"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret", "password"), []byte("kJ8-hunter-2"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Data, c.TLS.Cert, c.TLS.Key, c.Route[0].Password, c.Route[0].CA}
	want := []string{dir + "/state", dir + "/cert.pem", "/etc/ssl/key.pem", dir + "/secret/password", filepath.Dir(dir) + "/ca.pem"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	var out bytes.Buffer
	if err := c.Resolve(); err != nil {
		t.Fatal(err)
	}
	if err := Print(&out, c); err != nil || strings.Contains(out.String(), "hunter") {
		t.Errorf("the password is shown: %v\n%s", err, &out)
	}
}

func TestLoadNothing(t *testing.T) {
	c, err := Load("")
	if err != nil || !reflect.DeepEqual(c, Default()) {
		t.Errorf("got %+v, %v; want the defaults", c, err)
	}
	_, err = Load(filepath.Join(t.TempDir(), "missing.toml"))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "missing.toml") {
		t.Errorf("got %v for a file that is not there", err)
	}
}

func TestFind(t *testing.T) {
	t.Setenv("POSTRIDER_CONFIG", "/env.toml")
	if got := Find("flag.toml"); got != "flag.toml" {
		t.Errorf("named: got %q", got)
	}
	if got := Find(""); got != "/env.toml" {
		t.Errorf("by the environment: got %q", got)
	}
}

// TestDocumentedExample holds that the example of the documentation works.
func TestDocumentedExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```toml\n")
	example, _, found := strings.Cut(example, "```")
	if !found {
		t.Fatal("no example")
	}
	if _, err := Parse("configuration.md", []byte(example)); err != nil {
		t.Error(err)
	}
}

// TestDocumentedTables holds that the documentation names each table, and that all
// its examples are in order.
func TestDocumentedTables(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for f := range reflect.TypeFor[Config]().Fields() {
		name := f.Tag.Get("toml")
		switch f.Type.Kind() {
		case reflect.Struct:
			name = "[" + name + "]"
		case reflect.Slice:
			name = "[[" + name + "]]"
		default:
			continue
		}
		if f.Tag.Get("doc") != "" && !strings.Contains(string(text), "\n| `"+name+"` |") {
			t.Errorf("the table of tables lacks %s", name)
		}
	}
	for i, part := range strings.Split(string(text), "```toml\n")[2:] {
		example, _, _ := strings.Cut(part, "```")
		if _, err := Parse("configuration.md", []byte(example)); err != nil {
			t.Errorf("example %d: %v", i+2, err)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"hostnme", "hostname", 1}, {"tsl", "tls", 1}, {"delya", "delay", 1}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// FuzzParse holds that no text makes Parse panic, that every problem has its
// place, and that what is accepted can be printed and read back.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/errors/*.toml")
	for _, file := range append(files, "testdata/default.toml", "testdata/full.toml") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("fuzz.toml", text)
		if err != nil {
			var ps Problems
			if !errors.As(err, &ps) {
				t.Fatalf("%T: %v", err, err)
			}
			for _, p := range ps {
				if p.File != "fuzz.toml" || p.Line < 0 || p.Line > 1+bytes.Count(text, []byte("\n")) || p.Text == "" {
					t.Errorf("misplaced: %#v", p)
				}
			}
			return
		}
		printed := printedText(t, c)
		again, err := Parse("printed.toml", []byte(printed))
		if err != nil {
			t.Fatalf("%v in\n%s", err, printed)
		}
		if !reflect.DeepEqual(c, again) {
			t.Errorf("got  %+v\nback as %+v", c, again)
		}
		if err := c.Resolve(); err != nil {
			return // a machine without a home
		}
		if err := c.Validate(); err != nil {
			t.Errorf("valid before Resolve, not after: %v", err)
		}
	})
}
