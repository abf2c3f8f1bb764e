package smtpd

import (
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// condition is whether this node takes mail.
func (l *listener) condition() relay.Condition {
	if l.config.Condition == nil {
		return relay.Working
	}
	return l.config.Condition()
}

// closed is the reply to a client that wants to begin a message on a node that
// takes none; its code is 0 where it takes some. While the store is only late
// the message is tried: its own reply will tell.
func (l *listener) closed() smtp.Reply {
	switch l.condition() {
	case relay.Draining:
		return draining()
	case relay.Suspended:
		return reply(451, "4.3.0", "Mail can't be stored at the moment. Try again later.")
	}
	return smtp.Reply{}
}

// draining ends a session, so that the client's next one goes to another node.
func draining() smtp.Reply {
	return reply(421, "4.3.2", "This server takes no mail at the moment. Connect again, or try again later.")
}
