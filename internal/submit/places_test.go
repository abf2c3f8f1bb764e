package submit

import (
	"encoding/base64"
	"strings"
	"testing"

	"postrider/internal/relay"
)

// A placeholder in a text makes a link of mail that has none else, however the text
// is written; it is looked for once.
func TestPlaceholders(t *testing.T) {
	const html = "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n"
	both := relay.OptOut{Link: true, Header: true, Places: true}
	for name, tt := range map[string]struct {
		header, text string
		stream       relay.Stream
		without      bool // there are no links
		want         relay.OptOut
		refused      bool
		warned       string
	}{
		"none":                    {text: "unsubscribe here: https://x.test/unsubscribe_url\r\n"},
		"plain text":              {text: "leave: {{unsubscribe_url}}\r\n", want: both},
		"preferences":             {text: "choose: <%asm_preferences_raw_url%>\r\n", want: both},
		"broadcast":               {stream: relay.Broadcast, text: "%unsubscribe_url%\r\n", want: relay.OptOut{Group: "news", Link: true, Header: true, Places: true}},
		"a field of its own":      {header: "List-Unsubscribe: <mailto:a@b.test>\r\n", text: "{{unsubscribe_url}}", want: relay.OptOut{Link: true, Places: true}},
		"soft line breaks":        {header: html + "Content-Transfer-Encoding: quoted-printable\r\n", text: "<a href=3D\"{=\r\n{unsub=\r\nscribe_u=\r\nrl}=\r\n}\">", want: both},
		"coded braces":            {header: html + "Content-Transfer-Encoding: quoted-printable\r\n", text: "=7B=7B=7Bunsubscribe=7D=7D=7D\r\n", want: both},
		"base64":                  {header: html + "Content-Transfer-Encoding: base64\r\n", text: lines(`<p style="color: #888888">All the text of a mail</p><a href="{{{ pm:unsubscribe }}}">x</a>`), want: both},
		"BASE64":                  {header: "Content-Transfer-Encoding: BASE64\r\n", text: lines("{{unsubscribe_url}}"), want: both},
		"parts":                   {header: "MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n", text: "--b\r\n\r\nx\r\n--b\r\n" + html + "Content-Transfer-Encoding: base64\r\n\r\n" + lines("<p>{{unsubscribe_url}}</p>") + "--b--\r\n", want: both},
		"attachment":              {header: "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n", text: "--b\r\n\r\nx\r\n--b\r\nContent-Type: text/html\r\nContent-Disposition: attachment\r\n\r\n{{unsubscribe_url}}\r\n--b--\r\n"},
		"nobody reads it":         {header: html, text: "<!-- {{unsubscribe_url}} -->\r\n"},
		"off":                     {header: "X-Postrider-Unsubscribe: off\r\n", text: "{{unsubscribe_url}}", want: relay.OptOut{Places: true}, warned: "{{unsubscribe_url}}"},
		"no links":                {without: true, text: "{{ unsubscribe_url }}", want: relay.OptOut{Places: true}, warned: "{{ unsubscribe_url }}"},
		"no links, broadcast":     {without: true, stream: relay.Broadcast, text: "{{unsubscribe_url}}", refused: true},
		"no links, broadcast off": {without: true, stream: relay.Broadcast, header: "X-Postrider-Unsubscribe: off\r\n", text: "{{unsubscribe_url}}", want: relay.OptOut{Group: "news", Places: true}, warned: "{{unsubscribe_url}}"},
	} {
		t.Run(name, func(t *testing.T) {
			f := grouped(t)
			f.entrance.config.Links = !tt.without
			d := f.draft(tt.header+complete+"\r\n"+tt.text, "ann@example.com", "bob@example.net")
			d.Stream = max(tt.stream, relay.Transactional)
			if tt.refused {
				if _, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != relay.BadContent || !strings.Contains(err.Error(), "{{unsubscribe_url}}") {
					t.Errorf("not refused: %v", err)
				}
				return
			}
			story, content := f.submit(d)
			if story.Message.OptOut != tt.want {
				t.Errorf("kept %+v, want %+v", story.Message.OptOut, tt.want)
			}
			if !strings.HasSuffix(content, tt.text) {
				t.Errorf("what was accepted has changed:\n%s", content)
			}
			if warned := story.Events[0].Diagnosis.Text; (warned != "") != (tt.warned != "") || !strings.Contains(warned, tt.warned) {
				t.Errorf("warning %q", warned)
			}
		})
	}
}

// lines is a text in base64.
func lines(text string) string {
	coded, out := base64.StdEncoding.EncodeToString([]byte(text)), ""
	for ; len(coded) > 76; coded = coded[76:] {
		out += coded[:76] + "\r\n"
	}
	return out + coded + "\r\n"
}
