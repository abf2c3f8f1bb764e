package crash

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// digest tells contents apart.
type digest [16]byte

func digestOf(b []byte) (d digest) {
	sum := sha256.Sum256(b)
	copy(d[:], sum[:])
	return d
}

// letter is a message as the client sent it. Its number names it everywhere: in
// the envelope's sender, in the first line of its content, and in the receiver's
// log.
type letter struct {
	number int
	kinds  []string // local part of each recipient: what the receiver does
	digest digest
}

const (
	senderDomain = "@sender.test"
	marker       = "X-Crash: " // begins what the client sent; the relay puts its own fields before
)

func senderOf(number int) string { return "m" + strconv.Itoa(number) + senderDomain }

// numberOf reads the number out of a sender's address.
func numberOf(address string) (int, bool) {
	s, ok := strings.CutSuffix(address, senderDomain)
	if !ok || !strings.HasPrefix(s, "m") {
		return 0, false
	}
	n, err := strconv.Atoi(s[1:])
	return n, err == nil
}

func recipientOf(kind string, i int) string { return fmt.Sprintf("%s@r%d.test", kind, i) }

// indexOf reads which recipient of its letter an address is.
func indexOf(address string) (int, bool) {
	_, domain, _ := strings.Cut(address, "@")
	s, ok := strings.CutSuffix(domain, ".test")
	if !ok || !strings.HasPrefix(s, "r") {
		return 0, false
	}
	n, err := strconv.Atoi(s[1:])
	return n, err == nil
}

// mix says how often a recipient that is not refused for ever is of each kind, in
// thousandths. What is not listed is accepted at once. The receiver's table of
// local parts (docs/sink.md) says what they do.
var mix = []struct {
	kind  string
	share int
}{
	{"mailbox-full", 40}, // 452 to RCPT, once
	{"greylist", 10},     // 451 for a second
	{"tempfail+2", 10},   // 451, twice
	{"drop-data", 2},     // the connection breaks inside the content, once
	{"shutdown", 1},      // 421, once
}

// chooseKind takes how many in a thousand are refused for ever.
func chooseKind(refused int) string {
	if rand.IntN(1000) < refused {
		if rand.IntN(3) == 0 {
			return "spam" // 550 to the content
		}
		return "bounce" // 550 to RCPT
	}
	n := rand.IntN(1000)
	for _, m := range mix {
		if n -= m.share; n < 0 {
			return m.kind
		}
	}
	return "ok"
}

// bounces tells whether mail for the kind comes back with a DSN instead of being
// delivered.
func bounces(kind string) bool { return kind == "bounce" || kind == "spam" }

const (
	largest       = 2 << 20
	maxRecipients = 5
)

// chooseSize is between 1 kB and 2 MB: most are small, as mail is; one in a
// hundred is beyond what the relay keeps in memory, or near it.
func chooseSize() int {
	switch n := rand.IntN(100); {
	case n < 85:
		return 1<<10 + rand.IntN(9<<10)
	case n < 99:
		return 10<<10 + rand.IntN(90<<10)
	default:
		return 100<<10 + rand.IntN(largest-100<<10)
	}
}

// writer makes letters.
type writer struct {
	text    []byte // lines to cut bodies out of
	refused int    // recipients of a thousand that are refused for ever

	mu   sync.Mutex
	last int
}

func newWriter(refused int) *writer {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .,-"
	var b bytes.Buffer
	for b.Len() < 2*largest {
		if rand.IntN(20) == 0 {
			b.WriteString(strings.Repeat(".", 1+rand.IntN(3))) // to be doubled on the way, and undone
		}
		for range rand.IntN(76) {
			b.WriteByte(alphabet[rand.IntN(len(alphabet))])
		}
		b.WriteString("\r\n")
	}
	return &writer{text: b.Bytes(), refused: refused}
}

// write makes the next letter and its content.
func (w *writer) write() (letter, []byte) {
	w.mu.Lock()
	w.last++
	l := letter{number: w.last}
	w.mu.Unlock()
	n := 1
	if rand.IntN(10) < 3 {
		n = 2 + rand.IntN(maxRecipients-1)
	}
	for range n {
		l.kinds = append(l.kinds, chooseKind(w.refused))
	}
	size := chooseSize()
	content := make([]byte, 0, size+1024)
	content = fmt.Appendf(content, "%s%d\r\nFrom: <%s>\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\nMessage-ID: <%d@client.test>\r\nSubject: letter %d\r\n\r\n",
		marker, l.number, senderOf(l.number), l.number, l.number)
	start := rand.IntN(len(w.text) - size)
	body := w.text[start:]
	body = body[bytes.IndexByte(body, '\n')+1:]
	body = body[:min(size, len(body))]
	content = append(content, body[:bytes.LastIndexByte(body, '\n')+1]...)
	l.digest = digestOf(content)
	return l, content
}
