// Package feedback makes sense of what receivers say: it puts replies into
// plain words, and writes the delivery status notifications for senders.
package feedback

import (
	"strings"

	"postrider/internal/relay"
)

// Categories of failures. "hard" ones are of the address, "soft" ones pass,
// "block" ones are the receiver's judgement of the sender or the message.
const (
	NoMailbox   = "hard/no-mailbox"
	NoDomain    = "hard/no-domain"
	NoMail      = "hard/accepts-no-mail"
	Disabled    = "hard/disabled"
	TooLarge    = "hard/too-large"
	Unsupported = "hard/unsupported"
	MailboxFull = "soft/mailbox-full"
	Greylisted  = "soft/greylisted"
	RateLimited = "soft/rate-limited"
	Busy        = "soft/busy"
	Unreachable = "soft/unreachable"
	NoAnswerDNS = "soft/dns"
	BrokenOff   = "soft/broken-off"
	TLSProblem  = "soft/tls"
	Spam        = "block/spam"
	Reputation  = "block/reputation"
	Policy      = "block/policy"
	Unauth      = "block/authentication"
	Login       = "soft/login"
	Loop        = "hard/loop"
	Other       = "other"
)

// rule recognises one category: by the enhanced code, whole or its last two
// parts, or by words of the text.
type rule struct {
	category string
	codes    []string // enhanced codes without the class: "1.1"
	words    []string // lower case
}

// rules are tried in order: words that say more than the code stand first.
var rules = [...]rule{
	{Greylisted, nil, []string{"greylist", "graylist", "grey list", "try again in", "postgrey"}},
	{Unauth, []string{"7.20", "7.21", "7.22", "7.23", "7.24", "7.25", "7.26", "7.27"}, []string{"unauthenticated", "dmarc", "spf check", "spf fail", "dkim", "authentication checks", "sender id (pra)"}},
	{RateLimited, []string{"7.28"}, []string{"rate limit", "too many messages", "too many connections", "too much mail", "unusual rate", "receiving mail at a rate", "throttl", "deferred due to unexpected volume", "tss0"}},
	{Reputation, nil, []string{"blocklist", "blacklist", "block list", "spamhaus", "barracuda", "poor reputation", "low reputation", "ip reputation", "banned sending ip", "client host blocked", "is listed", "listed at", "listed by", "s3150", "s3140", "dnsbl", "rbl"}},
	{Spam, nil, []string{"spam", "unsolicited", "junk", "considered as bulk"}},
	{MailboxFull, []string{"2.2"}, []string{"mailbox full", "mailbox is full", "over quota", "overquota", "out of storage", "quota exceeded", "exceeded storage", "insufficient storage"}},
	{Disabled, []string{"2.1"}, []string{"disabled", "inactive", "suspended", "deactivated"}},
	{NoMailbox, []string{"1.1", "1.6"}, []string{"user unknown", "unknown user", "no such user", "does not exist", "no mailbox", "mailbox unavailable", "recipient rejected", "invalid recipient", "recipientnotfound", "unknown recipient", "account is unavailable", "no such recipient", "address rejected", "doesn't have a"}},
	{NoMailbox, []string{"1.3", "1.10"}, nil},
	{NoDomain, []string{"1.2"}, []string{"domain not found", "no such domain", "unknown domain"}},
	{TooLarge, []string{"3.4", "2.3"}, []string{"too large", "too big", "size limit", "exceeds maximum", "message size"}},
	{Unsupported, []string{"6.7", "6.9", "6.1", "6.3"}, nil},
	{Loop, []string{"4.6"}, []string{"too many hops", "mail loop", "loop detected"}},
	{TLSProblem, []string{"7.10", "7.30", "7.5"}, []string{"must issue a starttls", "requires tls", "encryption required"}},
	{Policy, []string{"7.1", "7.0", "7.9", "7.606", "7.708"}, []string{"policy", "not allowed", "access denied", "rejected for", "prohibited", "not permitted"}},
	{Busy, []string{"3.1", "3.2", "3.0", "4.5", "3.5"}, []string{"try again later", "temporarily unavailable", "temporary failure", "server busy", "service unavailable", "service not available", "shutting down", "overloaded", "system resources", "too busy"}},
}

// Stages in which something other than a reply ended an attempt.
const (
	StageRoute   = "route"
	StageConnect = "connect"
	StageTLS     = "starttls"
	StageAuth    = "auth"
	StageContent = "data"
	StageDot     = "dot"
)

// Diagnose puts a failure into plain words. The stage is where the attempt
// ended; r is the receiver's reply, or what stood in for one (Code 0).
func Diagnose(stage string, r relay.Reply, host string) relay.Diagnosis {
	category := categoryOf(stage, r)
	w := words[category]
	by := host
	if by == "" {
		by = "The receiving server"
	}
	final := r.Code >= 500 || r.Code == 0 && strings.HasPrefix(r.Enhanced, "5")
	text := strings.ReplaceAll(w.text, "{host}", by)
	if category == Other && final {
		text = by + " refuses the message for good."
	}
	advice := w.advice
	if advice == "" && !final {
		advice = "Nothing: it is tried again by itself."
	}
	return relay.Diagnosis{Category: category, Text: text, Advice: advice}
}

func categoryOf(stage string, r relay.Reply) string {
	if r.Code == 0 {
		switch {
		case stage == StageRoute && r.Enhanced == "5.1.2":
			return NoDomain
		case r.Enhanced == "5.1.10":
			return NoMail
		case stage == StageRoute && r.Enhanced == "4.4.3":
			return NoAnswerDNS
		case stage == StageRoute:
			return Unreachable
		case r.Enhanced == "5.3.4":
			return TooLarge
		case strings.HasPrefix(r.Enhanced, "5.6."):
			return Unsupported
		case stage == StageTLS || strings.HasSuffix(r.Enhanced, ".7.30"):
			return TLSProblem
		case stage == StageConnect:
			return Unreachable
		default:
			return BrokenOff
		}
	}
	if stage == StageAuth {
		return Login
	}
	if r.Code == 421 && r.Enhanced == "" {
		return Busy
	}
	text := strings.ToLower(r.Text)
	_, detail, _ := strings.Cut(r.Enhanced, ".")
	for _, rule := range rules {
		for _, w := range rule.words {
			if strings.Contains(text, w) {
				return rule.category
			}
		}
	}
	for _, rule := range rules {
		for _, c := range rule.codes {
			if c == detail && detail != "" {
				return rule.category
			}
		}
	}
	switch {
	case r.Code == 552:
		return MailboxFull
	case r.Code == 550 && stage == "rcpt":
		return NoMailbox
	case r.Code == 450 || r.Code == 451 || r.Code == 421 || r.Code == 452:
		return Busy
	default:
		return Other
	}
}

// words says each category to people: what happened and why, and what to do
// where the relay's trying again does not do it.
var words = map[string]struct{ text, advice string }{
	NoMailbox:   {"The address does not exist at the receiver.", "Check the spelling; take the address off your lists."},
	NoDomain:    {"The domain of the address does not exist.", "Check the spelling behind the @."},
	NoMail:      {"The domain says that it takes no mail at all.", "Ask the recipient for another address."},
	Disabled:    {"The mailbox exists but is closed.", "Take the address off your lists."},
	TooLarge:    {"The message is larger than the receiver takes.", "Send a link instead of an attachment."},
	Unsupported: {"The receiver can't take this kind of message.", "Use an address and a subject without non-ASCII characters for this recipient."},
	Loop:        {"The message goes in a circle.", "Look for a forwarding that leads back to itself."},
	MailboxFull: {"The recipient's mailbox is full.", "Wait until the recipient has made room."},
	Greylisted:  {"{host} asks unknown senders to come back in some minutes (greylisting).", ""},
	RateLimited: {"{host} takes mail from this sender more slowly than it is sent.", ""},
	Busy:        {"{host} is too busy or out of order at the moment.", ""},
	Unreachable: {"No mail server of the receiver can be reached.", ""},
	NoAnswerDNS: {"The DNS does not say at the moment where the domain's mail goes.", ""},
	BrokenOff:   {"The connection to {host} broke before the message was through.", ""},
	TLSProblem:  {"No secure connection to {host} can be had.", "Tell the receiver's postmaster, if it lasts."},
	Login:       {"{host} refuses our login.", "Correct the user name or password of the route."},
	Spam:        {"{host} takes the message for spam.", "Look at its content and links, and at who is on the list of recipients."},
	Reputation:  {"{host} refuses mail from this sending address because of its reputation.", "Look the address up at the blocklist that is named, and ask to be taken off."},
	Policy:      {"{host} refuses the message by a rule of its own.", "Read its words; ask the receiver's postmaster where they do not say which rule."},
	Unauth:      {"{host} finds that the message is not authenticated (SPF, DKIM, DMARC).", "Correct the DNS records of the sending domain."},
	Other:       {"{host} does not take the message at the moment.", ""},
}
