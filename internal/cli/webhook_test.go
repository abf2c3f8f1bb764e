package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What is set to nothing is sent as nothing, not left out; spans are written as
// everywhere else.
func TestWebhookAsks(t *testing.T) {
	var asked string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		asked = r.Method + " " + r.URL.Path + " " + string(b)
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write([]byte("{}")); err != nil {
			t.Error(err)
		}
	}))
	defer s.Close()
	for want, args := range map[string][]string{
		`PATCH /v1/webhooks/x {"events":[],"tags":[],"credentials":[]`: {"webhook", "set", "-event", "", "-tag", "", "-credential", "", "x"},
		`"events":["bounced"]`: {"webhook", "set", "-event", "bounced", "x"},
		`{"keep_hours":48}`:    {"webhook", "rotate", "-keep", "2d", "x"},
		`{"keep_hours":0}`:     {"webhook", "rotate", "-keep", "0", "x"},
		`{"overlap":604800}`:   {"credential", "rotate", "-overlap", "7d", "x"},
		`{"since":"20`:         {"webhook", "replay", "-since", "2d", "x"},
		`/v1/alerts/x/mute {"`: {"alert", "mute", "-for", "2d", "x"},
	} {
		asked = ""
		_, errs, status := call(t, "", append(args, "-server", s.URL, "-token", "key")...)
		if status != 0 || !strings.Contains(asked, want) {
			t.Errorf("%v: status %d, %q, asked %s", args, status, errs, asked)
		}
	}
	if _, errs, status := call(t, "", "webhook", "replay", "-since", "tomorrow", "-server", s.URL, "-token", "key", "x"); status != 2 || !strings.Contains(errs, `"tomorrow" is neither a time`) {
		t.Errorf("status %d, %q", status, errs)
	}
}
