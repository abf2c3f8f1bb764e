package config

import (
	"sort"

	"github.com/pelletier/go-toml/v2/unstable"
)

// keyLines gives the line, from 1, of every key of a TOML text that is known
// to be sound, by the key's path.
func keyLines(text []byte) map[string]int {
	w := walker{lines: make(map[string]int), last: make(map[string]int)}
	for i, b := range text {
		if b == '\n' {
			w.ends = append(w.ends, i)
		}
	}
	var p unstable.Parser
	p.Reset(text)
	table := ""
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table:
			table = w.keys("", e.Key(), false)
		case unstable.ArrayTable:
			table = w.keys("", e.Key(), true)
		case unstable.KeyValue:
			w.keyValue(table, e)
		}
	}
	return w.lines
}

type walker struct {
	ends  []int          // offsets of the line ends
	lines map[string]int // by path
	last  map[string]int // how many tables each array of tables has by now
}

// keys follows a dotted key from the table at path and gives where it leads.
func (w *walker) keys(path string, keys unstable.Iterator, array bool) string {
	for keys.Next() {
		n := keys.Node()
		path = join(path, string(n.Data))
		w.note(path, n)
		switch count, isArray := w.last[path]; {
		case array && keys.IsLast():
			w.last[path]++
			path = index(path, count)
			w.note(path, n)
		case isArray:
			path = index(path, count-1)
		}
	}
	return path
}

func (w *walker) keyValue(table string, n *unstable.Node) {
	w.value(w.keys(table, n.Key(), false), n.Value())
}

func (w *walker) value(path string, n *unstable.Node) {
	switch n.Kind {
	case unstable.InlineTable:
		for it := n.Children(); it.Next(); {
			w.keyValue(path, it.Node())
		}
	case unstable.Array:
		i := 0
		for it := n.Children(); it.Next(); i++ {
			w.value(index(path, i), it.Node())
		}
	default:
		w.note(path, n)
	}
}

// note keeps the first place where a path is named.
func (w *walker) note(path string, n *unstable.Node) {
	if _, ok := w.lines[path]; ok || n.Raw.Length == 0 {
		return
	}
	w.lines[path] = 1 + sort.SearchInts(w.ends, int(n.Raw.Offset))
}
