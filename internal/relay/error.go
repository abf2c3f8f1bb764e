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
