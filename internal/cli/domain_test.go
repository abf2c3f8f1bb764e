package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/domain"
	"postrider/internal/relay"
)

// publish puts what a plan says into the relay's DNS.
func (f *fixture) publish(p *domain.Plan) {
	f.Helper()
	for _, r := range p.Records {
		value := domain.Quote(r.Value)
		if r.Type == "CNAME" {
			value = r.Value + "."
		}
		if err := f.DNS.Add(r.Name + ". 60 IN " + r.Type + " " + value); err != nil {
			f.Fatal(err)
		}
	}
}

// zone puts what the relay's own zone must hold there.
func (f *fixture) zone() {
	f.Helper()
	for line := range strings.Lines(f.on("domain", "zone")) {
		if line = strings.TrimSpace(line); line == "" || line[0] == ';' {
			continue
		}
		if err := f.DNS.Add(line); err != nil {
			f.Fatal(err)
		}
	}
}

// A domain's whole life at the command line, with a server, a store and a DNS
// that are real.
func TestDomainCommands(t *testing.T) {
	for _, how := range []string{"txt", "cname"} {
		t.Run(how, func(t *testing.T) {
			f := start(t, func(c *config.Config) { c.Service.Domain = "relay.example.test" })
			out := f.on("domain", "add", "-publish", how, "Shop.Example")
			want(t, out, "Records of shop.example", "ownership (required)", "_postrider", "postrider-verify=", "dkim (required)", "_domainkey",
				"bounce.relay.example.test", "include:spf.relay.example.test", "v=DMARC1; p=none", "postrider domain check shop.example")
			if _, errs, status := call(t, "", "domain", "add", "shop.example", "-data", f.Dir); status != 1 || !strings.Contains(errs, "in use already") {
				t.Errorf("the same again: %d %s", status, errs)
			}
			if _, errs, status := call(t, "", "domain", "add", "co.uk", "-data", f.Dir); status != 1 || !strings.Contains(errs, "public suffix") {
				t.Errorf("a public suffix: %d %s", status, errs)
			}
			out, errs, status := call(t, "", "domain", "check", "shop.example", "-data", f.Dir)
			if status != 1 {
				t.Errorf("nothing is published, and the status is %d", status)
			}
			want(t, out, "BAD      ownership", "expected  postrider-verify=", "→ Publish a TXT record", "not verified")
			want(t, errs, "bad")

			var plan domain.Plan
			if err := json.Unmarshal([]byte(f.on("domain", "records", "shop.example", "-json")), &plan); err != nil {
				t.Fatal(err)
			}
			f.publish(&plan)
			f.zone()
			out = f.on("domain", "check", "shop.example")
			want(t, out, "good     ownership", "is verified, and mail leaves with its return path")
			if strings.Contains(out, "BAD") || strings.Contains(out, "warning") {
				t.Error(out)
			}
			want(t, out, "good     certificate", "track.shop.example: This relay makes no links.")
			want(t, f.on("domain", "show", "shop.example"), "good     ownership", "certificate", "is verified, and mail leaves with its return path")
			want(t, f.on("domain", "list"), "shop.example", "verified", "signing")
			want(t, f.on("domain", "set", "-when-broken", "sandbox", "-tracking", "", "shop.example"), "when broken: sandbox")
			want(t, f.on("domain", "rotate", "shop.example"), "dkim (required)")
			out = f.on("domain", "check", "shop.example", "-json")
			var d api.Domain
			if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Keys) != 4 || d.Keys[0].State != relay.KeySigning || d.Keys[2].State != relay.KeyWaiting || d.Tracking != "" {
				t.Errorf("after a rotation: %v %s", err, out)
			}
			if strings.Contains(out, "sealed") || strings.Contains(out, "Sealed") {
				t.Error("private keys are shown")
			}
			want(t, f.on("domain", "remove", "shop.example"), "Removed shop.example")
			if _, errs, status := call(t, "", "domain", "check", "shop.example", "-data", f.Dir); status != 1 || !strings.Contains(errs, "no domain") {
				t.Errorf("after it was removed: %d %s", status, errs)
			}
		})
	}
}

// The mail with the link goes out, its page asks, and only the button verifies.
func TestSenderCommands(t *testing.T) {
	f := start(t, func(c *config.Config) { c.API.Listen, c.API.URL = "127.0.0.1:0", "http://relay.test" })
	want(t, f.on("sender", "add", "ann@Shop.Example"), "on its way to ann@shop.example")
	if _, errs, status := call(t, "", "sender", "add", "ann@shop.example", "-data", f.Dir); status != 1 || !strings.Contains(errs, "just now") {
		t.Errorf("again at once: %d %s", status, errs)
	}
	d := f.until("ann@shop.example", "delivered")
	if d.Sender != "" || d.Recipient != "ann@shop.example" {
		t.Errorf("%+v", d)
	}
	mail := string(f.sink.Messages()[0].Content)
	found := regexp.MustCompile(`http://relay\.test(/verify/\S+)`).FindStringSubmatch(mail)
	if found == nil {
		t.Fatalf("no link in\n%s", mail)
	}
	page := func(method, path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+f.APIAddr()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	for range 2 { // whoever opens links ahead of people changes nothing
		status, text := page("GET", found[1])
		if status != 200 || !strings.Contains(text, "<button>") || !strings.Contains(text, "ann@shop.example") {
			t.Errorf("%d %s", status, text)
		}
	}
	want(t, f.on("sender", "list"), "ann@shop.example", "not yet")
	if status, text := page("POST", "/verify/abcdef"); status != 404 || !strings.Contains(text, "no such link") {
		t.Errorf("a link that was guessed: %d %s", status, text)
	}
	for range 2 {
		if status, text := page("POST", found[1]); status != 200 || !strings.Contains(text, "Thank you") {
			t.Errorf("%d %s", status, text)
		}
	}
	if out := f.on("sender", "list"); strings.Contains(out, "not yet") {
		t.Error(out)
	}
	want(t, f.on("sender", "add", "-verified", "bob@shop.example"), "is verified")
	want(t, f.on("sender", "remove", "bob@shop.example"), "Removed")
	if _, errs, status := call(t, "", "sender", "add", "nobody", "-data", f.Dir); status != 1 || !strings.Contains(errs, "can't be a sender") {
		t.Errorf("%d %s", status, errs)
	}
}

func TestSenderWithoutLink(t *testing.T) {
	f := start(t)
	_, errs, status := call(t, "", "sender", "add", "ann@shop.example", "-data", f.Dir)
	if status != 1 {
		t.Errorf("status %d", status)
	}
	want(t, errs, "no public address", "-verified")
}

func TestDoctorCommand(t *testing.T) {
	var probe string
	f := start(t, func(c *config.Config) {
		probe = c.Route[0].To
		c.Hostname, c.Doctor = "relay.example.test", config.Doctor{Blocklists: []string{"bl.test"}}
	})
	if err := f.DNS.Add("relay.example.test. 60 IN A 203.0.113.25"); err != nil {
		t.Fatal(err)
	}
	f.zone()
	out := f.on("doctor")
	want(t, out, "good     helo", "good     outbound", probe, "good     listener", "warning  certificate", "good     store", "good     service", "Nothing is bad.")
	var all api.Examination
	if err := json.Unmarshal([]byte(f.on("doctor", "-json")), &all); err != nil || all.Verdict != relay.Warning || len(all.Findings) < 8 {
		t.Errorf("%+v, %v", all, err)
	}
	f.DNS.Remove("relay.example.test")
	out, errs, status := call(t, "", "doctor", "-data", f.Dir)
	if status != 1 {
		t.Errorf("a name that leads nowhere: status %d", status)
	}
	want(t, out, "BAD      helo", "leads nowhere", "→ Set hostname")
	want(t, errs, "one thing is bad")
}

// Without a server the doctor looks at what can be seen.
func TestDoctorAlone(t *testing.T) {
	f := start(t)
	file := f.Dir + "/doctor.toml"
	text := `
hostname = "relay.test"
data = "` + t.TempDir() + `"
[dns]
servers = ["` + f.DNS.Addr() + `"]
[doctor]
probe = []
blocklists = []
time_server = ""
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, status := call(t, "", "doctor", "-config", file)
	if status != 1 { // the name leads nowhere
		t.Errorf("status %d", status)
	}
	want(t, out, "No server runs", "unknown  outbound", "BAD      helo", "disk")
}
