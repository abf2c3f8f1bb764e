package rewrite

import (
	"slices"
	"strings"
	"testing"
)

var links = Places{Leave: "https://t.test/u", LeaveAll: "https://t.test/all", Choose: "https://t.test/p"}

// All that senders have in their templates, as text of HTML and in plain text.
func TestPlaceholders(t *testing.T) {
	for in, want := range map[string]struct{ link, html string }{
		"{{unsubscribe_url}}":                                {links.Leave, ""},
		"{{ unsubscribe_url }}":                              {links.Leave, ""},
		"{{{unsubscribe_url}}}":                              {links.Leave, ""},
		"{{preferences_url}}":                                {links.Choose, ""},
		"<%asm_group_unsubscribe_raw_url%>":                  {links.Leave, ""},
		"<% asm_group_unsubscribe_raw_url %>":                {links.Leave, ""},
		"<%asm_group_unsubscribe_url%>":                      {links.Leave, `<a href="https://t.test/u">Unsubscribe from this list</a>`},
		"<%asm_global_unsubscribe_raw_url%>":                 {links.LeaveAll, ""},
		"<%asm_global_unsubscribe_url%>":                     {links.LeaveAll, `<a href="https://t.test/all">Unsubscribe from all emails</a>`},
		"<%asm_preferences_raw_url%>":                        {links.Choose, ""},
		"<%asm_preferences_url%>":                            {links.Choose, `<a href="https://t.test/p">Manage email preferences</a>`},
		"{{ unsubscribe }}":                                  {links.Leave, ""},
		"{{{unsubscribe}}}":                                  {links.Leave, ""},
		"{{{unsubscribe_preferences}}}":                      {links.Choose, ""},
		"%unsubscribe_url%":                                  {links.LeaveAll, ""},
		"%tag_unsubscribe_url%":                              {links.Leave, ""},
		"%mailing_list_unsubscribe_url%":                     {links.Leave, ""},
		"<%unsubscribe_url%>":                                {links.LeaveAll, ""},
		"{{{ pm:unsubscribe }}}":                             {links.Leave, `<a href="https://t.test/u">Unsubscribe</a>`},
		"{{{pm:unsubscribe}}}":                               {links.Leave, `<a href="https://t.test/u">Unsubscribe</a>`},
		`{{{ pm:unsubscribe label="No more &amp; > out" }}}`: {links.Leave, `<a href="https://t.test/u">No more &amp; &gt; out</a>`},
		"{{{ pm:unsubscribe_url }}}":                         {links.Leave, ""},
		"{{amazonSESUnsubscribeUrl}}":                        {links.Leave, ""},
		"{{{RESEND_UNSUBSCRIBE_URL}}}":                       {links.Leave, ""},
		"{{mc-unsubscribe-url}}":                             {links.Leave, ""},
		"*|UNSUB|*":                                          {links.Leave, ""},
		"*|UNSUB:https://x.test/left?a=1|*":                  {links.Leave, ""},
		"{{{ &#112;":                                         {},
		"{{{ pm:unsubscribe label=\"x }}}":                   {},
		"{unsubscribe_url}":                                  {},
		"{{unsubscribe_url}":                                 {},
		"{{unsubscribe_urls}}":                               {},
		"{{unsubscribe-url}}":                                {},
		"{{my.unsubscribe_url}}":                             {},
		"{{#unsubscribe_url}}":                               {},
		"%unsubscribe_url":                                   {},
		"% unsubscribe_url %":                                {},
		"100%unsubscribe":                                    {},
		"<%asm_group_unsubscribe_raw_url>":                   {},
		"*|UNSUBSCRIBED|*":                                   {},
		"*|UNSUB:\r\n|*":                                     {},
		"unsubscribe_url!":                                   {},
		"{{unsubscribe_url":                                  {},
		"{{":                                                 {},
		"%7B%7Bunsubscribe_url%7D%7":                         {},
	} {
		if want.html == "" {
			want.html = want.link
		}
		for kind, want := range map[string]string{"text/plain": want.link, "text/html": want.html} {
			if want == "" {
				want = in
			}
			for _, around := range [][2]string{{"", ""}, {"See ", ".\r\n"}, {"(", ")"}, {"{{", "}}"}} {
				if strings.HasPrefix(in, "{") && around[0] == "{{" || strings.HasPrefix(in, "%7B") {
					continue
				}
				whole, want := around[0]+in+around[1], around[0]+want+around[1]
				out, changed := links.Fill([]byte(whole), kind)
				if string(out) != want || changed != (want != whole) {
					t.Errorf("%s: %q became %q, not %q", kind, whole, out, want)
				}
				if first := FirstPlace([]byte(whole), kind); (first != "") != changed || changed && first != in {
					t.Errorf("%s: the first place in %q: %q", kind, whole, first)
				}
			}
		}
	}
}

func TestPlacesInHTML(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"usual":              {`<p><a class=x href="{{unsubscribe_url}}">Leave</a></p>`, `<p><a class=x href="https://t.test/u">Leave</a></p>`},
		"brackets":           {`<a href="<%asm_group_unsubscribe_raw_url%>">`, `<a href="https://t.test/u">`},
		"no label in a link": {`<a href="<%asm_group_unsubscribe_url%>">x</a>`, `<a href="https://t.test/u">x</a>`},
		"a label in a link":  {`<a href="{{unsubscribe_url}}"><b><%asm_group_unsubscribe_url%></b></a>{{{pm:unsubscribe}}}`, `<a href="https://t.test/u"><b>Unsubscribe from this list</b></a><a href="https://t.test/u">Unsubscribe</a>`},
		"single quotes":      {`<a href='%unsubscribe_url%'>`, `<a href='https://t.test/all'>`},
		"no quotes":          {`<a href=%tag_unsubscribe_url% class=x>`, `<a href="https://t.test/u" class=x>`},
		"no quotes, around":  {`<a href=a{{unsubscribe_url}}b{{preferences_url}}c>`, `<a href="ahttps://t.test/ubhttps://t.test/pc">`},
		"references":         {`<a href="&lt;%asm_preferences_raw_url%&gt;">&#123;&#x7B;unsubscribe_url&rbrace;&rcub;&nbsp;&lt;&percnt;asm_preferences_url&#37;&GT;`, `<a href="https://t.test/p">https://t.test/u&nbsp;Manage email preferences`},
		"percent":            {`<a href="%7B%7Bunsubscribe_url%7d%7d"><a href="%3C%25asm_group_unsubscribe_raw_url%25%3E"><a href="%25unsubscribe_url%25">`, `<a href="https://t.test/u"><a href="https://t.test/u"><a href="https://t.test/all">`},
		"half of percent":    {`<a href="<%25asm_group_unsubscribe_raw_url%25>">`, `<a href="https://t.test/u">`},
		"percent, more":      {`<a href="%7B%7B%7B%20pm%3Aunsubscribe%20%7D%7D%7D"><a href="*%7CUNSUB%7C*">`, `<a href="https://t.test/u"><a href="https://t.test/u">`},
		"a host of it":       {`<a href="http://{{unsubscribe_url}}"><a href="https://%7B%7Bunsubscribe_url%7D%7D"><a href="http://%unsubscribe_url%">`, `<a href="https://t.test/u"><a href="https://t.test/u"><a href="https://t.test/all">`},
		"not a host of it":   {`<a href="https://x.test/?to={{unsubscribe_url}}&amp;a=b">`, `<a href="https://x.test/?to=https://t.test/u&amp;a=b">`},
		"other attributes":   {`<form action="{{unsubscribe_url}}"><area href="{{preferences_url}}"><td title='{{unsubscribe_url}}'>`, `<form action="https://t.test/u"><area href="https://t.test/p"><td title='https://t.test/u'>`},
		"Outlook":            {`<!--[if mso]><v:rect href="{{unsubscribe_url}}"><%asm_group_unsubscribe_url%><![endif]--><!--[if !mso]><!-->{{unsubscribe_url}}<!--<![endif]-->`, `<!--[if mso]><v:rect href="https://t.test/u"><a href="https://t.test/u">Unsubscribe from this list</a><![endif]--><!--[if !mso]><!-->https://t.test/u<!--<![endif]-->`},
		"nobody reads it":    {`<!-- {{unsubscribe_url}} --><style>{{unsubscribe_url}}</style><script>"{{unsubscribe_url}}"</script><a href={{unsubscribe_url}}`, ""},
		"title":              {`<title>{{unsubscribe_url}} {{{pm:unsubscribe}}}</title><b>{{{pm:unsubscribe}}}</b>`, `<title>https://t.test/u https://t.test/u</title><b><a href="https://t.test/u">Unsubscribe</a></b>`},
		"across lines":       {"<p>{{\r\n  unsubscribe_url\r\n}}", "<p>https://t.test/u"},
		"broken tags":        {`<p<{{unsubscribe_url}}><b "x" title="{{unsubscribe_url}}">`, `<p<{{unsubscribe_url}}><b "x" title="https://t.test/u">`},
		"another charset":    {"<a title=\"\xfc{{unsubscribe_url}}\xe9\">\xfc", "<a title=\"\xfchttps://t.test/u\xe9\">\xfc"},
		"by name only":       {`<a href="https://x.test/unsubscribe">unsubscribe</a>`, ""},
	} {
		want := tt.want
		if want == "" {
			want = tt.in
		}
		out, changed := links.Fill([]byte(tt.in), "text/html")
		if string(out) != want || changed != (tt.want != "") {
			t.Errorf("%s: %t\n got %q\nwant %q", name, changed, out, want)
		}
	}
}

// A link that there is not leaves its placeholders.
func TestPlacesWithout(t *testing.T) {
	const in = `<a href="{{unsubscribe_url}}">{{preferences_url}} <%asm_preferences_url%></a> <%asm_preferences_url%>`
	if out, changed := (Places{}).Fill([]byte(in), "text/html"); changed || string(out) != in {
		t.Errorf("became %q", out)
	}
	out, changed := Places{Leave: "x"}.Fill([]byte(in), "text/html")
	if want := strings.Replace(in, "{{unsubscribe_url}}", "x", 1); !changed || string(out) != want {
		t.Errorf("became %q, not %q", out, want)
	}
}

// Whatever comes in, placeholders are all that differs.
func FuzzPlaces(f *testing.F) {
	for _, s := range []string{`<a href="http://{{unsubscribe_url}}">x</a>`, `<a href=%25unsubscribe_url%25 b={{preferences_url}}>`, "<% asm_group_unsubscribe_url %>", `&lt;%asm_preferences_raw_url%&gt;`,
		`{{{ pm:unsubscribe label="x" }}}`, "*|UNSUB:http://x.test/|*", "<!--[if mso]>{{unsubscribe_url}}<![endif]-->", "<title>{{unsubscribe_url}}", "{{{{{{unsubscribe_url}}}}}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		for _, kind := range []string{"text/plain", "text/html"} {
			p := Places{"@1@", "@2@", "@3@"}
			edits := p.edits([]byte(in), kind)
			if !slices.IsSortedFunc(edits, func(a, b edit) int { return a.from - b.from }) {
				t.Fatalf("%q: %v", in, edits)
			}
			var want strings.Builder
			at := 0
			for _, e := range edits {
				if e.from < at || e.to <= e.from || !strings.Contains(in[e.from:e.to], "nsub") && !strings.Contains(in[e.from:e.to], "NSUB") && !strings.Contains(in[e.from:e.to], "references") {
					t.Fatalf("%q: %v", in, edits)
				}
				want.WriteString(in[at:e.from] + e.text)
				at = e.to
			}
			want.WriteString(in[at:])
			out, changed := p.Fill([]byte(in), kind)
			if string(out) != want.String() || changed != (len(edits) > 0) || changed != (FirstPlace([]byte(in), kind) != "") {
				t.Fatalf("%q became %q", in, out)
			}
		}
	})
}

func BenchmarkFirstPlace(b *testing.B) {
	for _, bb := range []struct{ name, piece string }{{"none", `<td style="x"><a href="https://x.test/?a=b">Some text</a></td>` + "\r\n"}, {"suspect", `<td><a href="https://x.test/unsubscribe">unsubscribe</a></td>` + "\r\n"}} {
		in := []byte(strings.Repeat(bb.piece, 10_000/len(bb.piece)))
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				if FirstPlace(in, "text/html") != "" {
					b.Fatal("found something")
				}
			}
		})
	}
}
