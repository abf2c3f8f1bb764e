package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"postrider/internal/lab/process"
)

// postfixServices is a master.cf with what takes mail, queues it and sends it
// on. Nothing runs in a chroot. The second last column is the most processes:
// "-" stands for default_process_limit.
const postfixServices = `
%s        inet       n - n -    - smtpd
cleanup   unix       n - n -    0 cleanup
qmgr      unix       n - n 300  1 qmgr
tlsmgr    unix       - - n 1000 1 tlsmgr
rewrite   unix       - - n -    - trivial-rewrite
bounce    unix       - - n -    0 bounce
defer     unix       - - n -    0 bounce
trace     unix       - - n -    0 bounce
verify    unix       - - n -    1 verify
proxymap  unix       - - n -    - proxymap
proxywrite unix      - - n -    1 proxymap
smtp      unix       - - n -    - smtp
relay     unix       - - n -    - smtp
showq     unix       n - n -    - showq
error     unix       - - n -    - error
retry     unix       - - n -    - error
discard   unix       - - n -    - discard
anvil     unix       - - n -    1 anvil
scache    unix       - - n -    1 scache
postlog   unix-dgram n - n -    1 postlogd
`

// postfixSettings is a main.cf: what a Postfix of one's own needs, and then what
// makes it fast. docs/performance.md tells why.
const postfixSettings = `
compatibility_level = 3.6
mail_owner = postfix
setgid_group = postdrop
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.1/32
alias_maps =
alias_database =
local_recipient_maps =
relayhost = [127.0.0.1]:%[2]s

smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
in_flow_delay = 0
default_process_limit = 200
default_destination_concurrency_limit = 100
initial_destination_concurrency = 100
smtpd_client_connection_count_limit = 0
smtp_tls_security_level = none
smtpd_tls_security_level = none
`

// startPostfix starts a Postfix of one's own, in folders of its own, beside
// whatever Postfix the machine has. name is the system's, own are settings.
func (b *bench) startPostfix(ctx context.Context, name, own string) error {
	s, err := b.runPostfix(ctx, name, own)
	if err == nil {
		b.systems = append(b.systems, s)
	}
	return err
}

func (b *bench) runPostfix(ctx context.Context, name, own string) (*system, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can start Postfix: be root, or leave it out with -systems")
	}
	command, err := tool("postfix")
	if err != nil {
		return nil, err
	}
	addr, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	top := filepath.Join(b.dir, strings.ReplaceAll(name, " ", "-"))
	etc, queue := filepath.Join(top, "etc"), filepath.Join(top, "queue")
	for _, folder := range []string{top, etc, queue} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return nil, fmt.Errorf("make folder: %w", err)
		}
	}
	_, port, _ := strings.Cut(b.sink.addr, ":")
	for name, text := range map[string]string{
		"main.cf":   fmt.Sprintf(postfixSettings, top, port) + own,
		"master.cf": fmt.Sprintf(postfixServices, addr),
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("configure Postfix: %w", err)
		}
	}
	// It goes on by itself: what began it is not its parent.
	if out, err := exec.CommandContext(ctx, command, "-c", etc, "start").CombinedOutput(); err != nil {
		log, _ := os.ReadFile(filepath.Join(top, "log")) // it only helps to understand
		return nil, fmt.Errorf("start Postfix: %w\n%s%s", err, out, log)
	}
	b.later(func() error {
		if out, err := exec.Command(command, "-c", etc, "stop").CombinedOutput(); err != nil {
			return fmt.Errorf("stop Postfix: %w\n%s", err, out)
		}
		return nil
	})
	if err := answers(ctx, addr); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(queue, "pid", "master.pid"))
	if err != nil {
		return nil, fmt.Errorf("find Postfix: %w", err)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, fmt.Errorf("find Postfix: %w", err)
	}
	return &system{name: name, addr: addr, synced: "cleanup(8) syncs the queue file before it answers",
		programs: []program{{name: "postfix", pid: pid, group: true}},
		empty:    func(context.Context) (bool, error) { return queueEmpty(queue) }}, nil
}

// queueEmpty tells whether Postfix has no message, not even one that it gave up
// for now.
func queueEmpty(queue string) (bool, error) {
	empty := true
	for _, name := range []string{"maildrop", "incoming", "active", "deferred"} {
		err := filepath.WalkDir(filepath.Join(queue, name), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			empty = false
			return fs.SkipAll
		})
		if errors.Is(err, fs.ErrNotExist) { // it went while this looked
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look into Postfix's queue: %w", err)
		}
	}
	return empty, nil
}
