package relay

import "time"

// Domain is a domain that an account sends in the name of. It holds for its
// subdomains too, unless one of them is a Domain itself.
type Domain struct {
	ID      ID     `json:"id"`
	Account ID     `json:"account"`
	Name    string `json:"name"` // lower case A-labels, without the last dot
	// Proof is the value of the ownership record. Many accounts may ask for a
	// domain; the one whose proof is published has it.
	Proof      string     `json:"proof"`
	Publish    string     `json:"publish"`         // how DKIM keys are published: "txt" or "cname"
	ReturnPath string     `json:"return_path"`     // label of the return-path host: "bounce" for bounce.example.com
	Tracking   string     `json:"tracking"`        // label of the tracking host
	Track      Track      `json:"track,omitempty"` // of mail whose credential says nothing
	Broken     BrokenRule `json:"when_broken"`     // what follows when its records are gone
	Keys       []DKIMKey  `json:"keys"`
	Verified   time.Time  `json:"verified,omitzero"` // since when the proof is seen; zero: it is not, or no longer
	Aligned    time.Time  `json:"aligned,omitzero"`  // since when the return path works, so that mail leaves with it; zero: it does not
	Failing    time.Time  `json:"failing,omitzero"`  // since when a record that was there is missing; zero: none is
	Checked    time.Time  `json:"checked,omitzero"`
	Due        time.Time  `json:"due"` // of the next check
	Findings   []Finding  `json:"findings,omitempty"`
	Created    time.Time  `json:"created"`
	Version    int64      `json:"version"`
}

// CheckTracking is the check of a domain's tracking host.
const CheckTracking = "tracking"

// TrackingHost is the domain's own host for links in its mail, where it leads to
// the relay; empty: there is none, or not now.
func (d *Domain) TrackingHost() string {
	if d.Tracking == "" || d.Verified.IsZero() {
		return ""
	}
	for _, f := range d.Findings {
		if f.Check == CheckTracking && f.Status == Good {
			return d.Tracking + "." + d.Name
		}
	}
	return ""
}

// HostCertificate is where the certificate of a domain's tracking host stands.
type HostCertificate struct {
	Host     string           `json:"host"`
	State    CertificateState `json:"state" enum:"there,asked-for,failed,not-yet,not-here" doc:"there: links of its mail can be on the host. asked-for: it will come. failed: it was asked for in vain, and will be again. not-yet: the host does not lead here. not-here: this relay gets none for it"`
	Text     string           `json:"text" doc:"What that means"`
	Advice   string           `json:"advice,omitempty" doc:"What to do"`
	Expires  time.Time        `json:"expires,omitzero" doc:"End of the certificate"`
	Failures int              `json:"failures,omitempty" doc:"Since it was last got"`
	Error    string           `json:"error,omitempty" doc:"What the authority said last"`
	Tried    time.Time        `json:"tried,omitzero" doc:"When it was last asked for"`
	Again    time.Time        `json:"again,omitzero" doc:"When it is asked for again"`
}

// CertificateState is where a certificate stands.
type CertificateState string

const (
	CertificateThere    CertificateState = "there"
	CertificateAskedFor CertificateState = "asked-for"
	CertificateFailed   CertificateState = "failed"
	CertificateNotYet   CertificateState = "not-yet"
	CertificateNotHere  CertificateState = "not-here"
)

// BrokenRule says what follows when a domain's records have been gone for longer
// than the grace period.
type BrokenRule string

const (
	BrokenWarn    BrokenRule = "warn"    // nothing but the report
	BrokenSandbox BrokenRule = "sandbox" // its mail is treated as from an unverified domain
)

// DKIMKey is one key of a domain.
type DKIMKey struct {
	Selector  string    `json:"selector"`
	Algorithm string    `json:"algorithm"` // "rsa" or "ed25519"
	Public    string    `json:"public"`    // value of the DNS record: "v=DKIM1; k=…; p=…"
	Sealed    []byte    `json:"-"`         // the private key (PKCS #8, DER), sealed with the master key
	State     KeyState  `json:"state"`
	Since     time.Time `json:"since"` // of the state
}

// KeyState is where a key stands in its life.
type KeyState string

const (
	KeyWaiting KeyState = "waiting" // to be published; signs as soon as it is seen
	KeySigning KeyState = "signing"
	KeyRetired KeyState = "retired" // signs no more; stays published until mail that it signed has arrived
)

// Finding is one thing that was looked at: a DNS record, a port, a clock.
type Finding struct {
	Check    string   `json:"check"`          // what was looked at: "dkim", "spf", "ptr" …
	Name     string   `json:"name,omitempty"` // of the record or the thing
	Type     string   `json:"type,omitempty"` // of the record: "TXT", "CNAME" …
	Status   Verdict  `json:"status"`
	Found    []string `json:"found,omitempty"`
	Expected []string `json:"expected,omitempty"`
	Text     string   `json:"text"`             // what that means
	Advice   string   `json:"advice,omitempty"` // how to mend it
}

// Verdict is how a look ended.
type Verdict string

const (
	Good    Verdict = "good"
	Warning Verdict = "warning" // works, could be better
	Bad     Verdict = "bad"
	Unknown Verdict = "unknown" // it could not be found out
)
