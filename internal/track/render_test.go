package track

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"postrider/internal/link"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/rewrite"
)

// settings are Settings.
type settings struct {
	credential relay.Credential
	account    relay.Account
	untracked  map[string]bool
	err        error
}

func (s *settings) Credential(context.Context, relay.ID, relay.ID) (*relay.Credential, error) {
	return &s.credential, s.err
}
func (s *settings) Account(context.Context, relay.ID) (*relay.Account, *relay.Plan, error) {
	return &s.account, nil, nil
}
func (s *settings) Untracked(_ context.Context, _ relay.ID, address string) (bool, error) {
	return s.untracked[address], nil
}

const (
	htmlMail = "From: a@mine.test\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<body><a href=\"https://shop.test/?a=1&amp;b=2\">x</a></body>\r\n"
	textMail = "From: a@mine.test\r\n\r\nSee https://shop.test/ now.\r\n"
)

func (r *rig) render(t *testing.T, s Settings, content string, change func(m *relay.Message, d *relay.Delivery)) (string, error) {
	t.Helper()
	m := &relay.Message{ID: r.id.Message, Account: mine, Credential: relay.ID{9}, From: "a@mine.test"}
	d := &relay.Delivery{ID: r.id, Account: mine, Recipient: relay.Recipient{Address: "b@x.test"}}
	if change != nil {
		change(m, d)
	}
	buf := message.NewBuffer(t.TempDir(), 1<<20)
	defer buf.Close()
	out, err := NewRenderer(r.links, r.hosts, s, leaving{r}).Render(t.Context(), m, d, message.Bytes([]byte(content)), buf)
	if err != nil || out.Content == nil {
		return content, err
	}
	rc, err := out.Content.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

// leaving are Fields that know where one unsubscribes.
type leaving struct{ *rig }

func (leaving) Fields(context.Context, *relay.Message, *relay.Delivery, string) ([]byte, error) {
	return nil, nil
}

func (l leaving) Places(_ context.Context, m *relay.Message, _ *relay.Delivery, base string) (rewrite.Places, error) {
	if base == "" {
		return rewrite.Places{Leave: "mailto:u@x.test", LeaveAll: "mailto:u@x.test", Choose: "mailto:u@x.test"}, nil
	}
	return rewrite.Places{Leave: base + l.links.Path(link.Unsubscribe, mine, l.id, m.OptOut.Group), LeaveAll: base + l.links.Path(link.Unsubscribe, mine, l.id, ""), Choose: base + l.links.Path(link.Preferences, mine, l.id, m.OptOut.Group)}, nil
}

// links takes the links out of a text.
func (r *rig) targets(t *testing.T, text, base string) (opens int, clicks []string) {
	t.Helper()
	for rest := text; ; {
		_, after, found := strings.Cut(rest, base)
		if !found {
			return opens, clicks
		}
		end := strings.IndexAny(after, "\" \r\n")
		l, err := r.links.Parse(after[:end])
		if err != nil || l.Delivery != r.id || !r.links.Of(mine, l) {
			t.Fatalf("%q: %v", after[:end], err)
		}
		if l.Kind == link.Open {
			opens++
		} else {
			clicks = append(clicks, l.Target)
		}
		rest = after[end:]
	}
}

func TestRender(t *testing.T) {
	r := newRig(t)
	out, err := r.render(t, &settings{credential: relay.Credential{Opens: true, Clicks: true}}, htmlMail, nil)
	if err != nil {
		t.Fatal(err)
	}
	opens, clicks := r.targets(t, out, "https://track.mine.test")
	if opens != 1 || len(clicks) != 1 || clicks[0] != "https://shop.test/?a=1&b=2" {
		t.Errorf("%d opens, clicks to %q:\n%s", opens, clicks, out)
	}
	if !strings.HasPrefix(out, htmlMail[:strings.Index(htmlMail, "https://shop")]) || !strings.HasSuffix(out, "\"></body>\r\n") {
		t.Errorf("changed more than links:\n%s", out)
	}
}

func TestWhatIsTracked(t *testing.T) {
	r := newRig(t)
	for name, tt := range map[string]struct {
		message, domain, account relay.Track
		opens, clicks            bool // of the credential
		untracked                string
		want                     string // of opens, clicks and text
	}{
		"nothing said":                    {},
		"credential":                      {opens: true, clicks: true, want: "opens clicks"},
		"opens only":                      {opens: true, want: "opens"},
		"message over credential":         {message: "clicks", opens: true, want: "clicks"},
		"message off":                     {message: "off", opens: true, clicks: true, account: "opens"},
		"credential over domain":          {opens: true, domain: "clicks", want: "opens"},
		"domain over account":             {domain: "clicks", account: "opens", want: "clicks"},
		"domain off":                      {domain: "off", account: "opens"},
		"message over domain off":         {message: "opens", domain: "off", want: "opens"},
		"account":                         {account: "opens clicks text", want: "opens clicks text"},
		"account off":                     {message: "opens", domain: "clicks", opens: true, account: "off"},
		"text by message":                 {message: "text", want: "text"},
		"text beside those of credential": {clicks: true, domain: "clicks text", want: "clicks text"},
		"recipient":                       {message: "opens clicks text", untracked: "b@x.test"},
		"another recipient":               {message: "opens", untracked: "c@x.test", want: "opens"},
	} {
		r.book.domains[0].Track = tt.domain
		s := &settings{credential: relay.Credential{Opens: tt.opens, Clicks: tt.clicks}, account: relay.Account{Track: tt.account}, untracked: map[string]bool{tt.untracked: true}}
		var got []string
		out, err := r.render(t, s, htmlMail, func(m *relay.Message, _ *relay.Delivery) { m.Track = tt.message })
		if err != nil {
			t.Fatal(err)
		}
		opens, clicks := r.targets(t, out, "https://track.mine.test")
		if opens > 0 {
			got = append(got, "opens")
		}
		if len(clicks) > 0 {
			got = append(got, "clicks")
		}
		out, err = r.render(t, s, textMail, func(m *relay.Message, _ *relay.Delivery) { m.Track = tt.message })
		if err != nil {
			t.Fatal(err)
		}
		if _, clicks := r.targets(t, out, "https://track.mine.test"); len(clicks) > 0 {
			got = append(got, "text")
		} else if out != textMail {
			t.Errorf("%s: %q", name, out)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: tracks %q, want %q", name, got, tt.want)
		}
	}
}

// What is to stay stays byte for byte.
func TestNotRendered(t *testing.T) {
	r := newRig(t)
	all := &settings{account: relay.Account{Track: "opens clicks text"}}
	same := func(name, content string, change func(m *relay.Message, d *relay.Delivery)) {
		t.Helper()
		if out, err := r.render(t, all, content, change); err != nil || out != content {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	same("own report", htmlMail, func(m *relay.Message, _ *relay.Delivery) { m.Credential = relay.ID{} })
	same("signed by its sender", "DKIM-Signature: v=1\r\n"+htmlMail, nil)
	same("signed by its sender, later", "Received: x\r\nDKIM-Signature: v=1\r\n"+htmlMail, nil)
	same("PGP", strings.Replace(textMail, "See", "-----BEGIN PGP SIGNED MESSAGE-----\r\nSee", 1), nil)
	same("nothing in it", "From: a@mine.test\r\n\r\n\r\n", nil)
	r.book.domains[0].Keys = []relay.DKIMKey{{State: relay.KeySigning}}
	if out, err := r.render(t, all, "DKIM-Signature: v=1\r\n"+htmlMail, nil); err != nil || !strings.Contains(out, "track.mine.test") {
		t.Errorf("signed by us too: %v\n%s", err, out)
	}
	broken := &settings{err: errors.New("away")}
	if _, err := r.render(t, broken, htmlMail, nil); err == nil {
		t.Error("sent although nobody knows what is to be tracked")
	}
	r.hosts.base = nil
	same("no links", htmlMail, nil)
}

func TestTarget(t *testing.T) {
	for in, want := range map[string]string{
		"https://x.test/?a=b#c": "https://x.test/?a=b#c", "HTTP://X.test": "HTTP://X.test", "https://x.test/a b": "https://x.test/a%20b",
		"https://x.test/\u00fc": "https://x.test/%C3%BC", "https://\u00fc.test/": "", "https://x.test/{{name}}": "", "https://x.test/100%": "https://x.test/100%",
		"mailto:a@x.test": "", "javascript://x.test/%0aalert(1)": "", "https://": "", "https:///x": "", "//x.test/": "", "": "", "https://x.test/\r\nLocation: y": "https://x.test/%0D%0ALocation:%20y",
		"https://x.test/\"><": "https://x.test/%22%3E%3C", "https://x.test\\@evil.test": "", "https://user:pw@x.test/": "https://user:pw@x.test/", "tel:+49": "", "cid:x": "", "data:text/html,x": "",
		"https://x.test/*|UNSUB|*": "", "https://x.test/" + strings.Repeat("a", link.MaxTarget): "",
	} {
		got, ok := target(in, true)
		if got != want || ok != (want != "") || ok && !leadable(got) {
			t.Errorf("%q: %q, %t; want %q", in, got, ok, want)
		}
	}
	if _, ok := target("https://x.test/\xfc", false); ok {
		t.Error("took a character of another charset")
	}
}

// Links that we made, and those of the header for unsubscribing, stay.
func TestOwnLinks(t *testing.T) {
	r := newRig(t)
	ours := "https://track.mine.test" + r.links.Path(link.Unsubscribe, mine, r.id, "")
	in := strings.Replace(strings.Replace(htmlMail, "https://shop.test/?a=1&amp;b=2", ours, 1), "</body>", `<a href="https://theirs.test/leave?x=1">y</a></body>`, 1)
	in = "List-Unsubscribe: <mailto:x@y.test>,\r\n <https://theirs.test/leave?x=1>\r\n" + in
	if out, err := r.render(t, &settings{account: relay.Account{Track: "clicks"}}, in, nil); err != nil || out != in {
		t.Errorf("%v\n%s", err, out)
	}
}

// Placeholders become links in every encoding, which no click is counted of; all
// else stays byte for byte.
func TestPlaceholders(t *testing.T) {
	const (
		html = "From: a@mine.test\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=iso-8859-1\r\n"
		body = "<p>\xfc <a class=x href=\"{{unsubscribe_url}}\">x</a>\r\n  <a href='%7B%7B%7Bpm%3Aunsubscribe%7D%7D%7D'></a><br/></p>\r\n"
		two  = "From: a@mine.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n"
	)
	r := newRig(t)
	base := "https://track.mine.test"
	leave, choose := base+r.links.Path(link.Unsubscribe, mine, r.id, "news"), base+r.links.Path(link.Preferences, mine, r.id, "news")
	all := base + r.links.Path(link.Unsubscribe, mine, r.id, "")
	filled := strings.NewReplacer("{{unsubscribe_url}}", leave, "%7B%7B%7Bpm%3Aunsubscribe%7D%7D%7D", leave).Replace(body)
	none := &settings{account: relay.Account{Track: relay.TrackOff}}
	tracking := &settings{account: relay.Account{Track: "clicks text"}}
	for name, tt := range map[string]struct{ in, want string }{
		"8bit":             {html + "Content-Transfer-Encoding: 8bit\r\n\r\n" + body, html + "Content-Transfer-Encoding: 8bit\r\n\r\n" + filled},
		"quoted-printable": {html + "Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>=FC <a href=3D\"{{unsub=\r\nscribe_url}=\r\n}\">x</a>\r\n", "<a href=3D\"" + leave[:len(base)]},
		"base64":           {html + "Content-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte("<a href='<%asm_preferences_raw_url%>'>")) + "\r\n", html + "Content-Transfer-Encoding: base64\r\n\r\n" + wrapped("<a href='"+choose+"'>")},
		"plain text":       {"From: a@mine.test\r\n\r\nLeave: {{unsubscribe_url}}, all: %unsubscribe_url%\r\nChoose: <%asm_preferences_url%>\r\n", "From: a@mine.test\r\n\r\nLeave: " + leave + ", all: " + all + "\r\nChoose: " + choose + "\r\n"},
		"parts":            {two + "\r\n{{unsubscribe_url}}\r\n--b\r\nContent-Type: text/html\r\n\r\n<%asm_group_unsubscribe_url%>\r\n--b--\r\n", two + "\r\n" + leave + "\r\n--b\r\nContent-Type: text/html\r\n\r\n<a href=\"" + leave + "\">Unsubscribe from this list</a>\r\n--b--\r\n"},
	} {
		for _, s := range []*settings{none, tracking} {
			out, err := r.render(t, s, tt.in, func(m *relay.Message, _ *relay.Delivery) {
				m.OptOut = relay.OptOut{Group: "news", Link: true, Places: true}
			})
			if name == "quoted-printable" {
				out = strings.ReplaceAll(out, "=\r\n", "")
				if !strings.Contains(out, tt.want) || !strings.Contains(out, leave) || !strings.Contains(out, "=FC <a href") {
					t.Errorf("%s: %v\n%s", name, err, out)
				}
			} else if err != nil || out != tt.want {
				t.Errorf("%s: %v\n got %q\nwant %q", name, err, out, tt.want)
			}
		}
		for what, o := range map[string]relay.OptOut{"switched off": {Places: true}, "none that we know of": {Link: true}} {
			if out, err := r.render(t, none, tt.in, func(m *relay.Message, _ *relay.Delivery) { m.OptOut = o }); err != nil || out != tt.in {
				t.Errorf("%s, %s: %v\n%s", name, what, err, out)
			}
		}
	}
	r.hosts.base = nil
	out, err := r.render(t, none, "From: a@mine.test\r\n\r\n{{unsubscribe_url}}\r\n", func(m *relay.Message, _ *relay.Delivery) { m.OptOut = relay.OptOut{Link: true, Places: true} })
	if err != nil || out != "From: a@mine.test\r\n\r\nmailto:u@x.test\r\n" {
		t.Errorf("without links: %v\n%s", err, out)
	}
}

// wrapped is a text in base64, in lines.
func wrapped(text string) string {
	coded, out := base64.StdEncoding.EncodeToString([]byte(text)), ""
	for ; len(coded) > 76; coded = coded[76:] {
		out += coded[:76] + "\r\n"
	}
	return out + coded + "\r\n"
}
