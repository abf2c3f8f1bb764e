package relay

import (
	"fmt"
	"strings"
	"time"
)

// Track says what is tracked: some of "opens", "clicks" (of HTML) and "text" (clicks
// of plain text), with spaces between, or "off". Empty says nothing: whoever comes
// next decides.
type Track string

// TrackOff is that nothing is tracked.
const TrackOff Track = "off"

var trackable = []string{"opens", "clicks", "text"}

// Has tells whether one of them is named.
func (t Track) Has(what string) bool { return strings.Contains(" "+string(t)+" ", " "+what+" ") }

// ParseTrack reads words with spaces or commas between them, in any case and order.
func ParseTrack(s string) (Track, error) {
	said := map[string]bool{}
	for _, word := range strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return r == ',' || r <= ' ' }) {
		switch word {
		case "opens", "clicks", "text", "off":
			said[word] = true
		default:
			return "", &Error{Code: Invalid, Text: fmt.Sprintf("%.40q is nothing that can be tracked.", word), Advice: `Name some of "opens", "clicks" and "text", or "off".`}
		}
	}
	if said["off"] && len(said) > 1 {
		return "", &Error{Code: Invalid, Text: fmt.Sprintf("%.80q says two things.", s), Advice: `Name some of "opens", "clicks" and "text", or "off".`}
	}
	if said["off"] {
		return TrackOff, nil
	}
	var words []string
	for _, word := range trackable {
		if said[word] {
			words = append(words, word)
		}
	}
	return Track(strings.Join(words, " ")), nil
}

// Untracked is an address of which an account tracks nothing, since its owner does
// not want it.
type Untracked struct {
	Account ID        `json:"account"`
	Address string    `json:"address"` // in the form that suppressions have: a@x.test, @x.test, @.x.test
	Note    string    `json:"note,omitempty"`
	Created time.Time `json:"created"`
}
