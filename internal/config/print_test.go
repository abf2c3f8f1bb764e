package config

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func printedText(t *testing.T, c Config) string {
	t.Helper()
	var b strings.Builder
	if err := Print(&b, c); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPrintDefault(t *testing.T) {
	text := printedText(t, Default())
	golden(t, "testdata/default.toml", []byte(text))
	for n, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "#") && utf8.RuneCountInString(line) > width {
			t.Errorf("line %d is longer than %d columns: %s", n+1, width, line)
		}
	}
	c, err := Parse("printed.toml", []byte(text))
	if err != nil || !reflect.DeepEqual(c, Default()) {
		t.Errorf("read back as %+v, %v", c, err)
	}
}

// TestPrintFull reads a file that sets every key, to something that is not the
// default, and prints it.
func TestPrintFull(t *testing.T) {
	text, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("full.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	everySet(t, "", reflect.ValueOf(c), reflect.ValueOf(Default()))
	printed := printedText(t, c)
	golden(t, "testdata/full.printed.toml", []byte(printed))
	again, err := Parse("printed.toml", []byte(printed))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, again) {
		t.Errorf("got  %+v\nback as %+v", c, again)
	}
}

// everySet fails for each key that still has its default.
func everySet(t *testing.T, path string, v, std reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		at, now, d := join(path, f.key), v.Field(f.index), std.Field(f.index)
		switch {
		case isTable(f.typ):
			everySet(t, at, now, d)
		case isTables(f.typ):
			if now.Len() == 0 {
				t.Errorf("%s is not set", at)
				continue
			}
			everySet(t, at, now.Index(0), reflect.Zero(f.typ.Elem()))
		case reflect.DeepEqual(now.Interface(), d.Interface()):
			t.Errorf("%s is not set", at)
		}
	}
}

// TestPrintedExamples holds that what stands there as a comment is right: with
// the marks taken away, it is accepted.
func TestPrintedExamples(t *testing.T) {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(printedText(t, Default())) {
		if strings.HasPrefix(line, "# [[") {
			inside = true
		} else if !strings.HasPrefix(line, "#") {
			inside = false
		}
		if inside {
			line = strings.TrimPrefix(strings.TrimPrefix(line, "#"), " ")
		}
		b.WriteString(line)
	}
	c, err := Parse("uncommented.toml", []byte(b.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	if len(c.Listen) != 3 || len(c.Route) != 1 || c.Listen[0].Default {
		t.Errorf("got %+v and %+v", c.Listen, c.Route)
	}
}

func TestPrintMarksWhatDiffers(t *testing.T) {
	c := Default()
	c.Queue.Expire = 36 * hour
	c.Queue.Retry = []Duration{minute}
	text := printedText(t, c)
	for _, want := range []string{
		"\n# default: \"5d\"\nexpire = \"1d12h\"\n",
		"\n# default: [\"1m\", \"5m\", \"15m\", \"30m\", \"1h\", \"2h\", \"4h\"]\nretry = [\"1m\"]\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if n := strings.Count(text, "# default:"); n != 2 {
		t.Errorf("%d keys are marked, want 2", n)
	}
}

func TestPrintStrings(t *testing.T) {
	for _, s := range []string{`a"b\c`, "tab\tline\nnul\x00del\x7f", "grün 📮", "'''\"\"\"", "C:\\data\\u0041"} {
		c := Default()
		c.Data = s
		again, err := Parse("printed.toml", []byte(printedText(t, c)))
		if err != nil || again.Data != s {
			t.Errorf("%q came back as %q, %v", s, again.Data, err)
		}
	}
}

// TestFieldsAreExplained holds for every field: a key, an explanation, and a
// type that can be read and written.
func TestFieldsAreExplained(t *testing.T) {
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := f.Tag.Get("toml")
			if key == "-" {
				continue
			}
			if key == "" || f.Tag.Get("doc") == "" {
				t.Errorf("%s.%s has no key or no explanation", path, f.Name)
			}
			inner := f.Type
			if inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if isTable(inner) {
				walk(join(path, key), inner)
				continue
			}
			format(reflect.Zero(f.Type)) // panics for what it does not know
			d := decoder{lines: map[string]int{}, unread: map[string]bool{}}
			d.value(reflect.New(f.Type).Elem(), 1.5, path)
			if len(d.problems) != 1 {
				t.Errorf("%s.%s takes a fraction", path, f.Name)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
}

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	// Two callers share nothing.
	a, b := Default(), Default()
	a.Listen[0].Address, a.Queue.Retry[0] = ":1", 1
	if diff := cmp.Diff(Default(), b, cmp.Comparer(func(x, y Addr) bool { return netip.Addr(x) == netip.Addr(y) })); diff != "" {
		t.Error(diff)
	}
}
