package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/smtpd"
)

// port is a listener that is bound.
type port struct {
	net.Listener
	config smtpd.ListenerConfig
}

// bind opens all ports. One that the configuration names must be had; of those
// that nobody named, one is enough.
func bind(ctx context.Context, c config.Config, log *slog.Logger) ([]port, error) {
	var ports []port
	var missing []error
	closeAll := func() {
		for _, p := range ports {
			p.Close()
		}
	}
	// No TCP keep-alive: sessions have time limits of their own, and to set it up
	// costs each connection four system calls.
	lc := net.ListenConfig{KeepAlive: -1}
	for i, l := range c.Listen {
		ln, err := lc.Listen(ctx, "tcp", l.Address)
		if err != nil {
			err = bindError(fmt.Sprintf("listen[%d].address", i), l.Address, err)
			if !l.Default {
				closeAll()
				return nil, err
			}
			missing = append(missing, err)
			continue
		}
		ports = append(ports, port{ln, listenerConfig(l)})
	}
	if len(ports) == 0 {
		return nil, errors.Join(missing...)
	}
	for _, err := range missing {
		log.Warn("going on without a port that nobody asked for", "err", err)
	}
	return ports, nil
}

// bindError says which setting is to be changed, in one line.
func bindError(setting, address string, err error) error {
	advice := "choose another address"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		advice = "another program has it: stop that one, or choose another port"
	case errors.Is(err, syscall.EACCES):
		advice = "ports below 1024 are for root: grant CAP_NET_BIND_SERVICE, or choose a higher one"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		advice = "this machine does not have the address"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("%s: %q can't be listened on (%w); %s", setting, address, err, advice)
}

func listenerConfig(l config.Listener) smtpd.ListenerConfig {
	versions := map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	out := smtpd.ListenerConfig{Name: l.Name, Mode: l.Mode, MinTLS: versions[l.MinTLS], PlainAuth: l.PlainAuth}
	for _, p := range l.Proxy {
		out.Proxy = append(out.Proxy, netip.Prefix(p))
	}
	return out
}

// alone refuses to start where another server serves the data folder. SQLite has
// a lock of its own; nodes on one PostgreSQL have none, and need a folder each.
func alone(ctx context.Context, data string) error {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "unix", filepath.Join(data, api.SocketName))
	if err != nil {
		return nil // none, or one that nobody serves any more
	}
	c.Close()
	return fmt.Errorf("another server runs with the data folder %s (data): stop it, or give this one a folder of its own", data)
}

// bindControl opens the control socket. Whoever may open the file is an
// operator, so only its owner may.
func bindControl(ctx context.Context, data string) (net.Listener, error) {
	path := filepath.Join(data, api.SocketName)
	// Left over from a crash: alone has looked.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("remove old control socket: %w", err)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return ln, nil
}
