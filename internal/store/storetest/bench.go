package storetest

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"postrider/internal/relay"
)

// BenchmarkMail puts and settles messages of 10 kB in batches of 32, as the
// queue does while mail flows, and reports messages a second, CPU time for each
// and the slowest batch. b.N counts messages.
func BenchmarkMail(b *testing.B, e Engine) {
	const size, batch = 10 << 10, 32
	f := newFixture(b, e)
	content := make([]byte, size)
	for i := range content {
		content[i] = byte('a' + i%26)
	}
	settle := make(chan []relay.Outcome, 4)
	var settled sync.WaitGroup
	var worst [2]time.Duration
	settled.Go(func() {
		for o := range settle {
			start := time.Now()
			mustAll(b, f.db.Settle(f.Context(), f.lease, o))
			worst[1] = max(worst[1], time.Since(start))
		}
	})
	b.ResetTimer()
	before, start := cpu(b), time.Now()
	for sent := 0; sent < b.N; {
		n := min(batch, b.N-sent)
		now := time.Now()
		mail := make([]*relay.Submission, n)
		done := make([]relay.Outcome, n)
		for i := range mail {
			mail[i] = Submission(f.me, now, content, fmt.Sprintf("rcpt%d@example.net", sent+i))
			done[i] = benchOutcome(mail[i].Deliveries[0], now)
			done[i].Message = mail[i].Message // as an attempt has it
		}
		put := time.Now()
		mustAll(b, f.db.Put(f.Context(), f.lease, mail))
		worst[0] = max(worst[0], time.Since(put))
		settle <- done
		sent += n
	}
	close(settle)
	settled.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "msg/s")
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/msg")
	b.ReportMetric(float64(worst[0].Milliseconds()), "worst-put-ms")
	b.ReportMetric(float64(worst[1].Milliseconds()), "worst-settle-ms")
	b.ReportMetric(0, "ns/op")
}

// benchOutcome is a delivery as it usually goes.
func benchOutcome(d *relay.Delivery, at time.Time) relay.Outcome {
	o := outcome(d, relay.EventDelivered)
	o.At = at.Add(20 * time.Millisecond)
	o.Reply.Text = "Ok: queued as 4bXyZ12345"
	o.Diagnosis = relay.Diagnosis{Category: "delivered", Text: "The receiver took the message."}
	o.Attempt.TLS = &relay.TLS{Version: "TLS1.3", Cipher: "TLS_AES_128_GCM_SHA256", Verified: true, Subject: "CN=mx.example.net", Issuer: "CN=R3"}
	o.Attempt.Hosts = []relay.HostTry{{Name: "mx.example.net"}}
	for _, c := range []string{"MAIL FROM:<app@example.com>", "RCPT TO:<rcpt@example.net>", "DATA", "."} {
		o.Attempt.Dialogue = append(o.Attempt.Dialogue, relay.Exchange{Command: c, Reply: o.Reply})
	}
	return o
}

func mustAll(b *testing.B, errs []error) {
	for _, err := range errs {
		if err != nil {
			b.Error(err)
		}
	}
}

// cpu is the processor time that this process has used, system time included.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSuppressed asks which of a hundred recipients are suppressed, of an
// account with a million suppressions, and reports the time of a question.
func BenchmarkSuppressed(b *testing.B, e Engine) {
	f := newFixture(b, e)
	const million, batch = 1_000_000, 10_000
	list := make([]relay.Suppression, batch)
	start := time.Now()
	for n := 0; n < million; n += batch {
		for i := range list {
			list[i] = relay.Suppression{Account: f.me, Address: suppressed(n + i), Reason: "bounce", Created: noon}
		}
		if _, err := f.db.Suppress(f.Context(), somebody, f.me, list); err != nil {
			b.Fatal(err)
		}
	}
	filled := time.Since(start)
	asked := make([]string, 100)
	b.ResetTimer()
	for n := range b.N {
		for i := range asked {
			asked[i] = suppressed((n*7919 + i*104729) % (2 * million)) // one half is there
		}
		found, err := f.db.Suppressed(f.Context(), f.me, relay.Transactional, asked)
		if err != nil || len(found) < 20 {
			b.Fatalf("found %d, %v", len(found), err)
		}
	}
	b.StopTimer()
	b.ReportMetric(filled.Seconds(), "s-to-fill")
}

func suppressed(n int) string { return fmt.Sprintf("recipient%d@site%d.example.net", n, n%997) }
