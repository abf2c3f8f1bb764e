package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// What receivers and senders wrote reaches no terminal as it is, in JSON as
// little as elsewhere, and programs read back what it was.
func TestJSONIsPrintable(t *testing.T) {
	text := "red \x1b[31m csi \u009b31m del \x7f rlo \u202e zwsp \u200b line \u2028 tag \U000e0041 nul \x00 <ü😀>\n"
	for _, print := range []func(*strings.Builder) error{
		func(b *strings.Builder) error { return printJSON(b, map[string]string{"text": text}) },
		func(b *strings.Builder) error { return printLine(b, map[string]string{"text": text}) },
	} {
		var b strings.Builder
		if err := print(&b); err != nil {
			t.Fatal(err)
		}
		for _, r := range b.String() {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%U is printed", r)
			}
		}
		if !strings.Contains(b.String(), "<ü😀>") {
			t.Errorf("too much is escaped: %s", b.String())
		}
		var got map[string]string
		if err := json.Unmarshal([]byte(b.String()), &got); err != nil || got["text"] != text {
			t.Errorf("read back %q, %v", got["text"], err)
		}
	}
}
