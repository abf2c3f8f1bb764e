package dsn

import (
	"bytes"
	"fmt"
	"strings"

	"postrider/internal/message"
)

const (
	textWidth     = 72 // columns of the text for people
	maxReplyLines = 20 // of a reply
)

// people writes the part that people read: what happened first, then each
// recipient with the receiver's own words and what to do, then who reports. said
// are the recipients with the replies still in lines.
func (r *Report) people(o *original, whole bool, said []Recipient) []byte {
	var s strings.Builder
	paragraph(&s, "", r.summary())
	s.WriteString("\r\n")
	if subject := message.Clean(o.facts.Subject, 150); subject != "" {
		paragraph(&s, "    Subject: ", subject)
	}
	if !r.Arrival.IsZero() {
		s.WriteString("    Sent:    " + message.FormatDate(r.Arrival) + "\r\n")
	}
	for i, rc := range r.Recipients {
		s.WriteString("\r\n")
		rc.people(&s, said[i].Reply)
	}
	s.WriteString("\r\n")
	by := r.ReportingMTA
	if by == "" {
		by = "an unnamed host"
	}
	end := "This report was written by the mail system at " + by
	if !r.Now.IsZero() {
		end += " on " + message.FormatDate(r.Now)
	}
	end += "."
	switch {
	case whole:
		end += " Your message is attached."
	case o.c != nil:
		end += " The header of your message is attached."
	}
	paragraph(&s, "", end)

	var b bytes.Buffer
	b.WriteString("Content-Type: text/plain; charset=utf-8\r\n")
	text(&b, []byte(strings.TrimSuffix(s.String(), "\r\n")), false)
	return b.Bytes()
}

// summary is the first sentence.
func (r *Report) summary() string {
	to := r.Recipients[0].Final
	if n := len(r.Recipients); n > 1 {
		to = fmt.Sprintf("%d recipients", n)
	}
	switch r.Kind {
	case Failed:
		return "Your message could not be delivered to " + to + ". It will not be tried again."
	case Delayed:
		return "Your message has not reached " + to + " yet. It is kept and will be tried again; you need not send it once more."
	}
	return "Your message was delivered to " + to + "."
}

func (rc Recipient) people(s *strings.Builder, reply string) {
	paragraph(s, "", rc.Final+":")
	what := message.Clean(rc.Text, 1000)
	if what == "" {
		what = usualText(rc.Action)
	}
	paragraph(s, "  ", what)
	if rc.Reply != "" {
		switch {
		case diagnosticType(rc.Reply) != "smtp":
			paragraph(s, "  ", "What happened, in technical terms:")
		case rc.RemoteMTA != "":
			paragraph(s, "  ", "The server "+rc.RemoteMTA+" answered:")
		default:
			paragraph(s, "  ", "The receiving server answered:")
		}
		for i, line := range strings.Split(reply, "\n") {
			if line = message.Clean(line, maxReply); line != "" && i < maxReplyLines {
				paragraph(s, "    ", line)
			}
		}
	}
	if advice := message.Clean(rc.Advice, 1000); advice != "" {
		paragraph(s, "  ", "What to do: "+advice)
	}
	if rc.Action == ActionDelayed && !rc.WillRetry.IsZero() {
		paragraph(s, "  ", "It will be tried until "+message.FormatDate(rc.WillRetry)+".")
	}
}

// usualText stands where nobody said what happened.
func usualText(a Action) string {
	switch a {
	case ActionFailed:
		return "The message could not be delivered."
	case ActionDelayed:
		return "The message could not be delivered yet."
	case ActionRelayed:
		return "The message was handed on to the recipient's mail system, which does not report what becomes of it."
	case ActionExpanded:
		return "The message was delivered and passed on to the members of a list."
	}
	return "The message was delivered."
}

// paragraph writes words after an indent, the next lines under the first one's.
func paragraph(s *strings.Builder, indent, words string) {
	s.WriteString(indent)
	col := len(indent)
	for i, w := range strings.Fields(words) {
		n := len([]rune(w))
		switch {
		case i == 0:
		case col+1+n > textWidth:
			s.WriteString("\r\n" + strings.Repeat(" ", len(indent)))
			col = len(indent)
		default:
			s.WriteByte(' ')
			col++
		}
		s.WriteString(w)
		col += n
	}
	s.WriteString("\r\n")
}
