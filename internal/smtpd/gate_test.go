package smtpd

import (
	"encoding/base64"
	"sync/atomic"
	"testing"

	"postrider/internal/relay"
)

// A node that drains ends sessions, one that is suspended refuses messages: new
// sessions and open ones alike. Back at work, it takes mail.
func TestCondition(t *testing.T) {
	var now atomic.Int32
	set := func(c relay.Condition) { now.Store(int32(c)) }
	c := testConfig(t)
	c.Condition = func() relay.Condition { return relay.Condition(now.Load()) }
	f := start(t, c, ListenerConfig{Name: "test", Mode: ModePlain})
	login := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00joe\x00secret"))

	idle, busy := hail(t, f.addr, 220), hail(t, f.addr, 220)
	say(t, idle, "EHLO client.example", 250)
	say(t, busy, "EHLO client.example", 250)
	say(t, busy, login, 235)
	say(t, busy, "MAIL FROM:<a@b.example>", 250)
	say(t, busy, "RCPT TO:<ann@example.com>", 250)

	set(relay.Suspended)
	say(t, idle, login, 454)
	fresh := hail(t, f.addr, 220)
	say(t, fresh, "EHLO client.example", 250)
	say(t, fresh, login, 454)
	set(relay.Away) // the store may answer yet
	say(t, idle, login, 235)
	say(t, idle, "MAIL FROM:<a@b.example>", 250)
	say(t, idle, "RSET", 250)
	set(relay.Suspended)
	say(t, idle, "MAIL FROM:<a@b.example>", 451)

	set(relay.Draining)
	hail(t, f.addr, 421)
	say(t, busy, "DATA", 354) // what was begun may end
	say(t, busy, "Subject: x\r\n\r\nx\r\n.", 250)
	say(t, busy, "MAIL FROM:<a@b.example>", 421)
	if line, err := busy.ReadLine(); err == nil {
		t.Errorf("the session goes on: %s", line)
	}

	set(relay.Working)
	say(t, idle, "MAIL FROM:<a@b.example>", 250)
	f.stop()
	if err := f.wait(); err != nil {
		t.Error(err)
	}
}
