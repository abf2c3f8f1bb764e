package tlspolicy

import (
	"fmt"
	"testing"
)

// TestTargets has the records of RFC 8460 section 3.
func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		records []string
		want    string
	}{
		{[]string{"v=TLSRPTv1;rua=mailto:reports@example.com"}, "[mailto:reports@example.com]"},
		{[]string{"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"}, "[https://reporting.example.com/v1/tlsrpt]"},
		{[]string{"v=TLSRPTv1; rua=mailto:a@example.com, https://example.com/x ;"}, "[mailto:a@example.com https://example.com/x]"},
		{[]string{"v=spf1", "v=TLSRPTv1 ; rua = mailto:a@example.com; ext=1"}, "[mailto:a@example.com]"},
		{[]string{"v=TLSRPTv1; rua=mailto:a@b,mailto:b@b,mailto:c@b,mailto:d@b,mailto:e@b"}, "[mailto:a@b mailto:b@b mailto:c@b mailto:d@b]"},
		{[]string{"v=TLSRPTv1; rua=http://example.com/x"}, "[]"},
		{[]string{"v=TLSRPTv1; rua=https://me:secret@example.com/x"}, "[]"},
		{[]string{"v=TLSRPTv1; rua=mailto:"}, "[]"},
		{[]string{"v=TLSRPTv1; rua=%"}, "[]"},
		{[]string{"v=TLSRPTv1;"}, "[]"},
		{[]string{"v=TLSRPTv10; rua=mailto:a@b"}, "[]"},
		{[]string{"v=TLSRPTv1; rua=mailto:a@b", "v=TLSRPTv1; rua=mailto:c@b"}, "[]"},
		{nil, "[]"},
	} {
		if got := fmt.Sprint(Targets(tt.records)); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.records, got, tt.want)
		}
	}
}
