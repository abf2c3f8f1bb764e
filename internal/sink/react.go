package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/mail"
	"net/smtp"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/html"

	"postrider/internal/message"
)

// Reactions say where receivers and recipients go when they do something with a
// message that was taken: send it back, complain, open it, follow its links.
// Nothing that a message names is asked elsewhere.
type Reactions struct {
	SMTP  string         // host:port that bounces, complaints and answers are sent to; empty: none are
	HTTP  string         // host:port where links are asked for, whatever host they name; empty: none are followed
	Roots *x509.CertPool // for https; nil: any certificate is good, since the address is known
}

const (
	maxReacting  = 64 // reactions at once
	reactTime    = 10 * time.Second
	maxFetched   = 64 << 10 // bytes of an answer that are read
	maxFollowed  = 100      // links of one message
	personAgent  = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
	privacyAgent = "Mozilla/5.0"
	scannerAgent = "Mozilla/5.0 (compatible; Barracuda Link Check)"
)

// reaction is what happens after a message was taken.
type reaction func(r *reactor, ctx context.Context, m *Message, to string) error

// reactions are by the names of their behaviours.
var reactions = map[string]reaction{
	"late-bounce": func(r *reactor, ctx context.Context, m *Message, to string) error {
		return r.mail(ctx, "", m.From, bounceOf(r.host, m, to))
	},
	"complain": func(r *reactor, ctx context.Context, m *Message, to string) error {
		return r.mail(ctx, "", m.From, complaintOf(r.host, m, to))
	},
	"vacation": func(r *reactor, ctx context.Context, m *Message, to string) error {
		return r.mail(ctx, "", m.From, vacationOf(m, to))
	},
	"open":     (*reactor).open,
	"prefetch": (*reactor).prefetch,
	"click":    (*reactor).click,
	"scan":     (*reactor).scan,
	"unsubscribe": func(r *reactor, ctx context.Context, m *Message, _ string) error {
		link := listUnsubscribe(m.Content, "https", "http")
		if link == "" {
			return errors.New("the message has no link to unsubscribe by")
		}
		return r.fetch(ctx, http.MethodPost, link, personAgent, "List-Unsubscribe=One-Click") // RFC 8058 section 3.2
	},
	"unsubscribe-mail": func(r *reactor, ctx context.Context, m *Message, to string) error {
		link, err := url.Parse(listUnsubscribe(m.Content, "mailto"))
		if err != nil || link.Opaque == "" {
			return errors.New("the message has no address to unsubscribe by")
		}
		address, err := url.PathUnescape(link.Opaque)
		if err != nil {
			return fmt.Errorf("read address: %w", err)
		}
		subject := link.Query().Get("subject")
		return r.mail(ctx, to, address, []byte("From: <"+to+">\r\nTo: <"+address+">\r\nSubject: "+oneLine(subject)+"\r\n\r\nunsubscribe\r\n"))
	},
}

// reactor carries out reactions.
type reactor struct {
	Reactions
	host   string
	client *http.Client
	slots  chan struct{}
}

func newReactor(c Reactions, host string) *reactor {
	r := &reactor{Reactions: c, host: host, slots: make(chan struct{}, maxReacting)}
	r.client = &http.Client{
		Timeout: reactTime,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, r.HTTP)
			},
			TLSClientConfig: &tls.Config{RootCAs: c.Roots, InsecureSkipVerify: c.Roots == nil},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return r
}

// react begins what a recipient asked for, without making the session wait. What
// comes when very many are under way is left out, and counted.
func (s *Server) react(ctx context.Context, a *action, m *Message, to string) {
	r := s.reactor
	select {
	case r.slots <- struct{}{}:
	default:
		s.counters.fault(a.name + " left out")
		return
	}
	s.reacting.Go(func() {
		defer func() { <-r.slots }()
		if !sleep(ctx, a.pause) {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, reactTime)
		defer cancel()
		if err := reactions[a.name](r, ctx, m, to); err != nil && ctx.Err() == nil {
			s.counters.fault(a.name + " failed")
			if s.cfg.Log != nil {
				s.cfg.Log.Warn("reaction failed", "what", a.name, "id", m.ID, "to", to, "err", err)
			}
		}
	})
}

// mail sends a mail, from the null sender as servers do who report, or from a person.
func (r *reactor) mail(ctx context.Context, from, to string, content []byte) error {
	if r.SMTP == "" || to == "" {
		return errors.New("there is nowhere to send it to")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", r.SMTP)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, err := smtp.NewClient(conn, r.host)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer c.Close()
	if err := c.Hello(r.host); err != nil {
		return err
	}
	if ok, _ := c.Extension("STARTTLS"); ok {
		// As servers do: whatever the certificate.
		if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
			return err
		}
	}
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

// fetch asks for a link; a redirect is not followed.
func (r *reactor) fetch(ctx context.Context, method, link, agent, form string) error {
	if r.HTTP == "" {
		return errors.New("there is nowhere to ask for links")
	}
	req, err := http.NewRequestWithContext(ctx, method, link, strings.NewReader(form))
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", agent)
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxFetched) // only so that the server sees it taken
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s answers %d", method, resp.StatusCode)
	}
	return nil
}

// open shows the message to a person: its images are loaded.
func (r *reactor) open(ctx context.Context, m *Message, _ string) error {
	return r.all(ctx, http.MethodGet, linksOf(m.Content, "img", "src"), personAgent, "images")
}

// prefetch loads the images without a person, as a privacy proxy does.
func (r *reactor) prefetch(ctx context.Context, m *Message, _ string) error {
	return r.all(ctx, http.MethodGet, linksOf(m.Content, "img", "src"), privacyAgent, "images")
}

// click follows the first link that is not for leaving.
func (r *reactor) click(ctx context.Context, m *Message, to string) error {
	if err := r.open(ctx, m, to); err != nil {
		return err
	}
	leave := listUnsubscribe(m.Content, "https", "http")
	for _, link := range linksOf(m.Content, "a", "href") {
		if link != leave {
			return r.fetch(ctx, http.MethodGet, link, personAgent, "")
		}
	}
	return errors.New("the message has no link")
}

// scan asks for every link, as a filter in front of a mailbox does.
func (r *reactor) scan(ctx context.Context, m *Message, _ string) error {
	links := linksOf(m.Content, "a", "href")
	if leave := listUnsubscribe(m.Content, "https", "http"); leave != "" {
		links = append(links, leave)
	}
	return r.all(ctx, http.MethodGet, links, scannerAgent, "links")
}

func (r *reactor) all(ctx context.Context, method string, links []string, agent, what string) error {
	if len(links) == 0 {
		return errors.New("the message has no " + what)
	}
	for _, l := range links {
		if err := r.fetch(ctx, method, l, agent, ""); err != nil {
			return err
		}
	}
	return nil
}

// linksOf gives the web addresses in an attribute of the message's HTML.
func linksOf(content []byte, element, attribute string) (found []string) {
	_ = message.ReadParts(bytes.NewReader(content), len(content), func(p message.Part) error { // of memory
		if p.Type != "text/html" {
			return nil
		}
		for z := html.NewTokenizer(bytes.NewReader(p.Body)); len(found) < maxFollowed; {
			switch z.Next() {
			case html.ErrorToken:
				return nil
			case html.StartTagToken, html.SelfClosingTagToken:
				t := z.Token()
				for _, a := range t.Attr {
					if t.Data == element && a.Key == attribute && (strings.HasPrefix(a.Val, "http://") || strings.HasPrefix(a.Val, "https://")) {
						found = append(found, a.Val)
					}
				}
			}
		}
		return nil
	})
	return found
}

// listUnsubscribe gives the first address of these schemes in the field
// List-Unsubscribe (RFC 2369 section 3.2), or nothing.
func listUnsubscribe(content []byte, schemes ...string) string {
	m, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		return ""
	}
	for entry := range strings.SplitSeq(m.Header.Get("List-Unsubscribe"), ",") {
		entry = strings.Trim(strings.Join(strings.Fields(entry), ""), "<>")
		for _, s := range schemes {
			if strings.HasPrefix(entry, s+":") {
				return entry
			}
		}
	}
	return ""
}

// headOf is the header of a message, as a report returns it.
func headOf(content []byte) []byte {
	if i := bytes.Index(content, []byte("\r\n\r\n")); i >= 0 {
		return content[:i+2]
	}
	return content
}

func oneLine(s string) string { return strings.NewReplacer("\r", "", "\n", "").Replace(s) }

// reportOf is a multipart/report of three parts.
func reportOf(m *Message, host, to, kind, subject, text, machine string) []byte {
	const boundary = "report-5c1e"
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: Mail Delivery System <mailer-daemon@%s>\r\nTo: <%s>\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%s.%s@%[1]s>\r\nAuto-Submitted: auto-generated\r\n"+
		"MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=%[7]s; boundary=\"%[8]s\"\r\n\r\n",
		host, m.From, subject, time.Now().UTC().Format(time.RFC1123Z), m.ID, kind, kind, boundary)
	fmt.Fprintf(&b, "--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n%s\r\n", boundary, text)
	fmt.Fprintf(&b, "--%s\r\nContent-Type: message/%s\r\n\r\n%s\r\n", boundary, kind, machine)
	fmt.Fprintf(&b, "--%s\r\nContent-Type: text/rfc822-headers\r\n\r\n%s\r\n--%[1]s--\r\n", boundary, headOf(m.Content))
	return b.Bytes()
}

// bounceOf is a report that the message, taken a while ago, can't be delivered
// (RFC 3464).
func bounceOf(host string, m *Message, to string) []byte {
	const words = "550 5.1.1 There is no such user here"
	return reportOf(m, host, to, "delivery-status", "Undelivered Mail Returned to Sender",
		"The message could not be delivered to <"+to+">:\r\n"+words+"\r\n",
		"Reporting-MTA: dns; "+host+"\r\n\r\nFinal-Recipient: rfc822; "+to+"\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; "+words+"\r\n")
}

// complaintOf is a report that the recipient takes the message for spam (RFC
// 5965).
func complaintOf(host string, m *Message, to string) []byte {
	return reportOf(m, host, to, "feedback-report", "Abuse report",
		"The recipient has reported this message as spam.\r\n",
		"Feedback-Type: abuse\r\nUser-Agent: Postrider-Sink/1\r\nVersion: 1\r\nOriginal-Mail-From: <"+m.From+">\r\nOriginal-Rcpt-To: <"+to+">\r\n")
}

// vacationOf is an automatic answer (RFC 3834).
func vacationOf(m *Message, to string) []byte {
	return []byte("From: <" + to + ">\r\nTo: <" + m.From + ">\r\nSubject: Out of office\r\nDate: " + time.Now().UTC().Format(time.RFC1123Z) +
		"\r\nAuto-Submitted: auto-replied\r\n\r\nI am away until Monday and do not read mail.\r\n")
}
