package submit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"postrider/internal/account"
	"postrider/internal/limit"
	"postrider/internal/message"
	"postrider/internal/policy"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// admission is what a message that may go needs further on.
type admission struct {
	order      limit.Order
	suppressed map[int]*relay.Suppression // by places of recipients in the envelope, from 0
	left       map[int]bool               // the same places, of those that have left the message's group
	optOut     relay.OptOut
	warning    relay.Diagnosis
}

// party is somebody who wants to send: an identity with its account and the rules
// that hold for it.
type party struct {
	*account.Identity
	account *relay.Account
	plan    *relay.Plan
	rules   policy.Rules

	manager     *relay.Account // of the account; nil: none but the operator
	managerPlan *relay.Plan
}

func (e *Entrance) party(ctx context.Context, id *account.Identity) (party, error) {
	if err := e.maySend(ctx, id); err != nil {
		return party{}, err
	}
	a, plan, err := e.directory.Account(ctx, id.Account)
	if err != nil {
		return party{}, err
	}
	p := party{Identity: id, plan: plan, rules: e.config.Rules.For(a)}
	if !a.Parent.IsZero() {
		if p.manager, p.managerPlan, err = e.directory.Account(ctx, a.Parent); err != nil {
			return party{}, err
		}
	}
	if id.Status == relay.Sandbox && a.Status != relay.Sandbox {
		boxed := *a
		boxed.Status, boxed.Reason = relay.Sandbox, "the credential is in the sandbox"
		a = &boxed
	}
	p.account = a
	return p, nil
}

// maySend refuses a key that is for other things, or whose owner may not send any
// more: over SMTP too, where it can log in.
func (e *Entrance) maySend(ctx context.Context, id *account.Identity) error {
	if id.Kind != account.KindKey {
		return nil
	}
	var owner account.Rights
	if !id.Owner.IsZero() {
		var err error
		if owner, err = e.directory.UserRights(ctx, id.Account, id.Owner); err != nil {
			return err
		}
	}
	if account.OfCredential(&relay.Credential{Kind: id.Kind, Scopes: id.Scopes, Owner: id.Owner}, owner).Has(account.Send) {
		return nil
	}
	return &relay.Error{Code: relay.Forbidden, Text: "This API key may not send mail.", Advice: "Use one with the scope send, whose owner may send too."}
}

// order is what a message of the party is held to.
func (p *party) order(recipients int, sandbox bool) limit.Order {
	o := limit.Order{Account: p.account, Plan: p.plan, Credential: p.Credential, Limits: p.Limits,
		Recipients: int64(recipients), InSandbox: sandbox, Sandbox: p.rules.Sandbox}
	if p.manager != nil {
		o.Manager = limit.Above(p.manager, p.managerPlan, o.Recipients)
	}
	return o
}

// admit judges a draft. The error says why it may not go.
func (e *Entrance) admit(ctx context.Context, d *Draft, f *message.Facts) (admission, error) {
	c := policy.Case{Identity: d.Identity, Limits: e.config.Limits, Envelope: &d.Envelope, Size: d.Content.Size(), Facts: f}
	if d.Identity == nil {
		_, err := policy.Check(c)
		return admission{}, err
	}
	p, err := e.party(ctx, d.Identity)
	if err != nil {
		return admission{}, err
	}
	c.Account, c.Rules, c.Names = p.account, p.rules, policy.Names(d.Envelope, f)
	if c.Standing, err = e.standings(ctx, &p, c.Names); err != nil {
		return admission{}, err
	}
	v, err := policy.Check(c)
	if err != nil {
		return admission{}, err
	}
	if v.Sandbox != nil {
		named := !slices.ContainsFunc(c.Names, func(n policy.Name) bool { return policy.Unverified(p.rules, n, c.Standing[n.Key]) != nil })
		for _, r := range d.Envelope.Recipients {
			if own, err := e.own(ctx, &p, r.Address, named); err != nil || !own {
				return admission{}, orElse(err, v.Sandbox)
			}
		}
	}
	var a admission
	if a.suppressed, err = e.suppressed(ctx, &p, cmp.Or(d.Stream, d.Identity.Stream), d.Envelope.Recipients); err != nil {
		return admission{}, err
	}
	if p.account.Muted == relay.SuppressRefuse {
		for i, r := range d.Envelope.Recipients {
			if by := a.suppressed[i]; by != nil {
				return admission{}, refuseSuppressed(r.Address, by)
			}
		}
	}
	var unfilled relay.Diagnosis
	if a.optOut, unfilled, err = e.optOut(ctx, &p, d, f); err != nil {
		return admission{}, err
	}
	if unfilled != (relay.Diagnosis{}) {
		v.Warnings = append(v.Warnings, unfilled)
	}
	a.warning = joined(v.Warnings)
	if a.left, err = e.left(ctx, &p, a.optOut.Group, d.Envelope.Recipients); err != nil {
		return admission{}, err
	}
	muted := len(a.suppressed)
	for i, r := range d.Envelope.Recipients {
		if !a.left[i] {
			continue
		}
		if p.account.Muted == relay.SuppressRefuse {
			return admission{}, refuseUnsubscribed(r.Address, a.optOut.Group)
		}
		if a.suppressed[i] == nil {
			muted++
		}
	}
	a.order = p.order(len(d.Envelope.Recipients)-muted, v.Sandbox != nil)
	return a, nil
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// standings looks up what the account has of names. Where anybody's name goes,
// only what From says is of interest: its domain may be broken.
func (e *Entrance) standings(ctx context.Context, p *party, names []policy.Name) (map[string]policy.Standing, error) {
	all := make(map[string]policy.Standing, len(names))
	for _, n := range names {
		if _, known := all[n.Key]; known || n.Key == "" || p.rules.Senders == relay.SendersAny && n.Where != "From" {
			continue
		}
		s, err := e.standing(ctx, p, n)
		if err != nil {
			return nil, err
		}
		all[n.Key] = s
	}
	return all, nil
}

func (e *Entrance) standing(ctx context.Context, p *party, n policy.Name) (s policy.Standing, err error) {
	if n.Key == "" {
		return s, nil
	}
	if s.Domain, err = e.directory.Domain(ctx, p.Account, n.Domain); err != nil || s.Verified() || p.rules.Senders == relay.SendersAny && n.Where == "From" {
		return s, err
	}
	s.Sender, err = e.directory.Sender(ctx, p.Account, n.Key)
	return s, err
}

// own tells whether mail in the sandbox may go to a recipient. named: it speaks in
// verified names only.
func (e *Entrance) own(ctx context.Context, p *party, address string, named bool) (own bool, err error) {
	to := recipient(address)
	if to.Key == "" {
		return false, nil
	}
	var s policy.Standing
	if s.Domain, err = e.directory.Domain(ctx, p.Account, to.Domain); err != nil || policy.Own(s, named) {
		return err == nil, err
	}
	s.Sender, err = e.directory.Sender(ctx, p.Account, to.Key)
	return policy.Own(s, named), err
}

// recipient is an address in the form in which addresses are compared; without a
// key where it is none.
func recipient(address string) policy.Name {
	a, err := smtp.ParseAddress(address, true)
	if err != nil {
		return policy.Name{Address: address}
	}
	return policy.NameOf("RCPT", a)
}

// suppressed gives the places of recipients that nothing of a stream may be sent to.
func (e *Entrance) suppressed(ctx context.Context, p *party, stream relay.Stream, to []relay.Recipient) (map[int]*relay.Suppression, error) {
	keys := make([]string, len(to))
	for i, r := range to {
		keys[i] = recipient(r.Address).Key
	}
	found, err := e.directory.Suppressed(ctx, p.Account, stream, keys)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	places := map[int]*relay.Suppression{}
	for i, k := range keys {
		if by := found[k]; k != "" && by != nil {
			places[i] = by
		}
	}
	return places, nil
}

const unsuppress = "If it may get mail again, take it off the account's list of suppressions."

// because says why an address is on the list.
func because(by *relay.Suppression) string {
	why := map[string]string{relay.ReasonBounce: "mail to it bounced", relay.ReasonSoftBounce: "mail to it failed again and again", relay.ReasonComplaint: "its owner called mail spam",
		relay.ReasonUnsubscribe: "its owner unsubscribed", relay.ReasonManual: "it was put there"}[by.Reason]
	if by.Stream != 0 {
		return fmt.Sprintf("it is on the account's list of suppressions for %s mail (%s)", by.Stream, why)
	}
	return fmt.Sprintf("it is on the account's list of suppressions (%s)", why)
}

func suppressed(address string, by *relay.Suppression) relay.Diagnosis {
	category := "suppressed"
	if by.Reason == relay.ReasonUnsubscribe {
		category = "unsubscribed"
	}
	return relay.Diagnosis{Category: category, Text: fmt.Sprintf("Nothing is sent to %s: %s.", address, because(by)), Advice: unsuppress}
}

func refuseSuppressed(address string, by *relay.Suppression) error {
	return &relay.Error{Code: relay.Suppressed, Text: fmt.Sprintf("Nothing may be sent to <%s>: %s.", message.Clean(address, 320), because(by)), Advice: unsuppress}
}

// joined makes one warning of several.
func joined(warnings []relay.Diagnosis) (all relay.Diagnosis) {
	for i, w := range warnings {
		if i == 0 {
			all = w
			continue
		}
		all.Text += " " + w.Text
		all.Advice += " " + w.Advice
	}
	return all
}

// onceOf is the idempotency key in the header, or nil. A client that comes again
// may well have made the message anew, with another date and other boundaries, so
// what tells requests apart is the envelope and the subject.
func onceOf(env *relay.Envelope, f *message.Facts) *relay.Once {
	if f.Once == "" {
		return nil
	}
	h := sha256.New()
	write := func(s string) {
		_ = binary.Write(h, binary.BigEndian, uint32(len(s))) // a hash takes all
		_, _ = io.WriteString(h, s)
	}
	write(env.Sender)
	write(f.Subject)
	for _, r := range env.Recipients {
		write(strings.ToLower(r.Address))
	}
	o := &relay.Once{Key: f.Once}
	h.Sum(o.Digest[:0])
	return o
}

// Sender tells whether a message could be taken from that envelope sender, as far
// as that is known before its content comes.
func (e *Entrance) Sender(ctx context.Context, id *account.Identity, sender string) error {
	p, err := e.party(ctx, id)
	if err != nil {
		return err
	}
	if err := policy.Standstill(p.account); err != nil {
		return err
	}
	if err := policy.CheckSender(id, sender); err != nil {
		return err
	}
	if err := e.unverified(ctx, &p, sender); err != nil && p.rules.Sandbox == 0 {
		return err
	}
	return e.limiter.Known(p.order(1, false))
}

// unverified is the refusal of an envelope sender for the sake of its name, or of
// an account in the sandbox.
func (e *Entrance) unverified(ctx context.Context, p *party, sender string) error {
	n, ok := policy.Sender(sender)
	if !ok || p.rules.Senders == relay.SendersAny {
		return nil
	}
	s, err := e.standing(ctx, p, n)
	if err != nil {
		return err
	}
	return policy.Unverified(p.rules, n, s)
}

// Recipient tells whether a recipient could be taken, as far as that is known
// before the content comes.
func (e *Entrance) Recipient(ctx context.Context, id *account.Identity, sender, address string) error {
	p, err := e.party(ctx, id)
	if err != nil {
		return err
	}
	unverified := e.unverified(ctx, &p, sender)
	why := policy.InSandbox(p.account)
	if why == nil {
		why = unverified
	}
	if why != nil {
		if relay.CodeOf(why) != relay.Unverified {
			return why
		}
		if own, err := e.own(ctx, &p, address, unverified == nil); err != nil || !own {
			return orElse(err, why)
		}
	}
	if p.account.Muted != relay.SuppressRefuse {
		return nil
	}
	found, err := e.suppressed(ctx, &p, id.Stream, []relay.Recipient{{Address: address}})
	if err == nil && found[0] != nil {
		err = refuseSuppressed(address, found[0])
	}
	return err
}
