package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// File is where the configuration is looked for when nobody says where.
const File = "/etc/postrider/postrider.toml"

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File string // "" when the configuration comes from no file
	Line int    // from 1; 0: not known
	Key  string // such as "queue.expire" or "listen[1].mode", counted from 0; may be ""
	Text string

	with string // the key of another value that has its part in it, or ""
}

func (p Problem) Error() string {
	var b strings.Builder
	switch {
	case p.File != "" && p.Line > 0:
		fmt.Fprintf(&b, "%s:%d: ", p.File, p.Line)
	case p.File != "":
		fmt.Fprintf(&b, "%s: ", p.File)
	case p.Line > 0:
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	if p.Key != "" {
		key := p.Key
		if p.Line > 0 { // the line says which one
			key = withoutIndices(key)
		}
		b.WriteString(key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems are all that was found, in the order of the file.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// err is nil when there are no problems.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// Find is the configuration file to use: named, if it is not empty, else what
// the environment's POSTRIDER_CONFIG names, else File if there is one, else "".
func Find(named string) string {
	if named != "" {
		return named
	}
	if env := os.Getenv("POSTRIDER_CONFIG"); env != "" {
		return env
	}
	// A file that is there and can't be read is for Load to complain of.
	if _, err := os.Stat(File); err == nil || !errors.Is(err, os.ErrNotExist) {
		return File
	}
	return ""
}

// Load reads the file at path over the defaults; "" gives the defaults.
// Relative paths in the file are relative to its folder. What is wrong inside
// the file is reported as Problems.
func Load(path string) (Config, error) {
	if path == "" {
		return Default(), nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(path, text)
	if err != nil {
		return Config{}, err
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	for _, file := range c.files() {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(folder, *file)
		}
	}
	return c, nil
}

// files are the settings that name one.
func (c *Config) files() []*string {
	files := []*string{&c.Data, &c.Master, &c.TLS.Cert, &c.TLS.Key, &c.TLS.ACMERoots, &c.Asked.CA, &c.Webhooks.CA, &c.Feedback.Rules, &c.Alerts.Secret, &c.Alerts.Slack}
	for i := range c.Route {
		files = append(files, &c.Route[i].Password, &c.Route[i].CA)
	}
	return files
}

// Parse reads TOML over the defaults and validates the whole. The name is that
// of the file, for errors. The error is of type Problems: all of them at once,
// but for TOML that can't be understood, of which the first is told.
func Parse(name string, text []byte) (Config, error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // what editors on Windows add
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		p := Problem{File: name, Text: strings.TrimPrefix(err.Error(), "toml: ")}
		var at *toml.DecodeError
		if errors.As(err, &at) {
			p.Line, _ = at.Position()
		}
		return Config{}, Problems{p}
	}

	c := Default()
	d := decoder{lines: keyLines(text), unread: make(map[string]bool)}
	d.table(reflect.ValueOf(&c).Elem(), tree, "")
	d.validate(&c)

	slices.SortStableFunc(d.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	for i := range d.problems {
		d.problems[i].File = name
	}
	if err := d.problems.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}
