package rewrite

import (
	"fmt"
	"strings"
	"testing"
)

// numbered gives each address of the web a number, and notes them.
type numbered struct{ seen []string }

func (n *numbered) link(address string) (string, bool) {
	if s := strings.ToLower(address); !strings.HasPrefix(s, "http://") && !strings.HasPrefix(s, "https://") {
		return "", false
	}
	n.seen = append(n.seen, address)
	return fmt.Sprintf("@%d@", len(n.seen)), true
}

func TestHTML(t *testing.T) {
	for name, tt := range map[string]struct {
		in, want string
		seen     []string
	}{
		"usual":             {`<p><a href="https://x.test/">x</a></p>`, `<p><a href="@1@">x</a></p>`, []string{"https://x.test/"}},
		"other quotes":      {`<a href='https://x.test/?a="b"'>x</a>`, `<a href='@1@'>x</a>`, []string{`https://x.test/?a="b"`}},
		"no quotes":         {`<a href=https://x.test/a/>x</a>`, `<a href="@1@">x</a>`, []string{"https://x.test/a/"}},
		"no quotes, more":   {`<a href=https://x.test/ class=b>x</a>`, `<a href="@1@" class=b>x</a>`, []string{"https://x.test/"}},
		"capitals":          {`<A CLASS=b HREF = "HTTPS://X.test/">x</A>`, `<A CLASS=b HREF = "@1@">x</A>`, []string{"HTTPS://X.test/"}},
		"references":        {`<a href="https://x.test/?a=1&amp;b=2&#38;c=3&copy=4">`, `<a href="@1@">`, []string{"https://x.test/?a=1&b=2&c=3&copy=4"}},
		"line ends":         {"<a\r\n href=\"\r\n https://x.test/\r\n a \"\r\n>x", "<a\r\n href=\"@1@\"\r\n>x", []string{"https://x.test/ a"}},
		"area":              {`<map><area shape="rect" href="http://x.test/"></map>`, `<map><area shape="rect" href="@1@"></map>`, []string{"http://x.test/"}},
		"closed by itself":  {`<a href="http://x.test/"/>`, `<a href="@1@"/>`, []string{"http://x.test/"}},
		"twice":             {`<a href="http://x.test/" href="http://y.test/">`, `<a href="@1@" href="http://y.test/">`, []string{"http://x.test/"}},
		"many":              {`<a href="http://x.test/">1</a><a href="http://y.test/">2`, `<a href="@1@">1</a><a href="@2@">2`, []string{"http://x.test/", "http://y.test/"}},
		"others stay":       {`<a href="mailto:a@x.test"><a href="#x"><a href="/x"><a href=""><a href><a><a name=x>`, "", nil},
		"not links":         {`<img src="http://x.test/"><link href="http://x.test/"><form action="http://x.test/"><base href="http://x.test/">`, "", nil},
		"in text":           {`href="http://x.test/" &lt;a href="http://x.test/"&gt;`, "", nil},
		"in a comment":      {`<!-- <a href="http://x.test/"> -->`, "", nil},
		"in a script":       {`<script>'<a href="http://x.test/">'</script><style><a href="http://x.test/"></style><title><a href="http://x.test/"></title>`, "", nil},
		"in an attribute":   {`<img alt='<a href="http://x.test/">'>`, "", nil},
		"greater in value":  {`<a title="a > b" href="http://x.test/">`, `<a title="a > b" href="@1@">`, []string{"http://x.test/"}},
		"no end":            {`<a href="http://x.test/">x</a><a href="http://y.test/`, `<a href="@1@">x</a><a href="http://y.test/`, []string{"http://x.test/"}},
		"broken tags":       {`<a<b href="http://x.test/"><a "b" href="http://y.test/">< a href="http://z.test/">`, `<a<b href="http://x.test/"><a "b" href="@1@">< a href="http://z.test/">`, []string{"http://y.test/"}},
		"slashes":           {`<a/href="http://x.test/"/class=b>`, `<a/href="@1@"/class=b>`, []string{"http://x.test/"}},
		"another charset":   {"<a title='\xfc\xe9' href='http://x.test/\xfc'>\xfc", "<a title='\xfc\xe9' href='@1@'>\xfc", []string{"http://x.test/\xfc"}},
		"Outlook":           {`<!--[if mso]><v:roundrect href="http://x.test/" arcsize="8%"><a href="http://y.test/"><![endif]-->`, `<!--[if mso]><v:roundrect href="@1@" arcsize="8%"><a href="@2@"><![endif]-->`, []string{"http://x.test/", "http://y.test/"}},
		"not Outlook":       {`<!--[if !mso]><!--><a href="http://x.test/"><!--<![endif]-->`, `<!--[if !mso]><!--><a href="@1@"><!--<![endif]-->`, []string{"http://x.test/"}},
		"Outlook, no end":   {`<!--[if mso]><a href="http://x.test/">-->`, "", nil},
		"our mark":          {`<a data-postrider-track="off" href="http://x.test/">`, `<a href="http://x.test/">`, nil},
		"our mark, last":    {`<a href="http://x.test/" DATA-postrider-track=OFF>`, `<a href="http://x.test/">`, nil},
		"our mark, on":      {`<a data-postrider-track="on" href="http://x.test/">`, `<a data-postrider-track="on" href="@1@">`, []string{"http://x.test/"}},
		"mark of SES":       {`<a ses:no-track href="http://x.test/">`, `<a href="http://x.test/">`, nil},
		"mark of SendGrid":  {`<a clicktracking=off href="http://x.test/">`, "", nil},
		"mark of Postmark":  {`<a data-pm-no-track href="http://x.test/">`, "", nil},
		"mark of another's": {`<a clicktracking="on" href="http://x.test/">`, `<a clicktracking="on" href="@1@">`, []string{"http://x.test/"}},
	} {
		var n numbered
		out, changed := HTML{Link: n.link}.Rewrite([]byte(tt.in))
		want := tt.want
		if want == "" {
			want = tt.in
		}
		if string(out) != want || changed != (tt.want != "") || fmt.Sprintf("%q", n.seen) != fmt.Sprintf("%q", tt.seen) {
			t.Errorf("%s: %t\n got %q\nwant %q\nsaw %q", name, changed, out, want, n.seen)
		}
	}
}

func TestLast(t *testing.T) {
	for in, want := range map[string]string{
		`<html><body>x</body></html>`: `<html><body>x|</body></html>`,
		`<p>x`:                        `<p>x|`,
		`<html>x</HTML>` + "\r\n":     `<html>x|</HTML>` + "\r\n",
		`<body>x</body>y<a href="http://x.test/"></a>`:       `<body>x|</body>y<a href="@1@"></a>`,
		`<body><!-- </body> -->x</body>`:                     `<body><!-- </body> -->x|</body>`,
		`<body>a</body><body><a href=http://x.test/></body>`: `<body>a</body><body><a href="@1@">|</body>`,
		``: `|`,
	} {
		var n numbered
		if out, _ := (HTML{Link: n.link, Last: "|"}).Rewrite([]byte(in)); string(out) != want {
			t.Errorf("%q:\n got %q\nwant %q", in, out, want)
		}
	}
	if out, changed := (HTML{}).Rewrite([]byte(`<a href="http://x.test/">`)); changed {
		t.Errorf("without anything to do: %q", out)
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"See https://x.test/a.":                         "See @1@.",
		"http://x.test":                                 "@1@",
		"(https://x.test/a_(b)), https://y.test/?":      "(@1@), @2@?",
		"<https://x.test/a,>\r\nand":                    "<@1@>\r\nand",
		"<https://x.test/a\r\nb>":                       "<https://x.test/a\r\nb>",
		"\"HTTPS://X.test/\"":                           "\"@1@\"",
		"xhttps://x.test/ git+https://x.test/":          "xhttps://x.test/ git+https://x.test/",
		"https://x.test/\u00fc":                         "https://x.test/\u00fc",
		"ftp://x.test/ :// http:// https://":            "ftp://x.test/ :// http:// https://",
		"*https://x.test/*\r\nhttps://y.test/a?b=c#d\n": "*@1@*\r\n@2@\n",
		"https://x.test/?u=https://y.test/":             "@1@",
		"[x](https://x.test/)":                          "[x](@1@)",
	} {
		var n numbered
		out, changed := Text([]byte(in), n.link)
		if string(out) != want || changed != (in != want) {
			t.Errorf("%q: got %q, want %q", in, out, want)
		}
	}
}

// Whatever comes in, the links are all that differs.
func FuzzHTML(f *testing.F) {
	for _, s := range []string{`<a href="http://x.test/">x</a>`, `<!--[if mso]><a href=http://x.test/ ><![endif]-->`, `<a/b=c href='http://x.test/`, "<a ses:no-track\r\nhref=\"x\" />",
		`<svg><style><a href="http://x.test/"></style></svg>`, `<textarea><a href="http://x.test/">`, `<plaintext><a href="http://x.test/">`, "<a href=\x00http://x.test/>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		const mark = "@@@"
		if strings.Contains(in, mark) || strings.Contains(in, "no-track") || strings.Contains(strings.ToLower(in), "-track") {
			return
		}
		out, changed := HTML{Link: func(string) (string, bool) { return mark, true }}.Rewrite([]byte(in))
		if changed != strings.Contains(string(out), mark) || !changed && string(out) != in {
			t.Fatalf("%q became %q", in, out)
		}
		// What stands between the links stands in what came in, in that order; quotes
		// may have come to addresses without.
		rest := in
		for i, part := range strings.Split(string(out), mark) {
			if i > 0 {
				part = strings.TrimPrefix(part, `"`)
			}
			at := strings.Index(rest, part)
			if at < 0 && strings.HasSuffix(part, `"`) {
				part = strings.TrimSuffix(part, `"`)
				at = strings.Index(rest, part)
			}
			if at < 0 || i == 0 && at > 0 {
				t.Fatalf("%q became %q: %q", in, out, part)
			}
			rest = rest[at+len(part):]
		}
		// A second reading sees the new links as links.
		var again int
		HTML{Link: func(a string) (string, bool) {
			if a == mark {
				again++
			}
			return "", false
		}}.Rewrite(out)
		if n := strings.Count(string(out), mark); again != n {
			t.Fatalf("%q became %q: %d links are %d", in, out, n, again)
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add("See https://x.test/a. (http://y.test/)")
	f.Fuzz(func(t *testing.T, in string) {
		var seen []string
		out, changed := Text([]byte(in), func(a string) (string, bool) { seen = append(seen, a); return a, true })
		if string(out) != in || changed != (len(seen) > 0) {
			t.Fatalf("%q became %q", in, out)
		}
	})
}
