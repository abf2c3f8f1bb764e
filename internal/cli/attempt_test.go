package cli

import (
	"strings"
	"testing"

	"postrider/internal/relay"
)

// TestPolicyIsShown with the attempt that it held for.
func TestPolicyIsShown(t *testing.T) {
	var b strings.Builder
	printAttempt(&b, &relay.Attempt{Policy: "MTA-STS", TLS: &relay.TLS{Version: "TLS1.3", Cipher: "X", Problem: "the certificate is self-signed"}}, 1, true)
	for _, want := range []string{"policy on TLS: MTA-STS\n", "does not verify: the certificate is self-signed"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}
