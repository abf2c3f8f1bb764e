package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"postrider/internal/api"
	"postrider/internal/daemon"
	"postrider/internal/doctor"
)

func doctorCommand() command {
	return command{name: "doctor", args: "", short: "look whether the relay is fit to deliver, and how to mend what is not",
		example: `
postrider doctor          # exit status 1 where something is bad
postrider doctor -json`,
		run: runDoctor}
}

func runDoctor(ctx context.Context, e *Env, fs *flag.FlagSet, args []string) error {
	var p place
	p.clientFlags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	if err := parseFlags(e, fs, args); err != nil {
		return err
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	var out api.Examination
	err = c.Get(ctx, "/v1/doctor", nil, &out)
	if errors.Is(err, api.ErrNoServer) {
		out, err = p.diagnose(ctx)
	}
	if err != nil {
		return err
	}
	if *asJSON {
		if err := printJSON(e.Stdout, out); err != nil {
			return err
		}
		return badFound(out.Findings)
	}
	printFindings(e.Stdout, out.Findings)
	if err := badFound(out.Findings); err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.Stdout, "\nNothing is bad.")
	return err
}

// diagnose looks at what can be seen where no server runs.
func (p *place) diagnose(ctx context.Context) (api.Examination, error) {
	c, err := p.load()
	if err != nil {
		return api.Examination{}, err
	}
	found, err := daemon.Diagnose(ctx, c)
	return api.Examination{Verdict: doctor.Worst(found), Findings: found}, err
}
