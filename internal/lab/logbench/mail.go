package logbench

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"postrider/internal/relay"
)

// start is when the first message of the log was accepted, as long ago as span.
const span = 30 * 24 * time.Hour

// accounts are the tenants of the log: the first has more than half of it, the
// second a seventh, and a few hundred others share the rest.
const accounts = 400

// message is a row of each table, as it is inserted.
type message struct {
	row        []any
	deliveries [][]any
	events     [][]any
}

const (
	messageColumns  = "id, account, credential, stream, received, size, sender, subject, header_from, header_id, client, helo, script, tags, archive, params"
	deliveryColumns = "message, n, account, stream, state, lease, attempts, due, expires, updated, notify, code, recipient, domain, orcpt, enhanced, reply, category, diagnosis, advice, host, provider, source, marks"
	eventColumns    = "id, at, account, message, n, kind, detail"
)

// generator makes mail of a service: the same for the same seed.
type generator struct {
	r     *rand.Rand
	start time.Time
	step  time.Duration // between messages

	accounts []relay.ID
	apps     [][]relay.ID
	now      time.Time
	seq      uint32
}

func newGenerator(start time.Time, messages int) *generator {
	g := &generator{r: rand.New(rand.NewPCG(2026, 5)), start: start, step: span / time.Duration(messages), now: start}
	for i := range accounts {
		g.accounts = append(g.accounts, g.id(start.Add(-time.Hour)))
		var apps []relay.ID
		for range 1 + i%5 {
			apps = append(apps, g.id(start.Add(-time.Hour)))
		}
		g.apps = append(g.apps, apps)
	}
	return g
}

func (g *generator) id(t time.Time) (id relay.ID) {
	binary.BigEndian.PutUint64(id[:8], uint64(t.UnixMilli())<<16)
	g.seq++
	binary.BigEndian.PutUint16(id[6:], 0x7000|uint16(g.seq>>8&0xfff))
	binary.BigEndian.PutUint64(id[8:], g.r.Uint64()>>2|1<<63)
	return id
}

// account: a few are large.
func (g *generator) account() int {
	switch x := g.r.IntN(100); {
	case x < 60:
		return 0
	case x < 75:
		return 1
	}
	return 2 + int(float64(accounts-2)*g.r.Float64()*g.r.Float64())
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// often picks the first ones more often than the last ones.
func often[T any](r *rand.Rand, of []T) T { return of[int(float64(len(of))*r.Float64()*r.Float64())] }

var (
	first      = strings.Fields("anna ben clara david emma felix greta henry ida jonas katja lukas maria nils olga paul quentin rosa simon tina uwe vera walter xenia yusuf zoe ahmed bianca carlos diana emil fatima george hanna ivan julia kofi laura miguel nadia oscar petra ravi sofia thomas ursula victor wanda yara zhang")
	last       = strings.Fields("miller smith garcia schmidt rossi kowalski novak silva jones brown martin bernard dubois moreau meyer weber wagner becker hoffmann koch richter klein wolf neumann schwarz zimmermann braun krueger hartmann lange werner lehmann koehler maier fuchs kaiser peters lang scholz moeller weiss jung hahn vogel keller frank berger winkler roth beck lorenz baumann franke albrecht schuster simon ludwig winter kraus martens")
	providers  = []string{"Gmail", "Microsoft", "Yahoo", "Apple", "GMX", "IONOS", "Zoho", "Proton", ""}
	mailboxes  = [][]string{{"gmail.com", "googlemail.com"}, {"outlook.com", "hotmail.com", "live.com"}, {"yahoo.com", "aol.com"}, {"icloud.com", "me.com"}, {"gmx.de", "web.de", "gmx.net"}, {"firma1.example", "firma2.example"}, {"zoho.com"}, {"proton.me"}, nil}
	subjects   = []string{"Your order %d has shipped", "Invoice %d for %s", "Reset your password", "Verify your e-mail address", "Your weekly report for %s", "New sign-in from %s", "Rechnung Nr. %d vom %s", "Bestellbestätigung %d", "%s, your appointment on %s is confirmed", "Votre commande n° %d", "Special offers for %s this weekend", "[%s] Build %d failed", "Re: ticket #%d: %s", "Payment of %d EUR received", "Your code is %d", "Newsletter %d: news from %s", "Meeting notes %s", "Your subscription ends in %d days"}
	categories = []string{"hard/no-such-mailbox", "hard/no-such-domain", "hard/mailbox-disabled", "block/spam", "block/listed", "block/reputation", "soft/mailbox-full", "soft/greylisted", "soft/rate-limited", "soft/connection", "hard/policy"}
	failures   = []string{"550 5.1.1 The email account that you tried to reach does not exist %s", "550 5.4.4 Domain %s not found", "554 5.2.1 The mailbox %s is disabled", "550 5.7.1 Our system has detected that this message is likely unsolicited mail %s", "554 5.7.1 Service unavailable; client host [192.0.2.%d] blocked using a list", "421 4.7.0 Messages from 192.0.2.%d temporarily deferred due to user complaints", "452 4.2.2 The recipient's inbox %s is out of storage space", "451 4.7.1 Greylisted, please try again in %d seconds", "450 4.2.1 Too many messages, try again in %d minutes", "0 connect to mx%d: connection timed out", "550 5.7.26 Unauthenticated email from %s is not accepted"}
	successes  = []string{"2.0.0 OK %d %s - gsmtp", "2.6.0 <%s@shop> [InternalId=%d] Queued mail for delivery", "OK: queued as %s", "2.0.0 Requested mail action okay, completed: id=%s", "Message accepted for delivery %s"}
	tags       = strings.Fields("welcome invoice receipt reset-password newsletter promo shipping alert report digest ticket reminder verify billing survey onboarding")
	months     = strings.Fields("January February March April May June July August September October November December")
	scripts    = []string{"", "", "", "mail.php", "cron/send.php"}
)

// words fills what stands for something in a text.
func (g *generator) words(text string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "%")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		switch after[0] {
		case 'd':
			fmt.Fprint(&b, g.r.IntN(1_000_000))
		default:
			b.WriteString([]string{pick(g.r, first), pick(g.r, last), fmt.Sprintf("%x", g.r.Uint64()>>24), pick(g.r, months)}[g.r.IntN(4)])
		}
		text = after[1:]
	}
}

func (g *generator) recipient() (address, domain, provider string) {
	p := int(float64(len(providers)) * g.r.Float64() * g.r.Float64())
	if domains := mailboxes[p]; domains != nil {
		domain = domains[g.r.IntN(len(domains))]
	} else {
		domain = fmt.Sprintf("%s-%s%d.example", pick(g.r, last), pick(g.r, []string{"gmbh", "inc", "shop", "tech", "group"}), g.r.IntN(200))
	}
	switch g.r.IntN(10) {
	case 0:
		address = pick(g.r, []string{"info", "office", "sales", "support", "contact"})
	default:
		address = pick(g.r, first) + "." + pick(g.r, last)
		if g.r.IntN(3) > 0 {
			address += fmt.Sprint(g.r.IntN(1000))
		}
	}
	return address + "@" + domain, domain, providers[p]
}

type params struct {
	Client   string            `json:"client"`
	Helo     string            `json:"helo"`
	Protocol string            `json:"protocol"`
	Listener string            `json:"listener"`
	TLS      string            `json:"tls"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

type detail struct {
	Reply     relay.Reply     `json:"reply"`
	Diagnosis relay.Diagnosis `json:"diagnosis,omitzero"`
	Attempt   *relay.Attempt  `json:"attempt,omitempty"`
	Provider  string          `json:"provider,omitempty"`
	Mark      relay.Mark      `json:"mark,omitempty"`
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // values of ours only
	}
	return b
}

// next makes the next message, with what became of it.
func (g *generator) next() *message {
	g.now = g.now.Add(g.step)
	a := g.account()
	account, id := g.accounts[a], g.id(g.now)
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(a), byte(g.r.IntN(4))}), 40000)
	p := params{Client: client.String(), Helo: fmt.Sprintf("app%d.customer%d.example", g.r.IntN(3), a), Protocol: "ESMTPSA", Listener: ":587", TLS: "TLS1.3 TLS_AES_128_GCM_SHA256"}
	labels := ""
	if g.r.IntN(3) > 0 {
		labels = "\n" + often(g.r, tags) + "\n"
		if g.r.IntN(4) == 0 {
			labels += fmt.Sprintf("campaign-%d\n", g.r.IntN(3000))
		}
	}
	if g.r.IntN(4) == 0 {
		p.Metadata = map[string]string{"user": fmt.Sprint(g.r.IntN(200_000)), "tier": pick(g.r, []string{"free", "pro", "enterprise"})}
	}
	stream, from := relay.Transactional, fmt.Sprintf("%s@customer%d.example", pick(g.r, []string{"noreply", "shop", "news", "billing"}), a)
	app := pick(g.r, g.apps[a])
	m := &message{row: []any{id[:], account[:], app[:], int64(stream), g.now.UnixMicro(), int64(2000 + g.r.IntN(60_000)), from,
		g.words(often(g.r, subjects)), from, fmt.Sprintf("<%x.%x@customer%d.example>", g.r.Uint64(), g.now.UnixMicro(), a), client.Addr().String(), p.Helo, pick(g.r, scripts), labels, int64(0), encode(p)}}
	n := 1
	if g.r.IntN(20) == 0 {
		n = 2 + g.r.IntN(4)
	}
	for i := range n {
		g.deliver(m, id, account, stream, i+1)
	}
	return m
}

// deliver adds a delivery: most arrive at once, some late, some do not.
func (g *generator) deliver(m *message, id, account relay.ID, stream relay.Stream, n int) {
	address, domain, provider := g.recipient()
	source := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + g.r.IntN(12))})
	host := "mx1." + domain
	at := g.now
	event := func(kind relay.Kind, d detail) {
		e := g.id(at)
		var b []byte
		if kind != relay.EventAccepted {
			b = encode(d)
		}
		m.events = append(m.events, []any{e[:], at.UnixMicro(), account[:], id[:], int64(n), int64(kind), b})
	}
	event(relay.EventAccepted, detail{})
	attempts := 0
	var last detail
	try := func(kind relay.Kind, text, category string) {
		code, rest, _ := strings.Cut(g.words(text), " ")
		r := relay.Reply{Text: rest}
		fmt.Sscan(code, &r.Code)
		if len(rest) > 5 && rest[1] == '.' && rest[3] == '.' {
			r.Enhanced, r.Text, _ = strings.Cut(rest, " ")
		}
		attempts++
		last = detail{Reply: r, Provider: provider, Attempt: &relay.Attempt{Started: at, Ended: at.Add(700 * time.Millisecond), Source: source, Helo: "mail.relay.example", Stage: "dot",
			Hosts: []relay.HostTry{{Name: host, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, 9}), 25)}},
			TLS:   &relay.TLS{Version: "TLS1.3", Cipher: "TLS_AES_256_GCM_SHA384", Verified: true}}}
		if category != "" {
			last.Diagnosis = relay.Diagnosis{Category: category, Text: "The receiver did not take the message for now.", Advice: "Look at the reply, and write to the recipient in another way."}
		}
		event(kind, last)
	}
	state := relay.Delivered
	x := g.r.IntN(100)
	for range g.r.IntN(4) / 2 * g.r.IntN(3) { // late ones
		at = at.Add(time.Duration(1+g.r.IntN(300)) * time.Second)
		k := 6 + g.r.IntN(4)
		try(relay.EventDeferred, failures[k], categories[k])
	}
	at = at.Add(time.Duration(500+g.r.IntN(9000)) * time.Millisecond)
	switch {
	case x < 94:
		try(relay.EventDelivered, "250 "+pick(g.r, successes), "")
	case x < 99:
		k := g.r.IntN(6)
		try(relay.EventBounced, failures[k], categories[k])
		state = relay.Bounced
	default:
		try(relay.EventExpired, failures[9], categories[9])
		state = relay.Expired
	}
	marks := int64(0)
	if state == relay.Delivered && g.r.IntN(5) == 0 {
		at = at.Add(time.Duration(g.r.IntN(86_400)) * time.Second)
		event(relay.EventOpened, detail{Mark: relay.MarkFirst | relay.MarkPerson})
		marks |= 3 // as the store keeps them
	}
	if state == relay.Delivered && g.r.IntN(1000) == 0 {
		at = at.Add(time.Hour)
		event(relay.EventComplained, detail{Mark: relay.MarkFirst | relay.MarkPerson})
		marks |= 3 << 6
	}
	if time.Since(g.now) < slack+3*time.Hour && g.r.IntN(10) == 0 {
		state = relay.Deferred // still tried
	}
	d := &last.Diagnosis
	m.deliveries = append(m.deliveries, []any{id[:], int64(n), account[:], int64(stream), int64(state), int64(0), int64(attempts), at.UnixMicro(), g.now.Add(120 * time.Hour).UnixMicro(), at.UnixMicro(), int64(0),
		int64(last.Reply.Code), address, domain, "", last.Reply.Enhanced, last.Reply.Text, d.Category, d.Text, d.Advice, host, provider, source.String(), marks})
}
