package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommandErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-nonsense", "flag provided but not defined: -nonsense"},
		{"more", `unexpected argument "more"`},
		{"-without X", "-without: "}, {"-voice x", "-voice: "}, {"-certificate x", "-certificate: "},
		{"-tls-fault x", "-tls-fault: "}, {"-auth x", "-auth: "}, {"-auth-required", "wants -auth"},
		{"-scenario /nowhere", "read scenario: "}, {"-cert /nowhere -key /nowhere", "-cert, -key: "},
		{"-ca /nowhere/x", "-ca: "}, {"-listen 127.0.0.1:x", "listen on 127.0.0.1:x: "},
	} {
		err := Command(t.Context(), strings.Fields(c.args), new(bytes.Buffer), new(bytes.Buffer))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.args, err, c.want)
		}
	}
}

func TestCommandHelp(t *testing.T) {
	var out, help bytes.Buffer
	if err := Command(t.Context(), []string{"-h"}, &out, &help); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
	if s := help.String(); !strings.Contains(s, "swaks --server") || !strings.Contains(s, "-scenario file") {
		t.Errorf("help: %s", s)
	}
	if err := Command(t.Context(), []string{"-list"}, &out, &help); err != nil || !strings.Contains(out.String(), "greylist[+UNTIL]") {
		t.Errorf("-list: %v %s", err, out.String())
	}
}

// TestCommandServes has a client trust the authority that -ca wrote.
func TestCommandServes(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, log lockedBuffer
	done := make(chan error, 1)
	go func() {
		done <- Command(ctx, strings.Fields("-vv -listen 127.0.0.1:0 -hostname mx.sink.test -certificate good -auth any -ca "+ca+" -store "+dir+"/mail"), &out, &log)
	}()
	until(t, func() bool { return strings.Contains(out.String(), "\n") })
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	line, _, _ := strings.Cut(out.String(), "\n")
	addr := strings.TrimPrefix(line, "listening on ")
	if err := sendTLS(addr, false, &tls.Config{ServerName: "mx.sink.test", RootCAs: pool}); err != nil {
		t.Error(err)
	}
	c := greet(t, addr)
	c.send("AUTH PLAIN AGJvYgBzZWNyZXQ=\r\n")
	c.expect("235")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got, _ := filepath.Glob(dir + "/mail/*.eml"); len(got) != 1 {
		t.Errorf("stored %v", got)
	}
	if s := log.String(); !strings.Contains(s, "msg=message") || !strings.Contains(s, "RCPT TO:<x@x.test>") || strings.Contains(s, "AGJvYgBzZWNyZXQ") {
		t.Errorf("log: %s", s)
	}
}
