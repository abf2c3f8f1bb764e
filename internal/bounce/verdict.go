package bounce

import (
	"regexp"
	"strings"

	"postrider/internal/classify"
)

// Verdict is what a mail means for one recipient.
type Verdict struct {
	Recipient Recipient
	classify.Result
}

// Judge says what the mail means for each of its recipients. A mail that is
// nothing of what this package knows has none.
func (m Mail) Judge(c *classify.Classifier) []Verdict {
	var all []Verdict
	for _, rc := range m.Recipients {
		all = append(all, Verdict{rc, m.judge(c, rc)})
	}
	return all
}

// judge says what the mail means for one recipient. Only what a mail system says
// can condemn an address, of an address that it names: people write about bounces
// too. Where the mail was passed on, the address that it was sent to may live. A
// complaint that names nobody condemns nobody: who it is about has to be found first.
func (m Mail) judge(c *classify.Classifier, rc Recipient) classify.Result {
	res := m.classify(c, rc)
	res.Suppress = res.Suppress && (m.Kind == Complaint && rc.Address != "" || m.Standard && !rc.Guessed && rc.Asked == "")
	return res
}

func (m Mail) classify(c *classify.Classifier, rc Recipient) classify.Result {
	switch m.Kind {
	case Complaint:
		return m.complained(c, rc)
	case AutoReply:
		return c.Meaning("auto-reply", domain(rc.Address), "")
	case Challenge:
		return c.Meaning("challenge", domain(rc.Address), "")
	}
	switch rc.Action {
	case "delivered", "relayed", "expanded":
		res := c.Meaning("delivered", domain(rc.Address), "")
		res.Enhanced = rc.Status
		return res
	}
	base := classify.Reply{Enhanced: rc.Status, Host: rc.Host, To: rc.Address, Action: rc.Action, Stage: stage(rc)}
	r := base
	r.Text = remark.ReplaceAllString(rc.Reply, "")
	if rc.Reply == "" {
		r.Text, r.Prose = prose(rc.Context), true
	}
	res := c.Classify(r)
	if !res.Vague && !(rc.Action == "delayed" && res.Category == "expired") { // it is not over yet: why is it late?
		return res
	}
	// The server's words say little: what the report adds may say more. It may
	// also be general talk, so it never condemns an address by itself.
	for _, more := range []string{rc.Context, m.Text, m.subject()} {
		r := base
		r.Text, r.Prose = rc.Reply+"\n"+prose(more), rc.Reply == ""
		if better := c.Classify(r); !better.Vague && better.Meaning != res.Meaning {
			better.Suppress = false
			return better
		}
	}
	return res
}

// remark finds what mail systems add for those who keep them, and says nothing of
// the address: Exchange's names and numbers, and when it was; Google's state; the
// other hosts that a qmail tried.
var remark = regexp.MustCompile(`(?im)(?:The MTS-ID of the original message is:[^;]{0,60};[^;]{0,60};\s*p=[^;]{0,60};l=\S+\s)?\s+MSEXCH:(?:[^()]{1,120}\([0-9A-F]{8}\)|\S{1,80}\s*$)|` +
	`\bon (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}|\bon \d{1,2}/\d{1,2}/\d{2,4} \d{1,2}:\d\d(?::\d\d)?(?: [AP]M)?|` +
	`\(state \d{1,2}\)|\(Other MXes tried:[^()]{1,800}\)`)

// announcing finds words that say whom a mail did not reach, and not why.
var announcing = regexp.MustCompile(`(?i)\bdid not reach the following recipient(?:\(s\)|s)?:?`)

func prose(s string) string {
	return remark.ReplaceAllString(announcing.ReplaceAllString(s, ""), "")
}

// subject is the mail's without what says only that it came back, and without that
// of the message.
func (m Mail) subject() string {
	s := m.Subject
	if o := strings.TrimSpace(m.Original.Subject); o != "" {
		s = strings.Replace(s, o, "", 1)
	}
	s = strings.ToLower(s)
	for _, p := range []string{"undeliverable", "mail system error"} {
		s = strings.TrimPrefix(s, p)
	}
	return s
}

// stage finds to which command the reply was given, as reports tell it.
func stage(rc Recipient) string {
	s := strings.ToLower(rc.Reply + "\n" + rc.Context)
	for _, w := range []struct{ words, stage string }{
		{"in reply to rcpt to", "rcpt"}, {"after rcpt to", "rcpt"}, {">>> rcpt to", "rcpt"}, {"[rcpt_to]", "rcpt"}, {"sent: rcpt to", "rcpt"}, {"after pipelined rcpt to", "rcpt"},
		{"in reply to mail from", "mail"}, {"after mail from", "mail"}, {"after pipelined mail from", "mail"}, {">>> mail from", "mail"},
		{"in reply to end of data", "dot"}, {"after end of data", "dot"}, {"in reply to data", "data"}, {"in reply to helo", "ehlo"}, {"in reply to ehlo", "ehlo"}, {"after initial connection", "greeting"},
	} {
		if strings.Contains(s, w.words) {
			return w.stage
		}
	}
	return ""
}

// complained tells complaints from what only comes in the same form (RFC 5965
// section 7.3, RFC 6591).
func (m Mail) complained(c *classify.Classifier, rc Recipient) classify.Result {
	switch m.Feedback.Type {
	case "not-spam":
		return c.Meaning("not-spam", domain(rc.Address), "")
	case "auth-failure", "dmarc":
		switch m.Feedback.Failure {
		case "bodyhash", "signature", "revoked", "adsp":
			return c.Meaning("authentication-failed-dkim", domain(rc.Address), "")
		case "spf":
			return c.Meaning("authentication-failed-spf", domain(rc.Address), "")
		}
		return c.Meaning("authentication-report", domain(rc.Address), "")
	}
	return c.Meaning("complaint", domain(rc.Address), "")
}

func domain(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}
