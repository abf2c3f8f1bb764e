package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"postrider/internal/relay"
)

const selectAlert = "select id, account, kind, subject, severity, opened, ended, version, detail from alert where "

func (db *DB) scanAlert(row scanner) (*relay.Alert, error) {
	var a relay.Alert
	var id, account, doc []byte
	var opened, ended int64
	if err := row.Scan(&id, &account, &a.Kind, &a.Subject, &a.Severity, &opened, &ended, &a.Version, &doc); err != nil {
		return nil, err
	}
	a.ID, a.Account, a.Opened, a.Ended = toID(id), toID(account), db.clock.time(opened), db.clock.time(ended)
	if err := json.Unmarshal(doc, &a); err != nil {
		return nil, fmt.Errorf("read alert %s: %w", a.ID, err)
	}
	return &a, nil
}

// PutAlert keeps an incident and what is to be told of it, together. One of
// version 0 is new; a Conflict says that there is an open one of its kind and
// subject. Else its version must be the one that is there. It raises the version.
func (db *DB) PutAlert(ctx context.Context, a *relay.Alert, tell []*relay.AlertSend) error {
	if a.ID.IsZero() || a.Account.IsZero() || a.Kind == "" {
		return &relay.Error{Code: relay.Invalid, Text: "An alert needs an id, an account and a kind."}
	}
	doc, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode alert: %w", err)
	}
	err = db.write(ctx, "keep alert", func(ctx context.Context, w *writer) error {
		var n int64
		var err error
		if a.Version == 0 {
			n, err = w.exec(ctx, "insert into alert (id, account, kind, subject, severity, opened, ended, version, detail) values (?, ?, ?, ?, ?, ?, 0, 1, ?) on conflict do nothing",
				a.ID[:], a.Account[:], string(a.Kind), text(a.Subject), string(a.Severity), db.clock.micros(a.Opened), doc)
		} else {
			n, err = w.exec(ctx, "update alert set severity = ?, ended = ?, version = version + 1, detail = ? where id = ? and version = ?",
				string(a.Severity), db.clock.micros(a.Ended), doc, a.ID[:], a.Version)
		}
		if err == nil && n == 0 {
			err = overtaken()
		}
		if err != nil {
			return err
		}
		for _, s := range tell {
			if err := db.putSend(ctx, w, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		a.Version++
	}
	return err
}

func (db *DB) putSend(ctx context.Context, w *writer, s *relay.AlertSend) error {
	doc, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode alert: %w", err)
	}
	return w.send(ctx, "insert into alert_send (id, alert, account, channel, target, due, detail) values (?, ?, ?, ?, ?, ?, ?)",
		s.ID[:], s.Alert[:], s.Account[:], s.Channel[:], text(s.Target), db.clock.micros(s.Due), doc)
}

// OpenAlerts gives the incidents that have not ended, of all accounts.
func (db *DB) OpenAlerts(ctx context.Context) ([]*relay.Alert, error) {
	return collect(ctx, db, "read open alerts", db.scanAlert, selectAlert+"ended = 0 order by id")
}

// Alerts gives incidents of the account, the newest first.
func (db *DB) Alerts(ctx context.Context, account relay.ID, f relay.AlertFilter) ([]*relay.Alert, error) {
	var c conditions
	c.account("account", account)
	if f.Kind != "" {
		c.add("kind = ?", string(f.Kind))
	}
	if f.Open {
		c.add("ended = 0")
	}
	if f.Ended {
		c.add("ended > 0")
	}
	if !f.Before.IsZero() {
		c.add("id < ?", f.Before[:])
	}
	return collect(ctx, db, "read alerts", db.scanAlert, selectAlert+c.String()+" order by id desc limit ?", append(c.args, page(f.Limit))...)
}

// Alert gives an incident of the account.
func (db *DB) Alert(ctx context.Context, account, id relay.ID) (*relay.Alert, error) {
	var c conditions
	c.account("account", account)
	c.add("id = ?", id[:])
	found, err := collect(ctx, db, "read alert", db.scanAlert, selectAlert+c.String(), c.args...)
	return only(found, err, notFound("alert", id))
}

// TakeAlert notes that somebody looks after an open incident of the account, or
// that nothing is to be told of it until a time; change says which.
func (db *DB) TakeAlert(ctx context.Context, by relay.Actor, account, id relay.ID, action string, change func(*relay.Alert)) (after *relay.Alert, err error) {
	err = db.edit(ctx, "change alert", func(ctx context.Context, w *writer) (*edit, error) {
		var c conditions
		c.account("account", account)
		c.add("id = ?", id[:])
		found, err := look(ctx, w, db.scanAlert, selectAlert+c.String(), c.args...)
		before, err := only(found, err, notFound("alert", id))
		if err != nil {
			return nil, err
		}
		if !before.Ended.IsZero() {
			return nil, &relay.Error{Code: relay.Conflict, Text: "The incident has ended."}
		}
		a := *before
		change(&a)
		doc, err := json.Marshal(a)
		if err != nil {
			return nil, fmt.Errorf("encode alert: %w", err)
		}
		a.Version++
		n, err := w.exec(ctx, "update alert set version = ?, detail = ? where id = ? and version = ?", a.Version, doc, id[:], before.Version)
		if err == nil && n == 0 {
			err = overtaken()
		}
		after = &a
		return &edit{by: by, account: before.Account, action: action, object: id.String(), after: map[string]any{"kind": a.Kind, "subject": a.Subject, "muted": a.Muted}, silent: true}, err
	})
	return after, err
}

const selectSend = "select id, alert, account, channel, target, due, detail from alert_send where "

func (db *DB) scanSend(row scanner) (*relay.AlertSend, error) {
	var s relay.AlertSend
	var id, alert, account, channel, doc []byte
	var due int64
	if err := row.Scan(&id, &alert, &account, &channel, &s.Target, &due, &doc); err != nil {
		return nil, err
	}
	s.ID, s.Alert, s.Account, s.Channel, s.Due = toID(id), toID(alert), toID(account), toID(channel), db.clock.time(due)
	if err := json.Unmarshal(doc, &s); err != nil {
		return nil, fmt.Errorf("read what is told of alert %s: %w", s.Alert, err)
	}
	return &s, nil
}

// DueAlertSends gives what is to be told now, the oldest first: to each receiver one
// thing, so that much for one that takes nothing keeps none from the others.
func (db *DB) DueAlertSends(ctx context.Context, now time.Time, limit int) ([]*relay.AlertSend, error) {
	return collect(ctx, db, "read what is to be told", db.scanSend, "select id, alert, account, channel, target, due, detail from"+
		" (select id, alert, account, channel, target, due, detail, row_number() over (partition by channel, target order by id) as place from alert_send where due > 0 and due <= ?) s"+
		" where place = 1 order by id limit ?", db.clock.micros(now), limit)
}

// SetAlertSend notes what came of a try, and with a channel how that works.
func (db *DB) SetAlertSend(ctx context.Context, s *relay.AlertSend) error {
	doc, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode alert: %w", err)
	}
	return db.write(ctx, "note what was told", func(ctx context.Context, w *writer) error {
		if _, err := w.exec(ctx, "update alert_send set due = ?, detail = ? where id = ?", db.clock.micros(s.Due), doc, s.ID[:]); err != nil || s.Channel.IsZero() {
			return err
		}
		found, err := look(ctx, w, db.scanChannel, selectChannel+"id = ?", s.Channel[:])
		if err != nil || len(found) == 0 { // it was removed
			return err
		}
		state := found[0].State
		switch {
		case s.Error == "":
			state = relay.ChannelState{Sent: state.Sent + 1, Last: db.clock.now()}
		case state.Failing.IsZero():
			state.Failing = db.clock.now()
			fallthrough
		default:
			state.Error = s.Error
		}
		if doc, err = json.Marshal(state); err != nil {
			return fmt.Errorf("encode state: %w", err)
		}
		_, err = w.exec(ctx, "update alert_channel set state = ? where id = ?", doc, s.Channel[:])
		return err
	})
}

// AlertSends gives what was told of an incident of the account, and what is to be.
func (db *DB) AlertSends(ctx context.Context, account, alert relay.ID) ([]*relay.AlertSend, error) {
	var c conditions
	c.account("account", account)
	c.add("alert = ?", alert[:])
	const most = 500
	return collect(ctx, db, "read what was told", db.scanSend, selectSend+c.String()+" order by id limit ?", append(c.args, most)...)
}

// EndAlerts forgets incidents that ended before a time, and what was told of them.
func (db *DB) EndAlerts(ctx context.Context, before time.Time) error {
	return db.write(ctx, "forget alerts", func(ctx context.Context, w *writer) error {
		at := db.clock.micros(before)
		for _, text := range []string{"delete from alert_send where alert in (select id from alert where ended > 0 and ended < ?)", "delete from alert where ended > 0 and ended < ?"} {
			if _, err := w.exec(ctx, text, at); err != nil {
				return err
			}
		}
		return nil
	})
}

// channelRow is a channel with what its JSON leaves out.
type channelRow struct {
	*relay.AlertChannel
	Sealed []byte `json:"sealed,omitempty"`
}

const selectChannel = "select id, account, kind, settings, state, created from alert_channel where "

func (db *DB) scanChannel(row scanner) (*relay.AlertChannel, error) {
	var ch relay.AlertChannel
	var id, account, doc, state []byte
	var created int64
	if err := row.Scan(&id, &account, &ch.Kind, &doc, &state, &created); err != nil {
		return nil, err
	}
	ch.ID, ch.Account, ch.Created = toID(id), toID(account), db.clock.time(created)
	kept := channelRow{AlertChannel: &ch}
	if err := json.Unmarshal(doc, &kept); err != nil {
		return nil, fmt.Errorf("read channel %s: %w", ch.ID, err)
	}
	ch.Sealed = kept.Sealed
	if err := json.Unmarshal(state, &ch.State); err != nil {
		return nil, fmt.Errorf("read state of channel %s: %w", ch.ID, err)
	}
	return &ch, nil
}

// AddAlertChannel keeps a channel. An account has up to that many; one more is a
// relay.Error TooMany.
func (db *DB) AddAlertChannel(ctx context.Context, by relay.Actor, ch *relay.AlertChannel, most int) error {
	if ch.ID.IsZero() || ch.Account.IsZero() || ch.Account == relay.Everyone || ch.Kind == "" {
		return &relay.Error{Code: relay.Invalid, Text: "A channel needs an id, an account and a kind."}
	}
	doc, err := json.Marshal(channelRow{ch, ch.Sealed})
	if err != nil {
		return fmt.Errorf("encode channel: %w", err)
	}
	return db.edit(ctx, "add channel", func(ctx context.Context, w *writer) (*edit, error) {
		n, err := w.exec(ctx, "insert into alert_channel (id, account, kind, settings, state, created)"+
			" select ?, ?, ?, ?, ?, cast(? as bigint) where (select count(*) from alert_channel where account = ?) < ?",
			ch.ID[:], ch.Account[:], string(ch.Kind), doc, []byte("{}"), db.clock.micros(ch.Created), ch.Account[:], most)
		if err == nil && n == 0 {
			err = &relay.Error{Code: relay.TooMany, Text: fmt.Sprintf("An account has at most %d channels for alerts.", most), Advice: "Remove one that is not needed."}
		}
		return &edit{by: by, account: ch.Account, action: "alert.channel.add", object: ch.ID.String(), after: ch, silent: true}, err
	})
}

// RemoveAlertChannel removes a channel of the account; what was to be told by it
// is not told.
func (db *DB) RemoveAlertChannel(ctx context.Context, by relay.Actor, account, id relay.ID) error {
	return db.edit(ctx, "remove channel", func(ctx context.Context, w *writer) (*edit, error) {
		var c conditions
		c.account("account", account)
		c.add("id = ?", id[:])
		found, err := look(ctx, w, db.scanChannel, selectChannel+c.String(), c.args...)
		before, err := only(found, err, notFound("channel", id))
		if err != nil {
			return nil, err
		}
		if _, err := w.exec(ctx, "update alert_send set due = 0 where channel = ? and due > 0", id[:]); err != nil {
			return nil, err
		}
		_, err = w.exec(ctx, "delete from alert_channel where id = ?", id[:])
		return &edit{by: by, account: before.Account, action: "alert.channel.remove", object: id.String(), before: before, silent: true}, err
	})
}

// AlertChannel gives a channel of the account.
func (db *DB) AlertChannel(ctx context.Context, account, id relay.ID) (*relay.AlertChannel, error) {
	var c conditions
	c.account("account", account)
	c.add("id = ?", id[:])
	found, err := collect(ctx, db, "read channel", db.scanChannel, selectChannel+c.String(), c.args...)
	return only(found, err, notFound("channel", id))
}

// AlertChannels gives the account's channels after the one of that id, the oldest
// first.
func (db *DB) AlertChannels(ctx context.Context, account, after relay.ID, limit int) ([]*relay.AlertChannel, error) {
	var c conditions
	c.account("account", account)
	c.add("id > ?", after[:])
	return collect(ctx, db, "read channels", db.scanChannel, selectChannel+c.String()+" order by id limit ?", append(c.args, page(limit))...)
}

// AlertRules gives what accounts have set; of one that has set nothing there is
// none.
func (db *DB) AlertRules(ctx context.Context, account relay.ID) ([]*relay.AlertRules, error) {
	var c conditions
	c.account("account", account)
	return collect(ctx, db, "read rules of alerts", func(row scanner) (*relay.AlertRules, error) {
		var r relay.AlertRules
		var id, doc []byte
		err := row.Scan(&id, &doc, &r.Version)
		if err == nil {
			err = json.Unmarshal(doc, &r)
		}
		r.Account = toID(id)
		return &r, err
	}, "select account, settings, version from alert_rule where "+c.String()+" order by account", c.args...)
}

// SetAlertRules sets what an account wants to be alerted of. The version must be
// the one that is there, 0 where there is none; it is raised.
func (db *DB) SetAlertRules(ctx context.Context, by relay.Actor, r *relay.AlertRules) error {
	if r.Account.IsZero() || r.Account == relay.Everyone {
		return &relay.Error{Code: relay.Invalid, Text: "Rules of alerts need an account."}
	}
	doc, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode rules: %w", err)
	}
	err = db.edit(ctx, "set rules of alerts", func(ctx context.Context, w *writer) (*edit, error) {
		n, err := w.exec(ctx, "insert into alert_rule (account, settings, version) values (?, ?, ?) on conflict (account) do update set settings = excluded.settings, version = excluded.version"+
			" where alert_rule.version = ?", r.Account[:], doc, r.Version+1, r.Version)
		if err == nil && n == 0 {
			err = overtaken()
		}
		return &edit{by: by, account: r.Account, action: "alert.rules", object: r.Account.String(), after: r, silent: true}, err
	})
	if err == nil {
		r.Version++
	}
	return err
}

// SeenReplies gives what receivers said in the last outcomes of these kinds since
// a time, the newest first. It looks at no more than that many events.
func (db *DB) SeenReplies(ctx context.Context, account relay.ID, kinds [2]relay.Kind, since time.Time, rows int) ([]*relay.SeenReply, error) {
	first := idAt(since)
	var c conditions
	c.account("e.account", account)
	c.add("e.kind in (?, ?)", int64(kinds[0]), int64(kinds[1]))
	return collect(ctx, db, "read replies", func(row scanner) (*relay.SeenReply, error) {
		var r relay.SeenReply
		var message []byte
		err := row.Scan(&message, &r.Delivery.N, &r.Provider, &r.Domain, &r.Reply.Code, &r.Reply.Enhanced, &r.Reply.Text, &r.Category, &r.Text, &r.Advice)
		r.Delivery.Message = toID(message)
		return &r, err
	}, "select d.message, d.n, d.provider, d.domain, d.code, d.enhanced, d.reply, d.category, d.diagnosis, d.advice from"+
		" (select id, account, kind, message, n from event where id >= ? order by id desc limit ?) e join delivery d on d.message = e.message and d.n = e.n where "+c.String()+
		" order by e.id desc limit ?", append(append([]any{first[:], rows}, c.args...), 500)...)
}

// WebhookHealth is a webhook, and how far it has come.
type WebhookHealth struct {
	Webhook  *relay.Webhook
	Progress *relay.WebhookProgress
}

// WebhooksInTrouble gives the webhooks of all accounts that fail, or were disabled.
func (db *DB) WebhooksInTrouble(ctx context.Context) ([]*WebhookHealth, error) {
	all, err := collect(ctx, db, "read webhooks", func(row scanner) (*WebhookHealth, error) {
		var h relay.Webhook
		var p relay.WebhookProgress
		var id, account, settings, progress []byte
		if err := row.Scan(&id, &account, &settings, &progress); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(settings, &h); err != nil {
			return nil, fmt.Errorf("read webhook %s: %w", toID(id), err)
		}
		if err := json.Unmarshal(progress, &p); err != nil {
			return nil, fmt.Errorf("read progress of webhook %s: %w", toID(id), err)
		}
		h.ID, h.Account = toID(id), toID(account)
		if h.Status == relay.WebhookPaused || h.Status == relay.WebhookActive && p.Failing.IsZero() {
			return nil, nil
		}
		return &WebhookHealth{&h, &p}, nil
	}, "select h.id, h.account, h.settings, p.progress from webhook h join webhook_progress p on p.webhook = h.id order by h.id")
	var found []*WebhookHealth
	for _, h := range all {
		if h != nil {
			found = append(found, h)
		}
	}
	return found, err
}
