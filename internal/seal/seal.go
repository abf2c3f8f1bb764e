// Package seal keeps secrets that must be read again, such as private keys, by
// encrypting them with one master key, which lies in a file and not in the store.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// KeySize is the length of a master key in bytes: AES-256.
const KeySize = 32

// version begins every sealed secret, so that another form can follow one day.
const version = 1

// ErrBroken says that something was not sealed with this key and for this
// context, or was changed since.
var ErrBroken = errors.New("sealed with another master key or for another purpose, or damaged")

// Box seals and opens with one master key. It may be used by many goroutines.
type Box struct {
	aead cipher.AEAD
	key  []byte
}

// New makes a Box of a key of KeySize random bytes.
func New(key []byte) (*Box, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("a master key has %d bytes, not %d", KeySize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use master key: %w", err)
	}
	// A random nonce of 96 bits lasts for 2^32 secrets (NIST SP 800-38D section
	// 8.3): more than anybody will have.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("use master key: %w", err)
	}
	return &Box{aead: aead, key: append([]byte(nil), key...)}, nil
}

// NewKey makes a master key.
func NewKey() []byte {
	key := make([]byte, KeySize)
	rand.Read(key) // never fails: it ends the program where there is no randomness
	return key
}

// Seal encrypts plain. The context says what it is and whose, such as
// "dkim example.com pr2611r": only who opens it for the same gets it, so that
// nobody who can write to the store makes one secret pass for another.
func (b *Box) Seal(plain []byte, context string) []byte {
	return b.aead.Seal([]byte{version}, nil, plain, []byte(context))
}

// Open decrypts what Seal made for the same context. The error is ErrBroken.
func (b *Box) Open(sealed []byte, context string) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != version {
		return nil, ErrBroken
	}
	plain, err := b.aead.Open(nil, nil, sealed[1:], []byte(context))
	if err != nil {
		return nil, ErrBroken
	}
	return plain, nil
}

// Derive makes a key of n bytes for one use, which purpose names, the same each
// time (HKDF with SHA-256, RFC 5869). It fails for n above 8160.
func (b *Box) Derive(purpose string, n int) ([]byte, error) {
	key, err := hkdf.Expand(sha256.New, b.key, "postrider "+purpose, n)
	if err != nil {
		return nil, fmt.Errorf("derive key for %s: %w", purpose, err)
	}
	return key, nil
}

// Check is a value by which nodes see that they have the same master key. It
// tells nothing of the key.
func (b *Box) Check() ([]byte, error) { return b.Derive("check value", 16) }
