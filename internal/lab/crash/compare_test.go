package crash

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postrider/internal/sink"
)

func message(from, to, content string) *sink.Message {
	return &sink.Message{From: from, Recipients: []sink.Recipient{{Address: to}}, Content: []byte(content)}
}

func notice(id, to, about string) *sink.Message {
	return message("", to, "Message-ID: <"+id+">\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"+
		"--b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; relay.test\r\n\r\n"+
		"Final-Recipient: rfc822; "+about+"\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b--\r\n")
}

func TestCompare(t *testing.T) {
	const sender, body = "m7@sender.test", "X-Crash: 7\r\n\r\nhello\r\n"
	first, second := "ok@r0.test", "bounce@r1.test"
	ok, bounced := message(sender, first, "Received: x\r\n"+body), notice("1@relay", sender, second)
	for name, c := range map[string]struct {
		got  []*sink.Message
		want Comparison
	}{
		"all is well":       {[]*sink.Message{ok, bounced}, Comparison{Delivered: 1, Reported: 1}},
		"nothing came":      {nil, Comparison{Lost: 2}},
		"no notice":         {[]*sink.Message{ok}, Comparison{Delivered: 1, Lost: 1}},
		"one came twice":    {[]*sink.Message{ok, ok, bounced}, Comparison{Delivered: 1, Reported: 1, Repeated: 1}},
		"a notice twice":    {[]*sink.Message{ok, bounced, bounced}, Comparison{Delivered: 1, Reported: 1, Repeated: 1}},
		"two notices":       {[]*sink.Message{ok, bounced, notice("2@relay", sender, second)}, Comparison{Delivered: 1, Reported: 1, FalseReports: 1}},
		"notice of success": {[]*sink.Message{ok, bounced, notice("2@relay", sender, first)}, Comparison{Delivered: 1, Reported: 1, FalseReports: 1}},
		"cut short":         {[]*sink.Message{message(sender, first, body[:15]), bounced}, Comparison{Reported: 1, Lost: 1, Altered: 1}},
		"to nobody named":   {[]*sink.Message{ok, bounced, message(sender, "ok@r2.test", body)}, Comparison{Delivered: 1, Reported: 1, Altered: 1}},
		"unacknowledged":    {[]*sink.Message{ok, bounced, message("m8@sender.test", first, body)}, Comparison{Delivered: 1, Reported: 1, Unasked: 1}},
		"from a stranger":   {[]*sink.Message{ok, bounced, message("x@y.test", first, body)}, Comparison{Delivered: 1, Reported: 1, Strange: 1}},
		"without a mark":    {[]*sink.Message{ok, bounced, message(sender, first, "hello")}, Comparison{Delivered: 1, Reported: 1, Strange: 1}},
		"no DSN":            {[]*sink.Message{ok, bounced, message("", sender, "hello")}, Comparison{Delivered: 1, Reported: 1, Strange: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			sent := &clientLog{letters: map[int]acknowledged{7: {letter{7, []string{"ok", "bounce"}, digestOf([]byte(body))}, "id"}}}
			got := newReceiverLog()
			for _, m := range c.got {
				got.received(m)
			}
			c.want.Messages, c.want.Acknowledged = 1, 2
			if d := cmp.Diff(&c.want, compare(sent, got), cmpopts.IgnoreUnexported(Comparison{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestLetter(t *testing.T) {
	w := newWriter(30)
	seen := map[string]bool{}
	for want := 1; want <= 300; want++ {
		l, content := w.write()
		if n, ok := numberOf(senderOf(l.number)); !ok || n != want {
			t.Fatalf("letter %d has the number %d", want, n)
		}
		for i, kind := range l.kinds {
			seen[kind] = true
			if n, ok := indexOf(recipientOf(kind, i)); !ok || n != i {
				t.Errorf("%s is recipient %d", recipientOf(kind, i), n)
			}
		}
		if !bytes.HasPrefix(content, []byte(marker)) || !bytes.HasSuffix(content, []byte("\r\n")) || l.digest != digestOf(content) {
			t.Fatalf("letter %d is not what it says", want)
		}
		if len(content) > largest+1024 || len(content) < 512 {
			t.Errorf("letter %d has %d bytes", want, len(content))
		}
	}
	if len(seen) < 4 {
		t.Errorf("the mix has only %v", seen)
	}
	for _, s := range []string{"m1@x.test", "x1@sender.test", "m@sender.test", ""} {
		if n, ok := numberOf(s); ok {
			t.Errorf("%q is number %d", s, n)
		}
	}
	for _, s := range []string{"ok@x1.test", "ok@r.test", "ok@r1.example", "ok"} {
		if n, ok := indexOf(s); ok {
			t.Errorf("%q is recipient %d", s, n)
		}
	}
}
