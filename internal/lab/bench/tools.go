package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"postrider/internal/lab/process"
)

// smtpSink is Postfix's receiver. It counts.
type smtpSink struct {
	addr   string
	cmd    *exec.Cmd
	counts *os.File // "sess=… quit=… mesg=…\r", again and again
	wanted int      // messages since the start
}

func startSink(ctx context.Context, dir string) (*smtpSink, error) {
	path, err := tool("smtp-sink")
	if err != nil {
		return nil, err
	}
	addr, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	counts, err := os.Create(filepath.Join(dir, "sink"))
	if err != nil {
		return nil, fmt.Errorf("make file for counts: %w", err)
	}
	args := []string{"-c", addr, "1024"}
	if os.Geteuid() == 0 {
		args = append([]string{"-u", "nobody"}, args...)
	}
	s := &smtpSink{addr: addr, cmd: exec.Command(path, args...), counts: counts}
	s.cmd.Stdout, s.cmd.Stderr = counts, os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start smtp-sink: %w", err), counts.Close())
	}
	if err := answers(ctx, addr); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *smtpSink) close() error {
	_ = s.cmd.Process.Kill() // an error: it has ended already
	_ = s.cmd.Wait()         // killed
	return s.counts.Close()
}

// received counts the messages since the start.
func (s *smtpSink) received() (int, error) {
	end, err := s.counts.Seek(0, 2)
	if err != nil {
		return 0, fmt.Errorf("read count: %w", err)
	}
	tail := make([]byte, min(end, 200))
	if _, err := s.counts.ReadAt(tail, end-int64(len(tail))); err != nil {
		return 0, fmt.Errorf("read count: %w", err)
	}
	tail = tail[:max(0, bytes.LastIndexByte(tail, '\r'))]
	_, number, found := bytes.Cut(tail[max(0, bytes.LastIndexByte(tail, '\r')):], []byte("mesg="))
	if !found {
		return 0, nil
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(number)))
	if err != nil {
		return 0, fmt.Errorf("read count: %w", err)
	}
	return n, nil
}

// expect says that n more messages are about to come.
func (s *smtpSink) expect(n int) error {
	have, err := s.received()
	if err != nil {
		return err
	}
	if have != s.wanted {
		return fmt.Errorf("%d messages were sent and %d received", s.wanted, have)
	}
	s.wanted += n
	return nil
}

// complete tells whether all that are expected have come.
func (s *smtpSink) complete() (bool, error) {
	have, err := s.received()
	return have >= s.wanted, err
}

// smtpSource is Postfix's client.
func (b *bench) smtpSource(size int, keep bool) load {
	args := []string{"-s", strconv.Itoa(b.o.Sessions), "-l", strconv.Itoa(size), "-f", sender, "-t", recipient}
	if keep {
		args = append(args, "-d")
	}
	return func(ctx context.Context, addr string, n int) (sent, error) {
		path, err := tool("smtp-source")
		if err != nil {
			return sent{}, err
		}
		cmd := exec.CommandContext(ctx, path, append(args, "-m", strconv.Itoa(n), addr)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return sent{}, fmt.Errorf("smtp-source: %w\n%s", err, out)
		}
		return sent{cpu: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}, nil
	}
}

// The envelope of all messages.
const (
	sender    = "sender@client.example"
	recipient = "recipient@receiver.example"
)

// tool finds a program of Postfix's.
func tool(name string) (string, error) {
	path := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is missing; it comes with Postfix (scripts/install-test-deps.sh)", name)
	}
	return path, nil
}

// answers waits until something listens.
func answers(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return wait(ctx, 20*time.Millisecond, addr, func() (bool, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
}
