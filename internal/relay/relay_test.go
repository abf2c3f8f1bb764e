package relay

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestIDText(t *testing.T) {
	id := ID{0x01, 0x93, 0x4b, 0x2c, 0x11, 0x22, 0x7a, 0xbc, 0x8d, 0xef, 1, 2, 3, 4, 5, 6}
	for _, s := range []string{id.String(), strings.ToUpper(id.String()), " " + id.String() + "\n", "01934b2c-1122-7abc-8def-010203040506"} {
		got, err := ParseID(s)
		if err != nil || got != id {
			t.Errorf("ParseID(%q) = %v, %v; want %v", s, got, err, id)
		}
	}
	for _, s := range []string{"", "x", id.String()[1:], id.String() + "0", "uuuuuuuuuuuuuuuuuuuuuuuuuu", "01934b2c-1122-7abc-8def-01020304050g"} {
		if got, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %v; want an error", s, got)
		}
	}
	if len(id.String()) != 26 {
		t.Errorf("%q has %d characters", id, len(id.String()))
	}
}

// People sort ids as text: that must be the order of time.
func TestIDOrder(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 678e6, time.UTC)
	a, b := FirstIDAt(at), FirstIDAt(at.Add(time.Millisecond))
	if !(a.String() < b.String()) {
		t.Errorf("%s is not before %s", a, b)
	}
	if !a.Time().Equal(at) {
		t.Errorf("time of the id is %v, want %v", a.Time(), at)
	}
}

func TestDeliveryID(t *testing.T) {
	d := DeliveryID{Message: FirstIDAt(time.Now()), N: 12}
	got, err := ParseDeliveryID(d.String())
	if err != nil || got != d {
		t.Errorf("ParseDeliveryID(%q) = %v, %v", d, got, err)
	}
	for _, s := range []string{"", d.Message.String(), d.Message.String() + "-", d.Message.String() + "-0", d.Message.String() + "-x", "abc-1"} {
		if got, err := ParseDeliveryID(s); err == nil {
			t.Errorf("ParseDeliveryID(%q) = %v; want an error", s, got)
		}
	}
}

// The event decides the state; which states end a delivery decides what is kept.
func TestStateOfEvent(t *testing.T) {
	final := map[State]bool{Queued: false, Deferred: false, Held: false, Delivered: true, Bounced: true, Expired: true, Cancelled: true}
	want := map[Kind]State{EventAccepted: Queued, EventDelivered: Delivered, EventDeferred: Deferred, EventBounced: Bounced,
		EventExpired: Expired, EventHeld: Held, EventReleased: Queued, EventCancelled: Cancelled}
	for kind, state := range want {
		if kind.State() != state {
			t.Errorf("%v makes it %v, want %v", kind, kind.State(), state)
		}
		if state.Final() != final[state] {
			t.Errorf("%v final: %v", state, state.Final())
		}
		back, err := ParseState(state.String())
		if err != nil || back != state {
			t.Errorf("ParseState(%q) = %v, %v", state, back, err)
		}
	}
	if _, err := ParseState("lost"); err == nil {
		t.Error("a state that does not exist is read")
	}
}

func TestNotifyWants(t *testing.T) {
	for _, tt := range []struct {
		n                       Notify
		success, failure, delay bool
	}{
		{0, false, true, true}, // RFC 3461 section 4.1: the default is up to us
		{NotifyNever, false, false, false},
		{NotifySuccess, true, false, false},
		{NotifyFailure | NotifyDelay, false, true, true},
		{NotifyNever | NotifySuccess, false, false, false},
	} {
		got := [3]bool{tt.n.Wants(NotifySuccess), tt.n.Wants(NotifyFailure), tt.n.Wants(NotifyDelay)}
		if got != [3]bool{tt.success, tt.failure, tt.delay} {
			t.Errorf("%v wants %v", tt.n, got)
		}
	}
}

func TestErrorKeepsItsCode(t *testing.T) {
	cause := errors.New("disk")
	err := fmt.Errorf("put: %w", &Error{Code: Full, Text: "No room.", Advice: "Try later.", Err: cause})
	if CodeOf(err) != Full || !errors.Is(err, cause) {
		t.Errorf("code %v, cause kept: %v", CodeOf(err), errors.Is(err, cause))
	}
	if CodeOf(cause) != Internal {
		t.Errorf("code of a foreign error: %v", CodeOf(cause))
	}
	if got, want := err.Error(), "put: No room. Try later. (disk)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestReplyString(t *testing.T) {
	for want, r := range map[string]Reply{
		"550 5.1.1 no such user": {Code: 550, Enhanced: "5.1.1", Text: "no such user"},
		"4.4.1 refused":          {Enhanced: "4.4.1", Text: "refused"},
		"250 ok":                 {Code: 250, Text: "ok"},
	} {
		if r.String() != want {
			t.Errorf("%q, want %q", r.String(), want)
		}
	}
}
