package submit

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"postrider/internal/message"
	"postrider/internal/relay"
)

// Groups knows the groups of accounts, and who has left them.
type Groups interface {
	// Group gives a group of an account, and the default one for no id; nil: there
	// is none.
	Group(ctx context.Context, account relay.ID, id string) (*relay.Group, error)
	// Left gives those of the addresses that have left a group.
	Left(ctx context.Context, account relay.ID, group string, addresses []string) ([]string, error)
}

// optOut says how recipients of a draft can have no more of its kind: as the draft
// says, else its header, else the credential, else the stream. Broadcast mail has a
// link unless somebody says off; other mail only where somebody asks, or where a
// placeholder for one stands in its text or in its List-Unsubscribe.
func (e *Entrance) optOut(ctx context.Context, p *party, d *Draft, f *message.Facts) (o relay.OptOut, warning relay.Diagnosis, err error) {
	group, asked := d.Group, d.Unsubscribe
	if group == "" && asked == "" {
		group, asked = strings.ToLower(f.Group), strings.ToLower(f.Unsubscribe)
		if asked != "" && asked != "on" && asked != "off" { // it names the group itself
			group, asked = asked, ""
		}
	}
	broadcast := cmp.Or(d.Stream, p.Stream) == relay.Broadcast
	if group != "" {
		if o.Group, err = e.group(ctx, p, group); err == nil && o.Group == "" {
			err = &relay.Error{Code: relay.BadContent, Text: fmt.Sprintf("There is no unsubscribe group %q.", message.Clean(group, 64)),
				Advice: "Make the group first, or name one that is there; on and off stand for none."}
		}
	} else if p.Identity.Group != "" {
		o.Group, err = e.group(ctx, p, p.Identity.Group)
	}
	if err == nil && o.Group == "" && broadcast {
		o.Group, err = e.group(ctx, p, "")
	}
	var place string
	if err == nil {
		place, err = placeholder(d.Content)
	}
	if err == nil {
		warning, err = unfilled(place, asked == "off", e.config.Links, broadcast)
	}
	if err != nil {
		return relay.OptOut{}, relay.Diagnosis{}, err
	}
	o.Places = place != ""
	switch asked {
	case "on":
		o.Link = true
	case "":
		o.Link = broadcast || group != "" || p.Identity.Group != "" || (o.Places || f.WantsListUnsubscribe) && e.config.Links
	}
	o.Header = o.Link && !f.HasListUnsubscribe
	return o, warning, nil
}

// group finds a group by its id, or the default one; empty: there is none.
func (e *Entrance) group(ctx context.Context, p *party, id string) (string, error) {
	if e.config.Groups == nil {
		return "", nil
	}
	g, err := e.config.Groups.Group(ctx, p.Account, id)
	if err != nil || g == nil {
		return "", err
	}
	return g.ID, nil
}

// left gives the places of recipients that have left a group.
func (e *Entrance) left(ctx context.Context, p *party, group string, to []relay.Recipient) (map[int]bool, error) {
	if group == "" {
		return nil, nil
	}
	keys := make([]string, len(to))
	for i, r := range to {
		keys[i] = recipient(r.Address).Key
	}
	found, err := e.config.Groups.Left(ctx, p.Account, group, keys)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	hit := make(map[string]bool, len(found))
	for _, f := range found {
		hit[f] = true
	}
	places := map[int]bool{}
	for i, k := range keys {
		if k != "" && hit[k] {
			places[i] = true
		}
	}
	return places, nil
}

const resubscribe = "They can take it back on their preference page. Only on their word do so yourself."

// unsubscribed is why nothing of a group goes to an address.
func unsubscribed(address, group string) relay.Diagnosis {
	return relay.Diagnosis{Category: "unsubscribed", Text: fmt.Sprintf("Nothing of the group %s is sent to %s: its owner has left the group.", group, address), Advice: resubscribe}
}

func refuseUnsubscribed(address, group string) error {
	return &relay.Error{Code: relay.Suppressed, Text: fmt.Sprintf("Nothing of the group %s may be sent to <%s>: its owner has left the group.", group, message.Clean(address, 320)), Advice: resubscribe}
}
