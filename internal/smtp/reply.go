package smtp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Reply is one reply of a server (RFC 5321 section 4.2). It serves as an error
// where a command is refused.
type Reply struct {
	Code     int      // 200 to 599
	Enhanced string   // "5.1.1", or empty (RFC 2034, RFC 3463)
	Lines    []string // the text of each line, without codes and line ends
}

// NewReply makes a reply. A text with newlines becomes several lines.
func NewReply(code int, enhanced, text string) Reply {
	return Reply{Code: code, Enhanced: enhanced, Lines: strings.Split(text, "\n")}
}

// Positive tells whether the command went well, or (3xx) wants more.
func (r Reply) Positive() bool { return r.Code >= 200 && r.Code < 400 }

// Temporary tells whether the same command may go well later.
func (r Reply) Temporary() bool { return r.Code >= 400 && r.Code < 500 }

// Permanent tells whether the same command will fail again.
func (r Reply) Permanent() bool { return r.Code >= 500 && r.Code < 600 }

// Text is the lines joined by newlines, without codes.
func (r Reply) Text() string {
	if len(r.Lines) == 1 {
		return r.Lines[0]
	}
	return strings.Join(r.Lines, "\n")
}

// String is the reply in one line: "550 5.1.1 No such user".
func (r Reply) String() string {
	b := strconv.AppendInt(nil, int64(r.Code), 10)
	if r.Enhanced != "" {
		b = append(append(b, ' '), r.Enhanced...)
	}
	for _, l := range r.Lines {
		if l != "" {
			b = append(append(b, ' '), l...)
		}
	}
	return string(b)
}

func (r Reply) Error() string { return r.String() }

// maxReplyText bounds the text of a line that we send: with the codes and the
// line end it stays under the 512 octets of RFC 5321 section 4.5.3.1.5.
const maxReplyText = 480

// AppendTo appends the reply as it goes over the wire, the enhanced code on each
// line (RFC 2034 section 4). Line ends and NUL inside the text become spaces, and
// long lines are split.
func (r Reply) AppendTo(b []byte) []byte {
	if len(r.Lines) == 0 {
		return r.appendLine(b, ' ', "")
	}
	for i, l := range r.Lines {
		for len(l) > maxReplyText {
			n := splitAt(l)
			b = r.appendLine(b, '-', l[:n])
			l = strings.TrimPrefix(l[n:], " ")
		}
		sep := byte('-')
		if i == len(r.Lines)-1 {
			sep = ' '
		}
		b = r.appendLine(b, sep, l)
	}
	return b
}

// splitAt finds where to split a text that is longer than maxReplyText: at the
// last space if there is one in the second half, never inside a character.
func splitAt(s string) int {
	if i := strings.LastIndexByte(s[:maxReplyText], ' '); i > maxReplyText/2 {
		return i
	}
	n := maxReplyText
	for n > maxReplyText-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return n
}

func (r Reply) appendLine(b []byte, sep byte, text string) []byte {
	b = append(strconv.AppendInt(b, int64(r.Code), 10), sep)
	if r.Enhanced != "" {
		b = append(b, r.Enhanced...)
		if text != "" {
			b = append(b, ' ')
		}
	}
	for i := range len(text) {
		c := text[i]
		if c == '\r' || c == '\n' || c == 0 {
			c = ' '
		}
		b = append(b, c)
	}
	return append(b, '\r', '\n')
}

// ErrReplyTooLong says that a peer's reply passed the bound.
var ErrReplyTooLong = errors.New("the reply is too long")

// ReplyError says that what the peer sent is not an SMTP reply.
type ReplyError struct {
	Line string // what it sent instead, shortened
}

func (e *ReplyError) Error() string { return fmt.Sprintf("not an SMTP reply: %q", e.Line) }

// maxReplyLines bounds the lines of a peer's reply.
const maxReplyLines = 500

// ReadReply reads one reply of at most max bytes (RFC 5321 section 4.2.1). It
// takes what servers really send: a bare LF as line end, no text, no space, an
// enhanced code on some lines only, and lines over 512 bytes. Where the codes of
// the lines differ, the last one counts. The text comes out as UTF-8 without
// control characters.
//
// The error is a *ReplyError for nonsense, ErrReplyTooLong, io.EOF when nothing
// came, or what the reader said.
func ReadReply(br *bufio.Reader, max int) (Reply, error) {
	var r Reply
	for n := 0; ; n++ {
		line, err := readReplyLine(br, max)
		if err != nil {
			if err == io.EOF && n > 0 {
				err = io.ErrUnexpectedEOF
			}
			return Reply{}, err
		}
		max -= len(line)
		if n == maxReplyLines {
			return Reply{}, ErrReplyTooLong
		}
		code, more, text, ok := parseReplyLine(line)
		if !ok {
			return Reply{}, &ReplyError{Line: clean(shorten(string(line)))}
		}
		r.Code = code
		r.Lines = append(r.Lines, clean(string(text)))
		if !more {
			r.takeEnhanced()
			return r, nil
		}
	}
}

// readReplyLine reads to the next LF. The line is in br's buffer unless it is
// longer than that.
func readReplyLine(br *bufio.Reader, max int) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		long := append([]byte(nil), line...)
		for err == bufio.ErrBufferFull && len(long) <= max {
			line, err = br.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	switch {
	case len(line) > max:
		return nil, ErrReplyTooLong
	case err == io.EOF && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return line, nil
}

func parseReplyLine(line []byte) (code int, more bool, text []byte, ok bool) {
	line = trimLineEnd(line)
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, false, nil, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, nil, false
		}
		code = code*10 + int(c-'0')
	}
	if len(line) == 3 {
		return code, false, nil, true
	}
	switch line[3] {
	case '-':
		more = true
	case ' ', '\t':
	default:
		return 0, false, nil, false
	}
	return code, more, line[4:], true
}

// trimLineEnd cuts LF and any CR before it: some servers end lines with CRCRLF.
func trimLineEnd(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	for n := len(line); n > 0 && line[n-1] == '\r'; n-- {
		line = line[:n-1]
	}
	return line
}

// takeEnhanced moves the enhanced code from the text into its field. The first
// one that fits the code counts; other lines lose it where it is the same.
func (r *Reply) takeEnhanced() {
	for i, l := range r.Lines {
		n := enhancedLen(l)
		if n == 0 || int(l[0]-'0') != r.Code/100 {
			continue
		}
		if r.Enhanced == "" {
			r.Enhanced = l[:n]
		}
		if l[:n] == r.Enhanced {
			r.Lines[i] = strings.TrimPrefix(l[n:], " ")
		}
	}
}

// enhancedLen is the length of the enhanced code at the start of s, or 0
// (RFC 3463 section 2: class "." 1*3digit "." 1*3digit).
func enhancedLen(s string) int {
	if len(s) < 5 || s[0] != '2' && s[0] != '4' && s[0] != '5' {
		return 0
	}
	n := 1
	for range 2 {
		if n == len(s) || s[n] != '.' {
			return 0
		}
		n++
		digits := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
			digits++
		}
		if digits == 0 || digits > 3 {
			return 0
		}
	}
	if n < len(s) && s[n] != ' ' {
		return 0
	}
	return n
}

// clean replaces what must not reach a log or a terminal.
func clean(s string) string {
	plain := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

func shorten(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
