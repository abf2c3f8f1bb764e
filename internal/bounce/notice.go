package bounce

import (
	"encoding/json"
	"strings"
)

// notice is what Amazon SES tells through SNS, as that sends it by mail: one JSON
// object, with lines for people after it, or such an object as the Message of SNS's
// own. Elsewhere "notificationType" is called "eventType".
type notice struct {
	Type         string `json:"Type"`
	Message      string `json:"Message"`
	Notification string `json:"notificationType"`
	Event        string `json:"eventType"`
	Mail         struct {
		Source      string   `json:"source"`
		Destination []string `json:"destination"`
		Headers     struct {
			MessageID string `json:"messageId"`
			Subject   string `json:"subject"`
		} `json:"commonHeaders"`
	} `json:"mail"`
	Bounce struct {
		Type       string `json:"bounceType"`
		MTA        string `json:"reportingMTA"`
		Recipients []struct {
			Address    string `json:"emailAddress"`
			Action     string `json:"action"`
			Status     string `json:"status"`
			Diagnostic string `json:"diagnosticCode"`
		} `json:"bouncedRecipients"`
	} `json:"bounce"`
	Complaint struct {
		Type       string `json:"complaintFeedbackType"`
		Agent      string `json:"userAgent"`
		Recipients []struct {
			Address string `json:"emailAddress"`
		} `json:"complainedRecipients"`
	} `json:"complaint"`
	Delivery struct {
		MTA        string   `json:"reportingMTA"`
		Response   string   `json:"smtpResponse"`
		Recipients []string `json:"recipients"`
	} `json:"delivery"`
}

// notified reads such a notice from what the mail says to people, and tells whether
// it is one.
func (rd *reader) notified() bool {
	m := &rd.mail
	if !strings.HasPrefix(strings.TrimSpace(m.Text), "{") || !strings.HasSuffix(domain(m.From), "amazonaws.com") {
		return false
	}
	n, ok := parseNotice(m.Text)
	if ok && n.Type == "Notification" && n.Message != "" {
		n, ok = parseNotice(n.Message)
	}
	if !ok {
		return false
	}
	var list []Recipient
	kind := Report
	switch n.Notification + n.Event {
	case "Bounce":
		for _, r := range n.Bounce.Recipients {
			action := strings.ToLower(r.Action)
			if action == "" {
				action = "failed"
			}
			list = append(list, Recipient{Address: clean(r.Address), Action: action, Status: r.Status, Reply: strings.TrimPrefix(r.Diagnostic, "smtp; "), Host: hostOf(n.Bounce.MTA)})
		}
	case "Complaint":
		kind = Complaint
		m.Feedback = Feedback{Type: n.Complaint.Type, Agent: n.Complaint.Agent}
		for _, r := range n.Complaint.Recipients {
			list = append(list, Recipient{Address: clean(r.Address)})
		}
	case "Delivery":
		for _, a := range n.Delivery.Recipients {
			list = append(list, Recipient{Address: clean(a), Action: "delivered", Reply: n.Delivery.Response, Host: hostOf(n.Delivery.MTA)})
		}
	default:
		return false
	}
	if len(list) == 0 {
		return false
	}
	m.Kind, m.Recipients, m.Standard = kind, list, true
	m.Original = Original{MessageID: n.Mail.Headers.MessageID, From: n.Mail.Source, To: n.Mail.Destination, Subject: n.Mail.Headers.Subject}
	return true
}

// parseNotice reads the object that a text begins with. A server on the way may have
// broken its one long line, as sendmail does with "!" at the break.
func parseNotice(text string) (n notice, ok bool) {
	for _, broken := range []string{"", "!\n ", "\n "} {
		if broken != "" {
			text = strings.ReplaceAll(text, broken, "")
		}
		n = notice{}
		if err := json.NewDecoder(strings.NewReader(text)).Decode(&n); err == nil {
			return n, true
		}
	}
	return notice{}, false
}
