package smtpclient

import (
	"slices"
	"strconv"
	"strings"
)

// Extensions is what the peer offered in its reply to EHLO. It is zero for a
// peer that knows only HELO.
type Extensions struct {
	HasSize      bool
	Size         int64 // largest message in bytes; 0: no limit is told (RFC 1870)
	Pipelining   bool
	EightBitMIME bool
	SMTPUTF8     bool
	Chunking     bool
	DSN          bool
	StartTLS     bool
	RequireTLS   bool
	MTPriority   bool
	Auth         []string // mechanisms, upper case
	// LIMITS (RFC 9422); 0: none is told.
	MailMax       int // transactions in one session
	RcptMax       int // recipients in one transaction
	RcptDomainMax int // domains among the recipients of one transaction
}

// parseExtensions reads the lines of the reply to EHLO (RFC 5321 section
// 4.1.1.1). The first one is the peer's name. Names come in any case and with odd
// spacing; "AUTH=LOGIN" is the form of old Microsoft servers.
func parseExtensions(lines []string) Extensions {
	var e Extensions
	for _, line := range lines[min(1, len(lines)):] {
		words := strings.Fields(strings.ToUpper(line))
		if len(words) == 0 {
			continue
		}
		name, first, glued := strings.Cut(words[0], "=")
		args := words[1:]
		if glued && first != "" {
			args = append([]string{first}, args...)
		}
		e.add(name, args)
	}
	return e
}

func (e *Extensions) add(name string, args []string) {
	switch name {
	case "SIZE":
		e.HasSize = true
		if len(args) > 0 {
			if n, err := strconv.ParseInt(args[0], 10, 64); err == nil && n > 0 {
				e.Size = n
			}
		}
	case "PIPELINING":
		e.Pipelining = true
	case "8BITMIME":
		e.EightBitMIME = true
	case "SMTPUTF8":
		e.SMTPUTF8 = true
	case "CHUNKING":
		e.Chunking = true
	case "DSN":
		e.DSN = true
	case "STARTTLS":
		e.StartTLS = true
	case "REQUIRETLS":
		e.RequireTLS = true
	case "MT-PRIORITY":
		e.MTPriority = true
	case "AUTH":
		for _, m := range args {
			if !slices.Contains(e.Auth, m) {
				e.Auth = append(e.Auth, m)
			}
		}
	case "LIMITS":
		e.limits(args)
	}
}

func (e *Extensions) limits(args []string) {
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			continue
		}
		switch name {
		case "MAILMAX":
			e.MailMax = n
		case "RCPTMAX":
			e.RcptMax = n
		case "RCPTDOMAINMAX":
			e.RcptDomainMax = n
		}
	}
}
