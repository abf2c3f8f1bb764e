package sink

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Message is what was accepted.
type Message struct {
	ID         string      `json:"id"`
	Connection int64       `json:"connection"` // number of the connection, from 1
	Time       time.Time   `json:"time"`
	Client     string      `json:"client"` // IP address and port
	Helo       string      `json:"helo"`
	TLS        string      `json:"tls,omitempty"`    // version and cipher suite
	User       string      `json:"user,omitempty"`   // of AUTH
	From       string      `json:"from"`             // empty: the null reverse-path
	Params     string      `json:"params,omitempty"` // of MAIL, as sent
	Recipients []Recipient `json:"recipients"`       // accepted ones
	Refused    []Recipient `json:"refused,omitempty"`
	Size       int64       `json:"size"`            // of the content, in bytes, without added dots
	Lost       bool        `json:"lost,omitempty"`  // the client never got the reply
	Proof      *Proof      `json:"proof,omitempty"` // nil: not checked
	Content    []byte      `json:"-"`               // as sent, but for added dots; up to Config.Capture
}

// Recipient is one RCPT.
type Recipient struct {
	Address string `json:"address"`
	Params  string `json:"params,omitempty"` // as sent
}

// To gives the addresses of the accepted recipients.
func (m *Message) To() []string {
	to := make([]string, len(m.Recipients))
	for i, r := range m.Recipients {
		to[i] = r.Address
	}
	return to
}

// store is a folder of messages: <n>-<id>.eml and, when that is complete,
// <n>-<id>.json.
type store struct {
	dir  string
	last atomic.Int64
}

// openStore makes the folder and goes on counting where it left off.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make store: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	s := &store{dir: dir}
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "-")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil && n > s.last.Load() {
			s.last.Store(n)
		}
	}
	return s, nil
}

// spool is a message on its way into the store.
type spool struct {
	file *os.File
	*bufio.Writer
}

func (s *store) create() (*spool, error) {
	f, err := os.CreateTemp(s.dir, ".incoming-*")
	if err != nil {
		return nil, fmt.Errorf("store message: %w", err)
	}
	return &spool{f, bufio.NewWriterSize(f, 32<<10)}, nil
}

// drop forgets the message.
func (p *spool) drop() {
	p.file.Close()
	os.Remove(p.file.Name())
}

// commit gives the message its name, then writes the envelope beside it.
func (s *store) commit(p *spool, m *Message) error {
	err := p.Flush()
	if err == nil {
		err = p.file.Chmod(0o644)
	}
	if e := p.file.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(p.file.Name())
		return fmt.Errorf("store message: %w", err)
	}
	name := filepath.Join(s.dir, fmt.Sprintf("%06d-%s", s.last.Add(1), m.ID))
	if err := os.Rename(p.file.Name(), name+".eml"); err != nil {
		os.Remove(p.file.Name())
		return fmt.Errorf("store message: %w", err)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = os.WriteFile(name+".json.part", append(text, '\n'), 0o644)
	}
	if err == nil {
		err = os.Rename(name+".json.part", name+".json")
	}
	if err != nil {
		os.Remove(name + ".eml")
		os.Remove(name + ".json.part")
		return fmt.Errorf("store envelope: %w", err)
	}
	return nil
}
