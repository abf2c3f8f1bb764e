package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
)

// SocketName is the control socket's file in the data folder.
const SocketName = "control.sock"

// Client asks a server: over its control socket, or from afar with an API key.
type Client struct {
	socket string // empty: from afar
	base   string // of all addresses, without the last slash
	key    string
	// Account is the id or name of the account that is meant; empty: whose key it
	// is, or, over the control socket, all of them.
	Account string
	// IdempotencyKey goes with each POST; empty: none.
	IdempotencyKey string
	http           http.Client
}

// NewRemote makes a client of the API at an address, such as
// https://relay.example.com:8025, with an API key.
func NewRemote(address, key string) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not the address of a server; want one such as https://relay.example.com:8025", address)
	}
	if key == "" {
		return nil, errors.New("an API key is needed to ask a server from afar: name it with -token, or in the environment's POSTRIDER_TOKEN")
	}
	return &Client{base: strings.TrimSuffix(address, "/"), key: key}, nil
}

// NewClient makes a client of the server with the given data folder.
func NewClient(data string) *Client {
	c := &Client{socket: filepath.Join(data, SocketName), base: "http://postrider"}
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

// Copy asks for a path with a query and copies the answer as it is.
func (c *Client) Copy(ctx context.Context, path string, query url.Values, to io.Writer) error {
	resp, err := c.ask(ctx, http.MethodGet, path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// Post sends in, where it is not nil, and reads the answer into out, where that
// is not nil.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	return c.do(ctx, http.MethodPost, path, in, out)
}

// Patch changes what the path names.
func (c *Client) Patch(ctx context.Context, path string, in, out any) error {
	return c.do(ctx, http.MethodPatch, path, in, out)
}

// Put puts in where the path names.
func (c *Client) Put(ctx context.Context, path string, in, out any) error {
	return c.do(ctx, http.MethodPut, path, in, out)
}

// All reads a list page by page, as long as each says that there is more and f
// gives no error.
func All[T any](ctx context.Context, c *Client, path string, query url.Values, f func(T) error) error {
	q := maps.Clone(query)
	if q == nil {
		q = url.Values{}
	}
	for {
		var page List[T]
		if err := c.Get(ctx, path, q, &page); err != nil {
			return err
		}
		for _, v := range page.Data {
			if err := f(v); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		q.Set("cursor", page.Next)
	}
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
	if out == nil || resp.StatusCode == http.StatusNoContent {
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
	return c.askWith(ctx, method, path, body, func(http.Header) {})
}

// askWith is ask with more in the header.
func (c *Client) askWith(ctx context.Context, method, path string, body io.Reader, more func(http.Header)) (*http.Response, error) {
	if c.Account != "" && !strings.Contains(path, "account=") {
		mark := "?"
		if strings.Contains(path, "?") {
			mark = "&"
		}
		path += mark + "account=" + url.QueryEscape(c.Account)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.IdempotencyKey != "" && method == http.MethodPost {
		req.Header.Set("Idempotency-Key", c.IdempotencyKey)
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	more(req.Header)
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var op *net.OpError
		if c.socket == "" {
			return nil, fmt.Errorf("ask %s: %w", c.base, errors.Unwrap(err))
		}
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

// Refusal is a server's answer to what it does not do.
type Refusal struct{ Problem }

// Error is for people: what was wrong, with which fields, and how to mend it.
func (r *Refusal) Error() string {
	text := r.Detail
	for _, e := range r.Errors {
		if !strings.Contains(text, e.Message) {
			text += " " + e.Location + ": " + e.Message + "."
		}
	}
	if r.Advice != "" {
		text += " " + r.Advice
	}
	return text
}

// readProblem reads an error in the form of RFC 9457.
func readProblem(resp *http.Response) error {
	var r Refusal
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&r.Problem) != nil || r.Detail == "" {
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	return &r
}
