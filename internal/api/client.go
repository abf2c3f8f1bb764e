package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
)

// SocketName is the control socket's file in the data folder.
const SocketName = "control.sock"

// Client asks a server over its control socket.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client of the server with the given data folder.
func NewClient(data string) *Client {
	c := &Client{socket: filepath.Join(data, SocketName)}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", c.socket)
	}}
	return c
}

// Get asks for a path with a query and reads the answer into out.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.do(ctx, http.MethodGet, path, nil, out)
}

// Post sends in, where it is not nil, and reads the answer into out, where that
// is not nil.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	return c.do(ctx, http.MethodPost, path, in, out)
}

// Delete deletes what the path names.
func (c *Client) Delete(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodDelete, path, nil, out)
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("write request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// ErrNoServer says that nobody listens on the control socket.
var ErrNoServer = errors.New("no server answers")

// ask gives an answer that is no refusal; the caller closes its body.
func (c *Client) ask(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://postrider"+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var op *net.OpError
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("the server's control socket %s is for its owner: run this as the user that runs the server, or as root", c.socket)
		}
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("%w at %s: %w. Start one with \"postrider serve\", or name its data folder with -data", ErrNoServer, c.socket, op.Err)
		}
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, readProblem(resp)
	}
	return resp, nil
}

// readProblem reads an error in the form of RFC 9457.
func readProblem(resp *http.Response) error {
	var p struct {
		Title, Detail string
		Errors        []struct{ Message, Location string }
	}
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&p) != nil || p.Title == "" {
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	var more []string
	for _, e := range p.Errors {
		more = append(more, strings.TrimSpace(e.Location+": "+e.Message))
	}
	if len(more) > 0 {
		text += " (" + strings.Join(more, "; ") + ")"
	}
	return errors.New(text)
}
