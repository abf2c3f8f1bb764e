package crash

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// call is a system call in a trace.
type call struct {
	pid        string // of the thread
	at         string // time of day
	name       string
	file       string // what the descriptor stands for
	data       string // the first string among the arguments, decoded
	result     string
	begin, end int // lines of the trace, from 0, where it began and where it ended
}

// A line is a whole call, the beginning of one, or the end of one whose
// beginning stood alone because another thread came between.
var (
	callLine   = regexp.MustCompile(`^(\d+) +(\d\d:\d\d:\d\d\.\d+) (\w+)\((\d+)<((?:->|[^<>])*)>(.*)$`)
	resumeLine = regexp.MustCompile(`^(\d+) +\S+ <\.\.\. (\w+) resumed>(.*)$`)
	resultPart = regexp.MustCompile(`\) += +(-?\d+)[^"]*$`)
)

const unfinished = "<unfinished ...>"

// parseTrace reads what strace -f -yy -tt wrote. Calls are in the order in which
// they began; those that never ended are left out.
func parseTrace(r io.Reader) ([]call, error) {
	var calls []call
	open := map[string]int{} // by thread
	s := bufio.NewScanner(r)
	s.Buffer(nil, 4<<20)
	for line := 0; s.Scan(); line++ {
		if m := resumeLine.FindStringSubmatch(s.Text()); m != nil {
			if i, ok := open[m[1]]; ok && calls[i].name == m[2] {
				calls[i].finish(line, m[3])
				delete(open, m[1])
			}
			continue
		}
		m := callLine.FindStringSubmatch(s.Text())
		if m == nil {
			continue // a signal, the end of a thread
		}
		c := call{pid: m[1], at: m[2], name: m[3], file: m[5], data: firstString(m[6]), begin: line, end: -1}
		if strings.HasSuffix(m[6], unfinished) {
			open[c.pid] = len(calls)
		} else {
			c.finish(line, m[6])
		}
		calls = append(calls, c)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	var ended []call
	for _, c := range calls {
		if c.end >= 0 {
			ended = append(ended, c)
		}
	}
	return ended, nil
}

func (c *call) finish(line int, rest string) {
	c.end = line
	if m := resultPart.FindStringSubmatch(rest); m != nil {
		c.result = m[1]
	}
}

// firstString decodes the first string of a list of arguments, as far as strace
// shows it.
func firstString(args string) string {
	_, s, found := strings.Cut(args, `"`)
	if !found {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(s) && s[i] != '"'; i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if n := octal(s[i:]); n > 0 {
			v, _ := strconv.ParseUint(s[i:i+n], 8, 16)
			b.WriteByte(byte(v))
			i += n - 1
			continue
		}
		if at := strings.IndexByte("nrtfv", s[i]); at >= 0 {
			b.WriteByte("\n\r\t\f\v"[at])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// octal is how many digits of an octal number s begins with, up to three.
func octal(s string) (n int) {
	for n < 3 && n < len(s) && s[n] >= '0' && s[n] <= '7' {
		n++
	}
	return n
}

// find gives the first call that began at a line or later and is wanted.
func find(calls []call, from int, wanted func(call) bool) *call {
	for i := range calls {
		if calls[i].begin >= from && wanted(calls[i]) {
			return &calls[i]
		}
	}
	return nil
}
