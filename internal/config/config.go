// Package config holds the settings of a relay: their names, defaults and
// explanations, read from a TOML file.
package config

import "net/netip"

// Config is everything that can be set. Start from Default, let Load or the
// program change it, then call Resolve, which fills what was left empty.
//
// The tag doc explains a key to people: Print writes it beside the key.
type Config struct {
	Hostname string     `toml:"hostname" doc:"Name of this relay: in the greeting, EHLO, Received and Message-ID. It should resolve to the address that mail leaves from, and back. Empty: the machine's own name."`
	Data     string     `toml:"data" doc:"Folder for the database, the certificate and the control socket. Empty: the environment's POSTRIDER_DATA, or /var/lib/postrider for root, else postrider in the user's state folder."`
	Store    Store      `toml:"store" doc:"Where mail is kept: \"sqlite\" for a file in the data folder, or a PostgreSQL, which several nodes may share: \"postgres://user@host/database\", or keywords (\"host=… dbname=…\"). Its password is best left to the environment's PGPASSWORD or to passfile=…; it is never printed. See docs/cluster.md."`
	Patience Duration   `toml:"store_wait" doc:"How long a start waits for a PostgreSQL that does not answer, before it gives up. Mail that comes meanwhile is not taken."`
	Master   string     `toml:"master_key" doc:"File with the master key, 64 hexadecimal digits, by which secrets in the store (private DKIM keys) are sealed. All nodes need the same one. Empty: master.key in the data folder; the first start of all makes it. Keep a copy apart from the backups of the store."`
	Node     string     `toml:"node" doc:"Name of this node among those that share a store. Empty: the host name."`
	Help     string     `toml:"help" doc:"Address of a page that explains refusals, such as your copy of docs/replies.md. Each refusal then ends with a link to its enhanced code there. Empty: no links."`
	Listen   []Listener `toml:"listen" doc:"Ports that take mail. Naming one replaces all the default ones."`
	TLS      TLS        `toml:"tls" doc:"The relay's own certificate."`
	Limits   Limits     `toml:"limits" doc:"What a client may do."`
	Login    Login      `toml:"login" doc:"How failed logins are slowed."`
	Policy   Policy     `toml:"policy" doc:"In whose name mail may be sent, and what becomes of mail that should not be. See docs/accounts.md."`
	Queue    Queue      `toml:"queue" doc:"What is kept in memory, and how long mail is tried."`
	Delivery Delivery   `toml:"delivery" doc:"How mail leaves."`
	DNS      DNS        `toml:"dns" doc:"Name resolution for deliveries."`
	Asked    Asked      `toml:"tls_policy" doc:"What receivers may ask of TLS before they get mail. See docs/tls.md."`
	Reports  Reports    `toml:"tls_reports" doc:"Daily reports to receivers that ask for them: how TLS with their servers went (RFC 8460)."`
	Route    []Route    `toml:"route" doc:"Where mail for a domain goes. The most exact domain wins; without a route a domain goes to its MX."`
	Suppress Suppress   `toml:"suppression" doc:"Which failures keep an address from further mail of the account. See docs/accounts.md."`
	Feedback Feedback   `toml:"feedback" doc:"How what receivers say is understood."`
	Notices  Notices    `toml:"notices" doc:"Delivery status notifications to senders (RFC 3464)."`
	Service  Service    `toml:"service" doc:"The relay's own place in the DNS, which the records of sending domains lead to. \"postrider domain zone\" prints what must stand there. See docs/domains.md."`
	Retain   Retention  `toml:"retention" doc:"For how long things are kept, where the account and its plan do not say. See docs/log.md."`
	Domains  Domains    `toml:"domains" doc:"How sending domains are watched."`
	Doctor   Doctor     `toml:"doctor" doc:"What \"postrider doctor\" asks of others."`
	API      API        `toml:"api" doc:"The HTTP API (docs/api.md), for programs and for the command line from afar. On the relay's own machine the control socket serves it in any case."`
	Counts   Counts     `toml:"counts" doc:"Counts for reports and scores. See docs/reports.md."`
	Webhooks Webhooks   `toml:"webhooks" doc:"How events are sent to programs of the accounts. See docs/webhooks.md."`
	Tracking Tracking   `toml:"tracking" doc:"Links in mail that lead to this relay: opens, clicks, unsubscribing. See docs/tracking.md."`
	Alerts   Alerts     `toml:"alerts" doc:"Who is told when something is wrong, and when. Accounts may set thresholds and channels of their own. See docs/alerts.md."`
	HTTP     HTTP       `toml:"http" doc:"Metrics and health, for who watches the relay."`
	Log      Log        `toml:"log" doc:"The relay's own log, on standard error."`
}

// Listener is one port.
type Listener struct {
	Name      string   `toml:"name" doc:"Name in logs and in the account of a message. Empty: the address."`
	Address   string   `toml:"address" doc:"host:port, or :port for all addresses."`
	Mode      string   `toml:"mode" doc:"starttls: plain until STARTTLS, AUTH only after it. tls: TLS from the first byte. plain: no TLS at all, AUTH in the clear; for devices that know nothing else, on a trusted network. feedback: port 25 of the return host: bounces and complaints about mail that was sent from here, from anybody and without AUTH, and nothing else (docs/feedback.md). Empty: tls on port 465, else starttls."`
	MinTLS    string   `toml:"min_tls" doc:"Lowest TLS version: 1.0, 1.1, 1.2 or 1.3. Below 1.2 only for old devices, on a listener of their own. Empty: 1.2."`
	PlainAuth bool     `toml:"plain_auth" doc:"With mode starttls: take AUTH without TLS too, in the clear; for devices without TLS on the same port as others with it."`
	Proxy     []Prefix `toml:"proxy_from" doc:"Networks of load balancers that send a PROXY header (v1 or v2) first. Others may not send one."`

	// Default says that nobody named this port: where it can't be had, the
	// relay does without it.
	Default bool `toml:"-"`
}

// TLS is the relay's certificate.
type TLS struct {
	Cert string `toml:"cert" doc:"File with the certificate chain, PEM. Empty: a self-signed certificate is made in the data folder."`
	Key  string `toml:"key" doc:"File with the private key, PEM."`

	ACME      bool     `toml:"acme" doc:"Get the certificate by ACME (RFC 8555) and renew it; all nodes share it. Until it is there, cert and key serve, or a self-signed one. Setting it says yes to the terms of the authority."`
	Email     string   `toml:"acme_email" doc:"Address that the authority may write to."`
	Directory string   `toml:"acme_directory" doc:"Address of the authority's ACME directory. Empty: that of Let's Encrypt."`
	Names     []string `toml:"acme_names" doc:"Names of the certificate; port 80 or 443 of each must lead here. Empty: the hostname, and service.tracking_host where links are served with TLS."`
	HTTP01    string   `toml:"acme_http" doc:"host:port for the authority's HTTP requests (HTTP-01), which come to port 80. It may be tracking.listen where that has no TLS. Empty: none."`
	ALPN01    string   `toml:"acme_tls" doc:"host:port for its TLS connections (TLS-ALPN-01), which come to port 443; needed only where HTTP-01 is not possible. Where links are served on port 443 it is not: use acme_http. Empty: none."`
	Orders    int      `toml:"acme_orders" doc:"How many certificates all nodes together ask for in an hour for tracking hosts of domains, where links are served with TLS (tracking.own_hosts); the relay's own do not count. 0: none are asked for."`
	ACMERoots string   `toml:"acme_ca" doc:"File with certificates to trust for the directory itself, PEM. Empty: those of the system."`
}

// Limits bound a session.
type Limits struct {
	MessageSize Size     `toml:"message_size" doc:"Largest message, announced as SIZE."`
	Recipients  int      `toml:"recipients" doc:"Most recipients of one message."`
	Messages    int      `toml:"messages_per_session" doc:"Most messages in one session; then 421."`
	Commands    int      `toml:"commands_per_message" doc:"Most commands without a message coming of them, not counting accepted recipients; then 421."`
	Errors      int      `toml:"errors" doc:"Most refused commands in a session, not counting recipients; then 421."`
	Idle        Duration `toml:"idle" doc:"Longest wait for the client's next line."`
	Message     Duration `toml:"message_time" doc:"Longest time for the content of one message."`
	Session     Duration `toml:"session_time" doc:"Longest session."`
	Sessions    int      `toml:"sessions" doc:"Most sessions at once; more are answered 421."`
	PerClient   int      `toml:"sessions_per_client" doc:"Most sessions at once from one address; more are answered 421."`
	Hops        int      `toml:"hops" doc:"Most Received headers before a message counts as looping."`
}

// Policy is what holds for accounts that have no rule of their own.
type Policy struct {
	Senders string `toml:"senders" doc:"verified: an account sends in the name of its verified domains and senders; anything else goes to its own verified addresses only (the sandbox). any: in anybody's name, for a relay whose credentials all belong to its owner."`
	DNS     string `toml:"dns" doc:"What becomes of mail in the name of a domain whose records are broken. warn: it goes, and its first event tells. refuse: it is refused."`
	Sandbox int    `toml:"sandbox_daily" doc:"Most recipients a day (UTC) of what an account sends in the sandbox. 0: there is no sandbox, what is not verified is refused."`
}

// Login slows guessing.
type Login struct {
	Free  int      `toml:"free" doc:"Failed logins of one address, or for one user, before answers are delayed."`
	Delay Duration `toml:"delay" doc:"First delay; it doubles with each further failure."`
	Max   Duration `toml:"max_delay" doc:"Longest delay."`
	Reset Duration `toml:"reset" doc:"Failures are forgotten after this time without one."`
}

// Queue bounds memory and time.
type Queue struct {
	WindowBytes Size       `toml:"window_bytes" doc:"Most memory for content of messages that wait for delivery; the rest waits in the store."`
	Window      int        `toml:"window" doc:"Most deliveries that wait in memory; the rest waits in the store."`
	Batch       int        `toml:"batch" doc:"Most messages in one commit."`
	BatchBytes  Size       `toml:"batch_bytes" doc:"Most bytes in one commit."`
	Retry       []Duration `toml:"retry" doc:"Waits before the second, third, … attempt; the last one repeats. Each is varied by a tenth at random."`
	Expire      Duration   `toml:"expire" doc:"How long a delivery is tried before it is given up."`
	Drain       Duration   `toml:"drain" doc:"How long a shutdown waits for attempts that are under way."`
}

// Delivery is how mail leaves.
type Delivery struct {
	Port        int      `toml:"port" doc:"Port of receivers that are found by MX."`
	Source      []Addr   `toml:"source" doc:"Local addresses that mail leaves from, one per family. Empty: the system chooses."`
	Connections int      `toml:"connections" doc:"Most connections at once."`
	PerSite     int      `toml:"connections_per_site" doc:"Most connections at once to one receiving service."`
	PerConn     int      `toml:"messages_per_connection" doc:"Most messages over one connection."`
	Idle        Duration `toml:"idle" doc:"How long a connection is kept open for the next message."`
	Connect     Duration `toml:"connect_timeout" doc:"Longest wait for a connection, per address."`
	Command     Duration `toml:"command_timeout" doc:"Longest wait for the reply to EHLO, MAIL or RCPT (RFC 5321 section 4.5.3.2: 5 minutes)."`
	Data        Duration `toml:"data_timeout" doc:"Longest stall while content is sent (RFC 5321: 3 minutes)."`
	Dot         Duration `toml:"dot_timeout" doc:"Longest wait for the reply to the content (RFC 5321: 10 minutes)."`
}

// DNS says whom to ask.
type DNS struct {
	Servers []string `toml:"servers" doc:"address:port of resolvers. Empty: those of /etc/resolv.conf."`
	Timeout Duration `toml:"timeout" doc:"Longest wait for one answer."`
	Trusted bool     `toml:"trusted" doc:"The resolvers validate DNSSEC, and nobody can meddle with the way to them (best on this machine): what they say they have validated is believed. DANE needs it."`
}

// Asked is what receivers may ask of TLS.
type Asked struct {
	DANE    bool     `toml:"dane" doc:"Keep to TLSA records of mail servers (RFC 7672). It takes dns.trusted."`
	STS     bool     `toml:"mta_sts" doc:"Keep to MTA-STS policies of domains (RFC 8461)."`
	Private []Prefix `toml:"allow_private" doc:"Private or loopback networks that policies may be fetched from, and reports be posted to."`
	CA      string   `toml:"ca" doc:"File with certificates to trust for that, PEM. Empty: those of the system."`
}

// Reports are what receivers are told of TLS.
type Reports struct {
	Send         bool   `toml:"send" doc:"Send them."`
	From         string `toml:"from" doc:"Address that they come from. Empty: postmaster at service.domain; without such a domain none are sent."`
	Organization string `toml:"organization" doc:"Who reports. Empty: service.domain."`
	Contact      string `toml:"contact" doc:"Address for questions. Empty: from."`
}

// Route sends mail for a domain somewhere.
type Route struct {
	Domain   string   `toml:"domain" doc:"example.com, .example.com for its subdomains, or * for every domain."`
	To       string   `toml:"to" doc:"mx: to the domain's MX. host:port: to this server, without MX look-up. Empty: mx."`
	TLS      string   `toml:"tls" doc:"opportunistic: when offered, whatever the certificate; what the receiver asks for (DANE, MTA-STS) holds. require: TLS and a certificate that verifies, else the mail waits. dane: only to servers whose certificate DANE proves. unpoliced: when offered, whatever the receiver asks for. implicit: as require, TLS from the first byte (port 465). none: never. Empty: require with a user, else opportunistic."`
	User     string   `toml:"user" doc:"User name for AUTH at a smart host. AUTH is only sent over TLS."`
	Password string   `toml:"password_file" doc:"File with the password for AUTH, in its first line."`
	CA       string   `toml:"ca" doc:"File with certificates to trust for this route, PEM. Empty: those of the system."`
	Private  []Prefix `toml:"allow_private" doc:"Private or loopback networks that this route may deliver to. A host:port with a literal address allows that address by itself."`
}

// Suppress is whom failures suppress.
type Suppress struct {
	Hard   bool     `toml:"hard_bounces" doc:"An address that is certainly dead is suppressed at once, with the reason bounce."`
	Soft   int      `toml:"soft_bounces" doc:"So many failures that may pass, on different days within soft_window and with no delivery between, suppress an address, with the reason soft-bounce. 0: never."`
	Window Duration `toml:"soft_window" doc:"How long such a failure counts."`
	For    Duration `toml:"soft_for" doc:"How long a soft-bounce suppression holds; then the address gets mail again. 0: until somebody removes it."`
	Filter Size     `toml:"filter_bytes" doc:"Most memory to know without asking the store that an address is not suppressed; twice that while the lists are read. 2 bytes for each suppression there is do; with less the store is asked more often."`
}

// Feedback is how replies are understood.
type Feedback struct {
	Rules string `toml:"rules" doc:"File with rules of your own for replies of receivers, asked before the built-in ones and read again when it changes; see docs/classification.md. Empty: none."`
}

// Retention is for how long things are kept.
type Retention struct {
	Log     Duration `toml:"log" doc:"Messages, deliveries and events that are final: what the log is searched for. Whole days; 0: for ever."`
	Content Duration `toml:"content" doc:"Content of messages that are archived; all other content goes with the last delivery. Whole days; 0: for ever."`
}

// Notices are DSNs.
type Notices struct {
	From   string   `toml:"from" doc:"Address in the From header of notices. Empty: MAILER-DAEMON at the hostname."`
	Gather Duration `toml:"gather" doc:"How long a notice waits for further failures of the same message."`
	Delay  Duration `toml:"delay_warning" doc:"A sender is told when a delivery is late by this much. 0: never."`
}

// Service names what the records of sending domains lead to.
type Service struct {
	Domain     string `toml:"domain" doc:"Public domain of this relay, in a zone of yours; all nodes have the same. Empty: the hostname, if it has a dot."`
	DKIMZone   string `toml:"dkim_zone" doc:"Name that delegated DKIM keys stand below. Empty: dkim. and the domain."`
	ReturnHost string `toml:"return_host" doc:"Host that bounces come back to: return-path hosts are aliases of it. Empty: bounce. and the domain."`
	TrackHost  string `toml:"tracking_host" doc:"Host that tracking hosts are aliases of. Empty: track. and the domain."`
	Selector   string `toml:"dkim_selector" doc:"The relay signs all mail in its own name too, as the domain above, beside the domain that mail is sent in the name of. Its keys have this selector with an r (RSA) and an e (Ed25519) behind it; they are made and kept in the store, and the log says at the start what to publish. Empty: no such signature."`
	SPF        string `toml:"spf_include" doc:"Name of the SPF record that others include. Empty: spf. and the domain."`
	Addresses  []Addr `toml:"addresses" doc:"Public addresses that the mail of all nodes leaves from, for SPF and for the doctor. Empty: those of delivery.source that are public, else those of the hostname."`
}

// Domains is how sending domains are watched.
type Domains struct {
	Every Duration `toml:"check_every" doc:"How often the records of a domain that is in order are looked at. New and broken ones are looked at more often."`
	Grace Duration `toml:"grace" doc:"How long records may be gone before the domain falls back as its settings say."`
}

// Doctor is what is asked of others for a diagnosis.
type Doctor struct {
	Probe      []string `toml:"probe" doc:"host:port of mail servers that are connected to, to see whether port 25 is open on the way out. Empty: that is not tried."`
	Blocklists []string `toml:"blocklists" doc:"DNS blocklists that are asked for the addresses that mail leaves from. Empty: none."`
	Time       string   `toml:"time_server" doc:"host:port of an NTP server that the clock is compared with. Empty: only the store's clock is."`
}

// API is where the HTTP API is served.
type API struct {
	Listen         string   `toml:"listen" doc:"host:port of the API, such as :8025. It is served with TLS and the relay's certificate, but for loopback addresses. Empty: off."`
	URL            string   `toml:"url" doc:"Address at which others reach it, without a path: https://relay.example.com:8025. Links in mail and the API's description have it. Empty: made of hostname and listen."`
	Plain          bool     `toml:"plain" doc:"Serve it without TLS on other addresses too; for a proxy in front that has TLS."`
	Proxy          []Prefix `toml:"proxy_from" doc:"Networks of such proxies: what they say in X-Forwarded-For is believed."`
	Streams        int      `toml:"streams" doc:"Most streams of events and of tests that are open at once on this node."`
	AccountStreams int      `toml:"account_streams" doc:"Of these, most for one account."`
}

// Secure tells whether the API is served with TLS.
func (a *API) Secure() bool { return secure(a.Listen, a.Plain) }

// secure tells whether a port is served with TLS: beyond this machine, unless
// plain says otherwise.
func secure(listen string, plain bool) bool {
	host, _, err := splitAddress(listen, 0)
	if err != nil || plain {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host != "localhost" && (err != nil || !addr.IsLoopback())
}

// Tracking is where links in mail lead to.
type Tracking struct {
	Listen  string   `toml:"listen" doc:"host:port that links in mail lead to, such as :443. It is served with TLS, but for loopback addresses. Empty: off, and no links are made."`
	URL     string   `toml:"url" doc:"Address at which others reach it, without a path: https://track.example.com. Empty: made of service.tracking_host (without one, hostname) and listen."`
	Plain   bool     `toml:"plain" doc:"Serve it without TLS on other addresses too; for a proxy in front that has TLS."`
	Proxy   []Prefix `toml:"proxy_from" doc:"Networks of such proxies: what they say in X-Forwarded-For is believed."`
	Domains bool     `toml:"own_hosts" doc:"Mail in the name of a verified domain has links on the domain's own tracking host, where its CNAME is in order and the relay has a certificate for it. With tls.acme it asks for one. Behind a proxy that is the proxy's business."`
	Life    Duration `toml:"links_for" doc:"How long after its message a link counts. Later ones still lead on, and are recorded no more."`
	Private string   `toml:"do_not_track" doc:"What becomes of requests with DNT: 1 or Sec-GPC: 1. anonymous: recorded without the client's address and program. ignore: not recorded. record: like any other."`
	Early   Duration `toml:"machine_within" doc:"Clicks and opens so soon after the delivery are taken for those of a machine. 0: none are."`
}

// SharedPort tells whether the port of links is that of the authority's HTTP
// requests, too.
func (c *Config) SharedPort() bool {
	return c.TLS.ACME && c.TLS.HTTP01 != "" && c.TLS.HTTP01 == c.Tracking.Listen && !c.Tracking.Secure()
}

// Secure tells whether links are served with TLS.
func (t *Tracking) Secure() bool { return secure(t.Listen, t.Plain) }

// Counts are what reports and scores are made of.
type Counts struct {
	Hours    Duration `toml:"hours" doc:"How long hours are kept apart; then they become days."`
	Keep     Duration `toml:"keep" doc:"How long days are kept."`
	HalfLife Duration `toml:"half_life" doc:"Age at which what became of mail counts half in a sender's score."`
}

// Webhooks is how events are sent.
type Webhooks struct {
	Private []Prefix `toml:"allow_private" doc:"Private or loopback networks that events may be sent to, also without TLS. Others than public addresses are refused otherwise."`
	CA      string   `toml:"ca" doc:"File with certificates to trust for that, PEM. Empty: those of the system."`
	Timeout Duration `toml:"timeout" doc:"Longest wait for a receiver's answer."`
	GiveUp  Duration `toml:"give_up" doc:"A webhook whose requests have all failed for so long is disabled."`
}

// Alerts is when people are told that something is wrong. Thresholds hold for
// accounts that have none of their own.
type Alerts struct {
	To      []string `toml:"to" doc:"Addresses of operators: what concerns the relay as a whole is told there (a certificate that ends, a blocklist), and what concerns an account that has nobody to tell. Empty: the users that are operators."`
	From    string   `toml:"from" doc:"Address that mail about alerts comes from. Empty: alerts at service.domain, or that of notices."`
	Webhook string   `toml:"webhook" doc:"Address that what operators are told is posted to as well, signed as Standard Webhooks has it. Empty: none."`
	Secret  string   `toml:"webhook_secret_file" doc:"File with the secret that such requests are signed with (whsec_…), in its first line. Needed with webhook."`
	Slack   string   `toml:"slack_file" doc:"File with the address of an incoming hook of Slack, Mattermost or Discord (with /slack behind it), in its first line: what operators are told is posted there too. The address is a secret. Empty: none."`
	Every   Duration `toml:"check_every" doc:"How often it is looked whether something is wrong."`
	Quiet   Duration `toml:"quiet" doc:"An incident has ended when all has been well for so long."`
	Remind  Duration `toml:"remind" doc:"People are told again of an incident that nobody has acknowledged, after so long. 0: never."`
	Keep    Duration `toml:"keep" doc:"How long incidents that have ended are kept."`
	Off     []string `toml:"off" doc:"Kinds that nobody is alerted of: bounce-rate, complaint-rate, deferral-spike, provider-block, quota, domain-failing, certificate-expiring, webhook-failing, blocklisted, disk-low."`

	BounceWarning     Percent  `toml:"bounce_warning" doc:"Share of mail that bounces, in an hour or a day."`
	BounceCritical    Percent  `toml:"bounce_critical" doc:"The same, where it is grave."`
	BounceLeast       int      `toml:"bounce_least" doc:"There is no such share of fewer results than that."`
	ComplaintWarning  Percent  `toml:"complaint_warning" doc:"Share of delivered mail that recipients complain of, in a day."`
	ComplaintCritical Percent  `toml:"complaint_critical" doc:"The same, where it is grave."`
	ComplaintLeast    int      `toml:"complaint_least" doc:"There is no such share of fewer delivered messages than that."`
	DeferralWarning   Percent  `toml:"deferral_warning" doc:"Share of attempts that one provider puts off, in 15 minutes."`
	DeferralCritical  Percent  `toml:"deferral_critical" doc:"The same, where it is grave."`
	DeferralLeast     int      `toml:"deferral_least" doc:"There is no such share of fewer attempts than that."`
	BlockWarning      Percent  `toml:"block_warning" doc:"Share of mail that one provider refuses for the sake of its sender or content, in 30 minutes."`
	BlockCritical     Percent  `toml:"block_critical" doc:"The same, where it is grave."`
	BlockLeast        int      `toml:"block_least" doc:"There is no such share of fewer results than that."`
	CertWarning       Duration `toml:"certificate_warning" doc:"A certificate that ends within so long is told of; one that was given for a short time, in its last quarter."`
	CertCritical      Duration `toml:"certificate_critical" doc:"The same, where it is grave; in its last tenth."`
	WebhookFailing    Duration `toml:"webhook_failing" doc:"How long all requests of a webhook may fail before its account is told."`
	BlocklistEvery    Duration `toml:"blocklist_every" doc:"How often the lists of doctor.blocklists are asked for the relay's addresses."`
}

// HTTP is how the relay is seen from outside.
type HTTP struct {
	Listen string `toml:"listen" doc:"host:port of /metrics (Prometheus), /healthz and /readyz, such as 127.0.0.1:9525. They ask for no password and tell nothing of single messages; keep them to networks that you trust. Empty: off."`
}

// Log is the relay's own log.
type Log struct {
	Level  string `toml:"level" doc:"debug, info, warn or error."`
	Format string `toml:"format" doc:"text or json."`
}
