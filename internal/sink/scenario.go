package sink

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pelletier/go-toml/v2"

	"postrider/internal/smtp"
)

// Scenario says what happens to whom. It is read from TOML and not changed
// afterwards; its counts of matches (every) are of all the servers that share it.
type Scenario struct {
	voice      Voice
	localParts bool
	rules      []*rule
	early      [stages][]*rule // rules with a deed at a stage before RCPT
	rcpt       []*rule         // the rest
}

// rule is one [[rule]] that has been checked.
type rule struct {
	index     int
	recipient string
	sender    string
	from, to  int64 // numbers of connections; to 0: no end
	every     int64
	voice     Voice
	action    *action
	accepts   bool // the local part does not count
	matched   atomic.Int64
}

// file is the scenario as it is written.
type file struct {
	Voice      string     `toml:"voice"`
	LocalParts *bool      `toml:"local_parts"`
	Rule       []fileRule `toml:"rule"`
}

type fileRule struct {
	Recipient  string `toml:"recipient"`
	Sender     string `toml:"sender"`
	Connection string `toml:"connection"`
	Every      int64  `toml:"every"`
	Voice      string `toml:"voice"`
	At         string `toml:"at"`
	Do         string `toml:"do"`
	Reply      string `toml:"reply"`
	Close      bool   `toml:"close"`
	Until      string `toml:"until"`
}

// LoadScenario reads a scenario file.
func LoadScenario(path string) (*Scenario, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	return ParseScenario(path, text)
}

// ParseScenario reads a scenario; name stands before what errors say.
func ParseScenario(name string, text []byte) (*Scenario, error) {
	var f file
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&f); err != nil {
		return nil, fmt.Errorf("%s%w", name, explain(err))
	}
	voice, err := ParseVoice(f.Voice)
	if err != nil {
		return nil, fmt.Errorf("%s: voice: %w", name, err)
	}
	s := &Scenario{voice: voice, localParts: f.LocalParts == nil || *f.LocalParts}
	byName := table()
	for i, fr := range f.Rule {
		r, err := fr.check(byName)
		if err != nil {
			return nil, fmt.Errorf("%s: rule %d: %w", name, i+1, err)
		}
		r.index = i + 1
		s.rules = append(s.rules, r)
		if r.action != nil && r.action.stage < AtRcpt {
			s.early[r.action.stage] = append(s.early[r.action.stage], r)
		} else {
			s.rcpt = append(s.rcpt, r)
		}
	}
	return s, nil
}

// explain gives line and key of what TOML refuses, beginning with ":".
func explain(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := strict.Errors[0]
		row, _ := e.Position()
		known := "voice, local_parts, rule"
		if key := e.Key(); len(key) > 1 && key[0] == "rule" {
			known = "recipient, sender, connection, every, voice, at, do, reply, close, until"
		}
		return fmt.Errorf(":%d: unknown key %q; known here: %s", row, strings.Join(e.Key(), "."), known)
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, _ := decode.Position()
		return fmt.Errorf(":%d: %w", row, err)
	}
	return fmt.Errorf(": %w", err)
}

func (f *fileRule) check(byName map[string]*behaviour) (*rule, error) {
	r := &rule{recipient: strings.ToLower(f.Recipient), sender: strings.ToLower(f.Sender), every: f.Every}
	var err error
	if r.from, r.to, err = parseConnections(f.Connection); err != nil {
		return nil, err
	}
	if f.Every < 0 {
		return nil, fmt.Errorf("every: %d is less than 0", f.Every)
	}
	if f.Voice != "" {
		if r.voice, err = ParseVoice(f.Voice); err != nil {
			return nil, fmt.Errorf("voice: %w", err)
		}
	}
	if r.action, r.accepts, err = f.act(byName); err != nil {
		return nil, err
	}
	if r.action == nil {
		if f.At != "" || f.Until != "" || f.Close {
			return nil, errors.New("at, until and close want a do or a reply beside them")
		}
		if !r.accepts && r.voice == "" {
			return nil, errors.New("nothing to do: give do, reply or voice")
		}
		return r, nil
	}
	if stage := r.action.stage; stage < AtRcpt && f.Recipient != "" || stage < AtMail && f.Sender != "" {
		return nil, fmt.Errorf("at = %q comes before the client has named the %s", stage, map[bool]string{true: "recipient", false: "sender"}[f.Recipient != ""])
	}
	return r, nil
}

// act makes the rule's action, or tells that the rule accepts as it is.
func (f *fileRule) act(byName map[string]*behaviour) (*action, bool, error) {
	var a action
	switch {
	case f.Do != "" && f.Reply != "":
		return nil, false, errors.New("give either do or reply")
	case f.Reply != "":
		reply, err := parseReply(f.Reply)
		if err != nil {
			return nil, false, fmt.Errorf("reply: %w", err)
		}
		a = action{name: "reply", stage: AtRcpt, deed: refuse, reply: reply}
	case f.Do != "":
		b, err := parseBehaviour(byName, f.Do)
		if errors.Is(err, errNoBehaviour) {
			return nil, false, fmt.Errorf("do: %q is not a behaviour; postrider sink -list shows them", f.Do)
		}
		if err != nil {
			return nil, false, fmt.Errorf("do: %w", err)
		}
		if b == nil {
			return nil, true, nil
		}
		a = *b
	default:
		return nil, false, nil
	}
	if f.At != "" {
		stage, err := parseStage(f.At)
		if err != nil {
			return nil, false, err
		}
		a.stage = stage
	}
	if f.Close {
		if a.deed != refuse {
			return nil, false, errors.New("close goes only with a reply")
		}
		a.deed = shutdown
	}
	switch {
	case f.Until != "":
		if err := a.take(untilPassed, 0, f.Until); err != nil {
			return nil, false, fmt.Errorf("until: %w", err)
		}
	case a.stage < AtRcpt || f.Connection != "" || f.Every > 0:
		if !strings.Contains(f.Do, "+") { // the rule itself says when
			a.tries, a.span = 0, 0
		}
	}
	return &a, false, a.fits()
}

// fits refuses deeds at stages where they mean nothing.
func (a *action) fits() error {
	switch {
	case (a.stage == After) != (a.deed == react):
		return fmt.Errorf("%s does not go with at = %q: what follows later is something else than a reply", a.name, a.stage)
	case a.stage == AtContent && a.deed != drop && a.deed != silent && a.deed != slow:
		return fmt.Errorf("at = %q goes only with drop, silent and slow behaviours: there is no reply to content", a.stage)
	case a.stage == AtConnect && (a.deed == lengthy || a.deed == terse),
		a.stage == AtEHLO && (a.deed == lengthy || a.deed == terse),
		a.stage == AtStartTLS && (a.deed == lengthy || a.deed == terse),
		a.stage == AtData && (a.deed == lengthy || a.deed == terse):
		return fmt.Errorf("%s does not go with at = %q", a.name, a.stage)
	}
	return nil
}

func parseStage(s string) (Stage, error) {
	for i, name := range stageNames {
		if s == name {
			return Stage(i), nil
		}
	}
	return 0, fmt.Errorf("at: %q is not a stage: %s", s, strings.Join(stageNames[:], ", "))
}

// parseConnections reads "3", "1-3" or "3-".
func parseConnections(s string) (from, to int64, err error) {
	if s == "" {
		return 1, 0, nil
	}
	first, last, isRange := strings.Cut(s, "-")
	from, err = strconv.ParseInt(first, 10, 64)
	if err == nil && isRange && last != "" {
		to, err = strconv.ParseInt(last, 10, 64)
		if to < from {
			err = strconv.ErrRange
		}
	}
	if !isRange {
		to = from
	}
	if err != nil || from < 1 {
		return 0, 0, fmt.Errorf("connection: %q is not a number such as 1, or a range such as 1-3 or 4-", s)
	}
	return from, to, nil
}

// matches tells whether the rule is meant; sender and recipient are in lower
// case.
func (r *rule) matches(connection int64, sender, recipient string) bool {
	return connection >= r.from && (r.to == 0 || connection <= r.to) &&
		(r.sender == "" || glob(r.sender, sender)) &&
		(r.recipient == "" || glob(r.recipient, recipient))
}

// due counts a match and tells whether it is the turn of one.
func (r *rule) due() bool {
	return r.every == 0 || r.matched.Add(1)%r.every == 0
}

// glob matches * with anything, ? with any one byte.
func glob(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// plan is what a scenario says of one recipient.
type plan struct {
	voice  Voice
	action *action
	rule   int // for the memory; 0: the local part chose
	err    error
}

// earlyAction gives the action at a stage before RCPT, or nil.
func (s *Server) earlyAction(stage Stage, connection int64, sender string) (*action, Voice) {
	for _, r := range s.scenario.early[stage] {
		if r.matches(connection, strings.ToLower(sender), "") && r.due() {
			if r.action.limited() && !s.memory.active(r.action, fmt.Sprintf("%d\x00%s", r.index, strings.ToLower(sender)), time.Now()) {
				return nil, r.voice
			}
			return r.action, r.voice
		}
	}
	return nil, ""
}

// choose says what happens to a recipient: the first rule that has a deed
// counts, else the local part. The first rule with a voice gives the voice.
func (s *Server) choose(connection int64, from, to smtp.Address) plan {
	p := plan{voice: s.scenario.voice}
	voiced := false
	if len(s.scenario.rcpt) > 0 {
		sender, recipient := strings.ToLower(from.String()), strings.ToLower(to.String())
		for _, r := range s.scenario.rcpt {
			if !r.matches(connection, sender, recipient) || !r.due() {
				continue
			}
			if r.voice != "" && !voiced {
				p.voice, voiced = r.voice, true
			}
			if r.action != nil || r.accepts {
				p.action, p.rule = r.action, r.index
				return p
			}
		}
	}
	if s.scenario.localParts {
		p.action, p.err = parseBehaviour(s.table, to.Local)
		if p.err == errNoBehaviour {
			p.err = nil
		}
	}
	return p
}
