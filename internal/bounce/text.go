package bounce

import (
	"strings"
)

// originalMarks begin the lines after which the returned message stands, without
// the dashes and stars around them.
var originalMarks = []string{"this is a copy of", "below this line is a copy", "below is a copy", "original message follows", "original message header", "original message is following", "the original message is", "the header of the original", "header of the original", "original message", "original headers", "returned message", "returned mail follows", "unsent message", "message header follow", "message text follows", "message headers follow", "a copy of the original", "a copy of your message", "copy of message", "copy of the message", "copy of your message", "undelivered message", "included is a copy", "headers of the message", "headers of the original", "your original message", "the following is a copy", "start of returned", "message non-deliverable", "received message header", "forwarded message", "return message", "header information follow", "here is a copy", "here are the headers",
	"ursprüngliche nachricht", "originalnachricht", "kopfzeilen der", "message d'origine", "message original", "en-têtes", "mensaje original", "a continuación se incluye una copia", "messaggio originale", "copia del messaggio", "mensagem original", "oorspronkelijk bericht", "oorspronkelijke bericht", "oryginalna wiadomo", "исходное сообщение", "оригинал", "копия", "元のメッセージ", "元のメール", "オリジナル", "原始邮件", "原邮件", "原始郵件", "원본 메일", "원본 메시지", "original mail"}

// cutOriginal parts what a report says from the message that it returns.
func cutOriginal(text string) (said, returned string) {
	all := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range all {
		t := strings.ToLower(strings.Trim(line, " \t-=*_#>:.~|\r"))
		if t == "" {
			continue
		}
		if len(t) < 120 && !strings.Contains(t, "was received") && !strings.Contains(t, "mts-id") {
			for _, m := range originalMarks {
				if strings.HasPrefix(t, m) && (len(t) <= len(m)+60) && i > 0 {
					return strings.Join(all[:i], "\n"), strings.TrimLeft(strings.Join(all[i+1:], "\n"), "\n ")
				}
			}
		}
		if i > 0 && headerStarts(all[i:]) {
			return strings.Join(all[:i], "\n"), strings.Join(all[i:], "\n")
		}
	}
	return text, ""
}

// headerStarts tells whether a message's header begins here, without a mark
// before it.
func headerStarts(l []string) bool {
	name, _, ok := strings.Cut(l[0], ":")
	if !ok {
		return false
	}
	switch strings.ToLower(name) {
	case "received", "return-path", "dkim-signature", "x-originating-ip", "x-received", "delivered-to":
	default:
		return false
	}
	found := 0
	for _, line := range l[:min(len(l), 40)] {
		n, _, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		switch strings.ToLower(n) {
		case "from", "to", "subject", "date", "message-id", "mime-version", "received", "return-path":
			found++
		}
	}
	return found >= 3
}

// unquoted takes the marks of quoting away where most of the text is quoted, as
// in a report that somebody passed on.
func unquoted(text string) string {
	all := strings.Split(text, "\n")
	quoted, full := 0, 0
	for _, line := range all {
		if strings.TrimSpace(line) != "" {
			full++
		}
		if strings.HasPrefix(line, "> ") || line == ">" {
			quoted++
		}
	}
	if quoted*2 < full {
		return text
	}
	for i, line := range all {
		all[i] = strings.TrimPrefix(strings.TrimPrefix(line, ">"), " ")
	}
	return strings.Join(all, "\n")
}
