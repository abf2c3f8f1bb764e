// Package cli is the command line: each subcommand reads its flags, asks the
// running server over its control socket, and prints for people or as JSON.
package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"postrider/internal/api"
	"postrider/internal/config"
)

// Env is what a command has to do with.
type Env struct {
	Program string   // as the person called it
	Args    []string // without the program's name
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
}

// command is one subcommand.
type command struct {
	name    string
	args    string // after the flags
	short   string // one line
	example string
	run     func(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error
}

func commands() []command {
	return []command{
		serveCommand(), configCommand(), sendCommand(), testCommand(), explainCommand(), accountCommand(), userCommand(), planCommand(), limitCommand(), credentialCommand(), domainCommand(), senderCommand(), suppressionCommand(), untrackedCommand(), groupCommand(), webhookCommand(), alertCommand(), auditCommand(), logCommand(), messageCommand(), queueCommand(), nodeCommand(), statusCommand(), doctorCommand(),
		reportCommand(), scoreCommand(),
		feedbackCommand(), backupCommand(), restoreCommand(), sinkCommand(), demoCommand(), versionCommand(),
	}
}

// errUsage means that the words of the call are off; what is wrong has been
// printed.
var errUsage = errors.New("usage")

// Main runs the command that the arguments name and gives the exit status: 0,
// 1 for a failure, 2 for words that make no sense.
func Main(ctx context.Context, e *Env) int {
	args := e.Args
	if len(args) == 2 && args[0] == "help" {
		args = []string{args[1], "-h"}
	}
	if len(args) == 0 || slices.Contains([]string{"-h", "-help", "--help", "help"}, args[0]) {
		usage(e.Stdout)
		return 0
	}
	if slices.Contains([]string{"-version", "--version"}, args[0]) {
		args = []string{"version"}
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		err := c.call(ctx, e, args[1:])
		switch {
		case err == nil, errors.Is(err, flag.ErrHelp):
			return 0
		case errors.Is(err, errUsage):
			return 2
		default:
			fmt.Fprintf(e.Stderr, "postrider %s: %v\n", c.name, err)
			return 1
		}
	}
	fmt.Fprintf(e.Stderr, "postrider: there is no command %q. See \"postrider help\".\n", args[0])
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Postrider is an SMTP relay: applications hand it mail, it delivers and tells what became of it.\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.short)
	}
	fmt.Fprint(w, "\n\"postrider COMMAND -h\" explains a command and shows an example.\n")
}

func (c command) call(ctx context.Context, e *Env, args []string) error {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	err := c.run(ctx, e, fs, args)
	if errors.Is(err, flag.ErrHelp) {
		c.help(e.Stdout, fs)
	}
	return err
}

func (c command) help(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintf(w, "postrider %s: %s\n\nUsage: %s\n\n", c.name, c.short, strings.TrimSpace("postrider "+c.name+" [flags] "+c.args))
	fs.SetOutput(w)
	fs.PrintDefaults()
	fmt.Fprintf(w, "\nExample:\n")
	for line := range strings.Lines(strings.TrimSpace(c.example) + "\n") {
		fmt.Fprint(w, "  "+line)
	}
}

// parse reads flags that may stand before and behind the other arguments.
func parse(e *Env, fs *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, badUsage(e, fs, "%v", err)
		}
		args = fs.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest = append(rest, args[0])
		args = args[1:]
	}
}

// parseFlags is parse for commands that take flags only.
func parseFlags(e *Env, fs *flag.FlagSet, args []string) error {
	rest, err := parse(e, fs, args)
	if err == nil && len(rest) > 0 {
		err = badUsage(e, fs, "%q is not a flag", rest[0])
	}
	return err
}

func badUsage(e *Env, fs *flag.FlagSet, format string, args ...any) error {
	fmt.Fprintf(e.Stderr, "postrider %s: %s. See \"postrider %s -h\".\n", fs.Name(), fmt.Sprintf(format, args...), fs.Name())
	return errUsage
}

// place are the flags that say which server is meant, and whose things there.
type place struct{ config, data, server, token, account string }

func (p *place) flags(fs *flag.FlagSet) {
	fs.StringVar(&p.config, "config", "", "the server's configuration `file`")
	fs.StringVar(&p.data, "data", "", "the server's data `folder`")
}

// load reads the configuration, or takes the default one.
func (p *place) load() (config.Config, error) {
	c := config.Default()
	if file := config.Find(p.config); file != "" {
		var err error
		if c, err = config.Load(file); err != nil {
			return c, err
		}
	}
	if p.data != "" {
		c.Data = p.data
	}
	return c, c.Resolve()
}

// clientFlags are those of commands that ask a running server: the one on this
// machine, or one from afar.
func (p *place) clientFlags(fs *flag.FlagSet) {
	p.flags(fs)
	fs.StringVar(&p.server, "server", "", "`address` of a server's API, to ask it from afar: https://relay.example.com:8025; else the environment's POSTRIDER_SERVER, else the server on this machine")
	fs.StringVar(&p.token, "token", "", "API `key` for -server; better in the environment's POSTRIDER_TOKEN, where other users don't see it")
}

func (p *place) accountFlag(fs *flag.FlagSet) {
	fs.StringVar(&p.account, "account", "", "id or name of the `account` that is meant")
}

// client makes a client of the server that the flags name.
func (p *place) client() (*api.Client, error) {
	c, err := p.anyClient()
	if err == nil {
		c.Account = p.account
	}
	return c, err
}

func (p *place) anyClient() (*api.Client, error) {
	server := p.server
	if server == "" && p.data == "" && p.config == "" {
		server = os.Getenv("POSTRIDER_SERVER")
	}
	if server != "" {
		return api.NewRemote(server, cmp.Or(p.token, os.Getenv("POSTRIDER_TOKEN")))
	}
	if p.data != "" {
		return api.NewClient(p.data), nil
	}
	c, err := p.load()
	if err != nil {
		return nil, err
	}
	return api.NewClient(c.Data), nil
}
