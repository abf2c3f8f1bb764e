package api

import (
	"strings"
	"testing"
	"time"

	"postrider/internal/relay"
)

// What a cell begins with makes it a formula, whoever wrote it.
func TestHarmless(t *testing.T) {
	failed := Failures{Lines: []FailureLine{{Kind: relay.EventBounced, Category: "=1+1", Provider: "@SUM(A1)",
		Example: &FailureExample{At: time.Now(), Recipient: "-x@y.test", Host: "\t=1", Reply: relay.Reply{Text: "+1"}}}}}
	var b strings.Builder
	if err := tables().Marshal(&b, failed); err != nil {
		t.Fatal(err)
	}
	line := strings.Split(b.String(), "\n")[1]
	for _, want := range []string{"bounced,'=1+1,'@SUM(A1),0,", ",'-x@y.test,'\t=1,'+1"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q has no %q", line, want)
		}
	}
}
