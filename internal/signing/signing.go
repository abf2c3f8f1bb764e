package signing

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"postrider/internal/mailauth"
	"postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/smtp"
)

// Directory finds the domain of an account that a name is, or that it is below;
// nil where there is none. Domains are not changed after they were given out.
type Directory interface {
	Domain(ctx context.Context, account relay.ID, name string) (*relay.Domain, error)
}

// Signer signs messages and names their return paths. It may be used by many
// goroutines.
type Signer struct {
	box       *seal.Box
	directory Directory
	service   []mailauth.Signer
	paths     *ReturnPaths
	now       func() time.Time
	made      *cache[[]byte]
	keys      *cache[*mailauth.Key]
}

// Bounds of what is remembered: signatures of some 1.5 kB, and keys of some 3 kB.
const (
	rememberedSignatures = 4000
	rememberedKeys       = 4000
)

// New makes a Signer. Service signs everything beside the domain that it is sent
// in the name of; it may be empty.
func New(box *seal.Box, d Directory, service []mailauth.Signer) (*Signer, error) {
	paths, err := NewReturnPaths(box)
	if err != nil {
		return nil, err
	}
	return &Signer{box: box, directory: d, service: service, paths: paths, now: time.Now,
		made: newCache[[]byte](rememberedSignatures), keys: newCache[*mailauth.Key](rememberedKeys)}, nil
}

// Sign gives the DKIM-Signature fields that go before the content of m, with a mark
// of ours that they cover, as it is
// about to be sent: none where there is nobody to sign for. Those of one message
// and rendering are made once; rendering names what the content is, the same name
// for the same bytes, and is empty for what goes to one recipient alone. An error says that it must not be sent now: a domain that
// signs sends nothing unsigned.
func (s *Signer) Sign(ctx context.Context, m *relay.Message, content relay.Content, rendering string) ([]byte, error) {
	d, err := s.domain(ctx, m)
	if err != nil {
		return nil, err
	}
	signers, err := s.signers(ctx, d)
	if err != nil || len(signers) == 0 {
		return nil, err
	}
	sign := func() ([]byte, error) {
		rc, err := content.Open()
		if err != nil {
			return nil, fmt.Errorf("sign message: %w", err)
		}
		defer rc.Close()
		// By the mark a complaint finds its message, though all else be taken out.
		mark := []byte(MarkField + ": " + s.paths.Mark(m.ID) + "\r\n")
		fields, err := mailauth.Sign(io.MultiReader(bytes.NewReader(mark), rc), s.now(), signers...)
		return append(fields, mark...), err
	}
	if rendering == "" {
		return sign()
	}
	return s.made.get(ctx, m.ID.String()+" "+rendering+" "+names(d, signers), sign)
}

// ReturnPath is the envelope sender that a delivery of m is sent with: one that
// its bounces come back to us by, where the return path of the domain in From
// works, else the sender's own. The null sender stays.
func (s *Signer) ReturnPath(ctx context.Context, m *relay.Message, id relay.DeliveryID) (address string, ours bool, err error) {
	if m.Envelope.Sender == "" {
		return "", false, nil
	}
	d, err := s.domain(ctx, m)
	if err != nil {
		return "", false, err
	}
	if d == nil || d.Aligned.IsZero() || d.ReturnPath == "" {
		return m.Envelope.Sender, false, nil
	}
	return s.paths.Address(id, d.ReturnPath+"."+d.Name), true, nil
}

// domain is that in whose name the message is sent; nil: none that we know of.
func (s *Signer) domain(ctx context.Context, m *relay.Message) (*relay.Domain, error) {
	name := smtp.ASCIIDomainOf(m.From)
	if name == "" {
		return nil, nil
	}
	d, err := s.directory.Domain(ctx, m.Account, name)
	if err != nil {
		return nil, fmt.Errorf("find the domain of %s: %w", m.From, err)
	}
	return d, nil
}

// signers are those who sign for a domain, and for the service.
func (s *Signer) signers(ctx context.Context, d *relay.Domain) ([]mailauth.Signer, error) {
	var all []mailauth.Signer
	if d != nil {
		for _, k := range d.Keys {
			if k.State != relay.KeySigning {
				continue
			}
			key, err := s.key(ctx, d, k)
			if err != nil {
				return nil, err
			}
			all = append(all, mailauth.Signer{Domain: d.Name, Selector: k.Selector, Key: key})
		}
	}
	for _, own := range s.service {
		if d == nil || own.Domain != d.Name || len(all) == 0 {
			all = append(all, own)
		}
	}
	return all, nil
}

// key opens a key, or gives what it opened before.
func (s *Signer) key(ctx context.Context, d *relay.Domain, k relay.DKIMKey) (*mailauth.Key, error) {
	return s.keys.get(ctx, purpose(d, k.Selector)+" "+string(k.Sealed), func() (*mailauth.Key, error) {
		return openKey(s.box, d, k)
	})
}

// names tells signers apart. A domain uses no selector for two keys; one that was
// removed and added again is another domain.
func names(d *relay.Domain, signers []mailauth.Signer) string {
	var b strings.Builder
	if d != nil {
		b.WriteString(d.ID.String())
	}
	for _, s := range signers {
		b.WriteString(" " + s.Selector + "." + s.Domain)
	}
	return b.String()
}
