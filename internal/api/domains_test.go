package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"postrider/internal/account"
	"postrider/internal/dns"
	"postrider/internal/domain"
	"postrider/internal/lab/fakedns"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
	"postrider/internal/submit"
)

// byName are accounts by their names.
type byName map[string]relay.ID

func (b byName) Find(_ context.Context, _ relay.ID, which string) (relay.ID, error) {
	if id, ok := b[which]; ok {
		return id, nil
	}
	return relay.ID{}, &relay.Error{Code: relay.NotFound, Text: "There is no such account."}
}

// sending adds what looks after domains and senders of two accounts.
func sending(t *testing.T, c *Config) *store.DB {
	t.Helper()
	ctx := t.Context()
	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "p.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	accounts := byName{}
	for _, name := range []string{"one", "two"} {
		if accounts[name], err = db.EnsureAccount(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	zone, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zone.Close)
	resolver, err := dns.New([]string{zone.Addr()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.Tenants, c.Home = accounts, accounts["one"]
	c.Domains = domain.NewManager(domain.Config{NewID: submit.NewID, Rhythm: domain.Rhythm{Every: time.Hour, Grace: time.Hour},
		NewKey: func(_ *relay.Domain, selector, algorithm string, now time.Time) (relay.DKIMKey, error) {
			return relay.DKIMKey{Selector: selector, Algorithm: algorithm, Public: "v=DKIM1; p=QUJD", Sealed: []byte("secret"), State: relay.KeyWaiting, Since: now}, nil
		}}, db, domain.DNS{Resolver: resolver})
	c.Senders = domain.NewSenders(domain.SenderConfig{NewID: submit.NewID}, db, nil)
	return db
}

// One account's domains and senders are not there for another, by name or by id.
func TestDomainsOfOthers(t *testing.T) {
	c := (&kept{}).config(t)
	sending(t, &c)
	web := httptest.NewServer(New(c).Control())
	defer web.Close()
	do := func(method, path, account, body string) (int, Problem) {
		t.Helper()
		resp, p := request{method: method, path: path + "?" + url.Values{"account": {account}}.Encode(), body: body}.do(t, web)
		return resp.StatusCode, p
	}
	if status, p := do("POST", "/v1/domains", "one", `{"name":"shop.example"}`); status != 201 {
		t.Fatalf("%d %+v", status, p)
	}
	if status, p := do("POST", "/v1/senders", "one", `{"address":"ann@shop.example","verified":true}`); status != 201 {
		t.Fatalf("%d %+v", status, p)
	}
	one, err := c.Domains.Find(t.Context(), c.Home, "shop.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, which := range []string{"shop.example", one.ID.String()} {
		for _, route := range []struct{ method, rest, body string }{{"GET", "", ""}, {"GET", "/records", ""}, {"POST", "/check", ""}, {"POST", "/rotate", ""},
			{"PATCH", "", `{"when_broken":"warn"}`}, {"DELETE", "", ""}} {
			if status, p := do(route.method, "/v1/domains/"+which+route.rest, "two", route.body); status != 404 || p.Code != "not-found" {
				t.Errorf("%s %s%s: %d %+v", route.method, which, route.rest, status, p)
			}
		}
	}
	if status, _ := do("DELETE", "/v1/senders/ann@shop.example", "two", ""); status != 404 {
		t.Errorf("another's sender: %d", status)
	}
	if status, _ := do("PATCH", "/v1/domains/shop.example", "one", `{"when_broken":"warn","version":77}`); status != 409 {
		t.Errorf("a change to another version: %d", status)
	}
	if status, p := do("POST", "/v1/domains", "one", `{"name":"shop.example","publish":"fax"}`); status != 422 || len(p.Errors) != 1 || p.Errors[0].Location != "body.publish" {
		t.Errorf("a way that there is not: %d %+v", status, p)
	}
	for path, want := range map[string]int{"/v1/domains": 0, "/v1/senders": 0} {
		var list List[any]
		if err := getJSON(t, web.URL+path+"?account=two", &list); err != nil || len(list.Data) != want {
			t.Errorf("%s of another: %+v, %v", path, list, err)
		}
	}
	if status, _ := do("DELETE", "/v1/domains/shop.example", "one", ""); status != 200 {
		t.Errorf("one's own: %d", status)
	}
}

// Only an operator's word verifies an address.
func TestWordOfOperators(t *testing.T) {
	c := (&kept{}).config(t)
	sending(t, &c)
	s := New(c)
	for operator, want := range map[bool]relay.Code{true: "", false: relay.Forbidden} {
		who := account.Caller{Account: c.Home}
		if operator {
			who = account.Operator(relay.Actor{Name: "operator"}).In(c.Home)
		}
		x := &exchange{caller: &Caller{Caller: who}}
		_, err := s.addSender(context.WithValue(t.Context(), exchangeKey{}, x), &body[NewSender]{NewSender{Address: "ann@shop.example", Verified: true}})
		if (err == nil) != operator || err != nil && relay.CodeOf(err) != want {
			t.Errorf("operator %t: %v", operator, err)
		}
	}
}

// Pages of a list follow each other, each entry once.
func TestDomainPages(t *testing.T) {
	c := (&kept{}).config(t)
	sending(t, &c)
	web := httptest.NewServer(New(c).Control())
	defer web.Close()
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		if _, err := c.Domains.Add(t.Context(), relay.Actor{}, c.Home, name, domain.Settings{}); err != nil {
			t.Fatal(err)
		}
	}
	got, cursor := "", ""
	for range 5 {
		var list List[Domain]
		if err := getJSON(t, web.URL+"/v1/domains?limit=2&cursor="+cursor, &list); err != nil {
			t.Fatal(err)
		}
		for _, d := range list.Data {
			got += d.Name + " "
		}
		if cursor = list.Next; cursor == "" {
			break
		}
	}
	if got != "a.example b.example c.example " {
		t.Error(got)
	}
	if resp, p := (request{path: "/v1/domains?cursor=x"}).do(t, web); resp.StatusCode != 422 || p.Errors[0].Location != "query.cursor" {
		t.Errorf("%d %+v", resp.StatusCode, p)
	}
}

func getJSON(t *testing.T, address string, out any) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}
