package crash

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Each mutation fits the source as it is: else "make crash-proof" would prove
// nothing any more, and nobody would notice before calling it.
func TestMutationsFit(t *testing.T) {
	patches, err := filepath.Glob("testdata/mutations/*.patch")
	if err != nil || len(patches) < 5 {
		t.Fatalf("%d mutations, %v", len(patches), err)
	}
	for _, p := range patches {
		file, err := filepath.Abs(p)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("git", "apply", "--check", file)
		cmd.Dir = filepath.Join("..", "..", "..")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s does not fit: %v\n%s", filepath.Base(p), err, out)
		}
	}
}
