package signing

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"postrider/internal/relay"
	"postrider/internal/seal"
)

// ReturnPaths makes and reads the addresses that bounces come back to, one for
// each delivery (VERP), so that a bounce names its delivery whatever its text
// says. A code keeps others from making up bounces. All nodes make the same.
type ReturnPaths struct{ key []byte }

// NewReturnPaths makes them with a key that comes of the master key.
func NewReturnPaths(box *seal.Box) (*ReturnPaths, error) {
	key, err := box.Derive("return path", sha256.Size)
	if err != nil {
		return nil, err
	}
	return &ReturnPaths{key}, nil
}

// bounces begins the local part of each address. What follows is in lower case
// and read in any, since some servers change it.
const bounces = "b+"

// Address is the return path of a delivery, at a host that takes bounces:
// b+<delivery>.<code>@<host>. Its local part has less than the 64 octets of RFC
// 5321 section 4.5.3.1.1.
func (p *ReturnPaths) Address(id relay.DeliveryID, host string) string {
	return bounces + id.String() + "." + p.code(id) + "@" + host
}

// errNotOurs says nothing of what is wrong: a sender of forged bounces need not
// know.
var errNotOurs = errors.New("is no address that bounces come back to")

// Parse reads an address, or only its local part, and gives the delivery that it
// was made for.
func (p *ReturnPaths) Parse(address string) (relay.DeliveryID, error) {
	local, _, _ := strings.Cut(address, "@")
	rest, ok := strings.CutPrefix(strings.ToLower(local), bounces)
	text, code, found := strings.Cut(rest, ".")
	id, err := relay.ParseDeliveryID(text)
	// An id that can be written in many ways must have been written in ours.
	if !ok || !found || err != nil || id.String() != text || !hmac.Equal([]byte(code), []byte(p.code(id))) {
		return relay.DeliveryID{}, fmt.Errorf("%.100q %w", address, errNotOurs)
	}
	return id, nil
}

// codeText is base32 in lower case: it survives a change of case.
var codeText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// code is 80 bits of an HMAC.
func (p *ReturnPaths) code(id relay.DeliveryID) string {
	mac := hmac.New(sha256.New, p.key)
	mac.Write([]byte(id.String()))
	return codeText.EncodeToString(mac.Sum(nil)[:10])
}
