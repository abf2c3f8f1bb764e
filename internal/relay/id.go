package relay

import (
	"bytes"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ID names an account, a credential, a message or an event: a UUIDv7 in 16
// bytes, so that the order of ids is the order of creation.
type ID [16]byte

// Everyone stands, where an account is asked for, for all accounts. Only the
// operator's tools pass it; it is never the zero value, so that a forgotten
// account finds nothing.
var Everyone = ID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// idText is base32 in Crockford's alphabet, lower case: 26 characters that keep
// the order of the bytes, are marked whole by a double click, and survive
// systems that fold the case of a local part.
var idText = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// String gives the 26 characters in which people meet the id.
func (id ID) String() string { return idText.EncodeToString(id[:]) }

// IsZero tells whether the id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Compare gives -1, 0 or 1, as id is less than, equal to or greater than other.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// Time is when the id was made, to the millisecond (RFC 9562 section 5.7).
func (id ID) Time() time.Time {
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).UTC()
}

// FirstIDAt is the least id that can be made at t: what is greater was made then
// or later.
func FirstIDAt(t time.Time) ID {
	var id ID
	ms := t.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	return id
}

// MarshalText writes the id as String does.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what ParseID reads.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = v
	return nil
}

// ParseID reads an id in its 26 characters, in any case, or as the usual 36
// characters of a UUID.
func ParseID(s string) (ID, error) {
	var id ID
	s = strings.ToLower(strings.TrimSpace(s))
	switch len(s) {
	case 26:
		b, err := idText.DecodeString(s)
		if err == nil && copy(id[:], b) == len(id) {
			return id, nil
		}
	case 36:
		b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
		if err == nil && len(b) == len(id) && copy(id[:], b) == len(id) {
			return id, nil
		}
	}
	return ID{}, fmt.Errorf("%q is not an id: 26 letters and digits are wanted, as in the reply to DATA", s)
}

// DeliveryID names one recipient of one message.
type DeliveryID struct {
	Message ID
	N       int // place of the recipient in the envelope, from 1
}

// String gives the message's id, a hyphen and the recipient's number.
func (d DeliveryID) String() string { return d.Message.String() + "-" + strconv.Itoa(d.N) }

// MarshalText writes the id as String does.
func (d DeliveryID) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDeliveryID reads.
func (d *DeliveryID) UnmarshalText(b []byte) error {
	v, err := ParseDeliveryID(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// ParseDeliveryID reads what DeliveryID.String writes.
func ParseDeliveryID(s string) (DeliveryID, error) {
	i := strings.LastIndexByte(s, '-')
	if i < 0 {
		return DeliveryID{}, fmt.Errorf("%q is not a delivery: a message id, a hyphen and the recipient's number are wanted", s)
	}
	id, err := ParseID(s[:i])
	if err != nil {
		return DeliveryID{}, err
	}
	n, err := strconv.Atoi(s[i+1:])
	if err != nil || n < 1 {
		return DeliveryID{}, fmt.Errorf("%q is not a delivery: %q is not a recipient's number", s, s[i+1:])
	}
	return DeliveryID{Message: id, N: n}, nil
}
