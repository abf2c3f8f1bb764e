package alert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"strings"
	"time"

	"postrider/internal/message"
	"postrider/internal/relay"
)

// view is an incident as somebody is told of it.
type view struct {
	*relay.Alert
	host    string // the relay's name
	account string // name; empty: of the relay as a whole
	id      string // of what is told
	news    relay.AlertNews
	now     time.Time
}

// headline is what is told, in one line.
func (v view) headline() string {
	word := "Warning"
	if v.Severity == relay.SeverityCritical {
		word = "Critical"
	}
	switch v.news {
	case relay.AlertEnded:
		word = "Over"
	case relay.AlertReminder:
		word = "Still " + strings.ToLower(word)
	}
	return word + ": " + v.Title
}

// whom says whose it is.
func (v view) whom() string {
	if v.account == "" {
		return "the relay " + v.host
	}
	return "account " + v.account
}

// lines are what is told, in paragraphs.
func (v view) lines() []string {
	var all []string
	if v.news == relay.AlertEnded {
		return []string{fmt.Sprintf("This is over: it began at %s and ended at %s.", stamp(v.Opened), stamp(v.Ended)), "What was seen: " + v.Text}
	}
	if v.news == relay.AlertReminder {
		all = append(all, "This goes on, and nobody has acknowledged it.")
	}
	all = append(all, v.Text)
	if v.Advice != "" {
		all = append(all, "What to do: "+v.Advice)
	}
	return all
}

// letter is the mail.
func (v view) letter(from, to string, now time.Time) relay.Content {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("Date: %s", message.FormatDate(now))
	line("From: Postrider alerts <%s>", from)
	line("To: <%s>", to)
	line("Message-ID: %s", message.NewMessageID(v.id, v.host))
	line("References: %s", message.NewMessageID("alert."+v.ID.String(), v.host)) // so that mail programs show an incident together
	line("Subject: %s", mime.QEncoding.Encode("utf-8", message.Clean(fmt.Sprintf("%s (%s)", v.headline(), v.whom()), 150)))
	line("MIME-Version: 1.0")
	line("Content-Type: text/plain; charset=utf-8")
	line("Content-Transfer-Encoding: 8bit")
	line("Auto-Submitted: auto-generated") // RFC 3834 section 5
	line("X-Auto-Response-Suppress: All")
	line("")
	for _, p := range v.lines() {
		for _, l := range wrap(message.Clean(p, 4000), 78) {
			line("%s", l)
		}
		line("")
	}
	for _, f := range v.Figures {
		for i, l := range wrap(message.Clean(f.Name+": "+f.Value, 400), 72) {
			line("%s%s", map[bool]string{true: "  ", false: "      "}[i == 0], l)
		}
	}
	line("")
	line("Since: %s", stamp(v.Opened))
	line("Incident: %s (\"postrider alert show %s\" shows it, \"postrider alert ack %s\" says that you look after it)", v.ID, v.ID, v.ID)
	return message.Bytes(b.Bytes())
}

// wrap breaks a text into lines at blanks.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// Event is what a webhook gets.
type Event struct {
	ID        string    `json:"id"`   // the same each time that it is sent
	Type      string    `json:"type"` // "alert.opened", "alert.worse", "alert.reminder", "alert.ended", "alert.test"
	Timestamp time.Time `json:"timestamp"`
	Data      Data      `json:"data"`
}

// Data is an incident.
type Data struct {
	Alert    string              `json:"alert"`
	Account  string              `json:"account,omitempty"` // not there: of the relay as a whole
	Name     string              `json:"account_name,omitempty"`
	Relay    string              `json:"relay"`
	Kind     relay.AlertKind     `json:"kind"`
	Subject  string              `json:"subject,omitempty"`
	Severity relay.Severity      `json:"severity"`
	Opened   time.Time           `json:"opened"`
	Ended    *time.Time          `json:"ended,omitempty"`
	Title    string              `json:"title"`
	Text     string              `json:"text"`
	Advice   string              `json:"advice,omitempty"`
	Figures  []relay.AlertFigure `json:"figures,omitempty"`
}

func (v view) event() []byte {
	e := Event{ID: v.id, Type: "alert." + string(v.news), Timestamp: v.now.UTC(), Data: Data{Alert: v.ID.String(), Name: v.account, Relay: v.host, Kind: v.Kind, Subject: v.Subject,
		Severity: v.Severity, Opened: v.Opened.UTC(), Title: v.Title, Text: v.Text, Advice: v.Advice, Figures: v.Figures}}
	if v.Account != relay.Everyone {
		e.Data.Account = v.Account.String()
	}
	if !v.Ended.IsZero() {
		at := v.Ended.UTC()
		e.Data.Ended = &at
	}
	return encode(e)
}

// slack is what an incoming hook of Slack takes, of Mattermost too, and of Discord
// at the address that ends with /slack.
func (v view) slack() []byte {
	type field struct {
		Title string `json:"title"`
		Value string `json:"value"`
		Short bool   `json:"short"`
	}
	type attachment struct {
		Fallback string  `json:"fallback"`
		Color    string  `json:"color"`
		Title    string  `json:"title"`
		Text     string  `json:"text"`
		Fields   []field `json:"fields,omitempty"`
		Footer   string  `json:"footer"`
		TS       int64   `json:"ts"`
	}
	color := map[relay.Severity]string{relay.SeverityWarning: "#daa038", relay.SeverityCritical: "#d00000"}[v.Severity]
	if v.news == relay.AlertEnded {
		color = "#2eb886"
	}
	head := unmarked(fmt.Sprintf("%s (%s)", v.headline(), v.whom()))
	var text []string
	for _, l := range v.lines() {
		text = append(text, unmarked(l))
	}
	a := attachment{Fallback: head, Color: color, Title: unmarked(v.Title), Text: strings.Join(text, "\n\n"), Footer: unmarked("Postrider " + v.host + ", incident " + v.ID.String()), TS: v.Opened.Unix()}
	for _, f := range v.Figures {
		a.Fields = append(a.Fields, field{unmarked(f.Name), unmarked(f.Value), len(f.Value) < 40})
	}
	return encode(struct {
		Text        string       `json:"text"`
		Attachments []attachment `json:"attachments"`
	}{head, []attachment{a}})
}

// unmarked keeps what others said from being a mention or a link
// (https://docs.slack.dev/messaging/formatting-message-text).
func unmarked(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(message.Clean(s, 3000))
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return []byte("{}") // of these types it never fails
	}
	return bytes.TrimSpace(b.Bytes())
}
