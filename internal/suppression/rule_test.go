package suppression

import (
	"testing"
	"time"

	"postrider/internal/relay"
)

func TestJudge(t *testing.T) {
	rule := Rule{Hard: true, Soft: relay.SoftRule{Failures: 5, Within: time.Hour}}
	dead := relay.Diagnosis{Category: "hard/no-such-mailbox", Suppress: true}
	for name, tt := range map[string]struct {
		rule     Rule
		kind     relay.Kind
		d        relay.Diagnosis
		suppress string
		soft     int
	}{
		"dead":                        {rule, relay.EventBounced, dead, "bounce", 0},
		"dead, and that is off":       {Rule{Soft: rule.Soft}, relay.EventBounced, dead, "", 0},
		"dead, but tried until now":   {rule, relay.EventExpired, dead, "", 5},
		"hard, and not certain":       {rule, relay.EventBounced, relay.Diagnosis{Category: "hard/no-such-mailbox"}, "", 5},
		"full":                        {rule, relay.EventExpired, relay.Diagnosis{Category: "soft/mailbox-full"}, "", 5},
		"full, and that is off":       {Rule{Hard: true}, relay.EventExpired, relay.Diagnosis{Category: "soft/mailbox-full"}, "", 0},
		"nobody answers":              {rule, relay.EventExpired, relay.Diagnosis{Category: "soft/connection-problem"}, "", 5},
		"full, and it is tried again": {rule, relay.EventDeferred, relay.Diagnosis{Category: "soft/mailbox-full"}, "", 0},
		"spam":                        {rule, relay.EventBounced, relay.Diagnosis{Category: "block/content-or-spam"}, "", 0},
		"greylisted":                  {rule, relay.EventExpired, relay.Diagnosis{Category: "soft/greylisted"}, "", 0},
		"our own name in the DNS":     {rule, relay.EventBounced, relay.Diagnosis{Category: "block/dns-problem"}, "", 0},
		"our own trouble":             {rule, relay.EventExpired, relay.Diagnosis{Category: "soft/relay"}, "", 0},
		"too large":                   {rule, relay.EventBounced, relay.Diagnosis{Category: "soft/message-too-large"}, "", 0},
	} {
		o := relay.Outcome{Kind: tt.kind, Diagnosis: tt.d, Address: "a@x.test"}
		tt.rule.Judge(&o)
		if o.Suppress != tt.suppress || o.Soft.Failures != tt.soft {
			t.Errorf("%s: suppress %q, soft %d", name, o.Suppress, o.Soft.Failures)
		}
		o = relay.Outcome{Kind: tt.kind, Diagnosis: tt.d}
		if tt.rule.Judge(&o); o.Suppress != "" || o.Soft.Failures != 0 {
			t.Errorf("%s: suppresses nobody", name)
		}
	}
	for failures, want := range map[int]string{0: "", 5: "a@x.test"} {
		o := relay.Outcome{Kind: relay.EventDelivered, Address: "a@x.test"}
		if (Rule{Soft: relay.SoftRule{Failures: failures}}).Judge(&o); o.Address != want {
			t.Errorf("delivered, of %d: address %q", failures, o.Address)
		}
	}
}

func TestKey(t *testing.T) {
	for in, want := range map[string]string{"Ann@Bücher.Example": "ann@xn--bcher-kva.example", "x": "", "": ""} {
		if got := Key(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
