// Package feedback makes sense of what receivers say: it puts replies into
// plain words, and writes the delivery status notifications for senders.
package feedback

import (
	"strings"
	"unicode/utf8"

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
	Own         = "soft/relay" // our own trouble
	TLSProblem  = "soft/tls"
	Spam        = "block/spam"
	Reputation  = "block/reputation"
	Policy      = "block/policy"
	Unauth      = "block/authentication"
	NoPTR       = "block/reverse-dns"
	BadSender   = "block/sender"
	Login       = "soft/login"
	Loop        = "hard/loop"
	Other       = "other"
)

// rule recognises one category by words of the text, and tells the class of
// reply that it is for.
type rule struct {
	category string
	class    int    // 4 or 5: only such replies; 0: both
	detail   string // enhanced code without its class, "7.1": only with this one; empty: any
	words    string // phrases between bars, lower case; "*" at the end: the last word may go on
	names    bool   // look into host names and URLs as well
}

// telling are phrases that say more than any code, in the order in which they
// are tried: what says most stands first.
var telling = [...]rule{
	{category: Policy, names: true, words: "sendernotauthenticated*|sender not authenticated for group|allowed-senders list|recipnotauthorized*"},
	{category: Login, words: "authentication required|authentication is required|must be authenticated|must authenticate|log in first"},
	{category: TLSProblem, words: "must issue a starttls|starttls first|starttls is required|requires tls|tls required|tls is required|must use tls|encryption required|requires encryption"},
	{category: Loop, words: "too many hops|mail loop*|loop detected|routing loop|hop count exceeded|loops back|too many received"},
	{category: Greylisted, class: 4, names: true, words: "greylist*|graylist*|grey list*|gray list*|grey-list*|gray-list*|postgrey*"},
	{category: Busy, class: 4, words: "verification in progress"},
	{category: Reputation, words: "permanently deferred"},
	{category: Reputation, class: 5, words: "unusual rate of"},
	{category: RateLimited, words: "rate limit*|rate-limit*|ratelimit*|unusual rate of|at a rate that|message rate|connection rate|too quickly|too fast|slow down|throttl*|" +
		"too many messages|too many connections|too many concurrent|too many simultaneous|too many sessions|too many recipients|too much mail|concurrent connection*|connections limit*|" +
		"thread limit exceeded|unexpected volume|frequency limited|sending limit*|sending quota|daily limit*|hourly limit*|message quota"},
	{category: NoPTR, words: "ptr record*|ptr resource record*|no ptr|missing ptr|reverse dns*|rdns|reverse hostname|reverse lookup*|cannot find your hostname|fcrdns|helo command rejected|invalid helo*|helo name"},
	{category: Unauth, words: "unauthenticated|dmarc|spf|dkim|sender policy framework|sender id (pra)|authentication checks|pass authentication|required authentication level"},
	{category: Spam, names: true, words: "surbl*|uribl*|mcspamsignature*"},
	{category: Spam, words: "contains a url*|phishing"},
	{category: Reputation, names: true, words: "blocklist*|blacklist*|block list*|black list*|block-list*|black-list*|dnsbl*|rbl|rbls|spamhaus*|spamcop*|sorbs|reputation|" +
		"banned sending ip|banned sender*|blocked using|is listed|are listed|currently listed|listed at|listed by|listed on|s3140|s3150|ipcheck|" +
		"traffic not accepted from|dynamic ip*|residential ip*|dial-up|dialup|ip has been blocked|ip address has been blocked|directly to our servers"},
	{category: Spam, words: "spam*|anti-spam*|antispam*|unsolicited*|junk|bulk|dt:spm|content denied"},
	{category: BadSender, words: "sender address rejected|sender verify failed|sender verification|domain of sender|sender's domain|sender domain|invalid sender*|bad sender*|sender rejected|unknown sender*"},
	{category: Policy, words: "relay access denied|relay denied|relaying denied|relay not permitted|relaying not permitted|relaying not allowed|relaying prohibited|relaying disallowed|unable to relay|not a relay|do not relay|rcpthosts"},
	{category: MailboxFull, names: true, words: "mailbox full|is full|quota|overquota*|quotaexceeded*|out of storage*|exceeded storage*|storage limit|storage allocation|recipient storage|insufficient storage"},
	{category: TooLarge, words: "too large|too big|size limit*|message size|maximum size|exceeds max*|exceeds the max*|exceeds fixed*|exceeds size*|larger than"},
	{category: NoDomain, words: "domain not found|no such domain|unknown domain|domain unknown|domain does not exist|domain doesn't exist|host unknown|unknown host|host not found|no such host"},
	{category: Disabled, words: "disabled|inactive|suspended|deactivated|no longer active|no longer accepts*|has been closed|account closed|mailbox closed"},
	{category: NoMailbox, names: true, words: "recipientnotfound*|nosuchuser"},
	{category: NoMailbox, words: "user unknown|unknown user|recipient unknown|unknown recipient|unknown address|addressee unknown|unknown local part|" +
		"no such user|no such recipient|no such mailbox|no such address|no such person|no such account|no mailbox|" +
		"user not found|recipient not found|mailbox not found|address not found|account not found|" +
		"does not exist|doesn't exist|invalid recipient*|invalid mailbox|invalid user|invalid address|not a valid recipient|not a valid user|not a valid mailbox|not a known user|" +
		"doesn't have a|not our customer|unrouteable address|unroutable address|undeliverable address|account is unavailable|not listed in domino"},
	{category: NoMailbox, class: 5, words: "mailbox unavailable"},
}

// codes are enhanced codes that say enough by themselves: whole, or without
// the class (RFC 3463 and the IANA registry of enhanced status codes).
var codes = map[string]string{
	"1.1": NoMailbox, "1.3": NoMailbox, "1.6": NoMailbox, "1.10": NoMailbox, "5.4.1": NoMailbox, // Exchange's word for it
	"7.17": NoMailbox, "7.18": NoMailbox, // RFC 7293: the owner has changed
	"1.2": NoDomain, "1.7": BadSender, "1.8": BadSender, "7.27": BadSender,
	"5.2.1": Disabled, "7.13": Disabled, "2.2": MailboxFull, "2.3": TooLarge, "3.4": TooLarge,
	"4.6": Loop, "4.14": Loop, "6.1": Unsupported, "6.3": Unsupported, "6.7": Unsupported, "6.9": Unsupported,
	"7.20": Unauth, "7.21": Unauth, "7.22": Unauth, "7.23": Unauth, "7.24": Unauth, "7.26": Unauth, "7.29": Unauth,
	"7.25": NoPTR, "7.28": RateLimited, "5.3": RateLimited, "7.708": Reputation,
	"7.10": TLSProblem, "7.30": TLSProblem, "7.5": TLSProblem, "7.8": Login, "7.11": Login, "7.12": Login,
	"4.2.0": Busy, "4.2.1": Busy, "4.3.0": Busy, "4.3.1": Busy, "4.3.2": Busy, "4.3.5": Busy, "4.4.1": Busy, "4.4.2": Busy, "4.4.3": Busy, "4.4.5": Busy,
}

// vague are phrases that say less than a code, where there is one that tells.
var vague = [...]rule{
	{category: Greylisted, class: 4, detail: "7.1", words: "try again|try later|come back"},
	{category: Busy, class: 4, words: "try again|try later|come back later|temporar*|busy|unavailable|not available|shutting down|overloaded|system resources"},
	{category: Policy, words: "policy|policies|not allowed|not permitted|access denied|denied|prohibited|administrative*|blocked|banned|virus*|malware*|security issue|malformed|rejected for|content rejected"},
	{category: NoMailbox, class: 5, words: "address rejected|recipient rejected"},
}

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

// Diagnose puts a failure into plain words. The stage is where the attempt
// ended; r is the receiver's reply, or what stood in for one (Code 0).
func Diagnose(stage string, r relay.Reply, host string) relay.Diagnosis {
	category := categoryOf(stage, r)
	w := words[category]
	by := host
	if by == "" {
		by = "the receiving server"
	}
	text := strings.ReplaceAll(w.text, "{host}", by)
	if host == "" && strings.HasPrefix(w.text, "{host}") {
		text = "T" + text[1:]
	}
	advice := w.advice
	switch final := final(stage, r); {
	case category == Other && final:
		text, advice = strings.ReplaceAll("{host} refuses the message for good.", "{host}", by), words[Policy].advice
		if host == "" {
			text = "T" + text[1:]
		}
	case advice == "" && final:
		advice = "Send it again later."
	case advice == "":
		advice = "Nothing: it is tried again by itself."
	}
	return relay.Diagnosis{Category: category, Text: text, Advice: advice}
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

func categoryOf(stage string, r relay.Reply) string {
	switch {
	case r.Code == 0:
		return withoutReply(stage, r)
	case stage == StageTLS:
		return TLSProblem
	case stage == StageAuth && r.Code >= 500:
		return Login
	}
	whole, prose := readable(r.Text)
	code := r.Enhanced
	if code == "" {
		code = hiddenCode(r.Text)
	}
	class, detail, _ := strings.Cut(code, ".")
	if r.Code/100 >= 4 {
		class = string(rune('0' + r.Code/100)) // what the receiver will do, whatever the enhanced code says
	}
	for _, t := range telling {
		if t.matches(class, detail, whole, prose) {
			return t.category
		}
	}
	if c, ok := codes[class+"."+detail]; ok {
		return c
	}
	if c, ok := codes[detail]; ok {
		return c
	}
	if detail == "1.0" { // "other address": the one that was just named
		if stage == StageMail {
			return BadSender
		}
		return NoMailbox
	}
	if strings.HasPrefix(detail, "7.6") && len(detail) == len("7.606") { // Microsoft: 5.7.606 to 5.7.649
		return Reputation
	}
	for _, v := range vague {
		if v.matches(class, detail, whole, prose) {
			return v.category
		}
	}
	if strings.HasPrefix(detail, "7.") {
		return Policy
	}
	return byCode(stage, r.Code)
}

// withoutReply judges an attempt that ended without the receiver saying so.
func withoutReply(stage string, r relay.Reply) string {
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
	case stage == StageSign || strings.HasPrefix(r.Enhanced, "4.3."):
		return Own
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

// byCode judges by the reply code alone (RFC 5321 section 4.2.3).
func byCode(stage string, code int) string {
	switch code {
	case 521, 556: // RFC 7504
		return NoMail
	case 530, 534, 535, 538:
		return Login
	case 552:
		if stage == StageMail { // RFC 1870 section 6.1
			return TooLarge
		}
		return MailboxFull
	case 550, 551, 553:
		if stage == StageRcpt {
			return NoMailbox
		}
	case 554:
		if stage == StageGreeting {
			return Policy
		}
	case 421, 450, 451, 452:
		return Busy
	}
	return Other
}

func (t *rule) matches(class, detail, whole, prose string) bool {
	if t.class != 0 && class != string(rune('0'+t.class)) || t.detail != "" && detail != t.detail {
		return false
	}
	text := prose
	if t.names {
		text = whole
	}
	for w := range strings.SplitSeq(t.words, "|") {
		if contains(text, w) {
			return true
		}
	}
	return false
}

// contains tells whether the phrase stands in the text as words of their own.
func contains(text, phrase string) bool {
	phrase, stem := strings.CutSuffix(phrase, "*")
	for from := 0; ; {
		i := strings.Index(text[from:], phrase)
		if i < 0 {
			return false
		}
		i += from
		end := i + len(phrase)
		if (i == 0 || !isWord(text[i-1])) && (stem || end == len(text) || !isWord(text[end])) {
			return true
		}
		from = i + 1
	}
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c >= utf8.RuneSelf
}

// readable gives the text of a reply in lower case, on one line and without
// mail addresses, which may have any words in them; prose is also without host
// names and URLs.
func readable(text string) (whole, prose string) {
	var w, p []string
	for f := range strings.FieldsSeq(strings.ToLower(text)) {
		parts := []string{f}
		if strings.Contains(f, "@") {
			parts = strings.FieldsFunc(f, func(c rune) bool { return strings.ContainsRune("<>()[]:;,\"", c) })
		}
		for _, part := range parts {
			if strings.Contains(part, "@") {
				continue
			}
			w = append(w, part)
			if !isName(part) {
				p = append(p, part)
			}
		}
	}
	return strings.Join(w, " "), strings.Join(p, " ")
}

// isName tells whether a word has a dot inside, as host names and URLs have.
func isName(f string) bool {
	for i := 1; i < len(f)-1; i++ {
		if f[i] == '.' && isWord(f[i-1]) && isWord(f[i+1]) {
			return true
		}
	}
	return false
}

// hiddenCode finds the enhanced code in a text like "#5.1.0 Address rejected",
// as some appliances write it.
func hiddenCode(text string) string {
	_, rest, found := strings.Cut(text, "#")
	if !found || rest == "" || rest[0] < '4' || rest[0] > '5' {
		return ""
	}
	n := strings.IndexFunc(rest, func(c rune) bool { return (c < '0' || c > '9') && c != '.' })
	if n < 0 {
		n = len(rest)
	}
	if strings.Count(rest[:n], ".") != 2 {
		return ""
	}
	return rest[:n]
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
	Own:         {"Something in this relay stood in the way; the receiver has no part in it.", ""},
	TLSProblem:  {"No secure connection to {host} can be had.", "Tell the receiver's postmaster, if it lasts."},
	NoPTR:       {"{host} wants mail servers to have a proper name, and ours has none (reverse DNS, HELO).", "Set the reverse DNS (PTR record) of the sending address to this relay's hostname, and the hostname's DNS record to the address."},
	BadSender:   {"{host} does not accept the sender's address.", "Check that its domain exists in the DNS and takes mail."},
	Login:       {"{host} refuses our login.", "Correct the user name or password of the route."},
	Spam:        {"{host} takes the message for spam.", "Look at its content and links, and at who is on the list of recipients."},
	Reputation:  {"{host} refuses mail from this sending address because of its reputation.", "Look the address up at the blocklist that is named, and ask to be taken off."},
	Policy:      {"{host} refuses the message by a rule of its own.", "Read its words; ask the receiver's postmaster where they do not say which rule."},
	Unauth:      {"{host} finds that the message is not authenticated (SPF, DKIM, DMARC).", "Correct the DNS records of the sending domain."},
	Other:       {"{host} does not take the message at the moment.", ""},
}
