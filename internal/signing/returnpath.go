package signing

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"postrider/internal/relay"
	"postrider/internal/seal"
)

// ReturnPaths makes and reads the addresses that mail comes back to: for bounces one
// for each delivery (VERP), so that a bounce names its delivery whatever its text
// says; for unsubscribing by mail; and for complaints of providers. A code keeps
// others from making up any. All nodes make the same.
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

// The other addresses and marks have codes of their own kinds: who sees one can't
// make another of it.
const (
	unsubscribes = "u+" // of the mailto link of List-Unsubscribe
	loops        = "f+" // for the complaints of a provider (feedback loop)
	marks        = "m+" // of MarkField
)

// MarkField is the header field that names each message, for complaints whose other
// traces are taken out.
const MarkField = "X-Postrider-ID"

// Unsubscribe is the address that a recipient unsubscribes at by mail:
// u+<delivery>.<code>@<host>.
func (p *ReturnPaths) Unsubscribe(id relay.DeliveryID, host string) string {
	return unsubscribes + id.String() + "." + p.codeOf(unsubscribes+id.String()) + "@" + host
}

// ParseUnsubscribe reads such an address.
func (p *ReturnPaths) ParseUnsubscribe(address string) (relay.DeliveryID, error) {
	local, _, _ := strings.Cut(address, "@")
	rest, ok := strings.CutPrefix(strings.ToLower(local), unsubscribes)
	text, code, _ := strings.Cut(rest, ".")
	id, err := relay.ParseDeliveryID(text)
	if !ok || err != nil || id.String() != text || !hmac.Equal([]byte(code), []byte(p.codeOf(unsubscribes+text))) {
		return relay.DeliveryID{}, fmt.Errorf("%.100q %w", address, errNotOurs)
	}
	return id, nil
}

// Loop is the address to register for the complaints of a provider, whose name is
// of letters, digits and hyphens: f+<provider>.<code>@<host>.
func (p *ReturnPaths) Loop(provider, host string) string {
	provider = strings.ToLower(provider)
	return loops + provider + "." + p.codeOf(loops+provider) + "@" + host
}

// ParseLoop reads such an address, and gives the provider.
func (p *ReturnPaths) ParseLoop(address string) (provider string, err error) {
	local, _, _ := strings.Cut(address, "@")
	rest, ok := strings.CutPrefix(strings.ToLower(local), loops)
	provider, code, _ := strings.Cut(rest, ".")
	if !ok || provider == "" || !hmac.Equal([]byte(code), []byte(p.codeOf(loops+provider))) {
		return "", fmt.Errorf("%.100q %w", address, errNotOurs)
	}
	return provider, nil
}

// Mark is what MarkField says of a message.
func (p *ReturnPaths) Mark(id relay.ID) string {
	return id.String() + "." + p.codeOf(marks+id.String())
}

// marked finds what may be a mark, or the local part of a return path.
var marked = regexp.MustCompile(`(?i)(?:\bb\+[0-9a-z]{26}-[0-9]{1,10}|\b[0-9a-z]{26})\.[a-z2-7]{16}\b`)

// maxMarks bounds how many are tried of a mail.
const maxMarks = 100

// Find gives the delivery that a text is about, by the first return path of ours in
// it; or the message, with a delivery of number 0, by its mark.
func (p *ReturnPaths) Find(text []byte) (id relay.DeliveryID, ok bool) {
	for _, found := range marked.FindAll(text, maxMarks) {
		word := strings.ToLower(string(found))
		if id, err := p.Parse(word); err == nil {
			return id, true
		}
		name, code, _ := strings.Cut(word, ".")
		of, err := relay.ParseID(name)
		if err == nil && of.String() == name && hmac.Equal([]byte(code), []byte(p.codeOf(marks+name))) {
			id.Message, ok = of, true // a return path would say more
		}
	}
	return id, ok
}

// codeText is base32 in lower case: it survives a change of case.
var codeText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// code is that of a return path.
func (p *ReturnPaths) code(id relay.DeliveryID) string { return p.codeOf(id.String()) }

// codeOf is 80 bits of an HMAC.
func (p *ReturnPaths) codeOf(what string) string {
	mac := hmac.New(sha256.New, p.key)
	mac.Write([]byte(what))
	return codeText.EncodeToString(mac.Sum(nil)[:10])
}
