// Package link makes and reads the links of a delivery: paths on a tracking host,
// signed, that name the delivery and what somebody who follows them wants.
package link

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"

	"postrider/internal/relay"
	"postrider/internal/seal"
)

// Kind is what a link is for.
type Kind byte

const (
	Open        Kind = 'o' // the pixel of an HTML part
	Click       Kind = 'c' // leads on to its Target
	Unsubscribe Kind = 'u'
	Preferences Kind = 'p'
)

// Link is one that we made.
type Link struct {
	Kind     Kind
	Delivery relay.DeliveryID
	// Target is what the link is bound to besides: the address that a click leads
	// to; of other kinds whatever their maker wants, or nothing.
	Target string

	tag [tagSize]byte
}

const (
	// MaxTarget is the longest target in bytes. With it a link has less than the
	// 2,083 characters that some mail programs and gateways take.
	MaxTarget = 1450

	tagSize  = 4  // of the account
	codeSize = 10 // 80 bits of an HMAC
)

// Links makes and reads links. All nodes make the same. It may be used by many
// goroutines.
type Links struct{ key, accounts []byte }

// New makes Links with keys that come of the master key.
func New(box *seal.Box) (*Links, error) {
	key, err := box.Derive("link", sha256.Size)
	if err != nil {
		return nil, err
	}
	accounts, err := box.Derive("link account", sha256.Size)
	if err != nil {
		return nil, err
	}
	return &Links{key, accounts}, nil
}

var text = base64.RawURLEncoding.Strict()

// Path is the path of a link, from its first slash: /c/<token>, and for a target
// /c/<token>/<target>. It says nothing of the host, and is the same each time.
// A target that is longer than MaxTarget makes a link that can't be read.
func (l *Links) Path(k Kind, account relay.ID, d relay.DeliveryID, target string) string {
	return l.path(Link{Kind: k, Delivery: d, Target: target, tag: l.tag(account)})
}

func (l *Links) path(of Link) string {
	token := make([]byte, 0, 64)
	token = append(token, of.Delivery.Message[:]...)
	token = binary.AppendUvarint(token, uint64(of.Delivery.N))
	token = append(token, of.tag[:]...)
	mac := hmac.New(sha256.New, l.key)
	mac.Write([]byte{byte(of.Kind)})
	mac.Write(token) // which says where it ends
	mac.Write([]byte(of.Target))
	token = append(token, mac.Sum(nil)[:codeSize]...)

	out := make([]byte, 0, 4+text.EncodedLen(len(token))+text.EncodedLen(len(of.Target)))
	out = text.AppendEncode(append(out, '/', byte(of.Kind), '/'), token)
	if of.Target != "" {
		out = text.AppendEncode(append(out, '/'), []byte(of.Target))
	}
	return string(out)
}

// ErrNotOurs says of a path that it is no link of ours, or not any more: something
// of it was changed. It does not say what, since who forges links need not know.
var ErrNotOurs = errors.New("is no link of ours")

// Parse reads the path of a link.
func (l *Links) Parse(path string) (Link, error) {
	if len(path) < 4 || path[0] != '/' || path[2] != '/' || len(path) > 4+100+text.EncodedLen(MaxTarget) {
		return Link{}, ErrNotOurs
	}
	of := Link{Kind: Kind(path[1])}
	switch of.Kind {
	case Open, Click, Unsubscribe, Preferences:
	default:
		return Link{}, ErrNotOurs
	}
	token, target, _ := strings.Cut(path[3:], "/")
	b, err := text.DecodeString(token)
	if err != nil || len(b) < len(of.Delivery.Message) {
		return Link{}, ErrNotOurs
	}
	b = b[copy(of.Delivery.Message[:], b):]
	n, size := binary.Uvarint(b)
	if size <= 0 || n == 0 || n > 1<<31-1 || len(b) != size+tagSize+codeSize {
		return Link{}, ErrNotOurs
	}
	of.Delivery.N = int(n)
	copy(of.tag[:], b[size:])
	to, err := text.DecodeString(target)
	if err != nil || len(to) > MaxTarget {
		return Link{}, ErrNotOurs
	}
	of.Target = string(to)
	// What can be written in many ways must have been written in ours.
	if !hmac.Equal([]byte(path), []byte(l.path(of))) {
		return Link{}, ErrNotOurs
	}
	return of, nil
}

// Of tells whether a link is one of the account, without a look at the store.
func (l *Links) Of(account relay.ID, of Link) bool {
	tag := l.tag(account)
	return hmac.Equal(tag[:], of.tag[:])
}

// tag stands for an account in links. It does not tell which one, and keeps a
// link of one account from working on the host of another.
func (l *Links) tag(account relay.ID) (tag [tagSize]byte) {
	mac := hmac.New(sha256.New, l.accounts)
	mac.Write(account[:])
	copy(tag[:], mac.Sum(nil))
	return tag
}
