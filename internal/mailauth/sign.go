package mailauth

import (
	"bufio"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// Signer is who signs, with which key.
type Signer struct {
	Domain   string // lower case A-labels
	Selector string
	Key      *Key
}

// cover says how often a field's name stands in a signature.
type cover uint8

const (
	asThere   cover = iota + 1 // once for each field: more may be added
	ifPresent                  // and once more where there is one: none may be added
	always                     // and once more, also where there is none
)

// signed are the fields that a signature covers (RFC 6376 section 5.4.1): what
// people see and programs act on. Those that a reader takes one of must not be
// added on the way, or a message that was signed for one reader could be shown to
// others with another sender, subject or form. What lists and resenders add to
// mail that they pass on stays free, and so do all trace fields.
var signed = []struct {
	name  string
	cover cover
}{
	{"From", always}, {"Sender", ifPresent}, {"Reply-To", always}, {"To", always}, {"Cc", always},
	{"Subject", always}, {"Date", always}, {"Message-ID", always}, {"In-Reply-To", ifPresent}, {"References", ifPresent},
	{"MIME-Version", always}, {"Content-Type", always}, {"Content-Transfer-Encoding", always},
	{"Content-Disposition", ifPresent}, {"Content-Language", asThere}, {"Content-Description", asThere}, {"Content-ID", ifPresent},
	{"Auto-Submitted", ifPresent}, {"Feedback-ID", ifPresent}, {"X-Postrider-ID", ifPresent},
	// One-click unsubscribing counts only where these are signed (RFC 8058
	// section 4).
	{"List-Unsubscribe", ifPresent}, {"List-Unsubscribe-Post", ifPresent},
	{"List-Id", asThere}, {"List-Help", asThere}, {"List-Subscribe", asThere}, {"List-Post", asThere},
	{"List-Owner", asThere}, {"List-Archive", asThere},
	{"Resent-Date", asThere}, {"Resent-From", asThere}, {"Resent-Sender", asThere}, {"Resent-To", asThere},
	{"Resent-Cc", asThere}, {"Resent-Message-ID", asThere},
}

// maxRepeats is how many fields of one name are signed: the last ones.
const maxRepeats = 50

// Sign reads a message once and gives a DKIM-Signature field by each signer, with
// their line ends, to stand before it: relaxed/relaxed, over the whole body, by
// SHA-256 (RFC 6376 sections 5 and 8.2). The message has CRLF line ends. One
// without From can't be signed.
func Sign(r io.Reader, now time.Time, signers ...Signer) ([]byte, error) {
	br := bufio.NewReaderSize(r, 16<<10)
	if b, _ := br.Peek(1); len(b) == 1 && (b[0] == ' ' || b[0] == '\t') {
		return nil, errors.New("sign message: it begins with white space, which would go on the signature before it")
	}
	header, err := readHeader(br, isSigned)
	if err != nil {
		return nil, fmt.Errorf("sign message: %w", err)
	}
	names, text, err := choose(header)
	if err != nil {
		return nil, fmt.Errorf("sign message: %w", err)
	}
	body := &relaxedBody{hash: sha256.New()}
	if _, err := br.WriteTo(body); err != nil {
		return nil, fmt.Errorf("sign message: read message: %w", err)
	}
	bodyHash := base64.StdEncoding.EncodeToString(body.sum())
	var out []byte
	for _, s := range signers {
		f, err := s.sign(names, text, bodyHash, now)
		if err != nil {
			return nil, fmt.Errorf("sign for %s with %s: %w", s.Domain, s.Selector, err)
		}
		out = append(out, f...)
	}
	return out, nil
}

func isSigned(name string) bool {
	for _, s := range signed {
		if equalFold(s.name, name) {
			return true
		}
	}
	return false
}

// equalFold compares a name with one in lower case.
func equalFold(name, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// choose gives the names of a signature and the fields that they stand for, in
// canonical form. Of fields with one name the last comes first (RFC 6376 section
// 5.4.2).
func choose(header []field) (names []string, text []byte, err error) {
	for _, s := range signed {
		n := 0
		for _, f := range slices.Backward(header) {
			if !equalFold(s.name, f.name) {
				continue
			}
			if n++; n <= maxRepeats {
				text = append(appendRelaxed(text, f), crlf...)
				names = append(names, s.name)
			}
		}
		if n == 0 && s.name == "From" {
			return nil, nil, errors.New("it has no From field")
		}
		if n <= maxRepeats && (s.cover == always || s.cover == ifPresent && n > 0) {
			names = append(names, s.name)
		}
	}
	return names, text, nil
}

func (s Signer) sign(names []string, text []byte, bodyHash string, now time.Time) ([]byte, error) {
	w := folder{b: []byte("DKIM-Signature:")}
	w.word(" v=1;")
	w.word(" a=" + s.Key.Algorithm() + "-sha256;")
	w.word(" c=relaxed/relaxed;")
	w.word(" d=" + s.Domain + ";")
	w.word(" s=" + s.Selector + ";")
	w.word(" t=" + strconv.FormatInt(now.Unix(), 10) + ";")
	for i, name := range names {
		switch i {
		case 0:
			w.word(" h=" + name)
		default:
			w.word(name)
		}
		if i < len(names)-1 {
			w.b = append(w.b, ':')
		}
	}
	w.b = append(w.b, ';')
	w.word(" bh=" + bodyHash + ";")
	w.word(" b=")
	hash := sha256.New()
	hash.Write(text)
	hash.Write(appendRelaxed(nil, field{"dkim-signature", w.b}))
	signature, err := s.Key.sign(hash.Sum(nil))
	if err != nil {
		return nil, err
	}
	for b := base64.StdEncoding.EncodeToString(signature); len(b) > 0; {
		n := min(len(b), max(foldAt-w.column(), 1))
		w.word(b[:n])
		b = b[n:]
	}
	return append(w.b, crlf...), nil
}

// sign signs a hash: RSASSA-PKCS1-v1_5 (RFC 6376 section 3.3.2) or Ed25519 of the
// hash as it is (RFC 8463 section 3).
func (k *Key) sign(hash []byte) ([]byte, error) {
	var opts crypto.SignerOpts = crypto.SHA256
	if k.Algorithm() == Ed25519 {
		opts = crypto.Hash(0)
	}
	return k.signer.Sign(rand.Reader, hash, opts)
}

// foldAt is how long a line may be, without its end (RFC 5322 section 2.1.1).
const foldAt = 76

// folder writes a field word by word, in lines.
type folder struct {
	b    []byte
	line int // where the last line begins
}

func (w *folder) column() int { return len(w.b) - w.line }

// word appends a word, on the next line where it has no room. A word may begin
// with a space; a line then begins with it, else with one of its own.
func (w *folder) word(s string) {
	if w.column()+len(s) > foldAt && w.column() > 1 {
		w.b = append(w.b, crlf...)
		w.line = len(w.b)
		if s[0] != ' ' {
			w.b = append(w.b, ' ')
		}
	}
	w.b = append(w.b, s...)
}
