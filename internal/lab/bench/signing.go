package bench

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postrider/internal/lab/process"
	"postrider/internal/mailauth"
	"postrider/internal/sink"
)

// signs is how systems that sign are named.
const signs = " signing"

// provenDomain is where the message goes by which a system shows that it signs.
const provenDomain = "proven.example"

// startSigning starts, for each system, another one like it that signs what is
// sent in the name of the sender's domain, and sees that it does.
func (b *bench) startSigning(ctx context.Context) (err error) {
	if b.prover, err = startProver(ctx); err != nil {
		return err
	}
	b.later(b.prover.close)
	_, domain, _ := strings.Cut(sender, "@")
	for _, name := range b.o.Systems {
		if name == Postfix {
			filter, opendkim, err := b.startOpenDKIM(ctx, domain)
			if err != nil {
				return err
			}
			s, err := b.runPostfix(ctx, Postfix+signs, fmt.Sprintf("smtpd_milters = inet:%s\nmilter_default_action = tempfail\ntransport_maps = inline:{ { %s = smtp:[127.0.0.1]:%s } }\n",
				filter, provenDomain, port(b.prover.Addr())))
			if err != nil {
				return err
			}
			s.programs = append(s.programs, opendkim)
			b.signing = append(b.signing, s)
			continue
		}
		for _, r := range b.o.Relays {
			s, err := b.startRelay(ctx, r, name, signs, fmt.Sprintf("[service]\ndomain = %q\ndkim_selector = \"bench\"\n[[route]]\ndomain = %q\nto = %q\n",
				domain, provenDomain, b.prover.Addr()))
			if err != nil {
				return fmt.Errorf("start %s: %w", s.name, err)
			}
			b.signing = append(b.signing, s)
		}
	}
	for _, s := range b.signing {
		if err := b.prover.prove(ctx, s, domain); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// signingEntries are all systems, each followed by the one that signs, which is
// compared with it and with others that sign.
func (b *bench) signingEntries(bytes int) (entries []*entry) {
	source := b.smtpSource(bytes, true)
	for _, plain := range b.systems {
		entries = append(entries, &entry{name: plain.name, system: plain, load: source})
		i := slices.IndexFunc(b.signing, func(s *system) bool { return s.name == plain.name+signs })
		e := &entry{name: plain.name + signs, system: b.signing[i], load: source, of: []string{plain.name}}
		for _, other := range b.signing {
			if e.system.relay != nil && other.relay == nil {
				e.of = append(e.of, other.name)
			}
		}
		entries = append(entries, e)
	}
	return entries
}

// openDKIMSettings are those of a filter that signs with one key of RSA-2048, as
// most installations do.
const openDKIMSettings = `Mode s
Domain %s
Selector bench
KeyFile %s
SignatureAlgorithm rsa-sha256
Canonicalization relaxed/relaxed
OversignHeaders From
InternalHosts 127.0.0.1
Socket inet:%s@127.0.0.1
RequireSafeKeys no
Background no
Syslog no
`

// startOpenDKIM starts the filter that a Postfix signs with.
func (b *bench) startOpenDKIM(ctx context.Context, domain string) (addr string, _ program, err error) {
	if addr, err = process.FreeAddr(); err != nil {
		return "", program{}, err
	}
	key, err := mailauth.NewKey(mailauth.RSA)
	if err != nil {
		return "", program{}, err
	}
	der, err := key.Marshal()
	if err != nil {
		return "", program{}, err
	}
	secret, conf := filepath.Join(b.dir, "opendkim.key"), filepath.Join(b.dir, "opendkim.conf")
	text := fmt.Sprintf(openDKIMSettings, domain, secret, port(addr))
	err = errors.Join(os.WriteFile(secret, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600), os.WriteFile(conf, []byte(text), 0o644))
	if err != nil {
		return "", program{}, fmt.Errorf("configure OpenDKIM: %w", err)
	}
	path, err := tool("opendkim")
	if err != nil {
		return "", program{}, err
	}
	cmd := exec.Command(path, "-f", "-x", conf)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", program{}, fmt.Errorf("start OpenDKIM: %w", err)
	}
	b.later(func() error {
		_ = cmd.Process.Kill() // an error: it has ended already
		_ = cmd.Wait()         // killed
		return nil
	})
	return addr, program{name: "opendkim", pid: cmd.Process.Pid}, answers(ctx, addr)
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr) // of a listener
	return port
}

// prover is a receiver that looks at what it gets.
type prover struct {
	*sink.Server
	cancel context.CancelFunc
	ended  chan error
	seen   int
}

func startProver(ctx context.Context) (*prover, error) {
	server, err := sink.New(sink.Config{Keep: 1000})
	if err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &prover{Server: server, cancel: cancel, ended: make(chan error, 1)}
	go func() { p.ended <- server.Serve(ctx) }()
	return p, nil
}

func (p *prover) close() error {
	p.cancel()
	return <-p.ended
}

// prove sends a message through a system and looks for its signature. That
// signatures are right is for tests; here it is that they are made.
func (p *prover) prove(ctx context.Context, s *system, domain string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := smtp.Dial(s.addr)
	if err != nil {
		return fmt.Errorf("send a message: %w", err)
	}
	defer c.Close()
	err = errors.Join(c.Hello("client.example"), c.Mail(sender), c.Rcpt("anybody@"+provenDomain))
	if err != nil {
		return fmt.Errorf("send a message: %w", err)
	}
	w, err := c.Data()
	if err != nil {
		return fmt.Errorf("send a message: %w", err)
	}
	_, err = fmt.Fprintf(w, "From: %s\r\nSubject: signed?\r\n\r\nx\r\n", sender)
	if err := errors.Join(err, w.Close(), c.Quit()); err != nil {
		return fmt.Errorf("send a message: %w", err)
	}
	p.seen++
	if err := p.Wait(ctx, int64(p.seen)); err != nil {
		return err
	}
	text := string(p.Messages()[p.seen-1].Content)
	want := 1
	if s.relay != nil {
		want = 2
	}
	if strings.Count(text, "DKIM-Signature:") != want || !strings.Contains(text, "d="+domain) {
		return fmt.Errorf("it does not sign as it should; what arrived:\n%.2000s", text)
	}
	return nil
}
