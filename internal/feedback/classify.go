// Package feedback makes sense of what receivers say: it puts replies into
// plain words, and writes the delivery status notifications for senders.
package feedback

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"postrider/internal/classify"
	"postrider/internal/relay"
)

// Categories of failures are a kind and a category of package classify. "hard"
// ones are of the address, "soft" ones pass or are of this one message, "block"
// ones are the receiver's judgement of the sender or the message. These are the
// ones that the program itself gives.
const (
	NoDomain    = "hard/no-such-domain" // also one that takes no mail
	TooLarge    = "soft/message-too-large"
	Unsupported = "hard/protocol-error"
	Unreachable = "soft/connection-problem" // also a connection that broke
	NoAnswerDNS = "soft/dns-problem"
	TLSProblem  = "soft/tls-problem"
	Own         = "soft/relay" // our own trouble
	Other       = "soft/other"
)

// Stages in which an attempt can end.
const (
	StageRoute    = "route"
	StageConnect  = "connect"
	StageGreeting = "greeting"
	StageEhlo     = "ehlo"
	StageTLS      = "starttls"
	StageAuth     = "auth"
	StageSign     = "sign" // our own
	StageMail     = "mail"
	StageRcpt     = "rcpt"
	StageContent  = "data"
	StageDot      = "dot"
)

// again is the advice where nobody has to do anything.
const again = "Nothing: it is tried again by itself."

// Diagnose puts a failure into plain words, by the rules of the program alone.
// The stage is where the attempt ended; r is the receiver's reply, or what stood
// in for one (Code 0); to is the recipient.
func Diagnose(stage string, r relay.Reply, host, to string) relay.Diagnosis {
	return diagnose(classify.Builtin(), stage, r, host, to)
}

func diagnose(c *classify.Classifier, stage string, r relay.Reply, host, to string) relay.Diagnosis {
	final := final(stage, r)
	if r.Code == 0 {
		name := withoutReply(stage, r)
		res := c.Meaning(name, "", host)
		if name == "own-trouble" {
			return worded(Own, res, final)
		}
		return worded(categoryOf(res), res, final)
	}
	res := c.Classify(classify.Reply{Code: r.Code, Enhanced: r.Enhanced, Text: r.Text, Stage: stage, Host: host, To: to})
	// Of what our own resolver says alone nobody is dead: it may be wrong about all.
	suppress := res.Suppress && final
	if res.Meaning == "refused" && !final { // before it knew the message; another try is made
		res = c.Meaning("deferred", "", host)
	}
	d := worded(categoryOf(res), res, final)
	d.Suppress = suppress
	return d
}

func categoryOf(res classify.Result) string { return string(res.Kind) + "/" + res.Category }

// worded gives the advice that fits: where trying again is all that is needed,
// the relay does that, unless the refusal was final.
func worded(category string, res classify.Result, final bool) relay.Diagnosis {
	d := relay.Diagnosis{Category: category, Text: res.What, Advice: res.Do}
	if strings.HasPrefix(res.Do, "Nothing") {
		switch {
		case final:
			d.Advice = "Send it again later."
		case res.Retry && res.Turn == "nobody":
			d.Advice = again
		}
	}
	return d
}

// final tells whether the receiver has refused this very message for good. What
// it says before it knows the message is about us, and may pass.
func final(stage string, r relay.Reply) bool {
	switch stage {
	case StageConnect, StageGreeting, StageEhlo, StageTLS, StageAuth:
		return r.Code == 0 && strings.HasPrefix(r.Enhanced, "5")
	}
	return r.Code >= 500 || r.Code == 0 && strings.HasPrefix(r.Enhanced, "5")
}

// withoutReply names what an attempt means that ended without the receiver
// saying so.
func withoutReply(stage string, r relay.Reply) string {
	switch {
	case stage == StageRoute && r.Enhanced == "5.1.2":
		return "no-such-domain"
	case r.Enhanced == "5.1.10":
		return "no-mail"
	case stage == StageRoute && r.Enhanced == "4.4.3":
		return "route-unknown"
	case stage == StageRoute:
		return "unreachable"
	case r.Enhanced == "5.3.4":
		return "message-too-large"
	case stage == StageSign || strings.HasPrefix(r.Enhanced, "4.3."):
		return "own-trouble"
	case strings.HasPrefix(r.Enhanced, "5.6."):
		return "unsupported"
	case stage == StageTLS || strings.HasSuffix(r.Enhanced, ".7.30"):
		return "tls-problem"
	case stage == StageConnect:
		return "unreachable"
	default:
		return "broken-off"
	}
}

// Rules are the operator's, which are asked before the program's own, and read
// again when their file changes.
type Rules struct {
	file    string
	log     *slog.Logger
	current atomic.Pointer[classify.Classifier]
	seen    time.Time // when the file was last changed, as of the last reading
}

// OpenRules reads the operator's rules. An empty name is no file.
func OpenRules(file string, log *slog.Logger) (*Rules, error) {
	r := &Rules{file: file, log: log, seen: changed(file)}
	c, err := classify.Load(file)
	if err != nil {
		return nil, err
	}
	r.current.Store(c)
	return r, nil
}

// Diagnose is Diagnose by the operator's rules.
func (r *Rules) Diagnose(stage string, reply relay.Reply, host, to string) relay.Diagnosis {
	return diagnose(r.current.Load(), stage, reply, host, to)
}

// Provider gives the public name of a receiving service, or nothing.
func (r *Rules) Provider(domain, host string) string {
	return r.current.Load().Provider(domain, host)
}

// Run looks at the file again and again until the context ends. Rules with a
// mistake are told in the log, and the last good ones stay.
func (r *Rules) Run(ctx context.Context, every time.Duration) error {
	if r.file == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.reload()
		}
	}
}

func (r *Rules) reload() {
	at := changed(r.file)
	if at.IsZero() || at.Equal(r.seen) {
		return
	}
	r.seen = at
	c, err := classify.Load(r.file)
	if err != nil {
		r.log.Error("the new rules for replies have a mistake; the old ones stay", "err", err)
		return
	}
	r.current.Store(c)
	r.log.Info("rules for replies read", "file", r.file)
}

// changed is when a file was changed, or the zero time.
func changed(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
