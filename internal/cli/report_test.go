package cli

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/relay"
)

// A terminal gets figures that can be read, and nothing that plays with it.
func TestPrintReports(t *testing.T) {
	var out bytes.Buffer
	e := &Env{Stdout: &out}
	sent, day := int64(10), time.Date(2026, 2, 3, 0, 0, 0, 0, time.UTC)
	line := api.CountLine{Start: &day, Key: "shop\x1b[2J", Sent: &sent, Delivered: 8, Bounced: 2, Rates: api.Rates{Delivery: 0.8, Bounce: 0.2, Complaint: 0.0012}}
	for name, c := range map[string]struct {
		print func() error
		want  []string
	}{
		"counts": {func() error {
			return printCounts(e, url.Values{"by": {"tag"}, "interval": {"day"}}, &api.Counts{Lines: []api.CountLine{line}, Total: line, Before: api.CountLine{}, ReportFrame: api.ReportFrame{More: true}})
		}, []string{"2026-02-03  shop?[2J", "80.0%", "20.0%", "0.12%", "in all", "-top"}},
		"timing": {func() error {
			return printTiming(e, url.Values{"by": {"provider"}}, &api.Timing{Lines: []api.TimingLine{{Delivered: 3, P50: 0.25, P99: 90}, {Key: "Gmail"}}})
		}, []string{"(not known)", "250ms", "Gmail", "1m"}},
		"failures": {func() error {
			return printFailures(e, nil, &api.Failures{Lines: []api.FailureLine{{Kind: relay.EventBounced, Category: "hard/no-such-mailbox", Count: 3, Share: 0.5,
				Example: &api.FailureExample{Delivery: "x-1", Recipient: "a@x.test", Reply: relay.Reply{Code: 550, Text: "no\x1bsuch"}, Diagnosis: relay.Diagnosis{Text: "It is gone.", Advice: "Remove it."}}}}})
		}, []string{"3 bounced, 50.0% of them: hard/no-such-mailbox, at receivers without a name", "It is gone.", "Remove it.", "x-1 to a@x.test", "550 no?such"}},
		"nothing failed": {func() error { return printFailures(e, nil, &api.Failures{}) }, []string{"Nothing failed."}},
	} {
		out.Reset()
		if err := c.print(); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", name, want, out.String())
			}
		}
	}
}

func TestReportUsage(t *testing.T) {
	for _, args := range [][]string{{"report", "weather"}, {"report", "-csv", "-json"}, {"report", "-since", "yesterdayish"}, {"score", "me"}} {
		var out, bad bytes.Buffer
		if status := Main(t.Context(), &Env{Args: args, Stdout: &out, Stderr: &bad}); status != 2 || bad.Len() == 0 {
			t.Errorf("%v: %d %s", args, status, bad.String())
		}
	}
}
