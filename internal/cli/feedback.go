package cli

import (
	"context"
	"flag"
	"fmt"

	"postrider/internal/api"
)

func feedbackCommand() command {
	return command{name: "feedback", args: "address -provider NAME", short: "the address to register for a provider's complaints",
		example: `
postrider feedback address -provider yahoo      # for its Complaint Feedback Loop
postrider feedback address -provider microsoft  # for its Junk Mail Reporting Program`,
		run: runFeedback}
}

func runFeedback(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	provider := fs.String("provider", "", "`name` of the provider, of your own choice: lower case letters, digits and hyphens")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(e, fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 || rest[0] != "address" || *provider == "" {
		return badUsage(e, fs, "address -provider NAME is wanted")
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	var out api.LoopAddress
	if err := c.Get(ctx, where("/v1/feedback/addresses", *provider), nil, &out); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(e.Stdout, out)
	}
	fmt.Fprintln(e.Stdout, out.Address)
	return nil
}
