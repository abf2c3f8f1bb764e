package backlog

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"postrider/internal/api"
)

// profile keeps profiles of the relay as it is, where that is asked for. They
// are for people: what fails is only told.
func (h *harness) profile(ctx context.Context, r *rig, name string) {
	if h.o.Profiles == "" {
		return
	}
	for _, what := range []string{"profile?seconds=4", "heap", "goroutine"} {
		if err := fetch(ctx, filepath.Join(r.Data, api.SocketName), "/debug/pprof/"+what, filepath.Join(h.o.Profiles, name+"-"+what[:4]+".pprof")); err != nil {
			h.say("no profile: %v", err)
		}
	}
}

// fetch writes what a server on a local socket answers to a file.
func fetch(ctx context.Context, socket, path, file string) error {
	var d net.Dialer
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) }}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://relay"+path, nil)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, res.Status)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}
