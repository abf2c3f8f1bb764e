package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxNode is the longest name of a node, in bytes.
const maxNode = 64

// Validate finds what is wrong with values that could be read, each by itself
// and with the others. The error is of type Problems, without file and lines.
func (c *Config) Validate() error {
	var v checker
	v.relay(c)
	v.listeners(c.Listen)
	v.http(c)
	v.limits(c)
	v.oneOf("policy.senders", c.Policy.Senders, "verified", "any")
	v.oneOf("policy.dns", c.Policy.DNS, "warn", "refuse")
	v.count("policy.sandbox_daily", c.Policy.Sandbox, 0, math.MaxInt32)
	v.queue(&c.Queue)
	v.delivery(&c.Delivery)
	v.resolvers(&c.DNS)
	v.receivers(c)
	v.acme(&c.TLS)
	v.acmePorts(c)
	v.service(c)
	v.routes(c.Route)
	v.alerts(&c.Alerts)
	return v.problems.err()
}

type checker struct{ problems Problems }

func (v *checker) add(key, format string, args ...any) {
	v.problems = append(v.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

// clash adds what is wrong with key beside with.
func (v *checker) clash(key, with, format string, args ...any) {
	v.problems = append(v.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...), with: with})
}

// fail adds err, if there is one.
func (v *checker) fail(key string, err error) {
	if err != nil {
		v.add(key, "%s", err)
	}
}

// oneOf allows these texts alone.
func (v *checker) oneOf(key, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	all := make([]string, len(allowed))
	for i, a := range allowed {
		all[i] = strconv.Quote(a)
	}
	want := all[0]
	if last := len(all) - 1; last > 0 {
		want = strings.Join(all[:last], ", ") + " or " + all[last]
	}
	v.add(key, "%s is not known; want %s", quote(value), want)
}

func (v *checker) count(key string, n, least, most int) {
	switch {
	case n < least:
		v.add(key, "%d is too small; want %d or more", n, least)
	case n > most:
		v.add(key, "%d is too large; want %d or less", n, most)
	}
}

func (v *checker) size(key string, n Size) {
	if n <= 0 {
		v.add(key, "%q is too small; want %s", n, wantSize)
	}
}

func (v *checker) positive(key string, d Duration) {
	if d <= 0 {
		v.add(key, "%q is too short; want %s", d, wantDuration)
	}
}

// zeroOrMore is for durations that may be 0. Negative ones come only from
// programs: text can't say them.
func (v *checker) zeroOrMore(key string, d Duration) {
	if d < 0 {
		v.add(key, "%q is negative; want %s, or 0", d, wantDuration)
	}
}

// maxHelp leaves room for the rest of a reply in its line (RFC 5321 section
// 4.5.3.1.5: 512 bytes).
const maxHelp = 120

func (v *checker) relay(c *Config) {
	if c.Hostname != "" {
		v.fail("hostname", checkName(c.Hostname))
	}
	if c.Node != "" && (len(c.Node) > maxNode || strings.IndexFunc(c.Node, func(r rune) bool { return !isNameRune(r) }) >= 0) {
		v.add("node", "%s is not a name for a node; want up to %d letters, digits, dots, hyphens or underscores", quote(c.Node), maxNode)
	}
	v.fail("store", c.Store.check())
	v.zeroOrMore("store_wait", c.Patience)
	if u, err := url.Parse(c.Help); c.Help != "" && (err != nil || u.Host == "" || u.Fragment != "" || len(c.Help) > maxHelp || strings.ContainsFunc(c.Help, func(r rune) bool { return r <= ' ' || r >= 0x7f })) {
		v.add("help", "%s is not the address of a page; want one such as \"https://relay.example.com/replies\", up to %d characters and without a #", quote(c.Help), maxHelp)
	}
	switch {
	case c.TLS.Cert != "" && c.TLS.Key == "":
		v.clash("tls.key", "tls.cert", "missing; a certificate needs its private key")
	case c.TLS.Cert == "" && c.TLS.Key != "":
		v.clash("tls.cert", "tls.key", "missing; a private key needs its certificate")
	}
	if from := c.Notices.From; from != "" {
		if a, err := mail.ParseAddress(from); err != nil || a.Address != from {
			v.add("notices.from", `%s is not an address; want it bare, such as "postmaster@example.com"`, quote(from))
		}
	}
	v.zeroOrMore("notices.gather", c.Notices.Gather)
	v.zeroOrMore("notices.delay_warning", c.Notices.Delay)
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "text", "json")
}

func (v *checker) listeners(listen []Listener) {
	if len(listen) == 0 {
		v.add("listen", "no port at all; want at least one [[listen]]")
	}
	for i := range listen {
		l, at := &listen[i], index("listen", i)
		if l.Mode != "" {
			v.oneOf(at+".mode", l.Mode, "starttls", "tls", "plain", "feedback")
		}
		if l.Mode == "feedback" && l.PlainAuth {
			v.add(at+".plain_auth", "a listener for feedback takes no logins")
		}
		if l.MinTLS != "" {
			v.oneOf(at+".min_tls", l.MinTLS, "1.0", "1.1", "1.2", "1.3")
		}
		v.networks(at+".proxy_from", l.Proxy, "anybody could then pass for any address; name the load balancers")
		if l.Name != "" && slices.ContainsFunc(listen[:i], func(o Listener) bool { return o.Name == l.Name }) {
			v.add(at+".name", "%s is the name of two listeners", quote(l.Name))
		}
		host, port, err := splitAddress(l.Address, 0)
		if err != nil {
			v.fail(at+".address", err)
			continue
		}
		for _, other := range listen[:i] {
			h, p, err := splitAddress(other.Address, 0)
			// Port 0 is whichever one is free.
			if err == nil && port != 0 && p == port && overlap(h, host) {
				v.add(at+".address", "%q is taken by the listener on %q", l.Address, other.Address)
				break
			}
		}
	}
}

// http allows a port of its own for each.
func (v *checker) http(c *Config) {
	v.port(c, "http.listen", c.HTTP.Listen)
	v.port(c, "api.listen", c.API.Listen)
	v.port(c, "tracking.listen", c.Tracking.Listen)
	for _, p := range []struct{ key, address, with, other string }{{"api.listen", c.API.Listen, "http.listen", c.HTTP.Listen},
		{"tracking.listen", c.Tracking.Listen, "http.listen", c.HTTP.Listen}, {"tracking.listen", c.Tracking.Listen, "api.listen", c.API.Listen}} {
		if _, port, err := splitAddress(p.address, 0); err == nil && port != 0 && p.address == p.other {
			v.clash(p.key, p.with, "%q is taken by %s", p.address, p.with)
		}
	}
	if !isBase(c.API.URL) {
		v.add("api.url", "%s is not where an API is; want one such as \"https://relay.example.com:8025\", without a path", quote(c.API.URL))
	}
	v.count("api.streams", c.API.Streams, 1, 900) // of a thousand connections
	v.count("api.account_streams", c.API.AccountStreams, 1, 900)
	v.networks("api.proxy_from", c.API.Proxy, "anybody could then pass for any address; name the proxies")
	v.tracking(&c.Tracking)
}

func (v *checker) tracking(t *Tracking) {
	if !isBase(t.URL) {
		v.add("tracking.url", "%s is not where links lead to; want one such as \"https://track.example.com\", without a path", quote(t.URL))
	}
	v.networks("tracking.proxy_from", t.Proxy, "anybody could then pass for any address; name the proxies")
	v.positive("tracking.links_for", t.Life)
	v.oneOf("tracking.do_not_track", t.Private, "anonymous", "ignore", "record")
	v.zeroOrMore("tracking.machine_within", t.Early)
}

// isBase tells whether s is empty, or the address of a web server without a path.
func isBase(s string) bool {
	u, err := url.Parse(s)
	return s == "" || err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.Fragment == "" && u.User == nil
}

func (v *checker) port(c *Config, key, address string) {
	if address == "" {
		return
	}
	host, port, err := splitAddress(address, 0)
	if err != nil {
		v.fail(key, err)
		return
	}
	for i := range c.Listen {
		h, p, err := splitAddress(c.Listen[i].Address, 0)
		if err == nil && port != 0 && p == port && overlap(h, host) {
			v.clash(key, index("listen", i)+".address", "%q is taken by the listener on %q", address, c.Listen[i].Address)
			return
		}
	}
}

// overlap reports whether one port can't be had on both hosts. All addresses
// are meant by "", 0.0.0.0 and ::, see net.Listen.
func overlap(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if a == "" || b == "" || errX == nil && x.IsUnspecified() || errY == nil && y.IsUnspecified() {
		return true
	}
	if errX == nil && errY == nil {
		return x.Unmap() == y.Unmap()
	}
	return strings.EqualFold(a, b)
}

// networks refuses lists that hold everybody.
func (v *checker) networks(key string, list []Prefix, why string) {
	for i, p := range list {
		switch n := netip.Prefix(p); {
		case !n.IsValid():
			v.add(index(key, i), "empty; want %s", wantPrefix)
		case n.Bits() == 0:
			v.add(index(key, i), "%q is everybody: %s", p, why)
		}
	}
}

func (v *checker) limits(c *Config) {
	l := &c.Limits
	v.size("limits.message_size", l.MessageSize)
	for _, n := range []struct {
		key   string
		value int
	}{
		{"recipients", l.Recipients},
		{"messages_per_session", l.Messages},
		{"commands_per_message", l.Commands},
		{"errors", l.Errors},
		{"sessions", l.Sessions},
		{"sessions_per_client", l.PerClient},
		{"hops", l.Hops},
	} {
		v.count("limits."+n.key, n.value, 1, math.MaxInt32)
	}
	v.positive("limits.idle", l.Idle)
	v.positive("limits.message_time", l.Message)
	v.positive("limits.session_time", l.Session)

	v.count("login.free", c.Login.Free, 0, math.MaxInt32)
	v.zeroOrMore("login.delay", c.Login.Delay)
	if c.Login.Max < c.Login.Delay {
		v.clash("login.max_delay", "login.delay", "%q is shorter than delay, %q", c.Login.Max, c.Login.Delay)
	}
	v.positive("login.reset", c.Login.Reset)

	for key, d := range map[string]Duration{"retention.log": c.Retain.Log, "retention.content": c.Retain.Content} {
		v.zeroOrMore(key, d)
		if d%day != 0 {
			v.add(key, "%q is not a number of days", d)
		}
	}
}

func (v *checker) queue(q *Queue) {
	v.size("queue.window_bytes", q.WindowBytes)
	v.count("queue.window", q.Window, 1, math.MaxInt32)
	v.count("queue.batch", q.Batch, 1, 100_000)
	v.size("queue.batch_bytes", q.BatchBytes)
	if len(q.Retry) == 0 {
		v.add("queue.retry", `empty; want at least one wait, such as ["5m"]`)
	}
	for i, d := range q.Retry {
		v.positive(index("queue.retry", i), d)
	}
	v.positive("queue.expire", q.Expire)
	if len(q.Retry) > 0 && q.Expire > 0 && q.Expire <= q.Retry[0] {
		v.clash("queue.expire", "queue.retry", "%q is not longer than the first wait in retry, %q: nothing would be tried twice", q.Expire, q.Retry[0])
	}
	v.zeroOrMore("queue.drain", q.Drain)
}

func (v *checker) delivery(d *Delivery) {
	v.count("delivery.port", d.Port, 1, 65535)
	var v4, v6 int
	for i, a := range d.Source {
		key := index("delivery.source", i)
		ip := netip.Addr(a)
		switch {
		case !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast():
			v.add(key, "%q is not an address of this machine", a)
		case ip.Is4():
			v4++
		default:
			v6++
		}
		if v4 > 1 || v6 > 1 {
			v.add(key, "%q is the second of its family; want at most one IPv4 and one IPv6 address", a)
			break
		}
	}
	v.count("delivery.connections", d.Connections, 1, math.MaxInt32)
	v.count("delivery.connections_per_site", d.PerSite, 1, math.MaxInt32)
	v.count("delivery.messages_per_connection", d.PerConn, 1, math.MaxInt32)
	v.zeroOrMore("delivery.idle", d.Idle)
	v.positive("delivery.connect_timeout", d.Connect)
	v.positive("delivery.command_timeout", d.Command)
	v.positive("delivery.data_timeout", d.Data)
	v.positive("delivery.dot_timeout", d.Dot)
}

// service checks what has to do with sending domains.
func (v *checker) service(c *Config) {
	s := &c.Service
	for _, n := range []struct{ key, name string }{{"domain", s.Domain}, {"dkim_zone", s.DKIMZone}, {"return_host", s.ReturnHost},
		{"tracking_host", s.TrackHost}, {"spf_include", s.SPF}} {
		if n.name == "" {
			continue
		}
		// Names that hold records only may begin with an underscore.
		v.fail("service."+n.key, checkName(strings.ReplaceAll(n.name, "_", "x")))
		if !strings.Contains(n.name, ".") {
			v.add("service."+n.key, "%s is not a public name; want one such as \"relay.example.com\"", quote(n.name))
		}
	}
	if s.Selector != "" && (checkName(s.Selector) != nil || len(s.Selector) > 60) {
		v.add("service.dkim_selector", `%s is not a selector; want letters and digits, such as "relay"`, quote(s.Selector))
	}
	for i, a := range s.Addresses {
		if ip := netip.Addr(a); !ip.IsValid() || !ip.IsGlobalUnicast() {
			v.add(index("service.addresses", i), "%q is not an address that mail leaves from", a)
		}
	}
	v.positive("domains.check_every", c.Domains.Every)
	v.zeroOrMore("domains.grace", c.Domains.Grace)
	for i, p := range c.Doctor.Probe {
		v.fail(index("doctor.probe", i), remote(p))
	}
	for i, name := range c.Doctor.Blocklists {
		v.fail(index("doctor.blocklists", i), checkName(strings.ReplaceAll(name, "_", "x")))
	}
	if c.Doctor.Time != "" {
		v.fail("doctor.time_server", remote(c.Doctor.Time))
	}
}

// remote wants host:port of somebody else.
func remote(s string) error {
	host, _, err := splitAddress(s, 1)
	if err == nil && host == "" {
		err = fmt.Errorf("%s names no host", quote(s))
	}
	return err
}

func (v *checker) resolvers(d *DNS) {
	for i, s := range d.Servers {
		key := index("dns.servers", i)
		if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
			v.add(key, "%q has no port; write %q", s, netip.AddrPortFrom(a, 53))
			continue
		}
		host, _, err := splitAddress(s, 1)
		if err == nil && host == "" {
			err = fmt.Errorf(`%s has no address; want one such as "192.0.2.53:53"`, quote(s))
		}
		v.fail(key, err)
	}
	v.positive("dns.timeout", d.Timeout)
}

// receivers checks what they may ask for, and what they are told.
func (v *checker) receivers(c *Config) {
	v.networks("tls_policy.allow_private", c.Asked.Private, "anybody could then make the relay connect to the inside of your network")
	for i := range c.Route {
		if c.Route[i].TLS == "dane" && !(c.Asked.DANE && c.DNS.Trusted) {
			v.clash(index("route", i)+".tls", "dns.trusted", `"dane" takes dns.trusted, and tls_policy.dane: nothing would ever be sent`)
		}
	}
	v.networks("webhooks.allow_private", c.Webhooks.Private, "anybody could then make the relay connect to the inside of your network")
	if c.Suppress.Soft < 0 {
		v.add("suppression.soft_bounces", "%d is less than nothing", c.Suppress.Soft)
	}
	v.positive("suppression.soft_window", c.Suppress.Window)
	v.zeroOrMore("suppression.soft_for", c.Suppress.For)
	v.size("suppression.filter_bytes", c.Suppress.Filter)
	v.positive("counts.hours", c.Counts.Hours)
	v.positive("counts.keep", c.Counts.Keep)
	v.positive("counts.half_life", c.Counts.HalfLife)
	v.positive("webhooks.timeout", c.Webhooks.Timeout)
	v.positive("webhooks.give_up", c.Webhooks.GiveUp)
	v.address("tls_reports.from", c.Reports.From)
	v.address("tls_reports.contact", c.Reports.Contact)
}

// alertKinds are the names of what people can be alerted of.
func alertKinds() []string {
	return []string{"bounce-rate", "complaint-rate", "deferral-spike", "provider-block", "quota", "domain-failing", "certificate-expiring", "webhook-failing", "blocklisted", "disk-low"}
}

// alerts checks who is told of what, and when.
func (v *checker) alerts(a *Alerts) {
	for i, to := range a.To {
		v.address(index("alerts.to", i), to)
	}
	v.address("alerts.from", a.From)
	if u, err := url.Parse(a.Webhook); a.Webhook != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.Fragment != "") {
		v.add("alerts.webhook", `%s is not an address to post to; want one such as "https://example.com/alerts"`, quote(a.Webhook))
	}
	if a.Webhook != "" && a.Secret == "" {
		v.add("alerts.webhook_secret_file", "missing; requests to alerts.webhook are signed")
	}
	for i, kind := range a.Off {
		v.oneOf(index("alerts.off", i), kind, alertKinds()...)
	}
	for _, d := range []struct {
		key string
		d   Duration
	}{{"check_every", a.Every}, {"quiet", a.Quiet}, {"keep", a.Keep}, {"certificate_warning", a.CertWarning}, {"webhook_failing", a.WebhookFailing}, {"blocklist_every", a.BlocklistEvery}} {
		v.positive("alerts."+d.key, d.d)
	}
	v.zeroOrMore("alerts.remind", a.Remind)
	if a.CertCritical > a.CertWarning {
		v.clash("alerts.certificate_critical", "alerts.certificate_warning", "%q is longer than certificate_warning, %q", a.CertCritical, a.CertWarning)
	}
	for _, r := range []struct {
		name              string
		warning, critical Percent
		least             int
	}{{"bounce", a.BounceWarning, a.BounceCritical, a.BounceLeast}, {"complaint", a.ComplaintWarning, a.ComplaintCritical, a.ComplaintLeast},
		{"deferral", a.DeferralWarning, a.DeferralCritical, a.DeferralLeast}, {"block", a.BlockWarning, a.BlockCritical, a.BlockLeast}} {
		if r.warning <= 0 {
			v.add("alerts."+r.name+"_warning", "%q is too small: everything would be an incident", r.warning)
		}
		if r.critical < r.warning {
			v.clash("alerts."+r.name+"_critical", "alerts."+r.name+"_warning", "%q is less than %s_warning, %q", r.critical, r.name, r.warning)
		}
		v.count("alerts."+r.name+"_least", r.least, 1, math.MaxInt32)
	}
}

// address allows a bare mail address, or none.
func (v *checker) address(key, s string) {
	if a, err := mail.ParseAddress(s); s != "" && (err != nil || a.Address != s) {
		v.add(key, `%s is not an address; want it bare, such as "postmaster@example.com"`, quote(s))
	}
}

func (v *checker) acme(t *TLS) {
	v.address("tls.acme_email", t.Email)
	if u, err := url.Parse(t.Directory); t.Directory != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		v.add("tls.acme_directory", `%s is not the address of a directory; want one such as "https://acme.example.com/directory"`, quote(t.Directory))
	}
	for i, name := range t.Names {
		err := checkName(name)
		if err == nil && !strings.Contains(name, ".") {
			err = fmt.Errorf("%s has no dot: no authority knows it", quote(name))
		}
		v.fail(index("tls.acme_names", i), err)
	}
	for _, at := range []struct{ key, address string }{{"tls.acme_http", t.HTTP01}, {"tls.acme_tls", t.ALPN01}} {
		if at.address != "" {
			_, _, err := splitAddress(at.address, 0)
			v.fail(at.key, err)
		}
	}
	if t.ACME && t.HTTP01 == "" && t.ALPN01 == "" {
		v.add("tls.acme", `the authority must be able to ask here: set acme_http = ":80", or acme_tls = ":443"`)
	}
}

// acmePorts keeps the authority's ports apart from that of links.
func (v *checker) acmePorts(c *Config) {
	v.count("tls.acme_orders", c.TLS.Orders, 0, 1000)
	host, port, err := splitAddress(c.Tracking.Listen, 0)
	if err != nil || port == 0 || !c.TLS.ACME {
		return
	}
	for _, at := range []struct{ key, address, advice string }{
		{"tls.acme_http", c.TLS.HTTP01, "where that has TLS the authority must have port 80 of its own, such as acme_http = \":80\"; where it has none, name the same address in both"},
		{"tls.acme_tls", c.TLS.ALPN01, "have the authority ask at port 80 instead: acme_http = \":80\", without acme_tls"}} {
		if h, p, err := splitAddress(at.address, 0); err == nil && p == port && overlap(h, host) && !(at.key == "tls.acme_http" && c.SharedPort()) {
			v.clash(at.key, "tracking.listen", "%q is taken by tracking.listen; %s", at.address, at.advice)
		}
	}
}

func (v *checker) routes(routes []Route) {
	for i := range routes {
		r, at := &routes[i], index("route", i)
		if err := checkDomain(r.Domain); err != nil {
			v.fail(at+".domain", err)
		} else if slices.ContainsFunc(routes[:i], func(o Route) bool { return strings.EqualFold(o.Domain, r.Domain) }) {
			v.add(at+".domain", "%q has two routes", r.Domain)
		}
		v.route(r, at)
		v.networks(at+".allow_private", r.Private, "name the networks that this route leads to")
	}
}

func (v *checker) route(r *Route, at string) {
	toMX := r.To == "" || r.To == "mx"
	if !toMX {
		host, _, err := splitAddress(r.To, 1)
		if err != nil || host == "" {
			v.add(at+".to", `%s is not where mail can go; want "mx" or host:port, such as "smtp.example.com:587"`, quote(r.To))
		}
	}
	if r.TLS != "" {
		v.oneOf(at+".tls", r.TLS, "opportunistic", "require", "dane", "unpoliced", "implicit", "none")
	}
	if r.TLS == "implicit" && toMX {
		v.add(at+".tls", `"implicit" is for to = host:port; an MX speaks STARTTLS`)
	}
	if r.Password != "" && r.User == "" {
		v.add(at+".user", "missing; a password_file needs its user")
	}
	if r.User == "" {
		return
	}
	if r.Password == "" {
		v.add(at+".password_file", "missing; a user needs a file with the password")
	}
	if toMX {
		v.add(at+".user", "a password is sent to one server only: set to = host:port")
	} else if r.TLS == "none" || r.TLS == "opportunistic" || r.TLS == "unpoliced" {
		v.add(at+".tls", `%q would show the password to others; with a user, want "require", "dane" or "implicit"`, r.TLS)
	}
}

// splitAddress reads host:port with a port in digits. The host may be empty,
// an IP address or a name.
func splitAddress(s string, least int) (host string, port int, err error) {
	if s == "" {
		return "", 0, errors.New(`missing; want host:port, or :port for all addresses`)
	}
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%s is not host:port", quote(s))
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || int(n) < least {
		return "", 0, fmt.Errorf("%s is not host:port; the port is a number from %d to 65535", quote(s), least)
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil && checkName(strings.ReplaceAll(host, "_", "x")) != nil {
			return "", 0, fmt.Errorf("%s is not host:port; the host is an address or a name", quote(s))
		}
	}
	return host, int(n), nil
}

// checkDomain allows what a route may be for.
func checkDomain(s string) error {
	if s == "" {
		return errors.New(`missing; want "example.com", ".example.com" or "*"`)
	}
	if s == "*" {
		return nil
	}
	if rest, ok := strings.CutPrefix(s, "*."); ok && checkName(rest) == nil {
		return fmt.Errorf(`%s: write %q for the subdomains`, quote(s), "."+rest)
	}
	return checkName(strings.TrimPrefix(s, "."))
}

// checkName allows host names as RFC 1123 section 2.1 has them: the letters,
// digits and hyphens that go into EHLO (RFC 5321 section 4.1.2).
func checkName(s string) error {
	bad := func(why string) error { return fmt.Errorf("%s is not a host name: %s", quote(s), why) }
	if s == "" {
		return bad("it is empty")
	}
	if len(s) > 253 {
		return bad("it is longer than 253 letters")
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return bad("a part between dots is empty")
		case len(label) > 63:
			return bad("a part is longer than 63 letters")
		case label[0] == '-' || label[len(label)-1] == '-':
			return bad("a part begins or ends with a hyphen")
		}
		for _, r := range label {
			switch {
			case r >= 0x80:
				return bad("write it in its ASCII form, xn--…")
			case r == '_' || r == '.' || !isNameRune(r):
				return bad("want letters, digits and hyphens between dots")
			}
		}
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return bad("it is an address")
	}
	return nil
}

func isNameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '-' || r == '_'
}
