package doctor

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"postrider/internal/relay"
)

// How far a clock may be off: TLS and signatures bear minutes, dates in mail and
// retries seconds.
const (
	clockSome = 2 * time.Second
	clockMuch = 5 * time.Minute
)

// clock compares this machine's clock with the store's, and with that of an NTP
// server where one is named.
func (d *Doctor) clock(ctx context.Context) []relay.Finding {
	var out []relay.Finding
	if d.store != nil {
		ahead, err := d.store.Ahead(ctx)
		if err == nil {
			out = append(out, judgeClock("the store", ahead))
		}
	}
	if d.config.TimeServer == "" {
		return out
	}
	f := relay.Finding{Check: "clock", Name: d.config.TimeServer}
	ahead, err := d.ntp(ctx, d.config.TimeServer)
	if err != nil {
		f.Status, f.Text = relay.Unknown, "The time server does not answer: "+brief(err)+"."
		return append(out, f)
	}
	f = judgeClock(d.config.TimeServer, ahead)
	return append(out, f)
}

func judgeClock(with string, ahead time.Duration) relay.Finding {
	way := " ahead"
	if ahead < 0 {
		way = " behind"
	}
	f := relay.Finding{Check: "clock", Name: with, Status: relay.Good, Text: "The clocks agree.", Found: []string{ahead.Abs().Round(time.Millisecond).String() + way}}
	switch off := ahead.Abs(); {
	case off >= clockMuch:
		f.Status, f.Text = relay.Bad, "This machine's clock is wrong: signatures, certificates and dates in mail fail by that."
	case off >= clockSome:
		f.Status, f.Text = relay.Warning, "This machine's clock is off: dates in mail are."
	default:
		return f
	}
	f.Advice = "Set it by NTP: chrony or systemd-timesyncd does that by itself."
	return f
}

// ntpEpoch is when NTP's seconds begin (RFC 5905 section 6).
var ntpEpoch = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)

// ntp asks a time server, and gives how far this machine's clock is ahead of it
// (RFC 4330 section 5).
func (d *Doctor) ntp(ctx context.Context, server string) (time.Duration, error) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return 0, err
	}
	addrs, err := d.dns.Addrs(ctx, host)
	if err != nil {
		return 0, err
	}
	var last error
	for _, a := range addrs[:min(len(addrs), 2)] {
		ahead, err := askTime(ctx, net.JoinHostPort(a.String(), port), d.now)
		if err == nil {
			return ahead, nil
		}
		last = err
	}
	return 0, last
}

const ntpTime = 3 * time.Second

func askTime(ctx context.Context, address string, now func() time.Time) (time.Duration, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	until := time.Now().Add(ntpTime)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	if err := conn.SetDeadline(until); err != nil {
		return 0, err
	}
	var q [48]byte
	q[0] = 4<<3 | 3 // version 4, client
	// What comes back must repeat it: nobody who does not see it can answer.
	if _, err := rand.Read(q[40:48]); err != nil {
		return 0, err
	}
	sent := now()
	if _, err := conn.Write(q[:]); err != nil {
		return 0, err
	}
	var a [512]byte
	for {
		n, err := conn.Read(a[:])
		if err != nil {
			return 0, err
		}
		if n < 48 || [8]byte(a[24:32]) != [8]byte(q[40:48]) || a[0]&7 != 4 {
			continue // not the answer to this
		}
		if a[0]>>6 == 3 || a[1] == 0 || a[1] > 15 {
			return 0, errors.New("it does not know the time itself")
		}
		back := now()
		received, answered := ntpStamp(a[32:40], sent), ntpStamp(a[40:48], sent)
		return -(received.Sub(sent) + answered.Sub(back)) / 2, nil
	}
}

// ntpStamp reads a timestamp, in the era that is nearest to about.
func ntpStamp(b []byte, about time.Time) time.Time {
	const era = int64(1) << 32
	seconds, part := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	since := about.Unix() - ntpEpoch.Unix()
	seconds += (since - seconds + era/2) / era * era
	return time.Unix(ntpEpoch.Unix()+seconds, part*1e9>>32)
}

// Space below which a disk is too full: then, and before.
const (
	diskBad  = 256 << 20
	diskLow  = 2 << 30
	diskPart = 20 // a twentieth free, at least
)

// Disk looks how much room is left for the data folder.
func (d *Doctor) Disk(context.Context) relay.Finding {
	f := relay.Finding{Check: "disk", Name: d.config.Data}
	free, whole, err := space(d.config.Data)
	if err != nil {
		f.Status, f.Text = relay.Unknown, "The room that is left can't be found out: "+err.Error()+"."
		return f
	}
	return judgeDisk(f, free, whole)
}

// disk looks whether the data folder can be written, and what is left there.
func (d *Doctor) disk(ctx context.Context) []relay.Finding {
	f := relay.Finding{Check: "disk", Name: d.config.Data}
	file, err := os.CreateTemp(d.config.Data, ".doctor-*")
	if err != nil {
		f.Status, f.Text = relay.Bad, "The data folder can't be written: "+err.Error()+"."
		f.Advice = "Run this as the user that runs the server; or make room, and mend the rights of the folder."
		return []relay.Finding{f}
	}
	name := file.Name()
	if err := errors.Join(file.Close(), os.Remove(name)); err != nil {
		f.Status, f.Text = relay.Warning, "A file in the data folder can't be removed: "+err.Error()+"."
		return []relay.Finding{f}
	}
	return []relay.Finding{d.Disk(ctx)}
}

func judgeDisk(f relay.Finding, free, whole uint64) relay.Finding {
	f.Found = []string{fmt.Sprintf("%s free of %s", bytesText(free), bytesText(whole))}
	f.Status, f.Text = relay.Good, "There is room for mail."
	advice := "Make room, or move the data folder to a larger disk. Mail that finds no room is answered 452, and not lost."
	switch {
	case free < diskBad:
		f.Status, f.Text, f.Advice = relay.Bad, "The disk is as good as full.", advice
	case free < diskLow || whole > 0 && free < whole/diskPart && free < 5*diskLow:
		f.Status, f.Text, f.Advice = relay.Warning, "The disk gets full.", advice
	}
	return f
}

func bytesText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
	default:
		return fmt.Sprintf("%d MB", n>>20)
	}
}

// slowStore is how long the store may take to answer.
const slowStore = 500 * time.Millisecond

// storage looks whether the store answers.
func (d *Doctor) storage(ctx context.Context) []relay.Finding {
	f := relay.Finding{Check: "store", Name: d.config.StoreName}
	if d.store == nil {
		f.Status, f.Text = relay.Unknown, "No server runs, so the store and the domains in it were not looked at."
		f.Advice = "Start it with \"postrider serve\", and ask again."
		return []relay.Finding{f}
	}
	began := time.Now()
	_, err := d.store.Ahead(ctx)
	took := time.Since(began)
	switch {
	case err != nil:
		f.Status, f.Text, f.Advice = relay.Bad, "The store does not answer: "+err.Error()+".", "No mail is taken until it does. Look at the database server, and at the disk."
	case took > slowStore:
		f.Status, f.Text = relay.Warning, "The store is slow: "+took.Round(time.Millisecond).String()+" for an answer."
	default:
		f.Status, f.Text = relay.Good, "The store answers."
	}
	return []relay.Finding{f}
}
