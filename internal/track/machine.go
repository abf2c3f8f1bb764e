package track

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"postrider/internal/link"
)

//go:embed machines.toml
var builtin string

// Rules tell programs from people.
type Rules struct{ rules []rule }

type rule struct {
	Name string   `toml:"name"`
	As   string   `toml:"as"`
	For  string   `toml:"for"`
	Is   []string `toml:"is"`
	Has  []string `toml:"has"` // in lower case, once they are read
}

// OpenRules reads the rules that come with the program.
func OpenRules() (*Rules, error) { return readRules(builtin) }

func readRules(text string) (*Rules, error) {
	var file struct {
		Rule []rule `toml:"rule"`
	}
	d := toml.NewDecoder(strings.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, fmt.Errorf("read rules for machines: %w", err)
	}
	for i := range file.Rule {
		r := &file.Rule[i]
		for n, part := range r.Has {
			r.Has[n] = strings.ToLower(part)
		}
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("read rules for machines: rule %d, %q: %w", i+1, r.Name, err)
		}
	}
	return &Rules{file.Rule}, nil
}

func (r *rule) check() error {
	switch {
	case r.Name == "":
		return errors.New("it has no name")
	case r.As != "machine" && r.As != "proxy":
		return fmt.Errorf("it is for a machine or a proxy, not %q", r.As)
	case r.For != "" && r.For != "open" && r.For != "click":
		return fmt.Errorf("it holds for an open or a click, not %q", r.For)
	case len(r.Is)+len(r.Has) == 0:
		return errors.New("it fits nothing")
	}
	for _, part := range r.Has {
		if len(part) < 3 {
			return fmt.Errorf("%q is found in too much", part)
		}
	}
	return nil
}

func (r *rule) fits(d Deed, agent string) bool {
	if r.For == "open" && d.Link.Kind != link.Open || r.For == "click" && d.Link.Kind != link.Click {
		return false
	}
	for _, whole := range r.Is {
		if d.UserAgent == whole {
			return true
		}
	}
	for _, part := range r.Has {
		if strings.Contains(agent, part) {
			return true
		}
	}
	return false
}

// What machines are called that no rule names.
const (
	tooEarly = "within seconds of the delivery"
	allLinks = "many links at once"
	fetching = "prefetch"
	nameless = "program without a name"
	headOnly = "link check"
)

const (
	burst     = 3               // different links
	burstTime = 2 * time.Second // in which no person follows so many
)

// Judge tells which machine did a deed, or which proxy stands between a person and
// us; both are empty for a person, as far as can be told. delivered is when the
// delivery was acknowledged; zero: it is not yet. near is what else was done of
// late with the same delivery. early is how soon after it nobody can have read
// anything; 0: that is no sign.
func (r *Rules) Judge(d Deed, delivered time.Time, near []Deed, early time.Duration) (machine, proxy string) {
	agent := strings.ToLower(d.UserAgent)
	for i := range r.rules {
		if !r.rules[i].fits(d, agent) {
			continue
		}
		if r.rules[i].As == "machine" {
			return r.rules[i].Name, ""
		}
		proxy = r.rules[i].Name
		break
	}
	switch {
	case d.Head:
		return headOnly, ""
	case d.Ahead:
		return fetching, ""
	case strings.TrimSpace(agent) == "":
		return nameless, ""
	case d.Link.Kind == link.Click && crowd(d, near) >= burst:
		return allLinks, ""
	case early > 0 && (delivered.IsZero() || d.At.Sub(delivered) < early):
		return tooEarly, ""
	}
	return "", proxy
}

// crowd counts the different links of the message that were followed about when
// this one was.
func crowd(d Deed, near []Deed) int {
	seen := map[string]bool{d.Link.Target: true}
	for _, o := range near {
		if o.Link.Kind == link.Click && o.At.Sub(d.At).Abs() <= burstTime {
			seen[o.Link.Target] = true
		}
	}
	return len(seen)
}
