package relay

import (
	"net/netip"
	"time"
)

// Stage says of what a step is.
type Stage string

const (
	StepAccepted  Stage = "accepted"
	StepCheck     Stage = "check"     // what policy and the domain's records say
	StepDNS       Stage = "dns"       // where mail for the domain goes
	StepPolicy    Stage = "policy"    // what TLS the receiver asks for
	StepConnect   Stage = "connect"   // to an address
	StepTLS       Stage = "tls"       // what was agreed
	StepCommand   Stage = "command"   // that we said
	StepReply     Stage = "reply"     // that the receiver gave
	StepSignature Stage = "signature" // who signed, and the return path
	StepOutcome   Stage = "outcome"   // of an attempt, an order or the whole
	StepWait      Stage = "wait"      // until the next attempt
)

// Step is one thing that happened on the way of a delivery that somebody watches.
type Step struct {
	At      time.Time      `json:"at"`
	Attempt int            `json:"attempt,omitempty"` // its number, from 1; 0: of no attempt
	Stage   Stage          `json:"stage"`
	Status  Verdict        `json:"status,omitempty"` // empty: there is nothing to judge
	Text    string         `json:"text,omitempty"`   // what it is, for people
	Advice  string         `json:"advice,omitempty"` // what to do about it
	Hosts   []MailHost     `json:"hosts,omitempty"`  // found in the DNS, or from a route, the preferred first
	Host    string         `json:"host,omitempty"`   // that is connected to
	Addr    netip.AddrPort `json:"addr,omitzero"`
	Source  netip.Addr     `json:"source,omitzero"` // our address
	TLS     *TLS           `json:"tls,omitempty"`
	Command string         `json:"command,omitempty"`
	Reply   *Reply         `json:"reply,omitempty"`
	State   string         `json:"state,omitempty"` // of the delivery, with an outcome
	Next    time.Time      `json:"next,omitzero"`   // attempt
}

// MailHost is a host that takes mail for a domain.
type MailHost struct {
	Name  string       `json:"name"`
	Pref  uint16       `json:"pref"`
	Addrs []netip.Addr `json:"addrs,omitempty"`
}
