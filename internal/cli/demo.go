package cli

import (
	"context"
	"flag"

	"postrider/internal/lab/demo"
)

func demoCommand() command {
	return command{name: "demo", args: "", short: "show the relay at work against simulated receivers, all on loopback",
		example: `
postrider demo
postrider demo -once`,
		run: runDemo}
}

func runDemo(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	o := demo.Options{Program: e.Program}
	fs.BoolVar(&o.Once, "once", false, "leave after the table; status 0 if all came as foreseen")
	fs.StringVar(&o.Dir, "data", "", "data `folder`; else a new temporary one, removed at the end")
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	return demo.Run(ctx, e.Stdout, e.Stderr, o)
}
