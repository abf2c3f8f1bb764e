package domain

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"postrider/internal/dns"
	"postrider/internal/relay"
)

// Bounds of one look at a domain.
const (
	lookTime    = 30 * time.Second
	lookAtOnce  = 8
	lookAtMost  = 100 // questions
	spfDeepness = 11  // rounds of includes: one more than may be
)

// Asker puts questions to the DNS.
type Asker interface {
	Ask(ctx context.Context, q Question) Answer
}

// DNS asks by a resolver, and does not trust what that remembers: what was
// published a moment ago is to be seen.
type DNS struct{ *dns.Resolver }

// Ask puts one question.
func (r DNS) Ask(ctx context.Context, q Question) Answer {
	r.Forget(q.Name)
	var out Answer
	switch q.Type {
	case "TXT":
		out.Values, out.Err = r.TXT(ctx, q.Name)
	case "CNAME":
		var target string
		if target, out.Err = r.CNAME(ctx, q.Name); target != "" {
			out.Values = []string{target}
		}
	case "NS":
		out.Values, out.Err = r.NS(ctx, q.Name)
	case "MX":
		var set []dns.MX
		set, out.Err = r.MX(ctx, q.Name)
		for _, x := range set {
			out.Values = append(out.Values, x.Host)
		}
	case "A":
		addrs, err := r.Addrs(ctx, q.Name)
		for _, a := range addrs {
			out.Values = append(out.Values, a.String())
		}
		out.Err = err
	}
	var e *dns.Error
	if errors.As(out.Err, &e) && e.Kind != dns.Temporary {
		out.Err = nil // that there is none is an answer
	}
	slices.Sort(out.Values) // the order of records means nothing, and changes
	return out
}

// View is what the DNS says around a domain.
type View struct {
	Answers Answers
	Zone    string // that the domain's records stand in
	Servers []string
}

// Look asks all that Judge wants to know, within half a minute. What could not
// be learned has an answer that says so.
func Look(ctx context.Context, ask Asker, d *relay.Domain, s Service) View {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	v := View{Answers: Answers{}}
	v.ask(ctx, ask, questions(d, s))
	v.findZone(d.Name)
	v.ask(ctx, ask, v.doubled(d, s))
	for range spfDeepness {
		var missing []Question
		for _, name := range []string{d.Name, host(d.ReturnPath, d.Name)} {
			for _, r := range spfRecords(v.Answers.get(name, "TXT").Values) {
				missing = append(missing, walkSPF(name, r, v.Answers).missing...)
			}
		}
		if len(missing) == 0 {
			break
		}
		v.ask(ctx, ask, missing)
	}
	if records, at, err := dmarcOf(d.Name, v.Answers); err == nil && len(records) == 1 {
		var more []Question
		for _, to := range reportsTo(records[0], at) {
			more = append(more, Question{at + "._report._dmarc." + to, "TXT"})
		}
		v.ask(ctx, ask, more)
	}
	return v
}

// questions are those that every look begins with.
func questions(d *relay.Domain, s Service) []Question {
	qs := []Question{{host(proofLabel, d.Name), "TXT"}, {d.Name, "TXT"}, {"_dmarc." + d.Name, "TXT"}}
	if org := Organisational(d.Name); org != d.Name {
		qs = append(qs, Question{"_dmarc." + org, "TXT"})
	}
	for _, k := range d.Keys {
		qs = append(qs, Question{keyName(k.Selector, d.Name), "TXT"}, Question{keyName(k.Selector, d.Name), "CNAME"})
	}
	if d.ReturnPath != "" {
		name := host(d.ReturnPath, d.Name)
		qs = append(qs, Question{name, "CNAME"}, Question{name, "MX"}, Question{name, "TXT"})
	}
	if d.Tracking != "" && s.TrackHost != "" {
		qs = append(qs, Question{host(d.Tracking, d.Name), "CNAME"}, Question{host(d.Tracking, d.Name), "A"})
	}
	for name := d.Name; ; {
		qs = append(qs, Question{name, "NS"})
		if name == Organisational(d.Name) {
			return qs
		}
		_, name, _ = strings.Cut(name, ".")
	}
}

// findZone finds the nearest name at or above the domain that has name servers.
func (v *View) findZone(name string) {
	v.Zone = Organisational(name)
	for ; ; _, name, _ = strings.Cut(name, ".") {
		if ns := v.Answers.get(name, "NS").Values; len(ns) > 0 {
			v.Zone, v.Servers = name, ns
			return
		}
		if name == v.Zone {
			return
		}
	}
}

// doubled asks for records that are not where they should be, with the zone
// written twice: what comes of a panel that appends it by itself.
func (v *View) doubled(d *relay.Domain, s Service) []Question {
	var qs []Question
	for _, r := range Records(d, s, v.Zone, nil) {
		if r.Purpose == SPF || r.Purpose == DMARC {
			continue
		}
		got := v.Answers.get(r.Name, r.Type)
		if twice := r.Name + "." + v.Zone; got.Err == nil && len(got.Values) == 0 && len(twice) <= 253 {
			qs = append(qs, Question{twice, r.Type})
		}
	}
	return qs
}

// ask puts those of the questions that have no answer yet.
func (v *View) ask(ctx context.Context, ask Asker, qs []Question) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	free := make(chan struct{}, lookAtOnce)
	begun := map[Question]bool{}
	for _, q := range qs {
		if _, known := v.Answers[q]; known || begun[q] || len(v.Answers)+len(begun) >= lookAtMost {
			continue
		}
		begun[q] = true
	}
	for q := range begun {
		wg.Go(func() {
			free <- struct{}{}
			got := ask.Ask(ctx, q)
			<-free
			mu.Lock()
			defer mu.Unlock()
			v.Answers[q] = got
		})
	}
	wg.Wait()
}
