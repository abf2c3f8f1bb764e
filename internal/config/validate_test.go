package config

import (
	"strings"
	"testing"
)

// TestValidate changes one thing of a sound configuration at a time. What can
// be written in a file is tested in testdata/errors; here is what only a
// program can set, and where the bounds are.
func TestValidate(t *testing.T) {
	listen := func(addresses ...string) func(*Config) {
		return func(c *Config) {
			c.Listen = nil
			for _, a := range addresses {
				c.Listen = append(c.Listen, Listener{Address: a})
			}
		}
	}
	metrics := func(s string) func(*Config) { return func(c *Config) { c.HTTP.Listen = s } }
	hostname := func(s string) func(*Config) { return func(c *Config) { c.Hostname = s } }
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // the key that is named, "" for none
	}{
		"nothing":               {func(*Config) {}, ""},
		"negative idle":         {func(c *Config) { c.Limits.Idle = -1 }, "limits.idle"},
		"negative drain":        {func(c *Config) { c.Queue.Drain = -1 }, "queue.drain"},
		"negative gather":       {func(c *Config) { c.Notices.Gather = -1 }, "notices.gather"},
		"negative warning":      {func(c *Config) { c.Notices.Delay = -1 }, "notices.delay_warning"},
		"negative size":         {func(c *Config) { c.Queue.BatchBytes = -1 }, "queue.batch_bytes"},
		"no login is free":      {func(c *Config) { c.Login.Free = 0 }, ""},
		"negative free":         {func(c *Config) { c.Login.Free = -1 }, "login.free"},
		"empty network":         {func(c *Config) { c.Listen[1].Proxy = make([]Prefix, 1) }, "listen[1].proxy_from[0]"},
		"empty source":          {func(c *Config) { c.Delivery.Source = make([]Addr, 1) }, "delivery.source[0]"},
		"expire at first retry": {func(c *Config) { c.Queue.Expire = c.Queue.Retry[0] }, "queue.expire"},
		"expire after it":       {func(c *Config) { c.Queue.Expire = c.Queue.Retry[0] + 1 }, ""},
		"port 65535":            {func(c *Config) { c.Delivery.Port = 65535 }, ""},
		"key without cert":      {func(c *Config) { c.TLS.Key = "k" }, "tls.cert"},
		"header in notices":     {func(c *Config) { c.Notices.From = "a@example.com\r\nBcc: b@example.com" }, "notices.from"},

		"any free port twice": {listen("127.0.0.1:0", "127.0.0.1:0"), ""},
		"two addresses":       {listen("127.0.0.1:25", "127.0.0.2:25", "[::1]:25"), ""},
		"two ports":           {listen(":25", ":26"), ""},
		"same":                {listen("127.0.0.1:25", "127.0.0.1:25"), "listen[1].address"},
		"same otherwise":      {listen("[::1]:25", "[0:0::1]:025"), "listen[1].address"},
		"same mapped":         {listen("127.0.0.1:25", "[::ffff:127.0.0.1]:25"), "listen[1].address"},
		"same name":           {listen("localhost:25", "LocalHost:25"), "listen[1].address"},
		"all and one":         {listen("0.0.0.0:25", "192.0.2.1:25"), "listen[1].address"},
		"one and all":         {listen("192.0.2.1:25", "[::]:25"), "listen[1].address"},
		"third like first":    {listen(":1", ":2", ":1"), "listen[2].address"},
		"negative port":       {listen(":-1"), "listen[0].address"},
		"bad host":            {listen("a b:25"), "listen[0].address"},

		"metrics off":           {metrics(""), ""},
		"metrics":               {metrics("127.0.0.1:9525"), ""},
		"metrics on any port":   {metrics("127.0.0.1:0"), ""},
		"metrics without port":  {metrics("127.0.0.1"), "http.listen"},
		"metrics on SMTP":       {metrics("127.0.0.1:587"), "http.listen"},
		"metrics on SMTP twice": {metrics(":2525"), "http.listen"},

		"name":             {hostname("mx-1.Example.com"), ""},
		"label of 63":      {hostname(strings.Repeat("a", 63) + ".example"), ""},
		"label of 64":      {hostname(strings.Repeat("a", 64) + ".example"), "hostname"},
		"name of 253":      {hostname(strings.Repeat("abcdefg.", 31) + "abcde"), ""},
		"name of 254":      {hostname(strings.Repeat("abcdefg.", 31) + "abcdef"), "hostname"},
		"last dot":         {hostname("mx.example.com."), "hostname"},
		"address as name":  {hostname("192.0.2.1"), "hostname"},
		"control in name":  {hostname("mx\r\n.example.com"), "hostname"},
		"node of 65":       {func(c *Config) { c.Node = strings.Repeat("n", 65) }, "node"},
		"node with a path": {func(c *Config) { c.Node = "../n" }, "node"},

		"the authority's port and links":             {acmeAt(":80", "", "127.0.0.1:8080"), ""},
		"the authority's port shared with links":     {acmeAt("127.0.0.1:8080", "", "127.0.0.1:8080"), ""},
		"the authority's port taken by links":        {acmeAt(":8443", "", ":8443"), "tls.acme_http"},
		"the authority's TLS port taken by links":    {acmeAt("", ":443", "0.0.0.0:443"), "tls.acme_tls"},
		"the authority's port taken by the same":     {acmeAt(":8080", "", "127.0.0.1:8080"), "tls.acme_http"},
		"orders of certificates":                     {func(c *Config) { c.TLS.Orders = -1 }, "tls.acme_orders"},
		"the authority's port, where it is not used": {func(c *Config) { c.TLS.ALPN01, c.Tracking.Listen = ":443", ":443" }, ""},

		"host with underscore": {func(c *Config) { c.Route = []Route{{Domain: "a", To: "mail_sink:25"}} }, ""},
		"subdomains and itself": {func(c *Config) {
			c.Route = []Route{{Domain: "a.example"}, {Domain: ".a.example"}, {Domain: "*"}}
		}, ""},
		"smart host": {func(c *Config) {
			c.Route = []Route{{Domain: "*", To: "smtp.example.com:587", User: "u", Password: "p"}}
		}, ""},
		"password in the clear": {func(c *Config) {
			c.Route = []Route{{Domain: "*", To: "smtp.example.com:587", TLS: "none", User: "u", Password: "p"}}
		}, "route[0].tls"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Default()
			c.change(&cfg)
			err := cfg.Validate()
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			ps, _ := err.(Problems)
			if len(ps) != 1 || ps[0].Key != c.want {
				t.Fatalf("got %v, want one problem with %s", err, c.want)
			}
			if !strings.HasPrefix(err.Error(), c.want+": ") {
				t.Errorf("%q does not begin with the key", err)
			}
		})
	}
}

// acmeAt has the authority ask at these ports, and links on that.
func acmeAt(http, tls, links string) func(*Config) {
	return func(c *Config) {
		c.TLS.ACME, c.TLS.HTTP01, c.TLS.ALPN01, c.Tracking.Listen = true, http, tls, links
	}
}
