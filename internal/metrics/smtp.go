package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/smtpd"
)

// smtpMetrics is smtpd's Observer.
type smtpMetrics struct {
	sessions   *prometheus.GaugeVec
	begun      *prometheus.CounterVec
	away       *prometheus.CounterVec
	logins     *prometheus.CounterVec
	messages   *prometheus.CounterVec
	recipients *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	refused    *prometheus.CounterVec
	accept     prometheus.Histogram
}

func newSMTP(reg *prometheus.Registry) smtpMetrics {
	m := smtpMetrics{
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postrider_smtp_sessions", Help: "SMTP sessions that are open."}, []string{"listener"}),
		begun:    counter("postrider_smtp_sessions_total", "SMTP sessions that have begun.", "listener"),
		away: counter("postrider_smtp_turned_away_total",
			"Connections that came to no session (limits, no PROXY header), and TLS handshakes that failed.", "listener", "reason"),
		logins:     counter("postrider_logins_total", "Logins over SMTP, by what came of them.", "mechanism", "result"),
		messages:   counter("postrider_messages_accepted_total", "Messages that clients handed over and that are kept: 250 was the answer.", "stream"),
		recipients: counter("postrider_recipients_accepted_total", "Recipients of accepted messages: deliveries that began.", "stream"),
		bytes:      counter("postrider_accepted_bytes_total", "Content of accepted messages.", "stream"),
		refused:    counter("postrider_smtp_refused_total", "Replies of 400 and more, by where in the session, class and reason.", "stage", "class", "reason"),
		accept: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "postrider_accept_duration_seconds",
			Help: "From the end of a message's content to its 250: checks, the wait for a commit, the sync.", Buckets: quick}),
	}
	reg.MustRegister(m.sessions, m.begun, m.away, m.logins, m.messages, m.recipients, m.bytes, m.refused, m.accept)
	for _, s := range streams {
		m.messages.WithLabelValues(s.String())
		m.recipients.WithLabelValues(s.String())
		m.bytes.WithLabelValues(s.String())
	}
	for _, mechanism := range []string{"PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"} {
		for _, result := range []string{"ok", "failed", "unavailable"} {
			m.logins.WithLabelValues(mechanism, result)
		}
	}
	for _, class := range []string{"4xx", "5xx"} {
		m.refused.WithLabelValues(smtpd.StageData, class, "other")
	}
	return m
}

var streams = [...]relay.Stream{relay.Transactional, relay.Broadcast}

// Listeners makes the series of the listeners of these names, so that they are
// there before the first client.
func (m *smtpMetrics) Listeners(names ...string) {
	for _, n := range names {
		m.sessions.WithLabelValues(n)
		m.begun.WithLabelValues(n)
		for _, why := range []string{smtpd.AwayFull, smtpd.AwayClient, smtpd.AwayProxy, smtpd.AwayTLS} {
			m.away.WithLabelValues(n, why)
		}
	}
}

// Session implements smtpd.Observer, as do the methods that follow.
func (m *smtpMetrics) Session(listener string, begins bool) {
	if begins {
		m.begun.WithLabelValues(listener).Inc()
		m.sessions.WithLabelValues(listener).Inc()
	} else {
		m.sessions.WithLabelValues(listener).Dec()
	}
}

func (m *smtpMetrics) TurnedAway(listener, why string) { m.away.WithLabelValues(listener, why).Inc() }

func (m *smtpMetrics) Login(mechanism string, code int) {
	result := "unavailable"
	switch code {
	case 235:
		result = "ok"
	case 535:
		result = "failed"
	}
	m.logins.WithLabelValues(mechanism, result).Inc()
}

func (m *smtpMetrics) Accepted(a smtpd.Accepted) {
	stream := a.Stream.String()
	m.messages.WithLabelValues(stream).Inc()
	m.recipients.WithLabelValues(stream).Add(float64(a.Recipients))
	m.bytes.WithLabelValues(stream).Add(float64(a.Size))
	m.accept.Observe(a.Took.Seconds())
}

func (m *smtpMetrics) Refused(stage string, r smtp.Reply) {
	class := "5xx"
	if r.Code < 500 {
		class = "4xx"
	}
	m.refused.WithLabelValues(stage, class, reason(r.Code, r.Enhanced)).Inc()
}

// reason tells by the codes of one of our replies (docs/replies.md) why it
// refuses, in one of a few words.
func reason(code int, enhanced string) string {
	if code == 452 && enhanced == "4.3.1" {
		return "disk_full"
	}
	switch enhanced {
	case "4.3.0":
		return "unavailable"
	case "4.3.1":
		return "busy"
	case "4.3.2":
		return "shutdown"
	case "4.3.4", "5.3.4":
		return "too_large"
	case "4.4.2":
		return "timeout"
	case "5.4.6":
		return "loop"
	case "4.5.3":
		return "too_many_recipients"
	case "4.7.0", "4.7.1":
		return "limit"
	case "5.7.0", "5.7.8":
		return "login"
	case "5.7.1", "5.7.26":
		return "policy"
	case "5.7.10", "5.7.11":
		return "tls_required"
	}
	// The second part of an enhanced code is its subject (RFC 3463 section 3).
	_, rest, _ := strings.Cut(enhanced, ".")
	switch subject, _, _ := strings.Cut(rest, "."); subject {
	case "1":
		return "address"
	case "5":
		return "protocol"
	case "6":
		return "content"
	default:
		return "other"
	}
}
