package sink

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"postrider/internal/smtp"
)

// Stage is a point of a session at which something can happen.
type Stage uint8

const (
	AtConnect  Stage = iota // instead of the greeting, or before it
	AtEHLO                  // the reply to EHLO or HELO
	AtStartTLS              // the reply to STARTTLS
	AtMail                  // the reply to MAIL
	AtRcpt                  // the reply to RCPT
	AtData                  // the reply to DATA, or to the first BDAT
	AtContent               // while content is read
	AtDot                   // the reply to the end of the content
	After                   // some time after the message was taken
	stages
)

// stageNames stand in scenario files, in the order of the stages.
var stageNames = [stages]string{"connect", "ehlo", "starttls", "mail", "rcpt", "data", "content", "dot", "after"}

func (s Stage) String() string { return stageNames[s] }

// deed is what the receiver does at a stage.
type deed uint8

const (
	accept   deed = iota
	refuse        // a reply, and on
	shutdown      // a reply, then the connection is closed
	drop          // the connection is closed without a reply
	silent        // no reply, ever
	slow          // from here to the end of the transaction each reply comes late
	tarpit        // the same, and byte by byte
	lengthy       // yes, in many lines
	terse         // yes, by the bare code
	garbage       // something that is not SMTP
	react         // yes, and something follows (see reactions)
)

// action is a deed with its circumstances.
type action struct {
	name     string
	stage    Stage
	deed     deed
	kind     kind          // which words of a voice
	reply    *smtp.Reply   // own words instead
	tries    int           // only so many tries, then nothing happens; 0: no such limit
	span     time.Duration // only so long after the first try; 0: no such limit
	pause    time.Duration // of slow and tarpit
	lines    int           // of lengthy
	remember bool          // a passed limit is remembered, as greylisting does
}

// limited tells whether the action ends by itself.
func (a *action) limited() bool { return a.tries > 0 || a.span > 0 }

// arguments says what may follow the name of a behaviour.
type arguments uint8

const (
	noArgument  arguments = iota
	untilPassed           // a number of tries, a time, or always
	pauseLength           // a time; then as untilPassed
	lineCount             // a number of lines
	replyCode             // 550 or 550-5.7.1; then as untilPassed
	waitLength            // a time
)

// behaviour is a row of the table that users see.
type behaviour struct {
	name, alias string
	does        string
	args        arguments
	action      action
}

// behaviours is the table of what a recipient's local part can ask for.
var behaviours = []behaviour{
	{name: "ok", does: "accepted, as any local part that is not in this table"},

	{name: "user-unknown", alias: "bounce", does: "RCPT refused for ever: no such user", action: action{deed: refuse, kind: userUnknown}},
	{name: "user-disabled", does: "RCPT refused for ever: the account is closed", action: action{deed: refuse, kind: userDisabled}},
	{name: "over-quota", alias: "full-for-ever", does: "RCPT refused for ever: mailbox full", action: action{deed: refuse, kind: overQuota}},
	{name: "relay-denied", does: "RCPT refused for ever: not a domain of this server", action: action{deed: refuse, kind: relayDenied}},
	{name: "blocked", does: "RCPT refused for ever: the client's address is on a block list", action: action{deed: refuse, kind: blocked}},
	{name: "spam", does: "content refused for ever: looks like spam", action: action{stage: AtDot, deed: refuse, kind: spam}},
	{name: "virus", does: "content refused for ever: malware", action: action{stage: AtDot, deed: refuse, kind: virus}},
	{name: "unauthenticated", does: "content refused for ever: neither SPF nor DKIM", action: action{stage: AtDot, deed: refuse, kind: unauthenticated}},
	{name: "policy", does: "content refused for ever: DMARC or another policy", action: action{stage: AtDot, deed: refuse, kind: policy}},
	{name: "too-big", does: "content refused for ever: too large", action: action{stage: AtDot, deed: refuse, kind: tooBig}},

	{name: "greylist", args: untilPassed, does: "RCPT deferred for one second after the first try, then accepted and remembered for this sender and recipient", action: action{deed: refuse, kind: greylist, span: time.Second, remember: true}},
	{name: "mailbox-full", alias: "full", args: untilPassed, does: "RCPT deferred once, then accepted: mailbox full", action: action{deed: refuse, kind: mailboxFull, tries: 1}},
	{name: "tempfail", args: untilPassed, does: "RCPT always deferred: local error", action: action{deed: refuse, kind: tempfail}},
	{name: "tempfail-data", args: untilPassed, does: "the same at DATA", action: action{stage: AtData, deed: refuse, kind: tempfail}},
	{name: "tempfail-dot", args: untilPassed, does: "the same after the content", action: action{stage: AtDot, deed: refuse, kind: tempfail}},
	{name: "rate", args: untilPassed, does: "RCPT deferred once: this user gets too much mail", action: action{deed: refuse, kind: rateUser, tries: 1}},
	{name: "rate-ip", args: untilPassed, does: "RCPT answered once with 421 and closed: too much mail from this address", action: action{deed: shutdown, kind: rateIP, tries: 1}},
	{name: "shutdown", args: untilPassed, does: "RCPT answered once with 421 and closed: service not available", action: action{deed: shutdown, kind: closing, tries: 1}},
	{name: "shutdown-dot", args: untilPassed, does: "the same after the content", action: action{stage: AtDot, deed: shutdown, kind: closing, tries: 1}},

	{name: "drop-rcpt", alias: "drop", args: untilPassed, does: "connection closed at RCPT without a reply, once", action: action{deed: drop, tries: 1}},
	{name: "drop-data", args: untilPassed, does: "connection closed inside the content, once", action: action{stage: AtContent, deed: drop, tries: 1}},
	{name: "drop-dot", args: untilPassed, does: "content accepted and counted, but the connection closed before the reply, once", action: action{stage: AtDot, deed: drop, tries: 1}},
	{name: "silent", args: untilPassed, does: "no reply to RCPT, nor to anything after it", action: action{deed: silent}},
	{name: "silent-data", args: untilPassed, does: "no reply to DATA", action: action{stage: AtData, deed: silent}},
	{name: "silent-dot", args: untilPassed, does: "content read, neither accepted nor answered", action: action{stage: AtDot, deed: silent}},
	{name: "slow", alias: "delay", args: pauseLength, does: "each reply from RCPT on comes 2 s late", action: action{deed: slow, pause: 2 * time.Second}},
	{name: "slow-data", args: pauseLength, does: "content read 4 kB at a time, with 100 ms between", action: action{stage: AtContent, deed: slow, pause: 100 * time.Millisecond}},
	{name: "slow-dot", args: pauseLength, does: "the reply to the content comes 5 s late", action: action{stage: AtDot, deed: slow, pause: 5 * time.Second}},
	{name: "tarpit", args: pauseLength, does: "each reply from RCPT on comes byte by byte, one a second", action: action{deed: tarpit, pause: time.Second}},

	{name: "long-reply", args: lineCount, does: "RCPT accepted with a reply of 20 lines", action: action{deed: lengthy, lines: 20}},
	{name: "code-only", does: "RCPT accepted with the bare code, no text", action: action{deed: terse}},
	{name: "garbage", args: untilPassed, does: "RCPT answered with something that is not SMTP", action: action{deed: garbage}},
	{name: "reply", args: replyCode, does: "RCPT answered with this code", action: action{deed: refuse}},
	{name: "reply-data", args: replyCode, does: "the same at DATA", action: action{stage: AtData, deed: refuse}},
	{name: "reply-dot", args: replyCode, does: "the same after the content", action: action{stage: AtDot, deed: refuse}},

	{name: "late-bounce", args: waitLength, does: "accepted, and half a second later a report comes back: no such user", action: later},
	{name: "complain", args: waitLength, does: "accepted; then the recipient reports it as spam", action: later},
	{name: "vacation", args: waitLength, does: "accepted; then an automatic reply comes back", action: later},
	{name: "open", args: waitLength, does: "accepted; then the recipient opens it: its images are loaded", action: later},
	{name: "click", args: waitLength, does: "accepted; then the recipient opens it and follows its first link", action: later},
	{name: "prefetch", args: waitLength, does: "accepted; then a privacy proxy loads its images", action: later},
	{name: "scan", args: waitLength, does: "accepted; then a filter asks for all of its links, the one for leaving too", action: later},
	{name: "unsubscribe", args: waitLength, does: "accepted; then the recipient unsubscribes by one click (RFC 8058)", action: later},
	{name: "unsubscribe-mail", args: waitLength, does: "accepted; then the recipient unsubscribes by mail", action: later},
}

// later is the action of what follows after a message was taken.
var later = action{stage: After, deed: react, pause: 500 * time.Millisecond}

// table gives the behaviours by name. Those without a stage of their own are of
// RCPT; no behaviour is of AtConnect, the zero Stage.
func table() map[string]*behaviour {
	byName := make(map[string]*behaviour, 2*len(behaviours))
	for i := range behaviours {
		b := behaviours[i]
		b.action.name = b.name
		if b.action.stage == AtConnect {
			b.action.stage = AtRcpt
		}
		byName[b.name] = &b
		if b.alias != "" {
			byName[b.alias] = &b
		}
	}
	return byName
}

// errNoBehaviour says that a local part names nothing in the table.
var errNoBehaviour = errors.New("no such behaviour")

// maxPause bounds what a local part can ask for, in time and in lines.
const (
	maxPause = time.Hour
	maxLines = 1000
)

// parseBehaviour reads "name+argument+argument". The action is nil for "ok".
func parseBehaviour(byName map[string]*behaviour, s string) (*action, error) {
	name, rest, more := strings.Cut(s, "+")
	b := byName[name]
	if b == nil {
		b = byName[strings.ToLower(name)]
	}
	if b == nil {
		return nil, errNoBehaviour
	}
	if b.action.deed == accept {
		return nil, nil // ok+anything
	}
	if !more && b.args != replyCode {
		return &b.action, nil // shared, and never changed
	}
	a := b.action
	for i, arg := range strings.Split(rest, "+") {
		if err := a.take(b.args, i, strings.ToLower(arg)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return &a, nil
}

// take reads the i-th argument.
func (a *action) take(args arguments, i int, arg string) error {
	switch {
	case args == noArgument:
		return fmt.Errorf("takes no argument, not %q", arg)
	case args == lineCount:
		n, err := strconv.Atoi(arg)
		if err != nil || n < 1 || n > maxLines || i > 0 {
			return fmt.Errorf("%q is not a number of lines from 1 to %d", arg, maxLines)
		}
		a.lines = n
		return nil
	case args == replyCode && i == 0:
		r, err := parseReply(strings.Replace(arg, "-", " ", 1))
		a.reply = r
		return err
	case (args == pauseLength || args == waitLength) && i == 0:
		d, err := time.ParseDuration(arg)
		if err != nil || d <= 0 || d > maxPause {
			return fmt.Errorf("%q is not a time such as 500ms or 3s, up to 1h", arg)
		}
		a.pause = d
		return nil
	}
	if args == waitLength {
		return fmt.Errorf("takes one time, not %q too", arg)
	}
	a.tries, a.span = 0, 0
	if arg == "always" {
		return nil
	}
	if n, err := strconv.Atoi(arg); err == nil && n > 0 {
		a.tries = n
		return nil
	}
	if d, err := time.ParseDuration(arg); err == nil && d > 0 {
		a.span = d
		return nil
	}
	return fmt.Errorf("%q is not a number of tries, a time such as 30s, or always", arg)
}

// parseReply reads "550", "550 5.7.1" or "550 5.7.1 words". Without words it
// has those of the simulator.
func parseReply(s string) (*smtp.Reply, error) {
	code, rest, _ := strings.Cut(s, " ")
	n, err := strconv.Atoi(code)
	if err != nil || n < 200 || n > 599 {
		return nil, fmt.Errorf("%q is not a reply code from 200 to 599", code)
	}
	r := &smtp.Reply{Code: n}
	if first, words, _ := strings.Cut(rest, " "); isEnhanced(first) {
		if int(first[0]-'0') != n/100 {
			return nil, fmt.Errorf("the codes %s and %s are not of one class", code, first)
		}
		r.Enhanced, rest = first, words
	}
	if rest == "" {
		rest = "As you asked"
	}
	r.Lines = strings.Split(rest, "\n")
	return r, nil
}

// isEnhanced takes the codes of RFC 3463 section 2.
func isEnhanced(s string) bool {
	parts := strings.Split(s, ".")
	for _, p := range parts {
		if n, err := strconv.Atoi(p); err != nil || n < 0 || n > 999 {
			return false
		}
	}
	return len(parts) == 3 && len(parts[0]) == 1
}

// WriteBehaviours prints the table of local parts, for people.
func WriteBehaviours(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, b := range behaviours {
		name := b.name
		switch b.args {
		case untilPassed:
			name += "[+UNTIL]"
		case pauseLength:
			name += "[+TIME[+UNTIL]]"
		case waitLength:
			name += "[+TIME]"
		case lineCount:
			name += "[+LINES]"
		case replyCode:
			name += "+CODE[+UNTIL]"
		}
		does := b.does
		if b.alias != "" {
			does += " (also: " + b.alias + ")"
		}
		fmt.Fprintf(tw, "%s\t%s\n", name, does)
	}
	fmt.Fprint(tw, `
UNTIL is a number of tries (greylist+2), a time since the first try
(mailbox-full+30s) or always; then the recipient is accepted. Tries are counted
by sender and recipient, and begin anew once one was let through.
TIME is such as 500ms or 3s (slow+3s). CODE is 550 or 550-5.7.1.
What follows later needs -react-smtp or -react-http.
`)
	return tw.Flush()
}
