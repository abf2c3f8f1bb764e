package dns

import "fmt"

// Kind says what a failed look-up means for the mail.
type Kind int8

const (
	// Temporary: nobody could say now. The mail waits.
	Temporary Kind = iota
	// NotFound: the name does not exist, or cannot be one. The mail bounces.
	NotFound
	// NullMX: the domain says that it takes no mail (RFC 7505). The mail
	// bounces.
	NullMX
	// NoAddress: the name exists, but no host to connect to comes of it. The
	// mail bounces.
	NoAddress
)

func (k Kind) String() string {
	switch k {
	case Temporary:
		return "temporary"
	case NotFound:
		return "not-found"
	case NullMX:
		return "null-mx"
	case NoAddress:
		return "no-address"
	}
	return fmt.Sprintf("unknown(%d)", int8(k))
}

// Error is why a look-up brought nothing. Text is a sentence for people that
// names the server that said so; Err is the cause where there is one, such as
// the error of an ended context.
type Error struct {
	Kind Kind
	Name string // what was looked up
	Text string
	Err  error
}

func (e *Error) Error() string { return e.Text }

func (e *Error) Unwrap() error { return e.Err }
