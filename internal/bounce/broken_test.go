package bounce

import (
	"strings"
	"testing"

	"postrider/internal/classify"
)

// Reports whose parts are not where their header says are read, each recipient with
// its own reply; what people pass on and what is returned condemns nobody.
func TestBroken(t *testing.T) {
	const head = "From: MAILER-DAEMON@relay.example\nTo: news@sender.example\nSubject: Undelivered Mail Returned to Sender\nContent-Type: multipart/report; report-type=delivery-status; boundary=B\n\n"
	const fields = "Reporting-MTA: dns; relay.example\n\nFinal-Recipient: rfc822; bob@corp.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 User unknown\n\n" +
		"Final-Recipient: rfc822; eve@isp.example\nAction: failed\nStatus: 5.2.2\nDiagnostic-Code: smtp; 552 5.2.2 Mailbox full\n"
	const parts = "--C\nContent-Type: text/plain\n\nIt was not delivered.\n\n--C\nContent-Type: message/delivery-status\n\n" + fields + "\n--C\nContent-Type: message/rfc822\n\nSubject: Hello\nMessage-ID: <m@sender.example>\n\n--C\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822; carl@corp.example\nAction: failed\nStatus: 5.1.1\n\n--C--\n"
	person := strings.NewReplacer("MAILER-DAEMON@relay.example", "eve@corp.example").Replace(head)
	both := []string{"bob@corp.example no-such-mailbox", "eve@isp.example mailbox-full"}
	for name, tt := range map[string]struct {
		mail       string
		want       []string
		suppressed string
	}{
		"another boundary":       {head + "This is a report.\n\n" + parts, both, "bob@corp.example"},
		"space before it":        {head + "--B\nContent-Type: text/plain\n\nIt was not delivered.\n\n --B\ncontent-type: message/delivery-status\n\n" + fields + "\n --B\ncontent-type: message/rfc822\n", both, "bob@corp.example"},
		"no boundaries":          {head + "It was not delivered.\n\n" + fields + "\nReturn-Path: <news@sender.example>\nFrom: news@sender.example\nTo: bob@corp.example\nSubject: Hello\n\nHello\n", both, "bob@corp.example"},
		"no boundary announced":  {strings.Replace(head, "; boundary=B", "", 1) + parts, both, "bob@corp.example"},
		"from a person":          {person + parts, both, ""},
		"ends before its end":    {head + strings.SplitAfter(parts, "Diagnostic-Code: smtp; 550 5.1.1 User")[0], []string{"bob@corp.example no-such-mailbox"}, ""},
		"in the returned mail":   {head + "--B\nContent-Type: text/plain\n\n<ann@corp.example>: 552 5.2.2 Mailbox full\n\n--- Below this line is a copy of the message.\n\n" + parts + "\n--B--\n", []string{"ann@corp.example mailbox-full"}, ""},
		"in a returned bounce":   {head + "<ann@corp.example>: 552 5.2.2 Mailbox full\n\nReturn-Path: <>\nReceived: from a by b\nFrom: MAILER-DAEMON@x.example\nTo: news@sender.example\nSubject: Undelivered\n\n" + fields, []string{"ann@corp.example mailbox-full"}, ""},
		"talk of it, by a human": {"From: eve@corp.example\nTo: news@sender.example\nSubject: what is this?\n\n" + parts, nil, ""},
	} {
		m := read(t, tt.mail)
		all := m.Judge(classify.Builtin())
		var got, suppressed []string
		for _, v := range all {
			got = append(got, v.Recipient.Address+" "+v.Category)
			if v.Suppress {
				suppressed = append(suppressed, v.Recipient.Address)
			}
		}
		if strings.Join(got, ", ") != strings.Join(tt.want, ", ") || strings.Join(suppressed, ", ") != tt.suppressed {
			t.Errorf("%s: %v, suppressed %v", name, got, suppressed)
		}
	}
	if m := read(t, head+"This is a report.\n\n"+parts); m.Original.MessageID != "<m@sender.example>" || !strings.Contains(m.Text, "It was not delivered") || strings.Contains(m.Text, "Final-Recipient") {
		t.Errorf("%+v", m)
	}
}
