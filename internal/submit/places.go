package submit

import (
	"fmt"

	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/rewrite"
)

// placeholder gives the first word in the texts of a message that stands for a link
// to unsubscribe; empty: there is none. It is looked for once, here, so that mail
// without one is not read again for each attempt.
func placeholder(c relay.Content) (first string, err error) {
	err = message.Texts(c, rewrite.MaxText, rewrite.MayHavePlaces, func(p message.Part, _ string) bool {
		first = rewrite.FirstPlace(p.Body, p.Type)
		return first != ""
	})
	if err != nil {
		return "", fmt.Errorf("look for placeholders: %w", err)
	}
	return message.Clean(first, 100), nil
}

// unfilled tells what comes of a placeholder that stays as it is: mail to many is
// refused where it would show them one, and for other mail there is a warning, since
// it may well speak of placeholders.
func unfilled(place string, off, links, broadcast bool) (relay.Diagnosis, error) {
	switch {
	case place == "" || links && !off:
		return relay.Diagnosis{}, nil
	case off:
		return relay.Diagnosis{Category: "warning/content", Text: fmt.Sprintf("The text has the placeholder %s. It stays as it is, since the message says that nobody can unsubscribe from it.", place),
			Advice: "If it is to become a link, do not switch unsubscribing off."}, nil
	case broadcast:
		return relay.Diagnosis{}, &relay.Error{Code: relay.BadContent, Text: fmt.Sprintf("The text has the placeholder %s, and this relay has no links to unsubscribe.", place),
			Advice: "Set tracking.listen, or take the placeholder out. With unsubscribing switched off for the message it stays as it is."}
	}
	return relay.Diagnosis{Category: "warning/content", Text: fmt.Sprintf("The text has the placeholder %s. It stays as it is, since this relay has no links to unsubscribe.", place),
		Advice: "Set tracking.listen, or take the placeholder out."}, nil
}
