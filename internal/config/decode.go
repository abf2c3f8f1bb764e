package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// decoder sets the fields of a Config from a TOML tree and remembers all that
// is wrong, where the library would stop at the first.
type decoder struct {
	lines    map[string]int // of each key, by its path
	problems Problems
	unread   map[string]bool // paths with a problem, see mark
}

func (d *decoder) add(path, format string, args ...any) {
	d.problems = append(d.problems, Problem{Line: d.line(path), Key: path, Text: fmt.Sprintf(format, args...)})
	d.mark(path)
}

// mark remembers that the value at path is not what somebody meant, and so for
// the list that it is in, and for the table if it is one of a list.
func (d *decoder) mark(path string) {
	d.unread[path] = true
	if strings.HasSuffix(path, "]") {
		d.unread[path[:strings.LastIndex(path, "[")]] = true
	}
	if element := section(path); strings.HasSuffix(element, "]") {
		d.unread[element] = true
	}
}

// line is that of the key or, where it is not in the file, of the nearest
// table around it.
func (d *decoder) line(path string) int {
	for path != "" {
		if n, ok := d.lines[path]; ok {
			return n
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return 0
}

// validate adds what is wrong with the whole, but not where a part could not
// be read: there it would speak of values that nobody wrote.
func (d *decoder) validate(c *Config) {
	found, _ := c.Validate().(Problems)
	for _, p := range found {
		if !d.unread[p.Key] && !d.unread[section(p.Key)] && !d.unread[p.with] {
			p.Line = d.line(p.Key)
			d.problems = append(d.problems, p)
		}
	}
}

func (d *decoder) table(dst reflect.Value, tree map[string]any, path string) {
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if f, ok := fieldOf(dst.Type(), key); ok {
			d.value(dst.Field(f.index), tree[key], join(path, key))
		} else {
			d.unknown(dst.Type(), key, path)
		}
	}
}

func (d *decoder) value(dst reflect.Value, src any, path string) {
	t := dst.Type()
	if text, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.text(text, src, path)
		return
	}
	ok := false
	switch t.Kind() {
	case reflect.Struct:
		var tree map[string]any
		if tree, ok = src.(map[string]any); ok {
			d.table(dst, tree, path)
		}
	case reflect.Slice:
		var list []any
		if list, ok = src.([]any); ok {
			d.list(dst, list, path)
		}
	case reflect.String:
		var s string
		if s, ok = src.(string); ok {
			dst.SetString(s)
		}
	case reflect.Bool:
		var b bool
		if b, ok = src.(bool); ok {
			dst.SetBool(b)
		}
	case reflect.Int:
		var n int64
		if n, ok = src.(int64); ok {
			if dst.OverflowInt(n) {
				d.add(path, "%d is too large", n)
				return
			}
			dst.SetInt(n)
		}
	default:
		panic("config: no way to read a " + t.String())
	}
	if !ok {
		d.add(path, "%s is not %s", describe(src), want(t, path))
	}
}

// text sets a type of ours, which is written as a string.
func (d *decoder) text(dst encoding.TextUnmarshaler, src any, path string) {
	var err error
	switch src := src.(type) {
	case string:
		err = dst.UnmarshalText([]byte(src))
	case int64:
		number, ok := dst.(interface{ setInt(int64) error })
		if !ok {
			d.add(path, "%d is not %s", src, want(reflect.TypeOf(dst).Elem(), path))
			return
		}
		err = number.setInt(src)
	default:
		d.add(path, "%s is not %s", describe(src), want(reflect.TypeOf(dst).Elem(), path))
		return
	}
	if err != nil {
		d.add(path, "%s", err)
	}
}

// list replaces what was there: naming one replaces the defaults.
func (d *decoder) list(dst reflect.Value, list []any, path string) {
	dst.SetZero()
	if len(list) == 0 {
		return
	}
	dst.Set(reflect.MakeSlice(dst.Type(), len(list), len(list)))
	for i, src := range list {
		d.value(dst.Index(i), src, index(path, i))
	}
}

func (d *decoder) unknown(t reflect.Type, key, path string) {
	text := fmt.Sprintf("unknown key %s", quote(key))
	if path != "" {
		text += " in [" + withoutIndices(path) + "]"
		d.mark(path)
	}
	if hint := nearest(t, key); hint != "" {
		text += fmt.Sprintf("; did you mean %q?", hint)
	} else if where := elsewhere(key); where != "" {
		text += "; it belongs " + where
	} else {
		text += "; known here: " + strings.Join(keysOf(t), ", ")
	}
	d.problems = append(d.problems, Problem{Line: d.line(join(path, key)), Text: text})
}

// nearest is the key of t that looks most like key, "" when none does.
func nearest(t reflect.Type, key string) string {
	if len(key) > 40 {
		return ""
	}
	key = strings.ToLower(key)
	best, least := "", 1+max(1, len(key)/3)
	for _, known := range keysOf(t) {
		if n := distance(key, known); n < least {
			best, least = known, n
		}
	}
	if best != "" {
		return best
	}
	for _, known := range keysOf(t) { // password for password_file
		if strings.HasPrefix(known, key+"_") || strings.HasPrefix(key, known+"_") {
			return known
		}
	}
	return ""
}

// distance counts the letters to insert, drop, change or swap with their
// neighbour to make b of a (optimal string alignment). It goes by bytes: keys
// are ASCII.
func distance(a, b string) int {
	// Rows of the usual table: the one before last, the last, this one.
	before, last, this := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		this[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			this[j] = min(last[j]+1, this[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				this[j] = min(this[j], before[j-2]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(b)]
}

// elsewhere says where a key would be right: after a [table] line, TOML counts
// every key as the table's.
func elsewhere(key string) string {
	root := reflect.TypeFor[Config]()
	if _, ok := fieldOf(root, key); ok {
		return "at the top of the file, before the first [table]"
	}
	var tables []string
	for _, f := range fieldsOf(root) {
		t := f.typ
		if t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if !isTable(t) {
			continue
		}
		if _, ok := fieldOf(t, key); ok {
			tables = append(tables, header(f))
		}
	}
	if len(tables) == 0 {
		return ""
	}
	return "in " + strings.Join(tables, " or ")
}

// field is one key of a table.
type field struct {
	index int
	key   string
	doc   string
	typ   reflect.Type
}

func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		if key := f.Tag.Get("toml"); key != "-" {
			fields = append(fields, field{i, key, f.Tag.Get("doc"), f.Type})
		}
	}
	return fields
}

func fieldOf(t reflect.Type, key string) (field, bool) {
	for _, f := range fieldsOf(t) {
		if f.key == key {
			return f, true
		}
	}
	return field{}, false
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range fieldsOf(t) {
		keys = append(keys, f.key)
	}
	return keys
}

// isTable tells tables from the structs that are written as text.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// isTables reports whether t is an array of tables.
func isTables(t reflect.Type) bool { return t.Kind() == reflect.Slice && isTable(t.Elem()) }

func header(f field) string {
	if isTables(f.typ) {
		return "[[" + f.key + "]]"
	}
	return "[" + f.key + "]"
}

// want says what a value of type t looks like.
func want(t reflect.Type, path string) string {
	switch t {
	case reflect.TypeFor[Duration]():
		return wantDuration
	case reflect.TypeFor[Size]():
		return wantSize
	case reflect.TypeFor[Prefix]():
		return wantPrefix
	case reflect.TypeFor[Addr]():
		return wantAddr
	}
	key := withoutIndices(path)
	switch {
	case isTables(t):
		return "a list of tables; head each with [[" + key + "]]"
	case isTable(t) && strings.HasSuffix(path, "]"):
		return "a table"
	case isTable(t):
		return "a table; head it with [" + key + "]"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "a list in [brackets]"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	default:
		return "a text in quotes"
	}
}

// describe shows a value of the wrong type.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case map[string]any:
		return "a table"
	case []any:
		if len(v) > 0 {
			if _, ok := v[0].(map[string]any); ok {
				return "a list of tables"
			}
		}
		return "a list"
	default:
		return fmt.Sprint(v)
	}
}

// join and index make paths: "listen[1].address".
func join(path, key string) string {
	if strings.ContainsAny(key, ".[]\"") || key == "" {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// section is the part of a path that names a whole table.
func section(path string) string {
	before, _, _ := strings.Cut(path, ".")
	return before
}

func withoutIndices(path string) string {
	var b strings.Builder
	inside := false
	for _, r := range path {
		switch {
		case r == '[':
			inside = true
		case r == ']':
			inside = false
		case !inside:
			b.WriteRune(r)
		}
	}
	return b.String()
}
