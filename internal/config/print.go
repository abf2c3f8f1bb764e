package config

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// width is that of explanations, in columns.
const width = 78

// Print writes c as TOML that Parse reads back to the same Config, but for a
// password in store, which is left out: each key with its explanation, and its default where it has another value. Lists of
// tables that nobody wrote stand there as comments.
func Print(w io.Writer, c Config) error {
	p := printer{}
	p.comment(`Settings of Postrider. Durations are written as "90s", "15m", "4h", "5d" or "1d12h", sizes as "512KB", "25MB" or "1GB" (K is 1024).`)
	now, std := reflect.ValueOf(c), reflect.ValueOf(Default())

	// TOML counts every key after a [table] line as that table's: plain keys
	// come first.
	for _, f := range fieldsOf(now.Type()) {
		if !isTable(f.typ) && !isTables(f.typ) {
			p.line("")
			p.key(f, now.Field(f.index), std.Field(f.index))
		}
	}
	for _, f := range fieldsOf(now.Type()) {
		switch v := now.Field(f.index); {
		case isTable(f.typ):
			p.line("")
			p.comment(f.doc)
			p.line(header(f))
			p.keys(v, std.Field(f.index))
		case isTables(f.typ):
			p.tables(f, v)
		}
	}
	if _, err := io.WriteString(w, p.b.String()); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

type printer struct {
	b      strings.Builder
	prefix string // of every line: "# " inside of what is commented out
}

func (p *printer) line(s string) {
	p.b.WriteString(strings.TrimRight(p.prefix+s, " "))
	p.b.WriteByte('\n')
}

// comment wraps text at words.
func (p *printer) comment(text string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(p.prefix+line+" "+word) > width {
			p.line(line)
			line = ""
		}
		if line == "" {
			line = "#"
		}
		line += " " + word
	}
	if line != "" {
		p.line(line)
	}
}

// keys writes the keys of one table; std is a zero Value where there is no
// default to compare with.
func (p *printer) keys(v, std reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		p.line("")
		var d reflect.Value
		if std.IsValid() {
			d = std.Field(f.index)
		}
		p.key(f, v.Field(f.index), d)
	}
}

func (p *printer) key(f field, v, std reflect.Value) {
	p.comment(f.doc)
	text := format(v)
	if std.IsValid() {
		if d := format(std); d != text {
			p.line("# default: " + d)
		}
	}
	p.line(f.key + " = " + text)
}

// tables writes an array of tables. What nobody wrote is commented out: the
// default listeners, which would no more be defaults if they were read back,
// and an example where there is nothing.
func (p *printer) tables(f field, list reflect.Value) {
	p.line("")
	p.comment(f.doc)
	listeners, _ := list.Interface().([]Listener)
	switch {
	case list.Len() == 0:
		list = reflect.ValueOf(example(f.key))
		p.line("#")
		p.comment("None now. An example:")
		p.prefix = "# "
	case len(listeners) > 0 && allDefault(listeners):
		p.line("#")
		p.comment("These are in use because none is named; those that can't be had are left out.")
		p.prefix = "# "
	}
	for i := range list.Len() {
		if i > 0 {
			p.line("")
		}
		p.line(header(f))
		if i == 0 {
			p.keys(list.Index(i), reflect.Value{})
			continue
		}
		for _, sub := range fieldsOf(list.Index(i).Type()) { // explained once
			p.line(sub.key + " = " + format(list.Index(i).Field(sub.index)))
		}
	}
	p.prefix = ""
}

func allDefault(list []Listener) bool {
	for _, l := range list {
		if !l.Default {
			return false
		}
	}
	return true
}

// example is an array of tables to show where there is none.
func example(key string) any {
	if key == "listen" {
		return Default().Listen
	}
	return []Route{{
		Domain:   "*",
		To:       "smtp.example.net:587",
		TLS:      "require",
		User:     "relay",
		Password: "/etc/postrider/smarthost-password",
	}}
}

// format writes a value as TOML.
func format(v reflect.Value) string {
	if text, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := text.MarshalText()
		if err != nil {
			panic("config: " + err.Error()) // those of this package never fail
		}
		return tomlString(string(b))
	}
	switch v.Kind() {
	case reflect.String:
		return tomlString(v.String())
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Int:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Slice:
		all := make([]string, v.Len())
		for i := range all {
			all[i] = format(v.Index(i))
		}
		return "[" + strings.Join(all, ", ") + "]"
	default:
		panic("config: no way to write a " + v.Type().String())
	}
}

// tomlString writes a TOML basic string. Go's quoting will not do: it knows
// escapes that TOML does not.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.ToValidUTF8(s, "\ufffd") {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
