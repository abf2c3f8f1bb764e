package bounce

import (
	"regexp"
	"slices"
	"strings"

	"postrider/internal/dsn"
	"postrider/internal/message"
)

// addressForm finds mail addresses in running text.
var addressForm = regexp.MustCompile(`[\pL\pN\p{So}.!#$%&*+/=?^_{|}~-][\pL\pN\p{So}.!#$%&'*+/=?^_{|}~-]*@[\pL\pN](?:[\pL\pN.-]*[\pL\pN])?`)

// replyForm finds where a server's words begin: a basic code that stands where
// one can stand.
var replyForm = regexp.MustCompile(`(?m)(?:^|<<<|>>>|[:;("'>#=]|said|was|reply|code|error|with|returned|response)[ \t]*[<("']?[ \t]*([245]\d\d)(?:[ \t\-]+(?:[245]\d\d[ \t\-]+)?(?:#?\(?[245]\.[0-7]\.\d{1,3}|[^\d\s])|,|[ \t]*$)`)

// countForm finds numbers that only look like a code: of bytes, of lines.
var countForm = regexp.MustCompile(`(?i)^[ \t]*(?:size|number of|length|bytes)\b[^:]{0,30}:[ \t]*\d+[ \t]*$`)

// statusForm finds an enhanced code alone.
var statusForm = regexp.MustCompile(`(?:^|[^\d.])([245]\.[0-7]\.\d{1,3})(?:[^\d.]|\.\D|\.?$)`)

// report fills in the recipients of a report: from its part for programs where it
// has one, and from its words.
func (rd *reader) report(top header) {
	m := &rd.mail
	said := newLines(m.Text)
	for _, s := range rd.status {
		m.Host, m.EnvID = firstOf(m.Host, s.ReportingMTA), firstOf(m.EnvID, s.EnvID)
		for _, rc := range s.Recipients {
			to := fromStatus(rc)
			if !usual(to.Address) && len(s.Recipients) == 1 {
				list := unique(top.addresses("x-failed-recipients"), nil)
				if len(list) == 0 {
					list = unique(said.named(), rd.own())
				}
				if len(list) == 1 && usual(list[0]) {
					to.Address = list[0]
				}
			}
			to.Guessed = to.Guessed || rd.ofAnother(to.Reply, to.Address)
			rd.add(to, said)
		}
	}
	if len(m.Recipients) > 0 {
		return
	}
	action := "failed"
	if delayed(m.Subject, m.Text) {
		action = "delayed"
	}
	if rd.notice.says("displayed", "dispatched", "processed") && !failureWords(m.Text) {
		action = "delivered"
	}
	list, guessed := rd.failedAddresses(top, said)
	if len(list) == 0 { // it names nobody, and still says what happened
		list = []string{""}
	}
	list = list[:min(len(list), maxRecipients)]
	named := newNaming(m.Text, list)
	for _, a := range list {
		reply, context := said.about(a, rd.own())
		rd.add(Recipient{Address: a, Action: action, Reply: reply, Context: context, Host: hostIn(context), Guessed: guessed || rd.ofAnother(reply, a) || !named.owns(reply, a)}, nil)
	}
}

// ofAnother tells whether a reply names others than this recipient and us: it may be
// of an address that the mail was passed on to, or of none of ours.
func (rd *reader) ofAnother(reply, address string) bool {
	local, _, _ := strings.Cut(address, "@")
	list := unique(addressForm.FindAllString(reply, 20), rd.own())
	return len(list) > 0 && !slices.ContainsFunc(list, func(a string) bool {
		l, _, _ := strings.Cut(a, "@")
		return strings.EqualFold(strings.Trim(l, `"`), strings.Trim(local, `"`))
	})
}

// naming is where a report names its recipients. It is found once for all of them: who
// asks for each place of a reply anew takes hours over a mail of 64 KB.
type naming struct {
	text     string // in lower case
	mentions []mention
	single   bool
}

// mention is one place.
type mention struct {
	start, end int
	whose      string
}

func newNaming(text string, all []string) *naming {
	n := &naming{single: len(all) < 2}
	if n.single {
		return n
	}
	n.text = strings.ToLower(text)
	for _, a := range all[:min(len(all), 100)] {
		a = strings.ToLower(a)
		for from := 0; a != ""; from++ {
			i := strings.Index(n.text[from:], a)
			if i < 0 {
				break
			}
			from += i
			n.mentions = append(n.mentions, mention{from, from + len(a), a})
		}
	}
	slices.SortStableFunc(n.mentions, func(a, b mention) int { return a.start - b.start })
	return n
}

// before is who was named last before a place.
func (n *naming) before(place int) (whose string) {
	i, _ := slices.BinarySearchFunc(n.mentions, place, func(m mention, place int) int { return m.start - place })
	at := -1
	for i--; i >= 0 && (at < 0 || n.mentions[i].start == at); i-- {
		if m := &n.mentions[i]; m.end <= place {
			at, whose = m.start, m.whose // of those that begin there the first one counts
		}
	}
	return whose
}

// owns tells whether a reply is said of this one of several recipients: it names it, or
// of all of them it was named last before the reply.
func (n *naming) owns(reply, address string) bool {
	if n.single || reply == "" {
		return true
	}
	reply, address = strings.ToLower(reply), strings.ToLower(address)
	reply, _, _ = strings.Cut(reply, "\n")
	if strings.Contains(reply, address) {
		return true
	}
	for at := 0; ; at++ { // the same may be said of several
		i := strings.Index(n.text[at:], reply[:min(len(reply), 24)])
		if i < 0 {
			return false
		}
		at += i
		if n.before(at) == address {
			return true
		}
	}
}

// add appends a recipient once, with what the words say of it.
func (rd *reader) add(rc Recipient, said lines) {
	if len(rd.mail.Recipients) >= maxRecipients || slices.ContainsFunc(rd.mail.Recipients, func(o Recipient) bool { return strings.EqualFold(o.Address, rc.Address) && o.Reply == rc.Reply }) {
		return
	}
	if said != nil {
		reply, context := said.about(rc.Address, rd.own())
		if rc.Reply == "" {
			rc.Reply = reply
		}
		rc.Context = context
	}
	if m := passedOn.FindStringSubmatch(rc.Context); m != nil && rc.Asked == "" && usual(m[1]) && !strings.EqualFold(clean(m[1]), rc.Address) {
		rc.Asked = clean(m[1])
	}
	rd.mail.Recipients = append(rd.mail.Recipients, rc)
}

// fromStatus takes what a group of fields says.
func fromStatus(rc dsn.Recipient) Recipient {
	action := string(rc.Action)
	if action == "" {
		action = "failed"
	}
	out := Recipient{Address: clean(rc.Final), Action: action, Status: rc.Status, Reply: rc.Reply, Host: rc.RemoteMTA}
	if _, asked, _ := strings.Cut(rc.ORcpt, ";"); usual(asked) && !same(clean(asked), out.Address) {
		out.Asked = clean(asked)
		switch {
		case !usual(out.Address):
			out.Address, out.Asked = out.Asked, ""
		case private(out.Address): // its server's own name for the mailbox, or for one behind a list
			out.Address, out.Asked, out.Guessed = out.Asked, "", true
		}
	}
	return out
}

// passedOn finds the address that a failing one stands for, as Exim and sendmail
// name it.
var passedOn = regexp.MustCompile(`(?i)\(?(?:ultimately )?(?:generated|expanded|forwarded) (?:from|by):?\s+<?([^\s<>()]+@[^\s<>()]+)`)

// same tells whether two addresses are one: quotes around a name are no part of it.
func same(a, b string) bool {
	return strings.EqualFold(strings.ReplaceAll(a, `"`, ""), strings.ReplaceAll(b, `"`, ""))
}

// usual tells whether an address is one of Internet mail, with a domain of more
// than one label; X.400 has others.
func usual(a string) bool {
	local, domain, ok := strings.Cut(clean(a), "@")
	return ok && local != "" && strings.Contains(domain, ".") && !strings.ContainsAny(local, "/;")
}

// private tells whether an address has a meaning inside its server's network only.
func private(a string) bool {
	top := a[strings.LastIndexByte(a, '.')+1:]
	return slices.Contains([]string{"local", "localdomain", "lan", "internal", "intern", "intra"}, strings.ToLower(top))
}

// own are addresses that no report is about: ours.
func (rd *reader) own() []string {
	return []string{rd.mail.To, rd.mail.From, rd.mail.Original.From}
}

// failedAddresses finds whom a report without a part for programs is about, and
// tells whether that is a guess: the report does not name them.
func (rd *reader) failedAddresses(top header, said lines) (list []string, guessed bool) {
	if list = top.addresses("x-failed-recipients"); len(list) > 0 {
		return unique(list, nil), false
	}
	if list = rd.notice.addresses("final-recipient"); len(list) > 0 {
		return unique(list, nil), false
	}
	if after := said.afterAnnounced(); after != nil {
		if list = unique(after.named(), rd.own()); len(list) > 0 {
			return list, false
		}
		if list = unique(after.mentioned(), rd.own()); len(list) > 0 {
			return list[:1], false
		}
	}
	if list = unique(said.named(), rd.own()); len(list) > 0 {
		return list, false
	}
	if list = unique(said.mentioned(), rd.own()); len(list) > 0 {
		subject := strings.ToLower(rd.mail.Subject)
		for _, a := range list { // the subject may name the mailbox
			if local, _, _ := strings.Cut(strings.ToLower(a), "@"); len(local) > 3 && strings.Contains(subject, local) {
				return []string{a}, true
			}
		}
		return list[:1], true
	}
	if list = unique(addressForm.FindAllString(rd.mail.Subject, 10), rd.own()); len(list) > 0 {
		return list, false
	}
	if list = unique(rd.mail.Original.To, nil); len(list) > 0 {
		return list[:1], rd.guess || len(list) > 1
	}
	if list = unique(said.named(), nil); len(list) > 0 { // mail to oneself
		return list[:1], true
	}
	return nil, true
}

// unique drops repeats and what is not wanted.
func unique(list, not []string) (out []string) {
	for _, a := range list {
		a = clean(a)
		same := func(o string) bool { return strings.EqualFold(o, a) }
		if a == "" || slices.ContainsFunc(out, same) || slices.ContainsFunc(not, same) {
			continue
		}
		out = append(out, a)
	}
	return out
}

// clean makes an address fit: without what stands around it.
func clean(a string) string {
	for _, p := range []string{"smtp=", "smtp:", "rfc822;", "rfc822:", "mailto:", "orcpt="} {
		if i := strings.LastIndex(strings.ToLower(a), p); i >= 0 && strings.Contains(a[i:], "@") {
			a = a[i+len(p):]
		}
	}
	a = strings.Trim(message.Clean(a, 320), "<>()[] ,;:")
	if local, domain, ok := strings.Cut(a, `"@`); ok && strings.HasPrefix(local, `"`) && len(local) > 1 { // a quoted name
		return local + `"@` + strings.Trim(domain, "<>()[]\"' ,;:.")
	}
	return strings.Trim(a, "<>()[]\"' ,;:.")
}

const (
	// maxLines is how many lines of a report's words are looked at.
	maxLines = 2000
	// maxContext is how many bytes of them are kept for one recipient.
	maxContext = 8 << 10
)

// line is a line of what a report says to people, taken apart once, since it is
// asked about for each recipient.
type line struct {
	text, lower string
	named       []string // addresses that stand where reports name the recipient
	skip        bool     // it names others
	reply       bool     // a server's words begin in it
	announces   bool     // recipients come after it
	words       bool     // there is more than addresses in it
}

type lines []line

func newLines(text string) (l lines) {
	for s := range strings.SplitSeq(text, "\n") {
		if len(l) == maxLines {
			break
		}
		if len(s) > 4000 {
			s = strings.ToValidUTF8(s[:4000], "")
		}
		n := line{text: s, lower: strings.ToLower(s)}
		n.skip, n.announces = skipped(n.lower), containsAny(n.lower, announcements)
		n.reply = replyForm.MatchString(s) && !countForm.MatchString(s)
		rest := s
		if strings.Contains(s, "@") {
			if !n.skip {
				n.named = names(s)
			}
			rest = addressForm.ReplaceAllString(s, "")
		}
		n.words = strings.IndexFunc(rest, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r > 0x7f }) >= 0
		l = append(l, n)
	}
	return l
}

// notRecipient are beginnings of lines that name others than the recipient.
var notRecipient = []string{"from:", "from ", "sender:", "mail from", ">>> mail from", "reply-to", "contact", "please contact", "return-path", "message-id", "references", "in-reply-to", "for help", "for further", "if you", "please send", "postmaster", "subject:", "http", "envelope from", "envelope-from", "original sender", "sent <<< mail", "x-", "cc:", "reporting"}

// skipped tells whether a line, in lower case, names others than the recipient.
func skipped(line string) bool {
	l := strings.TrimLeft(line, " \t>*-")
	for _, p := range notRecipient {
		if strings.HasPrefix(l, p) {
			return true
		}
	}
	return strings.Contains(l, "mail from:<") || strings.Contains(l, "mail from: <") && !strings.Contains(l, "rcpt")
}

// named are the addresses that stand where reports name the recipient.
func (l lines) named() (list []string) {
	for _, n := range l {
		list = append(list, n.named...)
	}
	return list
}

// names finds addresses that stand first in a line, or after a word that
// announces the recipient.
func names(s string) (list []string) {
	t := strings.TrimLeft(s, " \t*-•·>#<(\"'[")
	t = codeBefore.ReplaceAllString(t, "")
	if i := announced(t); i > 0 {
		t = strings.TrimLeft(t[i:], " \t<(\"':")
	}
	loc := addressForm.FindStringIndex(t)
	for loc != nil && loc[0] == 0 && len(list) < 100 { // there may be a list on one line
		list = append(list, t[:loc[1]])
		t = strings.TrimLeft(t[loc[1]:], ">)\"' \t")
		if !strings.HasPrefix(t, ",") && !strings.HasPrefix(t, ";") {
			break
		}
		t = strings.TrimLeft(t, ",; \t<")
		loc = addressForm.FindStringIndex(t)
	}
	return list
}

// codeBefore is a code that stands before an address.
var codeBefore = regexp.MustCompile(`^[245]\d\d[ -](?:#?[245]\.\d\.\d+ )?[<(]?`)

// announcedForm finds words that come before the address of the recipient.
var announcedForm = regexp.MustCompile(`(?i)^(?:>>> |<<< |sent <<< |out: |c: )?(?:rcpt to ?:|rcpt to |recipient(?:'s)?(?: address)?(?:\(s\))? ?:|final-recipient ?: ?(?:rfc822;)?|original-recipient ?: ?(?:rfc822;)?|to ?:|address ?:|addressed to ?:|unknown user ?:|user unknown ?:|user ?:|user |mailbox ?:|local mailbox |invalid final delivery user(?:id)? ?:|delivery failed \d+ attempts ?:|unable to deliver message to ?:|undeliverable to |undeliverable address ?:|delivery to ?:?|delivery failed ?:|failed (?:recipient|address(?:es)?) ?:|could not deliver to ?:?|message to |your (?:e-?mail )?message (?:to|for) |ihre nachricht an |(?:votre|le) message (?:à|a|pour|destiné à) |(?:su|el) mensaje (?:a|para) |(?:il (?:tuo |suo )?)?messaggio (?:a|per) |(?:sua|a) mensagem (?:a|para) |(?:uw|je) bericht (?:aan|voor) |(?:twoja )?wiadomość do |vaše zpráva pro |ваше (?:письмо|сообщение) (?:для|на|к) |no such user ?:?|invalid (?:user|recipient|address) ?:?|unknown recipient ?:|account ?:|an |à |para |empfänger ?:|destinataire ?:|destinatario ?:|получатель ?:|宛先 ?:|收件人 ?:|수신자 ?:|error: |failed to send to identified host,\s*|rejected recipient ?:|was not delivered to ?:?|delivery has failed to |the following address failed ?:|bad address ?:)[ \t]*`)

func announced(t string) int {
	if loc := announcedForm.FindStringIndex(t); loc != nil {
		return loc[1]
	}
	return 0
}

// announcements end the lines after which a report names its recipients; what
// stands before them is of the message.
var announcements = []string{"did not reach the following recipient", "following recipient", "following address", "failed addresses follow", "permanent fatal errors", "could not be delivered to", "was not delivered to", "cannot be delivered to", "not be delivered to the"}

// afterAnnounced are the lines after the first one that announces recipients, and
// that one; nil where there is none.
func (l lines) afterAnnounced() lines {
	for i, n := range l {
		if n.announces {
			return l[i:]
		}
	}
	return nil
}

// mentioned are all addresses in lines that do not name others.
func (l lines) mentioned() (list []string) {
	for _, n := range l {
		if !n.skip && strings.Contains(n.text, "@") && len(list) < maxRecipients {
			list = append(list, addressForm.FindAllString(n.text, 20)...)
		}
	}
	return list
}

// about finds a server's words on a recipient, and more of the report's words on
// it. A reply that names the address is the best; then one between its line and
// the next recipient's; then any; else the paragraph itself.
func (l lines) about(address string, own []string) (reply, context string) {
	local := strings.ToLower(address)
	told := len(l) - len(l.afterAnnounced()) // what stands before is of the message
	first, end := -1, len(l)
	for i, n := range l {
		if address == "" || !strings.Contains(n.lower, local) {
			continue
		}
		if !n.skip && (first < 0 || first < told && i >= told) {
			first = i
		}
		if n.reply && reply == "" {
			reply = l.reply(l.remote(i), address)
		}
	}
	if first >= 0 {
		words := l[first].words // without any there is a list, and its reason comes after it
		for i := first + 1; i < len(l); i++ {
			if words && len(unique(l[i].named, append(own, address))) > 0 {
				end = i
				break
			}
			words = words || l[i].words
		}
	}
	from := max(first, 0)
	if context = l[from:min(end, from+40)].String(); len(context) > maxContext {
		context = strings.ToValidUTF8(context[:maxContext], "")
	}
	for _, part := range []lines{l[from:end], l} {
		for i := range part {
			if reply == "" && part[i].reply {
				reply = part.reply(i, address)
			}
		}
	}
	return reply, context
}

// summary finds what a sendmail says of a recipient when the other side's reply says more.
var summary = regexp.MustCompile(`^[45]\d\d[ -].*\.\.\. (?:Remote protocol error|Service unavailable|Data format error|User unknown)\s*$`)

// remote is the line in which the other side's reply begins that line i sums up, else i.
func (l lines) remote(i int) int {
	if i == 0 || !summary.MatchString(l[i].text) || !strings.HasPrefix(l[i-1].text, "<<<") || !l[i-1].reply {
		return i
	}
	for i--; i > 0 && strings.HasPrefix(l[i-1].text, "<<<") && l[i-1].reply; i-- {
	}
	return i
}

func (l lines) String() string {
	var b strings.Builder
	for _, n := range l {
		b.WriteString(n.text + "\n")
	}
	return strings.TrimSpace(b.String())
}

// reply is the server's words that begin in line i, with the lines that go on.
func (l lines) reply(i int, address string) string {
	loc := replyForm.FindStringSubmatchIndex(l[i].text)
	var b strings.Builder
	b.WriteString(strings.TrimSpace(l[i].text[loc[2]:]))
	code := l[i].text[loc[2]:loc[3]]
	for n := i + 1; n < len(l) && n < i+12; n++ {
		t := strings.TrimSpace(l[n].text)
		if t == "" && n+1 < len(l) && strings.HasPrefix(l[n+1].text, code) { // its lines have gaps
			continue
		}
		if t == "" || strings.HasPrefix(t, ">>>") || strings.HasPrefix(t, "---") || strings.HasPrefix(t, "===") || strings.HasPrefix(t, "Giving up on ") {
			break
		}
		t = strings.TrimSpace(strings.TrimPrefix(t, "<<<"))
		if len(unique(l[n].named, []string{address})) > 0 {
			break
		}
		if m := replyForm.FindStringSubmatch(t); m != nil && m[1] != code && strings.HasPrefix(t, m[1]) {
			break // another reply
		}
		b.WriteByte('\n')
		b.WriteString(t)
	}
	s := b.String()
	if len(s) > 2000 {
		s = strings.ToValidUTF8(s[:2000], "")
	}
	return s
}

// hostForm finds the host that spoke, as the usual systems name it.
var hostForm = regexp.MustCompile(`(?i)(?:host|server|mta|talking to|domain \S+ by|reporting-mta:? ?dns;|remote-mta:? ?(?:dns;)?|from remote host|by) +<?([a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)+)`)

func hostIn(s string) string {
	for _, m := range hostForm.FindAllStringSubmatch(s, 5) {
		if strings.IndexFunc(m[1], func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }) >= 0 {
			return strings.ToLower(strings.TrimRight(m[1], "."))
		}
	}
	return ""
}

// hostOf reads "dns; host (comment)".
func hostOf(v string) string {
	if _, after, ok := strings.Cut(v, ";"); ok {
		v = after
	}
	v, _, _ = strings.Cut(strings.TrimSpace(v), " ")
	return strings.ToLower(strings.Trim(v, "<>()[]."))
}
