package mailauth

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/emersion/go-msgauth/dkim"

	"postrider/internal/dns"
)

// maxSignatures is how many signatures of one message are looked at, the first
// ones (RFC 6376 section 8.4 wants a bound).
const maxSignatures = 10

// Signature is what one DKIM-Signature field is worth.
type Signature struct {
	Domain    string `json:"domain"`    // d=, lower case
	Selector  string `json:"selector"`  // s=
	Algorithm string `json:"algorithm"` // a=: "rsa-sha256", "ed25519-sha256" …
	Result    Result `json:"result"`
	Problem   string `json:"problem,omitempty"` // why it did not pass, for people
}

// VerifyDKIM checks the signatures of a message, in the order they stand, ten at
// most. No signature is no error; the error is that of reading, or of a header
// out of all bounds.
func VerifyDKIM(ctx context.Context, r Resolver, message io.Reader) ([]Signature, error) {
	var seen bytes.Buffer // what was read to find the header's end
	br := bufio.NewReader(io.TeeReader(message, &seen))
	header, err := readHeader(br, func(name string) bool { return name == "dkim-signature" })
	if err != nil {
		return nil, fmt.Errorf("verify signatures: %w", err)
	}
	if len(header) == 0 {
		return nil, nil
	}
	found := make([]Signature, 0, min(len(header), maxSignatures))
	for _, f := range header[:min(len(header), maxSignatures)] {
		found = append(found, describe(f))
	}
	// Two line ends more change no canonical body, and they end a header that
	// ends with the message.
	whole := io.MultiReader(&seen, message, strings.NewReader("\r\n\r\n"))
	results, err := dkim.VerifyWithOptions(whole, &dkim.VerifyOptions{MaxVerifications: maxSignatures,
		LookupTXT: func(name string) ([]string, error) { return lookUpTXT(ctx, r, name) }})
	if err != nil && !errors.Is(err, dkim.ErrTooManySignatures) {
		return nil, fmt.Errorf("verify signatures: %w", err)
	}
	for i := range found {
		if i < len(results) {
			found[i].judge(results[i].Err)
		}
	}
	return found, nil
}

// Signatures tells what DKIM-Signature fields say of themselves; none of them is
// verified.
func Signatures(fields []byte) (all []Signature) {
	header, err := readHeader(bufio.NewReader(io.MultiReader(bytes.NewReader(fields), strings.NewReader("\r\n"))), func(name string) bool { return name == "dkim-signature" })
	if err != nil {
		return nil
	}
	for _, f := range header {
		all = append(all, describe(f))
	}
	return all
}

// describe reads what a signature says of itself; it may be malformed.
func describe(f field) Signature {
	_, value, _ := bytes.Cut(f.raw, []byte{':'})
	s := Signature{Result: PermError, Problem: "it is malformed"}
	tags, err := parseTags(string(value))
	if err != nil {
		return s
	}
	domain, _ := tags.get("d")
	s.Domain = strings.ToLower(domain)
	s.Selector, _ = tags.get("s")
	s.Algorithm, _ = tags.get("a")
	return s
}

func (s *Signature) judge(err error) {
	s.Problem = ""
	switch {
	case err == nil:
		s.Result = Pass
		return
	case dkim.IsTempFail(err):
		s.Result = TempError
	case dkim.IsPermFail(err):
		s.Result = PermError
	default:
		s.Result = Fail
	}
	s.Problem = strings.TrimPrefix(err.Error(), "dkim: ")
}

// lookUpTXT is TXT with the errors that libraries know.
func lookUpTXT(ctx context.Context, r Resolver, name string) ([]string, error) {
	found, err := r.TXT(ctx, name)
	return found, libraryError(name, err)
}

// libraryError is an error of a Resolver as a *net.DNSError.
func libraryError(name string, err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*dns.Error](err)
	missing := ok && e.Kind != dns.Temporary
	return &net.DNSError{Err: err.Error(), Name: name, IsNotFound: missing, IsTemporary: !missing}
}
