package deliver

import (
	"errors"
	"fmt"
	"strings"

	"postrider/internal/mailauth"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/smtpclient"
)

// Watcher is asked whether somebody watches a delivery step by step. A delivery
// that is watched has a connection of its own, so that all of it is seen.
type Watcher interface {
	// Watch gives where its steps go, which does not wait; nil: nobody watches.
	Watch(id relay.DeliveryID) func(relay.Step)
}

// unwatched is for a Config without a Watcher.
type unwatched struct{}

func (unwatched) Watch(relay.DeliveryID) func(relay.Step) { return nil }

// watch tells somebody of the steps of one attempt; nil tells nobody.
type watch struct {
	id   relay.DeliveryID
	n    int // of the attempt
	tell func(relay.Step)
	over bool // the attempt is; what follows is the end of its connection
}

// watching gives the watch of an item; nil: nobody watches it.
func (d *Dispatcher) watching(it *queue.Item) *watch {
	tell := d.config.Watcher.Watch(it.Delivery.ID)
	if tell == nil {
		return nil
	}
	return &watch{id: it.Delivery.ID, n: it.Delivery.Attempts + 1, tell: tell}
}

func (w *watch) say(s relay.Step) {
	if w != nil && !w.over {
		s.Attempt = w.n
		w.tell(s)
	}
}

// lookingUp tells that the domain's servers are sought.
func (w *watch) lookingUp(domain string) {
	w.say(relay.Step{Stage: relay.StepDNS, Text: fmt.Sprintf("Looks for the mail servers of %s.", domain)})
}

// found tells where the mail goes, and what the receiver asks of TLS.
func (w *watch) found(domain string, dest *destination) {
	if w == nil {
		return
	}
	s := relay.Step{Stage: relay.StepDNS, Status: relay.Good, Text: fmt.Sprintf("Mail for %s goes to these servers.", domain)}
	if dest.route.Host != "" {
		s.Text = fmt.Sprintf("A route of this relay takes mail for %s to %s.", dest.route.Domain, dest.route.site())
	}
	var policies []string
	for _, h := range dest.hosts {
		s.Hosts = append(s.Hosts, relay.MailHost{Name: h.Name, Pref: h.Pref, Addrs: h.Addrs})
		if rule := dest.rules.of[h.Name]; rule != nil && rule.Name() != "" {
			text := h.Name + ": " + rule.Name()
			if rule.Reason != nil {
				text += ", which forbids it (" + rule.Reason.Text + ")"
			}
			policies = append(policies, text)
		}
	}
	w.say(s)
	p := relay.Step{Stage: relay.StepPolicy, Text: "The receiver publishes no policy on TLS (DANE, MTA-STS): it is used where it is offered."}
	switch {
	case len(policies) > 0:
		p.Text = "The receiver asks for TLS: " + strings.Join(policies, "; ") + "."
	case dest.rules.of == nil:
		p.Text = "The receiver is not asked for a policy on TLS on this route."
	}
	if t := dest.rules.trouble; t != nil {
		p.Status, p.Text = relay.Warning, p.Text+" Its policy can't be used: "+t.Text+"."
	}
	w.say(p)
}

// lost tells that there is nowhere to go.
func (w *watch) lost(p *problem) {
	w.say(relay.Step{Stage: relay.StepDNS, Status: relay.Bad, Text: p.text})
}

// connecting tells of a try, and connected how it went.
func (w *watch) connecting(c candidate) {
	w.say(relay.Step{Stage: relay.StepConnect, Host: c.name, Addr: c.addr, Text: "Connects."})
}

func (w *watch) connected(c candidate, l *link, err error) {
	switch {
	case w == nil:
	case err != nil:
		w.say(relay.Step{Stage: relay.StepConnect, Status: relay.Bad, Host: c.name, Addr: c.addr, Text: words(err)})
	default:
		w.say(relay.Step{Stage: relay.StepConnect, Status: relay.Good, Host: c.name, Addr: c.addr, Source: l.source, Text: "The connection is there."})
	}
}

// session is what the SMTP client tells; nil where nobody watches.
func (w *watch) session() func(smtpclient.Step) {
	if w == nil {
		return nil
	}
	return func(s smtpclient.Step) {
		switch {
		case s.TLS != nil:
			step := relay.Step{Stage: relay.StepTLS, Status: relay.Good, TLS: tlsRecord(s.TLS), Text: "The certificate verifies."}
			if !s.TLS.Verified {
				step.Status, step.Text = relay.Warning, "The certificate does not verify: "+s.TLS.Problem+"."
			}
			w.say(step)
		case s.Reply != nil:
			r := replyOf(*s.Reply)
			step := relay.Step{Stage: relay.StepReply, Reply: &r}
			if !s.Reply.Positive() {
				step.Status = relay.Bad
			}
			w.say(step)
		default:
			w.say(relay.Step{Stage: relay.StepCommand, Command: s.Command})
		}
	}
}

// broke tells that a session ended without a reply.
func (w *watch) broke(err error) {
	if e := (*smtpclient.Error)(nil); errors.As(err, &e) && e.Reply != nil {
		return // which was told
	}
	w.say(relay.Step{Stage: relay.StepReply, Status: relay.Bad, Text: words(err)})
}

// signed tells who signs what is about to be sent, and by which return path it
// goes.
func (w *watch) signed(fields []byte, from string, ours bool) {
	if w == nil {
		return
	}
	s := relay.Step{Stage: relay.StepSignature, Status: relay.Good}
	var by []string
	for _, sig := range mailauth.Signatures(fields) {
		by = append(by, fmt.Sprintf("%s (selector %s, %s)", sig.Domain, sig.Selector, sig.Algorithm))
	}
	if s.Text = "Signed by " + strings.Join(by, " and ") + "."; len(by) == 0 {
		s.Status, s.Text, s.Advice = relay.Warning, "Nobody signs the message (DKIM).", "Add the domain in From as a sending domain, and publish its records: \"postrider domain add DOMAIN\"."
	}
	if ours {
		s.Text += fmt.Sprintf(" The return path <%s> is the domain's own: SPF is judged for it, and bounces come back to the relay.", from)
	} else {
		s.Text += fmt.Sprintf(" The return path is the sender's <%s>: SPF is judged for its domain, and later bounces go there.", from)
	}
	w.say(s)
}
