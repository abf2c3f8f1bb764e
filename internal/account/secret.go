package account

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"postrider/internal/relay"
)

// keyPrefix begins every API key, so that a key is known as one wherever it
// turns up: in the user name, in the password, in a repository by mistake.
const keyPrefix = "prk_"

// scramIterations is the least that RFC 7677 section 4 allows. Generated
// secrets have 160 bits, which no number of iterations could improve.
const scramIterations = 4096

var secretText = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

// newSecret makes 32 letters and digits that hold 160 bits.
func newSecret() string {
	var b [20]byte
	rand.Read(b[:])
	return secretText.EncodeToString(b[:])
}

// digest is how a secret is kept that we made.
func digest(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// setScram fills c's SCRAM-SHA-256 verifier (RFC 5802 section 3, RFC 7677). With
// the salt of the secret before, a client can log in with either; without one it
// is made.
func setScram(c *relay.Credential, password string, salt []byte) error {
	if len(salt) == 0 {
		salt = make([]byte, 16)
		rand.Read(salt)
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, scramIterations, sha256.Size)
	if err != nil {
		return fmt.Errorf("derive SCRAM keys: %w", err)
	}
	sum := func(key []byte, s string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(s))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(sum(salted, "Client Key"))
	c.Scram.Salt, c.Scram.Iterations = salt, scramIterations
	c.Scram.Stored, c.Scram.Server = stored[:], sum(salted, "Server Key")
	return nil
}

// Parameters of argon2id (RFC 9106 section 4, second recommendation): 64 MiB,
// three passes. Only for passwords that people chose.
const (
	argonTime    = 3
	argonMemory  = 64 << 10
	argonThreads = 1
)

// argonHash hashes a chosen password in the usual text form.
func argonHash(password string) string {
	salt := make([]byte, 16)
	rand.Read(salt)
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, 32)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		b64.EncodeToString(salt), b64.EncodeToString(key))
}

// argonMatches checks a password against what argonHash made.
func argonMatches(hash, password string) (bool, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errors.New("read password hash: not argon2id")
	}
	var memory, time uint32
	var threads uint8
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &threads); err != nil {
		return false, fmt.Errorf("read password hash: %w", err)
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("read password hash: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil {
		return false, fmt.Errorf("read password hash: %w", err)
	}
	got := argon2.IDKey([]byte(password), salt, time, memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}
