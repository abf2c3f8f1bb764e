package crash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Order sends one message through a relay that strace watches, and checks that
// its 250 is written only after the commit that holds it was synced. It gives
// the calls that matter, in their order. It needs strace, and a Linux that lets
// it attach.
func Order(ctx context.Context, o Options) ([]string, error) {
	h := &harness{o: o, got: newReceiverLog(), sent: &clientLog{letters: map[int]acknowledged{}}, result: &Result{}}
	h.o.Store = orElse(o.Store, "sqlite")
	if err := h.prepare(ctx); err != nil {
		return nil, err
	}
	defer h.engine.close() // with the folder, whatever became of it
	if o.Dir == "" {
		defer os.RemoveAll(h.dir)
	}
	trace := filepath.Join(h.dir, "trace")
	if err := h.serve(ctx, func(ctx context.Context) error {
		if err := h.first(ctx); err != nil {
			return err
		}
		return h.watch(ctx, trace)
	}); err != nil {
		return nil, err
	}
	f, err := os.Open(trace)
	if err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	defer f.Close()
	calls, err := parseTrace(f)
	if err != nil {
		return nil, err
	}
	return h.engine.order(calls)
}

// orderMark stands in the message, so that the write that holds it is found. The
// message is short, so that no engine compresses it.
const orderMark = "this-is-the-message-that-must-not-be-lost"

// watch sends the message while strace is attached.
func (h *harness) watch(ctx context.Context, trace string) (err error) {
	args := []string{"-f", "-yy", "-tt", "-s", "262144", "-o", trace,
		"-e", "trace=write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync", "-p", strconv.Itoa(h.relay.PID())}
	if h.engine.server != nil {
		for _, pid := range h.engine.server.PIDs() {
			args = append(args, "-p", strconv.Itoa(pid))
		}
	}
	cmd := exec.CommandContext(ctx, "strace", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // or the relay would stay stopped
	said, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("start strace: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start strace: %w", err)
	}
	lines := bufio.NewScanner(said)
	wanted := strings.Count(strings.Join(args, " "), " -p ")
	var heard []string
	for wanted > 0 && lines.Scan() {
		heard = append(heard, lines.Text())
		if strings.Contains(lines.Text(), "attached") {
			wanted--
		}
	}
	if wanted > 0 {
		return errors.Join(fmt.Errorf("strace can't attach: %s", strings.Join(heard, "; ")), cmd.Wait())
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, said)
	}()
	sent := h.sendMarked(ctx)
	_ = cmd.Process.Signal(os.Interrupt) // it detaches and ends
	<-drained
	_ = cmd.Wait() // its status is the signal
	return errors.Join(sent, h.relay.Stop())
}

// sendMarked sends in the clear, so that the reply can be read in the trace.
func (h *harness) sendMarked(ctx context.Context) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: networkAddr}}
	conn, err := d.DialContext(ctx, "tcp", h.relay.Addr)
	if err != nil {
		return fmt.Errorf("call the relay: %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		return fmt.Errorf("greet the relay: %w", err)
	}
	err = errors.Join(c.Mail(senderOf(1)), c.Rcpt(recipientOf("ok", 0)))
	w, dataErr := c.Data()
	if err = errors.Join(err, dataErr); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	// Twice, because a page of the log may begin in the midst of one of them.
	_, err = fmt.Fprintf(w, "%s1\r\nSubject: order\r\n\r\n%s\r\n%[2]s\r\n", marker, orderMark)
	if err := errors.Join(err, w.Close(), c.Quit()); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// orderSQLite looks for: the page with the message written to the log, the
// frame that commits it, a sync of the log that began after that and ended well,
// and the reply, begun after the sync had ended.
func orderSQLite(calls []call) ([]string, error) {
	var told []string
	tell := func(c call, what string) { told = append(told, fmt.Sprintf("%s  %-10s %s", c.at, c.name, what)) }
	inLog := func(c call) bool { return strings.HasSuffix(c.file, "-wal") && strings.Contains(c.name, "write") }

	page := find(calls, 0, func(c call) bool { return inLog(c) && strings.Contains(c.data, orderMark) })
	if page == nil {
		return told, errors.New("the message is not written to the store's log")
	}
	tell(*page, "the message, to the store's log")
	// A frame has a header of 24 bytes; in that of the one that commits the
	// second word, the size of the database, is not 0
	// (https://sqlite.org/fileformat2.html#the_write_ahead_log).
	head := find(calls, page.end+1, func(c call) bool { return inLog(c) && len(c.data) == 24 && c.data[4:8] != "\x00\x00\x00\x00" })
	if head == nil {
		return told, errors.New("the message is not committed")
	}
	frame := find(calls, head.end+1, func(c call) bool { return inLog(c) && c.pid == head.pid })
	if frame == nil {
		return told, errors.New("the commit has no page")
	}
	tell(*frame, "the commit, to the store's log")
	reply := find(calls, 0, func(c call) bool { return strings.HasPrefix(c.data, "250 2.0.0 Ok: queued as ") })
	if reply == nil {
		return told, errors.New("the message is not acknowledged")
	}
	sync := find(calls, frame.end+1, func(c call) bool {
		return (c.name == "fsync" || c.name == "fdatasync") && strings.HasSuffix(c.file, "-wal") && c.result == "0"
	})
	if sync == nil || sync.end > reply.begin {
		tell(*reply, strings.TrimSpace(reply.data))
		return told, errors.New("the message is acknowledged before its commit is synced")
	}
	tell(*sync, "the store's log, to the disk")
	tell(*reply, strings.TrimSpace(reply.data))
	return told, nil
}

// orderPostgres looks for: the message written to the write-ahead log, by
// whichever process of the server; a sync of the log that began after all that
// the committing process wrote of it, and ended well; its reply to the relay's
// commit, begun after that; and our reply, begun after the relay had it. addr is
// the server's.
func orderPostgres(calls []call, addr string) ([]string, error) {
	var told []string
	tell := func(c call, what string) { told = append(told, fmt.Sprintf("%s  %-10s %s", c.at, c.name, what)) }
	inLog := func(c call) bool { return strings.Contains(c.file, "/pg_wal/") }

	page := find(calls, 0, func(c call) bool {
		return inLog(c) && strings.Contains(c.name, "write") && strings.Contains(c.data, orderMark)
	})
	reply := find(calls, 0, func(c call) bool { return strings.HasPrefix(c.data, "250 2.0.0 Ok: queued as ") })
	early := errors.New("the message is acknowledged before its commit is synced")
	switch {
	case page == nil && reply == nil:
		return told, errors.New("the message is not written to the store's log")
	case page == nil: // and is nowhere yet
		tell(*reply, strings.TrimSpace(reply.data))
		return told, early
	}
	tell(*page, "the message, to the store's log")
	// The relay sent it over the connection whose other end commits it.
	sent := find(calls, 0, func(c call) bool {
		return strings.HasSuffix(c.file, "->"+addr+"]") && strings.Contains(c.data, orderMark)
	})
	if sent == nil {
		return told, errors.New("the message is not sent to the store")
	}
	own := strings.TrimSuffix(strings.TrimPrefix(sent.file, "TCP:["), "->"+addr+"]")
	// It may be answered before anything of it is written, where it is not synced.
	commit := find(calls, sent.end+1, func(c call) bool {
		return c.file == "TCP:["+addr+"->"+own+"]" && strings.Contains(c.data, "COMMIT\x00")
	})
	if commit == nil {
		return told, errors.New("the message is not committed")
	}
	synced := lastSync(calls, commit, inLog)
	switch {
	case reply == nil:
		return told, errors.New("the message is not acknowledged")
	case synced == nil || synced.begin <= page.end || commit.begin >= reply.begin:
		tell(*commit, "the commit's reply, to the relay")
		tell(*reply, strings.TrimSpace(reply.data))
		return told, early
	}
	tell(*synced, "the store's log, to the disk")
	tell(*commit, "the commit's reply, to the relay")
	tell(*reply, strings.TrimSpace(reply.data))
	return told, nil
}

// lastSync is the last sync of the log that ended well before a commit was
// answered; nil if the process that answered has written to the log since.
func lastSync(calls []call, commit *call, inLog func(call) bool) *call {
	var synced *call
	for i := range calls {
		c := &calls[i]
		switch {
		case !inLog(*c) || c.begin >= commit.begin:
		case (c.name == "fsync" || c.name == "fdatasync") && c.result == "0" && c.end < commit.begin:
			synced = c
		case strings.Contains(c.name, "write") && c.pid == commit.pid:
			synced = nil
		}
	}
	return synced
}
