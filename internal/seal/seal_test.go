package seal_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postrider/internal/seal"
)

func box(t *testing.T, key []byte) *seal.Box {
	t.Helper()
	b, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSeal(t *testing.T) {
	b := box(t, seal.NewKey())
	for _, plain := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("secret"), 1000)} {
		sealed := b.Seal(plain, "dkim example.com")
		if again := b.Seal(plain, "dkim example.com"); bytes.Equal(sealed, again) {
			t.Error("sealed twice alike: the nonce is not random")
		}
		if len(plain) > 5 && bytes.Contains(sealed, plain[:6]) {
			t.Error("the secret can be read")
		}
		got, err := b.Open(sealed, "dkim example.com")
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("opened %q, %v", got, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	b := box(t, seal.NewKey())
	sealed := b.Seal([]byte("secret"), "dkim example.com")
	changed := func(i int) []byte {
		c := bytes.Clone(sealed)
		c[i] ^= 1
		return c
	}
	for name, open := range map[string]func() ([]byte, error){
		"another key":     func() ([]byte, error) { return box(t, seal.NewKey()).Open(sealed, "dkim example.com") },
		"another context": func() ([]byte, error) { return b.Open(sealed, "dkim example.org") },
		"nothing":         func() ([]byte, error) { return b.Open(nil, "dkim example.com") },
		"cut short":       func() ([]byte, error) { return b.Open(sealed[:20], "dkim example.com") },
		"version":         func() ([]byte, error) { return b.Open(changed(0), "dkim example.com") },
		"nonce":           func() ([]byte, error) { return b.Open(changed(1), "dkim example.com") },
		"last byte":       func() ([]byte, error) { return b.Open(changed(len(sealed)-1), "dkim example.com") },
	} {
		if got, err := open(); !errors.Is(err, seal.ErrBroken) || got != nil {
			t.Errorf("%s: opened %q, %v", name, got, err)
		}
	}
}

func TestDerive(t *testing.T) {
	key := seal.NewKey()
	derive := func(key []byte, purpose string) string {
		d, err := box(t, key).Derive(purpose, 32)
		if err != nil || len(d) != 32 || bytes.Contains(d, key[:8]) {
			t.Errorf("%x, %v", d, err)
		}
		return string(d)
	}
	first := derive(key, "a")
	if again := derive(key, "a"); first != again || first == derive(key, "b") || first == derive(seal.NewKey(), "a") {
		t.Error("derived keys do not hang on the master key and the purpose, and on nothing else")
	}
	one, err := box(t, key).Check()
	two, err2 := box(t, seal.NewKey()).Check()
	if err != nil || err2 != nil || bytes.Equal(one, two) || len(one) != 16 {
		t.Errorf("check values %x (%v) and %x (%v)", one, err, two, err2)
	}
	if _, err := seal.New(key[:31]); err == nil {
		t.Error("a key of 31 bytes was taken")
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if _, err := seal.ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	key := seal.NewKey()
	if err := seal.WriteFile(path, key); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := seal.WriteFile(path, seal.NewKey()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second key: %v", err)
	}
	got, err := seal.ReadFile(path)
	if err != nil || !bytes.Equal(got, key) {
		t.Errorf("read %x, %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBadFile(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		mode fs.FileMode
		want string
	}{
		"world":   {strings.Repeat("ab", 32), 0o644, "chmod 600"},
		"short":   {strings.Repeat("ab", 31), 0o600, "64 hexadecimal digits"},
		"not hex": {strings.Repeat("zz", 32), 0o600, "64 hexadecimal digits"},
		"empty":   {"", 0o600, "64 hexadecimal digits"},
		"group":   {"\n " + strings.Repeat("ab", 32) + "\r\n", 0o640, ""},
	} {
		path := filepath.Join(t.TempDir(), "master.key")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := seal.ReadFile(path)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "abab") {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}
