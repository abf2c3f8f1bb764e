package submit

import (
	"strings"
	"testing"

	"postrider/internal/relay"
)

func (f *fixture) group(id string, change func(*relay.Group)) {
	f.Helper()
	g := &relay.Group{Account: f.identity.Account, ID: id, Name: id, Public: true, Created: noon}
	change(g)
	f.must(f.db.AddGroup(f.Context(), operator, g, 100))
	f.directory.Forget()
}

func (f *fixture) leave(group string, addresses ...string) {
	f.Helper()
	var list []relay.Leaver
	for _, a := range addresses {
		list = append(list, relay.Leaver{Address: a, Created: noon})
	}
	_, err := f.db.LeaveGroup(f.Context(), operator, f.identity.Account, group, list)
	f.must(err)
}

// grouped is a fixture with groups, of which news is the default one.
func grouped(t *testing.T) *fixture {
	f := newFixture(t)
	f.entrance.config.Groups, f.entrance.config.Links = f.directory, true
	f.group("news", func(g *relay.Group) { g.Default = true })
	f.group("offers", func(*relay.Group) {})
	return f
}

func TestOptOut(t *testing.T) {
	for name, tt := range map[string]struct {
		header             string
		group, unsubscribe string // of the draft
		stream             relay.Stream
		credential         string
		want               relay.OptOut
	}{
		"broadcast":                     {stream: relay.Broadcast, want: relay.OptOut{Group: "news", Link: true, Header: true}},
		"broadcast of a group":          {stream: relay.Broadcast, group: "offers", want: relay.OptOut{Group: "offers", Link: true, Header: true}},
		"broadcast of the credential's": {stream: relay.Broadcast, credential: "offers", want: relay.OptOut{Group: "offers", Link: true, Header: true}},
		"broadcast, off":                {stream: relay.Broadcast, unsubscribe: "off", want: relay.OptOut{Group: "news"}},
		"transactional":                 {stream: relay.Transactional},
		"transactional, on":             {stream: relay.Transactional, unsubscribe: "on", want: relay.OptOut{Link: true, Header: true}},
		"transactional of a group":      {stream: relay.Transactional, group: "news", want: relay.OptOut{Group: "news", Link: true, Header: true}},
		"group, off":                    {stream: relay.Transactional, group: "news", unsubscribe: "off", want: relay.OptOut{Group: "news"}},
		"by header":                     {header: "X-Postrider-Group: Offers\r\n", stream: relay.Transactional, want: relay.OptOut{Group: "offers", Link: true, Header: true}},
		"by the other header":           {header: "X-Postrider-Unsubscribe: offers\r\n", stream: relay.Transactional, want: relay.OptOut{Group: "offers", Link: true, Header: true}},
		"by header, on":                 {header: "X-POSTRIDER-UNSUBSCRIBE:\r\n On\r\n", stream: relay.Transactional, want: relay.OptOut{Link: true, Header: true}},
		"by headers, off":               {header: "X-Postrider-Unsubscribe: off\r\nX-Postrider-Group: offers\r\n", stream: relay.Broadcast, want: relay.OptOut{Group: "offers"}},
		"the draft before the header":   {header: "X-Postrider-Group: offers\r\n", group: "news", stream: relay.Transactional, want: relay.OptOut{Group: "news", Link: true, Header: true}},
		"fields of its own":             {header: "List-Unsubscribe: <https://shop.test/u>\r\n", stream: relay.Broadcast, want: relay.OptOut{Group: "news", Link: true}},
		"field with a placeholder":      {header: "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nX-A: b\r\nList-Unsubscribe: <{{unsubscribe_url}}>\r\n", stream: relay.Transactional, want: relay.OptOut{Link: true, Header: true}},
		"a credential's that is gone":   {stream: relay.Transactional, credential: "gone", want: relay.OptOut{Link: true, Header: true}},
	} {
		t.Run(name, func(t *testing.T) {
			f := grouped(t)
			f.identity.Group = tt.credential
			d := f.draft(tt.header+complete+"\r\nx\r\n", "ann@example.com", "bob@example.net")
			d.Stream, d.Group, d.Unsubscribe = tt.stream, tt.group, tt.unsubscribe
			story, content := f.submit(d)
			if story.Message.OptOut != tt.want {
				t.Errorf("kept %+v, want %+v", story.Message.OptOut, tt.want)
			}
			if strings.Contains(strings.ToLower(content), "x-postrider") {
				t.Errorf("what is for us alone is kept:\n%s", content)
			}
			if own := strings.Contains(tt.header, "List-") && !tt.want.Header; own && !strings.Contains(content, tt.header) || !own && strings.Contains(content, "List-") {
				t.Errorf("its own field is changed, or void and kept:\n%s", content)
			}
		})
	}
}

func TestOptOutUnknownGroup(t *testing.T) {
	f := grouped(t)
	for _, header := range []string{"X-Postrider-Group: other\r\n", "X-Postrider-Unsubscribe: yes please\r\n"} {
		_, err := f.entrance.Submit(t.Context(), f.draft(header+complete+"\r\nx\r\n", "ann@example.com", "bob@example.net"))
		if relay.CodeOf(err) != relay.BadContent {
			t.Errorf("%s: %v", header, err)
		}
	}
	d := f.draft(complete+"\r\nx\r\n", "ann@example.com", "bob@example.net")
	d.Group = "other"
	if _, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != relay.BadContent {
		t.Errorf("%v", err)
	}
}

// Who has left a group gets nothing of it, and everything else.
func TestLeftAtAcceptance(t *testing.T) {
	f := grouped(t)
	f.leave("news", "bob@example.net")
	to := []string{"Bob@Example.NET", "cy@example.net"}
	states := func(group string) (all []relay.State) {
		t.Helper()
		d := f.draft(complete+"\r\nx\r\n", "ann@example.com", to...)
		d.Group = group
		story, _ := f.submit(d)
		for _, v := range story.Deliveries {
			all = append(all, v.State)
			if v.State == relay.Cancelled && v.Diagnosis.Category != "suppressed" && (v.Diagnosis.Category != "unsubscribed" || !strings.Contains(v.Diagnosis.Text, "news")) {
				t.Errorf("diagnosis %+v", v.Diagnosis)
			}
		}
		return all
	}
	if got := states("news"); got[0] != relay.Cancelled || got[1] != relay.Queued {
		t.Errorf("of the group: %v", got)
	}
	if got := states(""); got[0] != relay.Cancelled { // it is the default one
		t.Errorf("of none: %v", got)
	}
	if got := states("offers"); got[0] != relay.Queued || got[1] != relay.Queued {
		t.Errorf("of another: %v", got)
	}
	// It counts once, also where the address is suppressed besides.
	f.suppress("bob@example.net")
	if got := states("news"); got[0] != relay.Cancelled || got[1] != relay.Queued {
		t.Errorf("suppressed too: %v", got)
	}
	f.change(func(a *relay.Account) { a.Muted = relay.SuppressRefuse })
	_, err := f.db.Unsuppress(t.Context(), operator, f.identity.Account, relay.Unsuppression{Addresses: []string{"bob@example.net"}})
	f.must(err)
	d := f.draft(complete+"\r\nx\r\n", "ann@example.com", to...)
	if _, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != relay.Suppressed || !strings.Contains(err.Error(), "left the group") {
		t.Errorf("refused: %v", err)
	}
}
