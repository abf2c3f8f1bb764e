package crash

import (
	"bytes"
	"strings"
	"sync"

	"postrider/internal/dsn"
	"postrider/internal/sink"
)

// receiverLog holds what was delivered. It notes a message when it is taken and
// before that is acknowledged, so that it knows all that the relay can know.
type receiverLog struct {
	mu      sync.Mutex
	copies  map[copyOf]int   // how often each recipient got each content
	notices map[string]*dsns // by Message-ID
	strange []string         // what no client sent, or nobody can read
}

// copyOf is a letter as one recipient got it.
type copyOf struct {
	number, index int
	digest        digest
}

// dsns is one DSN, and how often it came.
type dsns struct {
	number int
	about  []int // recipients of the letter
	times  int
}

func newReceiverLog() *receiverLog {
	return &receiverLog{copies: map[copyOf]int{}, notices: map[string]*dsns{}}
}

// received is for the simulator to call.
func (l *receiverLog) received(m *sink.Message) {
	if m.From == "" {
		l.notice(m)
		return
	}
	number, ok := numberOf(m.From)
	i := bytes.Index(m.Content, []byte(marker))
	if !ok || i < 0 {
		l.doubt("a message from " + m.From + " that was never sent")
		return
	}
	d := digestOf(m.Content[i:])
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, to := range m.To() {
		index, ok := indexOf(to)
		if !ok {
			l.strange = append(l.strange, "a message for "+to)
			continue
		}
		l.copies[copyOf{number, index, d}]++
	}
}

func (l *receiverLog) notice(m *sink.Message) {
	r, err := dsn.Parse(bytes.NewReader(m.Content))
	number, ok := numberOf(strings.Join(m.To(), " "))
	if err != nil || !ok || r.Kind != dsn.Failed {
		l.doubt("a report to " + strings.Join(m.To(), " ") + " that is no DSN about a failure")
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.notices[r.MessageID]
	if n == nil {
		n = &dsns{number: number}
		for _, rcpt := range r.Recipients {
			if index, ok := indexOf(rcpt.Final); ok {
				n.about = append(n.about, index)
			} else {
				l.strange = append(l.strange, "a DSN about "+rcpt.Final)
			}
		}
		l.notices[r.MessageID] = n
	}
	n.times++
}

func (l *receiverLog) doubt(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strange = append(l.strange, what)
}
