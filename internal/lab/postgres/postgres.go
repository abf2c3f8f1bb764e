// Package postgres runs PostgreSQL servers of their own for tests, benchmarks
// and the crash harness: on loopback, in a temporary folder, as durable as in
// production unless told otherwise, and gone with the process that began them.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	labprocess "postrider/internal/lab/process"
)

// patience is how long a server may take to start or to stop: a start after a
// kill replays what was written, and syncs every file, which a slow disk takes its
// time for.
const patience = 4 * time.Minute

// oldest is the oldest version of PostgreSQL that Postrider works with.
const oldest = 15

// Options say how a server is run.
type Options struct {
	// Unsynced switches fsync off: for tests that kill nothing but processes,
	// or nothing at all, and want to be fast.
	Unsynced bool
	// Settings are more lines of the server's configuration: "name = value".
	Settings []string
	// Dir is where the server's folder is made. Empty: among temporary files.
	Dir string
}

// Server is a PostgreSQL server. One goroutine at a time may start and end it;
// NewDatabase and URL may be called from many.
type Server struct {
	bin     string // the folder of its programs
	folder  string
	addr    string
	user    *account
	process *process // nil while it does not run
	made    atomic.Int64
}

// Run starts a server that ends with the test. A missing PostgreSQL fails the
// test.
func Run(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// New makes a cluster of databases and starts its server. Close ends it.
func New(ctx context.Context, o Options) (*Server, error) {
	s, err := prepare(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := s.make(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) make(ctx context.Context, o Options) error {
	if err := s.run(ctx, "initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"); err != nil {
		return err
	}
	settings := append([]string{"unix_socket_directories = ''", "listen_addresses = '127.0.0.1'", "shared_buffers = 64MB",
		"log_line_prefix = '%m [%p] '"}, o.Settings...)
	if o.Unsynced {
		settings = append(settings, "fsync = off", "full_page_writes = off")
	}
	if err := s.configure(settings); err != nil {
		return err
	}
	return s.Start(ctx)
}

// prepare finds the programs and makes a folder for a server in dir.
func prepare(dir string) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	user, err := unprivileged()
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp(dir, "postrider-postgres-")
	if err != nil {
		return nil, fmt.Errorf("make folder for PostgreSQL: %w", err)
	}
	s := &Server{bin: bin, folder: folder, user: user}
	if err := user.own(folder); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// programs gives the folder of the newest server's programs.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", fmt.Errorf("look for PostgreSQL: %w", err)
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // no number is too old
		return n
	}
	found = slices.DeleteFunc(found, func(path string) bool { return version(path) < oldest })
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(version(a), version(b)) })), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", fmt.Errorf("no PostgreSQL server of version %d or newer is installed; scripts/install-test-deps.sh installs it (Debian's package postgresql)", oldest)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil { // initdb lies beside it
		return "", fmt.Errorf("look for PostgreSQL: %w", err)
	}
	return filepath.Dir(path), nil
}

func (s *Server) data() string { return filepath.Join(s.folder, "data") }
func (s *Server) log() string  { return filepath.Join(s.folder, "log") }

func (s *Server) port() string {
	_, port, _ := net.SplitHostPort(s.addr) // as net.Listener gave it
	return port
}

// configure chooses a port and adds lines to the server's configuration; the last
// one of a name counts. It is called right before the start: until then somebody
// else may take the port.
func (s *Server) configure(lines []string) (err error) {
	if s.addr, err = labprocess.FreeAddr(); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configure PostgreSQL: %w", err)
	}
	_, err = fmt.Fprintf(f, "\nport = %s\n%s\n", s.port(), strings.Join(lines, "\n"))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("configure PostgreSQL: %w", err)
	}
	return nil
}

// run runs one of the programs to its end.
func (s *Server) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir, cmd.SysProcAttr = s.folder, s.user.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w\n%s", name, err, out)
	}
	return nil
}

// Start starts the server again after Stop or Kill, on the same port and
// folder, and waits until it answers.
func (s *Server) Start(ctx context.Context) error {
	if s.process != nil {
		return errors.New("start PostgreSQL: it runs already")
	}
	p, err := launch(s.user, s.folder, s.log(), filepath.Join(s.bin, "postgres"), "-D", s.data())
	if err != nil {
		return err
	}
	s.process = p
	if err := p.answers(ctx, s.URL()); err != nil {
		return errors.Join(err, s.Kill())
	}
	return nil
}

// answers waits until a database answers.
func (p *process) answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-p.ended:
			return p.failed("it ended at its start")
		case <-ctx.Done():
			return p.failed(err.Error())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server in order; open transactions are rolled back.
func (s *Server) Stop() error { return s.end((*process).stop) }

// Kill ends all of the server's processes by SIGKILL, and waits until they are
// gone.
func (s *Server) Kill() error { return s.end((*process).kill) }

func (s *Server) end(how func(*process) error) error {
	p := s.process
	if s.process = nil; p == nil {
		return nil
	}
	return how(p)
}

// Close ends the server and removes its folder.
func (s *Server) Close() error { return errors.Join(s.Kill(), os.RemoveAll(s.folder)) }

// Addr is host:port, for a proxy in front of it.
func (s *Server) Addr() string { return s.addr }

// PID is the process that starts all others of the server; 0 while none runs.
func (s *Server) PID() int {
	if s.process == nil {
		return 0
	}
	return s.process.cmd.Process.Pid
}

// PIDs are all processes of the server, as far as the system tells.
func (s *Server) PIDs() []int {
	if s.process == nil {
		return nil
	}
	return append([]int{s.PID()}, childrenOf(s.PID())...)
}

// URL is the server's database that exists from the start.
func (s *Server) URL() string { return s.database("postgres") }

func (s *Server) database(name string) string {
	return "postgres://postgres@" + s.addr + "/" + name + "?sslmode=disable"
}

// NewDatabase makes an empty database for one test and gives its URL.
func (s *Server) NewDatabase(ctx context.Context) (string, error) {
	name := "db" + strconv.FormatInt(s.made.Add(1), 10)
	if err := s.Exec(ctx, "create database "+name); err != nil {
		return "", err
	}
	return s.database(name), nil
}

// Exec runs a statement as the superuser.
func (s *Server) Exec(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	_, err = conn.Exec(ctx, statement)
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// process is a program that runs until it is ended.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// launch starts a program whose output goes to the file log.
func launch(user *account, folder, log, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer out.Close()
	p := &process{cmd: exec.Command(name, args...), log: log, ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = folder, out, out, user.attributes()
	started := make(chan error)
	go func() {
		// The kernel ends the child with the thread that began it: this one
		// stays for as long as the child does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is in cmd.ProcessState
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(name), err)
	}
	return p, nil
}

// failed tells why the program is of no use, with the end of its log.
func (p *process) failed(why string) error {
	log, err := os.ReadFile(p.log)
	if err != nil {
		log = []byte(err.Error())
	}
	return fmt.Errorf("run %s: %s\n%s", filepath.Base(p.cmd.Path), why, log[max(0, len(log)-2000):])
}

// stop ends the program by SIGINT: PostgreSQL's fast shutdown, PgBouncer's safe
// one.
func (p *process) stop() error {
	// What can't be signalled has ended.
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.ended:
		return nil
	case <-time.After(patience):
		return errors.Join(p.failed("it does not stop"), p.kill())
	}
}

// kill kills the program and its children, each of which leads a process group
// of its own, and waits until all are gone.
func (p *process) kill() error {
	_ = p.cmd.Process.Signal(syscall.SIGSTOP) // no more children
	children := childrenOf(p.cmd.Process.Pid)
	for _, pid := range append(children, p.cmd.Process.Pid) {
		if found, err := os.FindProcess(pid); err == nil {
			_ = found.Kill() // gone already
		}
	}
	<-p.ended
	for end := time.Now().Add(patience); slices.ContainsFunc(children, alive); {
		if time.Now().After(end) {
			return p.failed("its children do not end")
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}
