package smtpd

import (
	"errors"
	"log/slog"
	"testing"

	"postrider/internal/relay"
)

func TestRefusal(t *testing.T) {
	s := &session{log: slog.New(slog.DiscardHandler)}
	for _, tt := range []struct {
		err      error
		code     int
		enhanced string
	}{
		{&relay.Error{Code: relay.Invalid, Text: "x"}, 554, "5.5.0"},
		{&relay.Error{Code: relay.BadContent, Text: "x", Enhanced: "5.6.11"}, 554, "5.6.11"},
		{&relay.Error{Code: relay.BadContent, Text: "x", Enhanced: "4.6.11"}, 554, "5.6.0"},
		{&relay.Error{Code: relay.Forbidden, Text: "x"}, 550, "5.7.1"},
		{&relay.Error{Code: relay.Unverified, Text: "x"}, 550, "5.7.1"},
		{&relay.Error{Code: relay.Unverified, Text: "x", Enhanced: "5.7.26"}, 550, "5.7.26"},
		{&relay.Error{Code: relay.Suppressed, Text: "x"}, 550, "5.7.1"},
		{&relay.Error{Code: relay.RateLimited, Text: "x"}, 451, "4.7.1"},
		{&relay.Error{Code: relay.Busy, Text: "x"}, 451, "4.3.1"},
		{&relay.Error{Code: relay.Full, Text: "x"}, 452, "4.3.1"},
		{&relay.Error{Code: relay.Unavailable, Text: "x"}, 451, "4.3.0"},
		{errors.New("secret cause"), 451, "4.3.0"},
	} {
		r := s.refusal(tt.err)
		if r.Code != tt.code || r.Enhanced != tt.enhanced {
			t.Errorf("%#v: %s; want %d %s", tt.err, r, tt.code, tt.enhanced)
		}
	}
}
