package sink

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"postrider/internal/smtp"
)

// verdict is what remains to be done after an action.
type verdict uint8

const (
	proceed  verdict = iota // answer as usual
	accepted                // answered, and that was a yes
	answered                // answered, and that was a no
	gone                    // the connection ends
)

// early carries out what a scenario asks for at a stage before RCPT.
func (s *session) early(stage Stage) verdict {
	if len(s.srv.scenario.early[stage]) == 0 {
		return proceed
	}
	a, voice := s.srv.earlyAction(stage, s.number, s.from.String())
	if voice != "" {
		s.voice = s.srv.voices[voice]
	}
	if a == nil {
		return proceed
	}
	return s.perform(a)
}

// at carries out what a recipient asked for at a stage after RCPT.
func (s *session) at(stage Stage) verdict {
	if a := s.later[stage]; a != nil {
		return s.perform(a)
	}
	return proceed
}

// perform carries out an action.
func (s *session) perform(a *action) verdict {
	s.fault(a.name)
	switch a.deed {
	case refuse, shutdown:
		r := s.render(a.kind)
		if a.reply != nil {
			r = *a.reply
		}
		s.reply(r)
		switch {
		case a.deed == shutdown || r.Code == 421:
			return gone
		case r.Code < 400:
			return accepted
		}
		return answered
	case drop:
		return s.cut()
	case silent:
		if s.flush() == nil {
			s.silence()
		}
		return s.cut()
	case slow:
		if a.stage == AtContent {
			s.readPause = a.pause
		} else {
			s.delay = a.pause
		}
	case tarpit:
		s.perByte = a.pause
	case lengthy:
		r := smtp.Reply{Code: 250, Enhanced: "2.1.5"}
		for i := range a.lines {
			r.Lines = append(r.Lines, fmt.Sprintf("Ok, line %d of %d", i+1, a.lines))
		}
		s.reply(r)
		return accepted
	case terse:
		s.write([]byte("250\r\n"))
		return accepted
	case garbage:
		s.write([]byte("\x00\xff<html>Not SMTP at all\r\n"))
		return answered
	}
	return proceed
}

// cut sends the replies to earlier commands, and closes at once.
func (s *session) cut() verdict {
	s.flush()
	s.raw.Close()
	return gone
}

// silence waits without a word until the client goes away, or its patience is
// past ours.
func (s *session) silence() {
	s.conn.SetReadDeadline(time.Now().Add(s.srv.cfg.Idle))
	if s.srv.closing.Load() {
		return
	}
	io.Copy(io.Discard, s.conn)
}

// fault counts an action.
func (s *session) fault(name string) {
	s.srv.counters.fault(name)
	s.log(name, s.rcpt)
}

// say gives a reply in the words of the voice.
func (s *session) say(k kind) {
	p := &s.voice[k]
	if p.static == nil {
		s.reply(s.render(k))
		return
	}
	if p.code >= 400 {
		s.srv.counters.refusal(p.code)
	}
	s.write(p.static)
}

// render fills in what the voice says.
func (s *session) render(k kind) smtp.Reply {
	p := &s.voice[k]
	return smtp.NewReply(p.code, p.enhanced, s.expand(p.text))
}

// reply gives a reply in its own words.
func (s *session) reply(r smtp.Reply) {
	if !s.offers(EnhancedCodes) {
		r.Enhanced = ""
	}
	if r.Code >= 400 {
		s.srv.counters.refusal(r.Code)
	}
	s.write(r.AppendTo(nil))
}

// write adds to the replies that go out with the next read, or, where each is
// late, waits first.
func (s *session) write(b []byte) {
	if s.srv.debug {
		s.srv.cfg.Log.Debug("reply", "connection", s.number, "text", strings.TrimRight(string(b), "\r\n"))
	}
	if s.delay > 0 && s.flush() == nil {
		sleep(s.ctx, s.delay)
	}
	s.out = append(s.out, b...)
	if len(s.out) > maxReplies {
		s.flush()
	}
}

// flush sends the replies.
func (s *session) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	out := s.out
	s.out = s.out[:0]
	if s.perByte == 0 {
		_, err := s.conn.Write(out)
		return err
	}
	for i := range out {
		if !sleep(s.ctx, s.perByte) {
			return s.ctx.Err()
		}
		s.renew()
		if _, err := s.conn.Write(out[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// expand fills in the places of a text.
func (s *session) expand(text string) string {
	var b []byte
	for {
		i := strings.IndexByte(text, '{')
		if i < 0 {
			return string(append(b, text...))
		}
		b = append(b, text[:i]...)
		name, rest, _ := strings.Cut(text[i+1:], "}")
		b = append(b, s.place(name)...)
		text = rest
	}
}

// place gives the text for one {place}.
func (s *session) place(name string) string {
	switch name {
	case "id":
		return s.ident()
	case "ip":
		host, _, _ := net.SplitHostPort(s.peer())
		return host
	case "rcpt":
		return s.rcpt.String()
	case "rcptdomain":
		return s.rcpt.Domain
	case "from":
		return s.from.String()
	case "fromdomain":
		return s.from.Domain
	case "n":
		return strconv.FormatInt(s.number, 10)
	case "unix":
		return strconv.FormatInt(time.Now().Unix(), 10)
	case "date":
		return time.Now().UTC().Format(time.RFC1123Z)
	case "iso":
		return time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return "{" + name + "}"
}

// ident names the session or the message.
func (s *session) ident() string {
	if s.id == "" {
		var buf [40]byte
		b := append(append(buf[:0], s.srv.idPrefix...), '-')
		s.id = string(strconv.AppendInt(b, s.srv.ids.Add(1), 36))
	}
	return s.id
}
