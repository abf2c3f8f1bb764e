package metrics

import "testing"

func TestReason(t *testing.T) {
	for _, tt := range []struct {
		code     int
		enhanced string
		want     string
	}{
		{451, "4.3.0", "unavailable"}, {451, "4.3.1", "busy"}, {452, "4.3.1", "disk_full"}, {421, "4.3.2", "shutdown"},
		{421, "4.3.4", "too_large"}, {552, "5.3.4", "too_large"}, {421, "4.4.2", "timeout"}, {421, "4.5.0", "protocol"},
		{452, "4.5.3", "too_many_recipients"}, {421, "4.7.0", "limit"}, {451, "4.7.1", "limit"}, {550, "5.7.26", "policy"}, {550, "5.1.2", "address"}, {554, "5.4.6", "loop"},
		{503, "5.5.1", "protocol"}, {554, "5.6.11", "content"}, {530, "5.7.0", "login"}, {535, "5.7.8", "login"},
		{550, "5.7.1", "policy"}, {538, "5.7.11", "tls_required"}, {530, "5.7.10", "tls_required"}, {554, "5.9.9", "other"}, {554, "", "other"},
	} {
		if got := reason(tt.code, tt.enhanced); got != tt.want {
			t.Errorf("%d %s is %s, want %s", tt.code, tt.enhanced, got, tt.want)
		}
	}
}
