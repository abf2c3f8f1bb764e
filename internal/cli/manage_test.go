package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postrider/internal/api"
	"postrider/internal/config"
)

// Accounts, people, plans, suppressions and limits, each by its command, and what
// the audit log tells of it.
func TestManage(t *testing.T) {
	f := start(t)
	want(t, f.on("plan", "set", "-limit", "10000 recipients/month", "-start", "200", "small"), "Plan small: 10000 recipients/month")
	want(t, f.on("plan", "list"), "small", "10000 recipients/month", "200")
	want(t, f.on("account", "add", "-plan", "small", "-senders", "any", "webshop"), "webshop", "active", "small", "200 recipients a day")
	want(t, f.on("account", "set", "-limit", "50 recipients/hour", "-daily", "0", "webshop"), "50 recipients/hour")
	want(t, f.on("account", "list"), "webshop", "default")
	want(t, f.on("account", "add", "-account", "webshop", "customer"), "Parent")
	want(t, f.on("account", "show", "customer"), "50 recipients/hour")
	want(t, f.on("limit", "-account", "webshop"), "50 recipients/hour", "this account's plan, small")
	want(t, f.on("user", "add", "-name", "Ann", "ann@shop.test"), "ann@shop.test", "no password")
	want(t, f.on("user", "role", "-account", "webshop", "ann@shop.test", "owner"), "is owner now")
	want(t, f.on("user", "role", "-account", "webshop", "ben@shop.test", "viewer"), "is viewer now")
	want(t, f.on("user", "members", "-account", "webshop"), "ann@shop.test", "owner", "ben@shop.test")
	want(t, f.on("user", "leave", "-account", "webshop", "ben@shop.test"), "no member any more")
	want(t, f.on("user", "set", "-disable", "ann@shop.test"), "disabled")
	want(t, f.on("user", "list", "-json"), `"email":"ann@shop.test"`)
	want(t, f.on("suppression", "add", "-account", "webshop", "-note", "by phone", "gone@x.test", "@y.test"), "2 new of 2")
	want(t, f.on("suppression", "list", "-account", "webshop"), "gone@x.test", "@y.test", "by phone")
	want(t, f.on("suppression", "remove", "-account", "webshop", "gone@x.test"), "Removed 1")
	bounces := filepath.Join(t.TempDir(), "bounces.csv")
	if err := os.WriteFile(bounces, []byte("email,reason,detail\nold@x.test,hard-bounce,no such user\nnobody,spam,\n@y.test,custom,\nangry@x.test,spam,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, f.on("suppression", "import", "-account", "webshop", bounces), "4 lines: 2 added, 1 known before, 1 refused")
	want(t, f.on("suppression", "export", "-account", "webshop"), "address,stream,reason,note,event,created,expires\n", "old@x.test,,bounce,no such user,,", "angry@x.test,,complaint,")
	want(t, f.on("suppression", "remove", "-account", "webshop", "-confirm", "complaint", "angry@x.test"), "Removed 1")
	want(t, f.on("suppression", "add", "home@x.test"), "1 new of 1")
	if out, errs, status := call(t, "", "suppression", "export", "-data", f.Dir); status != 1 || !strings.Contains(errs, "name each account") || strings.Contains(out, "home@x.test") == strings.Contains(out, "old@x.test") {
		t.Errorf("export of two accounts: status %d, %s%s", status, out, errs)
	}
	if _, errs, status := call(t, "", "suppression", "remove", "-data", f.Dir, "home@x.test", "never@x.test"); status != 1 || !strings.Contains(errs, "1 of 2 are removed, those before never@x.test: ") {
		t.Errorf("two, of which one is not there: status %d, %q", status, errs)
	}

	list := filepath.Join(t.TempDir(), "left.csv")
	if err := os.WriteFile(list, []byte("\ufeffid;Email;when\n1;eve@x.test;2020\n2; FAY@x.test ;2021\n3;;\n4;\"nobody;\n5;gil@x.test;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, f.on("account", "set", "-title", "The Shop", "webshop"), "Title", "The Shop")
	want(t, f.on("group", "add", "-account", "webshop", "-name", "Newsletter", "-default", "news"), "Group news: Newsletter (public, the default one)")
	want(t, f.on("group", "add", "-account", "webshop", "-hidden", "offers"), "Group offers: offers (hidden)")
	want(t, f.on("group", "set", "-account", "webshop", "-position", "2", "-description", "weekly", "offers"), "Group offers")
	want(t, f.on("group", "list", "-account", "webshop"), "news", "Newsletter", "yes", "hidden", "weekly")
	want(t, f.on("group", "leave", "-account", "webshop", "-note", "by phone", "news", "ann@x.test", "Dan@x.test"), "2 new of 2")
	want(t, f.on("group", "import", "-account", "webshop", "news", list), "3 new of 4", "1 were refused")
	want(t, f.on("group", "members", "-account", "webshop", "news"), "ann@x.test", "by phone", "fay@x.test")
	want(t, f.on("group", "check", "-account", "webshop", "news", "dan@X.test"), "dan@x.test left news on")
	want(t, f.on("group", "rejoin", "-account", "webshop", "news", "dan@x.test"), "1 get mail of news again")
	want(t, f.on("group", "show", "-account", "webshop", "-json", "news"), `"default": true`)
	want(t, f.on("group", "remove", "-account", "webshop", "offers"), "Removed")
	want(t, f.on("credential", "add", "-account", "webshop", "-group", "news", "crm-news"), "crm-news")

	want(t, f.on("credential", "add", "-account", "webshop", "-kind", "key", "-scope", "send,read", "-limit", "5 messages/second burst 9", "crm"), "prk_")
	want(t, f.on("credential", "list", "-account", "webshop"), "crm", "may send, read", "at most 5 messages/second burst 9", "never")
	want(t, f.on("credential", "set", "-account", "webshop", "-limit", "", "-sender", "shop.test", "crm"), "Changed key")
	want(t, f.on("credential", "block", "-account", "webshop", "-reason", "wild", "crm"), "Blocked key")
	want(t, f.on("credential", "show", "-account", "webshop", "crm"), `"status": "blocked"`, "wild", "shop.test")
	want(t, f.on("credential", "unblock", "-account", "webshop", "crm"), "Unblocked key")
	want(t, f.on("credential", "rotate", "-account", "webshop", "crm"), "prk_")
	want(t, f.on("credential", "list", "-account", "webshop"), "the secret before is good until")
	want(t, f.on("account", "set", "-status", "blocked", "-reason", "unpaid", "webshop"), "blocked", "unpaid")
	want(t, f.on("account", "close", "customer"), "closed")
	audit := f.on("audit", "-account", "webshop")
	want(t, audit, "credential.", "by operator from this machine", "suppress")
	if lines := strings.Split(audit, "\n"); len(lines) > 1 && strings.Contains(audit, "prk_") {
		t.Error("the audit log tells a secret")
	}
	if n := strings.Count(f.on("audit", "-account", "webshop", "-json", "-n", "3"), "\n"); n != 3 {
		t.Errorf("-n 3: %d lines", n)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"account", "show", "nobody"}, "nobody"},
		{[]string{"account", "set", "-limit", "many", "webshop"}, "recipients/hour"},
		{[]string{"user", "role", "-account", "webshop", "ann@shop.test", "king"}, "role"},
		{[]string{"suppression", "remove", "never@x.test"}, "not on the list"},
		{[]string{"plan", "remove", "none"}, "none"},
		{[]string{"group", "remove", "-account", "webshop", "news"}, "4 addresses have left"},
		{[]string{"group", "check", "-account", "webshop", "news", "ben@x.test"}, "has not left"},
		{[]string{"group", "members", "nothing"}, "no group"},
		{[]string{"credential", "set", "-account", "webshop", "-group", "nothing", "crm"}, "no group"},
	} {
		if _, errs, status := call(t, "", append(tt.args, "-data", f.Dir)...); status != 1 || !strings.Contains(errs, tt.want) {
			t.Errorf("%v: status %d, %s", tt.args, status, errs)
		}
	}
}

// From afar with a key, by flags or by the environment.
func TestSendFromAfar(t *testing.T) {
	f := start(t, func(c *config.Config) { c.API.Listen = "127.0.0.1:0" })
	var made api.AddedCredential
	if err := json.Unmarshal([]byte(f.on("credential", "add", "-kind", "key", "-scope", "send,read", "-json", "crm")), &made); err != nil {
		t.Fatal(err)
	}
	server := "http://" + f.APIAddr()
	out, errs, status := call(t, "Hello\n", "send", "-server", server, "-token", made.Secret, "-from", "Shop <a@shop.test>", "-to", "ok@x.test", "-subject", "Hé", "-text-file", "-", "-header", "X-A: b", "-json", "-key", "k1")
	var sent api.Sent
	if err := json.Unmarshal([]byte(out), &sent); err != nil || status != 0 {
		t.Fatalf("status %d, %s%s", status, out, errs)
	}
	t.Setenv("POSTRIDER_SERVER", server)
	t.Setenv("POSTRIDER_TOKEN", made.Secret)
	want(t, ok(t, "message", sent.ID), "Subject    Hé", "Credential crm", "ok@x.test")
	want(t, ok(t, "log", "-recipient", "ok@x.test"), sent.ID)
	file := filepath.Join(t.TempDir(), "m.eml")
	if err := os.WriteFile(file, []byte("From: a@shop.test\nTo: raw@x.test\nSubject: whole\n\nHi\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, ok(t, "send", "-raw", file), "Queued as", "for 1 recipients")
	want(t, f.until("raw@x.test", "delivered").Subject, "whole")
	want(t, ok(t, "send", "-from", "a@shop.test", "-to", "said@x.test", "-subject", "Hi", "-text", "Hello"), "Queued as", "for 1 recipients")
	want(t, f.until("said@x.test", "delivered").Subject, "Hi")
	// What the key may not do, and what is not there, in the server's words.
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"scope manage", []string{"credential", "revoke", "crm"}},
		{"operators", []string{"status"}},
		{"There is no message", []string{"message", "06bw8sf8dhkx94jkm5k3vz1m3r"}},
		{"can't be an address", []string{"send", "-from", "a@shop.test", "-to", "nobody", "-text-file", file}},
		{"not a valid API key", []string{"log", "-token", "prk_wrong"}},
		{"not the address of a server", []string{"log", "-server", "relay.test"}},
	} {
		if _, errs, status := call(t, "", tt.args...); status != 1 || !strings.Contains(errs, tt.want) {
			t.Errorf("%v: status %d, %s", tt.args, status, errs)
		}
	}
	for _, args := range [][]string{{"send"}, {"send", "-from", "a@b.test"}, {"send", "-from", "a@b.test", "-to", "c@d.test", "-text", "x", "-text-file", "y"}, {"send", "-from", "a@b.test", "-to", "c@d.test", "-at", "whenever"}, {"account"}, {"account", "add"}, {"user", "role", "x"}, {"plan", "set"}, {"suppression", "add"}, {"group"}, {"group", "leave", "news"}, {"audit", "-n", "-1"}, {"audit", "-since", "whenever"}, {"limit", "x"}} {
		if _, errs, status := call(t, "", args...); status != 2 || errs == "" {
			t.Errorf("%v: status %d, %s", args, status, errs)
		}
	}
}
