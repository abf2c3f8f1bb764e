package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/store"
)

// fakeFiles are files by name.
type fakeFiles map[string][]byte

func (f fakeFiles) File(_ context.Context, name string) (*store.File, error) {
	b, ok := f[name]
	if !ok {
		return nil, &relay.Error{Code: relay.NotFound, Text: "There is no such file."}
	}
	return &store.File{Name: name, Bytes: b}, nil
}

func (f fakeFiles) EnsureFile(_ context.Context, name string, content []byte) ([]byte, error) {
	if _, ok := f[name]; !ok {
		f[name] = content
	}
	return f[name], nil
}

// late seems empty until something is put: another node puts at the same time.
type late struct{ fakeFiles }

func (late) File(context.Context, string) (*store.File, error) {
	return nil, &relay.Error{Code: relay.NotFound, Text: "There is no such file."}
}

func TestOpenBox(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	kept, folder := fakeFiles{}, t.TempDir()
	path := filepath.Join(folder, "master.key")
	first, err := openBox(t.Context(), kept, path, log)
	if err != nil {
		t.Fatal(err)
	}
	sealed := first.Seal([]byte("secret"), "x")
	again, err := openBox(t.Context(), kept, path, log)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Open(sealed, "x"); err != nil || string(got) != "secret" {
		t.Errorf("after another start: %q, %v", got, err)
	}

	refused := func(what string, kept files, path string) {
		t.Helper()
		_, err := openBox(t.Context(), kept, path, log)
		if err == nil || !strings.Contains(err.Error(), "copy") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", what, err)
		}
	}
	missing := filepath.Join(folder, "missing.key")
	refused("the file is gone", kept, missing)
	if _, err := os.Stat(missing); !os.IsNotExist(err) {
		t.Errorf("a node that may not start left a key: %v", err)
	}
	other := filepath.Join(folder, "other.key")
	if _, err := openBox(t.Context(), fakeFiles{}, other, log); err != nil {
		t.Fatal(err)
	}
	refused("another key", kept, other)
	if _, err := os.Stat(other); err != nil {
		t.Errorf("a key that was there is gone: %v", err)
	}
	slower := filepath.Join(folder, "slower.key")
	refused("two first starts at once", late{kept}, slower)
	if _, err := os.Stat(slower); !os.IsNotExist(err) {
		t.Errorf("the slower node kept its key: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openBox(t.Context(), kept, path, log); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that everybody may read: %v", err)
	}
	if _, err := openBox(t.Context(), fakeFiles{}, filepath.Join(folder, "nowhere", "master.key"), log); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no folder: %v", err)
	}
}

// oneKey finds nothing, and tells that it looked.
type oneKey struct {
	fakeFiles
	found func()
}

func (o oneKey) File(ctx context.Context, name string) (*store.File, error) {
	o.found()
	return nil, &relay.Error{Code: relay.NotFound, Text: "There is no such file."}
}

// Nodes that share the file, and start for the first time at once, take the one
// that was written first.
func TestOpenBoxShared(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	path := filepath.Join(t.TempDir(), "master.key")
	kept := fakeFiles{}
	var other *seal.Box
	box, err := openBox(t.Context(), oneKey{kept, func() {
		var err error // another node writes the file between our look and our own
		if other, err = openBox(t.Context(), kept, path, log); err != nil {
			t.Error(err)
		}
	}}, path, log)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := box.Open(other.Seal([]byte("secret"), "x"), "x"); err != nil || string(got) != "secret" {
		t.Errorf("the nodes have different keys: %q, %v", got, err)
	}
}
