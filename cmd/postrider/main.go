// Command postrider is an SMTP relay service that its owner runs.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"postrider/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := cli.Main(ctx, &cli.Env{Program: os.Args[0], Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	stop()
	os.Exit(status)
}
