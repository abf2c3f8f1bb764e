package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The program builds, answers, and gives its exit status on.
func TestProgram(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "postrider")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.Command(bin, "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "postrider ") {
		t.Errorf("version: %q, %v", out, err)
	}
	err = exec.Command(bin, "nonsense").Run()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 2 {
		t.Errorf("a command that does not exist: %v, want status 2", err)
	}
}
