package sink

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// doAuth is RFC 4954, with PLAIN (RFC 4616) and LOGIN.
func (s *session) doAuth(args string) bool {
	switch {
	case s.srv.cfg.Auth == nil:
		return s.mistake(502, "5.5.1", "AUTH is not offered")
	case s.user != "":
		return s.mistake(503, "5.5.1", "You are logged in already")
	case s.mail:
		return s.mistake(503, "5.5.1", "Not inside a transaction")
	}
	mechanism, initial, _ := strings.Cut(args, " ")
	var user, password string
	var ok bool
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		var b []byte
		b, ok = s.answer(initial, "")
		if parts := bytes.Split(b, []byte{0}); len(parts) == 3 {
			user, password = string(parts[1]), string(parts[2])
		}
	case "LOGIN":
		var u, p []byte
		if u, ok = s.answer(initial, "VXNlcm5hbWU6"); ok {
			p, ok = s.answer("", "UGFzc3dvcmQ6")
		}
		user, password = string(u), string(p)
	default:
		return s.mistake(504, "5.5.4", "Mechanisms are PLAIN and LOGIN")
	}
	if !ok {
		return s.mistake(501, "5.5.2", "That is not base64, or you cancelled")
	}
	want := s.srv.cfg.Auth
	if user == "" || want.User != "" && (user != want.User || password != want.Password) {
		return s.mistake(535, "5.7.8", "Authentication credentials invalid")
	}
	s.user = user
	s.write([]byte("235 2.7.0 Authentication successful\r\n"))
	return true
}

// answer gives the client's next answer, decoded: the initial one, or else what
// it says to a challenge.
func (s *session) answer(initial, challenge string) ([]byte, bool) {
	switch initial {
	case "":
		s.write([]byte("334 " + challenge + "\r\n"))
		line, err := s.readLine()
		if err != nil {
			return nil, false
		}
		initial = string(line)
	case "=": // RFC 4954 section 4: an empty initial response
		return nil, true
	}
	b, err := base64.StdEncoding.DecodeString(initial)
	return b, err == nil
}
