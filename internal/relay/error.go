package relay

import (
	"errors"
	"time"
)

// Code says what kind of thing went wrong; each entrance (SMTP, HTTP) has its
// own words for it.
type Code string

const (
	Invalid         Code = "invalid"         // the request itself is wrong
	BadAddress      Code = "bad-address"     // an address that cannot be one
	BadContent      Code = "bad-content"     // the message breaks a rule that we hold it to
	TooLarge        Code = "too-large"       // for ever
	TooMany         Code = "too-many"        // recipients in one message
	Unauthenticated Code = "unauthenticated" // no or wrong credentials
	Forbidden       Code = "forbidden"       // authenticated, yet not allowed
	NotFound        Code = "not-found"
	Conflict        Code = "conflict" // the thing is not in a state that allows it
	Repeated        Code = "repeated" // it was done before; an Earlier in the chain tells what came of it
	Loop            Code = "loop"     // the message has been here too often
	Busy            Code = "busy"     // too much at once: come back
	Full            Code = "full"     // no room to store it: come back
	Unavailable     Code = "unavailable"
	Internal        Code = "internal"
	RateLimited     Code = "rate-limited" // a limit is used up: come back when Retry says
	Unverified      Code = "unverified"   // mail in a name that is not shown to be the account's
	Suppressed      Code = "suppressed"   // a recipient that the account must not send to
)

// Error is an error that people read. Text says what was wrong, Advice how to
// mend it; neither holds a secret or the name of another tenant. Err is the
// cause, for the log only.
type Error struct {
	Code     Code
	Text     string
	Advice   string
	Enhanced string    // status code (RFC 3463), where it tells more than the usual one of Code; else empty
	Retry    time.Time // when it is worth coming back, where that is known; else zero
	Err      error
}

func (e *Error) Error() string {
	s := e.Text
	if e.Advice != "" {
		s += " " + e.Advice
	}
	if e.Err != nil {
		s += " (" + e.Err.Error() + ")"
	}
	return s
}

// Reply is the code and the enhanced code with which SMTP refuses, and which other
// entrances tell too.
func (e *Error) Reply() (code int, enhanced string) {
	code, enhanced = e.Code.reply()
	if e.Enhanced != "" && e.Enhanced[0]-'0' == byte(code/100) { // the classes must agree (RFC 3463 section 2)
		enhanced = e.Enhanced
	}
	return code, enhanced
}

// reply is the usual one (RFC 5321 section 4.2, RFC 3463).
func (c Code) reply() (int, string) {
	switch c {
	case Invalid:
		return 554, "5.5.0"
	case BadAddress:
		return 553, "5.1.3"
	case BadContent:
		return 554, "5.6.0"
	case TooLarge:
		return 552, "5.3.4"
	case TooMany:
		return 452, "4.5.3"
	case Unauthenticated:
		return 530, "5.7.0"
	case Forbidden, Unverified, Suppressed:
		return 550, "5.7.1"
	case RateLimited:
		return 451, "4.7.1"
	case NotFound, Conflict:
		return 554, "5.5.0"
	case Loop:
		return 554, "5.4.6"
	case Busy:
		return 451, "4.3.1"
	case Full:
		return 452, "4.3.1"
	default: // Unavailable, Internal
		return 451, "4.3.0"
	}
}

func (e *Error) Unwrap() error { return e.Err }

// CodeOf is the code of the first Error in err's chain, or Internal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// Earlier is the message that a repeated request made when it came first.
type Earlier struct{ Message ID }

func (e *Earlier) Error() string { return "message " + e.Message.String() + " was made by it" }
