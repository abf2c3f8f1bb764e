package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	labprocess "postrider/internal/lab/process"
)

// Bouncer is a PgBouncer in front of a server, in transaction mode: each
// transaction of a client may run on another connection to the server.
type Bouncer struct {
	server  *Server
	addr    string
	process *process
}

// Bouncer starts a PgBouncer that ends with the test. Its pools have but a few
// connections to the server, so that clients do share them. A missing PgBouncer
// fails the test.
func (s *Server) Bouncer(t testing.TB) *Bouncer {
	t.Helper()
	b, err := s.bounce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.process.kill(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (s *Server) bounce(ctx context.Context) (*Bouncer, error) {
	program, err := bouncer()
	if err != nil {
		return nil, err
	}
	addr, err := labprocess.FreeAddr()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	folder, err := os.MkdirTemp(s.folder, "pgbouncer-") // goes with the server's
	if err != nil {
		return nil, fmt.Errorf("make folder for PgBouncer: %w", err)
	}
	config := filepath.Join(folder, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%s user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 500
server_lifetime = 1
`, s.port(), port)
	if err := errors.Join(s.user.own(folder), os.WriteFile(config, []byte(text), 0o644)); err != nil {
		return nil, fmt.Errorf("configure PgBouncer: %w", err)
	}
	p, err := launch(s.user, folder, filepath.Join(folder, "log"), program, config)
	if err != nil {
		return nil, err
	}
	b := &Bouncer{s, addr, p}
	if err := p.answers(ctx, b.URL(s.URL())); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return b, nil
}

// URL is the way through the bouncer to the database of that URL.
func (b *Bouncer) URL(database string) string {
	return strings.Replace(database, b.server.addr, b.addr, 1)
}

func bouncer() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no PgBouncer is installed; scripts/install-test-deps.sh installs it (Debian's package pgbouncer)")
}
