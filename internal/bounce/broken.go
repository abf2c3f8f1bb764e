package bounce

import (
	"bytes"
	"regexp"
	"strings"

	"postrider/internal/dsn"
	"postrider/internal/message"
)

// maxBroken is how many bytes of a mail are kept, for where its parts are not between
// the boundaries that it announces.
const maxBroken = 512 << 10

// delimiter finds lines that part a body, whatever boundary was announced: hyphens,
// and a field of MIME in the next line. closing finds the line after the last part.
var (
	delimiter = regexp.MustCompile(`(?mi)^[ \t]*--\S[^\n]*\n[ \t]*(content-[a-z-]+[ \t]*:)`)
	closing   = regexp.MustCompile(`(?m)^[ \t]*--\S+--[ \t]*\r?$`)
	reported  = regexp.MustCompile(`(?mi)^[ \t]*--\S[^\n]*\n(?:[ \t]*[a-z-]+:[^\n]*\n)*?[ \t]*content-type[ \t]*:[ \t]*(?:message/|text/rfc822-headers)`)
)

// broken reads a body whose boundaries are not what its header announces, for they
// were damaged on the way or never fitted. The original comes last, whatever is in it.
func (rd *reader) broken(b []byte) {
	rd.again = true
	defer func() { rd.again = false }()
	had := len(rd.status)
	said, returned := cutOriginal(string(b))
	body := []byte(said)
	at := delimiter.FindAllSubmatchIndex(body, 100)
	first := len(body)
	if len(at) > 0 {
		first = at[0][0]
	}
	rd.body(message.Part{Type: "text/plain", Body: closing.ReplaceAll(body[:first], nil)})
	for i, m := range at {
		end := len(body)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		typ := strings.ToLower(parseHeader(body[m[2]:end]).get("content-type"))
		if strings.HasPrefix(typ, "text/rfc822-header") || strings.HasPrefix(typ, "message/") && !strings.Contains(typ, "delivery-status") && !strings.Contains(typ, "report") && !strings.Contains(typ, "notification") {
			if _, original, ok := strings.Cut(said[m[2]:]+"\n"+returned, "\n\n"); ok {
				returned = original
			}
			break
		}
		piece := closing.ReplaceAll(body[m[2]:end], nil)
		_ = message.ReadParts(bytes.NewReader(piece), maxPart, func(p message.Part) error { // a faulty piece is read as far as it goes
			if p.Message = false; !p.Container {
				rd.body(p)
			}
			return nil
		})
	}
	if returned != "" {
		rd.orig = append(rd.orig, parseHeader([]byte(returned)))
	}
	rd.loose = rd.loose || len(rd.status) > had
}

// statusField finds a field of a report for programs, groupField one that only those
// for a recipient have.
var (
	statusField = regexp.MustCompile(`(?mi)^(?:reporting-mta|original-recipient|final-recipient|action|status)[ \t]*:`)
	groupField  = regexp.MustCompile(`(?mi)^final-recipient[ \t]*:[ \t]*[a-z0-9-]+[ \t]*;`)
	actionField = regexp.MustCompile(`(?mi)^action[ \t]*:[ \t]*(?:failed|delayed|delivered|relayed|expanded)`)
)

// partsInText tells whether a text has parts in it that are for programs, before any
// message that it returns.
func partsInText(b []byte) bool {
	b = b[:min(len(b), maxText)]
	if !bytes.Contains(b, []byte("--")) || !reported.Match(b) {
		return false
	}
	said, _ := cutOriginal(string(b))
	return reported.MatchString(said)
}

// fieldsInText finds a report for programs among the words for people, as in a mail
// that says it has parts and has none.
func (rd *reader) fieldsInText(said string) {
	if rd.hasStatus() || !groupField.MatchString(said) || !actionField.MatchString(said) {
		return
	}
	from := statusField.FindStringIndex(said)[0]
	if rep := dsn.ParseStatus([]byte(said[from:])); len(rep.Recipients) > 0 {
		rd.status, rd.loose = append(rd.status, rep), true
	}
}
