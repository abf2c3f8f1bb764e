package bounce

import (
	"strconv"
	"strings"
	"testing"

	"postrider/internal/classify"
)

// What Amazon SES tells through SNS is read where Amazon wrote it.
func TestNotice(t *testing.T) {
	mail := func(from, body string) string {
		return "From: SNS <" + from + ">\nTo: ops@shop.example\nSubject: AWS Notification Message\n\n" + body + "\n\n--\nIf you wish to stop receiving notifications …\n"
	}
	const aws = "no-reply@sns.amazonaws.com"
	const bounced = `{"notificationType":"Bounce","mail":{"source":"news@shop.example","commonHeaders":{"messageId":"<m@shop.example>"}},"bounce":{"bounceType":"Permanent","reportingMTA":"dsn; a1.amazonses.example","bouncedRecipients":[{"emailAddress":"bob@corp.example","action":"failed","status":"5.1.1","diagnosticCode":"smtp; 550 5.1.1 user unknown"}]}}`
	for name, tt := range map[string]struct {
		mail           string
		kind           Kind
		category, host string
		suppress       bool
	}{
		"bounce":              {mail(aws, bounced), Report, "no-such-mailbox", "a1.amazonses.example", true},
		"event":               {mail(aws, strings.Replace(bounced, "notificationType", "eventType", 1)), Report, "no-such-mailbox", "a1.amazonses.example", true},
		"full":                {mail(aws, strings.Replace(strings.ReplaceAll(bounced, "5.1.1", "5.2.2"), "user unknown", "mailbox full", 1)), Report, "mailbox-full", "a1.amazonses.example", false},
		"complaint":           {mail(aws, `{"notificationType":"Complaint","complaint":{"complaintFeedbackType":"abuse","complainedRecipients":[{"emailAddress":"bob@corp.example"}]}}`), Complaint, "complaint", "", true},
		"delivery":            {mail(aws, `{"notificationType":"Delivery","delivery":{"recipients":["bob@corp.example"],"smtpResponse":"250 ok"}}`), Report, "delivered", "", false},
		"a line broken":       {mail(aws, bounced[:90]+"!\n "+bounced[90:]), Report, "no-such-mailbox", "a1.amazonses.example", true},
		"inside of SNS's own": {mail(aws, `{"Type":"Notification","MessageId":"1","Message":`+strconv.Quote(bounced)+`}`), Report, "no-such-mailbox", "a1.amazonses.example", true},
		"SNS's own alone":     {mail(aws, `{"Type":"Notification","Message":"hello"}`), Unknown, "", "", false},
		"somebody else's":     {mail("eve@evil.example", bounced), Unknown, "", "", false},
		"of nobody":           {mail(aws, `{"notificationType":"Bounce","bounce":{}}`), Unknown, "", "", false},
		"something else":      {mail(aws, `{"notificationType":"AmazonSnsSubscriptionSucceeded","message":"ok"}`), Unknown, "", "", false},
		"broken off":          {mail(aws, bounced[:len(bounced)-40]), Unknown, "", "", false},
		"text before a brace": {mail(aws, "look: "+bounced), Unknown, "", "", false},
	} {
		m := read(t, tt.mail)
		all := m.Judge(classify.Builtin())
		if m.Kind != tt.kind || (tt.kind == Unknown) != (len(all) == 0) {
			t.Errorf("%s: %s, %+v", name, m.Kind, all)
			continue
		}
		if len(all) > 0 && (all[0].Category != tt.category || all[0].Suppress != tt.suppress || all[0].Recipient.Host != tt.host || all[0].Recipient.Address != "bob@corp.example") {
			t.Errorf("%s: %+v", name, all[0])
		}
	}
}
