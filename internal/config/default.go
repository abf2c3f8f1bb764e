package config

import "time"

const (
	second = Duration(time.Second)
	minute = Duration(time.Minute)
	hour   = Duration(time.Hour)
	day    = 24 * hour
)

// Default is a relay that nobody configured.
func Default() Config {
	return Config{
		Store:    SQLite,
		Patience: minute,
		Listen: []Listener{
			{Address: ":2525", Mode: "starttls", MinTLS: "1.2", Default: true},
			{Address: ":587", Mode: "starttls", MinTLS: "1.2", Default: true},
			{Address: ":465", Mode: "tls", MinTLS: "1.2", Default: true},
		},
		Limits: Limits{
			MessageSize: 50 * mb,
			Recipients:  1000,
			// Programs that keep one connection for a whole mailing take 421
			// for a failure: this only bounds them, it is not there to part
			// them often.
			Messages: 10_000,
			// A pool that asks NOOP once a minute stays under this for as
			// long as a session may last.
			Commands:  250,
			Errors:    20,
			Idle:      5 * minute, // RFC 5321 section 4.5.3.2.7
			Message:   30 * minute,
			Session:   2 * hour,
			Sessions:  20_000,
			PerClient: 1000,
			Hops:      50, // RFC 5321 section 6.3 would have 100; half of that is still beyond any honest path
		},
		Retain: Retention{Log: 60 * day, Content: 30 * day},
		Policy: Policy{Senders: "verified", DNS: "warn", Sandbox: 100},
		Login:  Login{Free: 3, Delay: second, Max: 15 * second, Reset: 15 * minute},
		Queue: Queue{
			WindowBytes: 128 * mb,
			Window:      50_000,
			Batch:       256,
			BatchBytes:  16 * mb,
			Retry:       []Duration{minute, 5 * minute, 15 * minute, 30 * minute, hour, 2 * hour, 4 * hour},
			Expire:      5 * day, // RFC 5321 section 4.5.4.1: 4-5 days
			Drain:       20 * second,
		},
		Delivery: Delivery{
			Port:        25,
			Connections: 1000,
			PerSite:     20,
			PerConn:     100,
			Idle:        5 * second,
			Connect:     30 * second,
			Command:     5 * minute,  // RFC 5321 sections 4.5.3.2.1 to .3
			Data:        3 * minute,  // RFC 5321 section 4.5.3.2.5
			Dot:         10 * minute, // RFC 5321 section 4.5.3.2.6
		},
		TLS:     TLS{Orders: 60},
		Domains: Domains{Every: 12 * hour, Grace: 3 * day},
		Doctor: Doctor{
			Probe:      []string{"gmail-smtp-in.l.google.com:25", "outlook-com.olc.protection.outlook.com:25"},
			Blocklists: []string{"zen.spamhaus.org", "bl.spamcop.net", "psbl.surriel.com", "bl.mailspike.net"},
			Time:       "pool.ntp.org:123",
		},
		DNS:      DNS{Timeout: 5 * second},
		Asked:    Asked{DANE: true, STS: true},
		Reports:  Reports{Send: true},
		API:      API{Streams: 200, AccountStreams: 20},
		Counts:   Counts{Hours: 35 * day, Keep: 400 * day, HalfLife: 7 * day},
		Webhooks: Webhooks{Timeout: 15 * second, GiveUp: 3 * day},
		Tracking: Tracking{Domains: true, Life: 365 * day, Private: "anonymous", Early: 3 * second},
		Suppress: Suppress{Hard: true, Soft: 5, Window: 30 * day, For: 30 * day, Filter: 64 * mb},
		Alerts: Alerts{Every: minute, Quiet: 15 * minute, Remind: day, Keep: 90 * day,
			BounceWarning: 5, BounceCritical: 10, BounceLeast: 50,
			// What Gmail and Yahoo ask of senders: below 0.1 %, never 0.3 %.
			ComplaintWarning: 0.1, ComplaintCritical: 0.3, ComplaintLeast: 500,
			DeferralWarning: 30, DeferralCritical: 70, DeferralLeast: 50,
			BlockWarning: 10, BlockCritical: 50, BlockLeast: 10,
			CertWarning: 21 * day, CertCritical: 7 * day, WebhookFailing: 15 * minute, BlocklistEvery: hour},
		Notices: Notices{Gather: 10 * second, Delay: 4 * hour},
		Log:     Log{Level: "info", Format: "text"},
	}
}
