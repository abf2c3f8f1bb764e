package httpd

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// What is under way when the server is to end is answered; what takes too long is
// cut off; a listener that breaks is an error.
func TestServe(t *testing.T) {
	for name, tt := range map[string]struct {
		drain time.Duration
		want  string
	}{"answered": {time.Minute, "done"}, "cut off": {time.Millisecond, ""}} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, end := context.WithCancel(t.Context())
			came, release := make(chan struct{}), make(chan struct{})
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				close(came)
				<-release
				_, _ = io.WriteString(w, "done")
			})}
			ended := make(chan error, 1)
			go func() { ended <- Serve(ctx, s, ln, tt.drain) }()
			got := make(chan string, 1)
			go func() {
				defer close(got)
				resp, err := http.Get("http://" + ln.Addr().String())
				if err != nil {
					return
				}
				defer resp.Body.Close()
				b, _ := io.ReadAll(resp.Body)
				got <- string(b)
			}()
			<-came
			end()
			if tt.want == "" {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
			close(release)
			if text := <-got; text != tt.want {
				t.Errorf("answered %q, want %q", text, tt.want)
			}
			if tt.want != "" {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		})
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := Serve(t.Context(), &http.Server{}, ln, time.Minute); err == nil || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("a closed listener: %v", err)
	}
}

func TestClient(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}
	for _, tt := range []struct{ peer, forwarded, want string }{
		{"192.0.2.1:99", "203.0.113.9", "192.0.2.1"}, // nobody asked it
		{"10.1.1.1:99", "203.0.113.9", "203.0.113.9"},
		{"10.1.1.1:99", "198.51.100.1, 203.0.113.9", "203.0.113.9"}, // the first one may be made up
		{"10.1.1.1:99", "203.0.113.9, 10.2.2.2", "203.0.113.9"},
		{"10.1.1.1:99", "", "10.1.1.1"},
		{"10.1.1.1:99", "junk", "10.1.1.1"},
		{"[::ffff:192.0.2.1]:99", "", "192.0.2.1"},
		{"[fe80::1%eth0]:99", "203.0.113.9", "203.0.113.9"},
		{"[fe80::1%eth0]:99", "", "fe80::1"},
		{"@", "203.0.113.9", "invalid IP"}, // a socket
	} {
		r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{}}
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		if got := Client(r, proxies); got.String() != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}
